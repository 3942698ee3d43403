//! Operations of every kind, programs of them, and commits.

use super::base::{extent, name, segment_info};
use super::choose;
use crate::targets::crypto::VAULT;
use crate::targets::meta::{DEVICE, EPOCH, world};
use crate::targets::vault::ROOM;
use skrin_base::ids::{DeviceId, EntryId, Hash32, KeyId, LaneId, SegmentId};
use skrin_base::wire::{Encode, Writer};
use skrin_base::{Ino, OpId, Timestamp};
use skrin_meta::checkpoint::{CoveredLane, PageRef, Paginator, Root};
use skrin_meta::commit::{CheckpointRef, Commit, Decided, Opinion, Verdict};
use skrin_meta::heads::{Heads, SeenHead};
use skrin_meta::lane::{Head, RoomNames};
use skrin_meta::order::OrderKey;
use skrin_meta::state::{Entry, Inode, Link};
use skrin_meta::{
    Attributes, Body, Kind, NamedKey, NewNode, Op, OpKind, Place, Seen, SlotRun, VersionRun,
};
use skrin_storage::{BadName, ObjectName};

const DIR: Ino = Ino(1000);
const FILE: Ino = Ino(1001);

fn place(dir: Ino, text: &str, entry: u8) -> Place {
    Place {
        dir,
        name: name(text),
        entry: EntryId([entry; 16]),
    }
}

fn node(kind: Kind) -> NewNode {
    let target = if kind == Kind::Symlink {
        b"../x".to_vec()
    } else {
        Vec::new()
    };
    NewNode {
        kind,
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        rdev: 0,
        target,
    }
}

fn create(dir: Ino, text: &str, ino: Ino, kind: Kind) -> OpKind {
    OpKind::Create {
        place: place(dir, text, ino.0 as u8),
        ino,
        node: node(kind),
    }
}

fn write(base: u64, size: u64, body: Body) -> OpKind {
    OpKind::Write {
        ino: FILE,
        base: version(base),
        size,
        mtime: Timestamp(5),
        keys: vec![NamedKey {
            id: KeyId([0x91; 16]),
            key: [1; 32],
        }],
        body,
        place: place(DIR, "file", FILE.0 as u8),
        attributes: Attributes {
            mode: 0o640,
            uid: 1000,
            gid: 1000,
            btime: Timestamp(2),
            xattrs: vec![(b"user.a".to_vec(), b"b".to_vec())],
        },
    }
}

fn version(counter: u64) -> OpId {
    OpId {
        device: DEVICE,
        counter,
    }
}

/// Operations of every kind in an order in which they all do something.
fn all_kinds() -> Vec<OpKind> {
    [made(), changed(), removed(), forgotten()].concat()
}

/// New entries, and contents.
fn made() -> Vec<OpKind> {
    vec![
        OpKind::Label {
            label: "laptop".to_owned(),
        },
        create(Ino::ROOT, "dir", DIR, Kind::Dir),
        create(DIR, "file", FILE, Kind::File),
        create(Ino::ROOT, "link", Ino(1002), Kind::Symlink),
        write(3, 5, Body::Inline(b"hello".to_vec())),
        write(
            5,
            8 * 65_536,
            Body::Extents {
                full: true,
                list: vec![extent(0), extent(4)],
            },
        ),
        write(
            6,
            7 * 65_536 + 1,
            Body::Extents {
                full: false,
                list: vec![extent(2)],
            },
        ),
    ]
}

/// Names and attributes.
fn changed() -> Vec<OpKind> {
    let file = || place(DIR, "file", FILE.0 as u8);
    let seen = Seen {
        entry: EntryId([9; 16]),
        ino: Ino(1002),
        version: version(4),
    };
    vec![
        OpKind::Link {
            ino: FILE,
            place: place(Ino::ROOT, "second", 77),
        },
        OpKind::SetXattr {
            ino: FILE,
            name: b"user.comment".to_vec(),
            value: b"x".to_vec(),
        },
        OpKind::SetAttr {
            ino: FILE,
            mode: Some(0o600),
            uid: None,
            gid: Some(7),
            atime: None,
            mtime: Some(Timestamp(3)),
        },
        OpKind::Exchange {
            ino: FILE,
            a: file(),
            other: Ino(1002),
            b: place(Ino::ROOT, "link", 1002u64 as u8),
        },
        OpKind::Rename {
            ino: FILE,
            from: file(),
            to_dir: Ino::ROOT,
            to_name: name("third"),
            replaces: Some(seen),
        },
        OpKind::RemoveXattr {
            ino: FILE,
            name: b"user.comment".to_vec(),
        },
    ]
}

/// A fork, and what is removed, with something new in it.
fn removed() -> Vec<OpKind> {
    vec![
        write(
            3,
            9 * 65_536,
            Body::Extents {
                full: false,
                list: vec![extent(5)],
            },
        ),
        OpKind::Remove {
            place: place(Ino::ROOT, "second", 77),
            ino: FILE,
            version: version(7),
        },
        create(Ino::ROOT, "dir", Ino(1003), Kind::Dir),
        OpKind::Remove {
            place: place(Ino::ROOT, "dir", DIR.0 as u8),
            ino: DIR,
            version: version(2),
        },
        create(DIR, "late", Ino(1004), Kind::File),
    ]
}

/// Snapshots, versions and copies, and what is not known.
fn forgotten() -> Vec<OpKind> {
    vec![
        OpKind::Snapshot {
            name: name("monday"),
        },
        OpKind::ForgetSnapshot {
            name: name("monday"),
            snapshot: version(2),
        },
        OpKind::ForgetVersions {
            runs: vec![VersionRun {
                device: DEVICE,
                first: 2,
                last: 4,
            }],
        },
        OpKind::Relocate {
            segment: SegmentId([3; 16]),
            host: SegmentId([4; 16]),
            table_slot: 1,
            runs: vec![
                SlotRun {
                    first: 2,
                    count: 3,
                    at: 9,
                },
                SlotRun {
                    first: 7,
                    count: 1,
                    at: 12,
                },
            ],
        },
        OpKind::Unknown {
            tag: 0x90,
            body: vec![1, 2],
        },
    ]
}

fn numbered() -> Vec<Op> {
    numbered_as(DEVICE, all_kinds())
}

fn numbered_as(device: DeviceId, kinds: Vec<OpKind>) -> Vec<Op> {
    let op = |(n, kind): (usize, OpKind)| Op {
        id: OpId {
            device,
            counter: n as u64 + 1,
        },
        time: Timestamp(1_790_000_000_000_000_000),
        kind,
    };
    kinds.into_iter().enumerate().map(op).collect()
}

fn in_commit(ops: &[Op]) -> Vec<u8> {
    let mut w = Writer::default();
    ops.iter()
        .for_each(|op| op.encode_in_commit(DEVICE, &mut w));
    w.into_bytes()
}

/// For `targets::meta::op`.
pub fn ops() -> Vec<Vec<u8>> {
    numbered()
        .iter()
        .flat_map(|op| [op.to_bytes(), in_commit(std::slice::from_ref(op))])
        .collect()
}

/// What a member who wants to break the tree would publish behind `all_kinds`: numbers that are taken, reserved or will be
/// invented, directories that become aliases of what they lie in, moves into themselves, one entry id twice.
fn hostile() -> Vec<OpKind> {
    let dir = |text, ino| create(Ino::ROOT, text, Ino(ino), Kind::Dir);
    let again = |dir, text, entry, ino| OpKind::Create {
        place: place(dir, text, entry),
        ino: Ino(ino),
        node: node(Kind::Dir),
    };
    let moved = |ino: u64, entry, to: u64, text: &str| OpKind::Rename {
        ino: Ino(ino),
        from: place(Ino::ROOT, "x", entry),
        to_dir: Ino(to),
        to_name: name(text),
        replaces: None,
    };
    let version = version(2);
    vec![
        dir("a", 2000),
        again(Ino(2000), "b", 1, 2001),
        create(Ino::ROOT, "f", Ino(2), Kind::File),
        moved(2000, 2000u64 as u8, 2001, "in itself"),
        again(Ino(2001), "c", 1, 2002),
        again(Ino(2000), "b", 2, 2000),
        again(Ino::ROOT, "a", 3, 1),
        again(Ino(2001), "c", 4, 2001),
        again(Ino::ROOT, "a", 5, 2000),
        OpKind::Link {
            ino: FILE,
            place: place(Ino(2002), "l", FILE.0 as u8),
        },
        moved(1, 0, 2001, "root"),
        OpKind::Exchange {
            ino: Ino(2000),
            a: place(Ino::ROOT, "a", 2000u64 as u8),
            other: Ino(2001),
            b: place(Ino(2000), "b", 1),
        },
        OpKind::Remove {
            place: place(Ino(2000), "b", 1),
            ino: Ino(2001),
            version,
        },
        again(Ino(2002), "d", 6, 2),
        create(Ino(2), "in lost+found", Ino(2010), Kind::File),
        OpKind::Remove {
            place: place(Ino::ROOT, "lost+found", 0),
            ino: Ino(2),
            version,
        },
        create(Ino(3000), "orphan", Ino(3001), Kind::File),
        again(Ino::ROOT, "lost+found", 7, 3002),
    ]
}

/// For `targets::meta::apply_program`.
pub fn programs() -> Vec<Vec<u8>> {
    let ops = numbered();
    let mut foreign = ops.clone();
    foreign
        .iter_mut()
        .for_each(|op| op.id.device = DeviceId([3; 16]));
    let both = [in_commit(&ops), in_commit(&foreign)].concat();
    let hostile = in_commit(&numbered_as(DeviceId([4; 16]), hostile()));
    let attacked = [in_commit(&ops), hostile.clone()].concat();
    vec![
        in_commit(&ops),
        in_commit(&foreign),
        both,
        in_commit(&ops[5..]),
        in_commit(&ops[..6]),
        hostile,
        attacked,
    ]
}

fn head(lane: u8, seq: u64) -> Head {
    Head {
        lane: LaneId([lane; 16]),
        seq,
        hash: Hash32([lane; 32]),
    }
}

/// A first commit of the world's device, with something in every field.
pub fn commit() -> Commit {
    let keys = &world().keys;
    let checkpoint = CheckpointRef {
        name: [1; 16],
        hash: Hash32([2; 32]),
        floor: 12,
    };
    let (_, commitment) = keys.current();
    let lane = keys.lane_id(DEVICE, 0);
    let own = Head {
        lane,
        seq: 0,
        hash: Hash32::default(),
    };
    let mut closes = vec![head(4, 6), own];
    closes.sort();
    Commit {
        optional: 1,
        vault: VAULT,
        room: ROOM,
        lane,
        incarnation: 0,
        seq: 0,
        prev: Hash32::default(),
        epoch: EPOCH,
        commitment,
        control: vec![Hash32([1; 32]), Hash32([2; 32])],
        device: DEVICE,
        lamport: 30,
        heads: vec![head(1, 4), head(1, 5), head(2, 0)],
        time: Timestamp(9),
        standing: Some(checkpoint),
        decided: Decided {
            below: 9,
            abandoned: vec![3, 8],
        },
        verdicts: vec![Verdict {
            opinion: Opinion::Refute,
            checkpoint,
            digest: Hash32([3; 32]),
        }],
        segments: vec![segment_info()],
        closes,
        ops: numbered(),
    }
}

/// For `targets::meta::commit_body` and `commit_object`.
pub fn commit_bodies() -> Vec<Vec<u8>> {
    let full = commit();
    let mut empty = commit();
    (empty.heads, empty.closes, empty.ops) = (Vec::new(), Vec::new(), Vec::new());
    (empty.segments, empty.verdicts, empty.standing) = (Vec::new(), Vec::new(), None);
    let mut foreign = commit();
    foreign.ops.truncate(2);
    foreign
        .ops
        .iter_mut()
        .for_each(|op| op.id.device = DeviceId([3; 16]));
    [full, empty, foreign]
        .iter()
        .map(Encode::to_bytes)
        .collect()
}

/// For `targets::meta::row`.
pub fn rows() -> Vec<Vec<u8>> {
    let mut file = Inode::new(&node(Kind::File), OpId::default(), Timestamp(1));
    file.links.push(Link {
        dir: DIR,
        name: name("file"),
        entry: EntryId([1; 16]),
    });
    file.keys.push(NamedKey {
        id: KeyId([1; 16]),
        key: [2; 32],
    });
    let entry = Entry {
        id: EntryId([1; 16]),
        ino: FILE,
        kind: Kind::Fifo,
    };
    let key = [&b"E"[..], &[0; 16], b"name"].concat();
    vec![
        choose(0, &file.to_bytes()),
        choose(0, &Inode::root().to_bytes()),
        choose(1, &entry.to_bytes()),
        choose(2, &segment_info().to_bytes()),
        choose(3, &frame()),
        choose(4, &key),
    ]
}

/// The undo of a program, in the encoding of the cache.
fn frame() -> Vec<u8> {
    let mut rows = skrin_meta::MemoryRows::default();
    let (first, second) = (numbered(), numbered());
    for op in first.iter().take(9) {
        let _ = skrin_meta::apply(&mut rows, op);
    }
    let mut recorder = skrin_meta::undo::Recorder::new(&mut rows);
    for op in second.iter().skip(9) {
        let _ = skrin_meta::apply(&mut recorder, op);
    }
    recorder.finish().to_bytes()
}

/// For `targets::meta::checkpoint_root`.
pub fn roots() -> Vec<Vec<u8>> {
    let keys = &world().keys;
    let (_, commitment) = keys.current();
    let page = |n: u8| PageRef {
        name: [n; 16],
        hash: Hash32([n; 32]),
        plain_hash: Hash32([n; 32]),
        first_key: vec![b'E', n].into(),
    };
    let covered = |n: u8| CoveredLane {
        lane: LaneId([n; 16]),
        device: DEVICE,
        incarnation: 0,
        seq: 4,
        hash: Hash32([n; 32]),
        lamport: 11,
        time: Timestamp(3),
        closed: (n == 2).then_some(4),
    };
    let branch = CoveredLane {
        seq: 5,
        ..covered(2)
    };
    let root = Root {
        optional: 1,
        vault: VAULT,
        room: ROOM,
        name: [1; 16],
        epoch: EPOCH,
        commitment,
        device: DEVICE,
        time: Timestamp(9),
        floor: 12,
        parent: Some(CheckpointRef {
            name: [2; 16],
            hash: Hash32([2; 32]),
            floor: 3,
        }),
        covered: vec![covered(1), covered(2), branch],
        control: vec![Hash32([1; 32])],
        rules: skrin_meta::RULE_SET,
        rows: 3,
        digest: Hash32([4; 32]),
        pages: vec![page(1), page(2), page(2)],
    };
    let first = Root {
        parent: None,
        covered: Vec::new(),
        pages: Vec::new(),
        ..root.clone()
    };
    vec![root.to_bytes(), first.to_bytes()]
}

/// For `targets::meta::checkpoint_page`: small rows, and one that takes several pages.
pub fn pages() -> Vec<Vec<u8>> {
    let with_lengths = |rows: &[(&[u8], usize)]| {
        let mut paginator = Paginator::default();
        let mut pages = Vec::new();
        for (key, len) in rows {
            pages.extend(paginator.row(key, &vec![7; *len]));
        }
        pages.extend(paginator.finish());
        let mut w = Writer::default();
        pages.iter().for_each(|page| w.bytes(&page.bytes));
        w.into_bytes()
    };
    vec![
        with_lengths(&[(b"A", 0), (b"B", 10), (b"Ba", 100)]),
        with_lengths(&[(b"A", 5), (b"B", 600_000), (b"C", 5)]),
    ]
}

/// For `targets::meta::heads`.
pub fn heads() -> Vec<Vec<u8>> {
    let seen = |lane: u8| SeenHead {
        head: head(lane, 7),
        lamport: 9,
        device: DEVICE,
        label: "laptop".to_owned(),
        time: Timestamp(5),
        closed: lane == 2,
        awaited: (lane == 1).then_some(Timestamp(6)),
    };
    let lanes = [1, 2].map(|lane| (LaneId([lane; 16]), seen(lane)));
    let heads = Heads {
        lanes: lanes.into(),
        control: vec![Hash32([1; 32])],
        refuting: vec![Verdict {
            opinion: Opinion::Refute,
            checkpoint: CheckpointRef {
                name: [2; 16],
                hash: Hash32([2; 32]),
                floor: 3,
            },
            digest: Hash32([4; 32]),
        }],
        unjudged: vec![Hash32([5; 32])],
        last_counter: 77,
        incarnation: 3,
    };
    vec![heads.to_bytes(), Heads::default().to_bytes()]
}

/// For `targets::meta::tips`: of a commit, then of a control record.
pub fn tips() -> Vec<Vec<u8>> {
    let names = RoomNames(ROOM);
    let tips = [
        names.tip(&head(0xab, 0x1234)),
        names.control_tip(&Hash32([0xcd; 32])),
    ];
    let name = |tip: Result<ObjectName, BadName>| Some(tip.ok()?.file_name().as_bytes().to_vec());
    tips.into_iter().filter_map(name).collect()
}

/// For `targets::meta::side_row`, with something in every field.
pub fn side_rows() -> Vec<Vec<u8>> {
    vec![
        choose(0, &standing_row()),
        choose(1, &cuts_row()),
        choose(2, &lane_row()),
        choose(3, &node_row()),
    ]
}

fn checkpoint(n: u8, floor: u64) -> CheckpointRef {
    CheckpointRef {
        name: [n; 16],
        hash: Hash32([n; 32]),
        floor,
    }
}

/// A checkpoint that stands on another, one that was refuted, one that this device refutes, and its opinion of the first.
fn standing_row() -> Vec<u8> {
    let (parent, reference) = (checkpoint(1, 3), checkpoint(2, 12));
    let place = OrderKey::new(ROOM, LaneId([1; 16]), 14, 6, &Hash32([1; 32]));
    let mut w = Writer::default();
    w.option(Some(&parent));
    // The proposal, with one place and what the proposer had named.
    w.count(1);
    reference.encode(&mut w);
    w.raw(&[4; 32]);
    w.count(1);
    w.raw(place.as_bytes());
    w.u8(1);
    w.count(1);
    w.raw(&[5; 16]);
    w.count(1);
    w.u64(7);
    w.u64(11);
    // It holds nothing beyond a cut; its root.
    w.u8(0);
    w.u8(1);
    w.option(Some(&parent));
    w.count(1);
    w.raw(&[5; 16]);
    ends(&mut w);
    w.option(Some(&7u64));
    w.count(1);
    w.raw(&[5; 32]);
    w.u64(11);
    // Who refuted which other.
    w.count(1);
    checkpoint(3, 9).encode(&mut w);
    w.count(1);
    head(3, 7).encode(&mut w);
    DEVICE.encode(&mut w);
    w.list(&[head(3, 7)]);
    w.list(&[checkpoint(4, 10)]);
    w.count(1);
    w.raw(place.as_bytes());
    reference.hash.encode(&mut w);
    w.into_bytes()
}

/// One branch of a lane.
fn ends(w: &mut Writer) {
    w.count(1);
    w.u64(7);
    w.raw(&[5; 32]);
}

fn cuts_row() -> Vec<u8> {
    let mut w = Writer::default();
    w.count(1);
    DEVICE.encode(&mut w);
    w.count(1);
    w.raw(&[5; 16]);
    ends(&mut w);
    w.into_bytes()
}

/// A lane of one branch that two commits close, begun within a checkpoint.
fn lane_row() -> Vec<u8> {
    let mut w = Writer::default();
    DEVICE.encode(&mut w);
    w.u32(3);
    w.count(1);
    w.u64(8);
    w.raw(&[6; 32]);
    w.u64(12);
    Timestamp(5).encode(&mut w);
    w.list(&[Hash32([1; 32])]);
    w.list(&[head(1, 4), head(2, 0)]);
    w.option(Some(&8u64));
    w.count(1);
    w.u64(8);
    w.list(&[Hash32([1; 32]), Hash32([2; 32])]);
    w.u8(1);
    w.u64(7);
    w.option(None::<&u64>);
    ends(&mut w);
    w.u64(11);
    w.option(Some(&8u64));
    w.into_bytes()
}

fn node_row() -> Vec<u8> {
    let mut w = Writer::default();
    w.raw(&[5; 16]);
    w.u64(8);
    w.u64(12);
    w.u8(1);
    w.raw(&[5; 32]);
    w.list(&[head(1, 4), head(2, 0)]);
    w.into_bytes()
}
