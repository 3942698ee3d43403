//! The frozen examples of docs/format/vectors: written once (with `SKRIN_WRITE_VECTORS=1`), read for ever.

use super::*;
use crate::checkpoint::{DigestOfRows, RowAssembler, open_page, open_root};
use crate::commit::{CheckpointRef, open_commit};
use crate::op::{OpKind, SlotRun};
use crate::order::OrderKey;
use crate::rows::MemoryRows;
use crate::{apply, state};
use skrin_base::ids::{EpochId, PersonId, RoomId, VaultId};
use skrin_base::wire::Encode;
use skrin_base::{Ino, SegmentId, SegmentInfo};
use skrin_crypto::{
    EpochCommitment, EpochKey, Everybody, RoomSecret, RosterDevice, VerifyingKey, hash,
};
use std::fmt::Write;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/format/vectors")
        .join(file)
}

/// What this program writes must be what it wrote when the vectors were made.
fn frozen(file: &str, now: &str) {
    if std::env::var_os("SKRIN_WRITE_VECTORS").is_some() {
        std::fs::write(path(file), now).unwrap();
    }
    let then = std::fs::read_to_string(path(file)).unwrap();
    assert!(
        then == now,
        "{file} differs from what is written now: the format has changed"
    );
}

struct Vectors(Vec<(String, Vec<u8>)>);

impl Vectors {
    fn read(file: &str) -> Self {
        let text = std::fs::read_to_string(path(file)).unwrap();
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let parsed = lines.map(|line| {
            let (name, value) = line.split_once(" = ").unwrap();
            (name.to_owned(), unhex(value))
        });
        Self(parsed.collect())
    }

    fn all(&self, name: &str) -> Vec<&[u8]> {
        self.0
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, value)| &value[..])
            .collect()
    }

    fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.all(name)[0].try_into().unwrap()
    }

    /// Keys and roster from the file alone.
    fn room(&self) -> (RoomKeys, Roster) {
        let commitment = EpochCommitment(self.array("epoch_commitment"));
        let keys = RoomKeys::new(
            VaultId(self.array("vault")),
            RoomId(self.array("room")),
            &RoomSecret::from_bytes(self.array("room_secret")),
            EpochId(self.array("epoch")),
            EpochKey::from_bytes(self.array("epoch_key")),
            commitment,
        );
        let devices = self.all("device").into_iter().zip(self.all("device_key"));
        let devices = devices.map(|(id, key)| {
            let device = RosterDevice {
                key: VerifyingKey::from_bytes(key.try_into().unwrap()).unwrap(),
                person: PersonId([1; 16]),
                label: String::new(),
                cut: None,
            };
            (DeviceId(id.try_into().unwrap()), device)
        });
        let roster = Roster {
            devices: devices.collect(),
            control_heads: Vec::new(),
            control: [(Hash32(self.array("control_head")), Vec::new())].into(),
            rights: Arc::new(Everybody),
        };
        (keys.unwrap(), roster)
    }
}

fn preamble(vault: &Vault, page: &str) -> String {
    let mut text = format!("# Vectors of docs/format/{page}: name = hex.\n\n# the room\n");
    for (name, value) in &vault.world.secrets {
        writeln!(text, "{name} = {}", hex(value)).unwrap();
    }
    let head = vault.world.roster().control_heads[0];
    writeln!(text, "control_head = {head}").unwrap();
    for n in 0..2 {
        writeln!(text, "device = {}", vault.world.device(n)).unwrap();
        writeln!(
            text,
            "device_key = {}",
            hex(vault.world.signer(n).public().as_bytes())
        )
        .unwrap();
    }
    text
}

fn digest(rows: &MemoryRows) -> Hash32 {
    let mut digest = DigestOfRows::default();
    rows.0
        .iter()
        .for_each(|(key, value)| digest.row(key, value));
    digest.finish().1
}

pub(super) fn a_segment(vault: &Vault, lane: LaneId) -> SegmentInfo {
    SegmentInfo {
        id: SegmentId(vault.world.keys.segment_id(lane, 0).0),
        author: lane,
        number: 0,
        object_len: 4_194_304,
        table_offset: 4_000_000,
        table_hash: hash(b"a table"),
        table_key: [7; 32],
        slots: 61,
    }
}

/// Sealed commits of two devices, in their order, each with the digest after it.
async fn commits_text() -> String {
    let vault = Vault::new(1000);
    let mut rng = Rng(1000);
    let mut devices = [vault.open(0).await, vault.open(1).await];
    // Both begin without having seen the other, so that a tie is among the vectors.
    for device in &mut devices {
        (0..4).for_each(|_| device.act(&mut rng));
    }
    let stale = skrin_storage::fault::Rule::new(skrin_storage::fault::Failure::StaleList);
    devices[1].faults.add(stale);
    for device in &mut devices {
        device.publish().await.unwrap();
    }
    devices[1].faults.clear();
    for round in 0..4 {
        let device = &mut devices[round % 2];
        device.replica().pull().await.unwrap();
        (0..6).for_each(|_| device.act(&mut rng));
        device.publish().await.unwrap();
    }
    let numbers = Some((devices[0].replica().own_lane().await, 2));
    let settled = Settled {
        numbers,
        ..Settled::default()
    };
    devices[0].replica().close_lane(settled).await.unwrap();
    let core = devices[0].replica().core.lock();
    let mut rows = MemoryRows::default();
    let mut text = preamble(&vault, "lanes.md, in the order of section 5");
    for key in core.log.keys() {
        let checked = core.logged(key).unwrap().0;
        let name = vault_object(&vault, checked.head());
        fold(&mut rows, checked.commit());
        writeln!(text, "\nlane = {}", checked.head().lane).unwrap();
        writeln!(text, "seq = {}", hex(&checked.head().seq.to_le_bytes())).unwrap();
        writeln!(text, "id = {}", checked.head().hash).unwrap();
        writeln!(text, "object = {}", hex(&name)).unwrap();
        writeln!(text, "order = {}", hex(key.as_bytes())).unwrap();
        writeln!(text, "body = {}", hex(&checked.commit().to_bytes())).unwrap();
        writeln!(text, "digest = {}", digest(&rows)).unwrap();
    }
    text
}

fn vault_object(vault: &Vault, head: &Head) -> Vec<u8> {
    let name = RoomNames(vault.world.keys.room()).commit(head).unwrap();
    vault.store.peek(&name).unwrap().to_vec()
}

fn fold(rows: &mut MemoryRows, commit: &crate::commit::Commit) {
    for segment in &commit.segments {
        state::declare_segment(rows, segment).unwrap();
    }
    for op in &commit.ops {
        apply(rows, op).unwrap();
    }
}

#[tokio::test]
async fn commits_are_written_as_they_were_frozen() {
    frozen("commits.txt", &commits_text().await);
}

#[test]
fn the_frozen_commits_fold_to_their_digests_in_any_order_of_arrival() {
    let vectors = Vectors::read("commits.txt");
    let (keys, roster) = vectors.room();
    let names = vectors.all("lane").into_iter().zip(vectors.all("seq"));
    let mut commits = BTreeMap::new();
    let objects = vectors.all("id").into_iter().zip(vectors.all("object"));
    for ((lane, seq), (id, object)) in names.zip(objects).rev() {
        let head = Head {
            lane: LaneId(lane.try_into().unwrap()),
            seq: u64::from_le_bytes(seq.try_into().unwrap()),
            hash: Hash32(id.try_into().unwrap()),
        };
        let checked = open_commit(&head, object, &keys, &roster).unwrap();
        let commit = checked.commit().clone();
        let key = OrderKey::new(keys.room(), head.lane, commit.lamport, head.seq, &head.hash);
        commits.insert(key, commit);
    }
    assert_eq!(commits.len(), 7);
    let ties = commits.keys().filter(|key| key.lamport() == 1).count();
    assert_eq!(ties, 2);
    let mut rows = MemoryRows::default();
    let expected = vectors.all("order").into_iter().zip(vectors.all("digest"));
    for ((key, commit), ((order, after), body)) in
        commits.iter().zip(expected.zip(vectors.all("body")))
    {
        assert_eq!(key.as_bytes().as_slice(), order);
        assert_eq!(commit.to_bytes(), body);
        fold(&mut rows, commit);
        assert_eq!(digest(&rows).as_bytes().as_slice(), after);
    }
}

/// Two devices that give one name, and what becomes of it.
fn snapshots_text() -> String {
    let name = |name: &[u8]| skrin_base::Name::new(name).unwrap();
    let device = |n: u8| DeviceId([n; 16]);
    let id = |n, counter| OpId {
        device: device(n),
        counter,
    };
    let label = |label: &str| OpKind::Label {
        label: label.to_owned(),
    };
    let taken = || OpKind::Snapshot {
        name: name(b"monday"),
    };
    let forgotten = |name, snapshot| OpKind::ForgetSnapshot { name, snapshot };
    let conflict = name(b"monday (conflict, laptop, 2026-09-21)");
    let ops = [
        (id(1, 1), label("desktop")),
        (id(2, 1), label("laptop")),
        (id(1, 2), taken()),
        (id(2, 2), taken()),
        (id(1, 3), forgotten(name(b"monday"), id(2, 2))),
        (id(1, 4), forgotten(name(b"monday"), id(1, 2))),
        (id(2, 3), forgotten(conflict, id(2, 2))),
    ];
    let mut text = "# Vectors of docs/format/operations.md, operations 11 and 12: name = hex.\n# Each operation, and the digest of the state behind it.\n".to_owned();
    let mut rows = MemoryRows::default();
    for (n, (id, kind)) in (0..).zip(ops) {
        let time = Timestamp(1_790_000_000_000_000_000 + n);
        let op = Op { id, time, kind };
        assert_eq!(
            apply(&mut rows, &op).unwrap() == Outcome::Void("the snapshot is gone"),
            n == 4
        );
        writeln!(text, "\nop = {}", hex(&op.to_bytes())).unwrap();
        writeln!(text, "digest = {}", digest(&rows)).unwrap();
    }
    assert!(!rows.0.keys().any(|key| key.starts_with(b"N")));
    text
}

#[test]
fn snapshots_are_written_as_they_were_frozen_and_two_of_one_name_are_both_kept() {
    frozen("snapshots.txt", &snapshots_text());
}

/// Two devices that do not know of each other, and the rows that say which entries are conflict copies.
fn conflicts_text() -> String {
    let name = |name: &[u8]| skrin_base::Name::new(name).unwrap();
    let id = |n, counter| OpId {
        device: DeviceId([n; 16]),
        counter,
    };
    let place = |n: u8, text: &[u8]| crate::op::Place {
        dir: Ino::ROOT,
        name: name(text),
        entry: skrin_base::EntryId([n; 16]),
    };
    let make = |n: u8, text: &[u8], ino| OpKind::Create {
        place: place(n, text),
        ino: Ino(ino),
        node: crate::op::NewNode {
            kind: crate::op::Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            rdev: 0,
            target: Vec::new(),
        },
    };
    let write = |n: u8, text: &[u8], ino, base, bytes: &[u8]| OpKind::Write {
        ino: Ino(ino),
        base,
        size: bytes.len() as u64,
        mtime: Timestamp(1_790_000_000_000_000_000),
        keys: Vec::new(),
        body: crate::op::Body::Inline(bytes.to_vec()),
        place: place(n, text),
        attributes: crate::testing::a_plain_file(),
    };
    // The file that was made last takes the name from what its device saw there.
    let save = |(n, ino), seen: (u8, u64, OpId)| OpKind::Rename {
        ino: Ino(ino),
        from: place(n, b".new"),
        to_dir: Ino::ROOT,
        to_name: name(b"a.tar.gz"),
        replaces: Some(crate::op::Seen {
            entry: skrin_base::EntryId([seen.0; 16]),
            ino: Ino(seen.1),
            version: seen.2,
        }),
    };
    let label = |label: &str| OpKind::Label {
        label: label.to_owned(),
    };
    let ops = [
        (id(1, 1), label("desktop")),
        (id(2, 1), label("laptop")),
        (id(1, 2), make(1, b"a.tar.gz", 1000)),
        (id(1, 3), write(1, b"a.tar.gz", 1000, id(1, 2), b"desktop")),
        (id(2, 2), write(1, b"a.tar.gz", 1000, id(1, 2), b"laptop")),
        (id(2, 3), make(2, b".new", 2000)),
        (id(2, 4), save((2, 2000), (1, 1000, id(2, 2)))),
        (id(2, 5), make(3, b".new", 3000)),
        (id(2, 6), save((3, 3000), (2, 2000, id(2, 3)))),
        (id(2, 7), make(4, b"a.tar.gz", 4000)),
    ];
    let mut text = "# Vectors of docs/format/operations.md, conflict copies: name = hex.\n# Each operation, and the digest of the state behind it; at the end the rows of conflict copies.\n".to_owned();
    let mut rows = MemoryRows::default();
    for (n, (id, kind)) in (0..).zip(ops) {
        let time = Timestamp(1_790_000_000_000_000_000 + n);
        let op = Op { id, time, kind };
        apply(&mut rows, &op).unwrap();
        writeln!(text, "\nop = {}", hex(&op.to_bytes())).unwrap();
        writeln!(text, "digest = {}", digest(&rows)).unwrap();
    }
    let copies = rows.0.iter().filter(|(key, _)| key.starts_with(b"C"));
    for (key, row) in copies {
        writeln!(text, "\nkey = {}\nvalue = {}", hex(key), hex(row)).unwrap();
    }
    text
}

#[test]
fn conflict_copies_are_written_as_they_were_frozen_and_a_saved_one_stays_one() {
    let text = conflicts_text();
    assert_eq!(text.matches("\nkey = ").count(), 2);
    frozen("conflicts.txt", &text);
}

/// Blocks that are relocated, in part once more, and what other rows there are then.
fn relocations_text() -> String {
    let run = |first, count, at| SlotRun { first, count, at };
    let ops: [(u8, u32, &[SlotRun]); 3] = [
        (2, 0, &[run(0, 8, 1), run(10, 2, 9)]),
        (3, 5, &[run(2, 3, 6)]),
        (4, 9, &[run(7, 4, 100)]),
    ];
    let mut text = "# Vectors of docs/format/operations.md, operation 13: name = hex.\n# Each operation, the rows `M` behind it, and the digest of the state.\n".to_owned();
    let mut rows = MemoryRows::default();
    for (n, (host, table_slot, runs)) in (0..).zip(ops) {
        let op = Op {
            id: OpId {
                device: DeviceId([1; 16]),
                counter: n + 1,
            },
            time: Timestamp(1_790_000_000_000_000_000 + n as i64),
            kind: OpKind::Relocate {
                segment: SegmentId([1; 16]),
                host: SegmentId([host; 16]),
                table_slot,
                runs: runs.to_vec(),
            },
        };
        assert_eq!(apply(&mut rows, &op).unwrap(), Outcome::Applied);
        writeln!(text, "\nop = {}", hex(&op.to_bytes())).unwrap();
        for (key, row) in rows.0.iter().filter(|(key, _)| key.starts_with(b"M")) {
            writeln!(text, "row = {} {}", hex(key), hex(row)).unwrap();
        }
        writeln!(text, "digest = {}", digest(&rows)).unwrap();
    }
    text
}

#[test]
fn relocations_are_written_as_they_were_frozen() {
    frozen("relocations.txt", &relocations_text());
}

async fn checkpoint_text() -> String {
    let vault = Vault::new(2000);
    let mut rng = Rng(2000);
    let mut device = vault.open(0).await;
    for _ in 0..3 {
        (0..5).for_each(|_| device.act(&mut rng));
        device.publish().await.unwrap();
    }
    let lane = device.replica().own_lane().await;
    let segment = a_segment(&vault, lane);
    device.replica().core.lock().redeclare.push(segment);
    device.publish().await.unwrap();
    device.act(&mut rng);
    device.publish().await.unwrap();
    assert!(device.replica().checkpoint().await.unwrap());
    let net = device.replica().net.lock().await;
    let proposal = net.proposal.as_ref().unwrap();
    let names = RoomNames(vault.world.keys.room());
    let mut text = preamble(&vault, "checkpoints.md");
    writeln!(
        text,
        "\nreference = {}",
        hex(&proposal.reference.to_bytes())
    )
    .unwrap();
    let root = vault
        .store
        .peek(&names.checkpoint(&proposal.reference.name).unwrap())
        .unwrap();
    writeln!(
        text,
        "root = {}\nroot_body = {}",
        hex(&root),
        hex(&proposal.root.to_bytes())
    )
    .unwrap();
    for page in &proposal.root.pages {
        // The page itself is 256 KiB: its hash stands in the root, its content here.
        let object = vault.store.peek(&names.page(&page.name).unwrap()).unwrap();
        let content = open_page(&object, page, &proposal.root.epoch, &vault.world.keys).unwrap();
        writeln!(text, "page_content = {}", hex(&content)).unwrap();
        writeln!(text, "page_nonce = {}", hex(&object[5..17])).unwrap();
        writeln!(text, "page_hash = {}", page.hash).unwrap();
    }
    writeln!(text, "digest = {}", proposal.root.digest).unwrap();
    text
}

#[tokio::test]
async fn a_checkpoint_is_written_as_it_was_frozen() {
    frozen("checkpoint.txt", &checkpoint_text().await);
}

#[test]
fn the_frozen_checkpoint_opens_and_has_its_digest() {
    use skrin_base::wire::Decode;
    let vectors = Vectors::read("checkpoint.txt");
    let (keys, roster) = vectors.room();
    let reference = CheckpointRef::from_bytes(vectors.all("reference")[0]).unwrap();
    let root = open_root(&reference, vectors.all("root")[0], &keys, &roster).unwrap();
    assert_eq!(root.to_bytes(), vectors.all("root_body")[0]);
    let mut assembler = RowAssembler::default();
    for (page, content) in root.pages.iter().zip(vectors.all("page_content")) {
        assert_eq!(hash(content), page.plain_hash);
        assembler.page(content).unwrap();
    }
    let (rows, digest) = assembler.finish().unwrap();
    assert_eq!((rows, digest), (root.rows, root.digest));
    assert_eq!(digest.as_bytes().as_slice(), vectors.all("digest")[0]);
}
