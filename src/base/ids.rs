//! Identifiers. All are opaque; none is derived from plaintext.

use crate::wire::{Decode, Encode, Reader, WireError, Writer};
use std::fmt;

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

fn nibble(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    }
}

/// Parses exactly `N` bytes of lower-case hexadecimal; anything else is `None`.
pub fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut out = [0u8; N];
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(out)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Reads the lower-case hexadecimal form that `Display` prints.
            pub fn from_hex(text: &str) -> Option<Self> {
                parse_hex(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "("))?;
                write_hex(&self.0, f)?;
                f.write_str(")")
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
    };
}

id!(/** Names a vault for ever; 16 random bytes drawn by `init`. */ VaultId, 16);
id!(/** A room: a directory with its own members, keys and lanes. */ RoomId, 16);
id!(/** A device of a person. A clone or a restored backup draws a new one. */ DeviceId, 16);
id!(/** A person. */ PersonId, 16);
id!(/** A lane: PRF(room name key, device and incarnation). */ LaneId, 16);
id!(/** A segment: PRF(room segment-name key, lane, number). */ SegmentId, 16);
id!(/** Names a file key; 16 random bytes. */ KeyId, 16);
id!(/** Names a directory entry, so that a rename moves the entry; 16 random bytes. */ EntryId, 16);
id!(/** The hash of an epoch's sealed control record. */ EpochId, 32);
id!(/** A BLAKE3-256 hash. */ Hash32, 32);

/// An inode number as it stands in the format: the same on every device and after every
/// remount. 63 bits, never 0; 1 is the root of a room.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory of a room.
    pub const ROOT: Self = Self(1);
    /// Where operations on things that only void operations made are collected (created on demand).
    pub const LOST_AND_FOUND: Self = Self(2);
    /// The smallest number that is drawn at random; those below are reserved.
    pub const FIRST_RANDOM: u64 = 16;

    /// Makes a valid random inode number from any 64 bits.
    pub const fn from_random(bits: u64) -> Self {
        let n = bits & (u64::MAX >> 1);
        Self(if n < Self::FIRST_RANDOM {
            n + Self::FIRST_RANDOM
        } else {
            n
        })
    }
}

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Encode for Ino {
    fn encode(&self, w: &mut Writer) {
        w.u64(self.0);
    }
}

impl Decode for Ino {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        match r.u64()? {
            0 => Err(WireError::Value("inode number 0")),
            n if n > u64::MAX >> 1 => Err(WireError::Value("inode number over 63 bits")),
            n => Ok(Self(n)),
        }
    }
}

/// The permanent name of an operation: the device that made it and that device's counter.
/// Folding the same id twice counts once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct OpId {
    /// Who made it.
    pub device: DeviceId,
    /// Starts at 1 and rises by one for each operation of the device.
    pub counter: u64,
}

impl Encode for OpId {
    fn encode(&self, w: &mut Writer) {
        self.device.encode(w);
        w.u64(self.counter);
    }
}

impl Decode for OpId {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            device: DeviceId::decode(r)?,
            counter: r.u64()?,
        })
    }
}
