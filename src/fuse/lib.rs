//! The kernel's side of the file system: a thin adapter over fuser. A handler converts, calls, converts and replies; what may wait is handed to a
//! bounded pool, so that no session thread ever waits for the storage.
#![forbid(unsafe_code)]

mod adapter;
mod convert;
mod error;
mod host;
mod mount;
mod names;
mod notify;
mod pool;
mod reply;
mod unmount;
mod view;

pub use error::MountError;
pub use mount::{MountHandle, MountOptions, mount};
pub use names::Names;
pub use view::View;
