//! What must be true in the end, whatever happened.

use crate::body::Image;
use crate::cloud::Weather;
use crate::model::Tree;
use crate::sut;
use crate::world::{Machine, World};
use skrin_base::{Content, CopiedRun, Copies, SegmentId, SegmentInfo};
use skrin_crypto::FileKey;
use skrin_data::BlockRef;
use skrin_data::store::BlockRead;
use skrin_meta::replica::FindingKind;
use skrin_meta::usage::Usage;
use skrin_meta::{check, state};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The device that only reads, and is new.
const READER: usize = 11;

fn is_handled(kind: FindingKind) -> bool {
    matches!(
        kind,
        FindingKind::Restored | FindingKind::Refuted | FindingKind::CutOff
    )
}

impl World {
    /// Looks at everything on the storage, and at it with the eyes of a new device that has nothing but the keys.
    pub(crate) fn judge(&self, scene: &str, machine: &mut Machine, tree: &Tree) {
        let broken = self.cloud.broken.lock().clone();
        if !broken.is_empty() {
            self.fail(scene, format!("against the rules: {broken:?}"));
        }
        self.fsck(scene, machine);
        let reader = self.start(READER, &Image::default(), Weather::FAIR, true);
        let reader = match reader {
            Ok(reader) => reader,
            Err(error) => self.fail(scene, format!("a new device does not start: {error}")),
        };
        let seen = sut::tree(&reader.fs).0;
        if seen != *tree {
            let difference = sut::difference(&seen, tree);
            self.fail(
                scene,
                format!("a new device sees something else:\n{difference}"),
            );
        }
        self.trace.note(format!("judged {}", seen.len()));
    }

    /// The tree of a device that runs, at any moment: of what it has not published yet no segment is declared.
    pub(crate) fn check_tree(&self, scene: &str, machine: &Machine) {
        if !machine.is_alive() {
            return;
        }
        let findings = {
            let tree = machine.replica.tree();
            // One that is to be folded again is not looked at by anybody before.
            if !tree.is_whole() {
                return;
            }
            check::check(&tree, false)
        };
        match findings {
            Ok(none) if none.is_empty() => self.trace.count(|c| c.checks += 1),
            other => {
                let device = machine.body.device;
                self.fail(scene, format!("the tree of device {device}: {other:?}"))
            }
        }
    }

    /// What is looked at in the end, by somebody new, while all agree. He takes no time and draws nothing of anybody else's chance: the
    /// world goes on as if nobody had looked.
    pub(crate) fn look_on(&self, scene: &str) {
        // He knows all control records of today, and whoever comes after him all of then.
        self.people.borrow_mut().told.remove(&READER);
        let reader = match self.start(READER, &Image::default(), Weather::STILL, true) {
            Ok(reader) => reader,
            Err(error) => self.fail(scene, format!("somebody new does not start: {error}")),
        };
        self.verify(scene, &reader);
        self.check_segments(scene, &reader);
        self.people.borrow_mut().told.remove(&READER);
        self.trace.event("looked on", "");
    }

    fn fsck(&self, scene: &str, machine: &Machine) {
        if let Err(error) = machine.fs.poll() {
            self.fail(scene, format!("polling at the end: {error}"));
        }
        self.verify(scene, machine);
        let findings = machine.replica.status().findings;
        // Told to people, and handled: a new lane; of two checkpoints that were proposed at once, one.
        let (handled, wrong): (Vec<_>, Vec<_>) =
            findings.into_iter().partition(|f| is_handled(f.kind));
        handled.iter().for_each(|f| {
            self.trace
                .event("told and handled", format!("{:?} {}", f.kind, f.object))
        });
        if !wrong.is_empty() {
            self.fail(scene, format!("findings: {wrong:?}"));
        }
        self.check_segments(scene, machine);
    }

    /// All metadata on the storage, and the tree of somebody who has published everything.
    fn verify(&self, scene: &str, machine: &Machine) {
        let report = match self.wait(machine.replica.verify(|_| ())) {
            Ok(report) => report,
            Err(error) => self.fail(scene, format!("verify: {error}")),
        };
        // Whoever put these in part is gone.
        let parts = self.cloud.parts.lock().clone();
        let problems = report.problems.iter();
        let wrong: Vec<_> = problems
            .filter(|p| !parts.iter().any(|name| name.as_str() == p.object))
            // Whoever died between a commit and its tip, and lost the disk, shows nobody where it is.
            .filter(|p| !p.text.contains("nothing else leads to its commit"))
            .collect();
        if !wrong.is_empty() {
            self.fail(scene, format!("verify found {wrong:#?}"));
        }
        let findings = check::check(&machine.replica.tree(), true);
        match findings {
            Ok(none) if none.is_empty() => {}
            other => self.fail(scene, format!("the tree: {other:?}")),
        }
    }

    /// Each declared segment, each block that a file names.
    fn check_segments(&self, scene: &str, machine: &Machine) {
        let mut infos = BTreeMap::new();
        let mut reads: BTreeMap<SegmentId, Vec<BlockRead>> = BTreeMap::new();
        {
            let tree = machine.replica.tree();
            let note = |info: SegmentInfo| {
                infos.insert(info.id, Arc::new(info));
                Ok(())
            };
            state::for_each_segment(&tree, note).unwrap();
            let visit = |ino, inode: state::Inode| {
                for extent in state::extents(&tree, ino, 0, u64::MAX)? {
                    let Content::Stored(stored) = &extent.content else {
                        continue;
                    };
                    let Some(key) = inode.key(stored.key) else {
                        continue;
                    };
                    let key = Arc::new(FileKey::from_bytes(key.key));
                    let blocks = (0..extent.count).map(|n| BlockRead {
                        at: BlockRef {
                            segment: stored.segment,
                            slot: stored.first_slot + n,
                        },
                        info: infos.get(&stored.segment).cloned(),
                        key_id: stored.key,
                        key: Arc::clone(&key),
                        origin_file: stored.origin_file,
                        origin_block: stored.origin_block + u64::from(n),
                    });
                    reads.entry(stored.segment).or_default().extend(blocks);
                }
                Ok(())
            };
            state::for_each_inode(&tree, visit).unwrap();
        }
        let usage = Usage::of(&machine.replica.tree()).unwrap();
        for (id, info) in &infos {
            // What nobody needs any more may be gone, and what was relocated is looked for where it lies.
            let located = usage.located(*id).into_iter().map(|located| located.run);
            let (here, elsewhere): (Vec<_>, Vec<_>) = located.partition(|run| run.host == *id);
            self.check_relocated(scene, machine, info, (elsewhere, &infos));
            let is_here = |read: &BlockRead| {
                here.iter()
                    .any(|run| (run.first_slot..run.end()).contains(&read.at.slot))
            };
            let mut reads = reads.remove(id).unwrap_or_default();
            reads.retain(is_here);
            if reads.is_empty() {
                continue;
            }
            let info = Arc::clone(info);
            let verified = self.wait(machine.data.verify_segment(info, reads));
            match verified {
                Ok(good) if good.flaws.is_empty() => {}
                Ok(bad) => self.fail(scene, format!("segment {id}: {:?}", bad.flaws)),
                Err(error) => self.fail(scene, format!("segment {id}: {error}")),
            }
        }
    }

    /// Each block of a segment that a file names and that lies in another one.
    fn check_relocated(
        &self,
        scene: &str,
        machine: &Machine,
        info: &Arc<SegmentInfo>,
        (runs, infos): (Vec<CopiedRun>, &BTreeMap<SegmentId, Arc<SegmentInfo>>),
    ) {
        if runs.is_empty() {
            return;
        }
        let hosts = runs.iter().filter_map(|run| infos.get(&run.host));
        let copies = Copies {
            hosts: hosts.map(|host| (host.id, Arc::clone(host))).collect(),
            runs,
        };
        let checked = machine.data.check_copies(Arc::clone(info), copies);
        match self.wait(checked) {
            Ok(count) => self.trace.event("relocated blocks read", count.to_string()),
            Err(error) => self.fail(scene, format!("relocated blocks of {}: {error}", info.id)),
        }
    }
}
