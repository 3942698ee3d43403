//! Which certificates of devices stand.

use super::*;
use crate::device::device_id;
use crate::record::{DeviceAdd, Label};
use skrin_base::ids::{DeviceId, PersonId, VaultId};
use skrin_crypto::{DeviceSeed, DeviceSigner, KemSecret, Suite};

/// The record for a device of the owner with this seed.
pub(super) fn device_add(unlocked: &Unlocked, room: &Room, seed: u8) -> DeviceAdd {
    let seed = DeviceSeed::from_bytes([seed; 32]);
    let vault = unlocked.vault();
    let person = &room.state.persons[&unlocked.person()];
    let sign = DeviceSigner::derive(&seed, vault).public();
    let kem = KemSecret::derive_device(&seed, vault, Suite::XWing).public();
    DeviceAdd {
        person: unlocked.person(),
        previous: *person.key_log.last().unwrap(),
        device: device_id(vault, unlocked.person(), &sign, &kem),
        sign,
        kem,
        label: Label::new("x").unwrap(),
    }
}

#[tokio::test]
async fn a_device_is_added_once_for_its_own_person_and_follows_the_key_log() {
    let w = world(1).await;
    let unlocked = w.unlock().await;
    let mut room = w.room().await;
    let good = device_add(&unlocked, &room, 5);
    let record = Record::DeviceAdd(Box::new(good.clone()));
    unlocked
        .publish(&w.store, &mut room, record, &w.clock, &w.entropy)
        .await
        .unwrap();
    let store = w.store.snapshot();
    let other = device_add(&unlocked, &room, 6);
    let cases = [
        (good.clone(), "a second time"),
        (
            DeviceAdd {
                previous: Hash32([1; 32]),
                ..other.clone()
            },
            "key log",
        ),
        (
            DeviceAdd {
                person: PersonId([6; 16]),
                ..other.clone()
            },
            "may not",
        ),
    ];
    for (record, what) in cases {
        w.store.restore(store.clone());
        let error = w.refused(|_| {}, Record::DeviceAdd(Box::new(record))).await;
        assert!(error.contains(what), "{error}");
    }
    // A key log entry that is there, but not among the ancestors.
    w.store.restore(store);
    let last = *room.state.persons[&unlocked.person()]
        .key_log
        .last()
        .unwrap();
    let record = DeviceAdd {
        previous: last,
        ..other
    };
    let genesis = w.made.anchor.genesis;
    let error = w
        .refused(
            |body| body.parents = vec![genesis],
            Record::DeviceAdd(Box::new(record)),
        )
        .await;
    assert!(error.contains("key log"), "{error}");
}

#[tokio::test]
async fn a_device_id_that_is_not_that_of_its_keys_is_refused() {
    let w = world(1).await;
    let (unlocked, room) = (w.unlock().await, w.room().await);
    let good = device_add(&unlocked, &room, 5);
    let other = device_add(&unlocked, &room, 6);
    let store = w.store.snapshot();
    let elsewhere = device_id(VaultId([9; 16]), good.person, &good.sign, &good.kem);
    let of_another = device_id(unlocked.vault(), PersonId([6; 16]), &good.sign, &good.kem);
    for device in [other.device, DeviceId([5; 16]), elsewhere, of_another] {
        w.store.restore(store.clone());
        let record = DeviceAdd {
            device,
            ..good.clone()
        };
        let error = w.refused(|_| {}, Record::DeviceAdd(Box::new(record))).await;
        assert!(error.contains("follows from its keys"), "{error}");
    }
    // One key of the two exchanged is another id, too.
    w.store.restore(store);
    let record = DeviceAdd {
        kem: other.kem,
        ..good
    };
    let error = w.refused(|_| {}, Record::DeviceAdd(Box::new(record))).await;
    assert!(error.contains("follows from its keys"), "{error}");
}

#[tokio::test]
async fn a_device_with_a_key_of_a_weaker_suite_is_not_let_in() {
    let w = world(1).await;
    let unlocked = w.unlock().await;
    let room = w.room().await;
    let mut record = device_add(&unlocked, &room, 5);
    record.kem = KemSecret::from_bytes(Suite::X25519, [1; 32]).public();
    record.device = device_id(unlocked.vault(), record.person, &record.sign, &record.kem);
    let error = w.refused(|_| {}, Record::DeviceAdd(Box::new(record))).await;
    assert!(error.contains("weaker suite"), "{error}");
}
