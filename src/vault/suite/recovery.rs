//! Recovery keys: what they can, and what they cannot.

use super::opening::FailingPuts;
use super::people::{joined, member, owner};
use super::*;
use crate::record::{CutTips, EndReason, Label, MemberAdd, MemberRole, RecoveryPurpose, Role};
use crate::{Class, Place, RecoveryKey, What};
use skrin_base::ids::EpochId;
use skrin_crypto::shares::join;
use skrin_crypto::words::words_of;
use std::sync::atomic::AtomicUsize;

async fn enabled(w: &World) -> RecoveryKey {
    let unlocked = w.unlock().await;
    let key = unlocked
        .make_recovery_key(&w.room().await, &w.entropy)
        .unwrap();
    let room = unlocked.enable_recovery(&w.place(), &key, "recovery").await;
    assert_eq!(
        room.unwrap().state.now().role(&key.person()),
        Some(Role::Recovery)
    );
    key
}

async fn opened(w: &World, key: &RecoveryKey) -> Unlocked {
    unlock(&w.store, &Secret::Words(key.words())).await.unwrap()
}

fn all_opened(room: &Room) -> bool {
    let mut epochs = room.state.epochs.keys();
    epochs.all(|id: &EpochId| room.keys.commitment(id).is_some())
}

#[tokio::test]
async fn a_recovery_key_opens_every_epoch_from_before_it_and_after_it_when_nobody_else_has_a_key() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let bea = joined(&w, &anna.officer(), "bea", Role::Editor).await;
    let key = enabled(&w).await;
    anna.officer()
        .remove_member(&w.place(), bea.person(), CutTips::new(), EndReason::Left)
        .await
        .unwrap();
    drop((anna, bea));
    let recovered = opened(&w, &key).await;
    let room = recovered.load_room(&w.store).await.unwrap();
    assert!(room.state.epochs.len() >= 4 && all_opened(&room));
    assert!(recovered.is_recovery(&room));
    let drilled = recovered.drill_recovery(&w.place()).await.unwrap();
    assert_eq!(
        (drilled.opened, drilled.person),
        (drilled.epochs, key.person())
    );
}

#[tokio::test]
async fn any_two_of_three_shares_open_the_vault() {
    let w = world(2).await;
    let key = enabled(&w).await;
    let shares = key.shares((2, 3), &w.entropy).unwrap();
    for (first, second) in [(0, 1), (2, 0), (1, 2)] {
        let words = words_of(&join(&[&shares[first], &shares[second]]).unwrap());
        let unlocked = unlock(&w.store, &Secret::Words(words)).await.unwrap();
        assert_eq!(unlocked.person(), key.person());
    }
}

#[tokio::test]
async fn all_members_see_that_there_is_a_recovery_key_who_made_it_and_when_it_was_used() {
    let w = world(3).await;
    let anna = owner(&w).await;
    let bea = joined(&w, &anna.officer(), "bea", Role::Reader).await;
    let key = enabled(&w).await;
    let recovered = opened(&w, &key).await;
    recovered.drill_recovery(&w.place()).await.unwrap();
    let mut room = recovered.load_room(&w.store).await.unwrap();
    recovered
        .tell_recovery(&w.place(), &mut room, RecoveryPurpose::Read)
        .await
        .unwrap();
    let seen = bea.load(&w).await.unwrap().state;
    let listed = &seen.now().members[&key.person()];
    assert_eq!(
        (listed.role, listed.author),
        (Role::Recovery, anna.person())
    );
    let used = |entry: &crate::AuditEntry| match entry.what {
        What::RecoveryUsed(purpose) => Some((entry.author, purpose)),
        _ => None,
    };
    let used: Vec<_> = seen.audit().iter().filter_map(used).collect();
    let by = key.person();
    assert_eq!(
        used,
        [(by, RecoveryPurpose::Drill), (by, RecoveryPurpose::Read)]
    );
}

#[tokio::test]
async fn a_recovery_key_certifies_no_device_and_lets_nobody_in() {
    let w = world(4).await;
    let key = enabled(&w).await;
    let recovered = opened(&w, &key).await;
    let mut room = recovered.load_room(&w.store).await.unwrap();
    let device = Device::make(&recovered, &room, &w.entropy);
    let refused = recovered
        .certify_device(&w.store, &mut room, &device, "x", &w.clock, &w.entropy)
        .await;
    assert!(refused.is_err());
    let (_, keys) = people::Someone::keys(&w, b'c');
    let refused = recovered
        .officer()
        .add_member(&w.place(), &member(&keys, "carl", Role::Reader))
        .await;
    assert_eq!(refused.err().unwrap().class(), Class::NotAllowed);
    assert!(
        recovered.officer().make_epoch(&w.place()).await.is_ok(),
        "none is needed"
    );
    assert!(recovered.officer().rekey(&w.place()).await.is_err());
    let slots = w.slots(1).len();
    let passphrase = text("four green hats 21");
    let weak = Argon2Params::WEAK_FOR_TESTS;
    let refused = recovered
        .change_passphrase(&w.place(), &passphrase, weak)
        .await;
    assert_eq!(refused.err().unwrap().class(), Class::NotAllowed);
    assert_eq!(w.slots(1).len(), slots);
    // Nor do records that it signs all the same.
    let device = certificates::device_add(&recovered, &room, 5);
    let device = Record::DeviceAdd(Box::new(device));
    assert!(
        refusal(&w, &recovered, device)
            .await
            .contains("may not do this with the role")
    );
    let add = Record::MemberAdd(Box::new(MemberAdd {
        person: keys.person(w.made.anchor.vault),
        name: Label::new("carl").unwrap(),
        role: Role::Reader,
        keys,
        history: crate::record::History::All,
        until: None,
        invitation: None,
    }));
    let w = world(4).await;
    let key = enabled(&w).await;
    let recovered = opened(&w, &key).await;
    assert!(
        refusal(&w, &recovered, add)
            .await
            .contains("may not do this with the role")
    );
}

/// What is said of a record that a root signs and puts.
async fn refusal(w: &World, by: &Unlocked, record: Record) -> String {
    let room = by.load_room(&w.store).await.unwrap();
    let body = w.body(by, &room, record);
    w.plant(by, &body, &Signer::Root(&by.root_signer()), &[]);
    w.finding().await
}

#[tokio::test]
async fn a_recovery_key_that_was_removed_reads_nothing_that_comes_later() {
    let w = world(5).await;
    let anna = owner(&w).await;
    let key = enabled(&w).await;
    anna.officer()
        .remove_member(&w.place(), key.person(), CutTips::new(), EndReason::Unsaid)
        .await
        .unwrap();
    let recovered = opened(&w, &key).await;
    let room = recovered.load_room(&w.store).await.unwrap();
    let [current] = room.state.epoch_heads()[..] else {
        panic!("one epoch")
    };
    assert!(room.keys.commitment(&current).is_none());
    assert!(!recovered.is_recovery(&room));
    let refused = recovered.drill_recovery(&w.place()).await.err().unwrap();
    assert_eq!(refused.class(), Class::NotAllowed);
}

#[tokio::test]
async fn nobody_makes_a_member_of_a_recovery_key_or_a_recovery_key_of_a_member() {
    let w = world(6).await;
    let anna = owner(&w).await;
    let bea = joined(&w, &anna.officer(), "bea", Role::Editor).await;
    let key = enabled(&w).await;
    for (person, role) in [
        (key.person(), Role::Manager),
        (bea.person(), Role::Recovery),
    ] {
        let set = anna
            .officer()
            .set_role(&w.place(), person, role, CutTips::new())
            .await;
        assert!(set.is_err(), "{role:?}");
    }
    let cut = CutTips::new();
    let role = |person, role| {
        Record::MemberRole(Box::new(MemberRole {
            person,
            role,
            cut: cut.clone(),
        }))
    };
    let what = "makes a member of a recovery key, or a recovery key of a member";
    let said = refusal(&w, &anna.unlocked, role(key.person(), Role::Manager)).await;
    assert!(said.contains(what), "{said}");
}

#[tokio::test]
async fn who_is_no_recovery_key_does_not_say_that_one_is_used() {
    let w = world(7).await;
    let anna = owner(&w).await;
    let used = || Record::RecoveryUse(RecoveryPurpose::Read);
    let said = refusal(&w, &anna.unlocked, used()).await;
    assert!(said.contains("its author is none"), "{said}");
    let w = world(7).await;
    let anna = owner(&w).await;
    let drilled = anna.unlocked.drill_recovery(&w.place()).await;
    assert_eq!(drilled.err().unwrap().class(), Class::NotAllowed);
}

#[tokio::test]
async fn whoever_was_interrupted_while_enabling_repeats_it_with_the_same_key() {
    for puts in 0.. {
        let w = world(8).await;
        let unlocked = w.unlock().await;
        let key = unlocked
            .make_recovery_key(&w.room().await, &w.entropy)
            .unwrap();
        let store = FailingPuts(MemoryStore::new(), AtomicUsize::new(puts));
        store.0.restore(w.store.snapshot());
        let place = Place {
            store: &store,
            ..w.place()
        };
        let first = unlocked.enable_recovery(&place, &key, "recovery").await;
        w.store.restore(store.0.snapshot());
        let again = unlocked.enable_recovery(&w.place(), &key, "recovery").await;
        again.unwrap();
        let drilled = opened(&w, &key)
            .await
            .drill_recovery(&w.place())
            .await
            .unwrap();
        assert_eq!(drilled.opened, drilled.epochs);
        if first.is_ok() {
            assert!(puts > 4, "it was interrupted at each of them");
            return;
        }
    }
}
