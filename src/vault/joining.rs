//! Joining with an invitation: the request of the one who joins, the answer of the inviter, and what both check
//! (docs/format/vault.md, section 8).

mod pending;
mod wire;

pub use pending::{JoinOptions, Pending};
pub use wire::Request;

use crate::officer::{NewMember, Officer};
use crate::own_slots::put_own_slot;
use crate::publish::{Place, announce};
use crate::record::Record;
use crate::room::{Room, RoomReader};
use crate::slot::Payload;
use crate::state::What;
use crate::{Argon2Params, Invitation, Secret, Unlocked, VaultError, objects, open_header, unlock};
use skrin_base::ids::PersonId;
use skrin_base::limits::{CONTROL_MAX, FORMAT_VERSION};
use skrin_crypto::JoinPart;
use skrin_crypto::passphrase::check_new_passphrase;
use skrin_storage::{ObjectName, Store};
use wire::{Answer, OpenedAnswer};
use zeroize::Zeroizing;

/// What stands under a name of an invitation; `None` if nothing does.
async fn fetch(
    store: &dyn Store,
    invitation: &Invitation,
    part: JoinPart,
) -> Result<Option<Vec<u8>>, VaultError> {
    match store.get(&name(invitation, part)?, CONTROL_MAX).await {
        Ok(bytes) => Ok(Some(bytes.to_vec())),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn name(invitation: &Invitation, part: JoinPart) -> Result<ObjectName, VaultError> {
    let vault = invitation.anchor.vault;
    let name = skrin_crypto::keys::derive_join_name(&invitation.secret, vault, part);
    let hex: String = name.iter().map(|b| format!("{b:02x}")).collect();
    objects::object(format!("joins/{hex}"))
}

async fn put(
    store: &dyn Store,
    invitation: &Invitation,
    part: JoinPart,
    bytes: Vec<u8>,
) -> Result<(), VaultError> {
    let name = name(invitation, part)?;
    objects::put(store, name.to_string(), bytes).await
}

async fn delete(
    store: &dyn Store,
    invitation: &Invitation,
    part: JoinPart,
) -> Result<(), VaultError> {
    match store.delete(&name(invitation, part)?).await {
        Err(error) if !error.is_absent() => Err(error.into()),
        _ => Ok(()),
    }
}

/// The vault at this place must be the one of the invitation.
async fn require_vault(store: &dyn Store, invitation: &Invitation) -> Result<(), VaultError> {
    let header = open_header(store).await?;
    let anchor = &invitation.anchor;
    match (header.vault, header.hash) == (anchor.vault, anchor.header) {
        true => Ok(()),
        false => Err(VaultError::Join(format!(
            "the vault at {} is another one than the invitation names: check the address with who invited you",
            store.place()
        ))),
    }
}

/// First step, by the one who joins: makes his keys, and asks. Keep the returned state on disk before asking is repeated:
/// `Pending::to_file` is what `Pending::open` reads.
///
/// # Errors
/// `Invitation`, `Join`, `Label`, `Kdf`, `NotAVault`, `Storage`.
pub async fn join_request(
    place: &Place<'_>,
    invitation: Invitation,
    options: &JoinOptions,
) -> Result<Pending, VaultError> {
    invitation.require_valid(place.clock)?;
    require_vault(place.store, &invitation).await?;
    let mut asked = false;
    for part in [JoinPart::Request, JoinPart::Answer] {
        asked |= fetch(place.store, &invitation, part).await?.is_some();
    }
    if asked {
        return Err(VaultError::Invitation(
            "somebody has asked with it already; if that was not you, tell who invited you and ask for a new one".to_owned(),
        ));
    }
    Pending::make(invitation, options, place.entropy)
}

impl Pending {
    /// Puts the request. May be repeated: the same keys are asked for.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn ask(&self, place: &Place<'_>) -> Result<(), VaultError> {
        let bytes = self.request(place);
        if let Some(answer) = fetch(place.store, self.invitation(), JoinPart::Answer).await? {
            // An answer for somebody else is told.
            let answer = Answer::open(self.invitation(), &answer)?;
            return self.payload(&answer).map(drop);
        }
        // What is there by now is ours, or of somebody who has the invitation: the inviter sees whose.
        match fetch(place.store, self.invitation(), JoinPart::Request).await? {
            Some(there) if self.is_own_request(&there) => Ok(()),
            Some(_) => Err(VaultError::Join(
                "somebody else has asked with this invitation: tell who invited you and ask for a new one".to_owned(),
            )),
            None => put(place.store, self.invitation(), JoinPart::Request, bytes).await,
        }
    }

    /// Last step, by the one who joins: reads the answer, checks that it is the inviter's and that he let in exactly these
    /// keys, makes the slots and lists them. The words have to be shown before (`words`).
    ///
    /// # Errors
    /// `Waiting` as long as there is no answer; `Join` for one that is not what it must be; `Kdf`, and those of
    /// `RoomReader::load`.
    pub async fn finish(
        &self,
        place: &Place<'_>,
        passphrase: Option<(&Zeroizing<String>, Argon2Params)>,
    ) -> Result<Unlocked, VaultError> {
        let invitation = self.invitation();
        if let Some((text, params)) = &passphrase {
            check_new_passphrase(text)?;
            params.check()?;
        }
        require_vault(place.store, invitation).await?;
        let answer = fetch(place.store, invitation, JoinPart::Answer).await?;
        let Some(answer) = answer else {
            // Everything was done, but that nobody heard of it.
            return self.done(place).await.ok_or(VaultError::Waiting(
                "who invited you has not let you in so far; try again later",
            ));
        };
        let answer = Answer::open(invitation, &answer)?;
        let payload = self.payload(&answer)?;
        let room = self.check(place.store, &answer, &payload).await?;
        let unlocked = self.make_slots(place, room, &payload, passphrase).await?;
        delete(place.store, invitation, JoinPart::Answer).await?;
        Ok(unlocked)
    }

    /// What an earlier attempt has made, if nothing of it is missing.
    async fn done(&self, place: &Place<'_>) -> Option<Unlocked> {
        let unlocked = unlock(place.store, &Secret::Words(self.words()))
            .await
            .ok()?;
        let room = unlocked.load_room(place.store).await.ok()?;
        let is_in = room.state.now().members.contains_key(&self.person());
        let is_done = is_in && unlocked.require_listed_slot(&room.state).is_ok();
        is_done.then_some(unlocked)
    }

    /// The room as the answer lets us see it, if it is the one that we were invited to, by whom we were.
    async fn check(
        &self,
        store: &dyn Store,
        answer: &OpenedAnswer,
        payload: &Payload,
    ) -> Result<Room, VaultError> {
        let invitation = self.invitation();
        let bad = |what: &str| VaultError::Join(what.to_owned());
        let reader = self.reader(payload);
        let room = reader.load(store).await?;
        let inviter = room.state.persons.get(&invitation.inviter);
        if inviter.is_none_or(|p| p.keys.fingerprint() != invitation.inviter_fingerprint) {
            return Err(bad(
                "the vault knows nobody with the fingerprint of who invited you",
            ));
        }
        let now = room.state.now();
        let Some(member) = now.members.get(&self.person()) else {
            return Err(bad(
                "you are no member: you were removed again, or who let you in was",
            ));
        };
        if member.author != invitation.inviter {
            return Err(bad("somebody else than who invited you let you in"));
        }
        if member.add != answer.add {
            return Err(bad("the answer names another record than lets you in"));
        }
        let own = room.state.persons.get(&self.person());
        if !own.is_some_and(|own| own.keys == self.keys()) {
            return Err(bad("other keys than yours were let in under your name"));
        }
        if room.state.invitation_of(&member.add) != Some(self.invitation().tag()) {
            return Err(bad(
                "the record that lets you in does not answer this invitation",
            ));
        }
        Ok(room)
    }

    fn reader(&self, payload: &Payload) -> RoomReader {
        RoomReader::for_root(self.invitation().anchor, payload)
    }

    /// Writes a words slot and, where it was given, a passphrase slot, and lists them.
    async fn make_slots(
        &self,
        place: &Place<'_>,
        mut room: Room,
        payload: &Payload,
        passphrase: Option<(&Zeroizing<String>, Argon2Params)>,
    ) -> Result<Unlocked, VaultError> {
        let mut entries = Vec::new();
        for (name, secret) in self.slots(passphrase) {
            entries.push(put_own_slot(place, name, &secret, payload).await?);
        }
        let unlocked = unlock(place.store, &Secret::Words(self.words())).await?;
        let officer = unlocked.officer();
        for entry in entries {
            if !room.state.lists_slot(self.person(), entry) {
                officer
                    .publish(place, &mut room, Record::SlotAdd(entry))
                    .await?;
            }
        }
        announce(place.store, &room).await?;
        Ok(unlocked)
    }
}

/// Second step, by the inviter: looks whether somebody has asked; `None` as long as nobody has.
///
/// # Errors
/// `Join` for a request that who wrote it could not have made with the invitation alone; `Storage`.
pub async fn find_request(
    store: &dyn Store,
    invitation: &Invitation,
) -> Result<Option<Request>, VaultError> {
    match fetch(store, invitation, JoinPart::Request).await? {
        Some(bytes) => Request::open(invitation, &bytes).map(Some),
        None => Ok(None),
    }
}

impl Officer {
    /// Third step, by the inviter: lets in whoever asked, and answers. Show the person `Request::name` and the safety number
    /// of `Request::fingerprint` first if the invitation may have been read by others. May be repeated.
    ///
    /// # Errors
    /// `Invitation` for one that has expired, is used up or is not this person's; `NotAllowed` for who manages no more; and
    /// those of `add_member`.
    pub async fn accept(
        &self,
        place: &Place<'_>,
        invitation: &Invitation,
        request: &Request,
    ) -> Result<Room, VaultError> {
        let bad = |what: &str| Err(VaultError::Invitation(what.to_owned()));
        if invitation.inviter != self.person || invitation.anchor != *self.reader.anchor() {
            return bad("it is not one of yours, or of another vault");
        }
        let mut room = self.load(place).await?;
        self.require_manager(&room)?;
        let user = room.state.user_of(&invitation.tag());
        if user.is_some_and(|user| user != request.person()) {
            return bad("somebody has joined with it already: make a new one");
        }
        // What was begun in time is finished later, too.
        if user.is_none() {
            invitation.require_valid(place.clock)?;
        }
        let member = NewMember {
            keys: request.keys().clone(),
            name: request.name().to_owned(),
            role: invitation.role,
            history: invitation.history,
            until: invitation.until,
            invitation: Some(invitation.tag()),
        };
        if user.is_some() && !room.state.now().members.contains_key(&request.person()) {
            return bad("who joined with it was removed since: make a new one");
        }
        let person = self.let_in(place, &mut room, &member).await?;
        let add = room
            .state
            .now()
            .members
            .get(&person)
            .map(|member| member.add);
        let Some(add) = add else {
            return Err(VaultError::not_allowed(
                "the new member was removed at the same time",
            ));
        };
        let answer = Answer { add, person };
        let bytes = answer.seal(self, invitation, request, place.entropy)?;
        // An earlier attempt may have written one that is as good.
        let there = fetch(place.store, invitation, JoinPart::Answer).await?;
        if there.is_none_or(|there| Answer::open(invitation, &there).is_err()) {
            delete(place.store, invitation, JoinPart::Answer).await?;
            put(place.store, invitation, JoinPart::Answer, bytes).await?;
        }
        announce(place.store, &room).await?;
        delete(place.store, invitation, JoinPart::Request).await?;
        Ok(room)
    }
}

impl crate::ControlState {
    /// Who was let in with an invitation.
    fn user_of(&self, tag: &[u8; 32]) -> Option<PersonId> {
        let adds = self.audit().into_iter().filter(|entry| !entry.overruled);
        let mut users = adds.filter_map(|entry| match entry.what {
            What::MemberAdded {
                person, invitation, ..
            } if invitation.as_ref() == Some(tag) => Some(person),
            _ => None,
        });
        users.next()
    }
}

/// What the payload of a slot says besides secrets.
fn payload_of(
    invitation: &Invitation,
    person: PersonId,
    vault_secret: skrin_crypto::VaultSecret,
    root_seed: skrin_crypto::RootSeed,
) -> Payload {
    let anchor = &invitation.anchor;
    Payload {
        vault: anchor.vault,
        header: anchor.header,
        format_version: FORMAT_VERSION,
        room: anchor.room,
        genesis: anchor.genesis,
        fingerprint: anchor.fingerprint,
        person,
        vault_secret,
        root_seed,
    }
}
