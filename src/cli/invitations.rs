//! The invitations of this device that nobody has used yet: in a sealed file of the state directory, as they hold secrets.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use skrin_base::limits::LABEL_MAX;
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{Clock, Timestamp, VaultId};
use skrin_vault::{Device, Invitation};
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure, Outcome};
use crate::machine::SystemClock;
use crate::sealed::SealedFile;

/// More than anybody has open.
const MAX: usize = 1024;

/// An invitation that nobody has used yet.
pub(crate) struct Open {
    /// What the others are to call the new member.
    pub(crate) name: String,
    pub(crate) made: Timestamp,
    pub(crate) invitation: Invitation,
}

impl Open {
    /// Whether it serves no more.
    pub(crate) fn is_over(&self) -> bool {
        self.invitation.require_valid(&SystemClock).is_err()
    }
}

impl Encode for Open {
    fn encode(&self, w: &mut Writer) {
        w.bytes(self.name.as_bytes());
        self.made.encode(w);
        self.invitation.encode(w);
    }
}

impl Decode for Open {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let name = std::str::from_utf8(r.bytes("name", LABEL_MAX)?);
        Ok(Self {
            name: name.map_err(|_| WireError::Value("name"))?.to_owned(),
            made: Timestamp::decode(r)?,
            invitation: Invitation::decode(r)?,
        })
    }
}

/// All of them.
pub(crate) struct Invitations {
    file: SealedFile,
    open: Mutex<Vec<Arc<Open>>>,
}

impl Invitations {
    /// Those of a device.
    ///
    /// # Errors
    /// `Integrity` where the file does not open: it is never taken for empty.
    pub(crate) fn load(state_dir: &Path, device: &Device, vault: VaultId) -> Outcome<Self> {
        Self::of(SealedFile::new(state_dir, "invitations", device, vault))
    }

    fn of(file: SealedFile) -> Outcome<Self> {
        let explained =
            |failure: Failure| failure.remedy("delete it, and invite again who has not joined yet");
        let open: Vec<Open> = match file.load().map_err(explained)?.map(Zeroizing::new) {
            Some(plain) => {
                let mut r = Reader::new(&plain);
                let read = r.list("invitations", MAX);
                let read = read.and_then(|open| r.finish().map(|()| open));
                read.map_err(|_| explained(file.damaged()))?
            }
            None => Vec::new(),
        };
        let open = Mutex::new(open.into_iter().map(Arc::new).collect());
        Ok(Self { file, open })
    }

    /// All.
    pub(crate) fn all(&self) -> Vec<Arc<Open>> {
        self.open.lock().clone()
    }

    /// One more; those that are over go.
    ///
    /// # Errors
    /// `Usage` for too many, and of the disk; then nothing was changed.
    pub(crate) fn add(&self, name: &str, invitation: Invitation) -> Outcome {
        let open = Open {
            name: name.to_owned(),
            made: SystemClock.now(),
            invitation,
        };
        self.change(|all| {
            all.retain(|one| !one.is_over());
            all.push(Arc::new(open));
        })
    }

    /// Takes one away.
    ///
    /// # Errors
    /// Of the disk; then nothing was changed.
    pub(crate) fn forget(&self, one: &Open) -> Outcome {
        let tag = one.invitation.tag();
        self.change(|all| all.retain(|other| other.invitation.tag() != tag))
    }

    fn change(&self, how: impl FnOnce(&mut Vec<Arc<Open>>)) -> Outcome {
        let mut open = self.open.lock();
        let mut next = open.clone();
        how(&mut next);
        if next.len() > MAX {
            let what = "too many invitations are open";
            return Err(
                Failure::new(Exit::Usage, what).remedy("wait until some were used or have expired")
            );
        }
        let mut w = Writer::default();
        w.count(next.len());
        next.iter().for_each(|one| one.encode(&mut w));
        let plain = Zeroizing::new(w.into_bytes());
        let stored = self.file.store(&plain);
        stored.map_err(|e| Failure::io(self.file.path(), "cannot write it", &e))?;
        *open = next;
        Ok(())
    }
}
