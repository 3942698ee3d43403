//! Checks everything that can be reached on the storage: each object by itself, then what they say of each other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use skrin_base::{Content, Copies, RoomId, SegmentId, SegmentInfo};
use skrin_crypto::FileKey;
use skrin_data::store::BlockRead;
use skrin_data::{BlockRef, DataError, Flaw, Mended};
use skrin_meta::usage::Usage;
use skrin_meta::{Rows, RowsError, check, state};
use skrin_storage::{BadName, ErrorKind, ObjectName, Prefix, Store, StoreError};

use crate::exit::{Failure, Outcome};
use crate::finding::{Finding, Kind};
use crate::lost::Lost;
use crate::mend::{Attempt, mend};
use crate::progress::Counter;
use crate::session::Layers;

/// Segments whose blocks are looked for in one pass over the tree: about 8 GiB.
const SEGMENTS_AT_ONCE: usize = 1024;

/// A tip holds one byte; more than this is not read.
const TIP_MAX: usize = 64;

/// The object of findings that are about what all commits fold to.
const TREE: &str = "tree";

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
    /// Where objects that are put again are kept meanwhile; without it nothing is mended.
    spare: Option<PathBuf>,
    lost: Lost,
    pub(crate) findings: Vec<Finding>,
    pub(crate) checked: Checked,
}

impl<'a> Fsck<'a> {
    /// A check of what lies on `store`.
    pub(crate) fn new(store: &'a dyn Store) -> Self {
        Self {
            store,
            counter: Counter::new("checking"),
            spare: None,
            lost: Lost::default(),
            findings: Vec::new(),
            checked: Checked::default(),
        }
    }

    /// The same, and segments are put again that can be, by way of the directory `spare`.
    pub(crate) fn mending(store: &'a dyn Store, spare: PathBuf) -> Self {
        Self {
            spare: Some(spare),
            ..Self::new(store)
        }
    }

    /// Notes something, unless the same was found in another way. Returns its number.
    pub(crate) fn found(&mut self, finding: Finding) -> usize {
        let same = |known: &Finding| {
            (known.kind, &known.object, known.block)
                == (finding.kind, &finding.object, finding.block)
                && known.repaired == finding.repaired
                // A tree may have many.
                && (known.what == finding.what || finding.object != TREE)
        };
        let known = self.findings.iter().position(same);
        known.unwrap_or_else(|| {
            self.findings.push(finding);
            self.findings.len() - 1
        })
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
            let kind = Kind::of_problem(&problem);
            self.found(Finding::new(kind, problem.object, problem.text));
        }
        Ok(())
    }

    /// The contents of tips. Nothing depends on them, but they too are not to change.
    pub(crate) async fn tips(&mut self, room: RoomId) -> Outcome {
        let dir = Prefix::new(format!("rooms/{room}/tips")).map_err(bad_name)?;
        for listed in self.store.list(&dir).await?.objects {
            match self.store.get(&listed.name, TIP_MAX).await {
                Ok(bytes) if &*bytes == b"\n" => {}
                Ok(bytes) => {
                    let what = "holds something else than a line end";
                    let finding = Finding::new(Kind::TipDamaged, &listed.name, what);
                    self.found(finding.differing("a line end", format!("{} bytes", bytes.len())));
                }
                // The lane went on meanwhile.
                Err(error) if error.is_absent() => {}
                Err(error) if error.kind() == ErrorKind::Broken => {
                    self.found(Finding::new(Kind::TipDamaged, &listed.name, error));
                }
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
                let kind = match finding {
                    check::Finding::Lost { .. } => Kind::ContentsLost,
                    _ => Kind::TreeInconsistent,
                };
                self.found(Finding::new(kind, TREE, finding));
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
            let kind = Kind::of_finding(&finding);
            self.found(Finding::new(kind, finding.object, finding.text));
        }
        for batch in segments.chunks(SEGMENTS_AT_ONCE) {
            match data {
                true => self.blocks(layers, batch, &named).await?,
                false => self.lengths(batch, &named).await?,
            }
        }
        if data {
            self.relocated(layers, &segments, &usage).await?;
        }
        let lost = std::mem::take(&mut self.lost);
        lost.tell(layers, &mut self.findings).await
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
                    let text = format!("blocks of it were relocated: {error}");
                    self.found(Finding::new(Kind::RelocationDamaged, name.as_str(), text));
                }
                Err(DataError::Storage(error)) if error.kind() == ErrorKind::Broken => {
                    let name = segment_name(&info.id)?;
                    self.found(Finding::new(Kind::RelocationDamaged, name.as_str(), error));
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
                None => {
                    let what = "is missing: the storage lost it";
                    let n = self.found(Finding::new(Kind::SegmentMissing, &name, what));
                    self.lost.note(info.id, None, n);
                }
                Some(Some(len)) if *len != info.object_len => {
                    let n = self.found(wrong_length(&name, info, *len));
                    if *len < info.object_len {
                        self.lost.note(info.id, None, n);
                    }
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
            let reads = reads.remove(&info.id).unwrap_or_default();
            let is_named = named.contains(&info.id);
            let Some(mut flaws) = self.look(layers, info, &reads, is_named).await? else {
                continue;
            };
            let attempt = match flaws.is_empty() {
                true => Attempt::Ended(Mended::Whole),
                false => self.mend(layers, info).await?,
            };
            let mended = match attempt {
                Attempt::Ended(mended) => mended,
                // What lies there may be something else by now, or even what must.
                Attempt::Failed(error) => match self.look(layers, info, &reads, is_named).await? {
                    Some(again) if again.is_empty() => Mended::PutAgain,
                    again => {
                        flaws = again.unwrap_or(flaws);
                        flaws.iter_mut().for_each(|flaw| flaw.stays(&error));
                        Mended::NoTable
                    }
                },
            };
            if mended == Mended::PutAgain {
                for mut flaw in std::mem::take(&mut flaws) {
                    flaw.finding.repaired = true;
                    self.found(flaw.finding);
                }
                // Contents that were forged before they were sealed stay what they are.
                let again = self.look(layers, info, &reads, is_named).await?;
                flaws = again.unwrap_or_default();
            }
            for flaw in flaws {
                self.note(info.id, flaw, &mended);
            }
            self.checked.segments += 1;
            self.progress();
        }
        Ok(())
    }

    /// Reads a segment and says what is wrong with it; nothing where it may have been deleted to give space back.
    async fn look(
        &mut self,
        layers: &Layers,
        info: &Arc<SegmentInfo>,
        reads: &[BlockRead],
        is_named: bool,
    ) -> Outcome<Option<Vec<Flawed>>> {
        let name = segment_name(&info.id)?;
        let data = &layers.data;
        let verified = data.verify_segment(Arc::clone(info), reads.to_vec()).await;
        let finding = match verified {
            Ok(verified) => {
                self.checked.blocks += u64::from(verified.blocks);
                self.checked.bytes += verified.bytes;
                let flaws = verified.flaws.into_iter().map(|(slot, flaw)| {
                    let kind = match slot {
                        Some(_) => Kind::BlockDamaged,
                        None => Kind::SegmentDamaged,
                    };
                    let mut finding = Finding::new(kind, &name, flaw);
                    finding.block = slot;
                    // Nobody reads a header or what pads.
                    let hurts = slot.is_some();
                    Flawed { finding, hurts }
                });
                return Ok(Some(flaws.collect()));
            }
            Err(DataError::Missing(_)) if !is_named => return Ok(None),
            Err(error @ DataError::Missing(_)) => Finding::new(Kind::SegmentMissing, &name, error),
            Err(ref error @ DataError::Integrity { ref flaw, .. }) => {
                let finding = Finding::new(Kind::SegmentDamaged, &name, error);
                let written = format!("{} bytes", info.object_len);
                match flaw {
                    Flaw::Length => finding.differing(written, "another length"),
                    _ => finding,
                }
            }
            // Longer than any segment, for one.
            Err(DataError::Storage(error)) if error.kind() == ErrorKind::Broken => {
                Finding::new(Kind::SegmentDamaged, &name, error)
            }
            Err(error) => return Err(error.into()),
        };
        let hurts = true;
        Ok(Some(vec![Flawed { finding, hurts }]))
    }

    /// Puts a segment again if that is wanted and can be done.
    async fn mend(&self, layers: &Layers, info: &Arc<SegmentInfo>) -> Outcome<Attempt> {
        match &self.spare {
            Some(spare) => Ok(mend(&layers.data, info, spare).await?),
            None => Ok(Attempt::Ended(Mended::NoTable)),
        }
    }

    /// Notes what is wrong with a segment, and which blocks are lost by it.
    fn note(&mut self, segment: SegmentId, flaw: Flawed, mended: &Mended) {
        let Flawed { finding, hurts } = flaw;
        let slot = finding.block;
        let n = self.found(finding);
        match (slot, mended) {
            (None, _) if !hurts => {}
            (None, Mended::Lost(slots)) => {
                for slot in slots {
                    self.lost.note(segment, Some(*slot), n);
                }
            }
            _ => self.lost.note(segment, slot, n),
        }
    }
}

/// What is wrong with a segment or one of its blocks.
struct Flawed {
    finding: Finding,
    /// Whether contents cannot be read because of it.
    hurts: bool,
}

impl Flawed {
    /// Says why it was not put again.
    fn stays(&mut self, error: &DataError) {
        let what = &self.finding.what;
        self.finding.what = format!("{what}; it cannot be put again: {error}");
    }
}

fn wrong_length(name: &ObjectName, info: &SegmentInfo, len: u64) -> Finding {
    let written = info.object_len;
    let what = format!("is {len} bytes long, but was written with {written}");
    Finding::new(Kind::SegmentDamaged, name, what)
        .differing(format!("{written} bytes"), format!("{len} bytes"))
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
