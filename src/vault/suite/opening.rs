//! Init, header, slots, unlock.

use super::*;
use crate::Anchor;
use crate::slot::{SlotSecret, make_slot};
use crate::unlock::slot_object_name;
use crate::{Class, HEADER_NAME, open_header};
use async_trait::async_trait;
use skrin_base::wire::{Decode, Encode};
use skrin_storage::{Capacity, ErrorKind, Listing, Prefix, Store, StoreError};
use std::sync::atomic::{AtomicUsize, Ordering};

fn header_name() -> ObjectName {
    ObjectName::new(HEADER_NAME).unwrap()
}

#[tokio::test]
async fn both_secrets_open_the_vault_that_init_made() {
    let w = world(1).await;
    for secret in [w.words(), passphrase(PASSPHRASE)] {
        let unlocked = unlock(&w.store, &secret).await.unwrap();
        assert_eq!(*unlocked.anchor(), w.made.anchor);
        assert!(unlocked.damaged_slots().is_empty());
        let room = unlocked.load_room(&w.store).await.unwrap();
        assert_eq!(room.state.owner, unlocked.person());
        assert_eq!(room.state.live_slots.len(), 2);
        assert!(room.state.live_slots.contains(&unlocked.slot()));
        assert_eq!(room.state.epoch_heads(), [room.keys.current().0]);
        assert_eq!(room.state.block_log2, 16);
        assert!(room.roster.devices.is_empty());
        assert_eq!(room.roster.control_heads.len(), 1);
    }
}

#[tokio::test]
async fn two_vaults_share_nothing() {
    let (a, b) = (world(1).await, world(2).await);
    assert_ne!(a.made.anchor.vault, b.made.anchor.vault);
    assert_ne!(*a.made.words, *b.made.words);
    let error = a.unlock_error(&b.words()).await;
    assert_eq!(error.class(), Class::WrongSecret, "{error}");
}

#[tokio::test]
async fn a_wrong_secret_is_told_as_such() {
    let w = world(1).await;
    let error = w.unlock_error(&passphrase("tiny walrus 8")).await;
    assert_eq!(error.class(), Class::WrongSecret, "{error}");
    let valid = "legal winner thank year wave sausage worth useful legal winner thank yellow";
    let error = w.unlock_error(&Secret::Words(text(valid))).await;
    assert_eq!(error.class(), Class::WrongSecret, "{error}");
    let error = w.unlock_error(&Secret::Words(text("legal winner"))).await;
    assert_eq!(error.class(), Class::WrongSecret, "{error}");
    assert!(error.to_string().contains("2 words"), "{error}");
}

#[tokio::test]
async fn a_place_without_a_header_is_no_vault() {
    let w = world(1).await;
    w.store.tamper(&header_name(), None);
    let error = w.unlock_error(&w.words()).await;
    assert_eq!(error.class(), Class::NothingThere, "{error}");
}

#[tokio::test]
async fn init_refuses_a_place_that_holds_a_vault_or_the_rest_of_one() {
    let w = world(1).await;
    let again = init(&w.store, &options(), &w.clock, &w.entropy).await;
    let error = again.err().unwrap();
    assert!(matches!(error, VaultError::AlreadyThere { .. }), "{error}");
    let before = w.store.names();
    w.store.tamper(&header_name(), None);
    let again = init(&w.store, &options(), &w.clock, &w.entropy).await;
    let error = again.err().unwrap();
    assert!(matches!(error, VaultError::Leftovers { .. }), "{error}");
    assert_eq!(error.class(), Class::Exists);
    assert_eq!(
        w.store.names().len(),
        before.len() - 1,
        "nothing was written"
    );
}

/// Fails every put from the n-th on.
pub(super) struct FailingPuts(pub(super) MemoryStore, pub(super) AtomicUsize);

#[async_trait]
impl Store for FailingPuts {
    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        let left = self
            .1
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        match left {
            Ok(_) => self.0.put(name, bytes).await,
            Err(_) => Err(StoreError::new(ErrorKind::Transient, "the power is gone")),
        }
    }
    async fn get(&self, name: &ObjectName, max: usize) -> Result<Bytes, StoreError> {
        self.0.get(name, max).await
    }
    async fn get_range(&self, n: &ObjectName, at: u64, len: usize) -> Result<Bytes, StoreError> {
        self.0.get_range(n, at, len).await
    }
    async fn list(&self, dir: &Prefix) -> Result<Listing, StoreError> {
        self.0.list(dir).await
    }
    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.0.delete(name).await
    }
    async fn capacity(&self) -> Result<Capacity, StoreError> {
        self.0.capacity().await
    }
    fn place(&self) -> String {
        self.0.place()
    }
}

#[tokio::test]
async fn an_init_that_stops_anywhere_leaves_no_vault_and_says_so_next_time() {
    let all = world(1).await.store.names().len();
    assert_eq!(
        all, 7,
        "header, two slots, genesis, two slot records, epoch"
    );
    for puts in 0..all {
        let store = FailingPuts(MemoryStore::new(), AtomicUsize::new(puts));
        let (clock, entropy) = (ManualClock::default(), SeededEntropy::new(1));
        let made = init(&store, &options(), &clock, &entropy).await;
        assert_eq!(made.err().unwrap().class(), Class::Storage);
        assert_eq!(store.0.names().len(), puts);
        let error = open_header(&store).await.err().unwrap();
        assert_eq!(error.class(), Class::NothingThere, "after {puts}");
        store.1.store(100, Ordering::SeqCst);
        let again = init(&store, &options(), &clock, &entropy).await;
        match again {
            Ok(_) => assert_eq!(puts, 0),
            Err(error) => assert!(matches!(error, VaultError::Leftovers { .. }), "{error}"),
        }
    }
}

#[tokio::test]
async fn init_refuses_weak_passphrases_costly_parameters_and_names_that_do_not_print() {
    let store = MemoryStore::new();
    let (clock, entropy) = (ManualClock::default(), SeededEntropy::new(1));
    let weak = InitOptions {
        passphrase: Some(text("aaaaaaaaaaaa")),
        ..options()
    };
    let costly = InitOptions {
        argon2: Argon2Params {
            memory_kib: u32::MAX,
            ..Argon2Params::DEFAULT
        },
        ..options()
    };
    let names = ["", "a\u{1b}[2J", "a\nb", &"x".repeat(65)].map(|name| InitOptions {
        person_name: name.to_owned(),
        ..options()
    });
    for bad in [weak, costly].into_iter().chain(names) {
        assert!(init(&store, &bad, &clock, &entropy).await.is_err());
        assert!(store.names().is_empty(), "nothing was written");
    }
}

#[tokio::test]
async fn a_flipped_byte_anywhere_in_the_header_is_damage() {
    let w = world(1).await;
    let bytes = w.bytes(&header_name());
    assert_eq!(bytes.len(), 69);
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        w.replace(&header_name(), changed);
        let error = w.unlock_error(&w.words()).await;
        assert_eq!(error.class(), Class::Integrity, "byte {at}: {error}");
        assert!(error.to_string().contains(HEADER_NAME), "{error}");
    }
    for len in 0..bytes.len() {
        w.replace(&header_name(), bytes[..len].to_vec());
        let error = w.unlock_error(&w.words()).await;
        assert_eq!(error.class(), Class::Integrity, "length {len}");
    }
}

#[tokio::test]
async fn a_header_that_was_rewritten_with_care_is_found_out_by_the_slots() {
    let w = world(1).await;
    let bytes = w.bytes(&header_name());
    // Magic and version are tested below; then optional features, vault id and time.
    for at in [9, 13, 28, 29, 36] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        w.replace(&header_name(), with_new_checksum(changed));
        for secret in [w.words(), passphrase(PASSPHRASE)] {
            let error = w.unlock_error(&secret).await;
            assert_eq!(error.class(), Class::Integrity, "byte {at}: {error}");
        }
    }
}

#[tokio::test]
async fn newer_versions_and_unknown_critical_features_ask_for_an_update() {
    let w = world(1).await;
    let bytes = w.bytes(&header_name());
    for (at, value) in [(4, 2), (4, 255), (5, 1), (8, 0x80)] {
        let mut newer = bytes.clone();
        newer[at] = value;
        w.replace(&header_name(), with_new_checksum(newer));
        let error = w.unlock_error(&w.words()).await;
        assert_eq!(error.class(), Class::Newer, "byte {at}: {error}");
    }
    let mut none = bytes.clone();
    none[4] = 0;
    w.replace(&header_name(), with_new_checksum(none));
    let error = w.unlock_error(&w.words()).await;
    assert_eq!(error.class(), Class::Integrity, "there is no version 0");
    w.replace(&header_name(), bytes);
    for name in w.names("slots/") {
        let mut newer = w.bytes(&name);
        newer[4] = 2;
        w.replace(&name, with_new_checksum(newer));
    }
    let error = w.unlock_error(&w.words()).await;
    assert_eq!(error.class(), Class::Newer, "{error}");
    assert!(error.to_string().contains("slots/"), "{error}");
}

#[tokio::test]
async fn a_flipped_byte_anywhere_in_a_slot_is_damage_and_the_slot_is_named() {
    let w = world(1).await;
    let slots = w.slots(2);
    let [slot] = slots.as_slice() else { panic!() };
    let bytes = w.bytes(slot);
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        w.replace(slot, changed);
        let error = w.unlock_error(&w.words()).await;
        assert_eq!(error.class(), Class::Integrity, "byte {at}: {error}");
        assert!(error.to_string().contains(slot.as_str()), "{error}");
    }
}

#[tokio::test]
async fn a_slot_that_was_rewritten_with_care_opens_for_nobody() {
    let w = world(1).await;
    for (kind, secret) in [(2, w.words()), (1, passphrase(PASSPHRASE))] {
        let slots = w.slots(kind);
        let [slot] = slots.as_slice() else { panic!() };
        let bytes = w.bytes(slot);
        let parameters = if kind == 1 { 12 } else { 0 };
        let sealed = 54 + parameters + 32;
        // Vault, salt, parameters, commitment; nonce, body and tag of the payload.
        let regions = [6, 22, 53, 54, sealed - 32, sealed - 1, sealed, sealed + 12];
        for at in regions.into_iter().chain([bytes.len() - 33]) {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            w.replace(slot, with_new_checksum(changed));
            let class = w.unlock_error(&secret).await.class();
            let expected = [Class::WrongSecret, Class::Integrity];
            assert!(
                expected.contains(&class),
                "kind {kind}, byte {at}: {class:?}"
            );
            if at >= sealed {
                assert_eq!(class, Class::Integrity, "the commitment matched: damage");
            }
        }
        w.replace(slot, bytes);
    }
}

#[tokio::test]
async fn parameters_that_would_exhaust_the_machine_are_refused_before_they_run() {
    let w = world(1).await;
    let slot = w.slots(1).remove(0);
    let mut bytes = w.bytes(&slot);
    bytes[54..58].copy_from_slice(&u32::MAX.to_le_bytes());
    w.replace(&slot, with_new_checksum(bytes));
    let error = w.unlock_error(&passphrase(PASSPHRASE)).await;
    assert_eq!(error.class(), Class::Integrity, "{error}");
    assert!(error.to_string().contains("ceiling"), "{error}");
    assert!(
        unlock(&w.store, &w.words()).await.is_ok(),
        "the others still open"
    );
}

#[tokio::test]
async fn slots_of_another_vault_do_not_pass_for_ours() {
    let (a, b) = (world(1).await, world(2).await);
    for name in a.names("slots/") {
        a.store.tamper(&name, None);
    }
    for name in b.names("slots/") {
        a.replace(&name, b.bytes(&name));
    }
    for secret in [b.words(), a.words(), passphrase(PASSPHRASE)] {
        let error = a.unlock_error(&secret).await;
        assert_eq!(error.class(), Class::Integrity, "{error}");
    }
    // With the header too it is the other vault, which only a memory of ours can tell.
    a.replace(&header_name(), b.bytes(&header_name()));
    let unlocked = unlock(&a.store, &passphrase(PASSPHRASE)).await.unwrap();
    assert_ne!(*unlocked.anchor(), a.made.anchor);
    let error = unlocked.load_room(&a.store).await.err().unwrap();
    assert!(matches!(error, VaultError::Missing { .. }), "{error}");
}

#[tokio::test]
async fn deleted_slots_and_slots_of_unknown_kinds_leave_the_others_usable() {
    let w = world(1).await;
    let slot = w.slots(1).remove(0);
    let mut later = w.bytes(&slot);
    later[5] = 5;
    w.replace(&slot, with_new_checksum(later));
    let error = w.unlock_error(&passphrase(PASSPHRASE)).await;
    assert!(matches!(error, VaultError::NoSlot { .. }), "{error}");
    let unlocked = w.unlock().await;
    assert!(
        unlocked.damaged_slots().is_empty(),
        "unknown is not damaged"
    );
    w.store.tamper(&slot, None);
    let unlocked = w.unlock().await;
    let state = unlocked.load_room(&w.store).await.unwrap().state;
    let problems = unlocked.check_slots(&w.store, &state).await.unwrap();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].missing && problems[0].object == slot.as_str());
    for name in w.names("slots/") {
        w.store.tamper(&name, None);
    }
    let error = w.unlock_error(&w.words()).await;
    assert!(matches!(error, VaultError::NoSlot { .. }), "{error}");
}

#[tokio::test]
async fn several_passphrases_are_tried_in_turn_and_damage_elsewhere_is_reported() {
    let w = world(1).await;
    let slot = w.slots(1).remove(0);
    let payload = crate::slot::Slot::parse("slot", &w.bytes(&slot))
        .unwrap()
        .unwrap()
        .open_passphrase("slot", PASSPHRASE)
        .unwrap()
        .unwrap();
    for (n, other) in ["second passphrase", "third passphrase"].iter().enumerate() {
        let secret = SlotSecret::Passphrase(other, Argon2Params::WEAK_FOR_TESTS);
        let object = make_slot(&secret, &payload, &w.entropy).unwrap();
        let name = slot_object_name(&[n as u8; 16]);
        w.replace(&ObjectName::new(name).unwrap(), object);
    }
    for good in [PASSPHRASE, "second passphrase", "third passphrase"] {
        assert!(unlock(&w.store, &passphrase(good)).await.is_ok(), "{good}");
    }
    let junk = ObjectName::new(slot_object_name(&[0; 16])).unwrap();
    w.replace(&junk, b"junk".to_vec());
    let unlocked = unlock(&w.store, &passphrase(PASSPHRASE)).await.unwrap();
    assert_eq!(unlocked.damaged_slots(), [junk.to_string()]);
    let error = w.unlock_error(&passphrase("no such passphrase")).await;
    assert_eq!(error.class(), Class::WrongSecret);
    assert!(error.to_string().contains(junk.as_str()), "{error}");
}

/// Plants passphrase slots with a secret of one's own, named so that they come first.
fn plant_slots(w: &World, numbers: std::ops::Range<u8>, passes: u32) {
    let payload = w.slots(1).iter().find_map(|name| {
        let slot = crate::slot::Slot::parse("slot", &w.bytes(name)).unwrap();
        slot.unwrap().open_passphrase("slot", PASSPHRASE).unwrap()
    });
    let payload = payload.unwrap();
    let params = Argon2Params {
        passes,
        ..Argon2Params::WEAK_FOR_TESTS
    };
    for n in numbers {
        let secret = SlotSecret::Passphrase("some other secret", params);
        let object = make_slot(&secret, &payload, &w.entropy).unwrap();
        let mut name = [0; 16];
        name[15] = n;
        let name = ObjectName::new(slot_object_name(&name)).unwrap();
        w.replace(&name, object);
    }
}

#[tokio::test]
async fn costly_slots_that_the_storage_planted_do_not_come_before_ours() {
    let w = world(1).await;
    let own = w.slots(1).remove(0);
    plant_slots(&w, 0..80, 2);
    let unlocked = unlock(&w.store, &passphrase(PASSPHRASE)).await.unwrap();
    assert_eq!(slot_object_name(&unlocked.slot().name), own.as_str());
    let error = w.unlock_error(&passphrase("no such passphrase")).await;
    assert_eq!(error.class(), Class::WrongSecret);
    let VaultError::WrongSecret { slots, untried, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((*slots, *untried), (64, 17));
    assert!(error.to_string().contains("17 more"), "{error}");
    // As cheap as ours and before it by name: the passphrase is locked out, the words are not.
    plant_slots(&w, 0..64, 1);
    let error = w.unlock_error(&passphrase(PASSPHRASE)).await;
    assert!(error.to_string().contains("use the words"), "{error}");
    assert!(unlock(&w.store, &w.words()).await.is_ok());
    // Who has opened it before remembers the slot.
    let name = unlocked.slot().name;
    let hinted = unlock_with_hint(&w.store, &passphrase(PASSPHRASE), Some(&name)).await;
    assert_eq!(hinted.unwrap().slot(), unlocked.slot());
    let other = unlock_with_hint(&w.store, &w.words(), Some(&name)).await;
    assert!(other.is_ok(), "a hint that does not fit costs nothing");
}

#[tokio::test]
async fn a_vault_is_compared_with_the_one_that_the_device_remembers() {
    let (a, b) = (world(1).await, world(2).await);
    let unlocked = a.unlock().await;
    assert!(unlocked.check_pin(&a.made.anchor).is_ok());
    let error = unlocked.check_pin(&b.made.anchor).err().unwrap();
    assert_eq!(error.class(), Class::Integrity, "{error}");
    let pin = a.made.anchor.to_bytes();
    assert_eq!(Anchor::from_bytes(&pin), Ok(a.made.anchor));
}

#[tokio::test]
async fn nothing_readable_reaches_the_storage() {
    let w = world(1).await;
    for name in w.store.names() {
        let bytes = w.bytes(&name);
        for word in [b"anna".as_slice(), PASSPHRASE.as_bytes()] {
            let found = bytes.windows(word.len()).any(|window| window == word);
            assert!(!found, "{name}");
        }
    }
}

#[tokio::test]
async fn header_records_and_slots_are_told_from_other_bytes_without_the_root() {
    let w = world(1).await;
    let (unlocked, device) = (w.unlock().await, w.device().await);
    let reader = crate::RoomReader::for_device(&unlocked, &device);
    let get = async |name: &ObjectName| w.store.get(name, 1 << 20).await.unwrap();
    let header = get(&header_name()).await;
    assert!(reader.is_header(&header) && !reader.is_header(&header[1..]));
    let records = reader.control_objects(&w.store).await.unwrap();
    assert!(!records.is_empty());
    for name in &records {
        let mut bytes = get(name).await.to_vec();
        assert!(reader.is_control_record(name, &bytes));
        assert!(!reader.is_control_record(&header_name(), &bytes));
        bytes[30] ^= 1;
        assert!(!reader.is_control_record(name, &bytes));
    }
    let slots = crate::slot_objects(&w.room().await.state);
    assert_eq!(slots.len(), 2);
    for (name, expected) in slots {
        let bytes = get(&ObjectName::new(name).unwrap()).await;
        assert_eq!(hash(&bytes), expected);
    }
}
