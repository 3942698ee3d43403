//! The words that every layer shares: identifiers, the canonical encoding, error numbers,
//! limits, and the traits through which time and randomness enter. No I/O happens here.
#![forbid(unsafe_code)]

pub mod clock;
pub mod errno;
pub mod extent;
pub mod ids;
pub mod limits;
pub mod name;
pub mod wire;

pub use clock::{Clock, Entropy, Timestamp};
pub use errno::Errno;
pub use extent::{Content, CopiedRun, Copies, Extent, SegmentInfo, Stored};
pub use ids::{
    DeviceId, EntryId, EpochId, Hash32, Ino, KeyId, LaneId, OpId, PersonId, RoomId, SegmentId,
    VaultId,
};
pub use name::Name;
