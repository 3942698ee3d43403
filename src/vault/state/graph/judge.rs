//! What is taken back among some records.
//!
//! A record *counts* if its author had the right to it by those of its ancestors that count, and if no ending that counts
//! takes it back: one that ends the author, or the device that signed, where neither knows of the other. Where endings
//! take each other back in a circle, the one whose author was nearest to the owner counts, and those that end him do not.

use super::{Bits, Budget, Effect, Graph, Rank, Tangled};
use crate::record::Role;
use skrin_base::ids::{DeviceId, Hash32, PersonId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The records that are taken back, by number.
pub(super) type Outs = Arc<BTreeSet<u32>>;

/// Whether the records that count give an author the right to what he made; `None` if it is not known yet.
pub(super) fn supports(
    graph: &Graph,
    author: &PersonId,
    device: Option<&DeviceId>,
    need: Role,
    counts: &dyn Fn(u32) -> Option<bool>,
) -> Option<bool> {
    let standing = graph.standing_by(author, counts)?;
    if standing.is_none_or(|standing| standing.role > need) {
        return Some(false);
    }
    match device {
        Some(device) => graph.is_living_by(device, counts),
        None => Some(true),
    }
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
    };
    while !court.open.is_empty() {
        if !court.settle()? {
            court.break_circle()?;
        }
    }
    let verdicts = court.verdicts.into_iter();
    Ok(Arc::new(
        verdicts
            .filter(|(_, counts)| !counts)
            .map(|(n, _)| n)
            .collect(),
    ))
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
    /// Whether those that were in doubt count.
    verdicts: BTreeMap<u32, bool>,
}

impl Court<'_> {
    /// Whether a record of these counts.
    fn counts(&self, n: u32) -> Option<bool> {
        if !self.bits.has(n) {
            return Some(false);
        }
        match self.verdicts.get(&n) {
            Some(counts) => Some(*counts),
            None if self.open.contains(&n) => None,
            None => Some(true),
        }
    }

    fn support(&self, n: u32) -> Result<Option<bool>, Tangled> {
        let graph = self.graph;
        let Some(record) = graph.record(n) else {
            return Ok(Some(false));
        };
        let about = graph.about.get(&record.author).map_or(0, Vec::len);
        self.budget.charge(1 + about)?;
        let counts = |other: u32| match graph.precedes(other, n) {
            true => self.counts(other),
            false => Some(false),
        };
        let device = record.device.as_ref();
        Ok(supports(
            graph,
            &record.author,
            device,
            record.need,
            &counts,
        ))
    }

    /// Whether one ending takes a record back.
    fn strikes(&self, ending: u32, n: u32) -> Option<bool> {
        let mut open = false;
        for shield in self.graph.shields(ending, n) {
            match self.counts(shield) {
                Some(true) => return Some(false),
                Some(false) => {}
                None => open = true,
            }
        }
        match self.counts(ending) {
            Some(true) if open => None,
            other => other,
        }
    }

    /// What can be said of a record by what is decided.
    fn look(&self, n: u32) -> Result<Option<bool>, Tangled> {
        let attackers = self.attackers(n);
        self.budget.charge(1 + attackers.len())?;
        let all: BTreeSet<Option<bool>> = attackers.iter().map(|a| self.strikes(*a, n)).collect();
        if all.contains(&Some(true)) {
            return Ok(Some(false));
        }
        Ok(match self.support(n)? {
            Some(false) => Some(false),
            Some(true) if !all.contains(&None) => Some(true),
            _ => None,
        })
    }

    fn attackers(&self, n: u32) -> &[u32] {
        self.graph.attackers.get(&n).map_or(&[][..], |v| v)
    }

    /// Decides what follows from what is decided; says whether anything did.
    fn settle(&mut self) -> Result<bool, Tangled> {
        let mut any = false;
        for n in self.open.clone() {
            if let Some(counts) = self.look(n)? {
                self.decide(n, counts);
                any = true;
            }
        }
        Ok(any)
    }

    fn decide(&mut self, n: u32, counts: bool) {
        self.open.remove(&n);
        self.verdicts.insert(n, counts);
    }

    /// The undecided records on which the verdict on one hangs directly.
    fn hangs_on(&self, n: u32) -> Result<Vec<u32>, Tangled> {
        let attackers = self.attackers(n).iter().copied();
        let shields = self
            .attackers(n)
            .iter()
            .flat_map(|a| self.graph.shields(*a, n));
        let record = self.graph.record(n);
        let about = record.and_then(|record| self.graph.about.get(&record.author));
        let device = record.and_then(|record| record.device);
        let device = device.and_then(|device| self.graph.devices.get(&device));
        let device = device
            .into_iter()
            .flat_map(|of| of.adds.iter().chain(&of.revokes));
        let grounds = about.into_iter().flatten().chain(device).copied();
        let grounds = grounds.filter(|ground| self.graph.precedes(*ground, n));
        let all = attackers.chain(shields).chain(grounds);
        let out: Vec<u32> = all.filter(|other| self.open.contains(other)).collect();
        let price = about.map_or(0, Vec::len) + self.attackers(n).len();
        self.budget.charge(1 + price)?;
        Ok(out)
    }

    /// Some undecided records that hang on each other and on no others.
    fn circle(&self) -> Result<BTreeSet<u32>, Tangled> {
        let mut from = self.open.first().copied().unwrap_or_default();
        loop {
            let mut leads: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
            let (mut ahead, mut todo) = (BTreeSet::from([from]), vec![from]);
            while let Some(n) = todo.pop() {
                for other in self.hangs_on(n)? {
                    leads.entry(other).or_default().push(n);
                    if ahead.insert(other) {
                        todo.push(other);
                    }
                }
            }
            let (mut back, mut todo) = (BTreeSet::from([from]), vec![from]);
            while let Some(n) = todo.pop() {
                let before = leads.get(&n).into_iter().flatten();
                todo.extend(before.filter(|other| back.insert(**other)));
            }
            match ahead.difference(&back).next() {
                // Whatever does not lead back leads to a smaller one.
                Some(beyond) => from = *beyond,
                None => return Ok(ahead),
            }
        }
    }

    /// Nothing follows any more: endings take each other back in a circle. Of those in it whose author's right is not
    /// itself in doubt the nearest to the owner counts, and those that would take it back do not; without such a one the
    /// farthest does not count.
    fn break_circle(&mut self) -> Result<(), Tangled> {
        let circle = self.circle()?;
        let place = |n: &u32| -> (Rank, Hash32) {
            let record = self.graph.record(*n);
            record.map_or_else(Default::default, |record| (record.rank, record.id))
        };
        let is_ending = |n: &u32| {
            let effect = self.graph.record(*n).map(|record| &record.effect);
            matches!(
                effect,
                Some(Effect::Remove { .. } | Effect::Role { .. } | Effect::Revoke { .. })
            )
        };
        let endings: Vec<u32> = circle.iter().copied().filter(is_ending).collect();
        let mut certain = Vec::new();
        for n in &endings {
            if self.support(*n)? == Some(true) {
                certain.push(*n);
            }
        }
        if let Some(first) = certain.into_iter().min_by_key(place) {
            let attackers: Vec<u32> = self.attackers(first).to_vec();
            for other in attackers {
                if circle.contains(&other) {
                    self.decide(other, false);
                }
            }
            self.decide(first, true);
            return Ok(());
        }
        match endings.into_iter().max_by_key(place) {
            Some(last) => self.decide(last, false),
            // Only endings take anything back, so that there is one.
            None => circle.into_iter().for_each(|n| self.decide(n, false)),
        }
        Ok(())
    }
}
