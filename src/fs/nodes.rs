//! Which numbers the kernel knows, and for which branch of an inode each stands (docs/semantics.md).
//!
//! With its write-back cache on, the kernel believes its own length and times of a regular file for as long as it knows the node. So a file
//! that another device changed must come back under another number while the old one is known.

use crate::file::Gone;
use crate::types::NodeId;
use parking_lot::Mutex;
use skrin_base::{Ino, OpId, Timestamp};
use skrin_meta::state::Inode;
use std::collections::{HashMap, HashSet};

#[derive(Default)]
struct State {
    /// How often each node was handed to the kernel and not forgotten.
    known: HashMap<NodeId, u64>,
    /// The node of an inode where it is not the inode's number.
    alias: HashMap<Ino, NodeId>,
    /// The inode of each alias.
    inode: HashMap<NodeId, Ino>,
    /// Nodes whose contents in the kernel are those of another branch than the tree's.
    stale: HashSet<NodeId>,
    /// What regular files were when the kernel was told of a node that it did not know.
    first: HashMap<NodeId, Seen>,
    /// Which contents of a regular file the kernel has the length of: those that it was told of first, or what was written here since.
    believed: HashMap<NodeId, OpId>,
    /// What the kernel still knows of inodes that have no name any more: open directories and pipes, and times that it has yet to tell.
    removed: HashMap<NodeId, Gone>,
    made: u64,
}

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
#[derive(Default)]
pub(crate) struct Nodes(Mutex<State>);

impl Nodes {
    /// The inode that a node stands for.
    pub(crate) fn ino(&self, node: NodeId) -> Ino {
        if !node.is_alias() {
            return Ino(node.0);
        }
        let state = self.0.lock();
        state.inode.get(&node).copied().unwrap_or(Ino(node.0))
    }

    /// The node under which the present contents of an inode are found.
    pub(crate) fn current(&self, ino: Ino) -> NodeId {
        let mut state = self.0.lock();
        let node = state.alias.get(&ino).copied().unwrap_or(NodeId(ino.0));
        if !state.stale.contains(&node) {
            return node;
        }
        if !state.known.contains_key(&node) {
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
        let state = self.0.lock();
        state.alias.get(&ino).copied().unwrap_or(NodeId(ino.0))
    }

    /// Every inode of which the kernel knows a node, the root included, which it knows without being told.
    pub(crate) fn all_known(&self) -> Vec<Ino> {
        let state = self.0.lock();
        let inode = |node: &NodeId| state.inode.get(node).copied().unwrap_or(Ino(node.0));
        let mut known: Vec<Ino> = state.known.keys().map(inode).collect();
        drop(state);
        known.push(Ino::ROOT);
        known.sort_unstable();
        known.dedup();
        known
    }

    /// Counts that the kernel was told of a node.
    pub(crate) fn looked_up(&self, node: NodeId) {
        *self.0.lock().known.entry(node).or_insert(0) += 1;
    }

    /// Counts it too, and notes what a file was when the kernel did not know the node yet. What is told of it later must be the same, or nothing
    /// is known of it: a merge may have changed the tree and not come to `outdate` yet.
    pub(crate) fn introduce(&self, node: NodeId, seen: Option<Seen>) {
        let mut state = self.0.lock();
        let known = state.known.entry(node).or_insert(0);
        *known += 1;
        let is_new = *known == 1;
        if let Some(seen) = seen.filter(|_| is_new) {
            state.believed.insert(node, seen.version);
        }
        match seen {
            Some(seen) if is_new => drop(state.first.insert(node, seen)),
            seen if state.first.get(&node) != seen.as_ref() => drop(state.first.remove(&node)),
            _ => {}
        }
    }

    /// A listing is about to tell the kernel of a file with these contents.
    pub(crate) fn offer(&self, node: NodeId, version: OpId) {
        let mut state = self.0.lock();
        if !state.known.contains_key(&node) {
            state.believed.insert(node, version);
        }
    }

    /// The contents of a file became these by what was written through the kernel.
    pub(crate) fn believe(&self, node: NodeId, version: OpId) {
        let mut state = self.0.lock();
        if state.known.contains_key(&node) {
            state.believed.insert(node, version);
        }
    }

    /// Whether the kernel has the length of other contents than these: a merge has changed the tree and not come to `outdate` yet.
    pub(crate) fn believes_other(&self, node: NodeId, version: OpId) -> bool {
        let state = self.0.lock();
        let believed = state.believed.get(&node);
        state.known.contains_key(&node) && believed.is_some_and(|believed| *believed != version)
    }

    /// Whether a file is, to the kernel, what it was when it was told of it.
    pub(crate) fn is_as_introduced(&self, ino: Ino, seen: Seen) -> bool {
        let state = self.0.lock();
        let node = state.alias.get(&ino).copied().unwrap_or(NodeId(ino.0));
        !state.stale.contains(&node) && state.first.get(&node) == Some(&seen)
    }

    /// The kernel let go of so many references.
    pub(crate) fn forget(&self, node: NodeId, count: u64) {
        let mut state = self.0.lock();
        let Some(known) = state.known.get_mut(&node) else {
            return;
        };
        *known = known.saturating_sub(count);
        if *known > 0 {
            return;
        }
        state.known.remove(&node);
        state.first.remove(&node);
        state.believed.remove(&node);
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
        let mut state = self.0.lock();
        let node = state.alias.get(&ino).copied().unwrap_or(NodeId(ino.0));
        if !state.known.contains_key(&node) {
            return None;
        }
        state.stale.insert(node);
        Some(node)
    }

    /// The last name of an inode went here: what it was is kept for as long as the kernel knows it.
    pub(crate) fn keep_removed(&self, ino: Ino, gone: Gone) {
        let mut state = self.0.lock();
        let node = state.alias.get(&ino).copied().unwrap_or(NodeId(ino.0));
        if state.known.contains_key(&node) {
            state.removed.insert(node, gone);
        }
    }

    /// Looks at, or changes, what is kept of an inode whose last name went here.
    pub(crate) fn with_removed<T>(
        &self,
        node: NodeId,
        act: impl FnOnce(&mut Gone) -> T,
    ) -> Option<T> {
        self.0.lock().removed.get_mut(&node).map(act)
    }

    /// Whether the node stands for a branch that is no longer the tree's.
    pub(crate) fn is_stale(&self, node: NodeId) -> bool {
        self.0.lock().stale.contains(&node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skrin_base::DeviceId;

    #[test]
    fn a_file_is_as_introduced_until_something_else_is_told_of_it_or_it_is_outdated() {
        let nodes = Nodes::default();
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
    fn a_changed_inode_gets_another_node_only_while_the_kernel_knows_the_old_one() {
        let nodes = Nodes::default();
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
