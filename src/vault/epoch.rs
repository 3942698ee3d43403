//! Epoch keys in envelopes.

use crate::VaultError;
use crate::record::{EpochCore, Recipient, SignerRef};
use skrin_base::Entropy;
use skrin_base::ids::{EpochId, Hash32, PersonId, RoomId, VaultId};
use skrin_base::limits::{EPOCH_RECIPIENTS_MAX, FORMAT_VERSION};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_crypto::{Envelope, EpochKey, KemPublic, KemSecret, hash, unwrap, wrap};

/// What an envelope is bound to besides its recipient's key.
#[derive(Clone, Copy)]
pub struct Binding {
    /// Which vault.
    pub vault: VaultId,
    /// Which room.
    pub room: RoomId,
    /// Who made the record.
    pub author: PersonId,
    /// With which key it is signed.
    pub signer: SignerRef,
}

/// What kind of record the envelope stands in.
#[derive(Clone, Copy)]
pub enum Purpose {
    /// The epoch's own, by the hash of its core.
    Epoch(Hash32),
    /// A grant of an epoch that exists.
    Grant(EpochId),
    /// An earlier epoch for somebody whom a later one lists.
    Link {
        /// The later one.
        epoch: EpochId,
        /// The one that is given.
        earlier: EpochId,
    },
}

impl Purpose {
    /// For the envelopes of a new epoch.
    pub fn of_core(core: &EpochCore) -> Self {
        Self::Epoch(hash(&core.to_bytes()))
    }
}

impl Binding {
    fn info(&self, purpose: Purpose, recipient: Recipient) -> Vec<u8> {
        let mut w = Writer::default();
        let (label, id, earlier) = match purpose {
            Purpose::Epoch(core) => ("skrin/v1/epoch-envelope", core.0, None),
            Purpose::Grant(epoch) => ("skrin/v1/grant-envelope", epoch.0, None),
            Purpose::Link { epoch, earlier } => ("skrin/v1/link-envelope", epoch.0, Some(earlier)),
        };
        w.bytes(label.as_bytes());
        w.u8(FORMAT_VERSION);
        self.vault.encode(&mut w);
        self.room.encode(&mut w);
        w.raw(&id);
        earlier.iter().for_each(|earlier| earlier.encode(&mut w));
        recipient.encode(&mut w);
        self.author.encode(&mut w);
        self.signer.encode(&mut w);
        w.into_bytes()
    }

    /// Wraps an epoch key for one recipient.
    ///
    /// # Errors
    /// `Wrap`.
    pub fn wrap(
        &self,
        purpose: Purpose,
        recipient: Recipient,
        public: &KemPublic,
        key: &EpochKey,
        entropy: &dyn Entropy,
    ) -> Result<Envelope, VaultError> {
        let info = self.info(purpose, recipient);
        wrap(public, &info, key.expose(), entropy).map_err(VaultError::Wrap)
    }

    /// Opens an envelope; `None` if it is not what it should be. The caller then checks the
    /// commitment of the epoch.
    pub fn unwrap(
        &self,
        purpose: Purpose,
        recipient: Recipient,
        secret: &KemSecret,
        envelope: &Envelope,
    ) -> Option<EpochKey> {
        let info = self.info(purpose, recipient);
        let plain = unwrap(secret, &info, envelope).ok()?;
        <EpochKey as Decode>::from_bytes(&plain).ok()
    }
}

/// The attachment of an epoch's record.
pub fn encode_envelopes(envelopes: &[Envelope]) -> Vec<u8> {
    let mut w = Writer::default();
    w.list(envelopes);
    w.into_bytes()
}

/// Reads the attachment of an epoch's record.
///
/// # Errors
/// What is not a list of envelopes.
pub fn decode_envelopes(bytes: &[u8]) -> Result<Vec<Envelope>, WireError> {
    let mut r = Reader::new(bytes);
    let list = r.list::<Envelope>("envelopes", EPOCH_RECIPIENTS_MAX)?;
    r.finish()?;
    Ok(list)
}
