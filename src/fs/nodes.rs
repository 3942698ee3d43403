//! Which numbers the kernel knows, and for which branch of an inode each stands (docs/semantics.md).
//!
//! With its write-back cache on, the kernel believes its own length and times of a regular file for as long as it knows the node. So a file
//! that another device changed must come back under another number while the old one is known.

use crate::file::Gone;
use crate::types::NodeId;
use parking_lot::Mutex;
use skrin_base::{Ino, OpId, Timestamp};
use skrin_meta::state::Inode;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroU64;
use std::ops::Bound::{Excluded, Unbounded};

struct State {
    /// What the kernel was told of, or is about to be told of in a listing. Not in a hash table, which for a moment takes three times as much
    /// when it grows.
    known: BTreeMap<NodeId, Known>,
    /// The last that was asked to be forgotten: the next one's turn is next.
    hand: NodeId,
    /// The node of an inode where it is not the inode's number.
    alias: HashMap<Ino, NodeId>,
    /// The inode of each alias.
    inode: HashMap<NodeId, Ino>,
    /// Nodes whose contents in the kernel are those of another branch than the tree's.
    stale: HashSet<NodeId>,
    /// What the kernel still knows of inodes that have no name any more: open directories and pipes, and times that it has yet to tell.
    removed: HashMap<NodeId, Gone>,
    made: u64,
}

/// Of each file that the kernel knows, which may be very many: marks instead of what they stand for, some 50 bytes with the node's own.
#[derive(Clone, Copy, Default)]
struct Known {
    /// How often it was handed to the kernel and not forgotten; 0 if it is yet to be told.
    count: u64,
    /// What a regular file was when the kernel was told of a node that it did not know.
    first: Option<Mark>,
    /// Which contents of a regular file the kernel has the length of: those that it was told of first, or what was written here since.
    believed: Option<Mark>,
}

/// Stands for something that is only compared. Nobody who does not know this mount's key makes two things of one mark, and
/// by chance it takes some 2^32 of one node.
type Mark = NonZeroU64;

/// What the kernel believes of a regular file for as long as it knows the node, whatever we say later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    version: OpId,
    size: u64,
    mtime: Timestamp,
    ctime: Timestamp,
}

impl Seen {
    pub(crate) fn of(inode: &Inode) -> Self {
        Self {
            version: inode.version,
            size: inode.size,
            mtime: inode.mtime,
            ctime: inode.ctime,
        }
    }
}

/// The table of nodes.
pub(crate) struct Nodes {
    state: Mutex<State>,
    key: [u8; 32],
}

impl Default for State {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            hand: NodeId(0),
            alias: HashMap::new(),
            inode: HashMap::new(),
            stale: HashSet::new(),
            removed: HashMap::new(),
            made: 0,
        }
    }
}

impl State {
    fn is_known(&self, node: NodeId) -> bool {
        self.known.get(&node).is_some_and(|known| known.count > 0)
    }

    /// The node of an inode, whether or not that is its present branch.
    fn node(&self, ino: Ino) -> NodeId {
        self.alias.get(&ino).copied().unwrap_or(NodeId(ino.0))
    }
}

impl Nodes {
    /// An empty table; `key` is random, and nobody else's.
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self {
            state: Mutex::default(),
            key,
        }
    }

    fn mark(&self, parts: &[&[u8]]) -> Option<Mark> {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        parts.iter().for_each(|part| {
            hasher.update(part);
        });
        let hash = *hasher.finalize().as_bytes();
        let first = hash.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        Some(NonZeroU64::new(first.unwrap_or(1)).unwrap_or(NonZeroU64::MIN))
    }

    fn version(&self, version: OpId) -> Option<Mark> {
        self.mark(&[&version.device.0, &version.counter.to_le_bytes()])
    }

    fn seen(&self, seen: &Seen) -> Option<Mark> {
        let version = seen.version;
        self.mark(&[
            &version.device.0,
            &version.counter.to_le_bytes(),
            &seen.size.to_le_bytes(),
            &seen.mtime.0.to_le_bytes(),
            &seen.ctime.0.to_le_bytes(),
        ])
    }

    /// The inode that a node stands for.
    pub(crate) fn ino(&self, node: NodeId) -> Ino {
        if !node.is_alias() {
            return Ino(node.0);
        }
        let state = self.state.lock();
        state.inode.get(&node).copied().unwrap_or(Ino(node.0))
    }

    /// The node under which the present contents of an inode are found.
    pub(crate) fn current(&self, ino: Ino) -> NodeId {
        let mut state = self.state.lock();
        let node = state.node(ino);
        if !state.stale.contains(&node) {
            return node;
        }
        if !state.is_known(node) {
            // The kernel has forgotten the old branch: its number is free again.
            state.stale.remove(&node);
            return node;
        }
        state.made += 1;
        let fresh = NodeId(NodeId::FIRST_ALIAS + state.made);
        state.alias.insert(ino, fresh);
        state.inode.insert(fresh, ino);
        fresh
    }

    /// The node under which the kernel knows an inode, whether or not that is its present branch.
    pub(crate) fn known_as(&self, ino: Ino) -> NodeId {
        self.state.lock().node(ino)
    }

    /// Every inode of which the kernel knows a node, the root included, which it knows without being told.
    pub(crate) fn all_known(&self) -> Vec<Ino> {
        let state = self.state.lock();
        let inode = |node: &NodeId| state.inode.get(node).copied().unwrap_or(Ino(node.0));
        let told = state.known.iter().filter(|(_, known)| known.count > 0);
        let mut known: Vec<Ino> = told.map(|(node, _)| inode(node)).collect();
        drop(state);
        known.push(Ino::ROOT);
        known.sort_unstable();
        known.dedup();
        known
    }

    /// How many nodes it knows.
    pub(crate) fn count(&self) -> usize {
        self.state.lock().known.len()
    }

    /// The inodes of as many nodes as it knows beyond `keep`, each in its turn.
    pub(crate) fn surplus(&self, keep: usize) -> Vec<Ino> {
        let mut state = self.state.lock();
        let count = state.known.len().saturating_sub(keep);
        let behind = state.known.range((Excluded(state.hand), Unbounded));
        let turns = behind.chain(state.known.range(..=state.hand)).take(count);
        let turns: Vec<_> = turns.map(|(node, known)| (*node, known.count)).collect();
        if let Some((last, _)) = turns.last() {
            state.hand = *last;
        }
        let mut surplus = Vec::new();
        for (node, count) in turns {
            if count > 0 {
                surplus.push(state.inode.get(&node).copied().unwrap_or(Ino(node.0)));
            } else {
                // A listing was cut off before it told of it.
                state.known.remove(&node);
            }
        }
        surplus
    }

    /// Counts that the kernel was told of a node.
    pub(crate) fn looked_up(&self, node: NodeId) {
        self.state.lock().known.entry(node).or_default().count += 1;
    }

    /// Counts it too, and notes what a file was when the kernel did not know the node yet. What is told of it later must be the same, or nothing
    /// is known of it: a merge may have changed the tree and not come to `outdate` yet.
    pub(crate) fn introduce(&self, node: NodeId, seen: Option<Seen>) {
        let mark = seen.and_then(|seen| self.seen(&seen));
        let version = seen.and_then(|seen| self.version(seen.version));
        let mut state = self.state.lock();
        let known = state.known.entry(node).or_default();
        known.count += 1;
        if known.count > 1 {
            known.first = known.first.filter(|first| Some(*first) == mark);
            return;
        }
        known.first = mark;
        known.believed = version.or(known.believed);
    }

    /// A listing is about to tell the kernel of a file with these contents.
    pub(crate) fn offer(&self, node: NodeId, version: OpId) {
        let version = self.version(version);
        let mut state = self.state.lock();
        let known = state.known.entry(node).or_default();
        if known.count == 0 {
            known.believed = version;
        }
    }

    /// The contents of a file became these by what was written through the kernel.
    pub(crate) fn believe(&self, node: NodeId, version: OpId) {
        let version = self.version(version);
        let mut state = self.state.lock();
        if let Some(known) = state.known.get_mut(&node)
            && known.count > 0
        {
            known.believed = version;
        }
    }

    /// Whether the kernel has the length of other contents than these: a merge has changed the tree and not come to `outdate` yet.
    pub(crate) fn believes_other(&self, node: NodeId, version: OpId) -> bool {
        let version = self.version(version);
        let state = self.state.lock();
        let known = state.known.get(&node).filter(|known| known.count > 0);
        known.is_some_and(|known| known.believed.is_some() && known.believed != version)
    }

    /// Whether a file is, to the kernel, what it was when it was told of it.
    pub(crate) fn is_as_introduced(&self, ino: Ino, seen: Seen) -> bool {
        let mark = self.seen(&seen);
        let state = self.state.lock();
        let node = state.node(ino);
        let known = state.known.get(&node).filter(|known| known.count > 0);
        !state.stale.contains(&node) && known.is_some_and(|known| known.first == mark)
    }

    /// The kernel let go of so many references.
    pub(crate) fn forget(&self, node: NodeId, count: u64) {
        let mut state = self.state.lock();
        let Some(known) = state.known.get_mut(&node) else {
            return;
        };
        known.count = known.count.saturating_sub(count);
        if known.count > 0 {
            return;
        }
        state.known.remove(&node);
        state.stale.remove(&node);
        state.removed.remove(&node);
        if let Some(ino) = state.inode.remove(&node)
            && state.alias.get(&ino) == Some(&node)
        {
            state.alias.remove(&ino);
        }
    }

    /// Notes that the inode changed under the kernel. The node that it knew, if it knew one.
    pub(crate) fn outdate(&self, ino: Ino) -> Option<NodeId> {
        let mut state = self.state.lock();
        let node = state.node(ino);
        if !state.is_known(node) {
            return None;
        }
        state.stale.insert(node);
        Some(node)
    }

    /// The last name of an inode went here: what it was is kept for as long as the kernel knows it.
    pub(crate) fn keep_removed(&self, ino: Ino, gone: Gone) {
        let mut state = self.state.lock();
        let node = state.node(ino);
        if state.is_known(node) {
            state.removed.insert(node, gone);
        }
    }

    /// Looks at, or changes, what is kept of an inode whose last name went here.
    pub(crate) fn with_removed<T>(
        &self,
        node: NodeId,
        act: impl FnOnce(&mut Gone) -> T,
    ) -> Option<T> {
        self.state.lock().removed.get_mut(&node).map(act)
    }

    /// Whether the node stands for a branch that is no longer the tree's.
    pub(crate) fn is_stale(&self, node: NodeId) -> bool {
        self.state.lock().stale.contains(&node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skrin_base::DeviceId;

    #[test]
    fn a_file_is_as_introduced_until_something_else_is_told_of_it_or_it_is_outdated() {
        let nodes = Nodes::new([7; 32]);
        let seen = |size| Seen {
            version: OpId {
                device: DeviceId([1; 16]),
                counter: 1,
            },
            size,
            mtime: Timestamp(1),
            ctime: Timestamp(1),
        };
        let is = |node: u64, size| nodes.is_as_introduced(Ino(node), seen(size));
        nodes.introduce(NodeId(50), Some(seen(1)));
        assert!(is(50, 1) && !is(50, 2) && !is(51, 1));
        nodes.introduce(NodeId(50), Some(seen(1)));
        assert!(is(50, 1));
        // Told by two who looked at the tree before and after a merge, whichever was first.
        nodes.introduce(NodeId(50), Some(seen(2)));
        assert!(!is(50, 1) && !is(50, 2));
        // Listings tell without noting.
        nodes.looked_up(NodeId(60));
        nodes.introduce(NodeId(60), Some(seen(1)));
        assert!(!is(60, 1));
        nodes.introduce(NodeId(70), Some(seen(1)));
        nodes.outdate(Ino(70));
        assert!(!is(70, 1));
        let second = nodes.current(Ino(70));
        nodes.introduce(second, Some(seen(1)));
        assert!(is(70, 1), "under its new number");
        nodes.forget(second, 1);
        assert!(!is(70, 1));
    }

    #[test]
    fn as_many_are_named_as_are_too_many_and_all_have_their_turn() {
        let nodes = Nodes::new([7; 32]);
        let version = OpId {
            device: DeviceId([1; 16]),
            counter: 1,
        };
        (100..200).for_each(|node| nodes.looked_up(NodeId(node)));
        // Of a listing that was cut off.
        nodes.offer(NodeId(200), version);
        assert!(!nodes.all_known().contains(&Ino(200)));
        assert_eq!(nodes.surplus(200), Vec::new());
        let surplus = |keep| -> Vec<u64> { nodes.surplus(keep).into_iter().map(|i| i.0).collect() };
        nodes.forget(NodeId(101), 1);
        assert_eq!(surplus(97), [100, 102, 103]);
        assert_eq!(surplus(98), [104, 105]);
        // Its turn is before those that came after it.
        nodes.looked_up(NodeId(99));
        nodes.looked_up(NodeId(106));
        let all: Vec<u64> = (106..200).chain(99..101).chain(102..106).collect();
        assert_eq!(surplus(0), all);
        assert_eq!(nodes.count(), 100, "what was never told is gone");
    }

    #[test]
    fn a_changed_inode_gets_another_node_only_while_the_kernel_knows_the_old_one() {
        let nodes = Nodes::new([7; 32]);
        let (ino, node) = (Ino(99), NodeId(99));
        assert_eq!(nodes.outdate(ino), None);
        assert_eq!(nodes.current(ino), node);
        nodes.looked_up(node);
        assert_eq!(nodes.outdate(ino), Some(node));
        let second = nodes.current(ino);
        assert!(second.is_alias() && nodes.ino(second) == ino && nodes.is_stale(node));
        assert_eq!(
            nodes.current(ino),
            second,
            "it stays the same until the next change"
        );
        nodes.looked_up(second);
        nodes.forget(node, 1);
        nodes.forget(second, 1);
        assert_eq!(
            nodes.current(ino),
            node,
            "both forgotten: its own number again"
        );
    }
}
