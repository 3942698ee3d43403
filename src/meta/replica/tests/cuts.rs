//! Devices that control records have ended.

mod random;

use super::attack::put_by_hand;
use super::liar::{Liar, Lie, opened};
use super::*;
use crate::commit::{CheckedCommit, Fault as CommitFault, Opinion, open_commit, seal_commit};
use crate::lane::TIP_CONTENT;
use crate::testing::an_op;
use bytes::Bytes;
use skrin_crypto::{Cut, Rights};
use std::collections::BTreeSet;

/// The record that there is from the beginning.
const FIRST: Hash32 = Hash32([5; 32]);

#[derive(Clone)]
enum Says {
    /// The device counts up to its cut, and may not write.
    Ends(DeviceId, Cut),
    /// It may not write, and never might.
    ReadsOnly(DeviceId),
    /// That record counts for nothing.
    Overrules(Hash32),
}

/// Control records, as a vault would read them.
#[derive(Clone, Default)]
pub(super) struct Records(BTreeMap<Hash32, (Vec<Hash32>, Option<Says>)>);

impl Records {
    pub(super) fn new() -> Self {
        Self([(FIRST, (Vec::new(), None))].into())
    }

    fn add(&mut self, says: Says) -> Hash32 {
        let id = Hash32([10 + self.0.len() as u8; 32]);
        self.0.insert(id, (self.heads(), Some(says)));
        id
    }

    pub(super) fn end(&mut self, device: DeviceId, cut: Cut) -> Hash32 {
        self.add(Says::Ends(device, cut))
    }

    fn heads(&self) -> Vec<Hash32> {
        let parents: BTreeSet<Hash32> = self.0.values().flat_map(|(p, _)| p.clone()).collect();
        let heads = self.0.keys().filter(|id| !parents.contains(id));
        heads.copied().collect()
    }

    /// What these heads and their ancestors say.
    fn world(&self, heads: &[Hash32]) -> Vec<&Says> {
        let (mut seen, mut todo) = (BTreeSet::new(), heads.to_vec());
        while let Some(id) = todo.pop() {
            if seen.insert(id) {
                todo.extend(&self.0[&id].0);
            }
        }
        let says = |id: &Hash32| self.0[id].1.as_ref();
        let overruled: Vec<Hash32> = seen
            .iter()
            .filter_map(|id| match says(id) {
                Some(Says::Overrules(id)) => Some(*id),
                _ => None,
            })
            .collect();
        let counting = seen.iter().filter(|id| !overruled.contains(id));
        counting.filter_map(says).collect()
    }

    pub(super) fn roster(&self, vault: &Vault) -> Roster {
        let mut roster = vault.world.roster();
        roster.control_heads = self.heads();
        for (id, (parents, _)) in &self.0 {
            roster.control.insert(*id, parents.clone());
        }
        for says in self.world(&self.heads()) {
            if let Says::Ends(device, cut) = says {
                roster.devices.get_mut(device).unwrap().cut = Some(cut.clone());
            }
        }
        roster.rights = Arc::new(self.clone());
        roster
    }
}

impl Rights for Records {
    fn may_write(&self, device: DeviceId, heads: &[Hash32]) -> bool {
        !self.world(heads).iter().any(|says| match says {
            Says::Ends(ended, _) | Says::ReadsOnly(ended) => *ended == device,
            Says::Overrules(_) => false,
        })
    }
}

/// Lets a device read the control records.
pub(super) async fn tell(device: &mut Device, vault: &Vault, records: &Records) {
    let roster = records.roster(vault);
    device.roster = Some(roster.clone());
    if device.replica.is_some() {
        let keys = vault.world.keys.clone();
        device.replica().set_control(roster, keys).await.unwrap();
    }
}

fn has(device: &Device, op: &Op) -> bool {
    crate::state::is_folded(&device.replica().tree(), op.id).unwrap()
}

async fn say(device: &mut Device, rng: &mut Rng) -> Op {
    device.act(rng);
    device.publish().await.unwrap();
    device.journal.last().unwrap().clone()
}

/// Three devices; all have seen the first commits of each, and device 1 has seen and named more of device 2 than device 0, which ends that.
struct Removal {
    vault: Vault,
    rng: Rng,
    devices: Vec<Device>,
    records: Records,
    ending: Hash32,
    /// What device 2 did within its cut and beyond it.
    within: Op,
    beyond: Op,
    /// What device 1 did after it had seen that.
    after: Op,
}

async fn removal(seed: u64) -> Removal {
    let mut vault = Vault::new(seed);
    let mut rng = Rng(seed);
    let mut devices = vec![
        vault.open(0).await,
        vault.open(1).await,
        vault.open(2).await,
    ];
    for device in &mut devices {
        device.roster = Some(vault.world.roster());
    }
    let mut within = None;
    for _ in 0..2 {
        for device in &mut devices {
            within = Some(say(device, &mut rng).await);
        }
    }
    devices[0].replica().pull().await.unwrap();
    let removed = vault.world.device(2);
    let cut = devices[0].replica().cut_of(&[removed]);
    let beyond = say(&mut devices[2], &mut rng).await;
    let after = say(&mut devices[1], &mut rng).await;
    let mut records = Records::new();
    let ending = records.end(removed, cut);
    vault.roster = Some(records.roster(&vault));
    Removal {
        vault,
        rng,
        devices,
        records,
        ending,
        within: within.unwrap(),
        beyond,
        after,
    }
}

/// The devices that stay agree among each other, with whoever begins now, and with whoever folds everything.
async fn assert_agreed(removal: &mut Removal, stay: usize) {
    let (vault, devices) = (&removal.vault, &mut removal.devices[..stay]);
    settle(vault, devices).await;
    assert_converged(devices, 0);
    assert_eq!(vault.fresh_digest().await, devices[0].digest());
    for device in devices.iter_mut() {
        let report = device.replica().verify(|_| {}).await.unwrap();
        assert_eq!(report.digest, Some(device.digest().1));
        assert_eq!(report.problems, []);
        let before = device.digest();
        for forget in [false, true] {
            if forget {
                device.forget_cache();
            }
            device.open(vault).await.unwrap();
            assert_eq!(device.digest(), before, "forget {forget}");
        }
    }
}

#[tokio::test]
async fn what_a_removed_device_wrote_beyond_its_cut_counts_for_nothing_whenever_others_hear_of_it()
{
    let mut all = removal(1200).await;
    // Who removes it.
    tell(&mut all.devices[0], &all.vault, &all.records).await;
    all.devices[0].replica().pull().await.unwrap();
    assert!(has(&all.devices[0], &all.within) && !has(&all.devices[0], &all.beyond));
    assert!(has(&all.devices[0], &all.after));
    // Who had it in the tree, and has heard of it since then.
    assert!(has(&all.devices[1], &all.beyond));
    tell(&mut all.devices[1], &all.vault, &all.records).await;
    all.devices[1].replica().pull().await.unwrap();
    assert!(has(&all.devices[1], &all.within) && !has(&all.devices[1], &all.beyond));
    assert!(all.devices[1].kinds().contains(&FindingKind::CutOff));
    assert_agreed(&mut all, 2).await;
    assert!(!has(&all.devices[0], &all.beyond) && has(&all.devices[0], &all.within));
    assert!(has(&all.devices[1], &all.after));
}

#[tokio::test]
async fn a_device_that_finds_itself_removed_publishes_nothing_reads_on_and_keeps_what_it_has() {
    let mut all = removal(1201).await;
    all.devices[2].act(&mut all.rng);
    let kept = all.devices[2].journal.last().unwrap().clone();
    tell(&mut all.devices[2], &all.vault, &all.records).await;
    for again in [false, true] {
        if again {
            all.devices[2].forget_cache();
            all.devices[2].open(&all.vault).await.unwrap();
        }
        let removed = &all.devices[2];
        assert_eq!(removed.replica().barred(), Some(Barred::Removed));
        removed.replica().pull().await.unwrap();
        let puts = removed.counters.counts().puts;
        let refused = removed.publish().await.unwrap_err();
        assert!(
            matches!(refused, ReplicaError::Barred(Barred::Removed)),
            "{refused}"
        );
        assert!(!removed.replica().checkpoint().await.unwrap());
        assert_eq!(removed.counters.counts().puts, puts);
        // What it did beyond its cut is pending again, with what it had not published.
        assert!(has(removed, &kept) && has(removed, &all.beyond) && has(removed, &all.after));
        assert_eq!(removed.pending(), 2);
    }
}

#[tokio::test]
async fn who_may_read_only_publishes_nothing_and_what_he_puts_by_hand_is_refused_and_told() {
    let mut vault = Vault::new(1202);
    let mut records = Records::new();
    let (reader, person) = (vault.world.device(2), skrin_base::PersonId([1; 16]));
    records.add(Says::ReadsOnly(reader));
    vault.roster = Some(records.roster(&vault));
    let (one, mut two) = (vault.open(0).await, vault.open(2).await);
    assert_eq!(two.replica().barred(), Some(Barred::ReadsOnly));
    assert_eq!(one.replica().barred(), None);
    two.act(&mut Rng(1));
    assert!(matches!(
        two.publish().await,
        Err(ReplicaError::Barred(Barred::ReadsOnly))
    ));
    let mut commit = vault.world.first_commit(2);
    commit.control = records.heads();
    commit.ops = vec![an_op(reader, 1, b"mine")];
    let head = put_by_hand(&vault, 2, &commit).await;
    one.replica().pull().await.unwrap();
    let finding = &one.replica().status().findings[0];
    assert_eq!(finding.kind, FindingKind::Integrity);
    for named in [
        reader.to_string(),
        person.to_string(),
        "device-2".to_owned(),
    ] {
        assert!(finding.text.contains(&named), "{}", finding.text);
    }
    assert!(!has(&one, &commit.ops[0]));
    assert!(!one.replica().needs_control().await, "nothing cures it");
    // By records that say nothing of it yet he might; what is not shown is looked for first.
    let open = |control: Vec<Hash32>| {
        let world = &vault.world;
        commit.control = control;
        let sealed = seal_commit(&commit, &world.keys, world.signer(2), &world.entropy).unwrap();
        open_commit(
            &sealed.head,
            &sealed.bytes,
            &world.keys,
            &records.roster(&vault),
        )
    };
    let mut open = open;
    assert!(open(vec![FIRST]).is_ok());
    let unknown = Hash32([99; 32]);
    let both = [records.heads(), vec![unknown]].concat();
    assert_eq!(
        open(both).unwrap_err(),
        CommitFault::UnknownControl(unknown)
    );
    let fault = open(records.heads()).unwrap_err();
    assert!(
        matches!(fault, CommitFault::NoRight { device, person: p, .. } if device == reader && p == person)
    );
    assert!(head.seq == 0);
}

#[tokio::test]
async fn what_lies_beyond_a_cut_is_not_asked_for_unless_something_that_counts_names_it() {
    let mut all = removal(1203).await;
    let (zero, one) = (0, 1);
    // Only device 1 hides what it named of it.
    tell(&mut all.devices[zero], &all.vault, &all.records).await;
    all.devices[zero].replica().pull().await.unwrap();
    let mut liar = Liar::new(2, 0);
    let ends = opened(&all.vault);
    let last = ends
        .iter()
        .rfind(|c| c.commit().device == all.vault.world.device(2));
    liar.follow(last.unwrap());
    for _ in 0..3 {
        liar.say(&all.vault, Lie::default()).await;
    }
    let gets = |device: &Device| device.counters.counts().gets;
    let before = gets(&all.devices[zero]);
    all.devices[zero].replica().pull().await.unwrap();
    assert_eq!(gets(&all.devices[zero]), before, "the lane is known");
    // Of a new lane only its commit says whose it is: once.
    let mut another = Liar::new(2, 7);
    for _ in 0..3 {
        another.say(&all.vault, Lie::default()).await;
    }
    all.devices[zero].replica().pull().await.unwrap();
    let after = gets(&all.devices[zero]);
    assert!(after > before && after <= before + 3);
    all.devices[zero].replica().pull().await.unwrap();
    assert_eq!(gets(&all.devices[zero]), after);
    // Device 1, which has not heard of it, names them all.
    say(&mut all.devices[one], &mut all.rng).await;
    all.devices[zero].replica().pull().await.unwrap();
    assert_eq!(
        gets(&all.devices[zero]),
        after + 1 + 3 + 3,
        "the commit and what it names"
    );
    tell(&mut all.devices[one], &all.vault, &all.records).await;
    assert_agreed(&mut all, 2).await;
    assert!(!has(&all.devices[0], &all.beyond));
}

#[tokio::test]
async fn a_cut_that_is_overruled_lets_everything_count_again() {
    let mut all = removal(1204).await;
    for n in 0..2 {
        tell(&mut all.devices[n], &all.vault, &all.records).await;
    }
    settle(&all.vault, &mut all.devices[..2]).await;
    assert!(!has(&all.devices[0], &all.beyond) && !has(&all.devices[1], &all.beyond));
    all.records.add(Says::Overrules(all.ending));
    all.vault.roster = Some(all.records.roster(&all.vault));
    for n in 0..3 {
        tell(&mut all.devices[n], &all.vault, &all.records).await;
    }
    assert_eq!(all.devices[2].replica().barred(), None);
    assert_agreed(&mut all, 3).await;
    assert!(all.devices.iter().all(|d| has(d, &all.beyond)));
}

#[tokio::test]
async fn a_checkpoint_that_holds_what_lies_beyond_a_cut_never_stands_for_who_knows_the_cut() {
    let mut all = removal(1205).await;
    // Device 1 makes one of everything that it has seen.
    for _ in 0..2 {
        all.devices[2].publish().await.unwrap();
        say(&mut all.devices[1], &mut all.rng).await;
        say(&mut all.devices[2], &mut all.rng).await;
    }
    say(&mut all.devices[0], &mut all.rng).await;
    say(&mut all.devices[2], &mut all.rng).await;
    all.devices[1].replica().pull().await.unwrap();
    assert!(all.devices[1].replica().checkpoint().await.unwrap());
    say(&mut all.devices[1], &mut all.rng).await;
    let false_one = all.devices[1].replica().status().checkpoint;
    assert!(false_one.is_some() && has(&all.devices[1], &all.beyond));
    // Device 0 knows the cut first, device 1 when the checkpoint has long stood for it.
    for n in 0..2 {
        tell(&mut all.devices[n], &all.vault, &all.records).await;
        all.devices[n].replica().pull().await.unwrap();
        let stands = all.devices[n].replica().status().checkpoint;
        assert_eq!(stands, None);
        assert!(!has(&all.devices[n], &all.beyond));
    }
    assert_agreed(&mut all, 2).await;
    // The next one holds nothing of it, and whoever begins with it agrees.
    assert!(all.devices[0].replica().checkpoint().await.unwrap());
    say(&mut all.devices[0], &mut all.rng).await;
    say(&mut all.devices[1], &mut all.rng).await;
    let stands = all.devices[0].replica().status().checkpoint;
    assert!(stands.is_some() && stands != false_one);
    assert_agreed(&mut all, 2).await;
    let fresh = all.vault.open(3).await;
    assert_eq!(fresh.replica().status().checkpoint, stands);
    assert!(!has(&fresh, &all.beyond) && has(&fresh, &all.within));
}

/// A checkpoint does not hold what lies beyond a cut, so who begins with it does not know that his own lane had named that.
#[tokio::test]
async fn who_begins_with_a_checkpoint_and_names_again_what_lies_beyond_a_cut_is_not_told_to_go_back()
 {
    let mut all = removal(1209).await;
    let removed = all.vault.world.device(2);
    let ends = opened(&all.vault);
    let beyond = ends.iter().rfind(|c| c.commit().device == removed);
    let beyond = *beyond.unwrap().head();
    let named = |c: &&CheckedCommit| c.commit().heads.contains(&beyond);
    let after = *ends.iter().find(named).unwrap().head();
    let lane = all.devices[1].replica().own_lane().await;
    assert_eq!(after.lane, lane);
    for n in 0..2 {
        tell(&mut all.devices[n], &all.vault, &all.records).await;
    }
    for _ in 0..3 {
        say(&mut all.devices[0], &mut all.rng).await;
        say(&mut all.devices[1], &mut all.rng).await;
    }
    all.devices[0].replica().pull().await.unwrap();
    assert!(all.devices[0].replica().checkpoint().await.unwrap());
    say(&mut all.devices[0], &mut all.rng).await;
    say(&mut all.devices[1], &mut all.rng).await;
    // Somebody who has not heard of the removal leads to it once more.
    let heads = vec![beyond];
    let lie = Lie {
        heads,
        ..Lie::default()
    };
    Liar::new(3, 0).say(&all.vault, lie).await;
    all.devices[1].forget_cache();
    all.devices[1].open(&all.vault).await.unwrap();
    {
        let core = all.devices[1].replica().core.lock();
        assert!(core.graph.admitted(&beyond).is_some());
        assert!(core.graph.admitted(&after).is_none(), "it began above");
        assert!(core.graph.heads_to_name(lane).contains(&beyond));
    }
    say(&mut all.devices[1], &mut all.rng).await;
    assert_eq!(all.devices[1].replica().own_lane().await, lane);
    all.devices[0].replica().pull().await.unwrap();
    assert!(!all.devices[0].kinds().contains(&FindingKind::WentBack));
    assert_agreed(&mut all, 2).await;
}

#[tokio::test]
async fn a_refutation_and_a_close_beyond_a_cut_count_for_nothing() {
    let mut all = removal(1206).await;
    let removed = all.vault.world.device(2);
    // A checkpoint that holds nothing beyond the cut: by device 0, which has not seen more.
    tell(&mut all.devices[0], &all.vault, &all.records).await;
    settle(&all.vault, &mut all.devices[..1]).await;
    tell(&mut all.devices[1], &all.vault, &all.records).await;
    settle(&all.vault, &mut all.devices[..2]).await;
    assert!(all.devices[0].replica().checkpoint().await.unwrap());
    say(&mut all.devices[0], &mut all.rng).await;
    say(&mut all.devices[1], &mut all.rng).await;
    let stands = all.devices[1].replica().status().checkpoint.unwrap();
    assert!(all.devices[0].replica().status().checkpoint == Some(stands));
    // The removed one refutes it and ends the lanes of the others, from a lane that goes back to before.
    let mut liar = Liar::new(2, 0);
    let ends = opened(&all.vault);
    let mine = |c: &&CheckedCommit| c.commit().device == removed;
    liar.follow(ends.iter().rfind(mine).unwrap());
    let closes: Vec<Head> = {
        let tip = |n: usize| {
            *ends
                .iter()
                .rfind(|c| c.commit().device == all.vault.world.device(n))
                .unwrap()
                .head()
        };
        let mut closes = vec![tip(0), tip(1)];
        closes.sort();
        closes
    };
    let refutes = Verdict {
        opinion: Opinion::Refute,
        checkpoint: stands,
        digest: Hash32::default(),
    };
    let lie = Lie {
        closes,
        verdicts: vec![refutes],
        ..Lie::default()
    };
    let said = liar.say(&all.vault, lie).await;
    // Somebody who has not heard of the removal names it: a device that comes late.
    let mut late = Liar::new(3, 0);
    late.say(
        &all.vault,
        Lie {
            heads: vec![said],
            ..Lie::default()
        },
    )
    .await;
    for n in 0..2 {
        all.devices[n].replica().pull().await.unwrap();
        assert!(
            all.devices[n].replica().core.lock().graph.knows(&said),
            "it was named"
        );
        let status = all.devices[n].replica().status();
        assert_eq!(status.checkpoint, Some(stands));
        let open = status.lanes.iter().filter(|lane| lane.open);
        assert_eq!(open.count(), 3, "those of 0, 1 and 3");
    }
    assert_agreed(&mut all, 2).await;
    assert_eq!(all.devices[0].replica().status().checkpoint, Some(stands));
}

#[tokio::test]
async fn nobody_waits_for_a_device_that_was_removed() {
    let mut all = removal(1207).await;
    let (zero, two) = (0, 2);
    let lane = all.devices[two].replica().own_lane().await;
    let before = all.devices[zero].replica().status().floor;
    for n in 0..2 {
        tell(&mut all.devices[n], &all.vault, &all.records).await;
    }
    for _ in 0..2 {
        say(&mut all.devices[0], &mut all.rng).await;
        say(&mut all.devices[1], &mut all.rng).await;
    }
    let status = all.devices[zero].replica().status();
    assert!(status.floor > before);
    assert!(status.lanes.iter().any(|l| l.lane == lane && !l.open));
    // Nor is it closed: the record says where it ended.
    let closed = opened(&all.vault)
        .iter()
        .any(|c| c.commit().closes.iter().any(|h| h.lane == lane));
    assert!(!closed);
}

#[tokio::test]
async fn a_tip_of_a_control_record_that_is_not_known_asks_for_the_records_and_one_that_never_comes_not_for_ever()
 {
    let vault = Vault::new(1208);
    let mut one = vault.open(0).await;
    let mut rng = Rng(1208);
    say(&mut one, &mut rng).await;
    let names = RoomNames(vault.world.keys.room());
    let put = |record: Hash32| {
        let tip = names.control_tip(&record).unwrap();
        vault
            .store
            .tamper(&tip, Some(Bytes::from_static(TIP_CONTENT)));
    };
    put(FIRST);
    one.replica().pull().await.unwrap();
    assert!(!one.replica().needs_control().await, "it is known");
    put(Hash32([77; 32]));
    let before = one.counters.counts();
    one.replica().pull().await.unwrap();
    assert_eq!(one.counters.counts().since(&before).operations(), 1);
    let keys = || vault.world.keys.clone();
    let mut read = 0;
    for _ in 0..100_000 {
        if one.replica().needs_control().await {
            read += 1;
            let roster = vault.world.roster();
            one.replica().set_control(roster, keys()).await.unwrap();
            assert!(!one.replica().needs_control().await);
        }
        vault.clock.advance(1_000_000_000);
    }
    assert_eq!(read, 16);
    assert_eq!(one.kinds(), []);
    assert_eq!(one.replica().verify(|_| {}).await.unwrap().problems, []);
    // Another one is news, and known when the records have it.
    let mut records = Records::new();
    let news = records.end(vault.world.device(1), Cut::new());
    put(news);
    one.replica().pull().await.unwrap();
    assert!(one.replica().needs_control().await);
    tell(&mut one, &vault, &records).await;
    assert!(!one.replica().needs_control().await);
}
