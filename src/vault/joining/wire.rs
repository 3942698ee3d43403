//! The two objects of an invitation.

use super::payload_of;
use crate::header::{read_features, write_features};
use crate::officer::Officer;
use crate::record::{Label, MemberKeys};
use crate::slot::{Payload, read_version};
use crate::{Invitation, VaultError};
use skrin_base::Entropy;
use skrin_base::ids::{Hash32, PersonId};
use skrin_base::limits::{CONTROL_MAX, FORMAT_VERSION};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_crypto::{
    Envelope, JoinAad, JoinPart, KemSecret, RootSeed, RootSigner, Signature, SignatureKind, Suite,
    VaultSecret, keys, open, pad_pow2, seal, unpad_pow2, unwrap, wrap,
};
use zeroize::Zeroizing;

fn aad(invitation: &Invitation) -> JoinAad {
    JoinAad {
        vault: invitation.anchor.vault,
        room: invitation.anchor.room,
    }
}

fn seal_part(
    invitation: &Invitation,
    part: JoinPart,
    content: &[u8],
    entropy: &dyn Entropy,
) -> Vec<u8> {
    let key = keys::derive_join_key(&invitation.secret, invitation.anchor.vault, part);
    seal(&key, &aad(invitation), &pad_pow2(content), entropy)
}

fn open_part(
    invitation: &Invitation,
    part: JoinPart,
    object: &[u8],
) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let key = keys::derive_join_key(&invitation.secret, invitation.anchor.vault, part);
    let opened = open(&key, &aad(invitation), object).and_then(unpad_pow2);
    let opened = opened.map_err(|_| {
        VaultError::Join(
            "what lies on the storage was not written with this invitation: the storage changed it, or somebody planted it".to_owned(),
        )
    })?;
    Ok(opened.into_inner())
}

fn bad(what: &str, cause: WireError) -> VaultError {
    match cause {
        WireError::Unknown { .. } => VaultError::NewerFeature {
            object: what.to_owned(),
            cause,
        },
        other => VaultError::Join(format!("{what} is damaged: {other}")),
    }
}

/// The keys of somebody who joins, proven to come from who has the invitation.
#[derive(Debug)]
pub struct Request {
    person: PersonId,
    name: Label,
    keys: MemberKeys,
}

impl Request {
    /// The id that follows from his keys.
    pub fn person(&self) -> PersonId {
        self.person
    }

    /// What he calls himself; it is not proven.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The same under another name: the one that who invites gives him, as nobody is to take that of somebody else.
    ///
    /// # Errors
    /// `Label`.
    pub fn called(self, name: &str) -> Result<Self, VaultError> {
        let name = Label::new(name).map_err(|_| VaultError::Label(name.to_owned()))?;
        Ok(Self { name, ..self })
    }

    /// His keys.
    pub fn keys(&self) -> &MemberKeys {
        &self.keys
    }

    /// BLAKE3 of his public root keys.
    pub fn fingerprint(&self) -> Hash32 {
        self.keys.fingerprint()
    }

    pub(super) fn make(
        invitation: &Invitation,
        name: &Label,
        keys: &MemberKeys,
        root: &RootSigner,
        entropy: &dyn Entropy,
    ) -> Vec<u8> {
        let mut w = Writer::default();
        w.u8(FORMAT_VERSION);
        write_features(&mut w, 0);
        invitation.anchor.encode(&mut w);
        w.raw(&invitation.tag());
        name.encode(&mut w);
        keys.encode(&mut w);
        let body = w.into_bytes();
        let mut w = Writer::default();
        w.bytes(&body);
        root.sign(SignatureKind::Join, &body).encode(&mut w);
        seal_part(invitation, JoinPart::Request, &w.into_bytes(), entropy)
    }

    pub(super) fn open(invitation: &Invitation, object: &[u8]) -> Result<Self, VaultError> {
        let content = open_part(invitation, JoinPart::Request, object)?;
        let wire = |cause| bad("the request", cause);
        let (body, signature) = Self::split(&content).map_err(wire)?;
        let request = Self::decode(invitation, body).map_err(wire)?;
        let signed = request
            .keys
            .root_sign
            .verify(SignatureKind::Join, body, &signature);
        match signed {
            Ok(_) => Ok(request),
            Err(_) => Err(VaultError::Join(
                "the request is not signed by the root that it names".to_owned(),
            )),
        }
    }

    fn split(content: &[u8]) -> Result<(&[u8], Signature), WireError> {
        let mut r = Reader::new(content);
        let body = r.bytes("request", CONTROL_MAX)?;
        let signature = Signature::decode(&mut r)?;
        r.finish()?;
        Ok((body, signature))
    }

    fn decode(invitation: &Invitation, body: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(body);
        read_version(&mut r)?;
        read_features(&mut r)?;
        let anchor = crate::Anchor::decode(&mut r)?;
        let tag = r.array::<32>()?;
        if anchor != invitation.anchor || tag != invitation.tag() {
            return Err(WireError::Value(
                "a request that answers another invitation",
            ));
        }
        let name = Label::decode(&mut r)?;
        let keys = MemberKeys::decode(&mut r)?;
        r.finish()?;
        let person = keys.person(invitation.anchor.vault);
        Ok(Self { person, name, keys })
    }
}

/// What lets a new member in.
pub(super) struct Answer {
    /// The record that did.
    pub(super) add: Hash32,
    /// Whom.
    pub(super) person: PersonId,
}

/// An answer that opened, with the vault secret still wrapped.
pub(super) struct OpenedAnswer {
    pub(super) add: Hash32,
    person: PersonId,
    envelope: Envelope,
}

fn info(invitation: &Invitation, add: &Hash32, person: &PersonId) -> Vec<u8> {
    let mut w = Writer::default();
    w.bytes(b"skrin/v1/answer-envelope");
    w.u8(FORMAT_VERSION);
    invitation.anchor.vault.encode(&mut w);
    invitation.anchor.room.encode(&mut w);
    add.encode(&mut w);
    invitation.inviter.encode(&mut w);
    person.encode(&mut w);
    w.into_bytes()
}

impl Answer {
    pub(super) fn seal(
        &self,
        officer: &Officer,
        invitation: &Invitation,
        request: &Request,
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, VaultError> {
        let info = info(invitation, &self.add, &self.person);
        let secret = officer.vault_secret.expose();
        let envelope = wrap(&request.keys.root_kem, &info, secret, entropy);
        let envelope = envelope.map_err(VaultError::Wrap)?;
        let mut w = Writer::default();
        w.u8(FORMAT_VERSION);
        write_features(&mut w, 0);
        self.add.encode(&mut w);
        self.person.encode(&mut w);
        envelope.encode(&mut w);
        Ok(seal_part(
            invitation,
            JoinPart::Answer,
            &w.into_bytes(),
            entropy,
        ))
    }

    pub(super) fn open(invitation: &Invitation, object: &[u8]) -> Result<OpenedAnswer, VaultError> {
        let content = open_part(invitation, JoinPart::Answer, object)?;
        OpenedAnswer::decode(&content).map_err(|cause| bad("the answer", cause))
    }
}

impl OpenedAnswer {
    fn decode(content: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(content);
        read_version(&mut r)?;
        read_features(&mut r)?;
        let add = Hash32::decode(&mut r)?;
        let person = PersonId::decode(&mut r)?;
        let envelope = Envelope::decode(&mut r)?;
        r.finish()?;
        Ok(Self {
            add,
            person,
            envelope,
        })
    }

    /// Opens it for the one who asked.
    pub(super) fn payload(
        &self,
        invitation: &Invitation,
        person: PersonId,
        root: RootSeed,
        suite: Suite,
    ) -> Result<Payload, VaultError> {
        if self.person != person {
            return Err(VaultError::Join(
                "the answer is for somebody else: he joined with this invitation".to_owned(),
            ));
        }
        let secret = KemSecret::derive_root(&root, invitation.anchor.vault, suite);
        let info = info(invitation, &self.add, &person);
        let not_ours = || VaultError::Join("the answer does not open with your keys".to_owned());
        let plain = unwrap(&secret, &info, &self.envelope).map_err(|_| not_ours())?;
        let secret = <VaultSecret as Decode>::from_bytes(&plain).map_err(|_| not_ours())?;
        Ok(payload_of(invitation, person, secret, root))
    }
}
