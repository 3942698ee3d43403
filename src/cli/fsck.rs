//! Checks everything that can be reached on the storage: each object by itself, then what they say of each other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use skrin_base::{Content, Copies, RoomId, SegmentId, SegmentInfo};
use skrin_crypto::FileKey;
use skrin_data::store::BlockRead;
use skrin_data::{BlockRef, DataError};
use skrin_meta::usage::Usage;
use skrin_meta::{Rows, RowsError, check, state};
use skrin_storage::{BadName, ErrorKind, ObjectName, Prefix, Store, StoreError};

use crate::exit::{Failure, Outcome};
use crate::progress::Counter;
use crate::session::Layers;

/// Segments whose blocks are looked for in one pass over the tree: about 8 GiB.
const SEGMENTS_AT_ONCE: usize = 1024;

/// A tip holds one byte; more than this is not read.
const TIP_MAX: usize = 64;

/// Something that is not as it must be.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    /// The object on the storage, or the inode, that it is about.
    pub(crate) object: String,
    /// What is wrong with it.
    pub(crate) what: String,
}

/// What was looked at.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Checked {
    pub(crate) commits: u64,
    pub(crate) checkpoints: u64,
    pub(crate) pages: u64,
    pub(crate) segments: u64,
    pub(crate) blocks: u64,
    /// Bytes of segments.
    pub(crate) bytes: u64,
}

/// A check that is going on.
pub(crate) struct Fsck<'a> {
    store: &'a dyn Store,
    counter: Counter,
    pub(crate) findings: Vec<Finding>,
    pub(crate) checked: Checked,
}

impl<'a> Fsck<'a> {
    /// A check of what lies on `store`.
    pub(crate) fn new(store: &'a dyn Store) -> Self {
        Self {
            store,
            counter: Counter::new("checking"),
            findings: Vec::new(),
            checked: Checked::default(),
        }
    }

    /// Notes something.
    pub(crate) fn found(&mut self, object: impl fmt::Display, what: impl fmt::Display) {
        self.findings.push(Finding {
            object: object.to_string(),
            what: what.to_string(),
        });
    }

    /// Every commit, tip, checkpoint and page, and what all commits fold to.
    pub(crate) async fn metadata(&mut self, layers: &Layers) -> Outcome {
        let counter = &self.counter;
        let report = layers
            .replica
            .verify(|objects| counter.report(objects, 0))
            .await?;
        self.checked.commits = report.commits;
        self.checked.checkpoints = report.checkpoints;
        self.checked.pages = report.pages;
        for problem in report.problems {
            self.found(problem.object, problem.text);
        }
        Ok(())
    }

    /// The contents of tips. Nothing depends on them, but they too are not to change.
    pub(crate) async fn tips(&mut self, room: RoomId) -> Outcome {
        let dir = Prefix::new(format!("rooms/{room}/tips")).map_err(bad_name)?;
        for listed in self.store.list(&dir).await?.objects {
            match self.store.get(&listed.name, TIP_MAX).await {
                Ok(bytes) if &*bytes == b"\n" => {}
                Ok(_) => self.found(&listed.name, "holds something else than a line end"),
                // The lane went on meanwhile.
                Err(error) if error.is_absent() => {}
                Err(error) if error.kind() == ErrorKind::Broken => self.found(&listed.name, error),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn progress(&self) {
        self.counter
            .report(self.checked.segments, self.checked.bytes);
    }

    /// The tree, and all segments that it names: with `data` each block of them.
    pub(crate) async fn tree(&mut self, layers: &Layers, data: bool) -> Outcome {
        let (segments, usage) = {
            let tree = layers.replica.tree();
            for finding in check::check(&tree, true).map_err(cache)? {
                self.found("tree", finding);
            }
            let mut segments = Vec::new();
            let visit = |info| {
                segments.push(Arc::new(info));
                Ok(())
            };
            state::for_each_segment(&tree, visit).map_err(cache)?;
            let usage = Usage::of(&tree).map_err(cache)?;
            (segments, usage)
        };
        let named: HashSet<SegmentId> = usage.objects().into_iter().collect();
        for finding in layers.replica.status().findings {
            self.found(finding.object, finding.text);
        }
        for batch in segments.chunks(SEGMENTS_AT_ONCE) {
            match data {
                true => self.blocks(layers, batch, &named).await?,
                false => self.lengths(batch, &named).await?,
            }
        }
        match data {
            true => self.relocated(layers, &segments, &usage).await,
            false => Ok(()),
        }
    }

    /// Whether needed blocks that were relocated are where they are said to be, and are those that were sealed.
    async fn relocated(
        &mut self,
        layers: &Layers,
        segments: &[Arc<SegmentInfo>],
        usage: &Usage,
    ) -> Outcome {
        let known: BTreeMap<SegmentId, &Arc<SegmentInfo>> =
            segments.iter().map(|info| (info.id, info)).collect();
        for info in segments {
            let located = usage.located(info.id).into_iter().map(|l| l.run);
            let runs: Vec<_> = located.filter(|run| run.host != info.id).collect();
            if runs.is_empty() {
                continue;
            }
            let hosts = runs.iter().filter_map(|run| known.get(&run.host));
            let copies = Copies {
                hosts: hosts.map(|host| (host.id, Arc::clone(host))).collect(),
                runs,
            };
            match layers.data.check_copies(Arc::clone(info), copies).await {
                Ok(_) => {}
                Err(error @ (DataError::Integrity { .. } | DataError::Missing(_))) => {
                    let name = segment_name(&info.id)?;
                    self.found(&name, format!("blocks of it were relocated: {error}"));
                }
                Err(DataError::Storage(error)) if error.kind() == ErrorKind::Broken => {
                    self.found(segment_name(&info.id)?, error);
                }
                Err(error) => return Err(error.into()),
            }
            self.progress();
        }
        Ok(())
    }

    /// Whether segments are there and as long as declared.
    async fn lengths(
        &mut self,
        segments: &[Arc<SegmentInfo>],
        named: &HashSet<SegmentId>,
    ) -> Outcome {
        let mut listed: HashMap<String, HashMap<String, Option<u64>>> = HashMap::new();
        for info in segments {
            let name = segment_name(&info.id)?;
            let dir = name.parent();
            if !listed.contains_key(dir.as_str()) {
                let objects = self.store.list(&dir).await?.objects;
                let lengths = objects
                    .into_iter()
                    .map(|listed| (listed.name.to_string(), listed.len));
                listed.insert(dir.as_str().to_owned(), lengths.collect());
            }
            match listed
                .get(dir.as_str())
                .and_then(|dir| dir.get(name.as_str()))
            {
                // What no file names may have been deleted to give space back.
                None if !named.contains(&info.id) => continue,
                None => self.found(&name, "is missing: the storage lost it"),
                Some(Some(len)) if *len != info.object_len => {
                    self.found(
                        &name,
                        format!(
                            "is {len} bytes long, but was written with {}",
                            info.object_len
                        ),
                    );
                }
                Some(_) => {}
            }
            self.checked.segments += 1;
            self.progress();
        }
        Ok(())
    }

    async fn blocks(
        &mut self,
        layers: &Layers,
        segments: &[Arc<SegmentInfo>],
        named: &HashSet<SegmentId>,
    ) -> Outcome {
        let mut reads = reads_of(&layers.replica.tree(), segments).map_err(cache)?;
        for info in segments {
            let name = segment_name(&info.id)?;
            let reads = reads.remove(&info.id).unwrap_or_default();
            match layers.data.verify_segment(Arc::clone(info), reads).await {
                Ok(verified) => {
                    self.checked.blocks += u64::from(verified.blocks);
                    self.checked.bytes += verified.bytes;
                    for (slot, flaw) in verified.flaws {
                        match slot {
                            Some(slot) => self.found(&name, format!("block {slot}: {flaw}")),
                            None => self.found(&name, flaw),
                        }
                    }
                }
                Err(DataError::Missing(id)) if !named.contains(&id) => continue,
                Err(error @ (DataError::Integrity { .. } | DataError::Missing(_))) => {
                    self.found(&name, error)
                }
                // Longer than any segment, for one.
                Err(DataError::Storage(error)) if error.kind() == ErrorKind::Broken => {
                    self.found(&name, error)
                }
                Err(error) => return Err(error.into()),
            }
            self.checked.segments += 1;
            self.progress();
        }
        Ok(())
    }
}

/// Every block of these segments that some file names, with the key that opens it.
fn reads_of(
    rows: &dyn Rows,
    segments: &[Arc<SegmentInfo>],
) -> Result<HashMap<SegmentId, Vec<BlockRead>>, RowsError> {
    let infos: HashMap<SegmentId, &Arc<SegmentInfo>> =
        segments.iter().map(|info| (info.id, info)).collect();
    let mut reads: HashMap<SegmentId, Vec<BlockRead>> = HashMap::new();
    state::for_each_inode(rows, |ino, inode| {
        if inode.keys.is_empty() {
            return Ok(());
        }
        for extent in state::extents(rows, ino, 0, u64::MAX)? {
            let Content::Stored(stored) = &extent.content else {
                continue;
            };
            let Some(info) = infos.get(&stored.segment) else {
                continue;
            };
            // A missing key is a finding of the tree.
            let Some(key) = inode.key(stored.key) else {
                continue;
            };
            let key = Arc::new(FileKey::from_bytes(key.key));
            let blocks = (0..extent.count).map(|n| BlockRead {
                at: BlockRef {
                    segment: stored.segment,
                    slot: stored.first_slot.saturating_add(n),
                },
                info: Some(Arc::clone(info)),
                key_id: stored.key,
                key: Arc::clone(&key),
                origin_file: stored.origin_file,
                origin_block: stored.origin_block.saturating_add(u64::from(n)),
            });
            reads.entry(stored.segment).or_default().extend(blocks);
        }
        Ok(())
    })?;
    Ok(reads)
}

/// docs/format/README.md, section 2.
fn segment_name(id: &SegmentId) -> Outcome<ObjectName> {
    let hex = id.to_string();
    let dir = hex.get(..2).unwrap_or_default();
    ObjectName::new(format!("segments/{dir}/{hex}")).map_err(bad_name)
}

fn bad_name(bad: BadName) -> Failure {
    StoreError::from(bad).into()
}

fn cache(error: RowsError) -> Failure {
    Failure::new(crate::exit::Exit::Other, error)
}
