//! How the state is kept in the local cache beside its rows, and comes back from there.

use super::super::graph::{Cuts, Graph, Lane, Node};
use super::super::standing::Standing;
use super::{Core, Logged, Meta, broken};
use crate::cache::{CachedRows, FlushJob, Flushed};
use crate::commit::{CheckedCommit, Commit};
use crate::lane::Head;
use crate::op::Op;
use crate::order::OrderKey;
use crate::rows::{Row, RowKey, RowsError};
use crate::state;
use crate::undo::Frame;
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{DeviceId, Hash32, LaneId, RoomId};
use std::sync::Arc;

/// Prefixes of entries beside the rows.
mod side {
    pub(super) const LANE: u8 = b'L';
    pub(super) const NODE: u8 = b'N';
    pub(super) const LOG: u8 = b'C';
    pub(super) const PENDING: u8 = b'P';
    pub(super) const META: &[u8] = b"M";
}

fn prefixed(prefix: u8, key: &[u8]) -> RowKey {
    std::iter::once(prefix).chain(key.iter().copied()).collect()
}

impl Core {
    /// Hands out everything that the database does not have, to be written in one transaction without the lock of the
    /// tree. `None` if there is no database, or a flush is under way.
    pub(in crate::replica) fn begin_flush(&mut self) -> Result<Option<FlushJob>, RowsError> {
        if self.broken {
            return Err(broken());
        }
        if self.rows.is_flushing() || self.outdated {
            return Ok(None);
        }
        self.collect_changes();
        let side = std::mem::take(&mut self.unsaved);
        Ok(self.rows.begin_flush(side).unwrap_or_else(|side| {
            self.unsaved = side;
            None
        }))
    }

    /// Takes the outcome of a flush; what could not be written is tried again with the next one.
    pub(in crate::replica) fn end_flush(&mut self, flushed: Flushed) -> Result<(), RowsError> {
        if let Err((mut side, error)) = self.rows.end_flush(flushed) {
            side.append(&mut self.unsaved);
            self.unsaved = side;
            return Err(error);
        }
        self.anew = false;
        self.let_go_of_saved();
        Ok(())
    }

    /// What was just written need not be held in memory.
    fn let_go_of_saved(&mut self) {
        for logged in self.log.values_mut().filter(|logged| logged.saving) {
            logged.saving = false;
            if !logged.dirty {
                logged.held = None;
            }
        }
        let kept = self.rows.is_persistent();
        for pending in self.pending.iter_mut().filter(|pending| pending.saving) {
            pending.saving = false;
            if kept && !pending.dirty {
                pending.held = None;
            }
        }
    }

    /// Both at once.
    pub(in crate::replica) fn flush(&mut self) -> Result<(), RowsError> {
        match self.begin_flush()? {
            Some(job) => self.end_flush(job.run()),
            None => Ok(()),
        }
    }

    /// Writes what there is, without saying that it is a state.
    pub(in crate::replica) fn write_part(&mut self) -> Result<(), RowsError> {
        self.collect_changes();
        let mut side = std::mem::take(&mut self.unsaved);
        side.insert(side::META.into(), None);
        if let Err((mut side, error)) = self.rows.flush(side) {
            side.append(&mut self.unsaved);
            self.unsaved = side;
            return Err(error);
        }
        self.let_go_of_saved();
        Ok(())
    }

    /// Adds what changed since the last time to the entries that stand beside the rows.
    fn collect_changes(&mut self) {
        self.unsaved_ops = 0;
        let unsaved = &mut self.unsaved;
        for key in self.dropped.drain(..) {
            if !self.log.contains_key(&key) {
                unsaved.insert(prefixed(side::LOG, key.as_bytes()), None);
            }
        }
        for counter in self.unpended.drain(..) {
            unsaved.insert(pending_key(counter), None);
        }
        for (key, logged) in self.log.iter_mut().filter(|(_, logged)| logged.dirty) {
            if let Some((checked, frame)) = &logged.held {
                let value = encode_logged(checked, frame);
                unsaved.insert(prefixed(side::LOG, key.as_bytes()), Some(value));
            }
            (logged.dirty, logged.saving) = (false, true);
        }
        let again = &self.again;
        for (counter, op) in self.parked.iter().filter(|(c, _)| again.contains(c)) {
            // Nothing of it is in the rows: there is nothing to put back.
            let row = encode_pending(op, &Frame::default(), true);
            unsaved.insert(pending_key(*counter), Some(row));
        }
        for pending in self.pending.iter_mut().filter(|pending| pending.dirty) {
            if let Some((op, frame)) = &pending.held {
                let row = encode_pending(op, frame, again.contains(&pending.counter));
                unsaved.insert(pending_key(pending.counter), Some(row));
            }
            (pending.dirty, pending.saving) = (false, true);
        }
        let (lanes, nodes) = self.graph.take_dirty();
        for (id, row) in lanes {
            unsaved.insert(prefixed(side::LANE, &id.0), Some(row.into()));
        }
        for (hash, row) in nodes {
            unsaved.insert(prefixed(side::NODE, &hash.0), Some(row.into()));
        }
        unsaved.insert(side::META.into(), Some(self.meta.to_bytes().into()));
    }

    /// A commit of the log from the database.
    pub(super) fn saved_log(&self, key: &OrderKey) -> Result<(CheckedCommit, Frame), RowsError> {
        let row = self.rows.side(&prefixed(side::LOG, key.as_bytes()))?;
        let row = row.ok_or_else(broken)?;
        decode_logged(&row).map_err(|e| state::damaged(key.as_bytes(), &e))
    }

    /// A pending operation from the database, with what stood before it.
    pub(super) fn saved_pending(&self, counter: u64) -> Result<(Arc<Op>, Frame), RowsError> {
        let (op, frame, _) = self.saved(counter)?;
        Ok((op, frame))
    }

    /// The same, and whether the journal does not have it any more.
    pub(super) fn saved(&self, counter: u64) -> Result<(Arc<Op>, Frame, bool), RowsError> {
        let key = pending_key(counter);
        // One whose write failed lies between the two.
        let row = match self.unsaved.get(&key) {
            Some(unsaved) => unsaved.clone(),
            None => self.rows.side(&key)?,
        };
        let row = row.ok_or_else(broken)?;
        decode_pending(&row).map_err(|e| state::damaged(&key, &e))
    }

    /// What the last flush left, without the pending operations: those come back from the journal. `None` if there is
    /// nothing that can be used.
    pub(in crate::replica) fn load(
        room: RoomId,
        device: DeviceId,
        rows: CachedRows,
    ) -> Result<Result<Self, CachedRows>, RowsError> {
        let Some(meta) = rows.side(side::META)? else {
            return Ok(Err(rows));
        };
        let Some(parts) = Parts::read(&rows, &meta)? else {
            return Ok(Err(rows));
        };
        let mut core = Self::new(room, device, rows);
        core.meta = parts.meta;
        core.graph = Graph::restore(parts.lanes, parts.nodes);
        core.graph.set_cuts(core.meta.cuts.clone());
        let stored = |key| {
            (
                key,
                Logged {
                    held: None,
                    dirty: false,
                    saving: false,
                },
            )
        };
        core.log = parts.log.into_iter().map(stored).collect();
        if let Err(error) = core.drop_saved_pending(parts.pending) {
            tracing::warn!(%error, "the pending changes in the metadata cache are damaged; it is made again");
            return Ok(Err(core.rows));
        }
        Ok(Ok(core))
    }
}

/// What stands beside the rows.
struct Parts {
    meta: Meta,
    lanes: Vec<(LaneId, Lane)>,
    nodes: Vec<(Hash32, Node)>,
    log: Vec<OrderKey>,
    pending: Vec<u64>,
}

impl Parts {
    /// `None` for anything that does not decode: the cache is made again then.
    fn read(rows: &CachedRows, meta: &[u8]) -> Result<Option<Self>, RowsError> {
        let lanes = rows.side_scan(side::LANE)?;
        let nodes = rows.side_scan(side::NODE)?;
        let log = rows.side_keys(side::LOG)?;
        let pending = rows.side_keys(side::PENDING)?;
        let read = || {
            Some(Self {
                meta: Meta::from_bytes(meta).ok()?,
                lanes: decode_all(&lanes)?,
                nodes: decode_all(&nodes)?,
                log: log
                    .iter()
                    .map(|key| OrderKey::from_bytes(key.get(1..)?))
                    .collect::<Option<_>>()?,
                pending: pending
                    .iter()
                    .map(|key| Some(u64::from_be_bytes(key.get(1..)?.try_into().ok()?)))
                    .collect::<Option<_>>()?,
            })
        };
        Ok(read())
    }
}

fn decode_all<K: Decode, V: Decode>(rows: &[(RowKey, Row)]) -> Option<Vec<(K, V)>> {
    let decode = |(key, row): &(RowKey, Row)| {
        let key = K::from_bytes(key.get(1..)?).ok()?;
        Some((key, V::from_bytes(row).ok()?))
    };
    rows.iter().map(decode).collect()
}

fn encode_logged(checked: &CheckedCommit, frame: &Frame) -> Row {
    let mut w = Writer::default();
    checked.head().encode(&mut w);
    checked.commit().encode(&mut w);
    frame.encode(&mut w);
    w.into_bytes().into()
}

fn decode_logged(row: &[u8]) -> Result<(CheckedCommit, Frame), WireError> {
    let mut r = Reader::new(row);
    let head = Head::decode(&mut r)?;
    let commit = Arc::new(Commit::decode(&mut r)?);
    let frame = Frame::decode(&mut r)?;
    r.finish()?;
    Ok((CheckedCommit::from_cache(head, commit), frame))
}

fn pending_key(counter: u64) -> RowKey {
    prefixed(side::PENDING, &counter.to_be_bytes())
}

fn encode_pending(op: &Op, frame: &Frame, again: bool) -> Row {
    let mut w = Writer::default();
    w.u8(again.into());
    op.encode(&mut w);
    frame.encode(&mut w);
    w.into_bytes().into()
}

fn decode_pending(row: &[u8]) -> Result<(Arc<Op>, Frame, bool), WireError> {
    let mut r = Reader::new(row);
    let again = r.bool()?;
    let op = Arc::new(Op::decode(&mut r)?);
    let frame = Frame::decode(&mut r)?;
    r.finish()?;
    Ok((op, frame, again))
}

impl Encode for Meta {
    fn encode(&self, w: &mut Writer) {
        w.u64(self.undoable_from);
        self.standing.encode(w);
        w.u64(self.ops_since);
        w.u64(self.bytes_since);
        self.cuts.encode(w);
    }
}

impl Decode for Meta {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            undoable_from: r.u64()?,
            standing: Standing::decode(r)?,
            ops_since: r.u64()?,
            bytes_since: r.u64()?,
            cuts: Cuts::decode(r)?,
        })
    }
}
