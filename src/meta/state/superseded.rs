//! What versions held that are no longer the newest, so that a write which started from one and tells only what it changed finds the
//! rest (docs/format/operations.md, section 4; docs/adr/0009). Remembered of versions with more than `RUNS_TOLD_MAX` runs only: who
//! starts from one with fewer tells the whole file.

use super::{
    BATCH, SUPERSEDED, after_prefix, damaged, decode, extents, for_each, inode, key, read, write,
};
use crate::op::{Kind, NamedKey, VersionRun};
use crate::rows::{RowKey, Rows, RowsError};
use crate::state::{Inode, KEYS_MAX};
use skrin_base::limits::{BLOCK_LEN, RUNS_TOLD_MAX};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{DeviceId, Extent, Ino, OpId};
use std::collections::BTreeMap;

/// Extents in one row.
const PART: usize = 256;
/// What more versions than this have followed is not known any more: a walk must end.
const CHAIN_MAX: usize = 1 << 20;

/// How a version stopped being the newest.
struct Superseded {
    /// The operation that made the next version, or removed the file.
    by: OpId,
    /// The inode in which it was the newest.
    ino: Ino,
    /// Length of the file.
    size: u64,
    /// Whether its extents are all remembered; else only those that the next version does not have.
    whole: bool,
    /// And then the keys of the file.
    keys: Vec<NamedKey>,
}

impl Encode for Superseded {
    fn encode(&self, w: &mut Writer) {
        self.by.encode(w);
        self.ino.encode(w);
        w.u64(self.size);
        w.u8(self.whole.into());
        w.list(&self.keys);
    }
}

impl Decode for Superseded {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            by: OpId::decode(r)?,
            ino: Ino::decode(r)?,
            size: r.u64()?,
            whole: r.bool()?,
            keys: r.list("file keys", KEYS_MAX)?,
        })
    }
}

struct Part(Vec<Extent>);

impl Encode for Part {
    fn encode(&self, w: &mut Writer) {
        w.list(&self.0);
    }
}

impl Decode for Part {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        r.list("extents", PART).map(Self)
    }
}

fn superseded_key(version: OpId) -> Vec<u8> {
    let counter = version.counter.to_be_bytes();
    key(SUPERSEDED, &[version.device.as_bytes(), &counter])
}

fn blocks(size: u64) -> u64 {
    size.div_ceil(BLOCK_LEN as u64)
}

/// Whether a file has more runs than a write tells as a whole. Extents that continue one another are one run, so that it does not
/// matter how they came to be.
fn has_many(rows: &dyn Rows, ino: Ino) -> Result<bool, RowsError> {
    let (mut next, mut runs) = (0, 0);
    let mut last: Option<Extent> = None;
    while runs <= RUNS_TOLD_MAX {
        let batch = super::extents_from(rows, ino, next, RUNS_TOLD_MAX + 1)?;
        let Some(end) = batch.last().map(Extent::end) else {
            return Ok(false);
        };
        for extent in batch {
            runs += usize::from(last.is_none_or(|last| last.join(&extent).is_none()));
            last = Some(extent);
        }
        next = end;
    }
    Ok(true)
}

/// Extents as a map; later ones take the place of earlier ones.
#[derive(Default)]
struct Overlay(BTreeMap<u64, Extent>);

impl Overlay {
    fn cut(&mut self, from: u64, to: u64) {
        let before = self.0.range(..from).next_back().map(|(first, _)| *first);
        let inside = self.0.range(from..to).map(|(first, _)| *first);
        let touched: Vec<u64> = before.into_iter().chain(inside).collect();
        for first in touched {
            let Some(old) = self.0.remove(&first) else {
                continue;
            };
            let parts = [old.clip(0, from), old.clip(to, u64::MAX)];
            let parts = parts.into_iter().flatten();
            self.0.extend(parts.map(|part| (part.first_block, part)));
        }
    }

    fn put(&mut self, list: impl IntoIterator<Item = Extent>) {
        for extent in list {
            self.cut(extent.first_block, extent.end());
            self.0.insert(extent.first_block, extent);
        }
    }

    fn list(mut self, size: u64) -> Vec<Extent> {
        self.cut(blocks(size), u64::MAX);
        self.0.into_values().collect()
    }
}

/// A version that is about to be superseded, while the state still has it.
pub(crate) struct Old {
    version: OpId,
    ino: Ino,
    size: u64,
    /// All keys of the file. They only become more.
    keys: Vec<NamedKey>,
    lost: Vec<Extent>,
}

impl Old {
    /// The newest version of a file, if it has so many runs that it must be remembered. `ranges` of its blocks will change.
    pub(crate) fn of(
        rows: &dyn Rows,
        ino: Ino,
        inode: &Inode,
        ranges: impl IntoIterator<Item = (u64, u64)>,
    ) -> Result<Option<Self>, RowsError> {
        let is_stored = inode.kind == Kind::File && inode.inline.is_none();
        if !is_stored || !has_many(rows, ino)? {
            return Ok(None);
        }
        let mut lost = Vec::new();
        for (from, to) in ranges {
            let there = extents(rows, ino, from, to)?;
            lost.extend(there.iter().filter_map(|extent| extent.clip(from, to)));
        }
        Ok(Some(Self {
            version: inode.version,
            ino,
            size: inode.size,
            keys: inode.keys.clone(),
            lost,
        }))
    }

    /// Remembers it when the next version is in its place. A next version with few runs is not remembered itself in its turn, so that
    /// nothing may be left to it.
    pub(crate) fn replaced(mut self, rows: &mut dyn Rows, by: OpId) -> Result<(), RowsError> {
        if has_many(rows, self.ino)? {
            self.keys.clear();
            return self.put(rows, by, false);
        }
        let mut all = Overlay::default();
        all.put(extents(rows, self.ino, 0, u64::MAX)?);
        all.put(std::mem::take(&mut self.lost));
        self.lost = all.list(self.size);
        self.put(rows, by, true)
    }

    fn put(self, rows: &mut dyn Rows, by: OpId, whole: bool) -> Result<(), RowsError> {
        let superseded = Superseded {
            by,
            ino: self.ino,
            size: self.size,
            whole,
            keys: self.keys,
        };
        let key = superseded_key(self.version);
        write(rows, &key, &superseded)?;
        for (part, list) in (0u32..).zip(self.lost.chunks(PART)) {
            let key = [&key[..], &part.to_be_bytes()].concat();
            write(rows, &key, &Part(list.to_vec()))?;
        }
        Ok(())
    }
}

/// Remembers the newest version of a file that is removed, if it has many runs.
pub(crate) fn remember(
    rows: &mut dyn Rows,
    ino: Ino,
    inode: &Inode,
    by: OpId,
) -> Result<(), RowsError> {
    match Old::of(rows, ino, inode, [(0, u64::MAX)])? {
        Some(old) => old.put(rows, by, true),
        None => Ok(()),
    }
}

/// What a version held that is no longer the newest.
pub(crate) struct Held {
    /// The inode in which it was the newest.
    pub(crate) ino: Ino,
    /// Length of the file.
    pub(crate) size: u64,
    /// Its keys, unless the inode has them.
    pub(crate) keys: Vec<NamedKey>,
    /// Its extents.
    pub(crate) list: Vec<Extent>,
}

/// What a version held, if it is remembered.
pub(crate) fn held_by_version(rows: &dyn Rows, version: OpId) -> Result<Option<Held>, RowsError> {
    let Some(first) = read::<Superseded>(rows, &superseded_key(version))? else {
        return Ok(None);
    };
    let (mut chain, mut whole) = (vec![version], first.whole);
    let mut keys = first.keys;
    let mut next = first.by;
    while !whole && chain.len() < CHAIN_MAX {
        let Some(later) = read::<Superseded>(rows, &superseded_key(next))? else {
            break;
        };
        (whole, keys) = (later.whole, later.keys);
        chain.push(next);
        next = later.by;
    }
    let mut all = Overlay::default();
    if !whole {
        let is_newest = inode(rows, first.ino)?.is_some_and(|inode| inode.version == next);
        if !is_newest {
            return Ok(None);
        }
        all.put(extents(rows, first.ino, 0, u64::MAX)?);
    }
    for version in chain.into_iter().rev() {
        for_each_part(rows, version, |part| all.put(part.0))?;
    }
    Ok(Some(Held {
        ino: first.ino,
        size: first.size,
        keys,
        list: all.list(first.size),
    }))
}

fn for_each_part(
    rows: &dyn Rows,
    version: OpId,
    mut visit: impl FnMut(Part),
) -> Result<(), RowsError> {
    let header = superseded_key(version);
    let end = after_prefix(&header);
    let mut from = [&header[..], &[0]].concat();
    loop {
        let batch = rows.scan(&from, &end, BATCH)?;
        for (key, row) in &batch {
            visit(decode(key, row)?);
        }
        match batch.last() {
            Some((last, _)) if batch.len() == BATCH => {
                from = last.to_vec();
                from.push(0);
            }
            _ => return Ok(()),
        }
    }
}

/// The extents of a version that is no longer the newest, if it is remembered.
///
/// # Errors
/// Of the rows.
pub fn extents_of_version(
    rows: &dyn Rows,
    version: OpId,
) -> Result<Option<Vec<Extent>>, RowsError> {
    Ok(held_by_version(rows, version)?.map(|held| held.list))
}

/// Whether a write that starts from this version of a file may tell only what it changes: whatever has happened to the version by the
/// time when the write is folded, the rest is known.
///
/// # Errors
/// Of the rows.
pub fn may_tell_part(rows: &dyn Rows, ino: Ino, version: OpId) -> Result<bool, RowsError> {
    let forked = super::fork_of(rows, version)?;
    for ino in [Some(ino), forked].into_iter().flatten() {
        if let Some(inode) = inode(rows, ino)?
            && inode.version == version
        {
            return Ok(inode.inline.is_none() && has_many(rows, ino)?);
        }
    }
    Ok(false)
}

/// Visits every version that is remembered, in the order of devices and counters.
///
/// # Errors
/// Of the rows and of `visit`.
pub fn for_each_remembered(
    rows: &dyn Rows,
    mut visit: impl FnMut(OpId) -> Result<(), RowsError>,
) -> Result<(), RowsError> {
    for_each(rows, &[SUPERSEDED], |key, _| {
        let bad = |_| damaged(key, &WireError::Value("key of a version"));
        let mut r = Reader::new(key.get(1..).unwrap_or_default());
        let device = DeviceId(r.array().map_err(bad)?);
        let counter = u64::from_be_bytes(r.array().map_err(bad)?);
        match r.rest().is_empty() {
            true => visit(OpId { device, counter }),
            false => Ok(()),
        }
    })
}

/// Remembers nothing of these versions any more.
pub(crate) fn forget_versions(rows: &mut dyn Rows, run: &VersionRun) -> Result<(), RowsError> {
    let version = |counter| OpId {
        device: run.device,
        counter,
    };
    let mut from = superseded_key(version(run.first));
    let to = after_prefix(&superseded_key(version(run.last)));
    loop {
        let batch = rows.scan(&from, &to, BATCH)?;
        let keys: Vec<RowKey> = batch.into_iter().map(|(key, _)| key).collect();
        keys.iter().try_for_each(|key| rows.delete(key))?;
        match keys.last() {
            Some(last) if keys.len() == BATCH => from = last.to_vec(),
            _ => return Ok(()),
        }
    }
}
