//! The order of records: parents before children, ties by hash.

use crate::Anchor;
use crate::control::Opened;
use skrin_base::ids::Hash32;
use std::collections::{BTreeMap, BTreeSet};

struct Node {
    parents: Vec<Hash32>,
    /// 1 + the largest of the parents: no ancestor has a higher one.
    depth: u64,
}

/// The records that were accepted, by hash.
#[derive(Default)]
pub(super) struct Dag {
    nodes: BTreeMap<Hash32, Node>,
    heads: BTreeSet<Hash32>,
}

impl Dag {
    /// Adds a record whose parents are in.
    pub(super) fn add(&mut self, hash: Hash32, parents: &[Hash32]) {
        let depths = parents.iter().filter_map(|p| self.nodes.get(p));
        let depth = 1 + depths.map(|node| node.depth).max().unwrap_or(0);
        for parent in parents {
            self.heads.remove(parent);
        }
        self.heads.insert(hash);
        let parents = parents.to_vec();
        self.nodes.insert(hash, Node { parents, depth });
    }

    pub(super) fn contains(&self, hash: &Hash32) -> bool {
        self.nodes.contains_key(hash)
    }

    pub(super) fn heads(&self) -> Vec<Hash32> {
        self.heads.iter().copied().collect()
    }

    /// All records with their parents.
    pub(super) fn records(&self) -> BTreeMap<Hash32, Vec<Hash32>> {
        let nodes = self.nodes.iter();
        nodes
            .map(|(hash, node)| (*hash, node.parents.clone()))
            .collect()
    }

    pub(super) fn parents(&self, hash: &Hash32) -> &[Hash32] {
        self.nodes.get(hash).map_or(&[], |node| &node.parents)
    }

    /// All records, parents before children; of those that are ready the one with the lowest key, then the lowest id.
    pub(super) fn in_order<K: Ord>(&self, key: impl Fn(&Hash32) -> K) -> Vec<Hash32> {
        let mut children: BTreeMap<Hash32, Vec<Hash32>> = BTreeMap::new();
        let mut waiting: BTreeMap<Hash32, usize> = BTreeMap::new();
        let mut ready = BTreeSet::new();
        for (hash, node) in &self.nodes {
            for parent in &node.parents {
                children.entry(*parent).or_default().push(*hash);
            }
            waiting.insert(*hash, node.parents.len());
            if node.parents.is_empty() {
                ready.insert((key(hash), *hash));
            }
        }
        let mut out = Vec::with_capacity(self.nodes.len());
        while let Some((_, next)) = ready.pop_first() {
            out.push(next);
            for child in children.remove(&next).unwrap_or_default() {
                if let Some(count) = waiting.get_mut(&child) {
                    *count -= 1;
                    if *count == 0 {
                        ready.insert((key(&child), child));
                    }
                }
            }
        }
        out
    }

    /// Of these records those that are ancestors of no other.
    pub(super) fn latest(&self, records: BTreeSet<Hash32>) -> BTreeSet<Hash32> {
        let depth = |hash: &Hash32| self.depth(hash);
        let floor = records.iter().map(depth).min().unwrap_or(0);
        let mut latest = records.clone();
        let (mut seen, mut todo) = (BTreeSet::new(), records.into_iter().collect::<Vec<_>>());
        while let Some(hash) = todo.pop() {
            for parent in self.parents(&hash) {
                if depth(parent) >= floor && seen.insert(*parent) {
                    latest.remove(parent);
                    todo.push(*parent);
                }
            }
        }
        latest
    }

    /// How long the past of a record is.
    pub(super) fn depth(&self, hash: &Hash32) -> u64 {
        self.nodes.get(hash).map_or(0, |node| node.depth)
    }

    /// Whether `wanted` is one of `from` or an ancestor of one.
    pub(super) fn is_ancestor(&self, wanted: &Hash32, from: &[Hash32]) -> bool {
        let Some(floor) = self.nodes.get(wanted).map(|node| node.depth) else {
            return false;
        };
        let mut seen = BTreeSet::new();
        let mut todo = from.to_vec();
        while let Some(hash) = todo.pop() {
            if hash == *wanted {
                return true;
            }
            match self.nodes.get(&hash) {
                Some(node) if node.depth > floor && seen.insert(hash) => {
                    todo.extend_from_slice(&node.parents);
                }
                _ => {}
            }
        }
        false
    }
}

/// All records but the genesis whose ancestors are there, parents first.
pub(super) fn order(anchor: &Anchor, records: &BTreeMap<Hash32, Opened>) -> Vec<Hash32> {
    let mut waiting: BTreeMap<Hash32, usize> = BTreeMap::new();
    let mut children: BTreeMap<Hash32, Vec<Hash32>> = BTreeMap::new();
    for (hash, record) in records {
        for parent in &record.body.parents {
            children.entry(*parent).or_default().push(*hash);
        }
        waiting.insert(*hash, record.body.parents.len());
    }
    let mut ready = BTreeSet::from([anchor.genesis]);
    let mut out = Vec::with_capacity(records.len());
    while let Some(next) = ready.pop_first() {
        if next != anchor.genesis {
            out.push(next);
        }
        for child in children.remove(&next).unwrap_or_default() {
            if let Some(count) = waiting.get_mut(&child) {
                *count -= 1;
                if *count == 0 {
                    ready.insert(child);
                }
            }
        }
    }
    out
}
