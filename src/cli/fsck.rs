//! Checks everything that can be reached on the storage: each object by itself, then what they say of each other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use skrin_base::limits::{CHECKPOINT_MAX, COMMIT_MAX, PAGE_LEN};
use skrin_base::{Content, Hash32, LaneId, SegmentId, SegmentInfo};
use skrin_crypto::{FileKey, RoomKeys, Roster};
use skrin_data::store::BlockRead;
use skrin_data::{BlockRef, DataError};
use skrin_meta::checkpoint::{open_page, open_root};
use skrin_meta::commit::{CheckpointRef, open_commit};
use skrin_meta::lane::{Head, RoomNames};
use skrin_meta::{Rows, RowsError, check, state};
use skrin_storage::{BadName, ErrorKind, ObjectName, Prefix, Store, StoreError};

use crate::exit::{Failure, Outcome};
use crate::progress::Counter;
use crate::session::Layers;

/// Segments whose blocks are looked for in one pass over the tree: about 8 GiB.
const SEGMENTS_AT_ONCE: usize = 1024;

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
    pub(crate) tips: u64,
    pub(crate) checkpoints: u64,
    pub(crate) pages: u64,
    pub(crate) segments: u64,
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
}

/// A check that is going on.
pub(crate) struct Fsck<'a> {
    store: &'a dyn Store,
    keys: &'a RoomKeys,
    roster: &'a Roster,
    names: RoomNames,
    counter: Counter,
    commits: BTreeMap<(LaneId, u64, Hash32), ()>,
    /// Who names which commit.
    named: BTreeMap<Head, String>,
    checkpoints: BTreeMap<[u8; 16], CheckpointRef>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) checked: Checked,
}

impl<'a> Fsck<'a> {
    /// A check of the room that `keys` belong to.
    pub(crate) fn new(store: &'a dyn Store, keys: &'a RoomKeys, roster: &'a Roster) -> Self {
        Self {
            store,
            keys,
            roster,
            names: RoomNames(keys.room()),
            counter: Counter::new("checking"),
            commits: BTreeMap::new(),
            named: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
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

    fn progress(&self) {
        let done = &self.checked;
        let objects = done.commits + done.tips + done.checkpoints + done.pages + done.segments;
        self.counter.report(objects, done.bytes);
    }

    /// An object's bytes; `None` where they cannot be had, which was noted. A storage that cannot be reached ends the check.
    async fn get(&mut self, name: &ObjectName, max: usize) -> Outcome<Option<Vec<u8>>> {
        match self.store.get(name, max).await {
            Ok(bytes) => {
                self.checked.bytes += bytes.len() as u64;
                self.progress();
                Ok(Some(bytes.into()))
            }
            Err(error) if matches!(error.kind(), ErrorKind::Absent | ErrorKind::Broken) => {
                self.found(name, format!("cannot be read: {error}"));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// All commits of all lanes, then what they say of each other.
    pub(crate) async fn lanes(&mut self) -> Outcome {
        let lanes = self.room_prefix("lanes")?;
        for lane in self.store.list(&lanes).await?.dirs {
            let Some(id) = LaneId::from_hex(&lane) else {
                continue;
            };
            let of_lane = below(&lanes, &lane)?;
            for part in self.store.list(&of_lane).await?.dirs {
                for listed in self.store.list(&below(&of_lane, &part)?).await?.objects {
                    self.commit(id, &listed.name).await?;
                }
            }
        }
        self.tips().await?;
        let missing: Vec<(Head, String)> = self
            .named
            .iter()
            .filter(|(head, _)| !self.commits.contains_key(&(head.lane, head.seq, head.hash)))
            .map(|(head, by)| (*head, by.clone()))
            .collect();
        for (head, by) in missing {
            let name = self.names.commit(&head).map_err(bad_name)?;
            self.found(
                name,
                format!("is missing, but {by} names it: the storage lost or withholds it"),
            );
        }
        Ok(())
    }

    async fn commit(&mut self, lane: LaneId, name: &ObjectName) -> Outcome {
        let Some(head) = parse_commit(lane, name.file_name()) else {
            return Ok(());
        };
        self.commits.insert((head.lane, head.seq, head.hash), ());
        let Some(bytes) = self.get(name, COMMIT_MAX).await? else {
            return Ok(());
        };
        self.checked.commits += 1;
        let commit = match open_commit(&head, &bytes, self.keys, self.roster) {
            Ok(checked) => Arc::clone(checked.commit()),
            Err(fault) => {
                self.found(name, fault);
                return Ok(());
            }
        };
        if let Some(seq) = head.seq.checked_sub(1) {
            let previous = Head {
                lane,
                seq,
                hash: commit.prev,
            };
            self.named
                .entry(previous)
                .or_insert_with(|| name.to_string());
        }
        for other in &commit.heads {
            self.named.entry(*other).or_insert_with(|| name.to_string());
        }
        let said = commit.verdicts.iter().map(|verdict| &verdict.checkpoint);
        for checkpoint in said.chain(&commit.standing) {
            self.checkpoints.insert(checkpoint.name, *checkpoint);
        }
        Ok(())
    }

    async fn tips(&mut self) -> Outcome {
        let tips = self.names.tips().map_err(bad_name)?;
        for listed in self.store.list(&tips).await?.objects {
            let Some((lane, rest)) = listed.name.file_name().split_once('-') else {
                continue;
            };
            let head = LaneId::from_hex(lane).and_then(|lane| parse_commit(lane, rest));
            let Some(head) = head else { continue };
            self.checked.tips += 1;
            self.named
                .entry(head)
                .or_insert_with(|| listed.name.to_string());
            let content = self.get(&listed.name, 64).await?;
            if content.is_some_and(|bytes| bytes != b"\n") {
                self.found(&listed.name, "holds something else than a line end");
            }
        }
        Ok(())
    }

    /// The checkpoints that commits name, as far as they are still there, with all their pages.
    pub(crate) async fn checkpoints(&mut self) -> Outcome {
        let listed = self.store.list(&self.room_prefix("checkpoints")?).await?;
        let there: BTreeSet<ObjectName> = listed
            .objects
            .into_iter()
            .map(|listed| listed.name)
            .collect();
        for reference in std::mem::take(&mut self.checkpoints).into_values() {
            let name = self.names.checkpoint(&reference.name).map_err(bad_name)?;
            // Older checkpoints may have been removed; what is needed is missed when the tree is read.
            if !there.contains(&name) {
                continue;
            }
            let Some(bytes) = self.get(&name, CHECKPOINT_MAX).await? else {
                continue;
            };
            self.checked.checkpoints += 1;
            match open_root(&reference, &bytes, self.keys, self.roster) {
                Err(fault) => self.found(&name, fault),
                Ok(root) => {
                    for page in &root.pages {
                        self.page(page, &root.epoch).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn page(
        &mut self,
        page: &skrin_meta::checkpoint::PageRef,
        epoch: &skrin_base::EpochId,
    ) -> Outcome {
        let name = self.names.page(&page.name).map_err(bad_name)?;
        let Some(bytes) = self.get(&name, PAGE_LEN).await? else {
            return Ok(());
        };
        self.checked.pages += 1;
        if let Err(fault) = open_page(&bytes, page, epoch, self.keys) {
            self.found(name, fault);
        }
        Ok(())
    }

    /// The tree, and all segments that it names: with `data` each block of them.
    pub(crate) async fn tree(&mut self, layers: &Layers, data: bool) -> Outcome {
        let segments = {
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
            segments
        };
        for finding in layers.replica.status().findings {
            self.found(finding.object, finding.text);
        }
        for batch in segments.chunks(SEGMENTS_AT_ONCE) {
            match data {
                true => self.blocks(layers, batch).await?,
                false => self.lengths(batch).await?,
            }
        }
        Ok(())
    }

    /// Whether segments are there and as long as declared.
    async fn lengths(&mut self, segments: &[Arc<SegmentInfo>]) -> Outcome {
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

    async fn blocks(&mut self, layers: &Layers, segments: &[Arc<SegmentInfo>]) -> Outcome {
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
                Err(error @ (DataError::Integrity { .. } | DataError::Missing(_))) => {
                    self.found(&name, error)
                }
                Err(error) => return Err(error.into()),
            }
            self.checked.segments += 1;
            self.progress();
        }
        Ok(())
    }

    fn room_prefix(&self, part: &str) -> Outcome<Prefix> {
        Prefix::new(format!("rooms/{}/{part}", self.keys.room())).map_err(bad_name)
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

/// `<seq, 16 hex>-<hash>`, docs/format/README.md, section 2.
fn parse_commit(lane: LaneId, name: &str) -> Option<Head> {
    let (seq, hash) = name.split_once('-')?;
    let seq = skrin_base::ids::parse_hex::<8>(seq).map(u64::from_be_bytes)?;
    Some(Head {
        lane,
        seq,
        hash: Hash32::from_hex(hash)?,
    })
}

fn below(dir: &Prefix, name: &str) -> Outcome<Prefix> {
    Prefix::new(format!("{}/{name}", dir.as_str())).map_err(bad_name)
}

fn bad_name(bad: BadName) -> Failure {
    StoreError::from(bad).into()
}

fn cache(error: RowsError) -> Failure {
    Failure::new(crate::exit::Exit::Other, error)
}
