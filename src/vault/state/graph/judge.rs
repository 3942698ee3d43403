//! What is taken back among some records.
//!
//! A record *counts* if its author had the right to it by those of its ancestors that count, and if no ending in force
//! takes it back: one that ends the author, or the device that signed, where neither knows of the other. An ending of
//! somebody else that does not count *suspends* him all the same, until he is named by a record that counts and follows
//! what took the ending back. Depths only grow downwards, so that no two endings take each other back; what hangs on
//! itself in spite of that (by way of who let in whom) does not count, and suspends.
//!
//! What suspends takes from people and never gives: nothing is shielded by it.

use super::{Bits, Budget, Effect, Graph, Tangled, Tracked};
use crate::record::Role;
use skrin_base::ids::{DeviceId, PersonId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What becomes of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Counts,
    /// A MemberAdd that does not count by itself: another stands in for it, so that what rests on it is not lost.
    StandsIn,
    /// An ending that does not count and ends whom it names until he is named again.
    Suspends,
    Out,
    /// It is none of these.
    Absent,
}

impl Verdict {
    /// Whether it ends or says anything.
    pub(super) fn is_in_force(self) -> bool {
        matches!(self, Self::Counts | Self::Suspends)
    }
}

/// The records that do not count, by number.
#[derive(Clone, Default)]
pub(super) struct Outs {
    verdicts: Arc<BTreeMap<u32, Verdict>>,
    /// Whether some hang on themselves: what rests on those does so, too.
    pub(super) hangs: bool,
}

impl Outs {
    pub(super) fn get(&self, n: u32) -> Option<Verdict> {
        self.verdicts.get(&n).copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.verdicts.is_empty()
    }
}

/// Whether verdicts give an author the right to what he made, being no farther from the owner than he was.
pub(super) fn supports(
    graph: &Graph,
    author: &PersonId,
    device: Option<&DeviceId>,
    (need, depth): (Role, u32),
    verdict: &dyn Fn(u32) -> Verdict,
) -> bool {
    let Some(standing) = graph.standing_by(author, verdict) else {
        return false;
    };
    let is_near = need > Role::Manager || standing.depth <= depth;
    let has_role = standing.role <= need && is_near;
    has_role && device.is_none_or(|device| graph.is_living_by(device, verdict))
}

/// Finds what is taken back among the records of `bits`.
pub(super) fn outs(graph: &Graph, bits: &Bits, budget: &Budget) -> Result<Outs, Tangled> {
    budget.charge(1 + graph.attacks.len())?;
    let among = |(by, on): &&(u32, u32)| bits.has(*by) && bits.has(*on);
    let attacked: BTreeSet<u32> = graph.attacks.iter().filter(among).map(|a| a.1).collect();
    if attacked.is_empty() {
        return Ok(Outs::default());
    }
    let mut court = Court {
        graph,
        bits,
        budget,
        open: doubtful(graph, bits, &attacked, budget)?,
        verdicts: BTreeMap::new(),
        causes: BTreeMap::new(),
        sure: BTreeSet::new(),
    };
    while court.settle()? {}
    let hangs = !court.open.is_empty();
    while court.suspend_the_first()? {
        while court.settle()? {}
    }
    court.close();
    let verdicts = court.verdicts.into_iter();
    let verdicts = verdicts.filter(|(_, v)| *v != Verdict::Counts).collect();
    Ok(Outs {
        verdicts: Arc::new(verdicts),
        hangs,
    })
}

/// The attacked records, and all whose author's right may hang on one of those.
fn doubtful(
    graph: &Graph,
    bits: &Bits,
    attacked: &BTreeSet<u32>,
    budget: &Budget,
) -> Result<BTreeSet<u32>, Tangled> {
    let mut open = BTreeSet::new();
    let mut persons: BTreeMap<PersonId, Vec<u32>> = BTreeMap::new();
    let first = attacked.first().copied().unwrap_or_default();
    for n in bits.iter().filter(|n| *n >= first) {
        let Some(record) = graph.record(n) else {
            continue;
        };
        let grounds = persons.get(&record.author).map_or(&[][..], |v| v);
        budget.charge(1 + grounds.len())?;
        if !attacked.contains(&n) && !grounds.iter().any(|g| graph.precedes(*g, n)) {
            continue;
        }
        open.insert(n);
        match &record.effect {
            Effect::Add { person, .. }
            | Effect::Remove { person, .. }
            | Effect::Role { person, .. }
            | Effect::Device { person, .. }
            | Effect::Revoke { person, .. } => persons.entry(*person).or_default().push(n),
            Effect::Other => {}
        }
    }
    Ok(open)
}

struct Court<'a> {
    graph: &'a Graph,
    bits: &'a Bits,
    budget: &'a Budget,
    /// Not yet decided.
    open: BTreeSet<u32>,
    /// Of those that were in doubt.
    verdicts: BTreeMap<u32, Verdict>,
    /// The endings that a record may have fallen by, as far as they were asked for.
    causes: BTreeMap<u32, Arc<Bits>>,
    /// Endings of others that nobody renews: whether they count or not, they are in force.
    sure: BTreeSet<u32>,
}

impl Court<'_> {
    /// What becomes of a record of these; `None` if it is not known yet.
    fn verdict(&self, n: u32) -> Option<Verdict> {
        match self.verdicts.get(&n) {
            _ if !self.bits.has(n) => Some(Verdict::Absent),
            Some(verdict) => Some(*verdict),
            None if self.open.contains(&n) => None,
            None => Some(Verdict::Counts),
        }
    }

    /// The records before one that say what its author and its device are.
    fn grounds(&self, n: u32, record: &Tracked) -> Result<Vec<u32>, Tangled> {
        let about = self.graph.about.get(&record.author).map_or(&[][..], |v| v);
        let of = record
            .device
            .and_then(|device| self.graph.devices.get(&device));
        let of = of
            .into_iter()
            .flat_map(|of| of.adds.iter().chain(&of.revokes));
        let all: Vec<u32> = about.iter().chain(of).copied().collect();
        self.budget.charge(1 + all.len())?;
        let before = all.into_iter().filter(|g| self.graph.precedes(*g, n));
        Ok(before.collect())
    }

    fn support(&self, n: u32, record: &Tracked) -> Result<Option<bool>, Tangled> {
        let grounds = self.grounds(n, record)?;
        if grounds.iter().any(|ground| self.verdict(*ground).is_none()) {
            return Ok(None);
        }
        let about = self.graph.price_of(&record.author, record.device.as_ref());
        self.budget.charge(about)?;
        let verdict = |other: u32| match self.graph.precedes(other, n) {
            true => self.verdict(other).unwrap_or(Verdict::Out),
            false => Verdict::Absent,
        };
        let right = (record.need, record.depth);
        let device = record.device.as_ref();
        Ok(Some(supports(
            self.graph,
            &record.author,
            device,
            right,
            &verdict,
        )))
    }

    /// Whether an ending is in force; `None` if it is not known yet.
    fn is_in_force(&mut self, ending: u32) -> Result<Option<bool>, Tangled> {
        if let Some(verdict) = self.verdict(ending) {
            return Ok(Some(verdict.is_in_force()));
        }
        if self.sure.contains(&ending) {
            return Ok(Some(true));
        }
        let graph = self.graph;
        let record = graph.record(ending).filter(|r| r.ends_another());
        let Some(record) = record else {
            return Ok(None);
        };
        if self.is_renewed(ending, record)? != Some(false) {
            return Ok(None);
        }
        self.sure.insert(ending);
        Ok(Some(true))
    }

    /// Whether one ending takes a record back.
    fn strikes(&mut self, ending: u32, n: u32) -> Result<Option<bool>, Tangled> {
        let graph = self.graph;
        let mut open = false;
        for shield in graph.shields(ending, n) {
            match self.verdict(shield) {
                Some(Verdict::Counts) => return Ok(Some(false)),
                Some(_) => {}
                None => open = true,
            }
        }
        Ok(match self.is_in_force(ending)? {
            Some(false) => Some(false),
            Some(true) if !open => Some(true),
            _ => None,
        })
    }

    /// Whether a record holds: no ending strikes it, and its author had the right.
    fn holds(&mut self, n: u32, record: &Tracked) -> Result<Option<bool>, Tangled> {
        let graph = self.graph;
        let attackers = graph.attackers.get(&n).map_or(&[][..], |v| v);
        self.budget.charge(1 + attackers.len())?;
        let mut open = false;
        for attacker in attackers {
            match self.strikes(*attacker, n)? {
                Some(true) => return Ok(Some(false)),
                Some(false) => {}
                None => open = true,
            }
        }
        Ok(match self.support(n, record)? {
            Some(false) => Some(false),
            Some(true) if !open => Some(true),
            _ => None,
        })
    }

    /// What can be said of a record by what is decided.
    fn look(&mut self, n: u32) -> Result<Option<Verdict>, Tangled> {
        let graph = self.graph;
        let Some(record) = graph.record(n) else {
            return Ok(Some(Verdict::Out));
        };
        let holds = self.holds(n, record)?;
        if holds != Some(false) {
            return Ok(holds.map(|_| Verdict::Counts));
        }
        let (renewed, otherwise) = match &record.effect {
            Effect::Add { .. } => (Verdict::StandsIn, Verdict::Out),
            _ if record.ends_another() => (Verdict::Out, Verdict::Suspends),
            _ => return Ok(Some(Verdict::Out)),
        };
        let is_renewed = self.is_renewed(n, record)?;
        Ok(is_renewed.map(|is| if is { renewed } else { otherwise }))
    }

    /// Whether somebody else has named the person of a record that fell, knowing of an ending by which it may have fallen;
    /// if it was a MemberAdd, by letting him in as no less.
    fn is_renewed(&mut self, n: u32, record: &Tracked) -> Result<Option<bool>, Tangled> {
        let graph = self.graph;
        let (person, least) = match &record.effect {
            Effect::Add { person, role, .. } => (*person, Some(*role)),
            Effect::Remove { person, .. } | Effect::Role { person, .. } => (*person, None),
            _ => return Ok(Some(false)),
        };
        let causes = self.causes(n)?;
        let mut open = false;
        for other in graph.about.get(&person).into_iter().flatten() {
            let Some(by) = graph.record(*other) else {
                continue;
            };
            let fits = match (&by.effect, least) {
                (Effect::Add { role, .. }, Some(least)) => *role <= least,
                (Effect::Add { .. }, None) => true,
                (Effect::Role { .. }, None) => by.author != person,
                _ => false,
            };
            self.budget.charge(1 + self.bits.0.len())?;
            let knows = graph.ancestors(*other).is_some_and(|a| a.meets(&causes));
            if *other == n || !fits || !knows || graph.precedes(*other, n) {
                continue;
            }
            match self.verdict(*other) {
                Some(Verdict::Counts) => return Ok(Some(true)),
                None => open = true,
                Some(_) => {}
            }
        }
        Ok((!open).then_some(false))
    }

    /// The endings of these that take a record back, or one of those on which the right to it rests.
    fn causes(&mut self, n: u32) -> Result<Arc<Bits>, Tangled> {
        // Grounds have lower numbers: all that are needed, then upwards.
        let (mut needed, mut todo) = (BTreeSet::new(), vec![n]);
        let mut grounds = BTreeMap::new();
        while let Some(at) = todo.pop() {
            if self.causes.contains_key(&at) || !needed.insert(at) {
                continue;
            }
            let record = self.graph.record(at);
            let rests_on = match record {
                Some(record) => self.grounds(at, record)?,
                None => Vec::new(),
            };
            todo.extend_from_slice(&rests_on);
            grounds.insert(at, rests_on);
        }
        for (at, rests_on) in grounds {
            let mut all = Bits::default();
            let attackers = self.graph.attackers.get(&at).into_iter().flatten();
            let among = attackers.filter(|ending| self.bits.has(**ending));
            among.for_each(|ending| all.insert(*ending));
            self.budget
                .charge(1 + rests_on.len() * (1 + self.bits.0.len()))?;
            for ground in rests_on {
                if let Some(of) = self.causes.get(&ground) {
                    all.union(of);
                }
            }
            self.causes.insert(at, Arc::new(all));
        }
        Ok(self.causes.get(&n).cloned().unwrap_or_default())
    }

    /// Decides what follows from what is decided; says whether anything did.
    fn settle(&mut self) -> Result<bool, Tangled> {
        let mut any = false;
        for n in self.open.clone() {
            if let Some(verdict) = self.look(n)? {
                self.decide(n, verdict);
                any = true;
            }
        }
        Ok(any)
    }

    fn decide(&mut self, n: u32, verdict: Verdict) {
        self.open.remove(&n);
        self.verdicts.insert(n, verdict);
    }

    /// Nothing follows any more: what is left hangs on itself, and does not count. First the endings of others that follow
    /// no other such are in force all the same. What only hung on those is then decided as usual, or somebody loses by it
    /// what is his, and what the next record names says something else than all. Says whether there was one.
    fn suspend_the_first(&mut self) -> Result<bool, Tangled> {
        let graph = self.graph;
        let suspends = |n: &u32| graph.record(*n).is_some_and(Tracked::ends_another);
        let all: Vec<u32> = self.open.iter().copied().filter(suspends).collect();
        let mut bits = Bits::default();
        all.iter().for_each(|n| bits.insert(*n));
        self.budget.charge(all.len() * (1 + bits.0.len()))?;
        let is_first = |n: &u32| graph.ancestors(*n).is_some_and(|a| !a.meets(&bits));
        for n in all.iter().filter(|n| is_first(n)) {
            self.decide(*n, Verdict::Suspends);
        }
        Ok(!all.is_empty())
    }

    fn close(&mut self) {
        for n in std::mem::take(&mut self.open) {
            self.verdicts.insert(n, Verdict::Out);
        }
    }
}
