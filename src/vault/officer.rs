//! What a person does about the members of a room: with a mounted device, which has no root, or with the root.

use crate::control::Signer;
use crate::epochs::{publish_back_links, publish_epoch};
use crate::publish::{Author, Place, announce, publish};
use crate::record::{
    CutTips, DeviceRevoke, EndReason, History, Label, MemberAdd, MemberKeys, MemberRemove,
    MemberRole, Record, Role,
};
use crate::room::{Room, RoomReader};
use crate::{Device, Unlocked, VaultError};
use skrin_base::Timestamp;
use skrin_base::ids::{DeviceId, PersonId};
use skrin_base::limits::EPOCH_RECIPIENTS_MAX;
use skrin_crypto::{DeviceSigner, RootSigner, VaultSecret};

pub(crate) enum OwnKey {
    Root(RootSigner),
    Device(DeviceId, DeviceSigner),
}

/// Acts for one person in the vault's root room. Made for a device it holds no root, and may be kept as long as the device
/// is mounted; made for the root it is dropped as soon as it has acted.
///
/// Every action reads the records again, publishes what it has to, reads that back, tells the others by a tip, and returns
/// the room as it is then. Repeating an action that was interrupted finishes it, and what is so already is left so.
pub struct Officer {
    pub(crate) reader: RoomReader,
    pub(crate) person: PersonId,
    pub(crate) vault_secret: VaultSecret,
    pub(crate) key: OwnKey,
}

/// Whom to let in.
#[derive(Clone, Debug)]
pub struct NewMember {
    /// His keys; his id follows from them.
    pub keys: MemberKeys,
    /// What people call him.
    pub name: String,
    /// What he may do.
    pub role: Role,
    /// Which epochs he is given.
    pub history: History,
    /// When he is meant to leave.
    pub until: Option<Timestamp>,
    /// Names the invitation that his keys answered, if they did.
    pub invitation: Option<[u8; 32]>,
}

impl Officer {
    /// For a mounted device.
    pub fn for_device(unlocked: &Unlocked, device: &Device) -> Self {
        Self {
            reader: RoomReader::for_device(unlocked, device),
            person: unlocked.person(),
            vault_secret: unlocked.copy_vault_secret(),
            key: OwnKey::Device(device.id(), device.signer(unlocked.vault())),
        }
    }

    /// For the root.
    pub fn for_root(unlocked: &Unlocked) -> Self {
        Self {
            reader: unlocked.reader(),
            person: unlocked.person(),
            vault_secret: unlocked.copy_vault_secret(),
            key: OwnKey::Root(unlocked.root_signer()),
        }
    }

    /// For whom it acts.
    pub fn person(&self) -> PersonId {
        self.person
    }

    /// What it reads the room with.
    pub fn reader(&self) -> &RoomReader {
        &self.reader
    }

    /// Reads the room.
    ///
    /// # Errors
    /// Those of `RoomReader::load`.
    pub async fn load(&self, place: &Place<'_>) -> Result<Room, VaultError> {
        self.reader.load(place.store).await
    }

    pub(crate) fn author(&self) -> Author<'_> {
        Author {
            vault: self.reader.anchor().vault,
            person: self.person,
            signer: match &self.key {
                OwnKey::Root(key) => Signer::Root(key),
                OwnKey::Device(id, key) => Signer::Device(*id, key),
            },
            control: self.reader.control_key(),
        }
    }

    pub(crate) async fn publish(
        &self,
        place: &Place<'_>,
        room: &mut Room,
        record: Record,
    ) -> Result<(), VaultError> {
        publish(place, room, &self.author(), record, &[]).await?;
        Ok(())
    }

    /// Lets somebody in whose keys are known, makes the next epoch, and gives him the history if he may read it.
    ///
    /// # Errors
    /// `NotAllowed`, `Label`, `TooMany`, `Storage`, and those of `load`.
    pub async fn add_member(
        &self,
        place: &Place<'_>,
        member: &NewMember,
    ) -> Result<Room, VaultError> {
        let mut room = self.load(place).await?;
        self.let_in(place, &mut room, member).await?;
        announce(place.store, &room).await?;
        Ok(room)
    }

    pub(crate) async fn let_in(
        &self,
        place: &Place<'_>,
        room: &mut Room,
        member: &NewMember,
    ) -> Result<PersonId, VaultError> {
        self.require_manager(room)?;
        let name = &member.name;
        let label = Label::new(name).map_err(|_| VaultError::Label(name.clone()))?;
        if member.role == Role::Owner {
            return Err(VaultError::not_allowed("there is one owner"));
        }
        if member.role == Role::Recovery && member.invitation.is_some() {
            return Err(VaultError::not_allowed(
                "nobody is invited as a recovery key",
            ));
        }
        let person = member.keys.person(self.reader.anchor().vault);
        if !room.state.now().members.contains_key(&person) {
            require_room_for_one(room)?;
            let record = MemberAdd {
                person,
                name: label,
                role: member.role,
                keys: member.keys.clone(),
                history: member.history,
                until: member.until,
                invitation: member.invitation,
            };
            self.publish(place, room, Record::MemberAdd(Box::new(record)))
                .await?;
        }
        self.renew(place, room).await?;
        let now = room.state.now().members.get(&person);
        if now.is_some_and(|member| member.history == History::All) {
            publish_back_links(place, room, &self.author(), person).await?;
        }
        Ok(person)
    }

    /// Puts somebody out, with what counts of his devices' lanes, and makes the next epoch.
    ///
    /// # Errors
    /// `NotAllowed`, `Storage`, and those of `load`.
    pub async fn remove_member(
        &self,
        place: &Place<'_>,
        person: PersonId,
        cut: CutTips,
        reason: EndReason,
    ) -> Result<Room, VaultError> {
        let mut room = self.load(place).await?;
        if person != self.person {
            self.require_manager(&room)?;
            self.require_nearer(&room, &person)?;
        }
        require_not_owner(&room, &person)?;
        require_known(&room, &person)?;
        if room.state.now().members.contains_key(&person) {
            let record = MemberRemove {
                person,
                cut: in_order(cut),
                reason,
            };
            let record = Record::MemberRemove(Box::new(record));
            self.publish(place, &mut room, record).await?;
            // At once: whoever is stopped before the next epoch leaves that to others.
            announce(place.store, &room).await?;
        }
        self.renew_if_allowed(place, &mut room).await?;
        announce(place.store, &room).await?;
        Ok(room)
    }

    /// Leaves the room for good. Somebody else makes the next epoch.
    ///
    /// # Errors
    /// `NotAllowed` for the owner, `Storage`, and those of `load`.
    pub async fn leave(&self, place: &Place<'_>, cut: CutTips) -> Result<Room, VaultError> {
        self.remove_member(place, self.person, cut, EndReason::Left)
            .await
    }

    /// Changes what a member may do; `cut` says what counts of his devices' lanes if he may only read from now on, and is
    /// not looked at otherwise.
    ///
    /// # Errors
    /// `NotAllowed`, `Storage`, and those of `load`.
    pub async fn set_role(
        &self,
        place: &Place<'_>,
        person: PersonId,
        role: Role,
        cut: CutTips,
    ) -> Result<Room, VaultError> {
        let mut room = self.load(place).await?;
        self.require_manager(&room)?;
        require_not_owner(&room, &person)?;
        if role == Role::Owner {
            return Err(VaultError::not_allowed("there is one owner"));
        }
        match room.state.now().role(&person) {
            None => return Err(VaultError::not_allowed("this person is no member")),
            Some(Role::Recovery) => {
                return Err(VaultError::not_allowed(
                    "a recovery key stays one: remove it, and invite who is to have another role",
                ));
            }
            Some(now) if now == role => {}
            Some(_) => {
                if person != self.person {
                    self.require_nearer(&room, &person)?;
                }
                let cut = match role > Role::Editor {
                    true => in_order(cut),
                    false => Vec::new(),
                };
                let record = MemberRole { person, role, cut };
                let record = Record::MemberRole(Box::new(record));
                self.publish(place, &mut room, record).await?;
            }
        }
        announce(place.store, &room).await?;
        Ok(room)
    }

    /// Makes the next epoch if one has to be made before anything is written.
    ///
    /// # Errors
    /// `NotAllowed` for who may only read, `TooMany`, `Storage`, and those of `load`.
    pub async fn make_epoch(&self, place: &Place<'_>) -> Result<Room, VaultError> {
        let mut room = self.load(place).await?;
        if room.state.needs_epoch() {
            self.require(&room, Role::Editor, "only who may write makes new keys")?;
            self.renew(place, &mut room).await?;
            announce(place.store, &room).await?;
        }
        Ok(room)
    }

    /// Makes an epoch even where none is needed: what is written from now on is under new keys.
    ///
    /// # Errors
    /// As `make_epoch`.
    pub async fn rekey(&self, place: &Place<'_>) -> Result<Room, VaultError> {
        let mut room = self.load(place).await?;
        self.require(&room, Role::Editor, "only who may write makes new keys")?;
        publish_epoch(place, &mut room, &self.author()).await?;
        announce(place.store, &room).await?;
        Ok(room)
    }

    pub(crate) async fn renew(&self, place: &Place<'_>, room: &mut Room) -> Result<(), VaultError> {
        if room.state.needs_epoch() {
            publish_epoch(place, room, &self.author()).await?;
        }
        Ok(())
    }

    /// Who may only read, or has just left, leaves the next epoch to the others.
    async fn renew_if_allowed(&self, place: &Place<'_>, room: &mut Room) -> Result<(), VaultError> {
        let role = room.state.now().role(&self.person);
        match role.is_some_and(|role| role <= Role::Editor) {
            true => self.renew(place, room).await,
            false => Ok(()),
        }
    }

    pub(crate) fn require_manager(&self, room: &Room) -> Result<(), VaultError> {
        self.require(
            room,
            Role::Manager,
            "only managers and the owner change who is in",
        )
    }

    /// Managers do nothing to those who are as near to the owner as they.
    fn require_nearer(&self, room: &Room, person: &PersonId) -> Result<(), VaultError> {
        let members = &room.state.now().members;
        let depth = |id: &PersonId| members.get(id).map(|member| (member.role, member.depth));
        match (depth(&self.person), depth(person)) {
            (Some((_, mine)), Some((Role::Manager, theirs))) if theirs <= mine => {
                Err(VaultError::not_allowed(
                    "this manager is as near to the owner as you are, or nearer: ask the owner, or who made him a manager",
                ))
            }
            _ => Ok(()),
        }
    }

    fn require(&self, room: &Room, role: Role, otherwise: &'static str) -> Result<(), VaultError> {
        let now = room.state.now();
        let Some(mine) = now.role(&self.person) else {
            return Err(VaultError::not_allowed("you are no member any more"));
        };
        if let OwnKey::Device(id, _) = &self.key
            && !now.devices.contains_key(id)
        {
            return Err(VaultError::not_allowed("this device was revoked"));
        }
        match mine <= role {
            true => Ok(()),
            false => Err(VaultError::not_allowed(otherwise)),
        }
    }
}

fn require_not_owner(room: &Room, person: &PersonId) -> Result<(), VaultError> {
    match *person == room.state.owner {
        true => Err(VaultError::not_allowed(
            "nobody removes or changes the owner",
        )),
        false => Ok(()),
    }
}

fn require_known(room: &Room, person: &PersonId) -> Result<(), VaultError> {
    match room.state.persons.contains_key(person) {
        true => Ok(()),
        false => Err(VaultError::not_allowed("this person never was a member")),
    }
}

/// A cut as the format wants it.
fn in_order(mut cut: CutTips) -> CutTips {
    cut.sort_unstable();
    cut.dedup();
    cut
}

/// Whoever comes in brings a root, words and a device, and all of them have to fit an epoch.
fn require_room_for_one(room: &Room) -> Result<(), VaultError> {
    let now = room.state.now();
    let found = 2 * (now.members.len() + 1) + now.devices.len() + 1;
    match found > EPOCH_RECIPIENTS_MAX {
        false => Ok(()),
        true => Err(VaultError::TooMany {
            what: "devices, roots and words of the members",
            found,
            limit: EPOCH_RECIPIENTS_MAX,
        }),
    }
}

impl Unlocked {
    /// What this person may do about members, with the root.
    pub fn officer(&self) -> Officer {
        Officer::for_root(self)
    }

    /// Revokes one of this person's own devices, with what counts of its lanes, and makes the next epoch if he may. It never
    /// comes back: whoever has it certifies a new one.
    ///
    /// # Errors
    /// `UnlistedSlot`, `NotAllowed`, `Storage`, and those of `load_room`.
    pub async fn revoke_device(
        &self,
        place: &Place<'_>,
        device: DeviceId,
        cut: CutTips,
        reason: EndReason,
    ) -> Result<Room, VaultError> {
        let officer = self.officer();
        let mut room = self.load_room(place.store).await?;
        self.require_listed_slot(&room.state)?;
        let known = room.state.devices.get(&device);
        if known.is_none_or(|known| known.person != self.person()) {
            return Err(VaultError::not_allowed("this is none of your devices"));
        }
        if room.state.now().devices.contains_key(&device) {
            let previous = room.state.key_log_end(&self.person());
            let record = DeviceRevoke {
                person: self.person(),
                previous: previous.ok_or_else(|| {
                    VaultError::not_allowed("your key log has no record that stands")
                })?,
                device,
                cut: in_order(cut),
                reason,
            };
            let record = Record::DeviceRevoke(Box::new(record));
            officer.publish(place, &mut room, record).await?;
            announce(place.store, &room).await?;
        }
        officer.renew_if_allowed(place, &mut room).await?;
        announce(place.store, &room).await?;
        Ok(room)
    }
}
