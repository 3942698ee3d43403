//! Where the process behind a mount writes what it does: a file in the state directory, or standard error.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

use crate::exit::{Failure, Outcome};

/// The log is moved aside at the start of a mount when it is longer than this.
const LONG: u64 = 8 << 20;

/// What is logged unless `SKRIN_LOG` says otherwise.
fn filter() -> EnvFilter {
    EnvFilter::try_from_env("SKRIN_LOG").unwrap_or_else(|_| EnvFilter::new("warn,skrin_cli=info"))
}

/// Logs to standard error.
pub(crate) fn to_stderr() {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter())
        .with_writer(std::io::stderr);
    // Fails only where a test has set one before.
    let _ = subscriber.try_init();
}

/// Logs to the file `log` of a state directory; panics go there too.
///
/// # Errors
/// Where the file cannot be opened.
pub(crate) fn to_file(state_dir: &Path) -> Outcome {
    let path = state_dir.join("log");
    if std::fs::metadata(&path).is_ok_and(|meta| meta.len() > LONG) {
        let _ = std::fs::rename(&path, state_dir.join("log.old"));
    }
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path);
    let file = file.map_err(|e| Failure::io(&path, "cannot open the log", &e))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter())
        .with_ansi(false);
    let _ = subscriber.with_writer(Mutex::new(file)).try_init();
    std::panic::set_hook(Box::new(|info| {
        let at = info.location().map(ToString::to_string).unwrap_or_default();
        let text = info.payload_as_str().unwrap_or("no text");
        tracing::error!(at, text, "a part of the program panicked");
    }));
    Ok(())
}
