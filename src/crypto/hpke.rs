//! Envelopes: RFC 9180 base mode, one message, KDF 0x0001 (HKDF-SHA256), AEAD 0x0002
//! (AES-256-GCM). A suite number stands in front of every public key and envelope.

use crate::kdf::kdf;
use crate::keys::{DeviceSeed, RootSeed, WordsEntropy};
use crate::random::Random;
use hpke::aead::{Aead, AesGcm256};
use hpke::kdf::HkdfSha256;
use hpke::kem::{Kem, X25519HkdfSha256, XWing};
use hpke::{Deserializable, OpModeR, OpModeS, Serializable};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{Entropy, VaultId};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

#[cfg(test)]
mod tests;

/// The longest message in an envelope: keys only.
const MESSAGE_MAX: usize = 1024;
/// HPKE bounds what is hashed; ours are a few hundred bytes.
const INFO_MAX: usize = 4096;
const TAG_LEN: usize = 16;

/// Which KEM.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Suite {
    /// 0: DHKEM(X25519, HKDF-SHA256), KEM 0x0020. For tests.
    X25519,
    /// 1: X-Wing (X25519 with ML-KEM-768), KEM 0x647a. The default.
    XWing,
}

impl Suite {
    /// The number in the format.
    pub fn number(self) -> u8 {
        match self {
            Self::X25519 => 0,
            Self::XWing => 1,
        }
    }

    fn public_len(self) -> usize {
        match self {
            Self::X25519 => 32,
            Self::XWing => 1216,
        }
    }

    fn encapped_len(self) -> usize {
        match self {
            Self::X25519 => 32,
            Self::XWing => 1120,
        }
    }
}

impl Encode for Suite {
    fn encode(&self, w: &mut Writer) {
        w.u8(self.number());
    }
}

impl Decode for Suite {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        match r.u8()? {
            0 => Ok(Self::X25519),
            1 => Ok(Self::XWing),
            n => Err(WireError::Unknown {
                what: "suite",
                found: n.into(),
            }),
        }
    }
}

/// Why an envelope could not be made or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HpkeError {
    /// The public key is not one of its suite.
    #[error("the receiver's public key is not valid")]
    PublicKey,
    /// Key and envelope are of different suites.
    #[error("the envelope is of suite {found}, the key of suite {expected}")]
    Suite {
        /// The key's.
        expected: u8,
        /// The envelope's.
        found: u8,
    },
    /// Message or info above the bound of the format.
    #[error("{0} bytes are too many for an envelope")]
    Length(usize),
    /// It was made for another key or another purpose, or was changed since.
    #[error("the envelope does not open: it was changed, or made for another key or purpose")]
    Open,
}

/// The public half of a KEM key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KemPublic {
    suite: Suite,
    bytes: Vec<u8>,
}

impl KemPublic {
    /// Which KEM it is for.
    pub fn suite(&self) -> Suite {
        self.suite
    }
}

impl Encode for KemPublic {
    fn encode(&self, w: &mut Writer) {
        self.suite.encode(w);
        w.raw(&self.bytes);
    }
}

impl Decode for KemPublic {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let suite = Suite::decode(r)?;
        let bytes = r.raw(suite.public_len())?.to_vec();
        let valid = match suite {
            Suite::X25519 => parse::<<X25519HkdfSha256 as Kem>::PublicKey>(&bytes).is_some(),
            Suite::XWing => parse::<<XWing as Kem>::PublicKey>(&bytes).is_some(),
        };
        if !valid {
            return Err(WireError::Value("KEM public key"));
        }
        Ok(Self { suite, bytes })
    }
}

/// The secret half: 32 bytes in both suites (the X25519 scalar, the X-Wing seed). Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct KemSecret {
    #[zeroize(skip)]
    suite: Suite,
    bytes: [u8; 32],
}

impl KemSecret {
    /// Takes the raw secret of a suite.
    pub fn from_bytes(suite: Suite, bytes: [u8; 32]) -> Self {
        Self { suite, bytes }
    }

    /// kdf(device seed, "device-kem", suite).
    pub fn derive_device(seed: &DeviceSeed, vault: VaultId, suite: Suite) -> Self {
        Self::derive(seed.raw(), vault, "device-kem", suite)
    }

    /// kdf(root seed, "root-kem", suite).
    pub fn derive_root(seed: &RootSeed, vault: VaultId, suite: Suite) -> Self {
        Self::derive(seed.raw(), vault, "root-kem", suite)
    }

    /// kdf(words, "words-kem", suite).
    pub fn derive_words(words: &WordsEntropy, vault: VaultId, suite: Suite) -> Self {
        Self::derive(words.raw(), vault, "words-kem", suite)
    }

    fn derive(secret: &[u8], vault: VaultId, label: &str, suite: Suite) -> Self {
        Self::from_bytes(suite, *kdf(secret, vault, label, &[&suite]))
    }

    /// What others wrap to.
    pub fn public(&self) -> KemPublic {
        let bytes = match self.suite {
            Suite::X25519 => public_of::<X25519HkdfSha256>(&self.bytes),
            Suite::XWing => public_of::<XWing>(&self.bytes),
        };
        KemPublic {
            suite: self.suite,
            bytes,
        }
    }
}

/// A message for the holder of one KEM key: suite ‖ encapsulated key ‖ cipher text ‖ tag.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope(Vec<u8>);

impl Envelope {
    /// The bytes as stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes bytes from somewhere; `unwrap` finds out what they are worth.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Encode for Envelope {
    fn encode(&self, w: &mut Writer) {
        w.bytes(&self.0);
    }
}

impl Decode for Envelope {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let limit = 1 + Suite::XWing.encapped_len() + MESSAGE_MAX + TAG_LEN;
        Ok(Self(r.bytes("envelope", limit)?.to_vec()))
    }
}

/// Seals `secret` for `public`; `info` says what for and between whom.
///
/// # Errors
/// `PublicKey` and `Length`.
pub fn wrap(
    public: &KemPublic,
    info: &[u8],
    secret: &[u8],
    entropy: &dyn Entropy,
) -> Result<Envelope, HpkeError> {
    check_lengths(info, secret.len())?;
    let body = match public.suite {
        Suite::X25519 => {
            seal_to::<AesGcm256, X25519HkdfSha256>(&public.bytes, info, b"", secret, entropy)?
        }
        Suite::XWing => seal_to::<AesGcm256, XWing>(&public.bytes, info, b"", secret, entropy)?,
    };
    let mut out = vec![public.suite.number()];
    out.extend_from_slice(&body);
    Ok(Envelope(out))
}

/// Opens an envelope that was made for `secret`'s public half and this `info`.
///
/// # Errors
/// `Suite`, `Length` and `Open`.
pub fn unwrap(
    secret: &KemSecret,
    info: &[u8],
    envelope: &Envelope,
) -> Result<Zeroizing<Vec<u8>>, HpkeError> {
    let (suite, rest) = envelope.0.split_first().ok_or(HpkeError::Open)?;
    if *suite != secret.suite.number() {
        return Err(HpkeError::Suite {
            expected: secret.suite.number(),
            found: *suite,
        });
    }
    let (encapped, sealed) = rest
        .split_at_checked(secret.suite.encapped_len())
        .ok_or(HpkeError::Open)?;
    check_lengths(info, sealed.len().saturating_sub(TAG_LEN))?;
    match secret.suite {
        Suite::X25519 => {
            open_from::<AesGcm256, X25519HkdfSha256>(&secret.bytes, encapped, info, b"", sealed)
        }
        Suite::XWing => open_from::<AesGcm256, XWing>(&secret.bytes, encapped, info, b"", sealed),
    }
}

fn check_lengths(info: &[u8], message: usize) -> Result<(), HpkeError> {
    match (info.len(), message) {
        (n, _) if n > INFO_MAX => Err(HpkeError::Length(n)),
        (_, n) if n > MESSAGE_MAX => Err(HpkeError::Length(n)),
        _ => Ok(()),
    }
}

fn parse<T: Deserializable>(bytes: &[u8]) -> Option<T> {
    T::from_bytes(bytes).ok()
}

fn public_of<K: Kem>(secret: &[u8; 32]) -> Vec<u8> {
    parse::<K::PrivateKey>(secret)
        .map(|secret| K::sk_to_pk(&secret).to_bytes().to_vec())
        .unwrap_or_default()
}

fn seal_to<A: Aead, K: Kem>(
    public: &[u8],
    info: &[u8],
    aad: &[u8],
    secret: &[u8],
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, HpkeError> {
    let public = parse::<K::PublicKey>(public).ok_or(HpkeError::PublicKey)?;
    let (encapped, sealed) = hpke::single_shot_seal_with_rng::<A, HkdfSha256, K>(
        &OpModeS::Base,
        &public,
        info,
        secret,
        aad,
        &mut Random(entropy),
    )
    .map_err(|_| HpkeError::PublicKey)?;
    let mut out = encapped.to_bytes().to_vec();
    out.extend_from_slice(&sealed);
    Ok(out)
}

fn open_from<A: Aead, K: Kem>(
    secret: &[u8; 32],
    encapped: &[u8],
    info: &[u8],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, HpkeError> {
    let secret = parse::<K::PrivateKey>(secret).ok_or(HpkeError::Open)?;
    let encapped = parse::<K::EncappedKey>(encapped).ok_or(HpkeError::Open)?;
    hpke::single_shot_open::<A, HkdfSha256, K>(
        &OpModeR::Base,
        &secret,
        &encapped,
        info,
        sealed,
        aad,
    )
    .map(Zeroizing::new)
    .map_err(|_| HpkeError::Open)
}
