//! Large files that several devices change without knowing of each other: what a version held is the same everywhere and for ever, however
//! little of it its operation told, and no version that nobody replaced or removed is lost.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

use skrin_base::limits::BLOCK_LEN;
use skrin_base::{
    Content, DeviceId, EntryId, Extent, Ino, KeyId, Name, OpId, SegmentId, Stored, Timestamp,
};
use skrin_meta::check::check;
use skrin_meta::{
    Attributes, Body, Kind, MemoryRows, NamedKey, NewNode, Op, OpKind, Outcome, Place, Seen,
    VersionRun, apply, state,
};
use std::collections::{BTreeMap, BTreeSet};

const BLOCK: u64 = BLOCK_LEN as u64;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

/// A block as a program sees it: a hole, or the only one that was ever sealed with that number.
type Block = Option<u128>;

struct Device {
    id: DeviceId,
    counter: u64,
    /// The tree as it sees it.
    rows: MemoryRows,
    /// How much of the log it has seen.
    seen: usize,
    /// What it did and did not publish.
    pending: Vec<Op>,
}

/// What all have published, in the order in which it is folded.
struct World {
    rng: Rng,
    devices: Vec<Device>,
    log: Vec<Op>,
    /// What each version held when it was made.
    held: BTreeMap<OpId, Vec<Block>>,
    /// How many operations told only a part.
    parts: usize,
    /// How many versions were forgotten.
    forgotten: usize,
}

fn device(n: u8) -> Device {
    Device {
        id: DeviceId([n; 16]),
        counter: 0,
        rows: MemoryRows::default(),
        seen: 0,
        pending: Vec::new(),
    }
}

fn blocks_of(rows: &MemoryRows, ino: Ino) -> Vec<Block> {
    let mut out = Vec::new();
    for extent in state::extents(rows, ino, 0, u64::MAX).unwrap() {
        for block in extent.first_block..extent.end() {
            assert_eq!(block, out.len() as u64, "no gap");
            out.push(match extent.clip(block, block + 1).unwrap().content {
                Content::Hole => None,
                Content::Lost => Some(u128::MAX),
                Content::Stored(at) => {
                    Some(u128::from_be_bytes(at.segment.0) << 16 | u128::from(at.first_slot))
                }
            });
        }
    }
    out
}

impl World {
    fn new(seed: u64, devices: u8) -> Self {
        Self {
            rng: Rng(seed),
            devices: (1..=devices).map(device).collect(),
            log: Vec::new(),
            held: BTreeMap::new(),
            parts: 0,
            forgotten: 0,
        }
    }

    fn act(&mut self, at: usize, kind: OpKind) -> OpId {
        let device = &mut self.devices[at];
        device.counter += 1;
        let id = OpId {
            device: device.id,
            counter: device.counter,
        };
        let time = Timestamp(1_790_000_000_000_000_000 + device.counter as i64);
        let op = Op { id, time, kind };
        assert_eq!(apply(&mut device.rows, &op).unwrap(), Outcome::Applied);
        device.pending.push(op);
        id
    }

    fn fresh(&mut self) -> u64 {
        (self.rng.next() >> 2) + 100
    }

    fn files(&self, at: usize) -> Vec<(Place, Ino, state::Inode)> {
        let rows = &self.devices[at].rows;
        let mut all = Vec::new();
        state::for_each_entry(rows, |dir, name, entry| {
            let entry_id = entry.id;
            let place = Place {
                dir,
                name,
                entry: entry_id,
            };
            all.push((place, entry.ino, state::inode(rows, entry.ino)?.unwrap()));
            Ok(())
        })
        .unwrap();
        all
    }

    fn key(&self, at: usize) -> NamedKey {
        let device = self.devices[at].id;
        NamedKey {
            id: KeyId(device.0),
            key: [device.0[0]; 32],
        }
    }

    /// New blocks from `first` on, as a segment holds them.
    fn sealed(&mut self, at: usize, ino: Ino, first: u64, count: u64) -> Extent {
        let segment = u128::from(self.rng.next());
        Extent {
            first_block: first,
            count: count as u32,
            content: Content::Stored(Stored {
                segment: SegmentId(segment.to_be_bytes()),
                first_slot: 0,
                key: self.key(at).id,
                origin_file: ino,
                origin_block: first,
            }),
        }
    }

    fn make(&mut self, at: usize, name: &str) -> (Place, Ino, state::Inode) {
        let place = Place {
            dir: Ino::ROOT,
            name: Name::new(name.as_bytes()).unwrap(),
            entry: EntryId(u128::from(self.fresh()).to_be_bytes()),
        };
        let ino = Ino(self.fresh());
        let node = NewNode {
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            rdev: 0,
            target: Vec::new(),
        };
        self.act(
            at,
            OpKind::Create {
                place: place.clone(),
                ino,
                node,
            },
        );
        let inode = state::inode(&self.devices[at].rows, ino).unwrap().unwrap();
        (place, ino, inode)
    }

    /// Tells new contents as the file system does: the whole file, if the version from which they start will not be remembered.
    fn write(
        &mut self,
        at: usize,
        (place, ino, inode): &(Place, Ino, state::Inode),
        size: u64,
        changed: &[Extent],
    ) {
        let rows = &self.devices[at].rows;
        let blocks = size.div_ceil(BLOCK);
        let mut now = blocks_of(rows, *ino);
        now.resize(blocks as usize, None);
        let mut scratch = MemoryRows(rows.0.clone());
        let mut list = changed.to_vec();
        let known = inode.size.div_ceil(BLOCK);
        if blocks > known {
            // What is between the old end and the new one is told, too.
            let between = Extent {
                first_block: known,
                count: (blocks - known) as u32,
                content: Content::Hole,
            };
            let free = changed.iter().map(|e| e.first_block).min();
            list.extend(between.clip(0, free.unwrap_or(u64::MAX)));
            list.sort_by_key(|e| e.first_block);
        }
        for extent in &list {
            for block in extent.first_block..extent.end() {
                let Content::Stored(stored) = extent.clip(block, block + 1).unwrap().content else {
                    continue;
                };
                let number = u128::from_be_bytes(stored.segment.0) << 16;
                now[block as usize] = Some(number | u128::from(stored.first_slot));
            }
        }
        let part = state::may_tell_part(rows, *ino, inode.version).unwrap();
        let keys = vec![self.key(at)];
        let kind = |full: bool, list: Vec<Extent>, keys: Vec<NamedKey>| OpKind::Write {
            ino: *ino,
            base: inode.version,
            size,
            mtime: Timestamp(3),
            keys,
            body: Body::Extents { full, list },
            place: place.clone(),
            attributes: Attributes {
                mode: inode.mode,
                uid: inode.uid,
                gid: inode.gid,
                btime: inode.btime,
                xattrs: Vec::new(),
            },
        };
        let id = if part {
            self.parts += 1;
            self.act(at, kind(false, list, keys))
        } else {
            // Lets the state lay the change over what is there.
            let id = OpId {
                device: DeviceId([99; 16]),
                counter: 1,
            };
            let op = Op {
                id,
                time: Timestamp(0),
                kind: kind(false, list, keys),
            };
            apply(&mut scratch, &op).unwrap();
            let list = state::extents(&scratch, *ino, 0, u64::MAX).unwrap();
            let inode = state::inode(&scratch, *ino).unwrap().unwrap();
            self.act(at, kind(true, list, inode.keys))
        };
        self.held.insert(id, now);
    }

    /// Single blocks all over a file, in order.
    fn scattered(&mut self, at: usize, ino: Ino, blocks: u64, n: u64) -> Vec<Extent> {
        let chosen: BTreeSet<u64> = (0..n).map(|_| self.rng.below(blocks)).collect();
        let chosen: Vec<u64> = chosen.into_iter().filter(|b| *b < blocks).collect();
        chosen
            .into_iter()
            .map(|b| self.sealed(at, ino, b, 1))
            .collect()
    }

    fn put(&mut self, at: usize) -> (Place, Ino) {
        let name = format!("{at}-{}", self.devices[at].counter);
        let file = self.make(at, &name);
        let n = 1 + self.rng.below(500);
        let mut changed = Vec::new();
        for i in 0..n {
            changed.push(self.sealed(at, file.1, i * 2, 1 + i % 2));
            changed.extend((i % 2 == 0).then_some(Extent {
                first_block: i * 2 + 1,
                count: 1,
                content: Content::Hole,
            }));
        }
        let end = changed.last().unwrap().end();
        self.write(at, &file, end * BLOCK, &changed);
        (file.0, file.1)
    }

    fn do_something(&mut self, at: usize) {
        let files = self.files(at);
        let pick = self.rng.below(files.len() as u64) as usize;
        let Some(file) = files.get(pick).cloned() else {
            self.put(at);
            return;
        };
        let (place, ino, inode) = &file;
        let blocks = inode.size.div_ceil(BLOCK);
        match self.rng.below(12) {
            0..=5 => {
                let n = 1 + self.rng.below(40);
                let changed = self.scattered(at, *ino, blocks, n);
                self.write(at, &file, inode.size, &changed);
            }
            6 => {
                let blocks = 1 + self.rng.below(blocks);
                self.write(at, &file, blocks * BLOCK, &[]);
            }
            7 => {
                let end = blocks + 3 + self.rng.below(9);
                let last = self.sealed(at, *ino, end - 1, 1);
                self.write(at, &file, end * BLOCK, &[last]);
            }
            8 => {
                // All of it anew, in one piece.
                let whole = self.sealed(at, *ino, 0, blocks.max(1));
                self.write(at, &file, blocks.max(1) * BLOCK, &[whole]);
            }
            9 => {
                self.act(
                    at,
                    OpKind::Remove {
                        place: place.clone(),
                        ino: *ino,
                        version: inode.version,
                    },
                );
            }
            10 => {
                let (from, saved) = self.put(at);
                self.act(
                    at,
                    OpKind::Rename {
                        ino: saved,
                        from,
                        to_dir: place.dir,
                        to_name: place.name.clone(),
                        replaces: Some(Seen {
                            entry: place.entry,
                            ino: *ino,
                            version: inode.version,
                        }),
                    },
                );
            }
            _ => {
                self.put(at);
            }
        }
    }

    /// Publishes what a device did, at any place behind what it had seen, as a commit that arrives late is slotted in; then it, and whoever
    /// is asked, takes in what there is.
    fn publish(&mut self, at: usize, late: bool) {
        let device = &mut self.devices[at];
        let room = (self.log.len() - device.seen) as u64;
        let place = match late {
            true => device.seen + self.rng.below(room + 1) as usize,
            false => self.log.len(),
        };
        let ops = std::mem::take(&mut device.pending);
        let count = ops.len();
        self.log.splice(place..place, ops);
        // What others saw does not end where it did.
        for device in &mut self.devices {
            if device.seen > place {
                device.seen += count;
            }
        }
        self.pull(at);
    }

    fn pull(&mut self, at: usize) {
        let mut rows = MemoryRows::default();
        let device = &mut self.devices[at];
        for op in self.log.iter().chain(&device.pending) {
            apply(&mut rows, op).unwrap();
        }
        device.rows = rows;
        device.seen = self.log.len();
    }

    /// What nobody has replaced or removed.
    fn leaves(&self) -> BTreeSet<OpId> {
        let mut leaves: BTreeSet<OpId> = self.held.keys().copied().collect();
        for op in &self.log {
            match &op.kind {
                OpKind::Write { base: version, .. } | OpKind::Remove { version, .. } => {
                    leaves.remove(version);
                }
                OpKind::Rename {
                    replaces: Some(seen),
                    ..
                } => {
                    leaves.remove(&seen.version);
                }
                _ => {}
            }
        }
        leaves
    }

    fn judge(&self, seed: u64) {
        let rows = &self.devices[0].rows;
        let findings = check(rows, false).unwrap();
        let first = findings.first();
        assert_eq!(first, None, "seed {seed}: {} findings", findings.len());
        let mut versions = BTreeSet::new();
        state::for_each_inode(rows, |ino, inode| {
            if let Some(held) = self.held.get(&inode.version) {
                let blocks = blocks_of(rows, ino);
                assert!(blocks == *held, "seed {seed}: version {:?}", inode.version);
                assert_eq!(inode.mode, 0o644, "seed {seed}");
            }
            versions.insert(inode.version);
            Ok(())
        })
        .unwrap();
        let lost: Vec<OpId> = self.leaves().difference(&versions).copied().collect();
        assert!(lost.is_empty(), "seed {seed}: {lost:?}");
    }
}

/// Everybody knows everything and starts from nothing older: what was followed by another version need not be remembered.
fn forget(world: &mut World) {
    for at in (0..world.devices.len()).chain(0..world.devices.len()) {
        world.publish(at, false);
    }
    let remembered = |world: &World| {
        let mut runs = Vec::new();
        state::for_each_remembered(&world.devices[0].rows, |version| {
            let OpId { device, counter } = version;
            let (first, last) = (counter, counter);
            runs.push(VersionRun {
                device,
                first,
                last,
            });
            Ok(())
        })
        .unwrap();
        runs
    };
    let runs = remembered(world);
    world.forgotten += runs.len();
    world.act(0, OpKind::ForgetVersions { runs });
    assert_eq!(remembered(world), []);
    world.publish(0, false);
}

fn run(seed: u64) -> World {
    let mut world = World::new(seed, 2 + (seed % 2) as u8);
    world.put(0);
    world.publish(0, false);
    for at in 0..world.devices.len() {
        world.pull(at);
    }
    let late = seed.is_multiple_of(3);
    for step in 0..60 {
        if step == 30 && seed % 4 < 2 {
            forget(&mut world);
        }
        let at = world.rng.below(world.devices.len() as u64) as usize;
        match world.rng.below(8) {
            0 => world.publish(at, late),
            1 => world.pull(at),
            _ => world.do_something(at),
        }
    }
    for at in 0..world.devices.len() {
        world.publish(at, late);
    }
    world.pull(0);
    world.judge(seed);
    world
}

#[test]
fn a_version_holds_what_its_device_saw_whatever_others_did_meanwhile() {
    let seeds = std::env::var("SKRIN_SEEDS");
    let seeds = seeds.ok().map_or(40, |n| n.parse().unwrap());
    let worlds = (0..seeds).map(run);
    let counts = worlds.map(|world| (world.parts, world.forgotten));
    let (parts, forgotten) = counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert!(parts > 100, "only {parts} told a part");
    assert!(forgotten > 50, "only {forgotten} were forgotten");
}
