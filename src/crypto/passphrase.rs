//! Argon2id (RFC 9106) for passphrase slots, and the keys of a slot.

use crate::kdf::kdf;
use crate::keys::{SlotCommitment, SlotKey, WordsEntropy};
use argon2::{Algorithm, Argon2, Params, Version};
use skrin_base::VaultId;
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use thiserror::Error;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

#[cfg(test)]
mod tests;

/// Longest passphrase, in bytes.
pub const PASSPHRASE_MAX: usize = 4096;
/// Shortest passphrase that a slot is made with, in characters.
pub const PASSPHRASE_MIN_CHARS: usize = 10;

/// What a guess costs. Stands in the slot, so that it can rise with time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Argon2Params {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes, which may run at once.
    pub lanes: u32,
}

impl Argon2Params {
    /// What new slots get: 256 MiB, 3 passes, 4 lanes; also the least that a release build accepts.
    pub const DEFAULT: Self = Self {
        memory_kib: 256 * 1024,
        passes: 3,
        lanes: 4,
    };
    /// The most that is accepted: a slot comes from the storage and must not exhaust the machine.
    pub const CEILING: Self = Self {
        memory_kib: 2 * 1024 * 1024,
        passes: 16,
        lanes: 64,
    };
    /// For tests: quick, and refused by release builds.
    #[cfg(any(test, debug_assertions, feature = "testutil"))]
    pub const WEAK_FOR_TESTS: Self = Self {
        memory_kib: 64,
        passes: 1,
        lanes: 1,
    };

    const FLOOR: Self = if cfg!(any(test, debug_assertions, feature = "testutil")) {
        Self {
            memory_kib: 64,
            passes: 1,
            lanes: 1,
        }
    } else {
        Self::DEFAULT
    };

    /// Checks floor and ceiling; done before anything runs.
    ///
    /// # Errors
    /// `Weak` and `Costly`.
    pub fn check(&self) -> Result<(), KdfError> {
        self.check_against(&Self::FLOOR)
    }

    fn check_against(&self, floor: &Self) -> Result<(), KdfError> {
        let at_least = |least: &Self| {
            self.memory_kib >= least.memory_kib
                && self.passes >= least.passes
                && self.lanes >= least.lanes
        };
        if !at_least(floor) {
            return Err(KdfError::Weak(*self));
        }
        let most = Self::CEILING;
        if self.memory_kib > most.memory_kib || self.passes > most.passes || self.lanes > most.lanes
        {
            return Err(KdfError::Costly(*self));
        }
        Ok(())
    }
}

impl Encode for Argon2Params {
    fn encode(&self, w: &mut Writer) {
        w.u32(self.memory_kib);
        w.u32(self.passes);
        w.u32(self.lanes);
    }
}

impl Decode for Argon2Params {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            memory_kib: r.u32()?,
            passes: r.u32()?,
            lanes: r.u32()?,
        })
    }
}

/// Why no key was derived from a passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KdfError {
    /// Below the floor.
    #[error(
        "the Argon2id parameters {0:?} are below the floor of this program: the slot is not trustworthy"
    )]
    Weak(Argon2Params),
    /// Above the ceiling.
    #[error(
        "the Argon2id parameters {0:?} are above the ceiling of this program: refused, they would exhaust this machine"
    )]
    Costly(Argon2Params),
    /// Argon2id could not get its memory.
    #[error("not enough memory for Argon2id: {} MiB are needed", .0.memory_kib / 1024)]
    Memory(Argon2Params),
    /// The passphrase is longer than `PASSPHRASE_MAX`.
    #[error("the passphrase has {0} bytes, at most 4096 are allowed")]
    TooLong(usize),
    /// Too easy to guess; only for new slots.
    #[error(
        "the passphrase is too weak: use at least {PASSPHRASE_MIN_CHARS} characters, at least 5 of them different; several random words are best"
    )]
    Guessable,
}

/// Refuses passphrases that a thief of the storage guesses first. A lower bound, not a measure.
///
/// # Errors
/// `Guessable` and `TooLong`.
pub fn check_new_passphrase(passphrase: &str) -> Result<(), KdfError> {
    let text = normalized(passphrase)?;
    let mut different: Vec<char> = text.chars().collect();
    let count = different.len();
    different.sort_unstable();
    different.dedup();
    if count < PASSPHRASE_MIN_CHARS || different.len() < 5 {
        return Err(KdfError::Guessable);
    }
    Ok(())
}

/// Key and commitment of a passphrase slot: Argon2id v1.3 over the passphrase in Unicode NFC.
///
/// # Errors
/// `Weak` and `Costly` before anything runs, `Memory`, `TooLong`.
pub fn derive_passphrase_slot(
    passphrase: &str,
    params: &Argon2Params,
    vault: VaultId,
    salt: &[u8; 32],
) -> Result<(SlotKey, SlotCommitment), KdfError> {
    params.check()?;
    let text = normalized(passphrase)?;
    let costly = KdfError::Costly(*params);
    let argon = Params::new(params.memory_kib, params.passes, params.lanes, Some(32))
        .map_err(|_| costly)?;
    let mut secret = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, argon)
        .hash_password_into(text.as_bytes(), salt, secret.as_mut_slice())
        .map_err(|_| KdfError::Memory(*params))?;
    Ok(slot_keys(&secret, vault, salt))
}

/// Key and commitment of a words slot; cheap, because 128 random bits need no stretching.
pub fn derive_words_slot(
    words: &WordsEntropy,
    vault: VaultId,
    salt: &[u8; 32],
) -> (SlotKey, SlotCommitment) {
    slot_keys(&kdf(words.raw(), vault, "words-wrap", &[]), vault, salt)
}

fn slot_keys(secret: &[u8; 32], vault: VaultId, salt: &[u8; 32]) -> (SlotKey, SlotCommitment) {
    let key = kdf(secret, vault, "slot-key", &[&Raw(salt)]);
    let commitment = kdf(secret, vault, "slot-commit", &[&Raw(salt)]);
    (key.into(), SlotCommitment(*commitment))
}

struct Raw<'a>(&'a [u8]);

impl Encode for Raw<'_> {
    fn encode(&self, w: &mut Writer) {
        w.raw(self.0);
    }
}

/// NFC, as RFC 8265 has it for passwords: what looks the same is the same on every keyboard.
fn normalized(passphrase: &str) -> Result<Zeroizing<String>, KdfError> {
    if passphrase.len() > PASSPHRASE_MAX {
        return Err(KdfError::TooLong(passphrase.len()));
    }
    // Reserved at once: a string that grows would leave copies behind.
    let mut out = Zeroizing::new(String::with_capacity(4 * PASSPHRASE_MAX));
    out.extend(passphrase.nfc());
    Ok(out)
}
