//! The reference: docs/format/vault.md, section 4.4, word by word.

use crate::record::Role;
use skrin_base::ids::{DeviceId, Hash32, PersonId};
use std::collections::{BTreeMap, BTreeSet};

type Set = BTreeSet<usize>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Genesis,
    Add(PersonId, Role),
    Remove(PersonId),
    Role(PersonId, Role),
    Device(DeviceId),
    Revoke(DeviceId),
}

struct Said {
    id: Hash32,
    author: PersonId,
    device: Option<DeviceId>,
    kind: Kind,
    parents: Set,
    /// All ancestors.
    past: Set,
    /// How far from the owner its author was, and by which record.
    rank: (u32, Hash32),
}

/// What a world says.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Facts {
    pub(super) members: BTreeMap<PersonId, (Role, Hash32)>,
    pub(super) devices: BTreeSet<DeviceId>,
    pub(super) cut: BTreeSet<DeviceId>,
}

pub(super) struct Model {
    owner: PersonId,
    said: Vec<Said>,
}

impl Model {
    pub(super) fn new(owner: PersonId, genesis: Hash32) -> Self {
        let said = vec![Said {
            id: genesis,
            author: owner,
            device: None,
            kind: Kind::Genesis,
            parents: Set::new(),
            past: Set::new(),
            rank: Default::default(),
        }];
        Self { owner, said }
    }

    pub(super) fn number(&self, id: &Hash32) -> usize {
        self.said.iter().position(|said| said.id == *id).unwrap()
    }

    pub(super) fn all(&self) -> Set {
        (0..self.said.len()).collect()
    }

    pub(super) fn parents(&self, n: usize) -> &Set {
        &self.said[n].parents
    }

    /// Some records with all their ancestors.
    pub(super) fn past(&self, some: &Set) -> Set {
        let pasts = some.iter().flat_map(|n| self.said[*n].past.iter().copied());
        pasts.chain(some.iter().copied()).collect()
    }

    /// Those of a set that none of it follows.
    pub(super) fn heads_of(&self, set: &Set) -> Set {
        let followed = |n: &usize| set.iter().any(|m| self.said[*m].past.contains(n));
        set.iter().filter(|n| !followed(n)).copied().collect()
    }

    fn need(&self, author: PersonId, kind: Kind) -> Role {
        match kind {
            Kind::Genesis => Role::Owner,
            Kind::Remove(person) if person == author => Role::Reader,
            Kind::Add(..) | Kind::Remove(_) | Kind::Role(..) => Role::Manager,
            Kind::Device(_) | Kind::Revoke(_) => Role::Reader,
        }
    }

    fn about(&self, n: usize) -> Option<PersonId> {
        match self.said[n].kind {
            Kind::Add(person, _) | Kind::Remove(person) | Kind::Role(person, _) => Some(person),
            _ => None,
        }
    }

    fn is_removal(&self, n: usize) -> bool {
        matches!(self.said[n].kind, Kind::Remove(_))
    }

    /// What a person is, by the records of `counting`: the last ones about him say it, if a MemberAdd stands for him.
    fn member(&self, counting: &Set, person: PersonId) -> Option<(Role, (u32, Hash32))> {
        if person == self.owner {
            return Some((Role::Owner, Default::default()));
        }
        let about: Set = counting
            .iter()
            .filter(|n| self.about(**n) == Some(person))
            .copied()
            .collect();
        let last = self.heads_of(&about);
        if last.iter().any(|n| self.is_removal(*n)) {
            return None;
        }
        let roles = last.iter().map(|n| match self.said[*n].kind {
            Kind::Add(_, role) | Kind::Role(_, role) => role,
            _ => unreachable!(),
        });
        let role = roles.max()?;
        let removed = |n: &usize| {
            let mut removals = about.iter().filter(|m| self.is_removal(**m));
            removals.any(|m| self.said[*m].past.contains(n))
        };
        let adds = about
            .iter()
            .filter(|n| matches!(self.said[**n].kind, Kind::Add(..)));
        let adds = adds.filter(|n| !removed(n));
        let rank = |n: &usize| (self.said[*n].rank.0 + 1, self.said[*n].id);
        Some((role, adds.map(rank).min()?))
    }

    fn lives(&self, counting: &Set, device: DeviceId) -> bool {
        let is = |kind: Kind| move |n: &&usize| self.said[**n].kind == kind;
        if counting.iter().any(|n| is(Kind::Revoke(device))(&n)) {
            return false;
        }
        counting.iter().filter(is(Kind::Device(device))).any(|n| {
            let person = self.said[*n].author;
            let mut removals = counting.iter().filter(is(Kind::Remove(person)));
            removals.all(|m| self.said[*n].past.contains(m))
        })
    }

    /// Whether the author and the device had the right to a record, by those of its past that count.
    fn supported(&self, n: usize, counting: &Set) -> bool {
        let said = &self.said[n];
        let known = said.past.intersection(counting).copied().collect();
        self.right(&known, said.author, said.device, said.kind)
    }

    fn right(&self, known: &Set, author: PersonId, device: Option<DeviceId>, kind: Kind) -> bool {
        let need = self.need(author, kind);
        self.member(known, author)
            .is_some_and(|(role, _)| role <= need)
            && device.is_none_or(|device| self.lives(known, device))
    }

    fn ends(&self, ending: usize, record: usize) -> bool {
        let record = &self.said[record];
        let other = self.said[ending].author != record.author;
        match self.said[ending].kind {
            Kind::Remove(person) => other && person == record.author,
            Kind::Role(person, role) => {
                let need = self.need(record.author, record.kind);
                other && person == record.author && role > need
            }
            Kind::Revoke(device) => record.device == Some(device),
            _ => false,
        }
    }

    /// Whether an ending takes a record back if it counts.
    fn attacks(&self, ending: usize, record: usize) -> bool {
        let (e, r) = (&self.said[ending], &self.said[record]);
        let strangers = ending != record && !e.past.contains(&record) && !r.past.contains(&ending);
        let mutual = self.ends(record, ending) && e.rank.0 == r.rank.0;
        strangers && self.ends(ending, record) && !mutual
    }

    /// The records of a set that count in it.
    pub(super) fn counting(&self, set: &Set) -> Set {
        let mut verdicts: BTreeMap<usize, bool> = BTreeMap::new();
        loop {
            let open: Vec<usize> = set
                .iter()
                .filter(|n| !verdicts.contains_key(n))
                .copied()
                .collect();
            if open.is_empty() {
                return verdicts
                    .into_iter()
                    .filter(|(_, counts)| *counts)
                    .map(|(n, _)| n)
                    .collect();
            }
            let before = verdicts.len();
            for n in &open {
                if let Some(counts) = self.verdict(*n, set, &verdicts) {
                    verdicts.insert(*n, counts);
                }
            }
            if verdicts.len() == before {
                self.circle(&open, set, &mut verdicts);
            }
        }
    }

    /// Whether a record says something about the author or the device of another.
    fn matters(&self, n: usize, of: &Said) -> bool {
        self.about(n) == Some(of.author)
            || match self.said[n].kind {
                Kind::Device(device) | Kind::Revoke(device) => of.device == Some(device),
                _ => false,
            }
    }

    /// Whether a right is certain, by what is decided: for all that is not, it must not matter.
    fn support(&self, n: usize, verdicts: &BTreeMap<usize, bool>) -> Option<bool> {
        let said = &self.said[n];
        let mut past = said.past.iter();
        if past.any(|m| self.matters(*m, said) && !verdicts.contains_key(m)) {
            return None;
        }
        let counting = verdicts.iter().filter(|(_, counts)| **counts);
        Some(self.supported(n, &counting.map(|(n, _)| *n).collect()))
    }

    /// A demotion below what a record needs, by one who knew of the record and not of the revocation that would take it back.
    fn shields(&self, shield: usize, ending: usize, record: usize) -> bool {
        let said = &self.said[record];
        let need = self.need(said.author, said.kind);
        let past = &self.said[shield].past;
        matches!(self.said[ending].kind, Kind::Revoke(_))
            && matches!(self.said[shield].kind, Kind::Role(who, role) if who == said.author && role > need)
            && past.contains(&record)
            && !past.contains(&ending)
    }

    fn attackers(&self, n: usize, set: &Set) -> Set {
        set.iter()
            .filter(|m| self.attacks(**m, n))
            .copied()
            .collect()
    }

    fn shields_of(&self, n: usize, attacker: usize, set: &Set) -> Set {
        set.iter()
            .filter(|m| self.shields(**m, attacker, n))
            .copied()
            .collect()
    }

    fn verdict(&self, n: usize, set: &Set, verdicts: &BTreeMap<usize, bool>) -> Option<bool> {
        let is = |m: &usize, counts: bool| verdicts.get(m) == Some(&counts);
        let shielded = |m: &usize| self.shields_of(n, *m, set).iter().any(|s| is(s, true));
        let bare = |m: &usize| self.shields_of(n, *m, set).iter().all(|s| is(s, false));
        let attackers = self.attackers(n, set);
        if attackers.iter().any(|m| is(m, true) && bare(m)) {
            return Some(false);
        }
        match self.support(n, verdicts) {
            Some(true) if attackers.iter().all(|m| is(m, false) || shielded(m)) => Some(true),
            Some(false) => Some(false),
            _ => None,
        }
    }

    /// All undecided records on which the verdict on one hangs, however far.
    fn reach(&self, n: usize, open: &[usize], set: &Set) -> Set {
        let mut reach = Set::new();
        let mut todo = vec![n];
        while let Some(at) = todo.pop() {
            let attackers = self.attackers(at, set);
            let mut next: Set = attackers
                .iter()
                .flat_map(|m| self.shields_of(at, *m, set))
                .collect();
            next.extend(attackers);
            let said = &self.said[at];
            next.extend(said.past.iter().filter(|m| self.matters(**m, said)));
            for other in next {
                if open.contains(&other) && reach.insert(other) {
                    todo.push(other);
                }
            }
        }
        reach
    }

    /// Nothing follows: take records that hang on each other and on nothing else. The ending nearest to the owner of those
    /// whose right is certain counts, and those that would take it back do not; without such a one the farthest does not.
    fn circle(&self, open: &[usize], set: &Set, verdicts: &mut BTreeMap<usize, bool>) {
        let reaches = open.iter().map(|n| self.reach(*n, open, set));
        let circle = reaches.min_by_key(Set::len).unwrap();
        assert!(circle.iter().all(|n| self.reach(*n, open, set) == circle));
        let is_ending = |n: &&usize| {
            let kind = self.said[**n].kind;
            matches!(kind, Kind::Remove(_) | Kind::Role(..) | Kind::Revoke(_))
        };
        let rank = |n: &&usize| (self.said[**n].rank, self.said[**n].id);
        let endings = || circle.iter().filter(is_ending);
        let certain = endings().filter(|n| self.support(**n, verdicts) == Some(true));
        match certain.min_by_key(rank) {
            Some(n) => {
                let others = self.attackers(*n, set);
                let others = others.intersection(&circle).map(|m| (*m, false));
                verdicts.extend(others);
                verdicts.insert(*n, true);
            }
            None => drop(verdicts.insert(*endings().max_by_key(rank).unwrap(), false)),
        }
    }

    pub(super) fn facts(&self, set: &Set) -> Facts {
        let counting = self.counting(set);
        let mut persons: BTreeSet<PersonId> =
            (0..self.said.len()).filter_map(|n| self.about(n)).collect();
        persons.insert(self.owner);
        let mut facts = Facts {
            members: BTreeMap::new(),
            devices: BTreeSet::new(),
            cut: BTreeSet::new(),
        };
        for person in persons {
            if let Some((role, (_, add))) = self.member(&counting, person) {
                let add = if person == self.owner {
                    self.said[0].id
                } else {
                    add
                };
                facts.members.insert(person, (role, add));
            }
        }
        for said in &self.said {
            let Kind::Device(device) = said.kind else {
                continue;
            };
            if facts.members.contains_key(&said.author) && self.lives(&counting, device) {
                facts.devices.insert(device);
            }
            if self.is_cut(&counting, device, said.author) {
                facts.cut.insert(device);
            }
        }
        facts
    }

    /// An ending of it or of its person that no counting certificate of it follows.
    fn is_cut(&self, counting: &Set, device: DeviceId, person: PersonId) -> bool {
        let ends = |n: &&usize| match self.said[**n].kind {
            Kind::Remove(whom) => whom == person,
            Kind::Role(whom, role) => whom == person && role == Role::Reader,
            Kind::Revoke(which) => which == device,
            _ => false,
        };
        let follows = |n: &usize| {
            let mut adds = counting
                .iter()
                .filter(|m| self.said[**m].kind == Kind::Device(device));
            adds.any(|m| self.said[*m].past.contains(n))
        };
        counting.iter().filter(ends).any(|n| !follows(n))
    }

    /// Takes in a record if it stands: rules 5 to 8.
    pub(super) fn add(
        &mut self,
        id: Hash32,
        author: PersonId,
        device: Option<DeviceId>,
        kind: Kind,
        parents: Set,
    ) -> Option<usize> {
        let past = self.past(&parents);
        let counting = self.counting(&past);
        if !self.right(&counting, author, device, kind) {
            return None;
        }
        let certified = |device| {
            past.iter()
                .any(|n| self.said[*n].kind == Kind::Device(device))
        };
        let is_member = |person| self.member(&counting, person).is_some();
        let by_root = device.is_none();
        let stands = match kind {
            Kind::Genesis => false,
            Kind::Add(_, Role::Owner) | Kind::Role(_, Role::Owner) => false,
            Kind::Add(person, _) => person != self.owner && !is_member(person),
            Kind::Remove(person) | Kind::Role(person, _) => {
                person != self.owner && is_member(person)
            }
            Kind::Device(device) => by_root && !certified(device),
            Kind::Revoke(device) => by_root && self.lives(&counting, device),
        };
        let rank = self.member(&counting, author)?.1;
        stands.then(|| {
            self.said.push(Said {
                id,
                author,
                device,
                kind,
                parents,
                past,
                rank,
            });
            self.said.len() - 1
        })
    }
}
