//! `verify` finds every damage and names the object.

use super::*;
use bytes::Bytes;

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
