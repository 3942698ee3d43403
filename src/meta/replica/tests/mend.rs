//! What is put again, and what is told to who is not shown everything.

use super::*;
use bytes::Bytes;
use skrin_storage::ObjectName;

async fn a_vault(seed: u64) -> (Vault, Device) {
    let vault = Vault::new(seed);
    let mut rng = Rng(seed);
    let mut device = vault.open(0).await;
    for _ in 0..6 {
        (0..4).for_each(|_| device.act(&mut rng));
        device.publish().await.unwrap();
    }
    (vault, device)
}

fn named(vault: &Vault, part: &str) -> Vec<ObjectName> {
    let names = vault.store.names().into_iter();
    names.filter(|name| name.as_str().contains(part)).collect()
}

fn objects(put: &[PutAgain]) -> Vec<(&str, bool)> {
    put.iter()
        .map(|put| (put.object.as_str(), put.was_missing))
        .collect()
}

#[tokio::test]
async fn commits_that_a_device_keeps_are_put_again_byte_for_byte_where_the_storage_shows_others() {
    let (vault, device) = a_vault(70).await;
    let all = vault.store.snapshot();
    let commits = named(&vault, "/lanes/");
    assert_eq!(commits.len(), 6);
    for (n, name) in commits.iter().enumerate() {
        let honest = vault.store.peek(name).unwrap();
        let mut flipped = honest.to_vec();
        flipped[n * 7] ^= 1;
        for bytes in [
            None,
            Some(Bytes::from(flipped)),
            Some(honest.slice(..honest.len() - 1)),
            Some(vault.store.peek(&commits[(n + 1) % 6]).unwrap()),
            Some(Bytes::new()),
        ] {
            let was_missing = bytes.is_none();
            vault.store.tamper(name, bytes);
            // Somebody else's keys, and only the directory of the device.
            let reader = vault.open(3).await;
            let put = reader.replica().put_kept_again(device.dir.path());
            let put = put.await.unwrap();
            assert_eq!(objects(&put), [(name.as_str(), was_missing)]);
            assert_eq!(vault.store.snapshot(), all);
        }
    }
    let reader = vault.open(3).await;
    let put = reader.replica().put_kept_again(device.dir.path());
    assert_eq!(put.await.unwrap(), []);
}

#[tokio::test]
async fn a_kept_commit_that_is_damaged_itself_is_never_put() {
    let (vault, device) = a_vault(71).await;
    let name = named(&vault, "/lanes/").remove(2);
    let file = name.file_name();
    let lanes = device.dir.path().join("journal/lanes");
    let lane = std::fs::read_dir(lanes).unwrap().next().unwrap();
    let kept = lane.unwrap().path().join(file);
    let mut bytes = std::fs::read(&kept).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&kept, bytes).unwrap();
    vault.store.tamper(&name, None);
    let reader = vault.open(3).await;
    let put = reader.replica().put_kept_again(device.dir.path());
    assert_eq!(put.await.unwrap(), []);
    assert_eq!(vault.store.peek(&name), None);
}

#[tokio::test]
async fn without_its_tip_a_lane_is_left_out_and_told_until_the_tip_is_put_again() {
    let (vault, device) = a_vault(72).await;
    let whole = device.digest();
    let all = vault.store.snapshot();
    let tips = named(&vault, "/tips/");
    let [tip] = tips.as_slice() else {
        panic!("{tips:?}");
    };
    let reader = vault.open(3).await;
    assert_eq!(reader.replica().left_out().await.unwrap(), []);
    vault.store.tamper(tip, None);
    let reader = vault.open(3).await;
    assert_ne!(reader.digest(), whole);
    let left_out = reader.replica().left_out().await.unwrap();
    let told: Vec<_> = left_out.iter().map(|p| (p.kind, &*p.object)).collect();
    assert_eq!(told, [(ProblemKind::Hidden, tip.as_str())]);
    let put = reader.replica().put_tips_again(&left_out).await.unwrap();
    assert_eq!(objects(&put), [(tip.as_str(), true)]);
    assert_eq!(vault.store.snapshot(), all);
    vault.store.tamper(tip, Some(Bytes::from_static(b"xx")));
    let put = reader.replica().put_tips_again(&[]).await.unwrap();
    assert_eq!(objects(&put), [(tip.as_str(), false)]);
    assert_eq!(vault.store.snapshot(), all);
    let reader = vault.open(3).await;
    assert_eq!(reader.digest(), whole);
    assert_eq!(reader.replica().left_out().await.unwrap(), []);
}

#[tokio::test]
async fn a_commit_that_is_not_whole_is_left_out_with_its_name() {
    let (vault, _device) = a_vault(73).await;
    let newest = named(&vault, "/lanes/").remove(5);
    let honest = vault.store.peek(&newest).unwrap();
    vault.store.tamper(&newest, Some(honest.slice(..50)));
    let reader = vault.open(3).await;
    let left_out = reader.replica().left_out().await.unwrap();
    let damaged = left_out.iter().find(|p| p.kind == ProblemKind::Damaged);
    assert_eq!(damaged.unwrap().object, newest.as_str());
}
