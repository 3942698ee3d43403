//! Who holds which key, and who may: the header, slots and words, the root, devices and the
//! control records of rooms (docs/format/vault.md). A vault that is [`Unlocked`] is another type
//! than a [`Header`], which is all that one knows without a secret.
#![forbid(unsafe_code)]

pub mod control;
pub mod device;
pub mod epoch;
mod epochs;
pub mod error;
pub mod header;
pub mod identity;
pub mod init;
mod inspect;
pub mod invitation;
pub mod joining;
mod objects;
pub mod officer;
mod own_slots;
mod passphrase;
mod publish;
pub mod record;
pub mod recovery;
pub mod room;
pub mod slot;
pub mod state;
pub mod unlock;

#[cfg(test)]
mod suite;

pub use device::{Device, open_device_file, seal_device_file};
pub use error::{Class, VaultError};
pub use header::{HEADER_NAME, Header, open_header};
pub use identity::{safety_number, safety_words};
pub use init::{InitOptions, InitResult, init};
pub use inspect::slot_objects;
pub use invitation::{Invitation, Offer};
pub use joining::{JoinOptions, Pending, Request, find_request, join_request};
pub use officer::{NewMember, Officer};
pub use publish::Place;
pub use recovery::{Drilled, RecoveryKey};
pub use room::{Room, RoomReader};
pub use skrin_crypto::passphrase::Argon2Params;
pub use state::{
    AuditEntry, BadRecord, ControlState, DeviceInfo, EpochInfo, Member, Person, What, World,
};
pub use unlock::{Anchor, Secret, SlotProblem, Unlocked, unlock, unlock_with_hint};
