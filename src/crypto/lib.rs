//! Keys by purpose, sealing, envelopes, signatures, key derivation: pure functions over bytes.
//! No I/O, no clock; randomness is a parameter. The rules are those of docs/format/README.md,
//! sections 3 to 5, and docs/format/vault.md.
#![forbid(unsafe_code)]

pub mod aad;
pub mod hpke;
pub mod kdf;
pub mod keys;
pub mod mask;
pub mod names;
pub mod pad;
pub mod passphrase;
mod random;
pub mod room;
pub mod seal;
pub mod shares;
pub mod sign;
pub mod words;

#[cfg(test)]
mod frozen;
#[cfg(test)]
mod testing;

pub use aad::{
    BlockAad, CheckpointAad, CommitAad, ControlAad, JoinAad, LocalAad, PageAad, SlotAad, TableAad,
};
pub use hpke::{Envelope, HpkeError, KemPublic, KemSecret, Suite, unwrap, wrap};
pub use keys::{
    CheckpointKey, ControlKey, DeviceSeed, EpochCommitment, EpochKey, FileKey, JoinKey, JoinPart,
    JoinSecret, LaneKey, LaneNameKey, LocalKey, PageKey, RoomSecret, RootSeed, SegmentNameKey,
    SlotCommitment, SlotKey, TableKey, VaultSecret, WordsEntropy,
};
pub use mask::mask_copy;
pub use names::{commit_id, control_id, hash, lane_id, segment_id};
pub use pad::{pad_fine, pad_pow2, unpad_fine, unpad_pow2};
pub use room::{
    Cut, Everybody, KEY_TAG_LEN, Rights, RoomKeys, Roster, RosterDevice, WrongEpochKey, key_tag,
};
pub use seal::{
    BlockCipher, OpenError, Opened, SEAL_OVERHEAD, SealsWith, open, open_block_into, seal,
    seal_block_into,
};
pub use sign::{
    BadSignature, DeviceSigner, RootSigner, Signature, SignatureKind, Verified, VerifyingKey,
    WordsSigner,
};
