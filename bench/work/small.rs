//! Two thousand small files.

use crate::error::BenchError;
use crate::metric::{
    FIND_COLD, FIND_WARM, RSYNC, RSYNC_LOCAL, RSYNC_REQUESTS, RSYNC_SENT, SMALL_OBJECTS,
    SMALL_OVERHEAD, SMALL_READ_COLD,
};
use crate::peers::copy;
use crate::process::run as run_command;
use crate::session::{Cost, Session};
use crate::tree::{Volume, read_all, volume};
use std::path::Path;
use std::process::Command;

pub(super) fn run(session: &mut Session<'_>) -> Result<(), BenchError> {
    let source = session.setting.small_tree.clone();
    let content = volume(&source)?;
    session.mount()?;
    let empty = volume(&session.site.storage)?;
    let tree = session.path("tree");
    let (returned, stored) = session.timed(|s| {
        let ((), returned) = s.timed(|_| copy(&source, &tree))?;
        s.settle()?;
        Ok(returned)
    })?;
    session.record(&RSYNC_LOCAL, returned.wall, &returned);
    session.record(&RSYNC, stored.wall, &stored);
    record_storage(session, &stored, content, empty)?;

    session.cold()?;
    let ((), cold) = session.timed(|_| find(&tree))?;
    session.record(&FIND_COLD, cold.wall, &cold);
    let ((), warm) = session.timed(|_| find(&tree))?;
    session.record(&FIND_WARM, warm.wall, &warm);

    session.cold()?;
    let (read, cold) = session.timed(|_| read_all(&tree))?;
    session.record(&SMALL_READ_COLD, cold.wall, &cold);
    if read != content {
        let wrong = format!("wrote {content:?}, read {read:?}");
        return Err(BenchError::Wrong(wrong));
    }
    compare(&source, &tree)
}

fn record_storage(
    session: &mut Session<'_>,
    stored: &Cost,
    content: Volume,
    empty: Volume,
) -> Result<(), BenchError> {
    if let Some(network) = &stored.network {
        let requests = network.requests_total() as f64;
        session.record(&RSYNC_REQUESTS, requests, stored);
        let sent = network.bytes_up as f64 / content.bytes as f64;
        session.record(&RSYNC_SENT, sent, stored);
    }
    let full = volume(&session.site.storage)?;
    let none = Cost::default();
    let objects = full.files.saturating_sub(empty.files) as f64;
    session.record(&SMALL_OBJECTS, objects, &none);
    let bytes = full.bytes.saturating_sub(empty.bytes) as f64;
    session.record(&SMALL_OVERHEAD, bytes / content.bytes as f64, &none);
    Ok(())
}

/// Looks at every inode: find needs the size.
fn find(dir: &Path) -> Result<(), BenchError> {
    let mut command = Command::new("find");
    let found = run_command(command.arg(dir).args(["-type", "f", "-size", "+1G"]))?;
    match found.is_empty() {
        true => Ok(()),
        false => Err(BenchError::Wrong(format!(
            "files that nobody wrote: {found}"
        ))),
    }
}

/// Not measured: what was read must be what was written.
fn compare(source: &Path, tree: &Path) -> Result<(), BenchError> {
    let mut command = Command::new("diff");
    run_command(command.args(["-r", "-q"]).arg(source).arg(tree)).map(drop)
}
