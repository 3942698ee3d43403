//! What the tests of this crate share: a room with some devices, and simple operations.

use crate::commit::{Commit, Decided};
use crate::lane::Head;
use crate::op::{Kind, NewNode, Op, OpKind, Place, SlotRun};
use crate::rows::Rows;
use crate::state;
use bytes::Bytes;
use skrin_base::clock::random;
use skrin_base::clock::testutil::SeededEntropy;
use skrin_base::{
    DeviceId, EntryId, EpochId, Hash32, Ino, Name, OpId, PersonId, RoomId, SegmentId, Timestamp,
    VaultId,
};
use skrin_crypto::keys::{
    derive_epoch_commitment, make_device_seed, make_epoch_key, make_room_secret,
};
use skrin_crypto::{
    CommitAad, DeviceSigner, EpochKey, Everybody, RoomKeys, Roster, RosterDevice, open, seal,
};
use std::sync::Arc;

/// A room of one person with several devices.
pub(crate) struct World {
    pub(crate) entropy: SeededEntropy,
    pub(crate) keys: Arc<RoomKeys>,
    /// Names and bytes of the secrets behind `keys`, for the vectors.
    pub(crate) secrets: Vec<(&'static str, Vec<u8>)>,
    devices: Vec<(DeviceId, Arc<DeviceSigner>)>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let entropy = SeededEntropy::new(seed);
        let (vault, room) = (VaultId(random(&entropy)), RoomId(random(&entropy)));
        let secret = make_room_secret(&entropy);
        let key: EpochKey = make_epoch_key(&entropy);
        let commitment = derive_epoch_commitment(&key, vault, room);
        let epoch = EpochId(random(&entropy));
        let secrets = vec![
            ("vault", vault.0.to_vec()),
            ("room", room.0.to_vec()),
            ("room_secret", secret.expose().to_vec()),
            ("epoch", epoch.0.to_vec()),
            ("epoch_key", key.expose().to_vec()),
            ("epoch_commitment", commitment.0.to_vec()),
        ];
        let keys = RoomKeys::new(vault, room, &secret, epoch, key, commitment).unwrap();
        let devices = (0..4).map(|_| {
            let signer = DeviceSigner::derive(&make_device_seed(&entropy), vault);
            (DeviceId(random(&entropy)), Arc::new(signer))
        });
        let devices = devices.collect();
        Self {
            entropy,
            keys: Arc::new(keys),
            secrets,
            devices,
        }
    }

    pub(crate) fn device(&self, n: usize) -> DeviceId {
        self.devices[n].0
    }

    pub(crate) fn signer(&self, n: usize) -> &Arc<DeviceSigner> {
        &self.devices[n].1
    }

    /// What somebody who may read makes of a commit: the same content in another seal.
    pub(crate) fn seal_again(&self, head: &Head, object: &[u8]) -> Bytes {
        let (clear, sealed) = object.split_at(13);
        let aad = CommitAad {
            vault: self.keys.vault(),
            room: self.keys.room(),
            lane: head.lane,
            seq: head.seq,
        };
        let key = self.keys.lane_key(&self.keys.current().0, head.lane);
        let key = key.unwrap();
        let plain = open(&key, &aad, sealed).unwrap();
        let again = seal(&key, &aad, &plain, &self.entropy);
        assert_ne!(again, sealed);
        Bytes::from([clear, &again].concat())
    }

    pub(crate) fn roster(&self) -> Roster {
        let device = |(n, (id, signer)): (usize, &(DeviceId, Arc<DeviceSigner>))| {
            let device = RosterDevice {
                key: signer.public(),
                person: PersonId([1; 16]),
                label: format!("device-{n}"),
                cut: None,
            };
            (*id, device)
        };
        Roster {
            devices: self.devices.iter().enumerate().map(device).collect(),
            control_heads: vec![Hash32([5; 32])],
            control: [(Hash32([5; 32]), Vec::new())].into(),
            rights: Arc::new(Everybody),
        }
    }

    /// The commit that opens the first lane of device `n`, without operations.
    pub(crate) fn first_commit(&self, n: usize) -> Commit {
        let (epoch, commitment) = self.keys.current();
        Commit {
            optional: 0,
            vault: self.keys.vault(),
            room: self.keys.room(),
            lane: self.keys.lane_id(self.device(n), 0),
            incarnation: 0,
            seq: 0,
            prev: Hash32::default(),
            epoch,
            commitment,
            control: self.roster().control_heads,
            device: self.device(n),
            lamport: 1,
            heads: Vec::new(),
            time: Timestamp(1_790_000_000_000_000_000),
            standing: None,
            decided: Decided::default(),
            verdicts: Vec::new(),
            segments: Vec::new(),
            closes: Vec::new(),
            ops: Vec::new(),
        }
    }
}

/// Makes a file at the root.
pub(crate) fn an_op(device: DeviceId, counter: u64, name: &[u8]) -> Op {
    let id = OpId { device, counter };
    let bits = blake3::hash(&[device.as_bytes().as_slice(), &counter.to_be_bytes()].concat());
    let bits: [u8; 32] = *bits.as_bytes();
    let mut number = [0; 8];
    number.copy_from_slice(&bits[..8]);
    let mut entry = [0; 16];
    entry.copy_from_slice(&bits[16..]);
    let place = Place {
        dir: Ino::ROOT,
        name: Name::new(name).unwrap(),
        entry: EntryId(entry),
    };
    let node = NewNode {
        kind: Kind::File,
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        rdev: 0,
        target: Vec::new(),
    };
    Op {
        id,
        time: Timestamp(1_790_000_000_000_000_000 + counter as i64),
        kind: OpKind::Create {
            place,
            ino: Ino::from_random(u64::from_le_bytes(number)),
            node,
        },
    }
}

/// SplitMix64.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let at = self.below(items.len().max(1) as u64);
        items.get(at as usize)
    }
}

struct Known {
    place: Place,
    ino: Ino,
    inode: state::Inode,
}

fn known(rows: &dyn Rows) -> Vec<Known> {
    let mut all = Vec::new();
    state::for_each_entry(rows, |dir, name, entry| {
        if let Some(inode) = state::inode(rows, entry.ino)? {
            let place = Place {
                dir,
                name,
                entry: entry.id,
            };
            all.push(Known {
                place,
                ino: entry.ino,
                inode,
            });
        }
        Ok(())
    })
    .unwrap();
    all
}

/// What a write says of a file without extended attributes.
pub(crate) fn attributes_of(inode: &state::Inode) -> crate::op::Attributes {
    crate::op::Attributes {
        mode: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        btime: inode.btime,
        xattrs: Vec::new(),
    }
}

/// What a write says of a file of one user.
pub(crate) fn a_plain_file() -> crate::op::Attributes {
    crate::op::Attributes {
        mode: 0o640,
        uid: 1000,
        gid: 1000,
        btime: Timestamp(1_790_000_000_000_000_000),
        xattrs: Vec::new(),
    }
}

/// What a program could do to this tree, as the file system would say it.
pub(crate) fn random_op(rows: &dyn Rows, rng: &mut Rng, id: OpId) -> Op {
    let all = known(rows);
    let mut dirs: Vec<Ino> = all
        .iter()
        .filter(|k| k.inode.kind == Kind::Dir)
        .map(|k| k.ino)
        .collect();
    dirs.push(Ino::ROOT);
    let dir = *rng.pick(&dirs).unwrap();
    let name = Name::new(format!("n{}", rng.below(8)).as_bytes()).unwrap();
    let time = Timestamp(1_790_000_000_000_000_000 + (id.counter as i64 & 0xffff));
    let kind = match (rng.below(10), rng.pick(&all)) {
        (0..=3, _) | (_, None) => create(rng, id, dir, name),
        (4 | 5, Some(one)) if one.inode.kind == Kind::File => {
            let bytes = rng.next().to_le_bytes().to_vec();
            OpKind::Write {
                ino: one.ino,
                base: one.inode.version,
                size: 8,
                mtime: time,
                keys: Vec::new(),
                body: crate::op::Body::Inline(bytes),
                place: one.place.clone(),
                attributes: attributes_of(&one.inode),
            }
        }
        (6, Some(one)) => OpKind::Remove {
            place: one.place.clone(),
            ino: one.ino,
            version: one.inode.version,
        },
        (7 | 8, Some(one)) => {
            let taken = all
                .iter()
                .find(|k| k.place.dir == dir && k.place.name == name);
            OpKind::Rename {
                ino: one.ino,
                from: one.place.clone(),
                to_dir: dir,
                to_name: name,
                replaces: taken.map(|k| crate::op::Seen {
                    entry: k.place.entry,
                    ino: k.ino,
                    version: k.inode.version,
                }),
            }
        }
        (_, Some(one)) => OpKind::SetAttr {
            ino: one.ino,
            mode: Some((rng.next() & 0o777) as u16),
            uid: None,
            gid: None,
            atime: None,
            mtime: Some(time),
        },
    };
    Op { id, time, kind }
}

/// A relocation of one of a few segments, so that they get into each other's way.
pub(crate) fn random_relocation(rng: &mut Rng) -> OpKind {
    let run = |first, rng: &mut Rng| SlotRun {
        first,
        count: 1 + rng.below(6) as u32,
        at: rng.below(40) as u32,
    };
    let segment = rng.below(2) as u8;
    OpKind::Relocate {
        segment: SegmentId([segment; 16]),
        host: SegmentId([2 + rng.below(4) as u8; 16]),
        table_slot: rng.below(50) as u32,
        runs: vec![
            run(rng.below(8) as u32, rng),
            run(16 + rng.below(8) as u32, rng),
        ],
    }
}

fn create(rng: &mut Rng, id: OpId, dir: Ino, name: Name) -> OpKind {
    let OpKind::Create {
        place,
        ino,
        mut node,
    } = an_op(id.device, id.counter, name.as_bytes()).kind
    else {
        unreachable!("an_op creates");
    };
    if rng.below(3) == 0 {
        node.kind = Kind::Dir;
    }
    OpKind::Create {
        place: Place { dir, ..place },
        ino,
        node,
    }
}
