//! Which files are not whole because of blocks that cannot be had, and which version of each is.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use skrin_base::limits::BLOCK_LEN;
use skrin_base::{Clock, Content, Extent, Ino, Name, OpId, SegmentId};
use skrin_meta::replica::ReplicaError;
use skrin_meta::state::{self, Inode};
use skrin_meta::{OpKind, Outcome, Rows, RowsError};

use crate::exit::{Exit, Failure, Outcome as Done};
use crate::finding::{Bytes, Finding, Touched};
use crate::machine::SystemClock;
use crate::past;
use crate::session::Layers;

/// Deeper than any directory that is no cycle.
const DEPTH_MAX: usize = 65_536;

/// Blocks that cannot be had, each with the number of the finding that says so.
#[derive(Default)]
pub(crate) struct Lost {
    /// Of whole segments.
    segments: HashMap<SegmentId, usize>,
    blocks: HashMap<SegmentId, BTreeMap<u32, usize>>,
}

/// A file that is not whole.
struct Hurt {
    version: OpId,
    paths: Vec<String>,
    /// Its blocks, by the finding that says why.
    blocks: BTreeMap<usize, Vec<Bytes>>,
}

impl Lost {
    /// Notes a block, or without `slot` all blocks of a segment.
    pub(crate) fn note(&mut self, segment: SegmentId, slot: Option<u32>, finding: usize) {
        match slot {
            None => drop(self.segments.entry(segment).or_insert(finding)),
            Some(slot) => {
                let blocks = self.blocks.entry(segment).or_default();
                blocks.entry(slot).or_insert(finding);
            }
        }
    }

    /// Which finding says that a block cannot be had.
    fn finding(&self, segment: &SegmentId, slot: u32) -> Option<usize> {
        let whole = self.segments.get(segment);
        whole
            .or_else(|| self.blocks.get(segment)?.get(&slot))
            .copied()
    }

    fn is_touched(&self, segment: &SegmentId) -> bool {
        self.segments.contains_key(segment) || self.blocks.contains_key(segment)
    }

    /// Adds to the findings the files that are not whole because of them, and the newest version before that is.
    ///
    /// # Errors
    /// A storage that cannot be reached.
    pub(crate) async fn tell(self, layers: &Layers, findings: &mut [Finding]) -> Done {
        if self.segments.is_empty() && self.blocks.is_empty() {
            return Ok(());
        }
        let hurt = self.hurt(&layers.replica.tree()).map_err(cache)?;
        let earlier = self.whole_before(layers, &hurt).await?;
        for (ino, file) in hurt {
            for (finding, ranges) in file.blocks {
                let Some(finding) = findings.get_mut(finding) else {
                    continue;
                };
                finding.files.extend(file.paths.iter().map(|path| Touched {
                    path: path.clone(),
                    version: past::version_name(file.version),
                    ranges: ranges.clone(),
                    earlier: earlier.get(&ino).map(|id| past::version_name(*id)),
                }));
            }
        }
        Ok(())
    }

    fn hurt(&self, rows: &dyn Rows) -> Result<BTreeMap<Ino, Hurt>, RowsError> {
        let mut hurt = BTreeMap::new();
        state::for_each_inode(rows, |ino, inode| {
            if inode.keys.is_empty() {
                return Ok(());
            }
            let mut blocks: BTreeMap<usize, Vec<Bytes>> = BTreeMap::new();
            for extent in state::extents(rows, ino, 0, u64::MAX)? {
                self.add_ranges(&extent, inode.size, &mut blocks);
            }
            if !blocks.is_empty() {
                let file = Hurt {
                    version: inode.version,
                    paths: paths(rows, &inode)?,
                    blocks,
                };
                hurt.insert(ino, file);
            }
            Ok(())
        })?;
        Ok(hurt)
    }

    fn add_ranges(&self, extent: &Extent, size: u64, blocks: &mut BTreeMap<usize, Vec<Bytes>>) {
        let Content::Stored(stored) = &extent.content else {
            return;
        };
        if !self.is_touched(&stored.segment) {
            return;
        }
        for n in 0..extent.count {
            let slot = stored.first_slot.saturating_add(n);
            let Some(finding) = self.finding(&stored.segment, slot) else {
                continue;
            };
            let from = (extent.first_block + u64::from(n)) * BLOCK_LEN as u64;
            let to = (from + BLOCK_LEN as u64).min(size);
            let ranges = blocks.entry(finding).or_default();
            match ranges.last_mut() {
                _ if from >= to => {}
                Some(last) if last.to == from => last.to = to,
                _ => ranges.push(Bytes { from, to }),
            }
        }
    }

    /// The newest version of each file, other than the one of today, whose contents the storage has whole.
    async fn whole_before(
        &self,
        layers: &Layers,
        hurt: &BTreeMap<Ino, Hurt>,
    ) -> Done<HashMap<Ino, OpId>> {
        if hurt.is_empty() {
            return Ok(HashMap::new());
        }
        let (stored, _) = layers.data.stored().await?;
        let stored: HashSet<SegmentId> = stored.into_keys().collect();
        let history = layers.replica.history(SystemClock.now(), |_| ()).await?;
        let mut whole = HashMap::new();
        history.walk(|_, op, outcome, rows| {
            if matches!(outcome, Outcome::Void(_) | Outcome::Duplicate) {
                return Ok(());
            }
            let OpKind::Write { ino, .. } = &op.kind else {
                return Ok(());
            };
            let Some(inode) = state::inode(rows, *ino)?.filter(|inode| inode.size > 0) else {
                return Ok(());
            };
            let today = hurt.get(ino).map(|file| file.version);
            let counts = inode.version == op.id && today.is_some_and(|today| today != op.id);
            if counts && self.is_whole(rows, *ino, &stored)? {
                whole.insert(*ino, op.id);
            }
            Ok::<_, ReplicaError>(())
        })?;
        Ok(whole)
    }

    fn is_whole(
        &self,
        rows: &dyn Rows,
        ino: Ino,
        stored: &HashSet<SegmentId>,
    ) -> Result<bool, RowsError> {
        let extents = state::extents(rows, ino, 0, u64::MAX)?;
        Ok(extents.iter().all(|extent| match &extent.content {
            Content::Hole => true,
            Content::Lost => false,
            Content::Stored(at) => {
                let mut slots = (0..extent.count).map(|n| at.first_slot.saturating_add(n));
                stored.contains(&at.segment)
                    && slots.all(|slot| self.finding(&at.segment, slot).is_none())
            }
        }))
    }
}

/// All places of a file, as paths below the root.
fn paths(rows: &dyn Rows, inode: &Inode) -> Result<Vec<String>, RowsError> {
    let mut paths = BTreeSet::new();
    for link in &inode.links {
        paths.extend(path(rows, link.dir, &link.name)?);
    }
    Ok(paths.into_iter().collect())
}

fn path(rows: &dyn Rows, mut dir: Ino, name: &Name) -> Result<Option<String>, RowsError> {
    let text = |name: &Name| String::from_utf8_lossy(name.as_bytes()).into_owned();
    let mut names = vec![text(name)];
    while dir != Ino::ROOT {
        let above = state::inode(rows, dir)?.and_then(|inode| inode.links.into_iter().next());
        let Some(link) = above.filter(|_| names.len() < DEPTH_MAX) else {
            return Ok(None);
        };
        names.push(text(&link.name));
        dir = link.dir;
    }
    names.reverse();
    Ok(Some(names.join("/")))
}

fn cache(error: RowsError) -> Failure {
    Failure::new(Exit::Other, error)
}
