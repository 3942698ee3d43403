//! What the control records of a room say together: a pure fold. Every record is judged by its
//! own ancestors only, so all readers judge alike (docs/format/vault.md, section 4.1).

mod audit;
mod dag;
mod graph;
mod orphans;
mod rules;
mod world;

#[cfg(test)]
mod model;

pub use audit::{AuditEntry, What};
pub use world::{Member, World};

use crate::record::{Label, MemberKeys, Recipient, Role, SignerRef, SlotEntry};
use crate::{Anchor, Class, VaultError, control, objects};
use audit::Entry;
use dag::Dag;
use graph::{Budget, Graph, Tangled, View};
use skrin_base::Timestamp;
use skrin_base::ids::{DeviceId, EpochId, Hash32, PersonId, RoomId};
use skrin_base::limits::CONTROL_PARENTS_MAX;
use skrin_base::wire::WireError;
use skrin_crypto::{
    Envelope, EpochCommitment, KemPublic, RoomSecret, Roster, RosterDevice, Suite, VerifyingKey,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A person of a room.
#[derive(Clone, Debug)]
pub struct Person {
    /// What people call him.
    pub name: Label,
    /// His keys.
    pub keys: MemberKeys,
    /// The records of his key log, those before others first.
    pub key_log: Vec<Hash32>,
}

/// A certified device.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// Whose.
    pub person: PersonId,
    /// Verifies what it signs.
    pub sign: VerifyingKey,
    /// Receives for it.
    pub kem: KemPublic,
    /// What people call it.
    pub label: Label,
    /// When it was certified, as the certifier's clock had it.
    pub time: Timestamp,
    /// The records that certify it: more than one if machines did it at the same time.
    pub records: Vec<Hash32>,
}

/// An epoch as its record has it.
#[derive(Clone, Debug)]
pub struct EpochInfo {
    /// The epochs that it replaces.
    pub parents: Vec<EpochId>,
    /// Which KEM.
    pub suite: Suite,
    /// Proves which key.
    pub commitment: EpochCommitment,
    /// Who is in.
    pub members: Vec<(PersonId, Role)>,
    /// With which devices.
    pub devices: Vec<DeviceId>,
    /// Hash of the record without its envelopes.
    pub core: Hash32,
    /// Who made it.
    pub author: PersonId,
    /// With which key.
    pub signer: SignerRef,
    /// Its envelopes.
    pub envelopes: Vec<(Recipient, Envelope)>,
}

/// An epoch for a device that came later.
#[derive(Clone, Debug)]
pub struct GrantInfo {
    /// Which epoch.
    pub epoch: EpochId,
    /// For whom.
    pub recipient: Recipient,
    /// The wrapped key.
    pub envelope: Envelope,
    /// Who made it.
    pub author: PersonId,
    /// With which key.
    pub signer: SignerRef,
}

/// An earlier epoch for the root of a member who may read it.
#[derive(Clone, Debug)]
pub struct BackLinkInfo {
    /// The epoch that lists him.
    pub epoch: EpochId,
    /// The one that is given.
    pub earlier: EpochId,
    /// For whom.
    pub recipient: Recipient,
    /// The wrapped key.
    pub envelope: Envelope,
    /// Who made it.
    pub author: PersonId,
    /// With which key.
    pub signer: SignerRef,
}

/// An object under the name of a control record that says nothing: cut short by the storage, or
/// made by somebody who may not. No record that a member signed follows it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{object}: {what}")]
pub struct BadRecord {
    /// The object.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
}

impl BadRecord {
    fn new(anchor: &Anchor, hash: Hash32, what: impl ToString) -> Self {
        Self {
            object: objects::control_name(anchor.room, hash),
            what: what.to_string(),
        }
    }

    fn of(error: &VaultError, anchor: &Anchor, hash: Hash32) -> Self {
        match error {
            VaultError::Integrity { what, .. } => Self::new(anchor, hash, what),
            VaultError::NewerFeature { cause, .. } => Self::new(anchor, hash, cause),
            other => Self::new(anchor, hash, other),
        }
    }
}

/// The newest record, for telling people what they see.
#[derive(Clone, Copy, Debug)]
pub struct Newest {
    /// When, as its author's clock had it.
    pub time: Timestamp,
    /// Who.
    pub author: PersonId,
    /// With which key.
    pub signer: SignerRef,
}

/// The membership of a room, from all of its records.
pub struct ControlState {
    /// The room.
    pub room: RoomId,
    /// Its owner.
    pub owner: PersonId,
    /// Number of the rule set of `apply`.
    pub rule_set: u32,
    /// Length of a block in bytes, as a power of two.
    pub block_log2: u8,
    /// Whether blocks may be compressed.
    pub compression: bool,
    /// All persons who ever were members.
    pub persons: BTreeMap<PersonId, Person>,
    /// All devices that ever were certified.
    pub devices: BTreeMap<DeviceId, DeviceInfo>,
    /// All epochs.
    pub epochs: BTreeMap<EpochId, EpochInfo>,
    /// All grants.
    pub grants: Vec<GrantInfo>,
    /// All epochs that members were given later.
    pub back_links: Vec<BackLinkInfo>,
    /// The slots of members that the records list.
    pub live_slots: BTreeSet<SlotEntry>,
    /// The newest record by its claimed time.
    pub newest: Newest,
    pub(crate) room_secret: RoomSecret,
    slot_adds: Vec<(SlotEntry, PersonId, Hash32)>,
    slot_removes: Vec<(SlotEntry, PersonId, Hash32)>,
    /// Whose slots are listed.
    slot_owners: BTreeSet<(PersonId, SlotEntry)>,
    genesis: Hash32,
    entries: BTreeMap<Hash32, Entry>,
    /// The world at all heads.
    now: World,
    view: View,
    graph: Arc<Graph>,
    dag: Dag,
}

impl ControlState {
    /// Folds all records of a room; those that do not stand are left out and told.
    ///
    /// # Errors
    /// `Integrity` and `Missing`, naming the object that the room cannot stand with or without;
    /// `NewerVersion` and `NewerFeature` for what a member signed with a newer program.
    pub(crate) fn fold(
        anchor: &Anchor,
        objects: Vec<Result<control::Opened, control::Unread>>,
    ) -> Result<(Self, Vec<BadRecord>), VaultError> {
        let (mut records, mut unread) = (BTreeMap::new(), BTreeMap::new());
        for object in objects {
            match object {
                Ok(record) => drop(records.insert(record.hash, record)),
                Err(bad) => drop(unread.insert(bad.hash, bad)),
            }
        }
        if let Some(bad) = unread.remove(&anchor.genesis) {
            return Err(bad.error);
        }
        let Some(genesis) = records.remove(&anchor.genesis) else {
            return Err(VaultError::Missing {
                object: objects::control_name(anchor.room, anchor.genesis),
                named_by: "the slot that was opened".to_owned(),
            });
        };
        let mut state = rules::genesis(anchor, genesis)?;
        let mut bad = state.accept_all(anchor, &mut records)?;
        state.settle()?;
        for object in unread.into_values() {
            if state.present_keys().any(|key| object.is_newer_by(key)) {
                return Err(object.error);
            }
            bad.insert(
                object.hash,
                BadRecord::of(&object.error, anchor, object.hash),
            );
        }
        orphans::judge(&state, anchor, &records, &mut bad)?;
        Ok((state, bad.into_values().collect()))
    }

    /// Takes in all records that stand. Those whose ancestors do not all stand are left in `records`.
    fn accept_all(
        &mut self,
        anchor: &Anchor,
        records: &mut BTreeMap<Hash32, control::Opened>,
    ) -> Result<BTreeMap<Hash32, BadRecord>, VaultError> {
        let mut bad = BTreeMap::new();
        for hash in dag::order(anchor, records) {
            let stands = |r: &control::Opened| r.body.parents.iter().all(|p| self.knows(p));
            if !records.get(&hash).is_some_and(stands) {
                continue;
            }
            let Some(record) = records.remove(&hash) else {
                continue;
            };
            let object = record.object();
            let refused = match rules::record(self, record) {
                Ok(()) => continue,
                Err(rules::Refusal::Tangled(cause)) => return Err(self.tangled(cause)),
                Err(other) => refusal(object, other),
            };
            if refused.class() == Class::Newer {
                return Err(refused);
            }
            bad.insert(hash, BadRecord::of(&refused, anchor, hash));
        }
        Ok(bad)
    }

    fn tangled(&self, Tangled(what): Tangled) -> VaultError {
        let dir = format!("rooms/{}/control", self.room);
        VaultError::integrity(dir, format!("the control records cannot be judged: {what}"))
    }

    /// The keys of all who are members now, and of their devices: what others signed asks for nothing.
    fn present_keys(&self) -> impl Iterator<Item = &VerifyingKey> {
        let members = self.now.members.keys();
        let persons = members
            .filter_map(|id| self.persons.get(id))
            .map(|p| &p.keys);
        let persons = persons.flat_map(|k| std::iter::once(&k.root_sign).chain(&k.words_sign));
        let devices = self.now.devices.keys();
        let devices = devices.filter_map(|id| self.devices.get(id));
        persons.chain(devices.map(|device| &device.sign))
    }

    /// Takes in one record whose parents are in already.
    pub(crate) fn accept(&mut self, record: control::Opened) -> Result<(), VaultError> {
        let object = record.object();
        rules::record(self, record).map_err(|e| refusal(object, e))?;
        self.settle()
    }

    /// Brings up to date what follows from all records together.
    fn settle(&mut self) -> Result<(), VaultError> {
        let (view, now) = self
            .graph
            .view(&self.dag.heads())
            .and_then(|view| self.world_of(&view).map(|world| (view, world)))
            .map_err(|cause| self.tangled(cause))?;
        (self.view, self.now) = (view, now);
        self.slot_owners = self.compute_slots();
        self.live_slots = self.slot_owners.iter().map(|(_, entry)| *entry).collect();
        for (id, person) in &mut self.persons {
            let name = |record: &Hash32| self.entries.get(record).and_then(Entry::name);
            let standing = self
                .now
                .members
                .get(id)
                .and_then(|member| name(&member.add));
            let adds = person
                .key_log
                .iter()
                .filter(|record| name(record).is_some());
            if let Some(name) = standing.or_else(|| adds.min().and_then(name)) {
                person.name = name.clone();
            }
        }
        Ok(())
    }

    fn world_of(&self, view: &View) -> Result<World, Tangled> {
        world::derive(&self.graph, self.genesis, view, self.graph.budget())
    }

    /// The world at all heads: what is in force as far as is known here.
    pub fn now(&self) -> &World {
        &self.now
    }

    /// The world at some heads. Records that do not stand here are passed over: ask `knows` first.
    ///
    /// # Errors
    /// `Integrity` if somebody has made so many records at the same time that it cannot be told.
    pub fn world(&self, heads: &[Hash32]) -> Result<World, VaultError> {
        let budget = Budget::default();
        let view = self.graph.view_within(heads, &budget);
        view.and_then(|view| world::derive(&self.graph, self.genesis, &view, &budget))
            .map_err(|cause| self.tangled(cause))
    }

    /// What the next record and a commit name, in ascending order: at most 64 of the heads of what is in force (`foremost`).
    /// What was taken back is named by nobody, so that nobody who was put out can add to it.
    pub fn heads(&self) -> Vec<Hash32> {
        let mut good = BTreeSet::new();
        let (mut seen, mut todo) = (BTreeSet::new(), self.dag.heads());
        while let Some(record) = todo.pop() {
            if !seen.insert(record) {
                continue;
            }
            // An ending that suspends somebody is named, too: nobody is to overlook it.
            let number = self.graph.number(&record);
            let is_in_force = number.is_some_and(|n| self.view.in_force(n));
            match !is_in_force && self.is_overruled(&record) {
                true => todo.extend_from_slice(self.dag.parents(&record)),
                false => drop(good.insert(record)),
            }
        }
        let latest = self.dag.latest(good).into_iter().collect();
        let mut named = self.foremost(latest, CONTROL_PARENTS_MAX);
        named.sort_unstable();
        named
    }

    /// The most important of some heads. What counts goes before what only suspends, or somebody who was put out makes many
    /// removals in the past, and hides by them his own from whoever goes by the heads that are named. For the same
    /// reason it goes round the authors, those nearer to the owner first, and of each one the heads with the longest past.
    fn foremost(&self, mut heads: Vec<Hash32>, most: usize) -> Vec<Hash32> {
        if heads.len() <= most {
            return heads;
        }
        let suspends = |head: &Hash32| self.graph.number(head).is_some_and(|n| !self.view.holds(n));
        let author = |head: &Hash32| self.entries.get(head).map(|entry| entry.author);
        let past = |head: &Hash32| std::cmp::Reverse(self.dag.depth(head));
        heads.sort_by_cached_key(|head| (suspends(head), author(head), past(head), *head));
        let mut of_author: BTreeMap<(bool, Option<PersonId>), usize> = BTreeMap::new();
        let mut keyed = Vec::with_capacity(heads.len());
        for head in heads {
            let (late, by) = (suspends(&head), author(&head));
            let nth = of_author.entry((late, by)).or_default();
            *nth += 1;
            let member = by.and_then(|by| self.now.members.get(&by));
            let rank = member.map_or((true, None, 0), |m| (false, Some(m.role), m.depth));
            keyed.push(((late, *nth, rank, past(&head), head), head));
        }
        keyed.sort_unstable();
        keyed.truncate(most);
        keyed.into_iter().map(|(_, head)| head).collect()
    }

    /// Whether a record that stands is taken back by an ending that is in force now, or stands on such a one.
    pub fn is_overruled(&self, record: &Hash32) -> bool {
        if let Some(n) = self.graph.number(record) {
            return !self.view.counts(n);
        }
        let Some(entry) = self.entries.get(record) else {
            return false;
        };
        let Ok(at) = self.graph.view_within(&[*record], &Budget::default()) else {
            return true;
        };
        let by = (entry.author, rules::device_of(entry.signer), entry.need);
        if !self.graph.is_supported(&self.view, &at, by) {
            return true;
        }
        let endings = self.graph.endings_against(&self.view, &at, by);
        let ids = endings.iter().filter_map(|n| self.graph.record(*n));
        let mut ids = ids.map(|ending| ending.id);
        ids.any(|ending| !self.dag.is_ancestor(record, &[ending]))
    }

    /// The last record of a person's key log: what his next one follows.
    pub(crate) fn key_log_end(&self, person: &PersonId) -> Option<Hash32> {
        let log = &self.persons.get(person)?.key_log;
        let mut log = log.iter().rev();
        log.find(|record| !self.is_overruled(record)).copied()
    }

    /// Whether the records list a slot as this person's.
    pub fn lists_slot(&self, person: PersonId, slot: SlotEntry) -> bool {
        self.slot_owners.contains(&(person, slot))
    }

    /// The slots that the records list as this person's.
    pub fn slots_of(&self, person: PersonId) -> Vec<SlotEntry> {
        let all = self
            .slot_owners
            .iter()
            .filter(|(owner, _)| *owner == person);
        all.map(|(_, entry)| *entry).collect()
    }

    /// The slots that this person took off the list.
    pub(crate) fn removed_slots_of(&self, person: PersonId) -> Vec<SlotEntry> {
        let removed = self.slot_removes.iter();
        let removed = removed.filter(|(entry, by, _)| {
            *by == person && !self.slot_owners.contains(&(person, *entry))
        });
        removed.map(|(entry, _, _)| *entry).collect()
    }

    /// The invitation that a MemberAdd says it answers.
    pub(crate) fn invitation_of(&self, add: &Hash32) -> Option<[u8; 32]> {
        self.entries.get(add).and_then(Entry::invitation)
    }

    /// The epochs that everybody whose removal or revocation is in force was put out before: file keys that are drawn under
    /// them are known to members only.
    pub fn clean_epochs(&self) -> Vec<EpochId> {
        let endings = self.graph.endings(&self.view);
        let all = self.epochs.keys();
        all.filter(|id| self.follows_all(id, &endings))
            .copied()
            .collect()
    }

    /// Whether nobody was put out since an epoch was made.
    pub(crate) fn is_clean(&self, epoch: &EpochId) -> bool {
        self.follows_all(epoch, &self.graph.endings(&self.view))
    }

    fn follows_all(&self, epoch: &EpochId, endings: &graph::Bits) -> bool {
        let n = self.graph.number(&Hash32(epoch.0));
        let ancestors = n.and_then(|n| self.graph.ancestors(n));
        ancestors.is_some_and(|ancestors| ancestors.contains_all(endings))
    }

    /// Whether an epoch has to be made before anything is written: there are several heads, or somebody was put out since the
    /// current one, or it lists others than the members, or lacks a device of theirs that was not granted it.
    pub fn needs_epoch(&self) -> bool {
        let heads = self.epoch_heads();
        let [current] = heads.as_slice() else {
            return true;
        };
        let Some(epoch) = self.epochs.get(current) else {
            return true;
        };
        let listed = epoch.members.iter().map(|(person, _)| person);
        if !self.is_clean(current) || !listed.eq(self.now.members.keys()) {
            return true;
        }
        let has = |device: &DeviceId| epoch.devices.binary_search(device).is_ok();
        let granted = |device: &DeviceId| {
            let recipient = Recipient::Device(*device);
            let mut grants = self.grants.iter();
            grants.any(|grant| grant.epoch == *current && grant.recipient == recipient)
        };
        let mut living = self.now.devices.keys();
        let mut devices = epoch.devices.iter();
        devices.any(|device| !self.now.devices.contains_key(device))
            || living.any(|device| !has(device) && !granted(device))
    }

    /// Whether a record is known here.
    pub fn knows(&self, record: &Hash32) -> bool {
        self.dag.contains(record)
    }

    /// Whether `earlier` is `later` or one of its ancestors; a commit that names heads may only
    /// use what they contain.
    pub fn is_ancestor(&self, earlier: &Hash32, later: &Hash32) -> bool {
        self.dag.is_ancestor(earlier, &[*later])
    }

    /// The epochs that no other replaces, in ascending order; those that were taken back are passed over. With more than
    /// one, nothing may be sealed before a merge epoch.
    pub fn epoch_heads(&self) -> Vec<EpochId> {
        let counts = |id: &EpochId| !self.is_overruled(&Hash32(id.0));
        let counting = self.epochs.iter().filter(|(id, _)| counts(id));
        let replaced: BTreeSet<&EpochId> = counting.clone().flat_map(|(_, e)| &e.parents).collect();
        let heads = counting.filter(|(id, _)| !replaced.contains(id));
        heads.map(|(id, _)| *id).collect()
    }

    /// What the metadata needs to judge commits.
    pub fn roster(&self) -> Roster {
        let device = |id: &DeviceId, info: &DeviceInfo| RosterDevice {
            key: info.sign.clone(),
            person: info.person,
            label: info.label.as_str().to_owned(),
            cut: self.now.cuts.get(id).cloned(),
        };
        let devices = self.devices.iter();
        Roster {
            devices: devices.map(|(id, info)| (*id, device(id, info))).collect(),
            control_heads: self.heads(),
            control: self.dag.records(),
            rights: Arc::new(world::WorldRights::new(self.graph.clone(), self.genesis)),
        }
    }

    /// Whether a record of a view certifies the device.
    fn is_certified(&self, device: &DeviceInfo, view: &View) -> bool {
        let mut records = device.records.iter();
        records.any(|record| self.graph.number(record).is_some_and(|n| view.has(n)))
    }

    fn compute_slots(&self) -> BTreeSet<(PersonId, SlotEntry)> {
        let number = |record: &Hash32| self.graph.number(record);
        let counts = |record: &Hash32| number(record).is_some_and(|n| self.view.counts(n));
        let mut removes: BTreeMap<(PersonId, SlotEntry), Vec<u32>> = BTreeMap::new();
        for (entry, person, record) in &self.slot_removes {
            if counts(record) {
                let of_slot = removes.entry((*person, *entry)).or_default();
                of_slot.extend(number(record));
            }
        }
        let is_removed = |slot: &(PersonId, SlotEntry), add: &Hash32| {
            let removes = removes.get(slot).map_or(&[][..], |v| v);
            number(add).is_none_or(|n| removes.iter().any(|r| self.graph.precedes(n, *r)))
        };
        let adds = self.slot_adds.iter();
        let adds = adds.map(|(entry, person, record)| ((*person, *entry), record));
        adds.filter(|((person, _), _)| self.now.members.contains_key(person))
            .filter(|(slot, add)| counts(add) && !is_removed(slot, add))
            .map(|(slot, _)| slot)
            .collect()
    }
}

fn refusal(object: String, refusal: rules::Refusal) -> VaultError {
    match refusal {
        rules::Refusal::Rule(text) => VaultError::integrity(object, text),
        rules::Refusal::Tangled(Tangled(text)) => VaultError::integrity(object, text),
        rules::Refusal::Wire(cause @ WireError::Unknown { .. }) => VaultError::wire(object, cause),
        rules::Refusal::Wire(cause) => VaultError::integrity(object, cause),
    }
}
