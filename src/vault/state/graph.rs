//! Which records follow which, and which of them an ending takes back: rules 1 and 2 of a world (docs/format/vault.md,
//! section 4.4). Only records that say who may do what, epochs and slots are *tracked*, by number; all others go by the
//! tracked ones that they follow. Nothing here recurses, and all work is counted.

mod judge;

use crate::record::{CutTips, History, Role};
use judge::{Outs, Verdict};
use skrin_base::Timestamp;
use skrin_base::ids::{DeviceId, Hash32, PersonId};
use skrin_base::limits::MEMBERSHIP_RECORDS_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Steps that judging a room's records may take: some seconds. An honest room takes thousands.
const STEPS_MAX: u64 = 1 << 30;
/// Pairs of an ending and a record that it may take back.
const ATTACKS_MAX: usize = 1 << 22;

/// More concurrent records than are meant; nobody makes so many but on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tangled(pub(super) &'static str);

/// Counts the work.
#[derive(Default)]
pub(super) struct Budget(AtomicU64);

impl Budget {
    #[cfg(test)]
    pub(super) fn spent(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn charge(&self, steps: usize) -> Result<(), Tangled> {
        let before = self.0.fetch_add(steps as u64, Ordering::Relaxed);
        match before > STEPS_MAX {
            true => Err(Tangled(
                "too many of them were made at the same time to be judged",
            )),
            false => Ok(()),
        }
    }
}

impl Clone for Budget {
    fn clone(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }
}

/// A set of small numbers.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn has(&self, n: u32) -> bool {
        let word = self.0.get(n as usize / 64);
        word.is_some_and(|word| word >> (n % 64) & 1 == 1)
    }

    pub(super) fn insert(&mut self, n: u32) {
        let at = n as usize / 64;
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        if let Some(word) = self.0.get_mut(at) {
            *word |= 1 << (n % 64);
        }
    }

    fn union(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a |= b);
    }

    pub(super) fn contains_all(&self, other: &Self) -> bool {
        let mine = self.0.iter().copied().chain(std::iter::repeat(0));
        other
            .0
            .iter()
            .zip(mine)
            .all(|(theirs, mine)| theirs & !mine == 0)
    }

    fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }

    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let words = self.0.iter().enumerate();
        words.flat_map(|(at, word)| {
            let bits = (0..64u32).filter(move |bit| word >> bit & 1 == 1);
            bits.map(move |bit| at as u32 * 64 + bit)
        })
    }
}

/// What a tracked record does.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Add {
        person: PersonId,
        role: Role,
        history: History,
        until: Option<Timestamp>,
        invited: bool,
    },
    Remove {
        person: PersonId,
        cut: CutTips,
    },
    Role {
        person: PersonId,
        role: Role,
        cut: CutTips,
    },
    Device {
        person: PersonId,
        device: DeviceId,
    },
    Revoke {
        person: PersonId,
        device: DeviceId,
        cut: CutTips,
    },
    Other,
}

/// The depth of whoever is no manager: farther from the owner than any.
pub(super) const FAR: u32 = u32::MAX;

/// A record that is tracked.
#[derive(Clone, Debug)]
pub(super) struct Tracked {
    pub(super) id: Hash32,
    pub(super) author: PersonId,
    /// The device that signed, if one did.
    pub(super) device: Option<DeviceId>,
    /// The least that its author must be.
    pub(super) need: Role,
    /// How far from the owner its author was at its parents: 0 the owner, a manager one more than who made him one.
    pub(super) depth: u32,
    pub(super) time: Timestamp,
    pub(super) effect: Effect,
}

impl Tracked {
    /// Whether it says that somebody is a member.
    fn names_a_member(&self) -> bool {
        matches!(self.effect, Effect::Add { .. } | Effect::Role { .. })
    }

    /// Whether it gives something to somebody else: whoever was put out, or left, must not have done so.
    fn gives(&self) -> bool {
        match &self.effect {
            Effect::Add { .. } => true,
            Effect::Role { person, .. } => *person != self.author,
            _ => false,
        }
    }

    /// Whether it ends or lowers somebody else.
    fn ends_another(&self) -> bool {
        match &self.effect {
            Effect::Remove { person, .. } | Effect::Role { person, .. } => *person != self.author,
            _ => false,
        }
    }
}

#[derive(Clone)]
struct Node {
    record: Tracked,
    ancestors: Arc<Bits>,
    /// What was taken back in the world at its parents.
    before: Outs,
}

#[derive(Clone, Default)]
struct OfDevice {
    person: PersonId,
    adds: Vec<u32>,
    revokes: Vec<u32>,
}

/// All records that stand.
#[derive(Clone)]
pub(super) struct Graph {
    owner: PersonId,
    nodes: Vec<Node>,
    /// The tracked records that no other follows, of each record and its ancestors.
    heads: BTreeMap<Hash32, Arc<[u32]>>,
    /// MemberAdd, MemberRemove and MemberRole by the person that they are about.
    about: BTreeMap<PersonId, Vec<u32>>,
    by_author: BTreeMap<PersonId, Vec<u32>>,
    devices: BTreeMap<DeviceId, OfDevice>,
    devices_of: BTreeMap<PersonId, BTreeSet<DeviceId>>,
    /// An ending and a record of whom it ends that do not know of each other.
    attacks: Vec<(u32, u32)>,
    attackers: BTreeMap<u32, Vec<u32>>,
    budget: Budget,
}

/// The records that some heads and their ancestors are, and which of them are taken back.
#[derive(Clone)]
pub(super) struct View {
    heads: Arc<[u32]>,
    /// The only head; it is not in `bits`.
    top: Option<u32>,
    bits: Arc<Bits>,
    outs: Outs,
}

impl View {
    /// Whether a tracked record is one of them.
    pub(super) fn has(&self, n: u32) -> bool {
        self.top == Some(n) || self.bits.has(n)
    }

    /// Whether it is, and is not taken back.
    pub(super) fn counts(&self, n: u32) -> bool {
        matches!(self.verdict(n), Verdict::Counts | Verdict::StandsIn)
    }

    /// Whether it is, and counts by itself.
    pub(super) fn holds(&self, n: u32) -> bool {
        self.verdict(n) == Verdict::Counts
    }

    /// Whether it is an ending that ends somebody here, taken back or not.
    pub(super) fn in_force(&self, n: u32) -> bool {
        self.verdict(n).is_in_force()
    }

    fn verdict(&self, n: u32) -> Verdict {
        match self.has(n) {
            true => self.outs.get(n).unwrap_or(Verdict::Counts),
            false => Verdict::Absent,
        }
    }
}

/// Somebody who is a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    pub(super) role: Role,
    /// The MemberAdd that stands for him, by number; none for the owner.
    pub(super) add: Option<u32>,
    /// How far from the owner he is.
    pub(super) depth: u32,
}

impl Graph {
    pub(super) fn new(owner: PersonId, genesis: Hash32, time: Timestamp) -> Self {
        let mut this = Self {
            owner,
            nodes: Vec::new(),
            heads: BTreeMap::new(),
            about: BTreeMap::new(),
            by_author: BTreeMap::new(),
            devices: BTreeMap::new(),
            devices_of: BTreeMap::new(),
            attacks: Vec::new(),
            attackers: BTreeMap::new(),
            budget: Budget::default(),
        };
        this.heads.insert(genesis, Arc::from([0]));
        this.nodes.push(Node {
            record: Tracked {
                id: genesis,
                author: owner,
                device: None,
                need: Role::Owner,
                depth: 0,
                time,
                effect: Effect::Other,
            },
            ancestors: Arc::default(),
            before: Outs::default(),
        });
        this
    }

    pub(super) fn owner(&self) -> PersonId {
        self.owner
    }

    pub(super) fn record(&self, n: u32) -> Option<&Tracked> {
        self.nodes.get(n as usize).map(|node| &node.record)
    }

    /// The number of a record that is tracked.
    pub(super) fn number(&self, id: &Hash32) -> Option<u32> {
        let [head] = **self.heads.get(id)? else {
            return None;
        };
        (self.record(head)?.id == *id).then_some(head)
    }

    pub(super) fn about(&self) -> impl Iterator<Item = &PersonId> {
        self.about.keys()
    }

    /// Whether the tracked record `earlier` is an ancestor of the tracked record `later`.
    pub(super) fn precedes(&self, earlier: u32, later: u32) -> bool {
        let later = self.nodes.get(later as usize);
        later.is_some_and(|node| node.ancestors.has(earlier))
    }

    /// The ancestors of a tracked record.
    pub(super) fn ancestors(&self, n: u32) -> Option<&Bits> {
        self.nodes.get(n as usize).map(|node| &*node.ancestors)
    }

    /// The tracked records among some records and their ancestors. Unknown ones are passed over.
    pub(super) fn view(&self, records: &[Hash32]) -> Result<View, Tangled> {
        self.view_within(records, &self.budget)
    }

    /// As `view`, with a budget of its own.
    pub(super) fn view_within(&self, records: &[Hash32], budget: &Budget) -> Result<View, Tangled> {
        let lists = records.iter().filter_map(|id| self.heads.get(id));
        let all: BTreeSet<u32> = lists.flat_map(|heads| heads.iter().copied()).collect();
        // An ancestor has a lower number, so that the highest is a head.
        let mut heads: Vec<u32> = Vec::new();
        for n in all.into_iter().rev() {
            budget.charge(1 + heads.len())?;
            if !heads.iter().any(|head| self.precedes(n, *head)) {
                heads.push(n);
            }
        }
        heads.reverse();
        self.view_of(heads.into(), budget)
    }

    fn view_of(&self, heads: Arc<[u32]>, budget: &Budget) -> Result<View, Tangled> {
        if let [top] = *heads
            && let Some(node) = self.nodes.get(top as usize)
            && (node.before.is_empty() || !node.record.names_a_member())
            && !node.before.hangs
        {
            // A record that stands is taken back by nothing among its ancestors, and nothing else is here; only by naming
            // a member it changes what they say.
            return Ok(View {
                top: Some(top),
                bits: node.ancestors.clone(),
                outs: node.before.clone(),
                heads,
            });
        }
        let mut bits = Bits::default();
        for head in heads.iter() {
            budget.charge(1 + *head as usize / 64)?;
            if let Some(node) = self.nodes.get(*head as usize) {
                bits.union(&node.ancestors);
            }
            bits.insert(*head);
        }
        let outs = judge::outs(self, &bits, budget)?;
        Ok(View {
            heads,
            top: None,
            bits: Arc::new(bits),
            outs,
        })
    }

    /// Counts the work of asking what a person is, and whether a device lives, in some world.
    pub(super) fn charge_for(
        &self,
        person: &PersonId,
        device: Option<&DeviceId>,
    ) -> Result<(), Tangled> {
        self.budget.charge(self.price_of(person, device))
    }

    fn price_of(&self, person: &PersonId, device: Option<&DeviceId>) -> usize {
        let about = self.about.get(person).map_or(0, Vec::len);
        let of = device.and_then(|device| self.devices.get(device));
        let of = of.map_or(0, |of| of.adds.len() + of.revokes.len());
        // At worst all are compared with all.
        1 + about + of + (about * about + about * of) / 16
    }

    /// Counts the work of asking for all members and their devices.
    pub(super) fn charge_for_all(&self, budget: &Budget) -> Result<(), Tangled> {
        let persons = self.about.keys().map(|person| self.price_of(person, None));
        let devices = self.devices.iter();
        let devices = devices.map(|(device, of)| self.price_of(&of.person, Some(device)));
        budget.charge(persons.chain(devices).sum())
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Takes in a record that is not tracked.
    pub(super) fn pass(&mut self, id: Hash32, parents: &View) {
        self.heads.insert(id, parents.heads.clone());
    }

    /// Takes in a record that is tracked. `parents` is the world at its parents, in which it stands.
    pub(super) fn add(&mut self, record: Tracked, parents: &View) -> Result<(), Tangled> {
        if self.nodes.len() >= MEMBERSHIP_RECORDS_MAX {
            return Err(Tangled("there are more of them than a room may have"));
        }
        let n = self.nodes.len() as u32;
        let mut ancestors = (*parents.bits).clone();
        parents.top.iter().for_each(|top| ancestors.insert(*top));
        let found = self.attacks_of(&record, &ancestors)?;
        let (id, author) = (record.id, record.author);
        match &record.effect {
            Effect::Add { person, .. }
            | Effect::Remove { person, .. }
            | Effect::Role { person, .. } => self.about.entry(*person).or_default().push(n),
            Effect::Device { person, device } => {
                let of = self.devices.entry(*device).or_default();
                of.person = *person;
                of.adds.push(n);
                self.devices_of.entry(*person).or_default().insert(*device);
            }
            Effect::Revoke { person, device, .. } => {
                let of = self.devices.entry(*device).or_default();
                of.person = *person;
                of.revokes.push(n);
            }
            Effect::Other => {}
        }
        self.nodes.push(Node {
            record,
            ancestors: Arc::new(ancestors),
            before: parents.outs.clone(),
        });
        for other in found.on {
            self.attacks.push((other, n));
            self.attackers.entry(n).or_default().push(other);
        }
        for other in found.by {
            self.attacks.push((n, other));
            self.attackers.entry(other).or_default().push(n);
        }
        if self.attacks.len() > ATTACKS_MAX {
            return Err(Tangled("too many of them contradict each other"));
        }
        self.by_author.entry(author).or_default().push(n);
        self.heads.insert(id, Arc::from([n]));
        Ok(())
    }

    /// Whether `ending` takes back what `record` says, if they do not know of each other. What a manager gave to others is
    /// taken back by every ending of him, his own too: else he gives on, from the past, after he left or made less of
    /// himself. Whom a manager ended is ended, but where somebody nearer to the owner ends that manager; and nobody undoes
    /// what he did by ending himself, but by revoking the device.
    fn ends(ending: &Tracked, record: &Tracked) -> bool {
        let by_other = ending.author != record.author;
        let above = record.need > Role::Manager || ending.depth < record.depth;
        let reaches = record.gives() || by_other && above;
        match &ending.effect {
            Effect::Remove { person, .. } => reaches && *person == record.author,
            Effect::Role { person, role, .. } => {
                reaches && *person == record.author && *role > record.need
            }
            Effect::Revoke { device, .. } => record.device == Some(*device),
            _ => false,
        }
    }

    /// The demotions that shield a record, if they count, from being taken back by its own author: where he ends himself, or
    /// his device, after he was made less than the record needs, by one who knew of the record and not of that ending.
    fn shields(&self, ending: u32, on: u32) -> impl Iterator<Item = u32> {
        let pair = self.record(on).zip(self.record(ending));
        let pair = pair.filter(|(record, ending)| ending.author == record.author);
        let about = pair.and_then(|(record, _)| self.about.get(&record.author));
        let shields = move |n: &u32| {
            let role = match self.record(*n).map(|record| &record.effect) {
                Some(Effect::Role { role, person, .. })
                    if self.record(*n).is_some_and(|r| r.author != *person) =>
                {
                    Some(*role)
                }
                _ => None,
            };
            let less = role
                .zip(pair)
                .is_some_and(|(role, (record, _))| role > record.need);
            less && self.precedes(on, *n) && !self.precedes(ending, *n)
        };
        about.into_iter().flatten().copied().filter(shields)
    }

    /// All that a new record and those that it does not know take back of each other.
    fn attacks_of(&self, record: &Tracked, ancestors: &Bits) -> Result<Attacks, Tangled> {
        let mut found = Attacks::default();
        let revokes = record.device.and_then(|device| self.devices.get(&device));
        let revokes = revokes.map_or(&[][..], |of| &of.revokes);
        let endings = self.about.get(&record.author).map_or(&[][..], |v| v);
        for n in endings.iter().chain(revokes) {
            let other = self.record(*n).filter(|_| !ancestors.has(*n));
            if other.is_some_and(|other| Self::ends(other, record)) {
                found.on.push(*n);
            }
        }
        let target = match &record.effect {
            Effect::Remove { person, .. }
            | Effect::Role { person, .. }
            | Effect::Revoke { person, .. } => Some(*person),
            _ => None,
        };
        let victims = target.and_then(|person| self.by_author.get(&person));
        let victims = victims.map_or(&[][..], |v| v);
        for n in victims {
            let other = self.record(*n).filter(|_| !ancestors.has(*n));
            if other.is_some_and(|other| Self::ends(record, other)) {
                found.by.push(*n);
            }
        }
        self.budget
            .charge(endings.len() + revokes.len() + victims.len())?;
        Ok(found)
    }

    /// What a person is in a world.
    pub(super) fn standing(&self, view: &View, person: &PersonId) -> Option<Standing> {
        self.standing_by(person, &|n| view.verdict(n))
    }

    /// As `standing`, by the verdicts that are given. Of the records about him that count, those that no other follows say
    /// what he is: a removal that he is no member, else the lowest role that is given him, where of several MemberAdds
    /// the highest is. Endings that were taken back and suspend him lower that, but where one that counts follows them.
    fn standing_by(&self, person: &PersonId, verdict: &dyn Fn(u32) -> Verdict) -> Option<Standing> {
        if *person == self.owner {
            return Some(Standing {
                role: Role::Owner,
                add: None,
                depth: 0,
            });
        }
        let is_add = |n: u32| {
            let effect = self.record(n).map(|record| &record.effect);
            matches!(effect, Some(Effect::Add { .. }))
        };
        let all = || self.about.get(person).into_iter().flatten().copied();
        let holding = all().filter(|n| is_add(*n) && verdict(*n) == Verdict::Counts);
        let holding: Vec<u32> = holding.collect();
        // An Add for which another stands in says nothing beside that: else whoever was put out gives back, from the past, a
        // role that was taken since.
        let verdict = |n: u32| match verdict(n) {
            Verdict::StandsIn if holding.iter().all(|add| self.precedes(*add, n)) => {
                Verdict::Counts
            }
            other => other,
        };
        let mut last: Vec<u32> = Vec::new();
        let (mut suspending, mut removes, mut adds) = (Vec::new(), Vec::new(), Vec::new());
        for n in self.about.get(person).into_iter().flatten().rev() {
            let verdict = verdict(*n);
            let followed = || last.iter().any(|later| self.precedes(*n, *later));
            if verdict.is_in_force() && !followed() {
                match verdict {
                    Verdict::Counts => last.push(*n),
                    _ => suspending.push(*n),
                }
            }
            match self.record(*n).map(|record| &record.effect) {
                Some(Effect::Remove { .. }) if verdict.is_in_force() => removes.push(*n),
                Some(Effect::Add { .. }) if verdict != Verdict::Absent => {
                    let removed = removes.iter().any(|remove| self.precedes(*n, *remove));
                    adds.push((removed, verdict != Verdict::Counts, *n));
                }
                _ => {}
            }
        }
        let (role, depth) = self.role_by(&last, &suspending)?;
        let key = |(removed, out, n): &(bool, bool, u32)| {
            let record = self.record(*n);
            (*removed, *out, record.map(|r| (r.depth, r.id)))
        };
        let add = adds.iter().min_by_key(|add| key(add));
        let add = add.map(|(_, _, n)| *n);
        Some(Standing { role, add, depth })
    }

    /// The role that the last records about somebody give him, and how far from the owner that leaves him.
    fn role_by(&self, last: &[u32], suspending: &[u32]) -> Option<(Role, u32)> {
        let (mut added, mut given): (Option<Role>, Option<Role>) = (None, None);
        let mut maker = FAR;
        for n in last {
            let record = self.record(*n)?;
            let role = match &record.effect {
                Effect::Add { role, .. } => {
                    added = Some(added.map_or(*role, |other| other.min(*role)));
                    *role
                }
                Effect::Role { role, .. } => {
                    given = Some(given.map_or(*role, |other| other.max(*role)));
                    *role
                }
                _ => return None,
            };
            if role == Role::Manager {
                maker = maker.min(record.depth);
            }
        }
        let mut role = added.max(given)?;
        for n in suspending {
            match self.record(*n)?.effect {
                Effect::Role { role: less, .. } => role = role.max(less),
                _ => return None,
            }
        }
        let depth = match role == Role::Manager {
            true => maker.saturating_add(1),
            false => FAR,
        };
        Some((role, depth))
    }

    /// Whether a device is certified and neither revoked nor its person removed since.
    pub(super) fn is_living(&self, view: &View, device: &DeviceId) -> bool {
        self.is_living_by(device, &|n| view.verdict(n))
    }

    fn is_living_by(&self, device: &DeviceId, verdict: &dyn Fn(u32) -> Verdict) -> bool {
        let Some(of) = self.devices.get(device) else {
            return false;
        };
        let counts = |n: &u32| verdict(*n) == Verdict::Counts;
        if of.revokes.iter().any(counts) {
            return false;
        }
        let mut removes = self
            .about
            .get(&of.person)
            .into_iter()
            .flatten()
            .filter(|n| {
                let effect = self.record(**n).map(|record| &record.effect);
                matches!(effect, Some(Effect::Remove { .. })) && verdict(**n).is_in_force()
            });
        let mut living: Vec<u32> = of.adds.iter().copied().filter(|n| counts(n)).collect();
        removes.all(|remove| {
            living.retain(|add| self.precedes(*remove, *add));
            !living.is_empty()
        }) && !living.is_empty()
    }

    /// The living devices of a person who is a member, in ascending order.
    pub(super) fn devices_of(&self, view: &View, person: &PersonId) -> Vec<DeviceId> {
        let all = self.devices_of.get(person).into_iter().flatten();
        let living = all.filter(|device| self.is_living(view, device));
        // A record sees how many there are; some that do not know of each other may be more.
        let most = skrin_base::limits::DEVICES_OF_PERSON_MAX;
        living.take(most).copied().collect()
    }

    /// The endings in force that cut the lanes of a device.
    pub(super) fn cuts_of(&self, view: &View, device: &DeviceId) -> Vec<&CutTips> {
        let Some(of) = self.devices.get(device) else {
            return Vec::new();
        };
        let is_later = |ending: &u32| {
            let mut adds = of.adds.iter();
            adds.any(|add| view.counts(*add) && self.precedes(*ending, *add))
        };
        let about = self.about.get(&of.person).into_iter().flatten();
        let endings = about.chain(&of.revokes);
        let endings = endings.filter(|n| view.in_force(**n) && !is_later(n));
        let cut = |n: &u32| match &self.record(*n)?.effect {
            Effect::Remove { cut, .. } | Effect::Revoke { cut, .. } => Some(cut),
            Effect::Role { cut, role, .. } if *role > Role::Editor => Some(cut),
            _ => None,
        };
        endings.filter_map(cut).collect()
    }

    /// Whether a DeviceAdd of it counts.
    pub(super) fn is_certified(&self, view: &View, device: &DeviceId) -> bool {
        let adds = self.devices.get(device).map_or(&[][..], |of| &of.adds);
        adds.iter().any(|add| view.counts(*add))
    }

    pub(super) fn all_devices(&self) -> impl Iterator<Item = (&DeviceId, PersonId)> {
        let all = self.devices.iter().filter(|(_, of)| !of.adds.is_empty());
        all.map(|(device, of)| (device, of.person))
    }

    /// The removals and revocations in force: whoever they name must not know what is sealed from now on.
    pub(super) fn endings(&self, view: &View) -> Bits {
        let mut out = Bits::default();
        for (n, node) in (0u32..).zip(&self.nodes) {
            let effect = &node.record.effect;
            let ends = matches!(effect, Effect::Remove { .. } | Effect::Revoke { .. });
            if ends && view.in_force(n) {
                out.insert(n);
            }
        }
        out
    }

    /// The endings in force that a record of this author, made after `at`, would not know.
    pub(super) fn endings_against(
        &self,
        now: &View,
        at: &View,
        (author, device, need): (PersonId, Option<DeviceId>, Role),
    ) -> Vec<u32> {
        let probe = Tracked {
            id: Hash32::default(),
            author,
            device,
            need,
            // What is not tracked changes nobody: whoever ends its author takes it back.
            depth: FAR,
            time: Timestamp(0),
            effect: Effect::Other,
        };
        let about = self.about.get(&author).into_iter().flatten();
        let revokes = device.and_then(|device| self.devices.get(&device));
        let revokes = revokes.into_iter().flat_map(|of| &of.revokes);
        let unknown = about
            .chain(revokes)
            .filter(|n| now.in_force(**n) && !at.has(**n));
        let ends = |n: &&u32| self.record(**n).is_some_and(|e| Self::ends(e, &probe));
        unknown.filter(ends).copied().collect()
    }

    /// Whether a record that stands at `at` would stand there, too, without what `now` takes back.
    pub(super) fn is_supported(
        &self,
        now: &View,
        at: &View,
        (author, device, need): (PersonId, Option<DeviceId>, Role),
    ) -> bool {
        let verdict = |n: u32| match at.has(n) {
            true => now.verdict(n),
            false => Verdict::Absent,
        };
        judge::supports(self, &author, device.as_ref(), (need, FAR), &verdict)
    }
}

#[derive(Default)]
struct Attacks {
    on: Vec<u32>,
    by: Vec<u32>,
}
