//! Checkpoints as other devices meet them.

use super::vectors::a_segment;
use super::*;
use bytes::Bytes;
use skrin_storage::ObjectName;

/// A device with a history, a checkpoint that stands, and some commits after it.
pub(super) async fn with_checkpoint(seed: u64) -> (Vault, Device) {
    let mut vault = Vault::new(seed);
    vault.policy = CheckpointPolicy {
        ops: 30,
        bytes: u64::MAX,
    };
    let mut rng = Rng(seed);
    let mut device = vault.open(0).await;
    assert!(!device.replica().checkpoint_if_due().await.unwrap());
    for _ in 0..10 {
        (0..5).for_each(|_| device.act(&mut rng));
        device.publish().await.unwrap();
    }
    assert!(device.replica().checkpoint_if_due().await.unwrap());
    for _ in 0..2 {
        device.act(&mut rng);
        device.publish().await.unwrap();
    }
    assert!(device.replica().status().checkpoint.is_some());
    assert!(
        !device.replica().checkpoint_if_due().await.unwrap(),
        "once is enough"
    );
    (vault, device)
}

fn names(vault: &Vault, part: &str) -> Vec<ObjectName> {
    let names = vault.store.names().into_iter();
    names.filter(|name| name.as_str().contains(part)).collect()
}

#[tokio::test]
async fn a_fresh_device_begins_with_the_checkpoint_and_gets_only_what_came_after() {
    let (vault, device) = with_checkpoint(30).await;
    let fresh = vault.open(1).await;
    assert_eq!(fresh.digest(), device.digest());
    let cost = fresh.counters.counts();
    // The tip's commit, the root, one page, and the two commits between tip and floor; not the ten before.
    assert!(cost.gets <= 6, "{cost:?}");
    assert_eq!(
        fresh.replica().status().checkpoint,
        device.replica().status().checkpoint
    );
    assert_eq!(
        fresh.replica().status().heads_code(),
        device.replica().status().heads_code()
    );
}

#[tokio::test]
async fn a_second_checkpoint_uses_unchanged_pages_again() {
    let (vault, mut device) = with_checkpoint(31).await;
    let mut rng = Rng(31);
    let before = names(&vault, "/pages/").len();
    for _ in 0..8 {
        (0..5).for_each(|_| device.act(&mut rng));
        device.publish().await.unwrap();
    }
    assert!(device.replica().checkpoint_if_due().await.unwrap());
    device.act(&mut rng);
    device.publish().await.unwrap();
    // This tree fits in one page, which did change.
    assert_eq!(names(&vault, "/pages/").len(), before + 1);
    assert_eq!(names(&vault, "/checkpoints/").len(), 2);
    assert_eq!(vault.fresh_digest().await, device.digest());
}

#[tokio::test]
async fn damage_to_root_or_page_is_told_and_everything_is_folded_from_the_commits() {
    for part in ["/checkpoints/", "/pages/"] {
        for at in [0usize, 4, 5, 40, 900] {
            let (vault, device) = with_checkpoint(32).await;
            let name = names(&vault, part).pop().unwrap();
            let mut bytes = vault.store.peek(&name).unwrap().to_vec();
            bytes[at] ^= 1;
            vault.store.tamper(&name, Some(Bytes::from(bytes)));
            let fresh = vault.open(1).await;
            assert_eq!(fresh.digest(), device.digest());
            let findings = fresh.replica().status().findings;
            let found = findings.iter().find(|f| f.object == name.as_str());
            assert_eq!(
                found.map(|f| f.kind),
                Some(FindingKind::Integrity),
                "{findings:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_missing_root_or_page_is_told_and_everything_is_folded_from_the_commits() {
    for part in ["/checkpoints/", "/pages/"] {
        let (vault, device) = with_checkpoint(33).await;
        let name = names(&vault, part).pop().unwrap();
        vault.store.tamper(&name, None);
        let fresh = vault.open(1).await;
        assert_eq!(fresh.digest(), device.digest());
        assert!(fresh.kinds().contains(&FindingKind::Withheld), "{part}");
    }
}

/// What it covers is reachable by nothing else: the way from the newest commit to those below leads through the damaged one.
#[tokio::test]
async fn a_checkpoint_whose_proposing_commit_is_damaged_is_begun_with_all_the_same() {
    let (vault, device) = with_checkpoint(38).await;
    let reference = device.replica().status().checkpoint.unwrap();
    let floor = {
        let snapshot = device.replica().core.lock().snapshot_at(reference.floor);
        snapshot.unwrap().unwrap()
    };
    let mut rows = 0;
    floor
        .run()
        .unwrap()
        .for_each(|_, _| {
            rows += 1;
            Ok::<_, RowsError>(())
        })
        .unwrap();
    let mut commits = names(&vault, "/lanes/");
    commits.sort();
    // The newest but one proposes it.
    let name = &commits[commits.len() - 2];
    let mut bytes = vault.store.peek(name).unwrap().to_vec();
    bytes[40] ^= 1;
    vault.store.tamper(name, Some(Bytes::from(bytes)));
    let fresh = vault.open(1).await;
    assert_eq!(fresh.replica().status().checkpoint, Some(reference));
    assert!(fresh.digest().0 >= rows, "all that it covers");
    assert!(fresh.kinds().contains(&FindingKind::Integrity));
}

#[tokio::test]
async fn a_device_that_holds_the_state_confirms_the_digest_in_its_next_commit() {
    let vault = Vault {
        policy: CheckpointPolicy {
            ops: 5,
            bytes: u64::MAX,
        },
        ..Vault::new(34)
    };
    let mut rng = Rng(34);
    let mut devices = [vault.open(0).await, vault.open(1).await];
    for _ in 0..3 {
        for device in &mut devices {
            (0..3).for_each(|_| device.act(&mut rng));
            device.publish().await.unwrap();
        }
    }
    assert!(devices[0].replica().checkpoint_if_due().await.unwrap());
    devices[0].act(&mut rng);
    devices[0].publish().await.unwrap();
    let proposed = devices[0].replica().status().checkpoint.unwrap();
    devices[1].replica().pull().await.unwrap();
    let said = devices[1].replica().net.lock().await.verdicts.clone();
    assert_eq!(said.len(), 1);
    assert_eq!(
        (said[0].opinion, said[0].checkpoint),
        (crate::commit::Opinion::Confirm, proposed)
    );
    assert_eq!(devices[1].replica().status().checkpoint, Some(proposed));
    settle(&vault, &mut devices).await;
    assert_converged(&devices, 34);
}

#[tokio::test]
async fn a_commit_below_the_floor_that_no_checkpoint_holds_is_void_and_published_again() {
    let (vault, device) = with_checkpoint(35).await;
    let mut rng = Rng(35);
    // A newcomer who is shown an empty storage publishes at Lamport time 1.
    let aside = Vault {
        world: World::new(35),
        ..Vault::new(35)
    };
    let mut late = Device {
        ..aside.open(1).await
    };
    (0..3).for_each(|_| late.act(&mut rng));
    late.publish().await.unwrap();
    for name in aside.store.names() {
        vault.store.tamper(&name, aside.store.peek(&name));
    }
    device.replica().pull().await.unwrap();
    let before = device.digest();
    // The journal forgets what is published.
    late.journal.clear();
    for _ in 0..3 {
        late.open(&vault).await.unwrap();
        assert_eq!(
            late.pending(),
            3,
            "its operations are to be published again"
        );
        late.replica().flush().unwrap();
    }
    let mut devices = [device, late];
    settle(&vault, &mut devices).await;
    assert_converged(&devices, 35);
    assert_ne!(devices[0].digest(), before, "nothing was lost");
    assert_eq!(vault.fresh_digest().await, devices[0].digest());
}

/// The journal lets go of what was published, so only the kept commit still has it.
#[tokio::test]
async fn what_a_void_commit_said_is_still_published_again_after_a_restart() {
    for (flush, forget) in [(false, false), (true, false), (false, true)] {
        let (vault, device) = with_checkpoint(37).await;
        let mut rng = Rng(37);
        let aside = Vault {
            world: World::new(37),
            ..Vault::new(37)
        };
        let mut late = aside.open(1).await;
        (0..3).for_each(|_| late.act(&mut rng));
        let lane = late.replica().own_lane().await;
        let segment = a_segment(&vault, lane);
        late.replica().core.lock().redeclare.push(segment.clone());
        late.publish().await.unwrap();
        late.journal.clear();
        for name in aside.store.names() {
            vault.store.tamper(&name, aside.store.peek(&name));
        }
        device.replica().pull().await.unwrap();
        for _ in 0..2 {
            late.open(&vault).await.unwrap();
            assert_eq!(late.pending(), 3, "{flush} {forget}");
            assert!(late.replica().tree().redeclares(&segment.id));
            if flush {
                late.replica().flush().unwrap();
            }
            if forget {
                late.forget_cache();
            }
        }
        if late.replica.is_none() {
            late.open(&vault).await.unwrap();
        }
        let mut devices = [device, late];
        settle(&vault, &mut devices).await;
        assert_converged(&devices, 37);
        let declared = crate::state::segment(&devices[0].replica().tree(), segment.id);
        assert_eq!(declared.unwrap(), Some(segment));
        let [device, mut late] = devices;
        let before = device.digest();
        late.open(&vault).await.unwrap();
        assert_eq!(late.pending(), 0, "and only once");
        assert!(late.replica().core.lock().redeclare.is_empty());
        assert_eq!(vault.fresh_digest().await, before);
    }
}

#[tokio::test]
async fn a_checkpoint_that_was_overtaken_is_not_proposed() {
    let vault = Vault::new(36);
    let mut rng = Rng(36);
    let mut devices = [vault.open(0).await, vault.open(1).await];
    for _ in 0..3 {
        devices[0].act(&mut rng);
        devices[0].publish().await.unwrap();
    }
    assert!(devices[0].replica().checkpoint().await.unwrap());
    // Somebody who was shown nothing publishes below its floor before it is proposed.
    let stale = skrin_storage::fault::Rule::new(skrin_storage::fault::Failure::StaleList);
    devices[1].faults.add(stale);
    devices[1].act(&mut rng);
    devices[1].publish().await.unwrap();
    assert_eq!(devices[1].replica().status().lamport, 1);
    settle(&vault, &mut devices).await;
    devices[0].act(&mut rng);
    settle(&vault, &mut devices).await;
    assert_eq!(devices[0].replica().status().checkpoint, None);
    assert_converged(&devices, 36);
}

/// Found by random programs: those who had folded the closed lane waited for ever for somebody to name it who had begun above it.
#[tokio::test]
async fn who_begins_with_a_checkpoint_does_not_hold_the_floor_by_closed_lanes_that_lie_in_it() {
    let vault = Vault::new(45);
    let mut rng = Rng(45);
    let mut devices = [vault.open(0).await, vault.open(1).await];
    for device in &mut devices {
        device.act(&mut rng);
        device.publish().await.unwrap();
    }
    let closing = devices[0].replica().close_lane(Settled::default());
    closing.await.unwrap();
    for _ in 0..2 {
        devices[1].act(&mut rng);
        devices[1].publish().await.unwrap();
    }
    assert!(devices[1].replica().checkpoint().await.unwrap());
    devices[1].act(&mut rng);
    devices[1].publish().await.unwrap();
    let mut fresh = vault.open(2).await;
    for _ in 0..2 {
        fresh.act(&mut rng);
        fresh.publish().await.unwrap();
        devices[1].act(&mut rng);
        devices[1].publish().await.unwrap();
    }
    let status = devices[1].replica().status();
    assert!(status.floor > status.checkpoint.unwrap().floor);
}
