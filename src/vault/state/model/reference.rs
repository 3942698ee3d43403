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

/// What becomes of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Counts,
    StandsIn,
    Suspends,
    Out,
}

struct Said {
    id: Hash32,
    author: PersonId,
    device: Option<DeviceId>,
    kind: Kind,
    parents: Set,
    /// All ancestors.
    past: Set,
    /// How far from the owner its author was.
    depth: u32,
}

/// Of a set: the records that count, and the endings that suspend somebody though they do not.
#[derive(Default)]
pub(super) struct Judged {
    pub(super) counting: Set,
    pub(super) suspending: Set,
    /// Of the counting ones those for which others stand in.
    stood_for: Set,
}

impl Judged {
    fn among(&self, set: &Set) -> Self {
        let both = |of: &Set| of.intersection(set).copied().collect();
        Self {
            counting: both(&self.counting),
            suspending: both(&self.suspending),
            stood_for: both(&self.stood_for),
        }
    }

    fn in_force(&self) -> Set {
        &self.counting | &self.suspending
    }
}

/// The depth of whoever is no manager.
const FAR: u32 = u32::MAX;

struct Standing {
    role: Role,
    add: Hash32,
    depth: u32,
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
            depth: 0,
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

    fn is_add(&self, n: usize) -> bool {
        matches!(self.said[n].kind, Kind::Add(..))
    }

    /// An ending of a person by somebody else: it suspends, if it does not count.
    fn ends_another(&self, n: usize) -> bool {
        let author = self.said[n].author;
        let kind = self.said[n].kind;
        matches!(kind, Kind::Remove(who) | Kind::Role(who, _) if who != author)
    }

    fn follows(&self, later: usize, earlier: usize) -> bool {
        self.said[later].past.contains(&earlier)
    }

    /// What a person is among all of `set`, judged so.
    fn member(&self, set: &Set, judged: &Judged, person: PersonId) -> Option<Standing> {
        if person == self.owner {
            let add = self.said[0].id;
            let (role, depth) = (Role::Owner, 0);
            return Some(Standing { role, add, depth });
        }
        let about = |of: &Set| -> Set {
            let of = of.iter().filter(|n| self.about(**n) == Some(person));
            of.copied().collect()
        };
        let all = about(&judged.counting);
        let by_itself = &all - &judged.stood_for;
        let unneeded = |n: &usize| {
            let mut adds = by_itself.iter().filter(|m| self.is_add(**m));
            judged.stood_for.contains(n) && adds.any(|m| !self.follows(*n, *m))
        };
        let counting: Set = all.iter().filter(|n| !unneeded(n)).copied().collect();
        let mut suspending = about(&judged.suspending);
        suspending.retain(|n| !counting.iter().any(|m| self.follows(*m, *n)));
        let last = self.heads_of(&counting);
        if last.iter().chain(&suspending).any(|n| self.is_removal(*n)) {
            return None;
        }
        let role = |n: &usize| match self.said[*n].kind {
            Kind::Add(_, role) | Kind::Role(_, role) => role,
            _ => unreachable!(),
        };
        let added = last.iter().filter(|n| self.is_add(**n)).map(role).min();
        let given = last.iter().filter(|n| !self.is_add(**n)).map(role).max();
        let lowered = suspending.iter().map(role).max();
        let mine = added.max(given)?.max(lowered.unwrap_or(Role::Owner));
        let makers = last.iter().filter(|n| role(n) == Role::Manager);
        let makers = makers.map(|n| self.said[*n].depth);
        let depth = match mine {
            Role::Manager => makers.min().unwrap() + 1,
            _ => FAR,
        };
        let out = about(&judged.in_force());
        let removed = |n: usize| {
            let mut out = out.iter().filter(|m| self.is_removal(**m));
            out.any(|m| self.follows(*m, n))
        };
        let adds = about(set).into_iter().filter(|n| self.is_add(*n));
        let key = |n: usize| {
            let said = &self.said[n];
            (removed(n), !counting.contains(&n), said.depth, said.id)
        };
        let add = adds.map(key).min()?.3;
        let role = mine;
        Some(Standing { role, add, depth })
    }

    fn lives(&self, judged: &Judged, device: DeviceId) -> bool {
        let of = |kind: Kind, set: &Set| -> Set {
            let of = set.iter().filter(|n| self.said[**n].kind == kind);
            of.copied().collect()
        };
        let is_revoked = !of(Kind::Revoke(device), &judged.counting).is_empty();
        let adds = of(Kind::Device(device), &judged.counting);
        !is_revoked
            && adds.iter().any(|n| {
                let person = self.said[*n].author;
                let removals = of(Kind::Remove(person), &judged.in_force());
                removals.iter().all(|m| self.follows(*n, *m))
            })
    }

    /// Whether the author and the device had the right to a record, by those of its past that count.
    fn supported(&self, n: usize, judged: &Judged) -> bool {
        let said = &self.said[n];
        let known = judged.among(&said.past);
        self.right(&said.past, &known, said.author, said.device, said.kind)
            .is_some_and(|depth| {
                self.need(said.author, said.kind) > Role::Manager || depth <= said.depth
            })
    }

    /// How far from the owner the author is, if he has the right.
    fn right(
        &self,
        past: &Set,
        known: &Judged,
        author: PersonId,
        device: Option<DeviceId>,
        kind: Kind,
    ) -> Option<u32> {
        let standing = self.member(past, known, author)?;
        let lives = device.is_none_or(|device| self.lives(known, device));
        (standing.role <= self.need(author, kind) && lives).then_some(standing.depth)
    }

    fn ends(&self, ending: usize, record: usize) -> bool {
        let (ending, record) = (&self.said[ending], &self.said[record]);
        let need = self.need(record.author, record.kind);
        let gives = match record.kind {
            Kind::Add(..) => true,
            Kind::Role(whom, _) => whom != record.author,
            _ => false,
        };
        let above = need > Role::Manager || ending.depth < record.depth;
        let reaches = gives || (ending.author != record.author && above);
        match ending.kind {
            Kind::Remove(person) => reaches && person == record.author,
            Kind::Role(person, role) => reaches && person == record.author && role > need,
            Kind::Revoke(device) => record.device == Some(device),
            _ => false,
        }
    }

    /// Whether an ending takes a record back if it is in force.
    fn attacks(&self, ending: usize, record: usize) -> bool {
        let known = self.follows(ending, record) || self.follows(record, ending);
        ending != record && !known && self.ends(ending, record)
    }

    /// What becomes of the records of a set. What nothing decides does not count, and suspends.
    pub(super) fn judge(&self, set: &Set) -> Judged {
        let mut verdicts: BTreeMap<usize, Verdict> = BTreeMap::new();
        self.decide(set, &mut verdicts);
        loop {
            let left = |n: &&usize| self.ends_another(**n) && !verdicts.contains_key(n);
            let left: Set = set.iter().filter(left).copied().collect();
            if left.is_empty() {
                break;
            }
            for n in left
                .iter()
                .filter(|n| self.said[**n].past.is_disjoint(&left))
            {
                verdicts.insert(*n, Verdict::Suspends);
            }
            self.decide(set, &mut verdicts);
        }
        for n in set {
            verdicts.entry(*n).or_insert(Verdict::Out);
        }
        Self::judged(&verdicts)
    }

    /// All that follows from what is decided.
    fn decide(&self, set: &Set, verdicts: &mut BTreeMap<usize, Verdict>) {
        loop {
            let before = verdicts.len();
            for n in set {
                if !verdicts.contains_key(n)
                    && let Some(verdict) = self.verdict(*n, set, verdicts)
                {
                    verdicts.insert(*n, verdict);
                }
            }
            if verdicts.len() == before {
                break;
            }
        }
    }

    fn judged(verdicts: &BTreeMap<usize, Verdict>) -> Judged {
        let of = |wanted: Verdict| {
            let of = verdicts.iter().filter(|(_, verdict)| **verdict == wanted);
            of.map(|(n, _)| *n).collect()
        };
        let stood_for: Set = of(Verdict::StandsIn);
        Judged {
            counting: &of(Verdict::Counts) | &stood_for,
            suspending: of(Verdict::Suspends),
            stood_for,
        }
    }

    /// Whether a record counts among all only because another stands in for it.
    pub(super) fn is_stood_for(&self, n: usize) -> bool {
        self.judge(&self.all()).stood_for.contains(&n)
    }

    /// The records of a set that count in it.
    pub(super) fn counting(&self, set: &Set) -> Set {
        self.judge(set).counting
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
    fn support(&self, n: usize, verdicts: &BTreeMap<usize, Verdict>) -> Option<bool> {
        let said = &self.said[n];
        let mut past = said.past.iter();
        if past.any(|m| self.matters(*m, said) && !verdicts.contains_key(m)) {
            return None;
        }
        Some(self.supported(n, &Self::judged(verdicts)))
    }

    /// A demotion below what a record needs, by one who knew of the record and not of its author's own ending that would take
    /// it back.
    fn shields(&self, shield: usize, ending: usize, record: usize) -> bool {
        let said = &self.said[record];
        let need = self.need(said.author, said.kind);
        let past = &self.said[shield].past;
        self.said[ending].author == said.author
            && self.ends_another(shield)
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

    fn verdict(&self, n: usize, set: &Set, verdicts: &BTreeMap<usize, Verdict>) -> Option<Verdict> {
        let holds = self.holds(n, set, verdicts)?;
        let (renewed, otherwise) = match holds {
            true => return Some(Verdict::Counts),
            false if self.is_add(n) => (Verdict::StandsIn, Verdict::Out),
            false if self.ends_another(n) => (Verdict::Out, Verdict::Suspends),
            false => return Some(Verdict::Out),
        };
        let namings = self.namings(n, set);
        if namings
            .iter()
            .any(|m| verdicts.get(m) == Some(&Verdict::Counts))
        {
            return Some(renewed);
        }
        let decided = namings.iter().all(|m| verdicts.contains_key(m));
        decided.then_some(otherwise)
    }

    fn holds(&self, n: usize, set: &Set, verdicts: &BTreeMap<usize, Verdict>) -> Option<bool> {
        // An ending of another that nobody renews is in force, counting or not.
        let in_force = |m: &usize| match verdicts.get(m) {
            Some(verdict) => Some(*verdict != Verdict::Out),
            None if self.ends_another(*m) => {
                let namings = self.namings(*m, set);
                let fails = |by: &usize| verdicts.get(by).is_some_and(|v| *v != Verdict::Counts);
                namings.iter().all(fails).then_some(true)
            }
            None => None,
        };
        let counts = |m: &usize| verdicts.get(m).map(|verdict| *verdict == Verdict::Counts);
        let shielded = |m: &usize| {
            let shields = self.shields_of(n, *m, set);
            shields.iter().any(|s| counts(s) == Some(true))
        };
        let bare = |m: &usize| {
            let shields = self.shields_of(n, *m, set);
            shields.iter().all(|s| counts(s) == Some(false))
        };
        let attackers = self.attackers(n, set);
        if attackers
            .iter()
            .any(|m| in_force(m) == Some(true) && bare(m))
        {
            return Some(false);
        }
        match self.support(n, verdicts) {
            Some(true)
                if attackers
                    .iter()
                    .all(|m| in_force(m) == Some(false) || shielded(m)) =>
            {
                Some(true)
            }
            Some(false) => Some(false),
            _ => None,
        }
    }

    /// The endings that take a record back, or one on which the right to it rests, however far back.
    fn causes(&self, n: usize, set: &Set) -> Set {
        let mut rests_on = Set::from([n]);
        loop {
            let grounds = |at: &usize| -> Set {
                let said = &self.said[*at];
                let past = said.past.iter().filter(|m| self.matters(**m, said));
                past.copied().collect()
            };
            let more: Set = rests_on.iter().flat_map(grounds).collect();
            if more.is_subset(&rests_on) {
                break;
            }
            rests_on.extend(more);
        }
        let all = rests_on.iter().flat_map(|at| self.attackers(*at, set));
        all.collect()
    }

    /// What renews a record that fell if it counts: the same person named by another who knows why it fell.
    fn namings(&self, n: usize, set: &Set) -> Set {
        let causes = self.causes(n, set);
        let fits = |m: &usize| {
            let said = &self.said[*m];
            let names = match (said.kind, self.said[n].kind) {
                (Kind::Add(_, role), Kind::Add(_, least)) => role <= least,
                (Kind::Add(..), _) => true,
                (Kind::Role(who, _), Kind::Remove(_) | Kind::Role(..)) => said.author != who,
                _ => false,
            };
            let knows = !said.past.is_disjoint(&causes);
            names && knows && *m != n && !self.follows(n, *m) && self.about(*m) == self.about(n)
        };
        set.iter().filter(|m| fits(m)).copied().collect()
    }

    pub(super) fn facts(&self, set: &Set) -> Facts {
        let judged = self.judge(set);
        let mut persons: BTreeSet<PersonId> =
            (0..self.said.len()).filter_map(|n| self.about(n)).collect();
        persons.insert(self.owner);
        let mut facts = Facts {
            members: BTreeMap::new(),
            devices: BTreeSet::new(),
            cut: BTreeSet::new(),
        };
        for person in persons {
            if let Some(standing) = self.member(set, &judged, person) {
                let what = (standing.role, standing.add);
                facts.members.insert(person, what);
            }
        }
        for said in &self.said {
            let Kind::Device(device) = said.kind else {
                continue;
            };
            if facts.members.contains_key(&said.author) && self.lives(&judged, device) {
                facts.devices.insert(device);
            }
            if self.is_cut(&judged, device, said.author) {
                facts.cut.insert(device);
            }
        }
        facts
    }

    /// An ending of it or of its person that no counting certificate of it follows.
    fn is_cut(&self, judged: &Judged, device: DeviceId, person: PersonId) -> bool {
        let ends = |n: &&usize| match self.said[**n].kind {
            Kind::Remove(whom) => whom == person,
            Kind::Role(whom, role) => whom == person && role == Role::Reader,
            Kind::Revoke(which) => which == device,
            _ => false,
        };
        let follows = |n: &usize| {
            let certifies = |m: &&usize| self.said[**m].kind == Kind::Device(device);
            let mut adds = judged.counting.iter().filter(certifies);
            adds.any(|m| self.said[*m].past.contains(n))
        };
        let mut counting = judged.counting.iter();
        if !counting.any(|n| self.said[*n].kind == Kind::Device(device)) {
            return true;
        }
        let in_force = judged.in_force();
        in_force.iter().filter(ends).any(|n| !follows(n))
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
        let judged = self.judge(&past);
        let depth = self.right(&past, &judged, author, device, kind)?;
        let certified = |device| {
            past.iter()
                .any(|n| self.said[*n].kind == Kind::Device(device))
        };
        let member = |person| self.member(&past, &judged, person);
        // Nobody ends or changes a manager but who is nearer to the owner, and himself only downwards.
        let below =
            |person| member(person).is_some_and(|s| s.role > Role::Manager || s.depth > depth);
        let by_root = device.is_none();
        let stands = match kind {
            Kind::Genesis => false,
            Kind::Add(_, Role::Owner) | Kind::Role(_, Role::Owner) => false,
            Kind::Add(person, _) => person != self.owner && member(person).is_none(),
            Kind::Remove(person) => person != self.owner && (person == author || below(person)),
            Kind::Role(person, role) if person == author => {
                person != self.owner && role > Role::Manager
            }
            Kind::Role(person, _) => person != self.owner && below(person),
            Kind::Device(device) => by_root && !certified(device),
            Kind::Revoke(device) => by_root && self.lives(&judged, device),
        };
        stands.then(|| {
            self.said.push(Said {
                id,
                author,
                device,
                kind,
                parents,
                past,
                depth,
            });
            self.said.len() - 1
        })
    }
}
