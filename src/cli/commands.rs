//! One file a command.

pub(crate) mod init;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod unmount;

use crate::exit::{Exit, Failure, Outcome};

/// The runtime that everything asynchronous of one command runs on.
fn runtime() -> Outcome<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Exit::Other, format!("cannot start threads: {e}")))
}
