//! `apply` is total: whatever operations come, in whatever order, the invariants of the state hold after each one,
//! and the same operations give the same rows.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use skrin_base::limits::BLOCK_LEN;
use skrin_base::{
    Content, DeviceId, EntryId, Extent, Ino, KeyId, Name, OpId, SegmentId, Stored, Timestamp,
};
use skrin_meta::check::{Finding, check};
use skrin_meta::{
    Attributes, Body, Kind, MemoryRows, NamedKey, NewNode, Op, OpKind, Outcome, Place, Seen,
    SlotRun, VersionRun, apply, state,
};

use std::collections::BTreeMap;

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
        self.next() % n
    }
    fn pick<T: Clone>(&mut self, items: &[T]) -> Option<T> {
        (!items.is_empty()).then(|| items[self.below(items.len() as u64) as usize].clone())
    }
}

fn relocation(rng: &mut Rng) -> OpKind {
    let (mut first, mut runs) = (0, Vec::new());
    for _ in 0..=rng.below(3) {
        let run = SlotRun {
            first: first + rng.below(5) as u32,
            count: 1 + rng.below(5) as u32,
            at: rng.below(1000) as u32,
        };
        first = run.first + run.count;
        runs.push(run);
    }
    OpKind::Relocate {
        segment: SegmentId([rng.below(2) as u8; 16]),
        host: SegmentId([2 + rng.below(3) as u8; 16]),
        table_slot: rng.below(1000) as u32,
        runs,
    }
}

/// What some device has seen at some time: places and inodes, of which many are stale.
#[derive(Default)]
struct World {
    places: Vec<(Place, Ino, OpId)>,
    dirs: Vec<Ino>,
    counters: [u64; 3],
}

impl World {
    fn name(rng: &mut Rng) -> Name {
        Name::new(format!("n{}", rng.below(6)).as_bytes()).unwrap()
    }

    fn place(&self, rng: &mut Rng) -> Place {
        let dir = rng
            .pick(&self.dirs)
            .filter(|_| rng.below(4) > 0)
            .unwrap_or(Ino::ROOT);
        Place {
            dir,
            name: Self::name(rng),
            entry: EntryId(((rng.next() as u128) << 64).to_be_bytes()),
        }
    }

    fn op(&mut self, rng: &mut Rng) -> Op {
        let device = rng.below(3) as usize;
        self.counters[device] += 1;
        let id = OpId {
            device: DeviceId([device as u8 + 1; 16]),
            counter: self.counters[device],
        };
        let kind = self.kind(rng, id);
        Op {
            id,
            time: Timestamp(1_795_267_200_000_000_000 + id.counter as i64),
            kind,
        }
    }

    fn kind(&mut self, rng: &mut Rng, id: OpId) -> OpKind {
        let known = rng.pick(&self.places);
        match (rng.below(14), known) {
            (13, _) => OpKind::ForgetVersions {
                runs: vec![VersionRun {
                    device: id.device,
                    first: rng.below(id.counter),
                    last: id.counter,
                }],
            },
            (12, _) => relocation(rng),
            (0..=2, _) | (_, None) => self.create(rng, id),
            (3, Some((_, ino, _))) => {
                let place = self.place(rng);
                self.places.push((place.clone(), ino, id));
                OpKind::Link { ino, place }
            }
            (4 | 5, Some((place, ino, version))) => OpKind::Remove {
                place,
                ino,
                version,
            },
            (6 | 7, Some((from, ino, version))) => {
                let to = self.place(rng);
                let replaces = rng.pick(&self.places).filter(|_| rng.below(2) == 0).map(
                    |(p, ino, version)| {
                        (
                            p,
                            Seen {
                                entry: from.entry,
                                ino,
                                version,
                            },
                        )
                    },
                );
                let (to_dir, to_name) = match &replaces {
                    Some((p, _)) => (p.dir, p.name.clone()),
                    None => (to.dir, to.name),
                };
                let replaces = replaces.map(|(p, seen)| Seen {
                    entry: p.entry,
                    ..seen
                });
                self.places.push((
                    Place {
                        dir: to_dir,
                        name: to_name.clone(),
                        entry: from.entry,
                    },
                    ino,
                    version,
                ));
                OpKind::Rename {
                    ino,
                    from,
                    to_dir,
                    to_name,
                    replaces,
                }
            }
            (8, Some((a, ino, version))) => match (rng.below(4), rng.pick(&self.places)) {
                (0, _) => OpKind::Snapshot {
                    name: Self::name(rng),
                },
                (1, _) => OpKind::ForgetSnapshot {
                    name: Self::name(rng),
                    snapshot: version,
                },
                (_, Some((b, other, _))) => OpKind::Exchange { ino, a, other, b },
                (_, None) => OpKind::Label {
                    label: "anna-laptop".into(),
                },
            },
            (9 | 10, Some((place, ino, base))) => self.write(rng, id, place, ino, base),
            (_, Some((_, ino, _))) => match rng.below(3) {
                0 => OpKind::SetXattr {
                    ino,
                    name: b"user.a".to_vec(),
                    value: vec![1; 9],
                },
                1 => OpKind::RemoveXattr {
                    ino,
                    name: b"user.a".to_vec(),
                },
                _ => OpKind::SetAttr {
                    ino,
                    mode: Some(0o700),
                    uid: None,
                    gid: None,
                    atime: None,
                    mtime: None,
                },
            },
        }
    }

    fn create(&mut self, rng: &mut Rng, id: OpId) -> OpKind {
        let place = self.place(rng);
        let kind = if rng.below(2) == 0 {
            Kind::Dir
        } else {
            Kind::File
        };
        let ino = Ino::from_random(rng.below(40) + 16);
        if kind == Kind::Dir {
            self.dirs.push(ino);
        }
        self.places.push((place.clone(), ino, id));
        let node = NewNode {
            kind,
            mode: 0o755,
            uid: 0,
            gid: 0,
            rdev: 0,
            target: Vec::new(),
        };
        OpKind::Create { place, ino, node }
    }

    fn write(&mut self, rng: &mut Rng, id: OpId, place: Place, ino: Ino, base: OpId) -> OpKind {
        let key = NamedKey {
            id: KeyId([7; 16]),
            key: [7; 32],
        };
        let (size, body) = if rng.below(3) == 0 {
            (5, Body::Inline(b"hello".to_vec()))
        } else {
            let blocks = 1 + rng.below(6) as u32;
            let content = match rng.below(3) {
                0 => Content::Hole,
                _ => Content::Stored(Stored {
                    segment: SegmentId([rng.below(3) as u8; 16]),
                    first_slot: rng.below(9) as u32,
                    key: key.id,
                    origin_file: ino,
                    origin_block: 0,
                }),
            };
            let whole = Extent {
                first_block: 0,
                count: blocks,
                content,
            };
            let full = rng.below(2) == 0;
            let from = if full {
                0
            } else {
                rng.below(u64::from(blocks))
            };
            let list = whole.clip(from, u64::MAX).into_iter().collect();
            (
                u64::from(blocks) * BLOCK_LEN as u64 - rng.below(9),
                Body::Extents { full, list },
            )
        };
        self.places.push((place.clone(), ino, id));
        OpKind::Write {
            ino,
            base,
            size,
            mtime: Timestamp(3),
            keys: vec![key],
            body,
            place,
            attributes: Attributes {
                mode: 0o640,
                uid: 1000,
                gid: 1000,
                btime: Timestamp(2),
                xattrs: vec![(b"user.a".to_vec(), b"b".to_vec())],
            },
        }
    }
}

/// A delta that its device could not have made (it starts beyond the end of what it names) may leave lost blocks, never missing ones.
fn sound(rows: &MemoryRows) -> Vec<Finding> {
    let findings = check(rows, false).unwrap();
    findings
        .into_iter()
        .filter(|f| !matches!(f, Finding::Lost { .. }))
        .collect()
}

#[test]
fn invariants_hold_after_every_operation_of_random_programs() {
    for seed in 0..150 {
        let (mut rng, mut world, mut rows) = (Rng(seed), World::default(), MemoryRows::default());
        for step in 0..120 {
            let op = world.op(&mut rng);
            let outcome = apply(&mut rows, &op).unwrap();
            let findings = sound(&rows);
            assert!(
                findings.is_empty(),
                "seed {seed} step {step}: {op:?} {outcome:?} {findings:?}"
            );
        }
    }
}

#[test]
fn the_same_operations_in_the_same_order_make_the_same_rows() {
    let run = |repeat: bool| {
        let (mut rng, mut world, mut rows) = (Rng(99), World::default(), MemoryRows::default());
        for _ in 0..2_000 {
            let op = world.op(&mut rng);
            apply(&mut rows, &op).unwrap();
            if repeat {
                assert_eq!(apply(&mut rows, &op).unwrap(), Outcome::Duplicate);
            }
        }
        rows
    };
    assert!(
        run(false) == run(true),
        "an operation counts once, however often it comes"
    );
}

#[test]
fn of_each_slot_the_last_relocation_counts_and_nothing_else_changes() {
    let mut rng = Rng(13);
    for _ in 0..200 {
        let (mut rows, mut model) = (MemoryRows::default(), BTreeMap::new());
        for counter in 1..30 {
            let device = DeviceId([1; 16]);
            let op = Op {
                id: OpId { device, counter },
                time: Timestamp(0),
                kind: relocation(&mut rng),
            };
            let outcome = apply(&mut rows, &op).unwrap();
            assert_eq!(outcome, Outcome::Applied);
            let OpKind::Relocate {
                segment,
                host,
                table_slot,
                runs,
            } = op.kind
            else {
                panic!("a relocation");
            };
            for run in runs {
                for n in 0..run.count {
                    let slot = (segment, run.first + n);
                    model.insert(slot, (host, run.at + n, table_slot));
                }
            }
            let mut found = BTreeMap::new();
            state::for_each_copied_run(&rows, |segment, run| {
                for n in 0..run.count {
                    let slot = (segment, run.first_slot + n);
                    found.insert(slot, (run.host, run.host_slot + n, run.table_slot));
                }
                Ok(())
            })
            .unwrap();
            assert_eq!(found, model);
            assert_eq!(sound(&rows), []);
            assert!(rows.0.keys().all(|key| matches!(key[0], b'M' | b'O')));
        }
    }
}

#[test]
fn a_relocation_that_makes_no_sense_is_refused() {
    use skrin_base::wire::{Decode, Encode};
    let run = |first, count, at| SlotRun { first, count, at };
    let refused = |segment: u8, table_slot, runs: &[SlotRun]| {
        let kind = OpKind::Relocate {
            segment: SegmentId([segment; 16]),
            host: SegmentId([2; 16]),
            table_slot,
            runs: runs.to_vec(),
        };
        OpKind::from_bytes(&kind.to_bytes()).is_err()
    };
    assert!(!refused(1, 65_535, &[run(0, 2, 9), run(2, 1, 0)]));
    assert!(!refused(1, 0, &[run(2_047, 1, 65_535)]));
    assert!(refused(2, 0, &[run(0, 1, 0)]), "in itself");
    assert!(refused(1, 65_536, &[run(0, 1, 0)]), "a table out of bounds");
    assert!(refused(1, 0, &[]), "nothing");
    for runs in [
        [run(0, 2, 9), run(1, 1, 0)],
        [run(5, 1, 9), run(1, 1, 0)],
        [run(0, 0, 9), run(1, 1, 0)],
        [run(0, 1, 9), run(2_047, 2, 0)],
        [run(0, 1, 9), run(1, 2, 65_535)],
        [run(0, 1, 9), run(u32::MAX, u32::MAX, 1)],
    ] {
        assert!(refused(1, 0, &runs), "{runs:?}");
    }
}

#[test]
fn operations_survive_their_encoding() {
    use skrin_base::wire::{Decode, Encode};
    let (mut rng, mut world) = (Rng(5), World::default());
    for _ in 0..2_000 {
        let op = world.op(&mut rng);
        let bytes = op.to_bytes();
        assert_eq!(Op::from_bytes(&bytes).unwrap(), op);
        let cut = rng.below(bytes.len() as u64) as usize;
        assert!(
            Op::from_bytes(&bytes[..cut]).is_err(),
            "a cut encoding is refused"
        );
    }
}

#[test]
fn folded_counters_stay_one_range_for_a_device_that_counts_in_order() {
    let mut rows = MemoryRows::default();
    for counter in [1u64, 2, 3, 7, 6, 5, 4] {
        let id = OpId {
            device: DeviceId([9; 16]),
            counter,
        };
        let op = Op {
            id,
            time: Timestamp(0),
            kind: OpKind::Label { label: "x".into() },
        };
        assert_eq!(apply(&mut rows, &op).unwrap(), Outcome::Applied);
        assert_eq!(apply(&mut rows, &op).unwrap(), Outcome::Duplicate);
    }
    assert_eq!(state::last_counter(&rows, DeviceId([9; 16])).unwrap(), 7);
    let folded = rows.0.iter().find(|(k, _)| k[0] == b'O').unwrap().1;
    assert_eq!(folded.len(), 4 + 16, "one range");
}

#[test]
fn regression_a_directory_made_again_under_a_number_in_use_makes_no_alias() {
    let mut rows = MemoryRows::default();
    let made = [
        (Ino::ROOT, "a", 1, 2000),
        (Ino(2000), "b", 2, 2000),
        (Ino::ROOT, "a", 3, 1),
        (Ino(2001), "c", 4, 2001),
        (Ino::ROOT, "a", 5, 2000),
        (Ino::ROOT, "a", 6, 2),
    ];
    for (dir, name, counter, ino) in made {
        let op = Op {
            id: OpId {
                device: DeviceId([1; 16]),
                counter,
            },
            time: Timestamp(0),
            kind: OpKind::Create {
                place: Place {
                    dir,
                    name: Name::new(name.as_bytes()).unwrap(),
                    entry: EntryId([counter as u8; 16]),
                },
                ino: Ino(ino),
                node: NewNode {
                    kind: Kind::Dir,
                    mode: 0o755,
                    uid: 0,
                    gid: 0,
                    rdev: 0,
                    target: Vec::new(),
                },
            },
        };
        apply(&mut rows, &op).unwrap();
        assert_eq!(sound(&rows), Vec::new(), "after operation {counter}");
    }
    assert_eq!(
        state::resolve_alias(&rows, Ino::ROOT).unwrap(),
        Ino::ROOT,
        "the root stays the root"
    );
}
