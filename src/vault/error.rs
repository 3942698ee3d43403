//! What can go wrong, in words for the person in front of it.

use skrin_base::ids::{EpochId, Hash32};
use skrin_base::limits::FORMAT_VERSION;
use skrin_base::wire::WireError;
use skrin_crypto::passphrase::KdfError;
use skrin_crypto::words::WordsError;
use skrin_crypto::{HpkeError, WrongEpochKey};
use skrin_storage::{ErrorKind, StoreError};
use thiserror::Error;

/// A coarse kind, from which an exit code follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Wrong passphrase or words.
    WrongSecret,
    /// No vault at this place.
    NothingThere,
    /// The storage could not be reached or refused.
    Storage,
    /// Something on the storage was changed, is missing or contradicts itself.
    Integrity,
    /// Made by a newer program.
    Newer,
    /// There is something already.
    Exists,
    /// The person asked for something that is not allowed.
    Usage,
    /// This person or device may not, or the vault cannot take more.
    NotAllowed,
    /// This machine cannot: too little memory.
    Machine,
}

/// Why a vault could not be made, opened or changed.
#[derive(Debug, Error)]
pub enum VaultError {
    /// No header object.
    #[error(
        "there is no vault at {place}: `skrin.vault` is not there; check the address, or make a vault with `skrin init`"
    )]
    NotAVault {
        /// Where.
        place: String,
    },
    /// A header object, at `init`.
    #[error("there is a vault at {place} already: mount it, or choose another place")]
    AlreadyThere {
        /// Where.
        place: String,
    },
    /// Slots or rooms without a header, at `init`.
    #[error(
        "{place} holds {dir}/ but no `skrin.vault`: what an interrupted init left, or a vault that lost its header; remove it by hand if you are sure, or choose another place"
    )]
    Leftovers {
        /// Where.
        place: String,
        /// Which directory.
        dir: String,
    },
    /// A version above ours.
    #[error(
        "{object}: found format version {found}, this program reads up to {FORMAT_VERSION}: update it"
    )]
    NewerVersion {
        /// Which object.
        object: String,
        /// Its version.
        found: u8,
    },
    /// An unknown critical feature, tag or suite.
    #[error("{object}: {cause}")]
    NewerFeature {
        /// Which object.
        object: String,
        /// What is unknown.
        cause: WireError,
    },
    /// No slot knows this secret.
    #[error("wrong {secret}: none of the {slots} slots of this vault opens with it{}{}; {}", untried_text(*.untried), damaged_text(.damaged), wrong_remedy(.secret))]
    WrongSecret {
        /// `passphrase` or `words`.
        secret: &'static str,
        /// How many slots were tried.
        slots: usize,
        /// How many were not, because there are more than can be meant.
        untried: usize,
        /// Slots that could not be tried.
        damaged: Vec<String>,
    },
    /// No slot of that kind.
    #[error("this vault has no slot for {secret}: use the other kind of secret{}", damaged_text(.damaged))]
    NoSlot {
        /// `a passphrase` or `words`.
        secret: &'static str,
        /// Slots that could not be tried.
        damaged: Vec<String>,
    },
    /// Not twelve words.
    #[error("{}", words_text(.0))]
    Words(#[from] WordsError),
    /// Passphrase refused, or parameters out of bounds, or no memory.
    #[error(transparent)]
    Kdf(#[from] KdfError),
    /// An object is not what it must be.
    #[error(
        "{object}: {what}; do not write to this vault, compare with another device or a backup of the storage, and run `skrin verify`"
    )]
    Integrity {
        /// Which object.
        object: String,
        /// What is wrong with it.
        what: String,
    },
    /// An object that others name is not there.
    #[error(
        "{object} is missing, but {named_by} names it: the storage lost or withholds it; restore it from a backup of the storage"
    )]
    Missing {
        /// Which object.
        object: String,
        /// Who says that it exists.
        named_by: String,
    },
    /// Two holders were given different keys.
    #[error(transparent)]
    WrongEpochKey(#[from] WrongEpochKey),
    /// Nothing in this epoch is for us.
    #[error("epoch {0} has no envelope for this person or device: it was removed, or never let in")]
    NotForUs(EpochId),
    /// A secret from a slot that the records do not list must not certify devices.
    #[error(
        "slot {slot} is not listed by the vault (hash {hash}): it was removed or planted; it may read, but may not certify a device"
    )]
    UnlistedSlot {
        /// Its name.
        slot: String,
        /// What it holds now.
        hash: Hash32,
    },
    /// The device file is not ours.
    #[error(
        "the device file of this vault cannot be used: {0}; move it away to certify a new device"
    )]
    DeviceFile(&'static str),
    /// An envelope could not be made.
    #[error("cannot wrap a key: {0}")]
    Wrap(HpkeError),
    /// A label that the format does not allow.
    #[error("{0:?} cannot be a name: 1 to 64 bytes of UTF-8 without control characters")]
    Label(String),
    /// Our own record does not fit; nothing was written.
    #[error("the record would be too large for the format ({0} bytes)")]
    TooLarge(usize),
    /// Something that this person or device may not do.
    #[error("this is not allowed: {0}")]
    NotAllowed(&'static str),
    /// More than the format has room for.
    #[error("there would be {found} {what}; a room has at most {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
        /// The bound.
        limit: usize,
    },
    /// A text that is no invitation, or one that cannot be used.
    #[error("the invitation cannot be used: {0}")]
    Invitation(String),
    /// The other side of an invitation has not written yet.
    #[error("nothing is there yet: {0}")]
    Waiting(&'static str),
    /// What the other side of an invitation wrote is not what it must be.
    #[error("joining failed: {0}")]
    Join(String),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StoreError),
}

fn wrong_remedy(secret: &str) -> &'static str {
    match secret {
        "words" => "check that these are the words of this vault, or use the passphrase",
        _ => {
            "check the spelling, capitals and keyboard layout, and that this is the vault you mean; the twelve words open it too (--words-file)"
        }
    }
}

fn words_text(error: &WordsError) -> String {
    match error {
        WordsError::Count(..) => format!(
            "{error}: give all of them in the order in which they were shown, with nothing but spaces or line ends between"
        ),
        // These two say themselves what to look at.
        WordsError::Unknown(_) | WordsError::Checksum => error.to_string(),
    }
}

fn untried_text(untried: usize) -> String {
    match untried {
        0 => String::new(),
        n => format!(
            "; {n} more were not tried, as each costs a second: use the words, or mount where this person has mounted before; if the vault has not so many members, somebody has planted slots on the storage"
        ),
    }
}

fn damaged_text(damaged: &[String]) -> String {
    if damaged.is_empty() {
        return String::new();
    }
    format!(
        "; these slots are damaged and were not tried: {}",
        damaged.join(", ")
    )
}

impl VaultError {
    /// The coarse kind.
    pub fn class(&self) -> Class {
        match self {
            Self::NotAVault { .. } => Class::NothingThere,
            Self::AlreadyThere { .. } | Self::Leftovers { .. } => Class::Exists,
            Self::NewerVersion { .. } | Self::NewerFeature { .. } => Class::Newer,
            Self::WrongSecret { .. } | Self::NoSlot { .. } | Self::Words(_) => Class::WrongSecret,
            Self::Kdf(KdfError::Memory(_)) => Class::Machine,
            Self::Kdf(KdfError::Weak(_) | KdfError::Costly(_)) => Class::Integrity,
            Self::Kdf(_) | Self::Label(_) | Self::TooLarge(_) | Self::Invitation(_) => Class::Usage,
            Self::NotAllowed(_) | Self::TooMany { .. } => Class::NotAllowed,
            Self::Waiting(_) => Class::NothingThere,
            Self::Integrity { .. }
            | Self::Missing { .. }
            | Self::WrongEpochKey(_)
            | Self::NotForUs(_)
            | Self::UnlistedSlot { .. }
            | Self::DeviceFile(_)
            | Self::Join(_)
            | Self::Wrap(_) => Class::Integrity,
            Self::Storage(error) if error.kind() == ErrorKind::NoPlace => Class::NothingThere,
            Self::Storage(_) => Class::Storage,
        }
    }

    pub(crate) fn not_allowed(what: &'static str) -> Self {
        Self::NotAllowed(what)
    }

    pub(crate) fn integrity(object: impl ToString, what: impl ToString) -> Self {
        Self::Integrity {
            object: object.to_string(),
            what: what.to_string(),
        }
    }

    /// A decoding error of a known object: newer, or damaged.
    pub(crate) fn wire(object: impl ToString, cause: WireError) -> Self {
        match cause {
            WireError::Unknown { .. } => Self::NewerFeature {
                object: object.to_string(),
                cause,
            },
            other => Self::integrity(object, other),
        }
    }
}
