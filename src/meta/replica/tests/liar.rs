//! A member's device that proposes false checkpoints, closes the lanes of others and refutes what is right.

mod false_roots;
mod flood;
pub(super) mod random;

use super::attack::{all_commits, put_by_hand};
use super::*;
use crate::checkpoint::{
    CoveredLane, DigestOfRows, PageRef, Paginator, Root, seal_page, seal_root,
};
use crate::commit::{CheckedCommit, Commit, Opinion, Verdict, open_commit};
use crate::order::OrderKey;
use crate::rows::MemoryRows;
use crate::testing::an_op;
use skrin_storage::ErrorKind::Transient;
use skrin_storage::Verb;
use skrin_storage::fault::{Failure, Rule};
use std::collections::BTreeSet;

/// All commits that lie on the storage, in their order.
pub(super) fn opened(vault: &Vault) -> Vec<CheckedCommit> {
    let (keys, roster) = (&vault.world.keys, vault.world.roster());
    let open = |(name, head)| {
        let object = vault.store.peek(&name)?;
        open_commit(&head, &object, keys, &roster).ok()
    };
    let mut all: Vec<_> = all_commits(vault).into_iter().filter_map(open).collect();
    all.sort_by_key(|c| {
        let (head, lamport) = (c.head(), c.commit().lamport);
        OrderKey::new(keys.room(), head.lane, lamport, head.seq, &head.hash)
    });
    all
}

/// What the device writes, one commit after the other in one lane.
pub(super) struct Liar {
    n: usize,
    incarnation: u32,
    last: Option<Head>,
    lamport: u64,
    /// Makes each commit another one.
    said: i64,
    /// Its lanes with a false Lamport time. Nobody may admit what follows, so nobody refutes what it proposes either, and who
    /// begins with such a checkpoint believes it: a losing case (docs/threat-model.md, section 1).
    pub(super) false_lanes: BTreeSet<LaneId>,
}

#[derive(Default)]
pub(super) struct Lie {
    pub(super) heads: Vec<Head>,
    pub(super) closes: Vec<Head>,
    pub(super) verdicts: Vec<Verdict>,
    pub(super) ops: Vec<Op>,
    pub(super) standing: Option<CheckpointRef>,
    /// A Lamport time that is not the computed one.
    pub(super) lamport: Option<u64>,
}

impl Liar {
    pub(super) fn new(n: usize, incarnation: u32) -> Self {
        Self {
            n,
            incarnation,
            last: None,
            lamport: 0,
            said: 0,
            false_lanes: BTreeSet::new(),
        }
    }

    /// Goes on after a commit of its device.
    pub(super) fn follow(&mut self, last: &CheckedCommit) {
        (self.last, self.lamport) = (Some(*last.head()), last.commit().lamport);
    }

    fn lane(&self, vault: &Vault) -> LaneId {
        let device = vault.world.device(self.n);
        vault.world.keys.lane_id(device, self.incarnation)
    }

    pub(super) async fn say(&mut self, vault: &Vault, lie: Lie) -> Head {
        let all = opened(vault);
        let named =
            |c: &&CheckedCommit| lie.heads.contains(c.head()) || lie.closes.contains(c.head());
        let named = all.iter().filter(named).map(|c| c.commit().lamport).max();
        let lamport = named.unwrap_or(0).max(self.lamport) + 1;
        let lamport = lie.lamport.unwrap_or(lamport);
        self.said += 1;
        let commit = Commit {
            time: Timestamp(self.said),
            lane: self.lane(vault),
            incarnation: self.incarnation,
            seq: self.last.map_or(0, |last| last.seq + 1),
            prev: self.last.map_or(Hash32::default(), |last| last.hash),
            lamport,
            heads: lie.heads,
            closes: lie.closes,
            verdicts: lie.verdicts,
            ops: lie.ops,
            standing: lie.standing,
            ..vault.world.first_commit(self.n)
        };
        let head = put_by_hand(vault, self.n, &commit).await;
        (self.last, self.lamport) = (Some(head), lamport);
        head
    }

    async fn name(&mut self, vault: &Vault, heads: Vec<Head>) -> Head {
        let rest = Lie::default();
        self.say(vault, Lie { heads, ..rest }).await
    }

    async fn close(&mut self, vault: &Vault, closes: Vec<Head>) -> Head {
        let rest = Lie::default();
        self.say(vault, Lie { closes, ..rest }).await
    }

    /// Says what it thinks of checkpoints.
    async fn give(&mut self, vault: &Vault, verdicts: Vec<Verdict>) -> Head {
        let rest = Lie::default();
        self.say(vault, Lie { verdicts, ..rest }).await
    }

    /// Commits that name nobody, until the next one has this Lamport time.
    async fn rise(&mut self, vault: &Vault, lamport: u64) {
        while self.lamport + 1 < lamport {
            self.say(vault, Lie::default()).await;
        }
    }
}

/// An end of a lane, for a root.
fn end_of(checked: &CheckedCommit) -> CoveredLane {
    let (head, commit) = (checked.head(), checked.commit());
    CoveredLane {
        lane: head.lane,
        device: commit.device,
        incarnation: commit.incarnation,
        seq: head.seq,
        hash: head.hash,
        lamport: commit.lamport,
        time: commit.time,
        closed: None,
    }
}

/// A whole checkpoint with the rows that what it covers folds to.
async fn put_checkpoint(
    vault: &Vault,
    n: usize,
    floor: u64,
    parent: Option<CheckpointRef>,
    covered: Vec<CoveredLane>,
) -> Verdict {
    let (world, first) = (&vault.world, vault.world.first_commit(n));
    let names = RoomNames(first.room);
    let mut rows = MemoryRows::default();
    for checked in opened(vault).iter().filter(|c| c.commit().lamport <= floor) {
        let end = covered.iter().find(|end| end.lane == checked.head().lane);
        let last = end.map(|end| end.closed.unwrap_or(end.seq).min(end.seq));
        if last.is_some_and(|last| checked.head().seq <= last) {
            Core::fold_one(&mut rows, checked.commit()).unwrap();
        }
    }
    let (mut digest, mut paginator) = (DigestOfRows::default(), Paginator::default());
    let mut contents = Vec::new();
    for (key, value) in &rows.0 {
        digest.row(key, value);
        contents.extend(paginator.row(key, value));
    }
    contents.extend(paginator.finish());
    let mut pages = Vec::new();
    for content in contents {
        let name = skrin_base::clock::random(&world.entropy);
        let sealed = seal_page(&content, name, &first.epoch, &world.keys, &world.entropy).unwrap();
        pages.push(PageRef {
            name,
            hash: skrin_crypto::hash(&sealed),
            plain_hash: content.plain_hash(),
            first_key: content.first_key.clone(),
        });
        vault
            .store
            .tamper(&names.page(&name).unwrap(), Some(sealed.into()));
    }
    let (rows, digest) = digest.finish();
    let root = Root {
        optional: 0,
        vault: first.vault,
        room: first.room,
        name: skrin_base::clock::random(&world.entropy),
        epoch: first.epoch,
        commitment: first.commitment,
        device: first.device,
        time: first.time,
        floor,
        parent,
        covered,
        control: first.control.clone(),
        rules: crate::RULE_SET,
        rows,
        digest,
        pages,
    };
    let sealed = seal_root(&root, &world.keys, world.signer(n), &world.entropy).unwrap();
    let (checkpoint, object) = sealed;
    let name = names.checkpoint(&root.name).unwrap();
    vault.store.tamper(&name, Some(object));
    Verdict {
        opinion: Opinion::Propose,
        checkpoint,
        digest,
    }
}

/// A device with 48 operations in 12 commits, a checkpoint of them if asked, and a reader that has seen all.
async fn with_history(seed: u64, checkpoint: bool) -> (Vault, Device, Device) {
    let vault = Vault::new(seed);
    let mut rng = Rng(seed);
    let mut a = vault.open(0).await;
    for _ in 0..12 {
        (0..4).for_each(|_| a.act(&mut rng));
        a.publish().await.unwrap();
    }
    if checkpoint {
        assert!(a.replica().checkpoint().await.unwrap());
        for _ in 0..2 {
            a.act(&mut rng);
            a.publish().await.unwrap();
        }
        assert!(a.replica().status().checkpoint.is_some());
    }
    let reader = vault.open(2).await;
    (vault, a, reader)
}

fn told(device: &Device) -> bool {
    device.kinds().contains(&FindingKind::Refuted)
}

/// After an attack: everybody has what stood before, the next commit says who refutes what, and who begins with nothing
/// agrees with who folds everything.
async fn assert_repelled(
    vault: &Vault,
    mut devices: Vec<Device>,
    stands: Option<CheckpointRef>,
    before: Digest,
) {
    for device in &devices {
        device.replica().pull().await.unwrap();
        assert_eq!(device.digest(), before, "somebody else's work is gone");
        assert_eq!(device.replica().status().checkpoint, stands);
        assert!(told(device), "{:?}", device.kinds());
    }
    // Nobody has any operations.
    for device in &devices {
        assert!(device.replica().tree().has_to_refute());
        assert_eq!(device.publish().await.unwrap().commits, 1);
        assert!(!device.replica().tree().has_to_refute());
        assert_eq!(device.publish().await.unwrap().commits, 0, "once is enough");
    }
    settle(vault, &mut devices).await;
    assert_converged(&devices, 0);
    assert_eq!(devices[0].digest(), before);
    let fresh = vault.open(3).await;
    assert_eq!(fresh.digest(), before);
    assert_eq!(fresh.replica().status().checkpoint, stands);
    assert!(!fresh.replica().tree().has_to_refute());
    let report = devices[0].replica().verify(|_| {}).await.unwrap();
    assert_eq!(report.digest, Some(before.1));
    for device in &mut devices {
        device.forget_cache();
        device.open(vault).await.unwrap();
        assert_eq!(device.digest(), before);
        assert_eq!(device.replica().status().checkpoint, stands);
        assert_eq!(device.publish().await.unwrap().commits, 0);
    }
}

/// It takes no parent and an early place: nine commits that name nobody once replaced everything that stood.
#[tokio::test]
async fn a_checkpoint_that_would_replace_the_chain_from_below_is_refuted() {
    let (vault, a, reader) = with_history(920, true).await;
    let (before, stands) = (a.digest(), a.replica().status().checkpoint);
    let mut liar = Liar::new(1, 0);
    liar.rise(&vault, 9).await;
    let own = opened(&vault)
        .into_iter()
        .find(|c| Some(*c.head()) == liar.last);
    let proposal = put_checkpoint(&vault, 1, 8, None, vec![end_of(&own.unwrap())]).await;
    let verdicts = vec![proposal];
    liar.give(&vault, verdicts).await;
    assert_repelled(&vault, vec![a, reader], stands, before).await;
}

/// It voids nothing that anybody misses, but those who began with the chain do not know where it forks, and would not follow.
#[tokio::test]
async fn a_checkpoint_that_would_replace_the_chain_and_voids_nothing_is_refuted_too() {
    let (vault, a, reader) = with_history(931, true).await;
    let (before, stands) = (a.digest(), a.replica().status().checkpoint);
    let mut liar = Liar::new(1, 0);
    liar.rise(&vault, 9).await;
    let all = opened(&vault);
    let last = |device: usize| {
        let device = vault.world.device(device);
        let up_to = |c: &&CheckedCommit| c.commit().lamport <= 8 && c.commit().device == device;
        end_of(all.iter().rfind(up_to).unwrap())
    };
    let mut covered = vec![last(0), last(1)];
    covered.sort_by_key(|end| end.lane);
    let verdicts = vec![put_checkpoint(&vault, 1, 8, None, covered).await];
    liar.give(&vault, verdicts).await;
    assert_repelled(&vault, vec![a, reader], stands, before).await;
}

#[tokio::test]
async fn a_first_checkpoint_by_a_device_that_pretends_to_have_seen_nobody_is_refuted() {
    let (vault, a, reader) = with_history(921, false).await;
    let before = a.digest();
    let mut liar = Liar::new(1, 0);
    liar.rise(&vault, 13).await;
    let own = opened(&vault)
        .into_iter()
        .find(|c| Some(*c.head()) == liar.last);
    let proposal = put_checkpoint(&vault, 1, 12, None, vec![end_of(&own.unwrap())]).await;
    let verdicts = vec![proposal];
    liar.give(&vault, verdicts).await;
    assert_repelled(&vault, vec![a, reader], None, before).await;
}

#[tokio::test]
async fn a_child_of_the_standing_checkpoint_that_leaves_out_what_came_since_is_refuted_and_so_is_its_child()
 {
    let (vault, mut a, reader) = with_history(922, true).await;
    let mut rng = Rng(922);
    for _ in 0..5 {
        a.act(&mut rng);
        a.publish().await.unwrap();
    }
    reader.replica().pull().await.unwrap();
    let (before, stands) = (a.digest(), a.replica().status().checkpoint);
    let floor = stands.unwrap().floor;
    let all = opened(&vault);
    let last_below = all.iter().rfind(|c| c.commit().lamport <= floor).unwrap();
    let mut liar = Liar::new(1, 0);
    liar.rise(&vault, floor + 6).await;
    let end = end_of(last_below);
    let proposal = put_checkpoint(&vault, 1, floor + 4, stands, vec![end.clone()]).await;
    let parent = Some(proposal.checkpoint);
    let verdicts = vec![proposal];
    liar.give(&vault, verdicts).await;
    let child = put_checkpoint(&vault, 1, floor + 5, parent, vec![end]).await;
    let reference = child.checkpoint;
    let verdicts = vec![child];
    liar.give(&vault, verdicts).await;
    assert_repelled(&vault, vec![a, reader], stands, before).await;
    let refuted = opened(&vault).iter().any(|c| {
        let mut said = c.commit().verdicts.iter();
        said.any(|v| v.opinion == Opinion::Refute && v.checkpoint == reference)
    });
    assert!(refuted, "who begins with the child must hear of it");
}

/// It says that the lane ended, which makes void what came after.
#[tokio::test]
async fn a_checkpoint_that_ends_the_lane_of_another_is_refuted() {
    let (vault, a, reader) = with_history(923, false).await;
    let before = a.digest();
    let all = opened(&vault);
    let mut liar = Liar::new(1, 0);
    let heads = vec![*all.last().unwrap().head()];
    liar.name(&vault, heads).await;
    let end = CoveredLane {
        closed: Some(3),
        ..end_of(all.iter().rfind(|c| c.commit().lamport <= 6).unwrap())
    };
    let proposal = put_checkpoint(&vault, 1, 6, None, vec![end]).await;
    let verdicts = vec![proposal];
    liar.give(&vault, verdicts).await;
    assert_repelled(&vault, vec![a, reader], None, before).await;
}

#[tokio::test]
async fn a_checkpoint_with_a_parent_at_the_end_of_all_times_is_refuted_and_stops_nobody() {
    let (vault, a, reader) = with_history(932, false).await;
    let before = a.digest();
    let mut liar = Liar::new(1, 0);
    let heads = vec![*opened(&vault).last().unwrap().head()];
    let parent = CheckpointRef {
        name: [1; 16],
        hash: Hash32([1; 32]),
        floor: u64::MAX,
    };
    let verdicts = vec![put_checkpoint(&vault, 1, 3, Some(parent), Vec::new()).await];
    let lie = Lie {
        heads,
        verdicts,
        ..Lie::default()
    };
    liar.say(&vault, lie).await;
    assert_repelled(&vault, vec![a, reader], None, before).await;
}

/// The storage helps: it shows the root only when the proposal has long been seen.
#[tokio::test]
async fn a_false_checkpoint_whose_root_comes_late_is_refuted_all_the_same() {
    for forget in [false, true] {
        let (vault, mut a, reader) = with_history(924, false).await;
        let before = a.digest();
        let mut liar = Liar::new(1, 0);
        liar.rise(&vault, 13).await;
        let own = opened(&vault)
            .into_iter()
            .find(|c| Some(*c.head()) == liar.last);
        let proposal = put_checkpoint(&vault, 1, 12, None, vec![end_of(&own.unwrap())]).await;
        let name = RoomNames(vault.world.keys.room()).checkpoint(&proposal.checkpoint.name);
        let (name, verdicts) = (name.unwrap(), vec![proposal]);
        let root = vault.store.peek(&name);
        vault.store.tamper(&name, None);
        liar.give(&vault, verdicts).await;
        for device in [&a, &reader] {
            for _ in 0..2 {
                device.replica().pull().await.unwrap();
            }
            assert!(!told(device));
        }
        if forget {
            a.forget_cache();
            vault.store.tamper(&name, root.clone());
            a.open(&vault).await.unwrap();
        }
        vault.store.tamper(&name, root);
        vault.clock.advance(120_000_000_000);
        assert_repelled(&vault, vec![a, reader], None, before).await;
    }
}

#[tokio::test]
async fn a_refutation_is_owed_until_a_commit_says_it_also_after_crashes_and_without_the_cache() {
    for (forget, flush) in [(false, false), (true, false), (false, true)] {
        let (vault, mut a, reader) = with_history(925, true).await;
        let (before, stands) = (a.digest(), a.replica().status().checkpoint);
        let mut liar = Liar::new(1, 0);
        liar.rise(&vault, 9).await;
        let proposal = put_checkpoint(&vault, 1, 8, None, Vec::new()).await;
        let verdicts = vec![proposal];
        liar.give(&vault, verdicts).await;
        a.replica().pull().await.unwrap();
        a.faults
            .add(Rule::new(Failure::Before(Transient)).on(Verb::Put));
        if flush {
            a.replica().flush().unwrap();
        }
        for _ in 0..2 {
            match forget {
                true => a.forget_cache(),
                false => a.replica = None,
            }
            a.open(&vault).await.unwrap();
            assert!(a.replica().tree().has_to_refute());
            assert_eq!(a.digest(), before);
        }
        // Sealed and kept, and not put: it is said when it is put.
        a.publish().await.unwrap_err();
        a.replica = None;
        a.faults.clear();
        a.open(&vault).await.unwrap();
        assert!(!a.replica().tree().has_to_refute());
        reader.replica().pull().await.unwrap();
        reader.publish().await.unwrap();
        assert_eq!(vault.fresh_digest().await, before);
        assert_eq!(reader.replica().status().checkpoint, stands);
    }
}

/// What it would make void was seen by nobody else: its own device publishes it again.
#[tokio::test]
async fn an_honest_checkpoint_that_misses_a_late_first_commit_is_not_refuted() {
    let vault = Vault::new(926);
    let mut rng = Rng(926);
    let (mut a, mut b) = (vault.open(0).await, vault.open(1).await);
    b.faults
        .add(Rule::new(Failure::Before(Transient)).on(Verb::Put));
    b.act(&mut rng);
    b.publish().await.unwrap_err();
    for _ in 0..6 {
        a.act(&mut rng);
        a.publish().await.unwrap();
    }
    assert!(a.replica().checkpoint().await.unwrap());
    a.publish().await.unwrap();
    a.act(&mut rng);
    a.publish().await.unwrap();
    b.faults.clear();
    let mut devices = [a, b];
    settle(&vault, &mut devices).await;
    assert_converged(&devices, 926);
    for device in &devices {
        assert!(!told(device), "{:?}", device.replica().status().findings);
        assert!(device.replica().status().checkpoint.is_some());
    }
}

/// Whoever folds all commits once took what follows for void, and whoever began with the checkpoint did not.
#[tokio::test]
async fn a_close_below_what_a_checkpoint_holds_takes_nothing_from_anybody() {
    let (vault, a, reader) = with_history(927, true).await;
    let before = a.digest();
    let fresh = vault.open(3).await;
    let all = opened(&vault);
    let mut liar = Liar::new(1, 0);
    let closes = vec![*all[3].head()];
    liar.close(&vault, closes).await;
    let mut devices = vec![a, reader, fresh];
    for device in &devices {
        device.replica().pull().await.unwrap();
        assert_eq!(device.digest(), before);
        assert!(
            device.kinds().contains(&FindingKind::Integrity),
            "it is told"
        );
    }
    for device in &mut devices {
        device.forget_cache();
        device.open(&vault).await.unwrap();
        assert_eq!(device.digest(), before);
    }
    // All three continue, the one whose lane it was in the same lane.
    let mut rng = Rng(927);
    let lane = devices[0].replica().own_lane().await;
    for device in &mut devices {
        device.act(&mut rng);
    }
    settle(&vault, &mut devices).await;
    assert_converged(&devices, 927);
    assert_eq!(devices[0].replica().own_lane().await, lane);
    let report = devices[0].replica().verify(|_| {}).await.unwrap();
    assert_eq!(report.digest, Some(devices[0].digest().1));
}

/// The close came first: it counts until a checkpoint stands that was made without it.
#[tokio::test]
async fn a_close_that_a_checkpoint_does_not_know_counts_no_more_when_that_stands() {
    let (vault, mut a, mut reader) = with_history(928, false).await;
    let mut rng = Rng(928);
    let all = opened(&vault);
    reader.act(&mut rng);
    let theirs = reader.publish().await.unwrap().head.unwrap();
    a.act(&mut rng);
    a.publish().await.unwrap();
    assert!(a.replica().checkpoint().await.unwrap());
    // Who closes has seen four commits of twelve, and nobody has seen the close.
    let mut liar = Liar::new(1, 0);
    let (heads, closes) = (vec![theirs], vec![*all[3].head()]);
    let aside = vault.store.snapshot();
    let lie = Lie {
        heads,
        closes,
        ..Lie::default()
    };
    liar.say(&vault, lie).await;
    let close = vault.store.snapshot();
    vault.store.restore(aside);
    a.act(&mut rng);
    a.publish().await.unwrap();
    let before = a.digest();
    let honest = vault.store.snapshot();
    // The reader sees the close first, then the checkpoint.
    vault.store.restore(close.clone());
    reader.replica().pull().await.unwrap();
    assert_ne!(reader.digest(), before);
    vault
        .store
        .restore(close.into_iter().chain(honest).collect());
    let mut devices = vec![a, reader, vault.open(3).await];
    for device in &devices {
        device.replica().pull().await.unwrap();
    }
    settle(&vault, &mut devices).await;
    assert_converged(&devices, 928);
    assert_eq!(devices[0].digest(), before);
    assert!(devices[0].replica().status().checkpoint.is_some());
    let report = devices[0].replica().verify(|_| {}).await.unwrap();
    assert_eq!(report.digest, Some(before.1));
}

/// Both branches count, as those who fold all commits take them in; who began with the checkpoint cannot tell what it holds of
/// the lane.
#[tokio::test]
async fn a_branch_that_leaves_its_lane_below_a_checkpoint_is_the_same_for_who_began_with_that() {
    let (vault, mut a, reader) = with_history(929, false).await;
    let mut rng = Rng(929);
    let mut liar = Liar::new(1, 0);
    let mut told = Vec::new();
    for _ in 0..5 {
        a.act(&mut rng);
        let heads = vec![a.publish().await.unwrap().head.unwrap()];
        told.push(liar.name(&vault, heads).await);
    }
    for _ in 0..2 {
        a.act(&mut rng);
        a.publish().await.unwrap();
        assert!(a.replica().checkpoint().await.is_ok());
    }
    a.act(&mut rng);
    a.publish().await.unwrap();
    let checkpoint = a.replica().status().checkpoint.unwrap();
    let began = vault.open(3).await;
    // The second commit is no end of the lane there, but lies before it.
    assert!(began.replica().core.lock().graph.is_below(&told[1]));
    // The second commit once more, later than the checkpoint.
    let tip = a.publish().await.unwrap().head.unwrap();
    let device = vault.world.device(1);
    liar.last = Some(told[0]);
    let lie = Lie {
        heads: vec![tip],
        ops: vec![an_op(device, 1, b"of another branch")],
        ..Lie::default()
    };
    let branch = liar.say(&vault, lie).await;
    assert!(liar.lamport > checkpoint.floor);
    // Somebody who folds all commits names it, as he must.
    let mut devices = vec![a, reader, began];
    for device in &mut devices {
        device.replica().pull().await.unwrap();
        device.act(&mut rng);
        device.publish().await.unwrap();
    }
    settle(&vault, &mut devices).await;
    assert_converged(&devices, 929);
    for device in &devices {
        let folded = device.replica().core.lock().graph.admitted(&branch);
        assert_eq!(folded, Some(liar.lamport));
    }
    assert_eq!(vault.fresh_digest().await, devices[0].digest());
    // The next checkpoint holds both branches, and who begins with that needs nothing from before.
    let owner = &mut devices[0];
    for _ in 0..2 {
        owner.act(&mut rng);
        owner.publish().await.unwrap();
    }
    settle(&vault, &mut devices).await;
    let report = devices[0].replica().verify(|_| {}).await.unwrap();
    assert_eq!(report.digest, Some(devices[0].digest().1));
}

/// It sorts before what it follows, and everything must come out of one pull.
#[tokio::test]
async fn a_false_time_below_that_of_what_it_follows_keeps_nothing_from_a_new_device() {
    let (vault, mut a, _) = with_history(930, true).await;
    let mut rng = Rng(930);
    let mut liar = Liar::new(1, 0);
    let heads = vec![a.publish().await.unwrap().head.unwrap()];
    let lie = Lie {
        heads,
        lamport: Some(2),
        ..Lie::default()
    };
    liar.say(&vault, lie).await;
    for _ in 0..2 {
        a.act(&mut rng);
        a.publish().await.unwrap();
    }
    for name in vault.store.names() {
        if name.as_str().contains("/pages/") {
            assert_eq!(vault.fresh_digest().await, a.digest());
            vault.store.delete(&name).await.unwrap();
        }
    }
    assert_eq!(vault.fresh_digest().await, a.digest());
    let report = a.replica().verify(|_| {}).await.unwrap();
    assert_eq!(report.digest, Some(a.digest().1));
}

/// What lies below what can be undone was folded long ago; it must not stay for those who were there and go for new devices.
#[tokio::test]
async fn a_close_far_below_what_was_seen_is_the_same_for_who_cannot_undo_that_far() {
    let vault = Vault::new(940);
    let mut rng = Rng(940);
    let mut a = vault.open(0).await;
    for _ in 0..100 {
        a.act(&mut rng);
        a.publish().await.unwrap();
    }
    let mut b = vault.open(2).await;
    b.act(&mut rng);
    let heads = vec![b.publish().await.unwrap().head.unwrap()];
    for _ in 0..2 {
        a.act(&mut rng);
        a.publish().await.unwrap();
        b.act(&mut rng);
        b.publish().await.unwrap();
    }
    let reader = vault.open(3).await;
    let all = opened(&vault);
    let mut liar = Liar::new(1, 0);
    let closes = vec![*all[3].head()];
    liar.say(
        &vault,
        Lie {
            heads,
            closes,
            ..Lie::default()
        },
    )
    .await;
    reader.replica().pull().await.unwrap();
    assert_eq!(vault.open(3).await.digest(), reader.digest());
    let mut devices = vec![a, b];
    settle(&vault, &mut devices).await;
    assert_eq!(vault.fresh_digest().await, devices[0].digest());
    reader.replica().pull().await.unwrap();
    assert_eq!(reader.digest(), devices[0].digest());
    for op in &devices[0].journal {
        assert!(crate::state::is_folded(&reader.replica().tree(), op.id).unwrap());
    }
}

/// Nobody's lane gets that far any more, and all who make checkpoints afterwards would take the end back.
#[tokio::test]
async fn a_checkpoint_that_ends_a_lane_beyond_what_it_holds_does_not_stop_later_ones() {
    let (vault, mut a, reader) = with_history(941, false).await;
    let mut rng = Rng(941);
    let all = opened(&vault);
    let last = all.last().unwrap();
    let mut liar = Liar::new(1, 0);
    let heads = vec![*last.head()];
    liar.name(&vault, heads).await;
    let end = CoveredLane {
        closed: Some(last.head().seq + 5),
        ..end_of(last)
    };
    let verdicts = vec![put_checkpoint(&vault, 1, last.commit().lamport, None, vec![end]).await];
    liar.give(&vault, verdicts).await;
    reader.replica().pull().await.unwrap();
    for _ in 0..3 {
        a.act(&mut rng);
        let heads = vec![a.publish().await.unwrap().head.unwrap()];
        liar.name(&vault, heads).await;
    }
    a.replica().pull().await.unwrap();
    assert!(a.replica().checkpoint().await.unwrap());
    a.act(&mut rng);
    a.publish().await.unwrap();
    let made = a.replica().status().checkpoint;
    assert!(made.is_some_and(|made| made.floor > last.commit().lamport));
    reader.replica().pull().await.unwrap();
    assert_eq!(reader.replica().status().checkpoint, made);
    assert!(!told(&reader), "{:?}", reader.replica().status().findings);
}

/// One head of each lane is remembered, and the proposal lies in another branch.
#[tokio::test]
async fn a_checkpoint_proposed_in_a_branch_is_not_refuted_by_who_had_seen_it_and_lost_the_cache() {
    let (vault, mut a, mut reader) = with_history(942, false).await;
    let mut rng = Rng(942);
    let all = opened(&vault);
    let last = all.last().unwrap();
    let mut liar = Liar::new(1, 0);
    let heads = vec![*last.head()];
    let lie = Lie {
        heads,
        ..Lie::default()
    };
    let first = liar.say(&vault, lie).await;
    let (floor, end) = (last.commit().lamport, end_of(last));
    let verdicts = vec![put_checkpoint(&vault, 1, floor, None, vec![end]).await];
    liar.give(&vault, verdicts).await;
    a.act(&mut rng);
    let heads = vec![a.publish().await.unwrap().head.unwrap()];
    // It comes below the checkpoint, too late, and everybody sees it.
    Liar::new(1, 1).say(&vault, Lie::default()).await;
    reader.replica().pull().await.unwrap();
    let stands = reader.replica().status().checkpoint;
    assert!(stands.is_some());
    liar.last = Some(first);
    liar.name(&vault, heads).await;
    a.act(&mut rng);
    a.publish().await.unwrap();
    reader.replica().pull().await.unwrap();
    reader.forget_cache();
    reader.open(&vault).await.unwrap();
    let findings = reader.replica().status().findings;
    assert!(!told(&reader), "{findings:?}");
    assert_eq!(reader.replica().status().checkpoint, stands);
}
