//! One file a command.

pub(crate) mod accept_rollback;
pub(crate) mod bench;
pub(crate) mod conflicts;
pub(crate) mod device;
pub(crate) mod export;
pub(crate) mod gc;
pub(crate) mod history;
pub(crate) mod init;
pub(crate) mod invite;
pub(crate) mod join;
pub(crate) mod member;
pub(crate) mod mount;
pub(crate) mod passphrase;
pub(crate) mod pin;
pub(crate) mod recovery;
pub(crate) mod restore;
pub(crate) mod scrub;
pub(crate) mod snapshot;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod unmount;
pub(crate) mod verify;

use crate::exit::{Exit, Failure, Outcome};

/// The runtime that everything asynchronous of one command runs on.
pub(crate) fn runtime() -> Outcome<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Exit::Other, format!("cannot start threads: {e}")))
}
