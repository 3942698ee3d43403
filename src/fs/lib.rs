//! POSIX on the inodes of a room, in our own types: no kernel structure, no key handling and no object name here.
//!
//! Each verb is one file under `ops`, in the order check, plan, one transaction. `commit` is the only way in which the tree changes; `publish` is
//! the only place that knows both metadata and data, and keeps the order segment durable, commit, release of the journal. What programs may rely on is in
//! docs/semantics.md.
#![forbid(unsafe_code)]

mod acl;
mod collect;
mod commit;
mod config;
mod conflicts;
mod content;
mod core;
mod edits;
mod error;
mod file;
mod flush;
mod hold;
mod leases;
mod local;
mod nodes;
mod ops;
mod past;
mod pin;
mod poll;
mod publish;
#[cfg(feature = "testutil")]
pub mod testutil;
mod types;

#[cfg(feature = "testutil")]
pub use config::Drive;

pub use collect::Collected;
pub use config::{
    ControlSource, Durability, FsConfig, FsOptions, JournalRoom, Pending, SpaceSource, Status,
    Waits,
};
pub use conflicts::{Conflict, Kept, Side};
pub use core::{Fs, Shutdown};
pub use error::FsError;
pub use leases::is_lock;
pub use local::{LocalFiles, LocalKeeper};
pub use ops::readdir::{CURRENT_COOKIE, PARENT_COOKIE};
pub use past::{Change, RestoreWish, Restored, Snapshot, Version, When};
pub use pin::PinStatus;
pub use skrin_meta::Kind;
pub use skrin_meta::state::Cause;
pub use types::{
    Allocate, Attr, Caller, DirEntry, HandleId, NodeId, NodeSpec, Notify, OpenMode, RenameMode,
    Seek, SetAttr, SetTime, Space, StatFs, XattrMode,
};
