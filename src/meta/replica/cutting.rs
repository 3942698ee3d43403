//! Cuts that come late, or go (docs/format/lanes.md, section 6): what counted does so no more, or does again.

use super::Net;
use super::core::{Core, MergeError};
use super::graph::Cuts;
use super::pull::earlier_ends;
use skrin_base::{Hash32, LaneId};
use std::collections::BTreeSet;

/// What changes by cuts while commits are taken in.
#[derive(Default)]
pub(super) struct Cutting {
    /// Whether anything may change.
    touched: bool,
    /// Whether something lies beyond no cut any more that did.
    pub(super) gone: bool,
    /// What lay beyond cuts before.
    before: BTreeSet<Hash32>,
    /// Commits that were known and lie beyond a cut now.
    pub(super) void: BTreeSet<Hash32>,
    /// Lanes that end earlier than before.
    pub(super) closed: BTreeSet<LaneId>,
}

impl Cutting {
    /// Before commits are admitted: judges by these cuts from now on.
    pub(super) fn begin(core: &mut Core, cuts: Cuts, net: &Net) -> Self {
        let changed = core.meta.cuts != cuts;
        // A root, too, may hold what lies beyond.
        let news = !net.inbox.held.is_empty() || !net.roots.is_empty();
        let any = !cuts.is_empty() && news;
        if !changed && !any {
            return Self::default();
        }
        let before = core.graph.all_cut_off();
        if changed {
            core.set_cuts(cuts);
        }
        Self {
            touched: true,
            before,
            ..Self::default()
        }
    }

    /// After it, and before anything is folded: finds what changed.
    pub(super) fn end(
        &mut self,
        core: &mut Core,
        arrived: &BTreeSet<Hash32>,
    ) -> Result<(), MergeError> {
        if !self.touched {
            return Ok(());
        }
        core.settle_cuts();
        let moved = core.graph.settle_closes();
        let closed = earlier_ends(core, moved, arrived);
        let now = core.graph.all_cut_off();
        let news = now.difference(&self.before);
        self.void = news.filter(|c| !arrived.contains(*c)).copied().collect();
        let undoable_from = core.meta.undoable_from;
        let is_deep = |commit: &Hash32| {
            let lamport = core.graph.lamport_by_hash(commit);
            lamport.is_some_and(|lamport| lamport < undoable_from)
        };
        self.gone = !self.before.is_subset(&now);
        // What was void counts again, or what was folded long ago does no more.
        self.closed = closed?;
        match !self.gone && !self.void.iter().any(is_deep) {
            true => Ok(()),
            false => Err(MergeError::TooDeep),
        }
    }
}
