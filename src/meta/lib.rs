#![forbid(unsafe_code)]
//! Metadata: operations, the state that they fold into, lanes of commits, checkpoints, and the cache.

pub mod apply;
pub mod cache;
pub mod check;
pub mod checkpoint;
pub mod commit;
pub mod heads;
pub mod lane;
pub mod op;
pub mod order;
pub mod replica;
pub mod rows;
pub mod state;
pub mod undo;
pub mod usage;

pub use apply::{Outcome, RULE_SET, apply};
pub use op::{
    Attributes, Body, Kind, NamedKey, NewNode, Op, OpKind, Place, Seen, SlotRun, VersionRun,
};
pub use rows::{MemoryRows, Row, RowKey, Rows, RowsError};

#[cfg(test)]
mod testing;
