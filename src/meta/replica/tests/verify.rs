//! `verify` finds every damage and names the object.

use super::*;
use bytes::Bytes;
use skrin_storage::ObjectName;

async fn a_vault(seed: u64) -> (Vault, Device) {
    let vault = Vault::new(seed);
    let mut rng = Rng(seed);
    let mut device = vault.open(0).await;
    for round in 0..6 {
        (0..4).for_each(|_| device.act(&mut rng));
        device.publish().await.unwrap();
        if round == 3 {
            assert!(device.replica().checkpoint().await.unwrap());
        }
    }
    device.act(&mut rng);
    (vault, device)
}

#[tokio::test]
async fn a_sound_vault_has_no_problems_and_folds_to_the_same_digest() {
    let (_vault, device) = a_vault(40).await;
    let mut read = 0;
    let report = device.replica().verify(|n| read = n).await.unwrap();
    assert_eq!(report.problems, []);
    assert_eq!(
        (report.commits, report.checkpoints, report.pages),
        (6, 1, 1)
    );
    assert_eq!(read, 8);
    device.publish().await.unwrap();
    let (_, digest) = device.digest();
    let report = device.replica().verify(|_| {}).await.unwrap();
    assert_eq!((report.digest, report.problems), (Some(digest), Vec::new()));
}

#[tokio::test]
async fn a_flipped_byte_in_any_object_is_a_problem_of_that_object() {
    let (vault, device) = a_vault(41).await;
    let names = vault
        .store
        .names()
        .into_iter()
        .filter(|name| !name.as_str().contains("/tips/"));
    for name in names {
        let honest = vault.store.peek(&name).unwrap();
        for at in [0, 9, 20, honest.len() - 1] {
            let mut bytes = honest.to_vec();
            bytes[at] ^= 1;
            vault.store.tamper(&name, Some(Bytes::from(bytes)));
            let report = device.replica().verify(|_| {}).await.unwrap();
            let named = report.problems.iter().any(|p| p.object == name.as_str());
            assert!(named, "{name} at {at}: {:?}", report.problems);
        }
        vault.store.tamper(&name, Some(honest));
    }
    assert_eq!(device.replica().verify(|_| {}).await.unwrap().problems, []);
}

#[tokio::test]
async fn a_missing_object_is_a_problem_of_that_object() {
    let (vault, device) = a_vault(42).await;
    let names = vault
        .store
        .names()
        .into_iter()
        .filter(|name| !name.as_str().contains("/tips/"));
    for name in names {
        let honest = vault.store.peek(&name).unwrap();
        vault.store.tamper(&name, None);
        let report = device.replica().verify(|_| {}).await.unwrap();
        // Of a commit that is gone, what still tells is its tip or what follows it.
        let (_, file) = name.as_str().rsplit_once('/').unwrap();
        let named = report.problems.iter().any(|p| p.object.contains(file));
        assert!(named, "{name}: {:?}", report.problems);
        vault.store.tamper(&name, Some(honest));
    }
}

#[tokio::test]
async fn what_others_publish_while_everything_is_looked_at_is_no_problem() {
    let (vault, device) = a_vault(43).await;
    let mut rng = Rng(43);
    let mut other = vault.open(1).await;
    other.replica().pull().await.unwrap();
    // After the last look at the tips.
    other.act(&mut rng);
    other.publish().await.unwrap();
    // And after the lanes were listed.
    other.act(&mut rng);
    let publish = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(other.publish()).unwrap();
    };
    let progress = |read| {
        if read == 1 {
            std::thread::scope(|scope| scope.spawn(publish).join().unwrap());
        }
    };
    let report = device.replica().verify(progress).await.unwrap();
    assert_eq!(report.problems, []);
    assert_eq!(report.commits, 7);
    // What was not looked at now is seen by the next look.
    device.replica().pull().await.unwrap();
    let report = device.replica().verify(|_| {}).await.unwrap();
    assert_eq!((report.commits, report.problems), (8, Vec::new()));
}

/// The tip of a commit that another device has just published.
async fn published_by_another(vault: &Vault, seed: u64) -> ObjectName {
    let mut other = vault.open(1).await;
    other.replica().pull().await.unwrap();
    other.act(&mut Rng(seed));
    let before = vault.store.names();
    other.publish().await.unwrap();
    let mut names = vault.store.names().into_iter();
    let new = |name: &ObjectName| name.as_str().contains("/tips/") && !before.contains(name);
    names.find(new).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_tip_comes_a_moment_later_is_no_problem_and_one_without_a_tip_is() {
    let (vault, device) = a_vault(44).await;
    let tip = published_by_another(&vault, 44).await;
    let bytes = vault.store.peek(&tip).unwrap();
    vault.store.tamper(&tip, None);
    let later = async {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        vault.store.tamper(&tip, Some(bytes));
    };
    let (report, ()) = tokio::join!(device.replica().verify(|_| {}), later);
    assert_eq!(report.unwrap().problems, []);

    let (vault, device) = a_vault(45).await;
    let tip = published_by_another(&vault, 45).await;
    vault.store.tamper(&tip, None);
    let report = device.replica().verify(|_| {}).await.unwrap();
    let objects: Vec<&str> = report.problems.iter().map(|p| p.object.as_str()).collect();
    assert_eq!(objects, [tip.as_str()]);
}
