//! A storage that changes, withholds or takes back.

use super::liar::{Liar, Lie};
use super::*;
use crate::lane::TIP_CONTENT;
use bytes::Bytes;
use skrin_storage::fault::{Failure, Rule};
use skrin_storage::{ErrorKind, ObjectName, Verb};

async fn two_with_history(seed: u64) -> (Vault, Vec<Device>) {
    let vault = Vault::new(seed);
    let mut rng = Rng(seed);
    let mut devices = vec![vault.open(0).await, vault.open(1).await];
    for round in 0..6 {
        devices[round % 2].act(&mut rng);
        devices[round % 2].publish().await.unwrap();
    }
    settle(&vault, &mut devices).await;
    (vault, devices)
}

fn commits(vault: &Vault) -> Vec<ObjectName> {
    let names = vault.store.names().into_iter();
    names
        .filter(|name| name.as_str().contains("/lanes/"))
        .collect()
}

#[tokio::test]
async fn an_old_copy_of_the_whole_vault_is_noticed_by_whoever_has_seen_more() {
    let (vault, mut devices) = two_with_history(20).await;
    let old = vault.store.snapshot();
    devices[0].act(&mut Rng(20));
    devices[0].publish().await.unwrap();
    devices[1].replica().pull().await.unwrap();
    vault.store.restore(old);
    vault.clock.advance(700_000_000_000);
    for device in &mut devices {
        let digest = device.digest();
        let error = device.replica().pull().await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, ReplicaError::RolledBack(_)), "{text}");
        assert!(text.contains("device-0 (2026-"), "who and when: {text}");
        let ReplicaError::RolledBack(rollback) = &error else {
            panic!("{text}");
        };
        let (shown, seen) = (
            rollback.shown.as_ref().unwrap(),
            rollback.newest_lost().unwrap(),
        );
        assert!(shown.time < seen.time && seen.label == "device-0");
        assert!(
            text.contains("the storage shows the state of 2026-"),
            "{text}"
        );
        assert!(text.contains("this device has seen 2026-"), "{text}");
        assert!(text.contains("written by device-0"), "{text}");
        assert!(device.kinds().contains(&FindingKind::Rollback));
        assert_eq!(device.digest(), digest, "the tree stays as it was");
        device.replica().flush().unwrap();
        for forget in [false, true] {
            if forget {
                device.forget_cache();
            }
            let error = device.open(&vault).await.unwrap_err();
            assert!(matches!(error, ReplicaError::RolledBack(_)), "{error}");
        }
    }
}

/// Puts a tip for each lane that a device knows, of a later commit that nobody wrote.
fn invent_tips(vault: &Vault, device: &Device) {
    let names = RoomNames(vault.world.keys.room());
    for seen in device.replica().status().lanes {
        let head = Head {
            lane: seen.lane,
            seq: seen.seq + 3,
            hash: Hash32([0xee; 32]),
        };
        let tip = names.tip(&head).unwrap();
        let content = Bytes::from_static(TIP_CONTENT);
        vault.store.tamper(&tip, Some(content));
    }
}

/// What a device remembers on its disk.
fn remembered(vault: &Vault, device: &Device) -> Heads {
    let keys = &vault.world.keys;
    let file = HeadsFile::new(
        device.dir.path().join("heads"),
        LocalKey::from_bytes([1; 32]),
        keys.vault(),
        keys.room(),
        vault.world.device(device.n),
    );
    file.load().unwrap().unwrap()
}

/// What it remembers of one lane.
fn remembered_end(vault: &Vault, device: &Device, lane: LaneId) -> Head {
    remembered(vault, device).lanes[&lane].head
}

#[tokio::test]
async fn an_old_copy_with_an_invented_tip_for_each_lane_is_noticed_with_and_without_the_cache() {
    let (vault, mut devices) = two_with_history(28).await;
    let old = vault.store.snapshot();
    devices[0].act(&mut Rng(28));
    devices[0].publish().await.unwrap();
    devices[1].replica().pull().await.unwrap();
    vault.store.restore(old);
    invent_tips(&vault, &devices[1]);
    for device in &mut devices {
        let before = remembered(&vault, device);
        assert_eq!(before.lanes.len(), 2);
        let error = device.replica().pull().await.unwrap_err();
        let text = error.to_string();
        let ReplicaError::RolledBack(rollback) = error else {
            panic!("{text}");
        };
        assert_eq!(rollback.lost.len(), 1, "{text}");
        let (shown, seen) = (
            rollback.shown.as_ref().unwrap(),
            rollback.newest_lost().unwrap(),
        );
        assert!(shown.time < seen.time, "{text}");
        assert_eq!(rollback.lost[0].shown, Some(seen.head.seq - 1));
        device.replica().flush().unwrap();
        for forget in [false, true] {
            if forget {
                device.forget_cache();
            }
            // Nothing that it writes meanwhile makes it forget.
            for _ in 0..2 {
                let error = device.open(&vault).await.unwrap_err();
                assert!(matches!(error, ReplicaError::RolledBack(_)), "{error}");
                assert_eq!(remembered(&vault, device), before);
            }
        }
    }
}

#[tokio::test]
async fn a_tip_whose_commit_cannot_be_had_for_the_moment_accuses_nobody() {
    let failures = [
        Failure::Withhold,
        Failure::CutGet(500),
        Failure::Before(ErrorKind::Transient),
    ];
    for (failure, forget) in failures.into_iter().flat_map(|f| [(f, false), (f, true)]) {
        let (vault, mut devices) = two_with_history(29).await;
        devices[0].act(&mut Rng(29));
        let newest = devices[0].publish().await.unwrap().head.unwrap();
        let expected = devices[0].digest();
        let device = &mut devices[1];
        let before = remembered(&vault, device);
        let name = RoomNames(vault.world.keys.room()).commit(&newest).unwrap();
        let rule = Rule::new(failure).on(Verb::Get);
        device.faults.add(rule.named(move |n| n == name.as_str()));
        let ranges = device.counters.counts().ranges;
        let looked = match forget {
            false => device.replica().pull().await.map(drop),
            true => {
                device.forget_cache();
                device.open(&vault).await
            }
        };
        match failure {
            Failure::Before(_) => assert!(looked.unwrap_err().is_transient(), "no verdict"),
            _ => {
                looked.unwrap();
                device.replica().pull().await.unwrap();
                let asked = device.counters.counts().ranges - ranges;
                assert_eq!(asked, 1, "for what was seen of that lane, once");
                assert!(!device.kinds().contains(&FindingKind::Rollback));
            }
        }
        assert_eq!(remembered(&vault, device).lanes, before.lanes);
        device.faults.clear();
        vault.clock.advance(61_000_000_000);
        if device.replica.is_none() {
            device.open(&vault).await.unwrap();
        }
        device.replica().pull().await.unwrap();
        assert_eq!((device.digest(), device.kinds()), (expected, Vec::new()));
        assert_eq!(remembered_end(&vault, device, newest.lane), newest);
    }
}

#[tokio::test]
async fn what_was_seen_stays_remembered_while_the_storage_withholds_what_leads_to_it() {
    let (vault, mut devices) = two_with_history(30).await;
    let old = vault.store.snapshot();
    let complete = devices[1].digest();
    let mut rng = Rng(30);
    let mut heads = Vec::new();
    for _ in 0..2 {
        devices[0].act(&mut rng);
        heads.push(devices[0].publish().await.unwrap().head.unwrap());
    }
    let expected = devices[0].digest();
    let (hidden, newest) = (heads[0], heads[1]);
    let device = &mut devices[1];
    device.replica().pull().await.unwrap();
    assert_eq!(remembered_end(&vault, device, newest.lane), newest);
    let name = RoomNames(vault.world.keys.room()).commit(&hidden).unwrap();
    hide(device, &name);
    for _ in 0..2 {
        device.forget_cache();
        device.open(&vault).await.unwrap();
        assert_eq!(device.digest(), complete);
        assert_eq!(device.kinds(), [FindingKind::Incomplete]);
        assert_eq!(remembered_end(&vault, device, newest.lane), newest);
    }
    // Also while it runs.
    let new = vault.store.snapshot();
    vault.store.restore(old);
    invent_tips(&vault, device);
    let error = device.replica().pull().await.unwrap_err();
    assert!(matches!(error, ReplicaError::RolledBack(_)), "{error}");
    assert_eq!(remembered_end(&vault, device, newest.lane), newest);
    vault.store.restore(new);
    device.faults.clear();
    vault.clock.advance(61_000_000_000);
    device.replica().pull().await.unwrap();
    assert_eq!(device.digest(), expected);
    assert_eq!(remembered_end(&vault, device, newest.lane), newest);
}

/// What a crash left unconfirmed is put before everything could be asked for.
#[tokio::test]
async fn a_commit_that_is_put_while_others_cannot_be_had_lets_nobody_forget_them() {
    let (vault, mut devices) = two_with_history(33).await;
    let mut rng = Rng(33);
    devices[1].replica().flush().unwrap();
    devices[0].act(&mut rng);
    let newest = devices[0].publish().await.unwrap().head.unwrap();
    let device = &mut devices[1];
    device.replica().pull().await.unwrap();
    device.act(&mut rng);
    let once = Rule::new(Failure::Before(ErrorKind::Transient)).times(1);
    device.faults.add(once.on(Verb::Put));
    assert!(device.publish().await.unwrap_err().is_transient());
    assert_eq!(remembered_end(&vault, device, newest.lane), newest);
    device.replica = None;
    let name = RoomNames(vault.world.keys.room()).commit(&newest).unwrap();
    let away = Rule::new(Failure::Before(ErrorKind::Transient)).on(Verb::Get);
    device.faults.add(away.named(move |n| n == name.as_str()));
    device.open(&vault).await.unwrap();
    assert!(!device.replica().status().in_flight, "its own was put");
    assert_eq!(remembered_end(&vault, device, newest.lane), newest);
}

#[tokio::test]
async fn a_commit_that_was_seen_and_is_damaged_is_told_as_damage_by_who_lost_the_cache() {
    for len in [0, 500] {
        let (vault, mut devices) = two_with_history(31).await;
        devices[0].act(&mut Rng(31));
        let newest = devices[0].publish().await.unwrap().head.unwrap();
        let expected = devices[0].digest();
        let device = &mut devices[1];
        device.replica().pull().await.unwrap();
        let name = RoomNames(vault.world.keys.room()).commit(&newest).unwrap();
        let whole = vault.store.peek(&name).unwrap();
        vault.store.tamper(&name, Some(whole.slice(..len)));
        device.forget_cache();
        device.open(&vault).await.unwrap();
        let findings = device.replica().status().findings;
        assert_eq!(device.kinds(), [FindingKind::Integrity], "{findings:?}");
        assert_eq!(findings[0].object, name.as_str());
        assert_eq!(remembered_end(&vault, device, newest.lane), newest);
        vault.store.tamper(&name, Some(whole));
        vault.clock.advance(61_000_000_000);
        device.replica().pull().await.unwrap();
        assert_eq!((device.digest(), device.kinds()), (expected, Vec::new()));
    }
}

#[tokio::test]
async fn of_many_lanes_that_no_tip_shows_a_pull_asks_for_so_many_and_the_next_ones_for_the_others()
{
    let vault = Vault::new(32);
    let device = vault.open(0).await;
    for incarnation in 0..10 {
        let mut other = Liar::new(1, incarnation);
        other.say(&vault, Lie::default()).await;
    }
    device.replica().pull().await.unwrap();
    for name in vault.store.names() {
        if name.as_str().contains("/tips/") {
            vault.store.tamper(&name, None);
        }
    }
    for expected in [4, 4, 2, 0] {
        let before = device.counters.counts();
        device.replica().pull().await.unwrap();
        let cost = device.counters.counts().since(&before);
        assert_eq!((cost.lists, cost.ranges), (1, expected));
    }
}

#[tokio::test]
async fn a_storage_restored_from_a_backup_gets_the_lost_commits_again() {
    let (vault, mut devices) = two_with_history(21).await;
    let old = vault.store.snapshot();
    let mut rng = Rng(21);
    for _ in 0..3 {
        devices[0].act(&mut rng);
        devices[0].publish().await.unwrap();
    }
    let expected = devices[0].digest();
    vault.store.restore(old);
    assert!(devices[0].replica().pull().await.is_err());
    assert_eq!(devices[0].replica().put_again().await.unwrap(), 3);
    devices[0].replica().pull().await.unwrap();
    devices[1].replica().pull().await.unwrap();
    assert_eq!(devices[1].digest(), expected);
    assert_eq!(vault.fresh_digest().await, expected);
}

#[tokio::test]
async fn a_device_that_cannot_open_a_storage_that_went_back_puts_again_what_it_wrote_and_opens_it()
{
    for forget in [false, true] {
        let (vault, mut devices) = two_with_history(24).await;
        let old = vault.store.snapshot();
        let mut rng = Rng(24);
        for _ in 0..3 {
            devices[0].act(&mut rng);
            devices[0].publish().await.unwrap();
        }
        let expected = devices[0].digest();
        devices[0].replica().flush().unwrap();
        vault.store.restore(old);
        if forget {
            devices[0].forget_cache();
        }
        let error = devices[0].open(&vault).await.unwrap_err();
        assert!(matches!(error, ReplicaError::RolledBack(_)), "{error}");
        let before = vault.store.names().len();
        assert_eq!(devices[0].put_own_again(&vault).await.unwrap(), 3);
        assert_eq!(devices[0].put_own_again(&vault).await.unwrap(), 0);
        assert!(vault.store.names().len() > before + 3, "tips too");
        devices[0].open(&vault).await.unwrap();
        assert_eq!(devices[0].digest(), expected);
        devices[1].replica().pull().await.unwrap();
        assert_eq!(devices[1].digest(), expected);
        // Whoever knows nothing finds it by the tips.
        assert_eq!(vault.fresh_digest().await, expected);
    }
}

#[tokio::test]
async fn an_empty_storage_is_a_rollback_too() {
    let (vault, devices) = two_with_history(22).await;
    vault.store.restore(BTreeMap::new());
    let error = devices[0].replica().pull().await.unwrap_err();
    let ReplicaError::RolledBack(rollback) = error else {
        panic!("{error}");
    };
    assert_eq!(rollback.lost.len(), 2);
    assert!(rollback.lost.iter().all(|lost| lost.shown.is_none()));
    assert_eq!(rollback.shown, None);
    let text = rollback.to_string();
    assert!(text.contains("no state that can be read"), "{text}");
}

#[tokio::test]
async fn tips_are_hints_and_their_absence_proves_nothing() {
    let (vault, devices) = two_with_history(23).await;
    for name in vault.store.names() {
        if name.as_str().contains("/tips/") {
            vault.store.tamper(&name, None);
        }
    }
    let before = devices[0].counters.counts();
    devices[0].replica().pull().await.unwrap();
    let cost = devices[0].counters.counts().since(&before);
    assert_eq!(
        (cost.lists, cost.ranges),
        (1, 2),
        "each lane's commit is asked for by name"
    );
    devices[0].replica().pull().await.unwrap();
    assert_eq!(
        devices[0].counters.counts().since(&before).ranges,
        2,
        "and not at every poll"
    );
}

#[tokio::test]
async fn a_changed_byte_of_a_commit_is_told_with_its_name_and_folds_nothing() {
    for at in [0usize, 4, 7, 13, 30, 700, 1036] {
        let vault = Vault::new(24);
        let mut rng = Rng(24);
        let (mut one, two) = (vault.open(0).await, vault.open(1).await);
        let empty = two.digest();
        one.act(&mut rng);
        one.publish().await.unwrap();
        let first = commits(&vault).pop().unwrap();
        one.act(&mut rng);
        one.publish().await.unwrap();
        let honest = vault.store.peek(&first).unwrap();
        let mut bytes = honest.to_vec();
        bytes[at] ^= 0x10;
        vault.store.tamper(&first, Some(Bytes::from(bytes)));
        two.replica().pull().await.unwrap();
        assert_eq!(two.digest(), empty);
        let kind = || {
            let findings = two.replica().status().findings;
            let found = findings.iter().find(|f| f.object == first.as_str());
            found.map(|f| f.kind)
        };
        // The hint stands in clear: at first it may be of an epoch that is not known yet.
        let expected = match at {
            5..13 => FindingKind::Unknown,
            _ => FindingKind::Integrity,
        };
        assert_eq!(kind(), Some(expected), "at {at}");
        vault.clock.advance(121_000_000_000);
        two.replica().pull().await.unwrap();
        assert_eq!(kind(), Some(FindingKind::Integrity), "at {at}");
        two.replica()
            .publish(0, Vec::new(), Settled::default())
            .await
            .expect("a changed byte is no newer program");
        vault.store.tamper(&first, Some(honest));
        vault.clock.advance(61_000_000_000);
        two.replica().pull().await.unwrap();
        assert_eq!(two.digest(), one.digest(), "and it heals");
        assert!(two.replica().status().findings.is_empty());
    }
}

#[tokio::test]
async fn a_commit_cut_short_that_nobody_follows_is_no_alarm() {
    let vault = Vault::new(25);
    let (mut one, two) = (vault.open(0).await, vault.open(1).await);
    one.act(&mut Rng(25));
    one.publish().await.unwrap();
    let name = commits(&vault).pop().unwrap();
    let whole = vault.store.peek(&name).unwrap();
    vault.store.tamper(&name, Some(whole.slice(..500)));
    two.replica().pull().await.unwrap();
    assert_eq!(two.kinds(), [FindingKind::Incomplete]);
}

/// Two devices, the last but one commit of the first, which the second is not shown, and the state of the second before.
async fn with_one_hidden(seed: u64) -> (Vault, [Device; 2], ObjectName, Digest) {
    let vault = Vault::new(seed);
    let mut rng = Rng(seed);
    let (mut one, two) = (vault.open(0).await, vault.open(1).await);
    one.act(&mut rng);
    one.publish().await.unwrap();
    two.replica().pull().await.unwrap();
    let complete = two.digest();
    one.act(&mut rng);
    one.publish().await.unwrap();
    let hidden = one.replica().commits.list().unwrap().pop().unwrap();
    let hidden = RoomNames(vault.world.keys.room()).commit(&hidden).unwrap();
    one.act(&mut rng);
    one.publish().await.unwrap();
    hide(&two, &hidden);
    (vault, [one, two], hidden, complete)
}

fn hide(device: &Device, object: &ObjectName) {
    let name = object.to_string();
    let rule = Rule::new(Failure::Withhold).on(Verb::Get);
    device.faults.add(rule.named(move |n| n == name));
}

#[tokio::test]
async fn hours_in_which_the_storage_could_not_be_asked_are_no_alarm() {
    let (vault, [_, two], hidden, _) = with_one_hidden(27).await;
    two.replica().pull().await.unwrap();
    assert_eq!(two.kinds(), [FindingKind::Incomplete]);
    // The machine slept, and woke up where there is no network.
    two.faults.clear();
    two.faults
        .add(Rule::new(Failure::Before(ErrorKind::Transient)));
    vault.clock.advance(5 * 3_600_000_000_000);
    two.replica().pull().await.unwrap_err();
    assert_eq!(two.kinds(), [FindingKind::Incomplete]);
    // Whoever is still not shown it then has waited long enough.
    two.faults.clear();
    hide(&two, &hidden);
    two.replica().pull().await.unwrap();
    assert_eq!(two.kinds(), [FindingKind::Withheld]);
}

#[tokio::test]
async fn a_withheld_commit_leaves_the_last_complete_state_and_is_told_after_two_minutes() {
    let (vault, [one, two], hidden, complete) = with_one_hidden(26).await;
    two.replica().pull().await.unwrap();
    assert_eq!(
        (two.digest(), two.kinds()),
        (complete, vec![FindingKind::Incomplete])
    );
    vault.clock.advance(121_000_000_000);
    two.replica().pull().await.unwrap();
    let findings = two.replica().status().findings;
    assert_eq!(findings.len(), 1);
    assert_eq!(
        (findings[0].kind, findings[0].object.as_str()),
        (FindingKind::Withheld, hidden.as_str())
    );
    assert_eq!(two.digest(), complete);
    two.faults.clear();
    vault.clock.advance(61_000_000_000);
    two.replica().pull().await.unwrap();
    assert_eq!(two.digest(), one.digest());
}

#[tokio::test]
async fn a_damaged_file_of_remembered_heads_stops_the_mount() {
    let (vault, mut devices) = two_with_history(27).await;
    devices[0].replica = None;
    let path = devices[0].dir.path().join("heads");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = devices[0].open(&vault).await.unwrap_err();
    assert!(error.to_string().contains("heads"), "{error}");
}

#[tokio::test]
async fn a_commit_of_an_unknown_device_waits_for_the_control_records() {
    let vault = Vault::new(28);
    let mut one = vault.open(0).await;
    one.act(&mut Rng(28));
    one.publish().await.unwrap();
    let two = vault.device(1);
    let mut roster = vault.world.roster();
    let known = roster.devices.remove(&vault.world.device(0)).unwrap();
    let config = vault.config(&two, two.dir.path());
    *config.roster.write() = roster;
    let shared = config.roster.clone();
    let replica = Replica::open(config).await.unwrap();
    assert!(replica.needs_control().await);
    assert_eq!(replica.status().findings[0].kind, FindingKind::Unknown);
    shared.write().devices.insert(vault.world.device(0), known);
    let before = two.counters.counts();
    replica.pull().await.unwrap();
    assert_eq!(replica.digest().unwrap(), one.digest());
    assert_eq!(two.counters.counts().since(&before).gets, 0, "it was kept");
    assert!(!replica.needs_control().await);
}
