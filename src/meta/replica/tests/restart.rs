//! Crashes, restored and copied state directories.

use super::*;
use skrin_storage::ErrorKind::Transient;
use skrin_storage::Verb;
use skrin_storage::fault::{Failure, Rule};

pub(super) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

async fn crash_around_a_put(failure: Failure, forget: bool) {
    let vault = Vault::new(10);
    let mut rng = Rng(10);
    let mut device = vault.open(0).await;
    device.act(&mut rng);
    device.publish().await.unwrap();
    (0..5).for_each(|_| device.act(&mut rng));
    let expected = device.digest();
    device.faults.add(Rule::new(failure).on(Verb::Put).times(1));
    assert!(device.publish().await.unwrap_err().is_transient());
    assert!(device.replica().status().in_flight);
    // The state counts the commit as published: its bytes are kept and will get there.
    assert_eq!((device.pending(), device.digest()), (0, expected));
    let sealed = device.replica().commits.list().unwrap().pop().unwrap();
    device.replica = None;
    if forget {
        device.forget_cache();
    }
    device.open(&vault).await.unwrap();
    assert_eq!((device.pending(), device.digest()), (0, expected));
    let name = RoomNames(vault.world.keys.room()).commit(&sealed).unwrap();
    let kept = device.replica().commits.read(&sealed).unwrap();
    assert_eq!(
        vault.store.peek(&name).unwrap(),
        kept.bytes,
        "the same bytes under the same name"
    );
    assert!(!device.replica().status().in_flight);
    assert_eq!(vault.fresh_digest().await, expected);
}

#[tokio::test]
async fn a_commit_in_flight_is_put_after_a_crash_before_the_put() {
    crash_around_a_put(Failure::Before(Transient), false).await;
    crash_around_a_put(Failure::Before(Transient), true).await;
}

#[tokio::test]
async fn a_commit_in_flight_is_settled_after_a_lost_answer() {
    crash_around_a_put(Failure::After(Transient), false).await;
    crash_around_a_put(Failure::After(Transient), true).await;
}

#[tokio::test]
async fn a_commit_that_a_server_cut_short_is_put_again() {
    let vault = Vault::new(11);
    let mut device = vault.open(0).await;
    device.act(&mut Rng(11));
    device
        .faults
        .add(Rule::new(Failure::CutPut(500)).on(Verb::Put).times(1));
    device.publish().await.unwrap();
    assert_eq!(vault.fresh_digest().await, device.digest());
}

#[tokio::test]
async fn pending_operations_leave_the_memory_when_they_are_written_and_are_published_all_the_same()
{
    let vault = Vault::new(14);
    let mut rng = Rng(14);
    let (mut device, mut other) = (vault.open(0).await, vault.open(1).await);
    (0..40).for_each(|_| device.act(&mut rng));
    let held = |device: &Device| device.replica().core.lock().held_pending();
    assert_eq!(held(&device), 40);
    device.replica().flush().unwrap();
    assert_eq!((held(&device), device.pending()), (0, 40));
    let before = device.digest();
    device.open(&vault).await.unwrap();
    assert_eq!((device.digest(), device.pending()), (before, 40));
    device.replica().flush().unwrap();
    (0..10).for_each(|_| other.act(&mut rng));
    other.publish().await.unwrap();
    device.publish().await.unwrap();
    assert_eq!(device.pending(), 0);
    other.replica().pull().await.unwrap();
    assert_eq!(other.digest(), device.digest());
    assert_eq!(vault.fresh_digest().await, device.digest());
}

#[tokio::test]
async fn a_crash_while_very_much_is_folded_in_begins_anew_and_loses_nothing() {
    let vault = Vault::new(16);
    let mut rng = Rng(16);
    let (mut device, mut other) = (vault.open(0).await, vault.open(1).await);
    (0..40).for_each(|_| other.act(&mut rng));
    other.publish().await.unwrap();
    (0..5).for_each(|_| device.act(&mut rng));
    device.replica().pull().await.unwrap();
    let expected = device.digest();
    // The state in the database is whole again after the pull.
    assert!(!device.replica().core.lock().is_anew());
    device.faults.add(Rule::new(Failure::Before(Transient)));
    device.open(&vault).await.unwrap();
    assert_eq!(device.digest(), expected);
    device.replica().core.lock().begin_in_parts().unwrap();
    // Nothing says that it is a state: without the storage there is none.
    assert!(device.open(&vault).await.unwrap_err().is_transient());
    device.faults.clear();
    device.open(&vault).await.unwrap();
    assert_eq!((device.digest(), device.pending()), (expected, 5));
}

/// What was admitted must not count as taken in before it is folded.
#[tokio::test]
async fn a_storage_that_goes_away_when_the_state_has_to_be_folded_again_hides_nothing() {
    let vault = Vault::new(17);
    let mut rng = Rng(17);
    let (mut device, mut other) = (vault.open(0).await, vault.open(1).await);
    let mut late = vault.open(2).await;
    late.act(&mut rng);
    late.faults
        .add(Rule::new(Failure::Before(Transient)).on(Verb::Put));
    assert!(late.publish().await.unwrap_err().is_transient());
    for _ in 0..70 {
        other.act(&mut rng);
        other.publish().await.unwrap();
    }
    device.replica().pull().await.unwrap();
    late.faults.clear();
    late.publish().await.unwrap();
    // The lane is fetched from its tip; then the tips are listed again, to fold everything.
    let tips = Rule::new(Failure::Before(Transient)).on(Verb::List);
    let tips = tips.named(|name| name.ends_with("tips")).after(1);
    device.faults.add(tips);
    assert!(device.replica().pull().await.unwrap_err().is_transient());
    assert_eq!(device.faults.fired(), 1);
    device.faults.clear();
    let mut names = device.replica().names_in_root();
    let diff = device.replica().pull().await.unwrap();
    assert!(diff.everything);
    // With no directory's name the kernel would forget these.
    names.extend(device.replica().names_in_root());
    assert!(!names.is_empty() && diff.entries.is_superset(&names));
    assert_eq!(device.digest(), vault.fresh_digest().await);
    device.act(&mut rng);
    device.publish().await.unwrap();
    assert_eq!(device.digest(), vault.fresh_digest().await);
}

#[tokio::test]
async fn what_nobody_has_published_outlives_a_disk_that_fails_while_commits_are_folded_in_below() {
    let vault = Vault::new(27);
    let mut rng = Rng(27);
    let (mut device, mut other) = (vault.open(0).await, vault.open(1).await);
    (0..5).for_each(|_| device.act(&mut rng));
    other.act(&mut rng);
    other.publish().await.unwrap();
    {
        let replica = device.replica();
        let mut net = replica.net.lock().await;
        let tips = replica.list_tips(&mut net).await.unwrap();
        replica.fetch(&mut net, tips).await.unwrap();
        let arrived = net.inbox.take_by_lamport();
        assert_eq!(arrived.len(), 1);
        let mut core = replica.core.lock();
        let lost = |_: &_| Err(RowsError::Cache("the disk fails".to_owned()));
        core.merge(arrived, lost).unwrap_err();
    }
    // A program that waits for the storage goes on waiting.
    assert_eq!(device.replica().tree().first_pending(), Some(1));
    device.replica().pull().await.unwrap();
    assert_eq!(device.pending(), 5);
    device.publish().await.unwrap();
    assert_eq!(device.pending(), 0);
    assert_eq!(device.digest(), vault.fresh_digest().await);
}

#[tokio::test]
async fn a_device_opens_offline_with_its_cache_and_goes_on() {
    let vault = Vault::new(12);
    let mut rng = Rng(12);
    let mut device = vault.open(0).await;
    (0..5).for_each(|_| device.act(&mut rng));
    device.publish().await.unwrap();
    device.replica().flush().unwrap();
    (0..5).for_each(|_| device.act(&mut rng));
    let expected = device.digest();
    device.faults.add(Rule::new(Failure::Before(Transient)));
    device.open(&vault).await.unwrap();
    assert_eq!((device.pending(), device.digest()), (5, expected));
    assert!(device.publish().await.unwrap_err().is_transient());
    device.faults.clear();
    device.publish().await.unwrap();
    assert_eq!(vault.fresh_digest().await, expected);
}

/// Seed 58 of the simulation: segments were named in a later lane, and the commit that declared them went into the earlier one, when
/// what its end follows was there again.
#[tokio::test]
async fn a_device_that_opens_offline_below_what_its_own_commit_follows_names_segments_in_that_lane()
{
    let vault = Vault::new(18);
    let mut rng = Rng(18);
    let (mut device, mut other) = (vault.open(0).await, vault.open(1).await);
    device.act(&mut rng);
    device.publish().await.unwrap();
    device.replica().flush().unwrap();
    let lane = device.replica().own_lane().await;
    let older = tempfile::tempdir().unwrap();
    device.replica = None;
    copy_dir(device.dir.path(), older.path());
    device.open(&vault).await.unwrap();
    other.act(&mut rng);
    other.publish().await.unwrap();
    device.act(&mut rng);
    device.publish().await.unwrap();
    // The first one stands in others and is not kept any more.
    let kept = device.replica().commits.list().unwrap();
    assert_eq!(kept.len(), 2);
    device.replica().commits.forget(&kept[0]).unwrap();
    // What was folded in since the last flush went with the power.
    device.forget_cache();
    std::fs::copy(
        older.path().join("meta.db"),
        device.dir.path().join("meta.db"),
    )
    .unwrap();
    device.faults.add(Rule::new(Failure::Before(Transient)));
    device.open(&vault).await.unwrap();
    assert_eq!(device.kinds(), []);
    assert_eq!(device.replica().own_lane().await, lane);
    device.act(&mut rng);
    device.faults.clear();
    device.publish().await.unwrap();
    assert_eq!(device.pending(), 0);
    assert_eq!(device.replica().own_lane().await, lane);
    assert_eq!(vault.fresh_digest().await, device.digest());
}

/// Seed 1795828423021 of the simulation: changes on top of what others had done were applied to what was there before it.
#[tokio::test]
async fn what_others_did_is_there_after_a_crash_without_the_storage() {
    let vault = Vault::new(20);
    let mut rng = Rng(20);
    let (mut device, mut other) = (vault.open(0).await, vault.open(1).await);
    (0..5).for_each(|_| other.act(&mut rng));
    other.publish().await.unwrap();
    device.replica().pull().await.unwrap();
    device.act(&mut rng);
    let expected = device.digest();
    device.faults.add(Rule::new(Failure::Before(Transient)));
    // Nobody has asked for the cache to be written.
    device.open(&vault).await.unwrap();
    assert_eq!((device.pending(), device.digest()), (1, expected));
}

/// Whatever it is shown later: segments may have been named in it.
#[tokio::test]
async fn a_lane_that_was_begun_offline_is_not_left_for_an_earlier_one() {
    let vault = Vault::new(19);
    let mut rng = Rng(19);
    let mut device = vault.open(0).await;
    device.act(&mut rng);
    device.publish().await.unwrap();
    device
        .replica()
        .close_lane(Settled::default())
        .await
        .unwrap();
    device.replica().flush().unwrap();
    device.faults.add(Rule::new(Failure::Before(Transient)));
    device.open(&vault).await.unwrap();
    let begun = device.replica().net.lock().await.own.incarnation;
    assert!(begun > 0);
    device.open(&vault).await.unwrap();
    assert!(device.replica().net.lock().await.own.incarnation >= begun);
    assert!(device.replica().net.lock().await.heads.incarnation >= begun);
}

#[tokio::test]
async fn a_device_opens_on_a_full_storage_and_publishes_when_there_is_room() {
    let vault = Vault::new(15);
    let mut device = vault.open(0).await;
    device.act(&mut Rng(15));
    let full = Failure::Before(skrin_storage::ErrorKind::Full);
    device.faults.add(Rule::new(full).on(Verb::Put));
    // Sealed and kept, and refused.
    assert!(device.publish().await.unwrap_err().is_full());
    let expected = device.digest();
    device.open(&vault).await.unwrap();
    assert_eq!(device.digest(), expected);
    device.faults.clear();
    device.publish().await.unwrap();
    assert_eq!(vault.fresh_digest().await, expected);
}

#[tokio::test]
async fn a_device_opens_on_a_storage_that_cuts_its_commit_short_again_and_again() {
    let vault = Vault::new(16);
    let mut device = vault.open(0).await;
    device.act(&mut Rng(16));
    let cut_short = Rule::new(Failure::CutPut(500)).on(Verb::Put);
    device
        .faults
        .add(cut_short.named(|name| name.contains("/lanes/")));
    // Sealed and kept, and stored in part; at the next start twice more.
    assert!(device.publish().await.unwrap_err().is_broken());
    let expected = device.digest();
    for forget in [false, true] {
        if forget {
            device.forget_cache();
        }
        device.open(&vault).await.unwrap();
        assert_eq!(device.digest(), expected);
    }
    device.faults.clear();
    device.publish().await.unwrap();
    assert_eq!(vault.fresh_digest().await, expected);
}

#[tokio::test]
async fn a_restored_state_directory_goes_on_in_a_new_lane_and_loses_nothing() {
    let vault = Vault::new(13);
    let mut rng = Rng(13);
    let mut device = vault.open(0).await;
    (0..4).for_each(|_| device.act(&mut rng));
    device.publish().await.unwrap();
    device.replica = None;
    let backup = tempfile::tempdir().unwrap();
    copy_dir(device.dir.path(), backup.path());
    device.open(&vault).await.unwrap();
    (0..4).for_each(|_| device.act(&mut rng));
    device.publish().await.unwrap();
    let (lane, expected) = (device.replica().own_lane().await, device.digest());

    let mut restored = Device {
        dir: backup,
        journal: device.journal[..4].to_vec(),
        ..vault.device(0)
    };
    drop(device);
    restored.open(&vault).await.unwrap();
    assert_eq!(restored.digest(), expected);
    assert_ne!(restored.replica().own_lane().await, lane);
    assert_eq!(restored.kinds(), [FindingKind::Restored]);
    (0..4).for_each(|_| restored.act(&mut rng));
    restored.publish().await.unwrap();
    let status = restored.replica().status();
    let open: Vec<bool> = status
        .lanes
        .iter()
        .filter(|l| l.lane == lane)
        .map(|l| l.open)
        .collect();
    assert_eq!(
        open,
        [false],
        "the floor does not wait for the lane that was given up"
    );
    assert_eq!(vault.fresh_digest().await, restored.digest());
}

/// A device and a running copy of it.
async fn twins(seed: u64) -> (Vault, Device, Device) {
    let vault = Vault::new(seed);
    let mut device = vault.open(0).await;
    device.act(&mut Rng(seed));
    device.publish().await.unwrap();
    device.replica = None;
    let copy = tempfile::tempdir().unwrap();
    copy_dir(device.dir.path(), copy.path());
    let mut clone = Device {
        dir: copy,
        journal: device.journal.clone(),
        ..vault.device(0)
    };
    device.open(&vault).await.unwrap();
    clone.open(&vault).await.unwrap();
    (vault, device, clone)
}

#[tokio::test]
async fn a_copy_with_other_operations_under_the_same_ids_stops_and_keeps_them() {
    let (vault, mut device, mut clone) = twins(14).await;
    let mut rng = Rng(14);
    device.act(&mut rng);
    device.publish().await.unwrap();
    clone.act(&mut rng);
    let (pending, digest) = (clone.pending(), clone.digest());
    for _ in 0..2 {
        let refused = clone.publish().await;
        assert!(matches!(refused, Err(ReplicaError::Cloned)), "{refused:?}");
        assert_eq!((clone.pending(), clone.digest()), (pending, digest));
    }
    assert!(clone.kinds().contains(&FindingKind::Cloned));
    let refused = clone.open(&vault).await;
    assert!(matches!(refused, Err(ReplicaError::Cloned)), "{refused:?}");
    device.act(&mut rng);
    device.publish().await.unwrap();
}

#[tokio::test]
async fn a_copy_that_comes_second_takes_a_new_lane_and_the_first_stops() {
    let (vault, mut device, mut clone) = twins(15).await;
    let mut rng = Rng(15);
    device.act(&mut rng);
    device.publish().await.unwrap();
    clone.replica().pull().await.unwrap();
    clone.open(&vault).await.unwrap();
    assert!(clone.kinds().contains(&FindingKind::Restored));
    clone.act(&mut rng);
    clone.publish().await.unwrap();
    device.act(&mut rng);
    let refused = device.publish().await;
    assert!(matches!(refused, Err(ReplicaError::Cloned)), "{refused:?}");
    assert!(device.kinds().contains(&FindingKind::Cloned));
    assert_eq!(device.pending(), 1);
    assert_eq!(vault.fresh_digest().await, clone.digest());
}

#[tokio::test]
async fn a_closed_lane_is_followed_by_a_new_one() {
    let vault = Vault::new(15);
    let mut rng = Rng(15);
    let mut device = vault.open(0).await;
    device.act(&mut rng);
    device.publish().await.unwrap();
    let first = device.replica().own_lane().await;
    device
        .replica()
        .close_lane(Settled::default())
        .await
        .unwrap();
    device.open(&vault).await.unwrap();
    let second = device.replica().own_lane().await;
    assert_ne!(first, second);
    device.act(&mut rng);
    device.publish().await.unwrap();
    let status = device.replica().status();
    let open: Vec<(LaneId, bool)> = status.lanes.iter().map(|l| (l.lane, l.open)).collect();
    assert_eq!(
        BTreeMap::from_iter(open),
        BTreeMap::from([(first, false), (second, true)])
    );
    let tips = vault
        .store
        .names()
        .into_iter()
        .filter(|n| n.as_str().contains("/tips/"))
        .count();
    assert_eq!(
        tips, 1,
        "the tip of the lane that was closed is not needed any more"
    );
    assert_eq!(vault.fresh_digest().await, device.digest());
}

#[tokio::test]
async fn nothing_is_opened_without_writing() {
    let vault = Vault::new(16);
    let device = vault.open(0).await;
    device.replica().pull().await.unwrap();
    device
        .replica()
        .close_lane(Settled::default())
        .await
        .unwrap();
    device.publish().await.unwrap();
    assert!(vault.store.names().is_empty());
    let mut config = vault.config(&device, device.dir.path());
    config.read_only = true;
    let reader = Replica::open(config).await.unwrap();
    let refused = reader.publish(1, Vec::new(), Settled::default()).await;
    assert!(matches!(refused, Err(ReplicaError::ReadOnly)));
}

/// What was sealed and not put is not missed on the storage by who only reads, and is put by the next who writes.
#[tokio::test]
async fn who_only_reads_accuses_nobody_of_a_commit_that_a_crash_kept_from_being_put() {
    let vault = Vault::new(17);
    let mut rng = Rng(17);
    let mut device = vault.open(0).await;
    device.act(&mut rng);
    device.publish().await.unwrap();
    device.act(&mut rng);
    let expected = device.digest();
    let fails = Rule::new(Failure::Before(Transient)).on(Verb::Put).times(1);
    device.faults.add(fails);
    assert!(device.publish().await.unwrap_err().is_transient());
    device.replica().flush().unwrap();
    device.replica = None;
    for _ in 0..2 {
        let mut config = vault.config(&device, device.dir.path());
        config.read_only = true;
        let reader = Replica::open(config).await.unwrap();
        vault.clock.advance(20 * 60_000_000_000);
        for _ in 0..2 {
            reader.pull().await.unwrap();
        }
        assert!(!reader.status().in_flight);
    }
    device.open(&vault).await.unwrap();
    assert_eq!(vault.fresh_digest().await, expected);
}

/// Polls a publish so often and then gives up on it.
async fn give_up_after(device: &Device, polls: usize) {
    let mut publish = Box::pin(device.publish());
    for _ in 0..polls {
        let pause = tokio::time::sleep(std::time::Duration::from_micros(300));
        tokio::select! {
            biased;
            _ = &mut publish => return,
            () = pause => {}
        }
    }
}

#[tokio::test]
async fn a_publish_that_is_given_up_at_any_moment_loses_nothing_and_forks_nothing() {
    let vault = Vault::new(17);
    let mut rng = Rng(17);
    let mut devices = [vault.open(0).await, vault.open(1).await];
    for polls in 0..24 {
        for device in &mut devices {
            device.act(&mut rng);
            give_up_after(device, polls).await;
            device.act(&mut rng);
            let _ = device.replica().pull().await.unwrap();
        }
    }
    settle(&vault, &mut devices).await;
    assert_converged(&devices, 17);
    assert_eq!(vault.fresh_digest().await, devices[0].digest());
    assert!(devices.iter().all(|device| device.kinds().is_empty()));
}
