//! Control records that the storage withholds.

use super::*;

const OLD: Hash32 = Hash32([5; 32]);
const NEW: Hash32 = Hash32([6; 32]);

/// What a device reads to which the storage shows one record more.
fn newer(vault: &Vault) -> Roster {
    let mut roster = vault.world.roster();
    assert_eq!(roster.control_heads, [OLD]);
    roster.control_heads = vec![NEW];
    roster.control.insert(NEW, vec![OLD]);
    roster
}

async fn set(device: &Device, vault: &Vault, roster: Roster) -> Result<(), ReplicaError> {
    let keys = vault.world.keys.clone();
    device.replica().set_control(roster, keys).await
}

#[tokio::test]
async fn a_commit_that_names_a_withheld_control_record_waits_and_is_told_after_two_minutes() {
    let vault = Vault::new(50);
    let mut rng = Rng(50);
    let (mut one, mut two) = (vault.open(0).await, vault.open(1).await);
    one.act(&mut rng);
    one.publish().await.unwrap();
    two.replica().pull().await.unwrap();
    set(&one, &vault, newer(&vault)).await.unwrap();
    for _ in 0..2 {
        one.act(&mut rng);
        one.publish().await.unwrap();
    }
    let complete = two.digest();
    two.replica().pull().await.unwrap();
    assert!(two.replica().needs_control().await);
    assert_eq!(two.kinds(), [FindingKind::Unknown]);
    // Read again, and still not shown.
    set(&two, &vault, vault.world.roster()).await.unwrap();
    vault.clock.advance(121_000_000_000);
    two.replica().pull().await.unwrap();
    let findings = two.replica().status().findings;
    assert_eq!(two.kinds(), [FindingKind::Withheld]);
    assert!(findings.iter().all(|f| f.text.contains(&NEW.to_string())));
    assert_eq!(two.digest(), complete);
    // It goes on meanwhile, and names nothing that it did not admit.
    two.act(&mut rng);
    two.publish().await.unwrap();
    one.replica().pull().await.unwrap();
    assert_eq!(one.kinds(), []);
    let before = two.counters.counts();
    set(&two, &vault, newer(&vault)).await.unwrap();
    two.replica().pull().await.unwrap();
    assert_eq!(two.digest(), one.digest());
    assert_eq!(two.kinds(), []);
    assert_eq!(
        two.counters.counts().since(&before).gets,
        1,
        "the first was kept, and leads to the one before"
    );
    assert!(!two.replica().needs_control().await);
}

#[tokio::test]
async fn a_control_record_that_was_seen_and_is_not_shown_any_more_is_a_rollback() {
    let vault = Vault::new(51);
    let mut rng = Rng(51);
    let mut one = vault.open(0).await;
    one.act(&mut rng);
    one.publish().await.unwrap();
    set(&one, &vault, newer(&vault)).await.unwrap();
    one.replica().pull().await.unwrap();
    let refused = |error: ReplicaError| {
        assert!(matches!(error, ReplicaError::RolledBack(_)), "{error}");
        assert!(
            error.to_string().contains(&format!("/control/{NEW}")),
            "{error}"
        );
    };
    // While it is mounted: it keeps what it knows and goes on.
    refused(set(&one, &vault, vault.world.roster()).await.unwrap_err());
    assert!(one.kinds().contains(&FindingKind::Rollback));
    one.act(&mut rng);
    one.publish().await.unwrap();
    // At the next mount: it remembers, with its cache and without.
    one.roster = Some(vault.world.roster());
    for forget in [false, true] {
        if forget {
            one.forget_cache();
        }
        refused(one.open(&vault).await.unwrap_err());
    }
    one.roster = Some(newer(&vault));
    one.open(&vault).await.unwrap();
    one.publish().await.unwrap();
    assert_eq!(one.pending(), 0);
}

#[tokio::test]
async fn what_was_seen_is_demanded_even_before_anything_was_written_with_it() {
    let vault = Vault::new(52);
    let mut one = vault.device(0);
    one.roster = Some(newer(&vault));
    one.open(&vault).await.unwrap();
    one.roster = None;
    assert!(one.open(&vault).await.is_err());
}

#[tokio::test]
async fn local_copies_of_control_records_may_be_old_until_the_storage_is_asked() {
    let vault = Vault::new(53);
    let mut one = vault.open(0).await;
    set(&one, &vault, newer(&vault)).await.unwrap();
    one.act(&mut Rng(53));
    one.publish().await.unwrap();
    one.replica().flush().unwrap();
    one.replica = None;
    // Mounted from copies while the storage is away, and then it is there.
    let mut config = vault.config(&one, one.dir.path());
    config.control_is_old = true;
    let away = skrin_storage::fault::Failure::Before(skrin_storage::ErrorKind::Transient);
    one.faults.add(skrin_storage::fault::Rule::new(away));
    one.replica = Some(Replica::open(config).await.unwrap());
    one.faults.clear();
    let error = one.replica().pull().await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(
        !one.kinds().contains(&FindingKind::Rollback),
        "nobody is accused"
    );
    assert!(
        one.publish().await.is_err(),
        "and nothing is sealed under old keys"
    );
    assert!(one.replica().needs_control().await);
    set(&one, &vault, newer(&vault)).await.unwrap();
    one.replica().pull().await.unwrap();
    one.publish().await.unwrap();
}

#[tokio::test]
async fn a_device_whose_own_commits_name_more_than_is_shown_writes_nothing_beside_them() {
    let vault = Vault::new(54);
    let mut rng = Rng(54);
    let mut one = vault.open(0).await;
    set(&one, &vault, newer(&vault)).await.unwrap();
    one.act(&mut rng);
    let tip = one.publish().await.unwrap().head.unwrap();
    let digest = one.digest();
    // All of its state but its commits is gone, and the record is not shown.
    one.forget_cache();
    std::fs::remove_file(one.dir.path().join("heads")).unwrap();
    one.open(&vault).await.unwrap();
    assert_eq!(one.kinds(), [FindingKind::Unknown]);
    assert!(matches!(
        one.publish().await,
        Err(ReplicaError::Withheld(_))
    ));
    set(&one, &vault, newer(&vault)).await.unwrap();
    let next = one.publish().await.unwrap().head.unwrap();
    assert_eq!(next.lane, tip.lane, "it goes on in its lane");
    assert_eq!(one.digest(), digest);
}

#[tokio::test]
async fn a_commit_that_names_fewer_control_records_than_the_one_before_is_told_and_counts() {
    let vault = Vault::new(55);
    let mut rng = Rng(55);
    let mut one = vault.open(0).await;
    let mut two = vault.device(1);
    two.roster = Some(newer(&vault));
    two.open(&vault).await.unwrap();
    set(&one, &vault, newer(&vault)).await.unwrap();
    one.act(&mut rng);
    one.publish().await.unwrap();
    // By a program that has forgotten, as no honest one can.
    *one.replica().env.roster.write() = vault.world.roster();
    one.replica().net.lock().await.heads.control.clear();
    one.act(&mut rng);
    one.publish().await.unwrap();
    two.replica().pull().await.unwrap();
    assert_eq!(two.kinds(), [FindingKind::WentBack]);
    assert_eq!(two.digest(), one.digest());
}
