//! AES-256-GCM-SIV (RFC 8452) with a random nonce in front and a typed AAD.

use crate::aad::{
    Aad, BlockAad, CheckpointAad, CommitAad, ControlAad, JoinAad, LocalAad, PageAad, SlotAad,
    TableAad, sealed::Sealed,
};
use crate::keys::{
    CheckpointKey, ControlKey, FileKey, JoinKey, LaneKey, LocalKey, PageKey, SlotKey, TableKey,
};
use aes::Aes256Enc;
use aes_gcm_siv::aead::inout::InOutBuf;
use aes_gcm_siv::{AeadInOut, AesGcmSiv, KeyInit, Nonce, Tag};
use skrin_base::Entropy;
use skrin_base::clock::random;
use skrin_base::wire::Writer;
use std::ops::Deref;
use thiserror::Error;
use zeroize::Zeroizing;

#[cfg(test)]
mod tests;

/// The mode never decrypts a block, so the key schedule for that is left out.
type Aes256GcmSiv = AesGcmSiv<Aes256Enc>;

const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
/// How much longer the sealed bytes are: nonce and tag.
pub const SEAL_OVERHEAD: usize = NONCE_LEN + TAG_LEN;

/// Sealed bytes that were not made with this key for this place, or were changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenError {
    /// Shorter than nonce and tag.
    #[error("{0} bytes are too few for a sealed object: it was cut short")]
    Short(usize),
    /// The tag does not fit key, place and contents.
    #[error("authentication failed: the bytes were changed, or belong elsewhere")]
    Tag,
    /// The padding is not what the format says.
    #[error("the padding is not canonical")]
    Padding,
}

/// Plain text whose tag was verified; wiped when dropped.
pub struct Opened(Zeroizing<Vec<u8>>);

impl Opened {
    /// Gives the bytes on, still wiped when dropped.
    pub fn into_inner(self) -> Zeroizing<Vec<u8>> {
        self.0
    }

    pub(crate) fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

impl Deref for Opened {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opened({} bytes)", self.0.len())
    }
}

/// Says which keys seal which kind of object; the pairs are fixed here.
pub trait SealsWith<A: Aad>: Sealed {
    #[doc(hidden)]
    fn key(&self) -> &[u8; 32];
}

macro_rules! seals {
    ($($key:ty => $aad:ty,)*) => {
        $(
            impl Sealed for $key {}
            impl SealsWith<$aad> for $key {
                fn key(&self) -> &[u8; 32] {
                    self.raw()
                }
            }
        )*
    };
}

seals! {
    SlotKey => SlotAad<'_>,
    ControlKey => ControlAad,
    JoinKey => JoinAad,
    LaneKey => CommitAad,
    PageKey => PageAad,
    CheckpointKey => CheckpointAad,
    TableKey => TableAad,
    FileKey => BlockAad,
    LocalKey => LocalAad,
}

/// Seals `plain` for the place that `aad` names: nonce ‖ cipher text ‖ tag.
pub fn seal<A: Aad, K: SealsWith<A>>(
    key: &K,
    aad: &A,
    plain: &[u8],
    entropy: &dyn Entropy,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(plain.len() + SEAL_OVERHEAD);
    let nonce = random(entropy);
    seal_raw(&cipher(key.key()), nonce, &aad_bytes(aad), plain, &mut out);
    out
}

/// Opens what `seal` made with the same key for the same place.
///
/// # Errors
/// `Short` and `Tag`; nothing of the contents is given out then.
pub fn open<A: Aad, K: SealsWith<A>>(key: &K, aad: &A, sealed: &[u8]) -> Result<Opened, OpenError> {
    let mut out = Zeroizing::new(Vec::with_capacity(sealed.len()));
    open_raw(&cipher(key.key()), &aad_bytes(aad), sealed, &mut out)?;
    Ok(Opened(out))
}

/// A file key with its schedule computed, for many blocks.
pub struct BlockCipher(Aes256GcmSiv);

impl BlockCipher {
    /// Expands the key.
    pub fn new(key: &FileKey) -> Self {
        Self(cipher(key.raw()))
    }

    /// Appends the sealed block to `out`: `plain.len() + SEAL_OVERHEAD` bytes.
    pub fn seal_into(
        &self,
        aad: &BlockAad,
        plain: &[u8],
        entropy: &dyn Entropy,
        out: &mut Vec<u8>,
    ) {
        seal_raw(&self.0, random(entropy), &aad_bytes(aad), plain, out);
    }

    /// Appends the opened block to `out`, and on an error nothing.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_into(
        &self,
        aad: &BlockAad,
        sealed: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), OpenError> {
        open_raw(&self.0, &aad_bytes(aad), sealed, out)
    }
}

/// `BlockCipher::seal_into` for a single block.
pub fn seal_block_into(
    key: &FileKey,
    aad: &BlockAad,
    plain: &[u8],
    entropy: &dyn Entropy,
    out: &mut Vec<u8>,
) {
    BlockCipher::new(key).seal_into(aad, plain, entropy, out);
}

/// `BlockCipher::open_into` for a single block.
///
/// # Errors
/// As `open`.
pub fn open_block_into(
    key: &FileKey,
    aad: &BlockAad,
    sealed: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), OpenError> {
    BlockCipher::new(key).open_into(aad, sealed, out)
}

fn cipher(key: &[u8; 32]) -> Aes256GcmSiv {
    Aes256GcmSiv::new(key.into())
}

fn aad_bytes<A: Aad>(aad: &A) -> Vec<u8> {
    let mut w = Writer::default();
    aad.write(&mut w);
    w.into_bytes()
}

fn seal_raw(
    cipher: &Aes256GcmSiv,
    nonce: [u8; NONCE_LEN],
    aad: &[u8],
    plain: &[u8],
    out: &mut Vec<u8>,
) {
    out.reserve(plain.len() + SEAL_OVERHEAD);
    out.extend_from_slice(&nonce);
    let start = out.len();
    out.resize(start + plain.len(), 0);
    let tag = InOutBuf::new(plain, &mut out[start..])
        .map_err(|_| aes_gcm_siv::Error)
        .and_then(|buffer| cipher.encrypt_inout_detached(&Nonce::from(nonce), aad, buffer));
    match tag {
        Ok(tag) => out.extend_from_slice(&tag),
        // The lengths are equal by construction, and RFC 8452 refuses only 64 GiB and more.
        Err(_) => unreachable!("nothing that is sealed comes near 64 GiB"),
    }
}

fn open_raw(
    cipher: &Aes256GcmSiv,
    aad: &[u8],
    sealed: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), OpenError> {
    let short = OpenError::Short(sealed.len());
    let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(short)?;
    let (body, tag) = rest.split_last_chunk::<TAG_LEN>().ok_or(short)?;
    let start = out.len();
    out.resize(start + body.len(), 0);
    let opened = InOutBuf::new(body, &mut out[start..])
        .map_err(|_| aes_gcm_siv::Error)
        .and_then(|buffer| {
            let (nonce, tag) = (Nonce::from(*nonce), Tag::from(*tag));
            cipher.decrypt_inout_detached(&nonce, aad, buffer, &tag)
        });
    opened.map_err(|_| {
        out.truncate(start);
        OpenError::Tag
    })
}
