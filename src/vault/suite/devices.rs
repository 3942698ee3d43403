//! Certifying devices, and reading as one.

use super::*;
use crate::record::{Recipient, SlotEntry};
use crate::{Class, open_device_file, seal_device_file};
use skrin_base::ids::LaneId;
use skrin_crypto::SignatureKind;

async fn certify(w: &World, secret: &Secret, label: &str) -> Device {
    let unlocked = unlock(&w.store, secret).await.unwrap();
    let mut room = unlocked.load_room(&w.store).await.unwrap();
    let device = w.device().await;
    unlocked
        .certify_device(&w.store, &mut room, &device, label, &w.clock, &w.entropy)
        .await
        .unwrap();
    assert!(room.roster.devices.contains_key(&device.id()));
    device
}

#[tokio::test]
async fn a_certified_device_reads_the_room_without_the_root() {
    let w = world(1).await;
    let device = certify(&w, &passphrase(PASSPHRASE), "laptop").await;
    let reader = w.unlock().await.reader_for(&device);
    let (mine, roots) = (reader.load(&w.store).await.unwrap(), w.room().await);
    assert_eq!(mine.keys.current(), roots.keys.current());
    let (epoch, lane) = (mine.keys.current().0, LaneId([1; 16]));
    assert_eq!(mine.keys.hint(&epoch, lane), roots.keys.hint(&epoch, lane));
    assert_eq!(mine.roster, roots.roster);
    let entry = &mine.roster.devices[&device.id()];
    assert_eq!((entry.label.as_str(), &entry.cut), ("laptop", &None));
    let signature = device
        .signer(w.made.anchor.vault)
        .sign(SignatureKind::Commit, b"commit");
    assert!(
        entry
            .key
            .verify(SignatureKind::Commit, b"commit", &signature)
            .is_ok()
    );
}

#[tokio::test]
async fn certifying_again_writes_nothing() {
    let w = world(1).await;
    let device = certify(&w, &w.words(), "laptop").await;
    let before = w.store.names();
    let unlocked = w.unlock().await;
    let mut room = w.room().await;
    unlocked
        .certify_device(&w.store, &mut room, &device, "laptop", &w.clock, &w.entropy)
        .await
        .unwrap();
    assert_eq!(before, w.store.names());
}

#[tokio::test]
async fn a_certification_that_stopped_half_way_is_finished_the_next_time() {
    let w = world(1).await;
    let device = certify(&w, &w.words(), "laptop").await;
    let grant = w.room().await.roster.control_heads[0];
    let name = objects::control_name(w.made.anchor.room, grant);
    w.store.tamper(&ObjectName::new(name).unwrap(), None);
    let reader = w.unlock().await.reader_for(&device);
    let error = reader.load(&w.store).await.err().unwrap();
    assert!(matches!(error, VaultError::NotForUs(_)), "{error}");
    let unlocked = w.unlock().await;
    let mut room = w.room().await;
    unlocked
        .certify_device(&w.store, &mut room, &device, "laptop", &w.clock, &w.entropy)
        .await
        .unwrap();
    assert!(reader.load(&w.store).await.is_ok());
}

#[tokio::test]
async fn a_bare_machine_with_the_words_joins_what_the_passphrase_began() {
    let w = world(1).await;
    let laptop = certify(&w, &passphrase(PASSPHRASE), "laptop").await;
    let desktop = certify(&w, &w.words(), "desktop").await;
    let room = w.room().await;
    assert_eq!(room.roster.devices.len(), 2);
    assert_eq!(room.state.persons[&room.state.owner].key_log.len(), 3);
    for device in [laptop, desktop] {
        let reader = w.unlock().await.reader_for(&device);
        assert!(reader.load(&w.store).await.is_ok());
    }
}

#[tokio::test]
async fn devices_certified_at_the_same_time_both_stand_and_the_next_record_joins_them() {
    let w = world(1).await;
    let before = w.store.snapshot();
    let one = certify(&w, &w.words(), "one").await;
    let with_one = w.store.snapshot();
    w.store.restore(before);
    let two = certify(&w, &w.words(), "two").await;
    for (name, bytes) in with_one {
        w.store.tamper(&name, Some(bytes));
    }
    let room = w.room().await;
    assert_eq!(room.roster.control_heads.len(), 2);
    assert!(room.roster.control_heads.is_sorted());
    for device in [&one, &two] {
        assert!(room.roster.devices.contains_key(&device.id()));
    }
    certify(&w, &w.words(), "three").await;
    let room = w.room().await;
    assert_eq!(room.roster.control_heads.len(), 1);
    assert_eq!(room.roster.devices.len(), 3);
}

#[tokio::test]
async fn one_device_certified_twice_at_the_same_time_reads_by_either_record() {
    for seed in 1..5 {
        // The answer to the first was lost, and the storage listed late: both are there.
        let w = world(seed).await;
        let (before, device) = (w.store.snapshot(), w.device().await);
        let certify = async || {
            let (unlocked, mut room) = (w.unlock().await, w.room().await);
            unlocked
                .certify_device(&w.store, &mut room, &device, "x", &w.clock, &w.entropy)
                .await
                .unwrap();
            w.store.snapshot()
        };
        let first = certify().await;
        w.store.restore(before);
        w.clock.advance(1);
        certify().await;
        for (name, bytes) in first {
            w.store.tamper(&name, Some(bytes));
        }
        let room = w.room().await;
        assert!(room.findings.is_empty(), "{:?}", room.findings);
        assert_eq!(room.state.devices[&device.id()].records.len(), 2);
        assert_eq!(room.state.grants.len(), 2);
        let reader = w.unlock().await.reader_for(&device);
        assert!(reader.load(&w.store).await.is_ok());
    }
}

#[tokio::test]
async fn another_device_of_the_same_id_is_an_alarm() {
    let w = world(1).await;
    let device = certify(&w, &w.words(), "laptop").await;
    let unlocked = w.unlock().await;
    // The same id with another seed: a file that was put together.
    let other = w.device().await;
    let mut file = seal_device_file(&unlocked, &other, &w.entropy);
    file[21..37].copy_from_slice(device.id().as_bytes());
    let error = open_device_file(&unlocked, &file).err().unwrap();
    assert!(
        matches!(error, VaultError::DeviceFile(_)),
        "the file binds id to seed"
    );
}

#[tokio::test]
async fn a_device_file_opens_for_its_root_only_and_each_byte_counts() {
    let w = world(1).await;
    let unlocked = w.unlock().await;
    let device = w.device().await;
    let file = seal_device_file(&unlocked, &device, &w.entropy);
    let back = open_device_file(&unlocked, &file).unwrap();
    assert_eq!(back.id(), device.id());
    let vault = unlocked.vault();
    assert_eq!(back.signer(vault).public(), device.signer(vault).public());
    for at in 0..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 1;
        assert!(open_device_file(&unlocked, &changed).is_err(), "byte {at}");
        assert!(
            open_device_file(&unlocked, &file[..at]).is_err(),
            "length {at}"
        );
    }
    let other = world(2).await.unlock().await;
    assert!(open_device_file(&other, &file).is_err());
}

#[tokio::test]
async fn a_slot_that_was_removed_from_the_list_reads_but_certifies_nobody() {
    let w = world(1).await;
    let unlocked = unlock(&w.store, &passphrase(PASSPHRASE)).await.unwrap();
    let mut room = unlocked.load_room(&w.store).await.unwrap();
    let removed = Record::SlotRemove(unlocked.slot());
    unlocked
        .publish(&w.store, &mut room, removed, &w.clock, &w.entropy)
        .await
        .unwrap();
    let mut room = unlocked.load_room(&w.store).await.unwrap();
    assert_eq!(room.state.live_slots.len(), 1);
    let device = w.device().await;
    let error = unlocked
        .certify_device(&w.store, &mut room, &device, "x", &w.clock, &w.entropy)
        .await
        .err()
        .unwrap();
    assert!(matches!(error, VaultError::UnlistedSlot { .. }), "{error}");
    certify(&w, &w.words(), "the words still do").await;
}

#[tokio::test]
async fn a_removal_does_not_take_back_a_slot_that_was_listed_without_knowing_of_it() {
    let w = world(1).await;
    let unlocked = w.unlock().await;
    let slot = SlotEntry {
        name: [7; 16],
        hash: Hash32([8; 32]),
    };
    let before = w.store.snapshot();
    let mut room = w.room().await;
    for record in [Record::SlotAdd(slot), Record::SlotRemove(slot)] {
        unlocked
            .publish(&w.store, &mut room, record, &w.clock, &w.entropy)
            .await
            .unwrap();
    }
    assert!(!w.room().await.state.live_slots.contains(&slot));
    let first = w.store.snapshot();
    w.store.restore(before);
    let mut room = w.room().await;
    w.clock.advance(1);
    unlocked
        .publish(
            &w.store,
            &mut room,
            Record::SlotAdd(slot),
            &w.clock,
            &w.entropy,
        )
        .await
        .unwrap();
    for (name, bytes) in first {
        w.store.tamper(&name, Some(bytes));
    }
    assert!(w.room().await.state.live_slots.contains(&slot));
}

#[tokio::test]
async fn a_changed_slot_is_found_by_its_listed_hash() {
    let w = world(1).await;
    let unlocked = w.unlock().await;
    let state = w.room().await.state;
    let clean = unlocked.check_slots(&w.store, &state).await.unwrap();
    assert!(clean.is_empty());
    let slot = w.slots(1).remove(0);
    let mut bytes = w.bytes(&slot);
    bytes[30] ^= 1;
    w.replace(&slot, with_new_checksum(bytes));
    let problems = unlocked.check_slots(&w.store, &state).await.unwrap();
    assert_eq!(problems.len(), 1);
    assert!(!problems[0].missing && problems[0].object == slot.as_str());
}

#[tokio::test]
async fn a_device_of_nobody_is_not_let_in_by_its_reader() {
    let w = world(1).await;
    let stranger = w.device().await;
    let reader = w.unlock().await.reader_for(&stranger);
    let error = reader.load(&w.store).await.err().unwrap();
    assert_eq!(error.class(), Class::Integrity, "{error}");
    let recipients: Vec<Recipient> = w
        .room()
        .await
        .state
        .epochs
        .values()
        .next()
        .unwrap()
        .envelopes
        .iter()
        .map(|(recipient, _)| *recipient)
        .collect();
    assert_eq!(recipients.len(), 2, "root and words, and no other escrow");
}
