//! Ed25519 (RFC 8032), verified in one strict way only.

use crate::kdf::LABEL_PREFIX;
use crate::kdf::kdf;
use crate::keys::{DeviceSeed, RootSeed, WordsEntropy};
use ed25519_dalek::{Signer, SigningKey};
use skrin_base::VaultId;
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use thiserror::Error;

#[cfg(test)]
mod tests;

/// What is signed; the label in front of the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SignatureKind {
    /// A control record.
    Control,
    /// A commit.
    Commit,
    /// The root of a checkpoint.
    Checkpoint,
    /// The keys of somebody who joins.
    Join,
}

impl SignatureKind {
    fn message(self, body: &[u8]) -> Vec<u8> {
        let kind = match self {
            Self::Control => "control-signature",
            Self::Commit => "commit-signature",
            Self::Checkpoint => "checkpoint-signature",
            Self::Join => "join-signature",
        };
        let mut w = Writer::default();
        w.count(LABEL_PREFIX.len() + kind.len());
        w.raw(LABEL_PREFIX.as_bytes());
        w.raw(kind.as_bytes());
        w.raw(body);
        w.into_bytes()
    }
}

/// The 64 bytes of a signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signature(pub [u8; 64]);

impl Encode for Signature {
    fn encode(&self, w: &mut Writer) {
        w.raw(&self.0);
    }
}

impl Decode for Signature {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        r.array().map(Self)
    }
}

/// A signature that does not belong to this key, kind and body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the signature is not valid: the object was changed or signed by somebody else")]
pub struct BadSignature;

/// Something whose signature was verified.
#[derive(Debug)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// What was signed.
    pub fn get(&self) -> &T {
        &self.0
    }

    /// Gives it on.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// The public half: canonical, and not of small order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifyingKey(ed25519_dalek::VerifyingKey);

impl VerifyingKey {
    /// Checks the encoding of a point.
    ///
    /// # Errors
    /// `Value` for what is not a canonical point of large order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, WireError> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes)
            .map_err(|_| WireError::Value("signing key"))?;
        if key.is_weak() || key.to_edwards().compress().as_bytes() != bytes {
            return Err(WireError::Value(
                "signing key of small order or not canonical",
            ));
        }
        Ok(Self(key))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Checks that the holder of the secret signed `body` as this `kind`.
    ///
    /// # Errors
    /// `BadSignature`.
    pub fn verify<'a>(
        &self,
        kind: SignatureKind,
        body: &'a [u8],
        signature: &Signature,
    ) -> Result<Verified<&'a [u8]>, BadSignature> {
        self.verify_message(&kind.message(body), signature)?;
        Ok(Verified(body))
    }

    fn verify_message(&self, message: &[u8], signature: &Signature) -> Result<(), BadSignature> {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        let verified = self.0.verify_strict(message, &signature);
        verified.map_err(|_| BadSignature)
    }
}

impl Encode for VerifyingKey {
    fn encode(&self, w: &mut Writer) {
        w.raw(self.as_bytes());
    }
}

impl Decode for VerifyingKey {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Self::from_bytes(&r.array()?)
    }
}

macro_rules! signer {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name(SigningKey);

        impl $name {
            fn from_secret(secret: &[u8; 32]) -> Self {
                Self(SigningKey::from_bytes(secret))
            }

            /// What others verify with.
            pub fn public(&self) -> VerifyingKey {
                VerifyingKey(self.0.verifying_key())
            }

            /// Signs `body` as this `kind`.
            pub fn sign(&self, kind: SignatureKind, body: &[u8]) -> Signature {
                Signature(self.0.sign(&kind.message(body)).to_bytes())
            }
        }
    };
}

signer!(/** A device's key: signs commits, checkpoints and control records. Wiped when dropped. */ DeviceSigner);
signer!(/** A person's root: signs control records. Wiped when dropped. */ RootSigner);
signer!(/** The key that the words give: outranks the root. Wiped when dropped. */ WordsSigner);

impl DeviceSigner {
    /// kdf(device seed, "device-sign").
    pub fn derive(seed: &DeviceSeed, vault: VaultId) -> Self {
        Self::from_secret(&kdf(seed.raw(), vault, "device-sign", &[]))
    }
}

impl RootSigner {
    /// kdf(root seed, "root-sign").
    pub fn derive(seed: &RootSeed, vault: VaultId) -> Self {
        Self::from_secret(&kdf(seed.raw(), vault, "root-sign", &[]))
    }
}

impl WordsSigner {
    /// kdf(words, "words-sign").
    pub fn derive(words: &WordsEntropy, vault: VaultId) -> Self {
        Self::from_secret(&kdf(words.raw(), vault, "words-sign", &[]))
    }
}
