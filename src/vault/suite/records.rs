//! Control records as the storage changes, loses and exchanges them.

use super::*;
use crate::Class;
use crate::control::seal_body;
use crate::record::SlotEntry;
use skrin_base::limits::CONTROL_MAX;
use skrin_base::wire::Encode;
use skrin_crypto::{RootSeed, RootSigner};

fn control(w: &World) -> Vec<ObjectName> {
    w.names("rooms/")
}

#[tokio::test]
async fn a_changed_byte_in_each_region_of_each_record_is_named() {
    let w = world(1).await;
    for name in control(&w) {
        let bytes = w.bytes(&name);
        // Nonce, body, padding, tag.
        for at in [
            0,
            12,
            400,
            bytes.len() / 2,
            bytes.len() - 17,
            bytes.len() - 1,
        ] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            w.replace(&name, changed);
            let error = w.room_error().await;
            assert_eq!(error.class(), Class::Integrity, "{error}");
            assert!(error.to_string().contains(name.as_str()), "{error}");
        }
        for len in [0, 27, bytes.len() - 1] {
            w.replace(&name, bytes[..len].to_vec());
            assert_eq!(
                w.room_error().await.class(),
                Class::Integrity,
                "length {len}"
            );
        }
        w.replace(&name, bytes);
    }
    w.room().await;
}

#[tokio::test]
async fn a_missing_record_is_named_together_with_what_names_it() {
    let w = world(1).await;
    let genesis = w.made.anchor.genesis.to_string();
    let heads = w.room().await.roster.control_heads;
    for name in control(&w) {
        let bytes = w.bytes(&name);
        w.store.tamper(&name, None);
        let error = w.room_error().await;
        assert_eq!(error.class(), Class::Integrity, "{error}");
        let is_head = name.file_name() == heads[0].to_string();
        if is_head {
            assert!(error.to_string().contains("no epoch"), "{error}");
        } else {
            assert!(matches!(error, VaultError::Missing { .. }), "{error}");
            assert!(error.to_string().starts_with(name.as_str()), "{error}");
        }
        w.replace(&name, bytes);
    }
    let all = control(&w);
    assert!(all.iter().any(|name| name.file_name() == genesis));
    for name in all {
        w.store.tamper(&name, None);
    }
    let error = w.room_error().await;
    assert!(matches!(error, VaultError::Missing { .. }), "{error}");
    assert!(error.to_string().contains(&genesis), "{error}");
}

#[tokio::test]
async fn exchanged_records_are_refused() {
    let (a, b) = (world(1).await, world(2).await);
    let names = control(&a);
    let (first, second) = (a.bytes(&names[0]), a.bytes(&names[1]));
    a.replace(&names[0], second);
    a.replace(&names[1], first.clone());
    assert_eq!(a.room_error().await.class(), Class::Integrity);
    let a = world(1).await;
    let genesis = objects::control_name(a.made.anchor.room, a.made.anchor.genesis);
    let genesis = ObjectName::new(genesis).unwrap();
    let other = objects::control_name(b.made.anchor.room, b.made.anchor.genesis);
    let other = b.bytes(&ObjectName::new(other).unwrap());
    a.replace(&genesis, other.clone());
    let error = a.room_error().await;
    assert!(error.to_string().contains(genesis.as_str()), "{error}");
    // Under its own name it is an object that does not open.
    let a = world(1).await;
    let unlocked = a.unlock().await;
    a.plant_object(&unlocked, hash(&other), other.clone());
    assert!(a.finding().await.contains(&hash(&other).to_string()));
}

#[tokio::test]
async fn an_epoch_that_a_former_member_seals_again_is_the_same_epoch_and_stops_nobody() {
    let w = world(1).await;
    let (unlocked, before) = (w.unlock().await, w.room().await);
    let heads = before.state.epoch_heads();
    let name = objects::control_name(before.state.room, Hash32(heads[0].0));
    let name = ObjectName::new(name).unwrap();
    let again = w.seal_again(&unlocked, &w.bytes(&name));
    // Beside the good one, under the hash of the object or any other name: told, and nothing follows.
    for copy in [hash(&again), Hash32([9; 32])] {
        w.plant_object(&unlocked, copy, again.clone());
        assert!(w.finding().await.contains("another record than its name"));
        let copy = objects::control_name(before.state.room, copy);
        w.store.tamper(&ObjectName::new(copy).unwrap(), None);
    }
    // In its place: as good.
    w.replace(&name, again);
    let room = w.room().await;
    assert!(room.findings.is_empty());
    assert_eq!(room.state.epoch_heads(), heads);
    assert_eq!(room.keys.current(), before.keys.current());
    assert_eq!(room.roster, before.roster);
    publish(&w, slot_add(1)).await;
    assert_eq!(w.room().await.state.epoch_heads(), heads);
}

#[tokio::test]
async fn whatever_is_sealed_again_opens_as_before() {
    let w = world(1).await;
    let unlocked = w.unlock().await;
    let before = w.room().await;
    for name in control(&w) {
        w.replace(&name, w.seal_again(&unlocked, &w.bytes(&name)));
    }
    let room = w.room().await;
    assert!(room.findings.is_empty());
    assert_eq!(room.roster, before.roster);
    assert_eq!(w.unlock().await.anchor().genesis, w.made.anchor.genesis);
}

#[tokio::test]
async fn objects_with_names_that_are_not_ours_are_left_alone() {
    let w = world(1).await;
    let name = format!("rooms/{}/control/readme", w.made.anchor.room);
    w.replace(&ObjectName::new(name).unwrap(), b"hello".to_vec());
    w.room().await;
}

fn slot_add(n: u8) -> Record {
    Record::SlotAdd(SlotEntry {
        name: [n; 16],
        hash: Hash32([n; 32]),
    })
}

/// Puts a record by the root on top of the heads.
async fn publish(w: &World, record: Record) -> ObjectName {
    let (unlocked, mut room) = (w.unlock().await, w.room().await);
    let hash = unlocked
        .publish(&w.store, &mut room, record, &w.clock, &w.entropy)
        .await
        .unwrap();
    ObjectName::new(objects::control_name(unlocked.root_room(), hash)).unwrap()
}

#[tokio::test]
async fn a_record_cut_short_that_nobody_follows_is_skipped_and_told() {
    let w = world(1).await;
    let before = w.room().await.roster;
    let name = publish(&w, slot_add(1)).await;
    let bytes = w.bytes(&name);
    let mut long = bytes.clone();
    long.resize(CONTROL_MAX + 1, 0);
    let cuts = [0, 27, bytes.len() / 2, bytes.len() - 1];
    let cuts = cuts.map(|len| bytes[..len].to_vec());
    for bad in cuts.into_iter().chain([long]) {
        w.replace(&name, bad);
        assert_eq!(w.room().await.roster, before);
        assert!(w.finding().await.starts_with(name.as_str()));
    }
    w.replace(&name, bytes[..27].to_vec());
    publish(&w, slot_add(2)).await;
    assert!(w.finding().await.starts_with(name.as_str()), "work goes on");
    assert_eq!(w.room().await.state.live_slots.len(), 3);
}

#[tokio::test]
async fn a_record_cut_short_that_a_member_follows_refuses_the_room_and_is_named() {
    let w = world(1).await;
    let first = publish(&w, slot_add(1)).await;
    let second = publish(&w, slot_add(2)).await;
    w.replace(&first, w.bytes(&first)[..100].to_vec());
    let error = w.room_error().await;
    assert!(matches!(error, VaultError::Integrity { .. }), "{error}");
    assert!(error.to_string().starts_with(first.as_str()), "{error}");
    assert!(error.to_string().contains(second.as_str()), "{error}");
    // Also through one that stands only on what is cut.
    let w = world(1).await;
    let first = publish(&w, slot_add(1)).await;
    for n in 2..5 {
        publish(&w, slot_add(n)).await;
    }
    w.replace(&first, Vec::new());
    let error = w.room_error().await.to_string();
    assert!(error.starts_with(first.as_str()), "{error}");
}

#[tokio::test]
async fn a_record_that_may_not_stand_refuses_the_room_once_a_member_follows_it() {
    let w = world(1).await;
    let (unlocked, room) = (w.unlock().await, w.room().await);
    let root = unlocked.root_signer();
    let mut body = w.body(&unlocked, &room, slot_add(1));
    body.signer = SignerRef::Words;
    let bad = w.plant(&unlocked, &body, &Signer::Root(&root), &[]);
    assert!(w.finding().await.contains(&bad.to_string()));
    let mut body = w.body(&unlocked, &room, slot_add(2));
    body.parents = vec![bad];
    w.plant(&unlocked, &body, &Signer::Root(&root), &[]);
    let error = w.room_error().await.to_string();
    let name = objects::control_name(unlocked.root_room(), bad);
    assert!(error.starts_with(&name), "{error}");
}

#[tokio::test]
async fn whatever_a_former_member_seals_without_a_key_is_skipped_and_told() {
    let w = world(1).await;
    let (unlocked, room) = (w.unlock().await, w.room().await);
    let stranger = RootSigner::derive(&RootSeed::from_bytes([3; 32]), unlocked.vault());
    let signer = Signer::Root(&stranger);
    let mut body = w.body(&unlocked, &room, slot_add(1));
    let mut planted = vec![w.plant(&unlocked, &body, &signer, &[])];
    // A child of it, one of nothing, one of nobody, and a tag of another time.
    body.parents = planted.clone();
    planted.push(w.plant(&unlocked, &body, &signer, &[]));
    body.parents = vec![Hash32([0xee; 32])];
    planted.push(w.plant(&unlocked, &body, &signer, &[]));
    body.parents.clear();
    planted.push(w.plant(&unlocked, &body, &signer, &[]));
    let (tag, bytes) = (13, vec![]);
    let body = w.body(&unlocked, &room, Record::Optional { tag, bytes });
    planted.push(w.plant(&unlocked, &body, &signer, &[]));
    let (vault, id) = (unlocked.vault(), unlocked.root_room());
    let mut newer = body.to_bytes();
    newer[0] = 2;
    let (key, aad) = (unlocked.control_key(id), ControlAad { vault, room: id });
    let (name, object) = seal_body(&key, &aad, &newer, &signer, &[], &w.entropy);
    w.plant_object(&unlocked, name, object);
    planted.push(name);
    let after = w.room().await;
    assert_eq!(after.roster, room.roster);
    let found: Vec<&str> = after.findings.iter().map(|f| f.object.as_str()).collect();
    planted.sort();
    let planted: Vec<String> = planted
        .iter()
        .map(|hash| objects::control_name(id, *hash))
        .collect();
    assert_eq!(found, planted);
}
