//! What a member with bad intent, or bad luck, can do to the others.

use super::*;
use crate::checkpoint::DigestOfRows;
use crate::checkpoint::{CoveredLane, Root, seal_root};
use crate::commit::Opinion;
use crate::commit::{Commit, Verdict, open_commit, seal_commit};
use crate::lane::parse_commit_file;
use crate::testing::an_op;
use bytes::Bytes;
use skrin_base::SegmentInfo;
use skrin_storage::ErrorKind::Transient;
use skrin_storage::ObjectName;
use skrin_storage::Verb;
use skrin_storage::fault::{Failure, Rule};

const DUE: CheckpointPolicy = CheckpointPolicy {
    ops: 30,
    bytes: u64::MAX,
};

/// It was in flight when others made a checkpoint.
#[tokio::test]
async fn a_first_commit_put_after_a_checkpoint_is_void_for_everybody_and_its_lane_goes_on() {
    let mut vault = Vault::new(900);
    vault.policy = DUE;
    let mut rng = Rng(900);
    let mut a = vault.open(0).await;
    for _ in 0..5 {
        a.act(&mut rng);
        a.publish().await.unwrap();
    }
    let mut b = vault.open(1).await;
    b.act(&mut rng);
    // The pull succeeds, the put of the commit does not, and the machine sleeps.
    b.faults
        .add(Rule::new(Failure::Before(Transient)).on(Verb::Put));
    b.publish().await.unwrap_err();
    b.replica = None;
    b.faults.clear();
    for _ in 0..10 {
        (0..4).for_each(|_| a.act(&mut rng));
        a.publish().await.unwrap();
    }
    assert!(a.replica().checkpoint_if_due().await.unwrap());
    for _ in 0..2 {
        a.act(&mut rng);
        a.publish().await.unwrap();
    }
    b.open(&vault).await.unwrap();
    b.act(&mut rng);
    for _ in 0..3 {
        b.publish().await.unwrap();
        a.publish().await.unwrap();
        a.replica().pull().await.unwrap();
        b.replica().pull().await.unwrap();
    }
    assert_eq!(b.pending(), 0);
    let fresh = vault.open(3).await;
    assert!(fresh.kinds().is_empty(), "{:?}", fresh.kinds());
    assert_eq!(a.digest(), b.digest());
    assert_eq!(a.digest(), fresh.digest());
    // A later checkpoint covers the void commit as part of its lane; who folds all commits still leaves it out.
    for _ in 0..10 {
        (0..4).for_each(|_| a.act(&mut rng));
        a.publish().await.unwrap();
        b.act(&mut rng);
        b.publish().await.unwrap();
    }
    assert!(a.replica().checkpoint_if_due().await.unwrap());
    for _ in 0..2 {
        a.act(&mut rng);
        a.publish().await.unwrap();
        b.replica().pull().await.unwrap();
    }
    let fresh = vault.open(3).await;
    assert_eq!(a.digest(), fresh.digest());
    assert_eq!(a.digest(), b.digest());
    let pages =
        skrin_storage::Prefix::new(format!("rooms/{}/pages", vault.world.keys.room())).unwrap();
    for page in vault.store.list(&pages).await.unwrap().objects {
        vault.store.delete(&page.name).await.unwrap();
    }
    let folded = vault.open(3).await;
    assert_eq!(a.digest(), folded.digest());
}

/// A member who writes by hand what no program of ours writes.
pub(super) async fn put_by_hand(vault: &Vault, n: usize, commit: &Commit) -> Head {
    let world = &vault.world;
    let sealed = seal_commit(commit, &world.keys, world.signer(n), &world.entropy).unwrap();
    let names = RoomNames(world.keys.room());
    let name = names.commit(&sealed.head).unwrap();
    vault.store.put(&name, sealed.bytes.clone()).await.unwrap();
    let tip = names.tip(&sealed.head).unwrap();
    vault
        .store
        .put(&tip, Bytes::from_static(b"\n"))
        .await
        .unwrap();
    sealed.head
}

/// Every commit that lies on the storage, with its name and its head.
pub(super) fn all_commits(vault: &Vault) -> Vec<(ObjectName, Head)> {
    let head = |name: ObjectName| {
        let lane = name.as_str().split('/').nth(3)?;
        let (seq, hash) = parse_commit_file(name.file_name())?;
        let lane = LaneId::from_hex(lane)?;
        Some((name, Head { lane, seq, hash }))
    };
    vault.store.names().into_iter().filter_map(head).collect()
}

#[tokio::test]
async fn a_commit_that_a_reader_seals_again_is_the_same_commit_and_stops_nobody() {
    let vault = Vault::new(905);
    let mut rng = Rng(905);
    let mut a = vault.open(0).await;
    for _ in 0..3 {
        a.act(&mut rng);
        a.publish().await.unwrap();
    }
    for (name, head) in all_commits(&vault) {
        let object = vault.store.peek(&name).unwrap();
        let again = vault.world.seal_again(&head, &object);
        vault.store.tamper(&name, Some(again));
    }
    // The device itself, running and started again, with and without its cache; and one that comes new.
    for forget in [false, true] {
        a.act(&mut rng);
        a.publish().await.unwrap();
        a.replica().pull().await.unwrap();
        assert_eq!(a.kinds(), []);
        match forget {
            true => a.forget_cache(),
            false => a.replica = None,
        }
        a.open(&vault).await.unwrap();
    }
    let tip = a.publish().await.unwrap().head.unwrap();
    assert_eq!(tip.seq, 4, "it goes on in its lane");
    let fresh = vault.open(3).await;
    assert_eq!(fresh.kinds(), []);
    assert_eq!(fresh.digest(), a.digest());
    let report = a.replica().verify(|_| {}).await.unwrap();
    assert_eq!(report.problems, []);
}

#[tokio::test]
async fn a_commit_that_a_reader_seals_again_under_another_name_is_refused_and_is_no_fork() {
    let vault = Vault::new(906);
    let mut rng = Rng(906);
    let mut a = vault.open(0).await;
    let mut b = vault.open(1).await;
    a.act(&mut rng);
    let head = a.publish().await.unwrap().head.unwrap();
    let names = RoomNames(vault.world.keys.room());
    let object = vault.store.peek(&names.commit(&head).unwrap()).unwrap();
    let again = vault.world.seal_again(&head, &object);
    let hash = skrin_crypto::hash(&again);
    let copy = Head { hash, ..head };
    let name = names.commit(&copy).unwrap();
    for (name, bytes) in [
        (name.clone(), again),
        (names.tip(&copy).unwrap(), Bytes::from_static(b"\n")),
    ] {
        vault.store.tamper(&name, Some(bytes));
    }
    // The device itself comes last: it takes the copy's tip away, as an old one of its lane.
    for device in [&mut b, &mut a] {
        device.act(&mut rng);
        device.publish().await.unwrap();
        let findings = device.replica().status().findings;
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].kind, FindingKind::Integrity);
        assert_eq!(findings[0].object, name.as_str());
    }
    // Started again as well: a copy of its state would stop it here.
    a.open(&vault).await.unwrap();
    a.act(&mut rng);
    let tip = a.publish().await.unwrap().head.unwrap();
    assert_eq!((tip.lane, tip.seq), (head.lane, 2));
    b.replica().pull().await.unwrap();
    assert_eq!(a.digest(), b.digest());
    assert!(!a.kinds().contains(&FindingKind::Cloned));
    let report = a.replica().verify(|_| {}).await.unwrap();
    let bad: Vec<&str> = report.problems.iter().map(|p| p.object.as_str()).collect();
    assert!(bad.contains(&name.as_str()), "{bad:?}");
}

fn a_segment_of(vault: &Vault, lane: LaneId) -> SegmentInfo {
    SegmentInfo {
        id: vault.world.keys.segment_id(lane, 0),
        author: lane,
        number: 0,
        object_len: 262_144,
        table_offset: 262_000,
        table_hash: Hash32([6; 32]),
        table_key: [6; 32],
        slots: 1,
    }
}

#[tokio::test]
async fn a_segment_of_another_device_cannot_be_declared() {
    let vault = Vault::new(904);
    let mut rng = Rng(904);
    let mut a = vault.open(0).await;
    a.act(&mut rng);
    let tip = a.publish().await.unwrap().head.unwrap();
    let theirs = a_segment_of(&vault, tip.lane);
    let first = vault.world.first_commit(1);
    let commit = Commit {
        heads: vec![tip],
        lamport: 2,
        segments: vec![theirs.clone()],
        ..first.clone()
    };
    put_by_hand(&vault, 1, &commit).await;
    a.replica().pull().await.unwrap();
    let declared = crate::state::segment(&a.replica().tree(), theirs.id).unwrap();
    assert_eq!(declared, None);
    assert_eq!(a.kinds(), [FindingKind::Integrity]);

    let mut renamed = a_segment_of(&vault, first.lane);
    renamed.id = theirs.id;
    let own = a_segment_of(&vault, first.lane);
    let world = &vault.world;
    let later = Commit {
        lane: world.keys.lane_id(first.device, 9),
        incarnation: 9,
        ..first.clone()
    };
    for (commit, segment, fits) in [
        (&first, &own, true),
        (&later, &own, true),
        (&first, &renamed, false),
    ] {
        let commit = Commit {
            segments: vec![segment.clone()],
            ..commit.clone()
        };
        let sealed = seal_commit(&commit, &world.keys, world.signer(1), &world.entropy).unwrap();
        let opened = open_commit(&sealed.head, &sealed.bytes, &world.keys, &world.roster());
        assert_eq!(opened.is_ok(), fits);
    }
}

#[tokio::test]
async fn operation_ids_of_another_device_cannot_be_used_up() {
    let vault = Vault::new(903);
    let mut rng = Rng(903);
    let mut a = vault.open(0).await;
    a.act(&mut rng);
    let tip = a.publish().await.unwrap().head.unwrap();
    let ops = (2..200).map(|n| an_op(vault.world.device(0), n, format!("x{n}").as_bytes()));
    let commit = Commit {
        heads: vec![tip],
        lamport: 2,
        ops: ops.collect(),
        ..vault.world.first_commit(1)
    };
    put_by_hand(&vault, 1, &commit).await;
    (0..4).for_each(|_| a.act(&mut rng));
    let before = a.digest();
    a.publish().await.unwrap();
    assert_eq!(a.pending(), 0);
    assert_eq!(a.kinds(), [FindingKind::Integrity]);
    assert_eq!(
        a.digest(),
        before,
        "nothing of another came, and nothing is lost"
    );
    assert_eq!(vault.fresh_digest().await, before);
}

/// A root of device `n` that covers nothing, and what a commit says that proposes it.
async fn put_empty_root(vault: &Vault, n: usize, floor: u64) -> Verdict {
    put_root(vault, n, floor, Vec::new()).await
}

/// The same with lanes that it covers.
async fn put_root(vault: &Vault, n: usize, floor: u64, covered: Vec<CoveredLane>) -> Verdict {
    let (world, first) = (&vault.world, vault.world.first_commit(n));
    let (rows, digest) = DigestOfRows::default().finish();
    let root = Root {
        optional: 0,
        vault: first.vault,
        room: first.room,
        name: [9; 16],
        epoch: first.epoch,
        commitment: first.commitment,
        device: first.device,
        time: first.time,
        floor,
        parent: None,
        covered,
        control: first.control.clone(),
        rules: crate::RULE_SET,
        rows,
        digest,
        pages: Vec::new(),
    };
    let (checkpoint, object) =
        seal_root(&root, &world.keys, world.signer(n), &world.entropy).unwrap();
    let name = RoomNames(first.room).checkpoint(&root.name).unwrap();
    vault.store.put(&name, object).await.unwrap();
    Verdict {
        opinion: Opinion::Propose,
        checkpoint,
        digest,
    }
}

/// The device forks its lane, so that of its two branches others see one or the other first.
#[tokio::test]
async fn a_checkpoint_proposed_in_a_branch_of_a_lane_is_judged_alike_in_any_order_of_arrival() {
    let vault = Vault::new(908);
    let mut rng = Rng(908);
    let mut a = vault.open(0).await;
    for _ in 0..5 {
        (0..4).for_each(|_| a.act(&mut rng));
        a.publish().await.unwrap();
    }
    let before = a.digest();
    let tip = a.publish().await.unwrap().head.unwrap();
    let first = Commit {
        heads: vec![tip],
        lamport: 6,
        ..vault.world.first_commit(1)
    };
    let prev = put_by_hand(&vault, 1, &first).await.hash;
    let readers = [vault.open(2).await, vault.open(3).await];
    let plain = Commit {
        seq: 1,
        prev,
        lamport: 7,
        ..vault.world.first_commit(1)
    };
    let proposing = Commit {
        verdicts: vec![put_empty_root(&vault, 1, 5).await],
        ..plain.clone()
    };
    let unforked = vault.store.snapshot();
    let mut all = Vec::new();
    for (reader, branch) in readers.iter().zip([plain, proposing]) {
        vault.store.restore(unforked.clone());
        put_by_hand(&vault, 1, &branch).await;
        reader.replica().pull().await.unwrap();
        all.extend(vault.store.snapshot());
    }
    vault.store.restore(all.into_iter().collect());
    for reader in &readers {
        reader.replica().pull().await.unwrap();
        assert!(reader.kinds().contains(&FindingKind::Fork));
        assert_eq!(reader.replica().status().checkpoint, None);
        assert_eq!(reader.digest(), before, "somebody else's work is gone");
    }
}

#[tokio::test]
async fn who_proposes_anothers_checkpoint_with_another_digest_decides_nothing() {
    let mut vault = Vault::new(909);
    vault.policy = DUE;
    let mut rng = Rng(909);
    let mut a = vault.open(0).await;
    for _ in 0..10 {
        (0..4).for_each(|_| a.act(&mut rng));
        a.publish().await.unwrap();
    }
    let reader = vault.open(2).await;
    assert!(a.replica().checkpoint_if_due().await.unwrap());
    let checkpoint = {
        let net = a.replica().net.lock().await;
        net.proposal.as_ref().unwrap().reference
    };
    let status = a.replica().status();
    let tip = a.publish().await.unwrap().head.unwrap();
    let verdict = Verdict {
        opinion: Opinion::Propose,
        checkpoint,
        digest: Hash32([1; 32]),
    };
    let commit = Commit {
        heads: vec![tip],
        lamport: status.lamport + 1,
        verdicts: vec![verdict],
        ..vault.world.first_commit(1)
    };
    put_by_hand(&vault, 1, &commit).await;
    reader.replica().pull().await.unwrap();
    assert!(reader.kinds().contains(&FindingKind::Digest), "it is told");
    for _ in 0..2 {
        a.act(&mut rng);
        a.publish().await.unwrap();
        reader.replica().pull().await.unwrap();
    }
    assert_eq!(a.replica().status().checkpoint, Some(checkpoint));
    assert_eq!(reader.replica().status().checkpoint, Some(checkpoint));
    assert_eq!(reader.digest(), a.digest());
}

#[tokio::test]
async fn a_checkpoint_that_leaves_out_what_its_proposer_had_seen_never_stands() {
    let vault = Vault::new(901);
    let mut rng = Rng(901);
    let mut a = vault.open(0).await;
    for _ in 0..5 {
        (0..4).for_each(|_| a.act(&mut rng));
        a.publish().await.unwrap();
    }
    let before = a.digest();
    let tip = a.publish().await.unwrap().head.unwrap();
    let reader = vault.open(2).await;
    let commit = Commit {
        heads: vec![tip],
        lamport: 6,
        verdicts: vec![put_empty_root(&vault, 1, 5).await],
        ..vault.world.first_commit(1)
    };
    put_by_hand(&vault, 1, &commit).await;
    for device in [&reader, &a] {
        device.replica().pull().await.unwrap();
        assert_eq!(device.digest(), before, "somebody else's work is gone");
        assert_eq!(device.replica().status().checkpoint, None);
        assert!(device.kinds().contains(&FindingKind::Integrity));
    }
}

#[tokio::test]
async fn a_lane_cannot_be_closed_before_what_was_seen_of_it() {
    let vault = Vault::new(902);
    let mut rng = Rng(902);
    let mut a = vault.open(0).await;
    let mut heads = Vec::new();
    for _ in 0..5 {
        (0..4).for_each(|_| a.act(&mut rng));
        heads.push(a.publish().await.unwrap().head.unwrap());
    }
    let before = a.digest();
    let reader = vault.open(2).await;
    let commit = Commit {
        heads: vec![heads[4]],
        lamport: 6,
        closes: vec![heads[0]],
        ..vault.world.first_commit(1)
    };
    put_by_hand(&vault, 1, &commit).await;
    reader.replica().pull().await.unwrap();
    assert_eq!(reader.kinds(), [FindingKind::Integrity]);
    assert_eq!(reader.digest(), before, "somebody else's work is gone");
    a.act(&mut rng);
    a.publish().await.unwrap();
    reader.replica().pull().await.unwrap();
    assert_eq!(reader.digest(), a.digest(), "the lane goes on");
}

/// It has a false Lamport time, which nobody computes below a checkpoint; others name it, as they must; then that
/// checkpoint stands no more.
#[tokio::test]
async fn a_commit_with_a_false_time_blocks_nobody_when_the_checkpoint_above_it_falls() {
    let mut vault = Vault::new(910);
    vault.policy = DUE;
    let mut rng = Rng(910);
    let mut a = vault.open(0).await;
    for _ in 0..12 {
        (0..4).for_each(|_| a.act(&mut rng));
        a.publish().await.unwrap();
    }
    assert!(a.replica().checkpoint_if_due().await.unwrap());
    a.act(&mut rng);
    a.publish().await.unwrap();
    assert!(a.replica().status().checkpoint.is_some());
    let reader = vault.open(2).await;
    let first = Commit {
        lamport: 5,
        ..vault.world.first_commit(1)
    };
    put_by_hand(&vault, 1, &first).await;
    for _ in 0..3 {
        a.act(&mut rng);
        a.publish().await.unwrap();
        reader.replica().pull().await.unwrap();
    }
    assert_eq!(reader.digest(), a.digest());
    let stood = reader.replica().status().checkpoint.unwrap();
    let refuting = Commit {
        lane: vault.world.keys.lane_id(vault.world.device(1), 1),
        incarnation: 1,
        heads: vec![a.publish().await.unwrap().head.unwrap()],
        lamport: a.replica().status().lamport + 1,
        verdicts: vec![Verdict {
            opinion: Opinion::Refute,
            checkpoint: stood,
            digest: Hash32::default(),
        }],
        ..vault.world.first_commit(1)
    };
    put_by_hand(&vault, 1, &refuting).await;
    let mut devices = [a, reader];
    settle(&vault, &mut devices).await;
    assert_converged(&devices, 910);
    assert_eq!(
        devices[0].replica().status().checkpoint,
        None,
        "it stands no more"
    );
    for device in &devices {
        assert!(!device.kinds().contains(&FindingKind::Cloned));
    }
    let before = devices[0].digest();
    // Whoever folds everything at once meets the false time before the floor that it lies below.
    for name in vault.store.names() {
        if name.as_str().contains("/pages/") {
            vault.store.delete(&name).await.unwrap();
        }
    }
    assert_eq!(vault.fresh_digest().await, before);
    let [mut a, reader] = devices;
    a.open(&vault).await.unwrap();
    a.act(&mut rng);
    a.publish().await.unwrap();
    reader.replica().pull().await.unwrap();
    assert_eq!(reader.digest(), a.digest(), "its lane goes on");
    let report = reader.replica().verify(|_| {}).await.unwrap();
    assert_eq!(report.digest, Some(a.digest().1));
}

/// Its operations are folded nowhere, and what follows it counts.
#[tokio::test]
async fn a_commit_with_a_false_time_below_a_proposed_floor_counts_for_nothing_in_any_order_of_arrival()
 {
    let mut vault = Vault::new(911);
    vault.policy = DUE;
    let mut rng = Rng(911);
    let mut a = vault.open(0).await;
    for _ in 0..12 {
        (0..4).for_each(|_| a.act(&mut rng));
        a.publish().await.unwrap();
    }
    let early = vault.open(2).await;
    let device = vault.world.device(1);
    let liar = Commit {
        lamport: 5,
        ops: vec![an_op(device, 1, b"a name of its own")],
        ..vault.world.first_commit(1)
    };
    let liar = put_by_hand(&vault, 1, &liar).await;
    early.replica().pull().await.unwrap();
    assert!(
        early.kinds().contains(&FindingKind::Integrity),
        "it is told"
    );
    assert!(!early.replica().core.lock().graph.knows(&liar));
    let before = early.digest();
    // One that nobody can believe, as it leaves out almost everything: its floor says how far times may be false.
    let latest = early.replica().status().lamport;
    let heads = early
        .replica()
        .core
        .lock()
        .graph
        .heads_to_name(LaneId::default());
    let proposing = Commit {
        lane: vault.world.keys.lane_id(device, 1),
        incarnation: 1,
        heads,
        lamport: latest + 1,
        verdicts: vec![put_empty_root(&vault, 1, 5).await],
        ..vault.world.first_commit(1)
    };
    put_by_hand(&vault, 1, &proposing).await;
    for _ in 0..2 {
        early.replica().pull().await.unwrap();
    }
    let fresh = vault.open(3).await;
    a.replica().pull().await.unwrap();
    for device in [&early, &fresh, &a] {
        assert_eq!(device.digest(), before);
        assert_eq!(device.replica().status().checkpoint, None);
        assert!(device.replica().core.lock().graph.knows(&liar));
        assert!(device.kinds().contains(&FindingKind::Integrity));
    }
    // From the cache as well.
    a.replica().flush().unwrap();
    a.open(&vault).await.unwrap();
    assert!(a.replica().core.lock().graph.is_mistimed(&liar));
    assert_eq!(a.digest(), before);
    let report = a.replica().verify(|_| {}).await.unwrap();
    assert_eq!(report.digest, Some(before.1));
}
