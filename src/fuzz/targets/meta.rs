//! Operations, the state and commits.

use super::crypto::VAULT;
use super::vault::ROOM;
use super::{canonical, chosen};
use skrin_base::clock::testutil::SeededEntropy;
use skrin_base::ids::{DeviceId, EpochId, Hash32, PersonId};
use skrin_base::wire::{Decode, Encode, Reader, Writer};
use skrin_base::{Ino, SegmentInfo};
use skrin_crypto::keys::derive_epoch_commitment;
use skrin_crypto::{
    CommitAad, DeviceSeed, DeviceSigner, EpochKey, Everybody, RoomKeys, RoomSecret, Roster,
    RosterDevice, SignatureKind, commit_id, hash, pad_pow2, seal,
};
use skrin_meta::check::Finding;
use skrin_meta::checkpoint::{PAGE_CAPACITY, Root, RowAssembler, open_root, seal_root};
use skrin_meta::commit::{CheckpointRef, Commit, open_commit};
use skrin_meta::heads::Heads;
use skrin_meta::lane::{Head, RoomNames, parse_control_tip, parse_tip};
use skrin_meta::replica::side_row as written_again;
use skrin_meta::state::{self, Entry, Inode};
use skrin_meta::undo::{Frame, Recorder};
use skrin_meta::{MemoryRows, Op, Outcome, RowKey, apply};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::LazyLock;

/// The device of all commits here.
pub const DEVICE: DeviceId = DeviceId([0x66; 16]);
/// The epoch of all commits here.
pub const EPOCH: EpochId = EpochId([0x77; 32]);

/// A room with one device.
pub struct World {
    /// Its keys.
    pub keys: RoomKeys,
    /// Its device.
    pub roster: Roster,
    signer: DeviceSigner,
}

static WORLD: LazyLock<Option<World>> = LazyLock::new(|| {
    let key = || EpochKey::from_bytes([0x78; 32]);
    let commitment = derive_epoch_commitment(&key(), VAULT, ROOM);
    let secret = RoomSecret::from_bytes([0x79; 32]);
    let keys = RoomKeys::new(VAULT, ROOM, &secret, EPOCH, key(), commitment).ok()?;
    let signer = DeviceSigner::derive(&DeviceSeed::from_bytes([0x7a; 32]), VAULT);
    let device = RosterDevice {
        key: signer.public(),
        person: PersonId([1; 16]),
        label: "device".to_owned(),
        cut: None,
    };
    let roster = Roster {
        devices: BTreeMap::from([(DEVICE, device)]),
        control_heads: Vec::new(),
        control: [1, 2].map(|n| (Hash32([n; 32]), Vec::new())).into(),
        rights: Arc::new(Everybody),
    };
    Some(World {
        keys,
        roster,
        signer,
    })
});

/// The room of the sealed targets.
pub fn world() -> &'static World {
    match &*WORLD {
        Some(world) => world,
        None => unreachable!("the commitment was derived from the key"),
    }
}

/// An operation on its own and as it stands in a commit.
pub fn op(data: &[u8]) {
    if let Ok(op) = canonical::<Op>(data) {
        let mut w = Writer::default();
        op.encode_in_commit(DEVICE, &mut w);
        let bytes = w.into_bytes();
        assert_eq!(
            Op::decode_in_commit(DEVICE, &mut Reader::new(&bytes)),
            Ok(op)
        );
    }
    let mut r = Reader::new(data);
    if let Ok(op) = Op::decode_in_commit(DEVICE, &mut r) {
        let mut w = Writer::default();
        op.encode_in_commit(DEVICE, &mut w);
        let used = data.len() - r.rest().len();
        assert_eq!(
            w.into_bytes(),
            &data[..used],
            "an operation has two encodings in a commit"
        );
    }
}

/// Operations one after the other, as many as decode, folded into an empty state: no panic, a second time makes no
/// difference, undoing all of them leaves nothing, and the invariants hold.
pub fn apply_program(data: &[u8]) {
    let mut r = Reader::new(data);
    let mut rows = MemoryRows::default();
    let mut recorder = Recorder::new(&mut rows);
    let mut ops = Vec::new();
    while let Ok(op) = Op::decode_in_commit(DEVICE, &mut r) {
        let outcome = apply(&mut recorder, &op);
        assert!(
            outcome.is_ok(),
            "{op:?} makes the state unreadable: {outcome:?}"
        );
        ops.push(op);
    }
    let frame = recorder.finish();
    invariants_hold(&rows, &ops);
    let before = rows.clone();
    for op in &ops {
        assert_eq!(apply(&mut rows, op).ok(), Some(Outcome::Duplicate));
    }
    assert_eq!(
        rows, before,
        "an operation that was folded did something again"
    );
    assert!(frame.revert(&mut rows).is_ok());
    assert_eq!(rows, MemoryRows::default(), "undo leaves something behind");
    assert_eq!(Frame::from_bytes(&frame.to_bytes()), Ok(frame));
}

fn invariants_hold(rows: &MemoryRows, ops: &[Op]) {
    match skrin_meta::check::check(rows, false) {
        Ok(mut findings) => {
            // What a device says of contents is its own affair; the tree is everybody's.
            findings.retain(|f| {
                !matches!(
                    f,
                    Finding::Lost { .. } | Finding::Key { .. } | Finding::Segment { .. }
                )
            });
            assert!(findings.is_empty(), "{findings:?} after {ops:?}");
        }
        Err(error) => unreachable!("the state is unreadable: {error} after {ops:?}"),
    }
}

/// The signed body of a commit.
pub fn commit_body(data: &[u8]) {
    if let Ok(commit) = canonical::<Commit>(data) {
        let _ = commit.closes_itself();
    }
}

/// A commit object: as it comes, and with `data` as the body of a good seal with a good signature.
pub fn commit_object(data: &[u8]) {
    let world = world();
    let lane = world.keys.lane_id(DEVICE, 0);
    let head = Head {
        lane,
        seq: 0,
        hash: commit_id(data),
    };
    let forged = open_commit(&head, data, &world.keys, &world.roster);
    assert!(forged.is_err(), "a forged commit opens");
    let (Some(key), Some(hint)) = (
        world.keys.lane_key(&EPOCH, lane),
        world.keys.hint(&EPOCH, lane),
    ) else {
        unreachable!("the epoch is known");
    };
    let signature = world.signer.sign(SignatureKind::Commit, data);
    let content = [data, &signature.0].concat();
    let plain = pad_pow2(&content);
    let aad = CommitAad {
        vault: VAULT,
        room: ROOM,
        lane,
        seq: 0,
    };
    let sealed = seal(&key, &aad, &plain, &SeededEntropy::new(5));
    let object = [&b"SKRC\x01"[..], &hint, &sealed].concat();
    let head = Head {
        lane,
        seq: 0,
        hash: commit_id(&content),
    };
    if let Ok(checked) = open_commit(&head, &object, &world.keys, &world.roster) {
        assert_eq!(checked.commit().to_bytes(), data);
        assert_eq!((checked.commit().lane, checked.commit().seq), (lane, 0));
    }
}

/// The signed body of a checkpoint's root, on its own and as a root object with a good seal and signature.
pub fn checkpoint_root(data: &[u8]) {
    let world = world();
    if let Ok(root) = canonical::<Root>(data) {
        let sealed = seal_root(&root, &world.keys, &world.signer, &SeededEntropy::new(9));
        let Ok((reference, object)) = sealed else {
            return;
        };
        match open_root(&reference, &object, &world.keys, &world.roster) {
            Ok(opened) => assert_eq!(opened, root),
            Err(fault) => drop(fault.to_string()),
        }
    }
    let reference = CheckpointRef {
        name: [1; 16],
        hash: hash(data),
        floor: 12,
    };
    let forged = open_root(&reference, data, &world.keys, &world.roster);
    assert!(forged.is_err(), "a forged root opens");
}

/// Contents of pages that come one after the other: rows in order, and never more of them than bytes. The pieces are
/// separated by lengths.
pub fn checkpoint_page(data: &[u8]) {
    let mut assembler = RowAssembler::default();
    let mut r = Reader::new(data);
    let mut last: Option<RowKey> = None;
    while let Ok(content) = r.bytes("page", PAGE_CAPACITY + 4) {
        let Ok(rows) = assembler.page(content) else {
            return;
        };
        for (key, _) in rows {
            assert!(
                last.as_ref().is_none_or(|last| *last < key),
                "rows out of order"
            );
            last = Some(key);
        }
    }
    let _ = assembler.finish();
}

/// What a device remembers to have seen; a local file, whose encoding need not be the only one.
pub fn heads(data: &[u8]) {
    if let Ok(heads) = Heads::from_bytes(data) {
        assert_eq!(Heads::from_bytes(&heads.to_bytes()), Ok(heads));
    }
}

/// Values of rows, as the cache and the pages of a checkpoint hold them; the first byte chooses.
pub fn row(data: &[u8]) {
    let (which, bytes) = chosen(data);
    let _ = match which {
        0 => canonical::<Inode>(bytes).map(|inode| {
            assert!(inode.nlink() > 0 || inode.links.is_empty() || inode.parent().0 > 0)
        }),
        1 => canonical::<Entry>(bytes).map(drop),
        2 => canonical::<SegmentInfo>(bytes).map(drop),
        3 => Frame::from_bytes(bytes)
            .map(|frame| assert_eq!(Frame::from_bytes(&frame.to_bytes()), Ok(frame))),
        _ => {
            if let Some((dir, cookie, name)) = state::parse_entry_key(bytes) {
                let _ = (state::cookie(dir, &name), cookie, dir == Ino::ROOT);
            }
            Ok(())
        }
    };
}

/// Names of tips, as a listing shows them: of a commit, of a control record, or of nothing.
pub fn tips(data: &[u8]) {
    let Ok(name) = std::str::from_utf8(data) else {
        return;
    };
    let names = RoomNames(ROOM);
    let (head, record) = (parse_tip(name), parse_control_tip(name));
    assert!(head.is_none() || record.is_none(), "a tip of two things");
    let tip = head.map(|head| names.tip(&head));
    let tip = tip.or_else(|| record.map(|record| names.control_tip(&record)));
    if let Some(tip) = tip {
        let is_same = tip.is_ok_and(|tip| tip.file_name() == name);
        assert!(is_same, "a tip has two names");
    }
}

/// Rows of the local cache beside those of the state, where the encoding need not be the only one; the first byte chooses.
pub fn side_row(data: &[u8]) {
    let (which, bytes) = chosen(data);
    if let Ok(row) = written_again(which, bytes) {
        assert_eq!(written_again(which, &row), Ok(row));
    }
}
