//! Invitations, and what can go wrong on both sides.

use super::people::{Someone, joined, member, owner};
use super::*;
use crate::record::{EndReason, History, MemberAdd, Role};
use crate::{Class, Invitation, JoinOptions, Offer, Officer, Pending, find_request, join_request};
use skrin_base::Timestamp;
use skrin_base::wire::{Decode, Encode};

const DAY: i64 = 86_400_000_000_000;

fn offer(role: Role) -> Offer {
    Offer {
        role,
        history: History::All,
        until: None,
        lasts: 7 * DAY,
        place: Some("webdavs://files.example.org/vault".to_owned()),
    }
}

async fn invite(w: &World, officer: &Officer, role: Role) -> Invitation {
    let room = officer.load(&w.place()).await.unwrap();
    Invitation::make(officer, &room, &offer(role), &w.clock, &w.entropy).unwrap()
}

/// The same invitation, as the other side reads it.
fn copy(invitation: &Invitation) -> Invitation {
    Invitation::from_text(&invitation.to_text()).unwrap()
}

fn join_options(name: &str) -> JoinOptions {
    JoinOptions {
        passphrase: Some(text("a joiner's passphrase")),
        argon2: Argon2Params::WEAK_FOR_TESTS,
        ..JoinOptions::new(name)
    }
}

/// Somebody asks.
async fn ask(w: &World, invitation: &Invitation, name: &str) -> Pending {
    let place = w.place();
    let pending = join_request(&place, copy(invitation), &join_options(name))
        .await
        .unwrap();
    pending.ask(&place).await.unwrap();
    pending
}

async fn accept(w: &World, officer: &Officer, invitation: &Invitation) -> Result<Room, VaultError> {
    let request = find_request(&w.store, invitation).await?.unwrap();
    officer.accept(&w.place(), invitation, &request).await
}

async fn finish(w: &World, pending: &Pending) -> Result<Unlocked, VaultError> {
    let passphrase = text("a joiner's passphrase");
    let slot = Some((&passphrase, Argon2Params::WEAK_FOR_TESTS));
    pending.finish(&w.place(), slot).await
}

fn joins(w: &World) -> usize {
    w.names("joins/").len()
}

fn told(error: &VaultError, what: &str) {
    assert!(error.to_string().contains(what), "{error}");
}

#[tokio::test]
async fn somebody_joins_with_an_invitation_and_nothing_else() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let invitation = invite(&w, &anna.officer(), Role::Manager).await;
    assert!(find_request(&w.store, &invitation).await.unwrap().is_none());
    let pending = ask(&w, &invitation, "bert").await;
    let error = finish(&w, &pending).await.err().unwrap();
    assert!(matches!(error, VaultError::Waiting(_)), "{error}");
    assert_eq!(error.class(), Class::NothingThere);
    let request = find_request(&w.store, &invitation).await.unwrap().unwrap();
    assert_eq!(
        (request.name(), request.person()),
        ("bert", pending.person())
    );
    assert_eq!(request.fingerprint(), pending.keys().fingerprint());
    let room = accept(&w, &anna.officer(), &invitation).await.unwrap();
    assert_eq!(joins(&w), 1, "the inviter has deleted the request");
    let member = room.state.now().members[&pending.person()];
    assert!(member.invited && member.role == Role::Manager);
    // From the disk, with either secret.
    let secrets = [
        passphrase("a joiner's passphrase"),
        Secret::Words(pending.words()),
    ];
    for secret in secrets {
        let again = Pending::open(pending.to_file(), &secret).unwrap();
        assert_eq!(
            (again.person(), again.words()),
            (pending.person(), pending.words())
        );
    }
    let unlocked = finish(&w, &pending).await.unwrap();
    assert_eq!(joins(&w), 0, "the joiner has deleted the answer");
    assert_eq!(unlocked.person(), pending.person());
    let state = unlocked.load_room(&w.store).await.unwrap().state;
    assert_eq!(state.slots_of(unlocked.person()).len(), 2);
    for secret in [
        passphrase("a joiner's passphrase"),
        Secret::Words(pending.words()),
    ] {
        let unlocked = unlock(&w.store, &secret).await.unwrap();
        assert_eq!(unlocked.person(), pending.person());
        assert_eq!(*unlocked.anchor(), w.made.anchor);
    }
    let bert = Someone {
        unlocked,
        device: None,
    };
    let bert = bert.with_device(&w, "bert's").await;
    let room = bert.load(&w).await.unwrap();
    assert_eq!(room.keys.epochs().count(), 2);
    // As a manager he invites the next one.
    let invitation = invite(&w, &bert.officer(), Role::Reader).await;
    let pending = ask(&w, &invitation, "carl").await;
    accept(&w, &bert.officer(), &invitation).await.unwrap();
    finish(&w, &pending).await.unwrap();
    assert_eq!(anna.load(&w).await.unwrap().state.now().members.len(), 3);
}

#[tokio::test]
async fn each_step_may_be_repeated() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let invitation = invite(&w, &anna.officer(), Role::Editor).await;
    let pending = ask(&w, &invitation, "bert").await;
    pending.ask(&w.place()).await.unwrap();
    assert_eq!(joins(&w), 1);
    let request = find_request(&w.store, &invitation).await.unwrap().unwrap();
    let first = anna
        .officer()
        .accept(&w.place(), &invitation, &request)
        .await
        .unwrap();
    let control = || w.names("rooms/").len();
    let records = control();
    // The answer was lost on the way, and time goes by.
    w.store.tamper(&w.names("joins/")[0], None);
    w.clock.advance(100 * DAY as u64);
    let second = anna
        .officer()
        .accept(&w.place(), &invitation, &request)
        .await
        .unwrap();
    assert_eq!(first.roster, second.roster);
    assert_eq!((control(), joins(&w)), (records, 1));
    let answer = w.names("joins/").remove(0);
    let bytes = w.bytes(&answer);
    let unlocked = finish(&w, &pending).await.unwrap();
    // It stopped before it deleted the answer.
    w.replace(&answer, bytes);
    let (records, slots) = (control(), w.names("slots/").len());
    let again = finish(&w, &pending).await.unwrap();
    assert_eq!(again.slot(), unlocked.slot());
    assert_eq!(
        (control(), w.names("slots/").len(), joins(&w)),
        (records, slots, 0)
    );
}

#[tokio::test]
async fn whoever_is_stopped_while_slots_are_made_ends_with_words_and_passphrase() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let invitation = invite(&w, &anna.officer(), Role::Editor).await;
    let pending = ask(&w, &invitation, "bert").await;
    accept(&w, &anna.officer(), &invitation).await.unwrap();
    let answer = w.names("joins/").remove(0);
    let bytes = w.bytes(&answer);
    // As far as the slot of the words, listed; then he gives both.
    pending.finish(&w.place(), None).await.unwrap();
    w.replace(&answer, bytes.clone());
    let slots = w.names("slots/");
    finish(&w, &pending).await.unwrap();
    assert_eq!(w.names("slots/").len(), slots.len() + 1);
    // And once more: nothing is made twice.
    w.replace(&answer, bytes);
    let (records, objects) = (w.names("rooms/").len(), w.names("slots/"));
    finish(&w, &pending).await.unwrap();
    assert_eq!(
        (w.names("rooms/").len(), w.names("slots/")),
        (records, objects)
    );
    let secret = Secret::Passphrase(text("a joiner's passphrase"));
    let unlocked = unlock(&w.store, &secret).await.unwrap();
    let room = unlocked.load_room(&w.store).await.unwrap();
    assert!(room.state.lists_slot(pending.person(), unlocked.slot()));
    // The answer went, and nobody heard of it.
    assert_eq!(joins(&w), 0);
    finish(&w, &pending).await.unwrap();
}

#[tokio::test]
async fn an_invitation_that_has_expired_is_refused_on_both_sides() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let invitation = invite(&w, &anna.officer(), Role::Editor).await;
    ask(&w, &invitation, "bert").await;
    w.clock.advance(7 * DAY as u64);
    let error = accept(&w, &anna.officer(), &invitation)
        .await
        .err()
        .unwrap();
    told(&error, "expired");
    assert_eq!(error.class(), Class::Usage);
    let late = join_request(&w.place(), copy(&invitation), &join_options("bert")).await;
    told(&late.err().unwrap(), "expired");
    assert_eq!(anna.load(&w).await.unwrap().state.now().members.len(), 1);
}

#[tokio::test]
async fn an_invitation_serves_once() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let invitation = invite(&w, &anna.officer(), Role::Editor).await;
    let pending = ask(&w, &invitation, "bert").await;
    // Somebody who read it, too, comes second.
    let second = join_request(&w.place(), copy(&invitation), &join_options("eve")).await;
    told(&second.err().unwrap(), "asked with it already");
    accept(&w, &anna.officer(), &invitation).await.unwrap();
    let second = join_request(&w.place(), copy(&invitation), &join_options("eve")).await;
    told(&second.err().unwrap(), "asked with it already");
    // The storage hides that for her.
    let answer = w.names("joins/").remove(0);
    let bytes = w.bytes(&answer);
    w.store.tamper(&answer, None);
    let eve = ask(&w, &invitation, "eve").await;
    w.replace(&answer, bytes);
    let error = eve.ask(&w.place()).await.err().unwrap();
    told(&error, "for somebody else");
    let error = accept(&w, &anna.officer(), &invitation)
        .await
        .err()
        .unwrap();
    told(&error, "joined with it already");
    let error = finish(&w, &eve).await.err().unwrap();
    told(&error, "for somebody else");
    finish(&w, &pending).await.unwrap();
    // Nor does it bring him back.
    let place = w.place();
    let person = pending.person();
    let officer = anna.officer();
    officer
        .remove_member(&place, person, vec![], EndReason::Unsaid)
        .await
        .unwrap();
    for name in w.names("joins/") {
        w.store.tamper(&name, None);
    }
    pending.ask(&place).await.unwrap();
    let error = accept(&w, &anna.officer(), &invitation)
        .await
        .err()
        .unwrap();
    told(&error, "removed since");
}

#[tokio::test]
async fn two_who_ask_at_once_are_told_and_only_one_gets_in() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let invitation = invite(&w, &anna.officer(), Role::Editor).await;
    let place = w.place();
    let bert = join_request(&place, copy(&invitation), &join_options("bert"))
        .await
        .unwrap();
    let eve = join_request(&place, copy(&invitation), &join_options("eve"))
        .await
        .unwrap();
    eve.ask(&place).await.unwrap();
    told(
        &bert.ask(&place).await.err().unwrap(),
        "somebody else has asked",
    );
    assert_ne!(bert.person(), eve.person());
}

#[tokio::test]
async fn what_the_storage_makes_of_request_and_answer_lets_nobody_in() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let invitation = invite(&w, &anna.officer(), Role::Editor).await;
    let other = invite(&w, &anna.officer(), Role::Manager).await;
    let pending = ask(&w, &invitation, "bert").await;
    let request = w.names("joins/").remove(0);
    let good = w.bytes(&request);
    // Changed, cut short, and the request to another invitation.
    let mut changed = good.clone();
    changed[100] ^= 1;
    ask(&w, &other, "eve").await;
    let foreign = w
        .names("joins/")
        .into_iter()
        .find(|name| *name != request)
        .unwrap();
    for bad in [changed, good[..50].to_vec(), w.bytes(&foreign), Vec::new()] {
        w.replace(&request, bad);
        let error = find_request(&w.store, &invitation).await.err().unwrap();
        told(&error, "not written with this invitation");
        assert_eq!(error.class(), Class::Integrity);
    }
    w.replace(&request, good.clone());
    w.store.tamper(&foreign, None);
    accept(&w, &anna.officer(), &invitation).await.unwrap();
    let answer = w.names("joins/").remove(0);
    let bytes = w.bytes(&answer);
    let mut changed = bytes.clone();
    changed[100] ^= 1;
    for bad in [changed, bytes[..50].to_vec(), good] {
        w.replace(&answer, bad);
        told(
            &finish(&w, &pending).await.err().unwrap(),
            "not written with this invitation",
        );
    }
    w.replace(&answer, bytes);
    finish(&w, &pending).await.unwrap();
}

#[tokio::test]
async fn another_vault_at_the_place_of_the_invitation_is_told() {
    let (w, other) = (world(1).await, world(2).await);
    let anna = owner(&w).await;
    let invitation = invite(&w, &anna.officer(), Role::Editor).await;
    let there = join_request(&other.place(), copy(&invitation), &join_options("bert")).await;
    told(
        &there.err().unwrap(),
        "another one than the invitation names",
    );
    let pending = ask(&w, &invitation, "bert").await;
    accept(&w, &anna.officer(), &invitation).await.unwrap();
    told(
        &finish(&other, &pending).await.err().unwrap(),
        "another one",
    );
    // An invitation of that one is none of Anna's.
    let zoe = owner(&other).await;
    let foreign = invite(&other, &zoe.officer(), Role::Editor).await;
    let request = {
        ask(&other, &foreign, "bert").await;
        find_request(&other.store, &foreign).await.unwrap().unwrap()
    };
    let error = anna
        .officer()
        .accept(&w.place(), &foreign, &request)
        .await
        .err()
        .unwrap();
    told(&error, "not one of yours");
}

#[tokio::test]
async fn an_inviter_who_is_no_manager_any_more_lets_nobody_in() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let bert = joined(&w, &anna.officer(), "bert", Role::Manager).await;
    let invitation = invite(&w, &bert.officer(), Role::Editor).await;
    ask(&w, &invitation, "carl").await;
    let (place, person) = (w.place(), bert.person());
    let unsaid = EndReason::Unsaid;
    anna.officer()
        .set_role(&place, person, Role::Editor, vec![])
        .await
        .unwrap();
    let error = accept(&w, &bert.officer(), &invitation)
        .await
        .err()
        .unwrap();
    assert!(matches!(error, VaultError::NotAllowed(_)), "{error}");
    let room = bert.load(&w).await.unwrap();
    let made = Invitation::make(
        &bert.officer(),
        &room,
        &offer(Role::Reader),
        &w.clock,
        &w.entropy,
    );
    assert!(matches!(made.err(), Some(VaultError::NotAllowed(_))));
    // Nor does another manager with it.
    let error = accept(&w, &anna.officer(), &invitation)
        .await
        .err()
        .unwrap();
    told(&error, "not one of yours");
    anna.officer()
        .remove_member(&place, person, vec![], unsaid)
        .await
        .unwrap();
    assert!(accept(&w, &bert.officer(), &invitation).await.is_err());
    assert_eq!(anna.load(&w).await.unwrap().state.now().members.len(), 1);
}

#[tokio::test]
async fn who_was_let_in_by_somebody_removed_at_the_same_time_is_told() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let bert = joined(&w, &anna.officer(), "bert", Role::Manager).await;
    let invitation = invite(&w, &bert.officer(), Role::Editor).await;
    let pending = ask(&w, &invitation, "carl").await;
    let before = w.store.snapshot();
    let (place, anna, person) = (w.place(), anna.officer(), bert.person());
    anna.remove_member(&place, person, vec![], EndReason::Unsaid)
        .await
        .unwrap();
    let removal = w.store.snapshot();
    w.store.restore(before);
    accept(&w, &bert.officer(), &invitation).await.unwrap();
    for (name, bytes) in removal
        .into_iter()
        .filter(|(name, _)| !name.as_str().starts_with("joins/"))
    {
        w.store.tamper(&name, Some(bytes));
    }
    let error = finish(&w, &pending).await.err().unwrap();
    // He opens no epoch that is in force, or sees that he is no member.
    assert_eq!(error.class(), Class::Integrity, "{error}");
    assert_eq!(w.slots(2).len(), 1, "nothing was made");
}

#[tokio::test]
async fn an_answer_by_somebody_else_or_for_other_keys_is_found_out() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let bert = joined(&w, &anna.officer(), "bert", Role::Manager).await;
    let place = w.place();
    // Bert read the invitation of Anna's, and answers it himself with his own record.
    let invitation = invite(&w, &anna.officer(), Role::Editor).await;
    let pending = ask(&w, &invitation, "carl").await;
    let request = find_request(&w.store, &invitation).await.unwrap().unwrap();
    let mut forged = copy(&invitation);
    forged.inviter = bert.person();
    let answered = bert.officer().accept(&place, &forged, &request).await;
    answered.unwrap();
    let error = finish(&w, &pending).await.err().unwrap();
    // The envelope names him as who answers.
    told(&error, "does not open with your keys");
    // Even where Anna answers, it was Bert who let him in.
    w.store.tamper(&w.names("joins/")[0], None);
    anna.officer()
        .accept(&place, &invitation, &request)
        .await
        .unwrap();
    told(
        &finish(&w, &pending).await.err().unwrap(),
        "somebody else than who invited you",
    );
}

#[tokio::test]
async fn a_fingerprint_of_the_inviter_that_the_vault_does_not_know_is_told() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let mut invitation = invite(&w, &anna.officer(), Role::Editor).await;
    invitation.inviter_fingerprint = Hash32([1; 32]);
    let pending = ask(&w, &invitation, "bert").await;
    accept(&w, &anna.officer(), &invitation).await.unwrap();
    told(
        &finish(&w, &pending).await.err().unwrap(),
        "fingerprint of who invited you",
    );
    assert_eq!(w.slots(2).len(), 1, "nothing was made");
}

#[tokio::test]
async fn who_was_let_in_without_the_tag_of_his_invitation_is_told() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let invitation = invite(&w, &anna.officer(), Role::Editor).await;
    let pending = ask(&w, &invitation, "bert").await;
    // The inviter's program let the same keys in by hand, as what he likes.
    let new = member(&pending.keys(), "bert", Role::Reader);
    anna.officer().add_member(&w.place(), &new).await.unwrap();
    accept(&w, &anna.officer(), &invitation).await.unwrap();
    told(
        &finish(&w, &pending).await.err().unwrap(),
        "does not answer this invitation",
    );
}

#[test]
fn person_ids_follow_from_all_keys_of_a_person() {
    let vault = skrin_base::VaultId([1; 16]);
    let root = skrin_crypto::RootSeed::from_bytes([3; 32]);
    let sign = skrin_crypto::RootSigner::derive(&root, vault).public();
    let other = skrin_crypto::RootSeed::from_bytes([4; 32]);
    let kem = |seed| {
        let suite = skrin_crypto::Suite::X25519;
        skrin_crypto::KemSecret::derive_root(seed, vault, suite).public()
    };
    let keys = crate::record::MemberKeys {
        root_sign: sign.clone(),
        root_kem: kem(&root),
        words_sign: Some(sign.clone()),
        words_kem: Some(kem(&root)),
    };
    let id = keys.person(vault);
    let mut ids = std::collections::BTreeSet::from([id]);
    let sign = skrin_crypto::RootSigner::derive(&other, vault).public();
    let changes: [fn(&mut crate::record::MemberKeys, _, _); 5] = [
        |k, sign, _| k.root_sign = sign,
        |k, _, kem| k.root_kem = kem,
        |k, sign, _| k.words_sign = Some(sign),
        |k, _, kem| k.words_kem = Some(kem),
        |k, _, _| (k.words_sign, k.words_kem) = (None, None),
    ];
    for change in changes {
        let mut changed = keys.clone();
        change(&mut changed, sign.clone(), kem(&other));
        assert!(ids.insert(changed.person(vault)));
    }
    assert!(ids.insert(keys.person(skrin_base::VaultId([2; 16]))));
}

#[tokio::test]
async fn the_text_of_an_invitation_is_one_word_and_every_letter_counts() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let mut invitation = invite(&w, &anna.officer(), Role::Editor).await;
    invitation.until = Some(Timestamp(5));
    let line = invitation.to_text();
    let is_safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    assert!(line.chars().all(is_safe), "{}", line.len());
    let back = Invitation::from_text(&format!(" {}\n{}\r\n", &line[..70], &line[70..])).unwrap();
    assert_eq!(back.to_bytes(), invitation.to_bytes());
    for at in 0..line.len() {
        let letter = if line.as_bytes()[at] == b'A' {
            "B"
        } else {
            "A"
        };
        let changed = [&line[..at], letter, &line[at + 1..]].concat();
        let error = Invitation::from_text(&changed).err().unwrap();
        assert_eq!(error.class(), Class::Usage);
        let what = if at < 17 {
            "does not begin"
        } else {
            "checksum does not fit"
        };
        told(&error, what);
        assert!(Invitation::from_text(&line[..at]).is_err(), "length {at}");
    }
    told(
        &Invitation::from_text(&"x".repeat(10_000)).err().unwrap(),
        "too long",
    );
    told(
        &Invitation::from_text("hello").err().unwrap(),
        "does not begin",
    );
}

#[tokio::test]
async fn an_invitation_of_a_newer_program_asks_for_an_update() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let invitation = invite(&w, &anna.officer(), Role::Editor).await;
    let mut bytes = invitation.to_bytes();
    bytes[0] = 2;
    let decoded = Invitation::from_bytes(&bytes).err().unwrap();
    assert!(
        decoded.to_string().contains("version of an invitation"),
        "{decoded}"
    );
    let text = crate::invitation::to_text_of(&bytes);
    told(
        &Invitation::from_text(&text).err().unwrap(),
        "newer program",
    );
}

#[tokio::test]
async fn a_place_with_a_password_does_not_go_into_an_invitation() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let room = anna.load(&w).await.unwrap();
    let make = |place: &str| {
        let offer = Offer {
            place: Some(place.to_owned()),
            ..offer(Role::Reader)
        };
        Invitation::make(&anna.officer(), &room, &offer, &w.clock, &w.entropy)
    };
    told(
        &make("webdavs://anna:secret@example.org/x").err().unwrap(),
        "password",
    );
    told(&make(&"x".repeat(3000)).err().unwrap(), "too long");
    told(&make("file:///a\nb").err().unwrap(), "control characters");
    for good in [
        "webdavs://anna@example.org/x",
        "s3://b/p?endpoint=http://h:80",
        "/mnt/a:b@c",
    ] {
        assert_eq!(make(good).unwrap().place.as_deref(), Some(good));
    }
}

#[tokio::test]
async fn each_byte_of_the_file_of_a_joining_counts() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let invitation = invite(&w, &anna.officer(), Role::Editor).await;
    let pending = ask(&w, &invitation, "bert").await;
    let file = pending.to_file().to_vec();
    let secret = || Secret::Words(pending.words());
    let mut opened = 0;
    for at in 0..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 1;
        if let Ok(other) = Pending::open(&changed, &secret()) {
            // A byte of the other slot.
            assert_eq!(other.person(), pending.person());
            opened += 1;
        }
        assert!(
            Pending::open(&file[..at], &secret()).is_err(),
            "length {at}"
        );
    }
    assert!(opened > 0 && opened < file.len() / 2, "{opened}");
    let wrong = Pending::open(&file, &passphrase("not the one at all"))
        .err()
        .unwrap();
    assert_eq!(wrong.class(), Class::WrongSecret);
}

#[tokio::test]
async fn a_member_add_with_the_id_of_somebody_else_is_refused() {
    // Key substitution: other keys under a name that is known, or half of them.
    let w = world(1).await;
    let anna = owner(&w).await;
    let (_, keys) = Someone::keys(&w, b'b');
    let (_, mallory) = Someone::keys(&w, b'm');
    let add = |keys: crate::record::MemberKeys, person| {
        Record::MemberAdd(Box::new(MemberAdd {
            person,
            name: crate::record::Label::new("bert").unwrap(),
            role: Role::Editor,
            keys,
            history: History::All,
            until: None,
            invitation: None,
        }))
    };
    let person = keys.person(w.made.anchor.vault);
    let mut words = keys.clone();
    (words.words_sign, words.words_kem) = (mallory.words_sign.clone(), mallory.words_kem.clone());
    let store = w.store.snapshot();
    for keys in [mallory.clone(), words] {
        w.store.restore(store.clone());
        told_refused(&w, add(keys, person), "follows from the keys").await;
    }
    w.store.restore(store);
    told_refused(&w, add(mallory, anna.person()), "the owner").await;
}

async fn told_refused(w: &World, record: Record, what: &str) {
    let finding = w.refused(|_| {}, record).await;
    assert!(finding.contains(what), "{finding}");
}
