//! The phases: each gets a fresh vault and measures some of the rows.

mod calls;
mod edits;
mod large;
mod many;
mod names;
mod small;

use crate::error::BenchError;
use crate::session::Session;
use clap::ValueEnum;

const MIB: f64 = (1 << 20) as f64;

/// A group of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Phase {
    /// One large file: write, cold and warm read.
    Large,
    /// Many small ones: rsync, find, read.
    Small,
    /// 4 KiB edits with fsync.
    Edits,
    /// Create, rename, unlink.
    Names,
    /// Mounting a vault with very many files.
    Many,
    /// Single calls on what the kernel may have cached.
    Calls,
}

impl Phase {
    /// Does the work; the values are noted in the session.
    ///
    /// # Errors
    /// Of the peer.
    pub fn run(self, session: &mut Session<'_>) -> Result<(), BenchError> {
        match self {
            Self::Large => large::run(session),
            Self::Small => small::run(session),
            Self::Edits => edits::run(session),
            Self::Names => names::run(session),
            Self::Many => many::run(session),
            Self::Calls => calls::run(session),
        }
    }
}
