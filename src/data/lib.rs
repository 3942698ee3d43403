//! The contents of files: sealed blocks packed into segments (docs/format/segments.md), the journal
//! that makes them survive a crash (docs/durability.md), their upload, and reading them back through caches.
//! The journal entry is durable before whatever promised it is acknowledged; no bytes are used
//! before their hash and their seal were checked.
#![forbid(unsafe_code)]

pub mod block;
pub mod error;
pub mod journal;
pub mod read_ahead;
pub mod segment;
pub mod store;

pub use block::{Block, BlockRef, Gain};
pub use error::{DataError, Flaw};
pub use journal::{Finding, Journal, JournalConfig, Lsn, Replay, ReplayedSegment, Room};
pub use read_ahead::ReadAhead;
pub use skrin_crypto::FileKey;
pub use store::{
    BlockRead, DataConfig, DataCounters, DataParts, DataStore, Mended, PendingSummary, Relocation,
    Verified,
};
