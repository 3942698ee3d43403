//! Invitations: a line of text that goes from a member to somebody who is to join, by any way but the storage.

use crate::record::{History, Role};
use crate::room::Room;
use crate::{Anchor, VaultError};
use base64ct::{Base64UrlUnpadded, Encoding};
use skrin_base::Timestamp;
use skrin_base::ids::{Hash32, PersonId};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{Clock, Entropy};
use skrin_crypto::{JoinSecret, Suite, hash, keys};
use zeroize::Zeroizing;

/// What every invitation begins with.
const PREFIX: &str = "skrin-invitation-";
const VERSION: u8 = 1;
const CHECKSUM_LEN: usize = 4;
/// Longest text that is looked at, in bytes.
const TEXT_MAX: usize = 8192;
/// Longest place that an invitation carries, in bytes.
pub const PLACE_MAX: usize = 2048;

/// Everything that the one who joins trusts. Whoever reads it before he joined can join in his place: give it to nobody else.
pub struct Invitation {
    /// The vault, as the inviter knows it.
    pub anchor: Anchor,
    /// Who invites.
    pub inviter: PersonId,
    /// BLAKE3 of his public root keys.
    pub inviter_fingerprint: Hash32,
    /// As what.
    pub role: Role,
    /// Which epochs the new member is given.
    pub history: History,
    /// When he is meant to leave.
    pub until: Option<Timestamp>,
    /// When the invitation ends.
    pub expires: Timestamp,
    /// Where the vault lies: a URL without secrets.
    pub place: Option<String>,
    /// Of which suite the new member's keys have to be.
    pub(crate) suite: Suite,
    pub(crate) secret: JoinSecret,
}

/// What to invite somebody to.
#[derive(Clone, Debug)]
pub struct Offer {
    /// As what.
    pub role: Role,
    /// Which epochs he is given.
    pub history: History,
    /// When he is meant to leave.
    pub until: Option<Timestamp>,
    /// How long the invitation serves, in nanoseconds.
    pub lasts: i64,
    /// Where the vault lies: a URL without secrets.
    pub place: Option<String>,
}

impl Invitation {
    /// Makes an invitation by a member who manages; nothing is written.
    ///
    /// # Errors
    /// `NotAllowed`, and `Invitation` for a place that is too long or holds a secret.
    pub fn make(
        officer: &crate::Officer,
        room: &Room,
        offer: &Offer,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> Result<Self, VaultError> {
        officer.require_manager(room)?;
        if offer.role == Role::Owner {
            return Err(VaultError::not_allowed("there is one owner"));
        }
        offer.place.as_deref().map_or(Ok(()), check_place)?;
        let person = officer.person();
        let inviter = room.state.persons.get(&person);
        let inviter = inviter.ok_or(VaultError::not_allowed("you are no member"))?;
        Ok(Self {
            anchor: *officer.reader.anchor(),
            inviter: person,
            inviter_fingerprint: inviter.keys.fingerprint(),
            role: offer.role,
            history: offer.history,
            until: offer.until,
            expires: Timestamp(clock.now().0.saturating_add(offer.lasts)),
            place: offer.place.clone(),
            suite: inviter.keys.root_kem.suite(),
            secret: keys::make_join_secret(entropy),
        })
    }

    /// The line of text: letters, digits, `-` and `_`. Wiped when dropped.
    pub fn to_text(&self) -> Zeroizing<String> {
        to_text_of(&Zeroizing::new(self.to_bytes()))
    }

    /// Reads the line of text; white space around and within it is passed over, as mail programs break lines.
    ///
    /// # Errors
    /// `Invitation`, which says what is wrong.
    pub fn from_text(text: &str) -> Result<Self, VaultError> {
        let bad = |what: &str| VaultError::Invitation(what.to_owned());
        if text.len() > TEXT_MAX {
            return Err(bad("the text is too long for one"));
        }
        let mut clean = Zeroizing::new(String::with_capacity(TEXT_MAX));
        clean.extend(text.chars().filter(|c| !c.is_whitespace()));
        let Some(coded) = clean.strip_prefix(PREFIX) else {
            return Err(bad("the text does not begin as one; copy all of the line"));
        };
        let wrong = "a letter is wrong or missing: its checksum does not fit; copy all of the line";
        let bytes = Base64UrlUnpadded::decode_vec(coded).map(Zeroizing::new);
        let bytes = bytes.map_err(|_| bad(wrong))?;
        let (content, checksum) = bytes
            .split_last_chunk::<CHECKSUM_LEN>()
            .ok_or_else(|| bad(wrong))?;
        if hash(content).0[..CHECKSUM_LEN] != *checksum {
            return Err(bad(wrong));
        }
        Self::from_bytes(content).map_err(|cause| match cause {
            WireError::Unknown { .. } => VaultError::Invitation(format!(
                "a newer program made it ({cause}): update this one"
            )),
            other => VaultError::Invitation(format!("it is damaged: {other}")),
        })
    }

    /// Refuses one that has ended.
    ///
    /// # Errors
    /// `Invitation`.
    pub fn require_valid(&self, clock: &dyn Clock) -> Result<(), VaultError> {
        match clock.now() < self.expires {
            true => Ok(()),
            false => Err(VaultError::Invitation(
                "it has expired: ask for a new one".to_owned(),
            )),
        }
    }

    /// What the record carries that lets its bearer in.
    pub fn tag(&self) -> [u8; 32] {
        keys::derive_join_tag(&self.secret, self.anchor.vault, self.anchor.room)
    }
}

pub(crate) fn to_text_of(content: &[u8]) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(TEXT_MAX));
    bytes.extend_from_slice(content);
    bytes.extend_from_slice(&hash(content).0[..CHECKSUM_LEN]);
    let coded = Zeroizing::new(Base64UrlUnpadded::encode_string(&bytes));
    let mut text = Zeroizing::new(String::with_capacity(TEXT_MAX));
    text.push_str(PREFIX);
    text.push_str(&coded);
    text
}

/// A place is for people who read the invitation over a shoulder, too.
fn check_place(place: &str) -> Result<(), VaultError> {
    let bad = |what: &str| Err(VaultError::Invitation(what.to_owned()));
    if place.len() > PLACE_MAX || place.chars().any(char::is_control) {
        return bad("its place is too long, or has control characters");
    }
    let authority = place.split_once("://").map_or("", |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    match user.contains(':') {
        true => bad("its place holds a password; leave it out"),
        false => Ok(()),
    }
}

impl Encode for Invitation {
    fn encode(&self, w: &mut Writer) {
        w.u8(VERSION);
        self.anchor.encode(w);
        self.inviter.encode(w);
        self.inviter_fingerprint.encode(w);
        self.role.encode(w);
        self.history.encode(w);
        w.option(self.until.as_ref());
        self.expires.encode(w);
        match &self.place {
            None => w.u8(0),
            Some(place) => {
                w.u8(1);
                w.bytes(place.as_bytes());
            }
        }
        self.suite.encode(w);
        self.secret.encode(w);
    }
}

impl Decode for Invitation {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let (what, found) = ("version of an invitation", r.u8()?);
        if found != VERSION {
            let found = found.into();
            return Err(WireError::Unknown { what, found });
        }
        Ok(Self {
            anchor: Anchor::decode(r)?,
            inviter: PersonId::decode(r)?,
            inviter_fingerprint: Hash32::decode(r)?,
            role: Role::decode(r)?,
            history: History::decode(r)?,
            until: r.option()?,
            expires: Timestamp::decode(r)?,
            place: match r.bool()? {
                false => None,
                true => Some(read_place(r)?),
            },
            suite: Suite::decode(r)?,
            secret: JoinSecret::decode(r)?,
        })
    }
}

fn read_place(r: &mut Reader<'_>) -> Result<String, WireError> {
    let bytes = r.bytes("place", PLACE_MAX)?;
    let text = std::str::from_utf8(bytes).map_err(|_| WireError::Value("place"))?;
    match text.chars().any(char::is_control) {
        true => Err(WireError::Value("place")),
        false => Ok(text.to_owned()),
    }
}
