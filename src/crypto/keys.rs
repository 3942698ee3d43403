//! One type for each purpose of a key. None of them prints, copies, clones or compares; all are
//! wiped when dropped. `make_*` draws a key, `derive_*` computes one from another.

use crate::kdf::kdf;
use skrin_base::clock::random;
use skrin_base::ids::Hash32;
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{DeviceId, Entropy, LaneId, RoomId, VaultId};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

#[cfg(test)]
mod tests;

macro_rules! key {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Takes the raw bytes; the caller wipes what he holds.
            pub fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            #[allow(dead_code, reason = "the macro makes it for keys that no one reads too")]
            pub(crate) fn raw(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl From<Zeroizing<[u8; $len]>> for $name {
            fn from(bytes: Zeroizing<[u8; $len]>) -> Self {
                Self(*bytes)
            }
        }
    };
}

macro_rules! stored_key {
    ($(#[$doc:meta])* $name:ident, $len:literal, $make:ident) => {
        key!($(#[$doc])* $name, $len);

        impl $name {
            /// The raw bytes, for writing them into a structure that will be sealed.
            pub fn expose(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl Encode for $name {
            fn encode(&self, w: &mut Writer) {
                w.raw(&self.0);
            }
        }

        impl Decode for $name {
            fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
                r.array().map(Self)
            }
        }

        /// Draws a new one.
        pub fn $make(entropy: &dyn Entropy) -> $name {
            $name(random(entropy))
        }
    };
}

stored_key!(/** Stands in every slot; derives the control keys. */ VaultSecret, 32, make_vault_secret);
stored_key!(/** Stands in the genesis of a room; derives names only. */ RoomSecret, 32, make_room_secret);
stored_key!(/** Of one epoch; travels in envelopes and seals nothing itself. */ EpochKey, 32, make_epoch_key);
stored_key!(/** Seals the table of one segment. */ TableKey, 32, make_table_key);
stored_key!(/** Seals blocks of one file. */ FileKey, 32, make_file_key);
stored_key!(/** Of a person: derives the root's signing and KEM keys. Lives in slots only. */ RootSeed, 32, make_root_seed);
stored_key!(/** Of a device: derives its signing, KEM and local keys. Never leaves the device. */ DeviceSeed, 32, make_device_seed);
stored_key!(/** The 128 bits that the twelve words stand for. */ WordsEntropy, 16, make_words_entropy);

stored_key!(/** The 128 bits that an invitation carries outside the storage; used once. */ JoinSecret, 16, make_join_secret);

key!(/** Seals what two people write to each other while one joins. */ JoinKey, 32);
key!(/** Seals the control records of one room. */ ControlKey, 32);
key!(/** Turns devices into names of lanes. */ LaneNameKey, 32);
key!(/** Turns lanes and numbers into names of segments. */ SegmentNameKey, 32);
key!(/** Seals the commits of one lane in one epoch. */ LaneKey, 32);
key!(/** Seals pages of checkpoints. */ PageKey, 32);
key!(/** Seals roots of checkpoints. */ CheckpointKey, 32);
key!(/** Seals the payload of one slot. */ SlotKey, 32);
key!(/** Seals files of one purpose on this machine; they never reach the storage. */ LocalKey, 32);

/// Proves that two holders have the same epoch key, because AES-GCM-SIV does not commit to
/// its key. Stands in the epoch's record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochCommitment(pub [u8; 32]);

impl Encode for EpochCommitment {
    fn encode(&self, w: &mut Writer) {
        w.raw(&self.0);
    }
}

impl Decode for EpochCommitment {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        r.array().map(Self)
    }
}

/// Stands in the clear part of a slot and tells a wrong secret from a damaged slot.
#[derive(Clone, Copy, Debug)]
pub struct SlotCommitment(pub [u8; 32]);

impl SlotCommitment {
    /// Compares in constant time.
    pub fn matches(&self, other: &Self) -> bool {
        let differing = self.0.iter().zip(other.0).fold(0, |d, (a, b)| d | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

/// Seals the control records of `room`.
pub fn derive_control_key(secret: &VaultSecret, vault: VaultId, room: RoomId) -> ControlKey {
    kdf(secret.raw(), vault, "control", &[&room]).into()
}

/// What the two sides of an invitation write to each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JoinPart {
    /// The keys of the one who joins.
    Request,
    /// What lets him in.
    Answer,
}

impl JoinPart {
    fn number(self) -> u64 {
        match self {
            Self::Request => 1,
            Self::Answer => 2,
        }
    }
}

/// The name under which a part lies: only the two can tell it.
pub fn derive_join_name(secret: &JoinSecret, vault: VaultId, part: JoinPart) -> [u8; 16] {
    let full = kdf(secret.raw(), vault, "join-name", &[&part.number()]);
    let mut name = [0; 16];
    name.copy_from_slice(&full[..16]);
    name
}

/// Seals a part, and so proves that its writer has the secret.
pub fn derive_join_key(secret: &JoinSecret, vault: VaultId, part: JoinPart) -> JoinKey {
    kdf(secret.raw(), vault, "join-seal", &[&part.number()]).into()
}

/// Stands in the record that lets a person in: who has the invitation sees that it answers it, and that it is used up.
pub fn derive_join_tag(secret: &JoinSecret, vault: VaultId, room: RoomId) -> [u8; 32] {
    *kdf(secret.raw(), vault, "join-tag", &[&room])
}

/// Seals what a person who joins keeps on his own disk until he is let in.
pub fn derive_joining_key(root: &RootSeed, vault: VaultId) -> LocalKey {
    kdf(root.raw(), vault, "local-joining", &[]).into()
}

/// Names the lanes of `room`.
pub fn derive_lane_name_key(secret: &RoomSecret, vault: VaultId, room: RoomId) -> LaneNameKey {
    kdf(secret.raw(), vault, "lane-name", &[&room]).into()
}

/// Names the segments of `room`.
pub fn derive_segment_name_key(
    secret: &RoomSecret,
    vault: VaultId,
    room: RoomId,
) -> SegmentNameKey {
    kdf(secret.raw(), vault, "segment-name", &[&room]).into()
}

/// What the epoch's record must say.
pub fn derive_epoch_commitment(key: &EpochKey, vault: VaultId, room: RoomId) -> EpochCommitment {
    EpochCommitment(*kdf(key.raw(), vault, "commit", &[&room]))
}

/// The eight bytes in front of a commit that tell which epoch opens it.
pub fn derive_hint(key: &EpochKey, vault: VaultId, room: RoomId, lane: LaneId) -> [u8; 8] {
    let full = kdf(key.raw(), vault, "hint", &[&room, &lane]);
    let mut hint = [0; 8];
    hint.copy_from_slice(&full[..8]);
    hint
}

/// Seals the commits of `lane`.
pub fn derive_lane_key(key: &EpochKey, vault: VaultId, room: RoomId, lane: LaneId) -> LaneKey {
    kdf(key.raw(), vault, "lane", &[&room, &lane]).into()
}

/// Seals the pages of checkpoints of `room`.
pub fn derive_page_key(key: &EpochKey, vault: VaultId, room: RoomId) -> PageKey {
    kdf(key.raw(), vault, "page", &[&room]).into()
}

/// Seals the roots of checkpoints of `room`.
pub fn derive_checkpoint_key(key: &EpochKey, vault: VaultId, room: RoomId) -> CheckpointKey {
    kdf(key.raw(), vault, "checkpoint", &[&room]).into()
}

/// Seals the file in which a device keeps its own seed; only who opened a slot can open it.
pub fn derive_device_file_key(root: &RootSeed, vault: VaultId, device: DeviceId) -> LocalKey {
    kdf(root.raw(), vault, "local-device", &[&device]).into()
}

/// Seals this device's local files of one `purpose`: `journal`, `heads`, `cache`, `meta`.
pub fn derive_local_key(seed: &DeviceSeed, vault: VaultId, purpose: &str) -> LocalKey {
    kdf(seed.raw(), vault, &format!("local-{purpose}"), &[]).into()
}

impl LocalKey {
    /// The raw key of an encrypted database of this purpose; a key that is given away like
    /// this seals nothing else.
    pub fn into_database_key(self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0)
    }
}

/// The first 16 bytes of a keyed BLAKE3 hash.
pub(crate) fn keyed_id(key: &[u8; 32], message: &[u8]) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&blake3::keyed_hash(key, message).as_bytes()[..16]);
    id
}

/// A BLAKE3-256 hash as an identifier.
pub(crate) fn blake3_hash(bytes: &[u8]) -> Hash32 {
    Hash32(*blake3::hash(bytes).as_bytes())
}
