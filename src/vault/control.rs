//! A control record as an object: signed inside, sealed outside.

use crate::record::{Body, SignerRef};
use crate::{VaultError, objects};
use skrin_base::Entropy;
use skrin_base::ids::{Hash32, RoomId, VaultId};
use skrin_base::limits::CONTROL_MAX;
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_crypto::{
    ControlAad, ControlKey, DeviceSigner, RootSigner, Signature, SignatureKind, VerifyingKey,
    WordsSigner, control_id, open, pad_fine, seal, unpad_fine,
};
use zeroize::Zeroizing;

/// One of the keys that may sign a record.
pub enum Signer<'a> {
    /// The author's root.
    Root(&'a RootSigner),
    /// The author's words.
    Words(&'a WordsSigner),
    /// A device of the author.
    Device(skrin_base::DeviceId, &'a DeviceSigner),
}

impl Signer<'_> {
    /// How the record names it.
    pub fn reference(&self) -> SignerRef {
        match self {
            Self::Root(_) => SignerRef::Root,
            Self::Words(_) => SignerRef::Words,
            Self::Device(id, _) => SignerRef::Device(*id),
        }
    }

    fn sign(&self, body: &[u8]) -> Signature {
        match self {
            Self::Root(key) => key.sign(SignatureKind::Control, body),
            Self::Words(key) => key.sign(SignatureKind::Control, body),
            Self::Device(_, key) => key.sign(SignatureKind::Control, body),
        }
    }
}

/// A record that was opened and decoded; whether its signer may say so is not yet known.
pub struct Opened {
    /// Its id, which is its name: the hash of what it says, whatever seal that is in.
    pub hash: Hash32,
    /// What it says.
    pub body: Body,
    /// What stands behind the signature: envelopes, or nothing.
    pub attachment: Vec<u8>,
    bytes: Zeroizing<Vec<u8>>,
    signature: Signature,
}

impl Opened {
    /// Whether the holder of `key` signed it.
    pub fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        key.verify(SignatureKind::Control, &self.bytes, &self.signature)
            .is_ok()
    }

    /// The object's name, for errors.
    pub fn object(&self) -> String {
        objects::control_name(self.body.room, self.hash)
    }
}

/// Makes the object of a record and tells its id.
pub fn seal_record(
    key: &ControlKey,
    body: &Body,
    signer: &Signer<'_>,
    attachment: &[u8],
    entropy: &dyn Entropy,
) -> (Hash32, Vec<u8>) {
    let bytes = Zeroizing::new(body.to_bytes());
    let aad = ControlAad {
        vault: body.vault,
        room: body.room,
    };
    seal_body(key, &aad, &bytes, signer, attachment, entropy)
}

pub(crate) fn seal_body(
    key: &ControlKey,
    aad: &ControlAad,
    body: &[u8],
    signer: &Signer<'_>,
    attachment: &[u8],
    entropy: &dyn Entropy,
) -> (Hash32, Vec<u8>) {
    let mut w = Writer::default();
    w.bytes(body);
    signer.sign(body).encode(&mut w);
    w.bytes(attachment);
    let content = Zeroizing::new(w.into_bytes());
    let object = seal(key, aad, &pad_fine(&content), entropy);
    (control_id(&content), object)
}

/// Opens the object that `name` promises.
///
/// # Errors
/// `Integrity` and `NewerFeature`, naming the object.
pub fn open_record(
    key: &ControlKey,
    vault: VaultId,
    room: RoomId,
    name: Hash32,
    object: &[u8],
) -> Result<Opened, VaultError> {
    examine(key, vault, room, name, object).map_err(|unread| unread.error)
}

/// An object that cannot be read as a record.
pub(crate) struct Unread {
    /// Its name.
    pub(crate) hash: Hash32,
    /// Why.
    pub(crate) error: VaultError,
    /// Signed bytes that may be those of a newer program.
    signed: Option<Box<(Zeroizing<Vec<u8>>, Signature)>>,
}

impl Unread {
    /// Bytes that do not even open.
    pub(crate) fn new(hash: Hash32, error: VaultError) -> Self {
        let signed = None;
        Self {
            hash,
            error,
            signed,
        }
    }

    /// Whether it is what its name promises, made by a newer program.
    pub(crate) fn is_newer(&self) -> bool {
        self.signed.is_some()
    }

    /// Whether it is of a newer program and the holder of `key` signed it. Who signed cannot be
    /// asked: the layout is not known.
    pub(crate) fn is_newer_by(&self, key: &VerifyingKey) -> bool {
        self.signed.as_ref().is_some_and(|signed| {
            let (bytes, signature) = &**signed;
            key.verify(SignatureKind::Control, bytes, signature).is_ok()
        })
    }
}

/// As `open_record`, and keeps what a newer program may have signed.
pub(crate) fn examine(
    key: &ControlKey,
    vault: VaultId,
    room: RoomId,
    name: Hash32,
    object: &[u8],
) -> Result<Opened, Unread> {
    let path = || objects::control_name(room, name);
    let integrity =
        |what: &dyn std::fmt::Display| Unread::new(name, VaultError::integrity(path(), what));
    let content = open(key, &ControlAad { vault, room }, object)
        .and_then(unpad_fine)
        .map_err(|e| integrity(&e))?;
    if control_id(&content) != name {
        return Err(integrity(&"it is another record than its name promises"));
    }
    let (bytes, signature, attachment) = split(&content).map_err(|e| integrity(&e))?;
    match Body::from_bytes(&bytes) {
        Ok(body) if (body.vault, body.room) != (vault, room) => {
            Err(integrity(&"it belongs to another vault or room"))
        }
        Ok(body) => Ok(Opened {
            hash: name,
            body,
            attachment,
            bytes,
            signature,
        }),
        Err(cause) => Err(Unread {
            hash: name,
            signed: matches!(cause, WireError::Unknown { .. })
                .then(|| Box::new((bytes, signature))),
            error: VaultError::wire(path(), cause),
        }),
    }
}

type Parts = (Zeroizing<Vec<u8>>, Signature, Vec<u8>);

fn split(content: &[u8]) -> Result<Parts, WireError> {
    let mut r = Reader::new(content);
    let bytes = Zeroizing::new(r.bytes("control body", CONTROL_MAX)?.to_vec());
    let signature = Signature::decode(&mut r)?;
    let attachment = r.bytes("attachment", CONTROL_MAX)?.to_vec();
    r.finish()?;
    Ok((bytes, signature, attachment))
}
