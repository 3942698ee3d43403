//! Several people on one storage, each with his own secrets.

use super::*;
use crate::record::{
    CutTip, EndReason, EpochReason, History, MemberKeys, MemberRemove, PersonKeys, Recipient, Role,
};
use crate::unlock::slot_object;
use crate::{NewMember, Officer, Place, RoomReader, What, open_device_file, seal_device_file};
use skrin_base::ids::{EpochId, KeyId, LaneId, PersonId};
use skrin_crypto::{KemSecret, RootSeed, RootSigner, Suite, WordsSigner, keys};

impl World {
    pub(super) fn place(&self) -> Place<'_> {
        Place {
            store: &self.store,
            clock: &self.clock,
            entropy: &self.entropy,
        }
    }
}

/// Somebody with a root and, once he has one, a device; whom the tests let in without an invitation.
pub(super) struct Someone {
    pub(super) unlocked: Unlocked,
    pub(super) device: Option<Device>,
}

impl Someone {
    pub(super) fn keys(w: &World, name_byte: u8) -> (RootSeed, MemberKeys) {
        let vault = w.made.anchor.vault;
        let root = RootSeed::from_bytes([name_byte; 32]);
        let words = keys::make_words_entropy(&w.entropy);
        let keys = PersonKeys {
            root_sign: RootSigner::derive(&root, vault).public(),
            root_kem: KemSecret::derive_root(&root, vault, Suite::XWing).public(),
            words_sign: WordsSigner::derive(&words, vault).public(),
            words_kem: KemSecret::derive_words(&words, vault, Suite::XWing).public(),
        };
        (root, keys.into())
    }

    pub(super) fn person(&self) -> PersonId {
        self.unlocked.person()
    }

    pub(super) fn officer(&self) -> Officer {
        let device = self.device.as_ref().unwrap();
        Officer::for_device(&self.unlocked, device)
    }

    pub(super) fn reader(&self) -> RoomReader {
        self.unlocked.reader_for(self.device.as_ref().unwrap())
    }

    pub(super) async fn load(&self, w: &World) -> Result<Room, VaultError> {
        self.reader().load(&w.store).await
    }

    /// Certifies a device of his.
    pub(super) async fn with_device(mut self, w: &World, label: &str) -> Self {
        let mut room = self.unlocked.load_room(&w.store).await.unwrap();
        let device = Device::make(&self.unlocked, &room, &w.entropy);
        self.unlocked
            .certify_device(&w.store, &mut room, &device, label, &w.clock, &w.entropy)
            .await
            .unwrap();
        self.device = Some(device);
        self
    }
}

pub(super) fn member(keys: &MemberKeys, name: &str, role: Role) -> NewMember {
    NewMember {
        keys: keys.clone(),
        name: name.to_owned(),
        role,
        history: History::All,
        until: None,
        invitation: None,
    }
}

pub(super) async fn owner(w: &World) -> Someone {
    let (unlocked, device) = (w.unlock().await, None);
    Someone { unlocked, device }
        .with_device(w, "owner's laptop")
        .await
}

/// Lets somebody in by `by`'s device, lists a slot for him, and certifies a device.
pub(super) async fn joined(w: &World, by: &Officer, name: &str, role: Role) -> Someone {
    let byte = name.as_bytes()[0];
    let (root, keys) = Someone::keys(w, byte);
    by.add_member(&w.place(), &member(&keys, name, role))
        .await
        .unwrap();
    with_slot(w, root, &keys).await.with_device(w, name).await
}

/// What somebody who was let in has once he has made a slot.
pub(super) async fn with_slot(w: &World, root: RootSeed, keys: &MemberKeys) -> Someone {
    let base = w.unlock().await;
    let mut payload = base.payload();
    payload.person = keys.person(base.vault());
    payload.root_seed = root;
    let text = format!("passphrase of {}", payload.person);
    let secret = crate::slot::SlotSecret::Passphrase(&text, Argon2Params::WEAK_FOR_TESTS);
    let object = crate::slot::make_slot(&secret, &payload, &w.entropy).unwrap();
    let entry = crate::record::SlotEntry {
        name: skrin_base::clock::random(&w.entropy),
        hash: hash(&object),
    };
    w.replace(&ObjectName::new(slot_object(&entry)).unwrap(), object);
    let unlocked = unlock(&w.store, &passphrase(&text)).await.unwrap();
    let mut room = unlocked.load_room(&w.store).await.unwrap();
    unlocked
        .publish(
            &w.store,
            &mut room,
            Record::SlotAdd(entry),
            &w.clock,
            &w.entropy,
        )
        .await
        .unwrap();
    let device = None;
    Someone { unlocked, device }
}

pub(super) fn tip(n: u8) -> CutTip {
    CutTip {
        lane: LaneId([n; 16]),
        seq: u64::from(n),
        commit: Hash32([n; 32]),
    }
}

fn key_of(room: &Room, epoch: &EpochId) -> Option<[u8; 32]> {
    room.keys.epoch_key(epoch).map(|key| *key.expose())
}

#[tokio::test]
async fn a_member_reads_the_room_with_root_and_device_and_so_do_all_others() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let bert = joined(&w, &anna.officer(), "bert", Role::Manager).await;
    let carl = joined(&w, &bert.officer(), "carl", Role::Reader).await;
    let room = anna.load(&w).await.unwrap();
    assert_eq!(room.state.now().members.len(), 3);
    assert_eq!(room.state.now().devices.len(), 3);
    assert!(room.findings.is_empty() && !room.needs_epoch());
    let current = room.keys.current();
    for someone in [&anna, &bert, &carl] {
        let by_device = someone.load(&w).await.unwrap();
        assert_eq!(by_device.keys.current(), current);
        assert_eq!(by_device.roster, room.roster);
        let by_root = someone.unlocked.load_room(&w.store).await.unwrap();
        assert_eq!(key_of(&by_root, &current.0), key_of(&room, &current.0));
        // All of the history, by back links and grants.
        assert_eq!(by_device.keys.epochs().count(), 3);
    }
    let heads = room.roster.control_heads.clone();
    let may = |someone: &Someone| {
        let device = someone.device.as_ref().unwrap().id();
        room.roster.rights.may_write(device, &heads)
    };
    assert!(may(&anna) && may(&bert) && !may(&carl));
}

#[tokio::test]
async fn who_is_let_in_from_now_on_reads_no_earlier_epoch() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let (root, keys) = Someone::keys(&w, b'd');
    let new = NewMember {
        history: History::FromNow,
        ..member(&keys, "dora", Role::Editor)
    };
    let room = anna.officer().add_member(&w.place(), &new).await.unwrap();
    let dora = with_slot(&w, root, &keys)
        .await
        .with_device(&w, "dora")
        .await;
    let hers = dora.load(&w).await.unwrap();
    assert_eq!(
        hers.keys.epochs().collect::<Vec<_>>(),
        [room.keys.current().0]
    );
    assert!(room.state.back_links.is_empty());
    assert_eq!(anna.load(&w).await.unwrap().keys.epochs().count(), 2);
}

#[tokio::test]
async fn a_removed_member_opens_no_later_epoch_and_his_devices_are_cut() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let bert = joined(&w, &anna.officer(), "bert", Role::Editor).await;
    let before = anna.load(&w).await.unwrap();
    let (old, device) = (before.keys.current().0, bert.device.as_ref().unwrap().id());
    let cut = vec![tip(2), tip(1)];
    let person = bert.person();
    let place = w.place();
    let room = anna
        .officer()
        .remove_member(&place, person, cut, EndReason::Finished)
        .await
        .unwrap();
    let new = room.keys.current().0;
    assert_ne!(new, old);
    assert!(!room.needs_epoch() && !room.state.now().members.contains_key(&person));
    let cut = room.roster.devices[&device].cut.as_ref().unwrap();
    let expected = [tip(1), tip(2)].map(|t| (t.lane, vec![(t.seq, t.commit)]));
    assert_eq!(*cut, expected.into());
    // He reads the records, and sees himself out; with root or device he opens what he had.
    for his in [
        bert.load(&w).await.unwrap(),
        bert.unlocked.load_room(&w.store).await.unwrap(),
    ] {
        assert!(his.keys.commitment(&new).is_none() && his.keys.commitment(&old).is_some());
        assert!(!his.state.now().members.contains_key(&person));
    }
    let epoch = &room.state.epochs[&new];
    let his = [
        Recipient::Device(device),
        Recipient::Root(person),
        Recipient::Words(person),
    ];
    assert!(
        epoch
            .envelopes
            .iter()
            .all(|(recipient, _)| !his.contains(recipient))
    );
    // What is drawn under the old epoch is not clean any more, for nobody.
    let tagged = |epoch: &EpochId| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&skrin_crypto::key_tag(epoch));
        KeyId(id)
    };
    assert!(before.keys.is_clean(&tagged(&old)));
    for room in [&room, &anna.load(&w).await.unwrap()] {
        assert!(!room.keys.is_clean(&tagged(&old)) && room.keys.is_clean(&tagged(&new)));
    }
    // Once more changes nothing.
    let names = w.store.names();
    let again = anna.officer();
    again
        .remove_member(&place, person, vec![], EndReason::Unsaid)
        .await
        .unwrap();
    assert_eq!(w.store.names(), names);
}

#[tokio::test]
async fn a_removal_that_stopped_half_way_is_finished_by_whoever_writes_next() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let bert = joined(&w, &anna.officer(), "bert", Role::Editor).await;
    let carl = joined(&w, &anna.officer(), "carl", Role::Editor).await;
    let mut room = anna.load(&w).await.unwrap();
    let record = MemberRemove {
        person: bert.person(),
        cut: vec![],
        reason: EndReason::Unsaid,
    };
    let record = Record::MemberRemove(Box::new(record));
    anna.officer()
        .publish(&w.place(), &mut room, record)
        .await
        .unwrap();
    let room = carl.load(&w).await.unwrap();
    assert!(room.needs_epoch());
    let room = carl.officer().make_epoch(&w.place()).await.unwrap();
    assert!(!room.needs_epoch());
    let epoch = &room.state.epochs[&room.keys.current().0];
    assert_eq!((epoch.author, epoch.members.len()), (carl.person(), 2));
    assert_eq!(
        anna.load(&w).await.unwrap().keys.current(),
        room.keys.current()
    );
    // And a second time there is nothing to do.
    let names = w.store.names();
    carl.officer().make_epoch(&w.place()).await.unwrap();
    assert_eq!(w.store.names(), names);
}

#[tokio::test]
async fn epochs_made_at_once_are_merged_by_the_next_writer() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let bert = joined(&w, &anna.officer(), "bert", Role::Editor).await;
    let before = w.store.snapshot();
    anna.officer().rekey(&w.place()).await.unwrap();
    let first = w.store.snapshot();
    w.store.restore(before);
    bert.officer().rekey(&w.place()).await.unwrap();
    for (name, bytes) in first {
        w.store.tamper(&name, Some(bytes));
    }
    let room = bert.load(&w).await.unwrap();
    assert_eq!(room.state.epoch_heads().len(), 2);
    assert!(room.needs_epoch());
    assert_eq!(room.keys.current().0, room.state.epoch_heads()[0]);
    assert_eq!(
        anna.load(&w).await.unwrap().keys.current(),
        room.keys.current()
    );
    let heads = room.state.epoch_heads();
    let room = bert.officer().make_epoch(&w.place()).await.unwrap();
    let current = room.keys.current().0;
    assert_eq!(room.state.epoch_heads(), [current]);
    assert_eq!(room.state.epochs[&current].parents, heads);
    let is_merge = |entry: &crate::AuditEntry| {
        matches!(
            entry.what,
            What::Epoch {
                reason: EpochReason::Merge,
                ..
            }
        )
    };
    assert_eq!(room.state.audit().iter().filter(|e| is_merge(e)).count(), 1);
}

#[tokio::test]
async fn a_revoked_device_is_out_and_the_person_stays_in() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let lost = owner(&w).await;
    let device = lost.device.as_ref().unwrap().id();
    let reason = EndReason::Lost;
    let unlocked = w.unlock().await;
    let place = w.place();
    let room = unlocked
        .revoke_device(&place, device, vec![tip(3)], reason)
        .await
        .unwrap();
    assert!(!room.state.now().devices.contains_key(&device) && !room.needs_epoch());
    let current = room.keys.current().0;
    let opened = lost.load(&w).await.unwrap();
    assert!(opened.keys.commitment(&current).is_none());
    assert_eq!(
        anna.load(&w).await.unwrap().keys.current(),
        room.keys.current()
    );
    let cut = room.roster.devices[&device].cut.as_ref().unwrap();
    assert_eq!(cut[&LaneId([3; 16])], [(3, Hash32([3; 32]))]);
    // What it does from now on is refused here, before anything is put.
    let names = w.store.names();
    let error = lost.officer().rekey(&place).await.err().unwrap();
    assert_eq!(w.store.names(), names, "{error}");
    // Nobody else's, and not twice.
    let bert = joined(&w, &anna.officer(), "bert", Role::Manager).await;
    let error = bert
        .unlocked
        .revoke_device(&place, device, vec![], reason)
        .await;
    assert!(matches!(error.err(), Some(VaultError::NotAllowed(_))));
    let records = || {
        w.names("rooms/")
            .iter()
            .filter(|n| n.as_str().contains("/control/"))
            .count()
    };
    let before = records();
    unlocked
        .revoke_device(&place, device, vec![], reason)
        .await
        .unwrap();
    assert_eq!(records(), before);
}

#[tokio::test]
async fn what_one_may_not_do_is_said_before_anything_is_put() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let bert = joined(&w, &anna.officer(), "bert", Role::Editor).await;
    let carl = joined(&w, &anna.officer(), "carl", Role::Reader).await;
    let (_, keys) = Someone::keys(&w, b'x');
    let names = w.store.names();
    let place = w.place();
    let unsaid = EndReason::Unsaid;
    for officer in [bert.officer(), carl.officer(), bert.unlocked.officer()] {
        let new = member(&keys, "x", Role::Reader);
        let other = match officer.person() == carl.person() {
            true => bert.person(),
            false => carl.person(),
        };
        let attempts = [
            officer.add_member(&place, &new).await.err(),
            officer
                .remove_member(&place, other, vec![], unsaid)
                .await
                .err(),
            officer
                .remove_member(&place, anna.person(), vec![], unsaid)
                .await
                .err(),
            officer
                .set_role(&place, officer.person(), Role::Manager, vec![])
                .await
                .err(),
        ];
        for error in attempts {
            assert!(
                matches!(error, Some(VaultError::NotAllowed(_))),
                "{error:?}"
            );
        }
    }
    let error = carl.officer().rekey(&place).await.err();
    assert!(
        matches!(error, Some(VaultError::NotAllowed(_))),
        "{error:?}"
    );
    let manager = anna.officer();
    let attempts = [
        manager
            .set_role(&place, anna.person(), Role::Reader, vec![])
            .await
            .err(),
        manager.leave(&place, vec![]).await.err(),
        manager
            .set_role(&place, bert.person(), Role::Owner, vec![])
            .await
            .err(),
        manager
            .add_member(&place, &member(&keys, "x", Role::Owner))
            .await
            .err(),
        manager
            .set_role(&place, PersonId([9; 16]), Role::Editor, vec![])
            .await
            .err(),
        manager
            .remove_member(&place, PersonId([9; 16]), vec![], unsaid)
            .await
            .err(),
    ];
    for error in attempts {
        assert!(
            matches!(error, Some(VaultError::NotAllowed(_))),
            "{error:?}"
        );
    }
    let error = manager
        .add_member(&place, &member(&keys, "a\nb", Role::Reader))
        .await
        .err();
    assert!(matches!(error, Some(VaultError::Label(_))));
    assert_eq!(w.store.names(), names);
}

#[tokio::test]
async fn who_leaves_is_out_and_the_others_make_the_next_epoch() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let bert = joined(&w, &anna.officer(), "bert", Role::Editor).await;
    let room = bert
        .unlocked
        .officer()
        .leave(&w.place(), vec![tip(1)])
        .await
        .unwrap();
    assert!(room.needs_epoch() && !room.state.now().members.contains_key(&bert.person()));
    let room = anna.officer().make_epoch(&w.place()).await.unwrap();
    assert!(!room.needs_epoch());
    let current = room.keys.current().0;
    let opened = bert.load(&w).await.unwrap();
    assert!(opened.keys.commitment(&current).is_none());
}

#[tokio::test]
async fn a_member_who_comes_back_has_new_devices_and_the_history_that_he_is_given() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let bert = joined(&w, &anna.officer(), "bert", Role::Editor).await;
    let old = bert.device.as_ref().unwrap().id();
    let place = w.place();
    let unsaid = EndReason::Unsaid;
    anna.officer()
        .remove_member(&place, bert.person(), vec![], unsaid)
        .await
        .unwrap();
    let mut room = anna.load(&w).await.unwrap();
    let keys = room.state.persons[&bert.person()].keys.clone();
    let new = member(&keys, "bert again", Role::Editor);
    room = anna.officer().add_member(&place, &new).await.unwrap();
    assert_eq!(
        room.state.persons[&bert.person()].name.as_str(),
        "bert again"
    );
    assert!(!room.state.now().devices.contains_key(&old));
    let current = room.keys.current().0;
    let with_old = bert.load(&w).await.unwrap();
    assert!(with_old.keys.commitment(&current).is_none());
    let back = bert.with_device(&w, "a new one").await;
    let hers = back.load(&w).await.unwrap();
    assert_eq!(hers.keys.epochs().count(), room.keys.epochs().count());
    let device = back.device.as_ref().unwrap().id();
    assert!(
        hers.roster
            .rights
            .may_write(device, &hers.roster.control_heads)
    );
}

#[tokio::test]
async fn every_head_has_a_tip_and_nothing_before_it_has() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let tips = || {
        let tips = w.names(&format!("rooms/{}/tips/control-", w.made.anchor.room));
        let hash = |name: &ObjectName| {
            let hash = name
                .file_name()
                .strip_prefix("control-")
                .and_then(Hash32::from_hex);
            hash.unwrap()
        };
        tips.iter().map(hash).collect::<Vec<_>>()
    };
    let foreign = format!("rooms/{}/tips/control-readme", w.made.anchor.room);
    let bert = joined(&w, &anna.officer(), "bert", Role::Manager).await;
    let room = bert.officer().rekey(&w.place()).await.unwrap();
    assert_eq!(tips(), room.state.heads());
    let foreign = ObjectName::new(foreign).unwrap();
    w.replace(&foreign, b"hello".to_vec());
    let room = anna.officer().rekey(&w.place()).await.unwrap();
    assert_eq!(
        w.bytes(&foreign),
        b"hello",
        "what is not ours is left alone"
    );
    w.store.tamper(&foreign, None);
    assert_eq!(tips(), room.state.heads());
    assert_eq!(
        w.bytes(&w.names(&format!("rooms/{}/tips/", room.state.room))[0]),
        b"\n"
    );
}

#[tokio::test]
async fn a_passphrase_slot_of_one_opens_his_root_and_no_other() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let bert = joined(&w, &anna.officer(), "bert", Role::Editor).await;
    let text = format!("passphrase of {}", bert.person());
    let unlocked = unlock(&w.store, &passphrase(&text)).await.unwrap();
    assert_eq!(unlocked.person(), bert.person());
    assert_eq!(w.unlock().await.person(), anna.person());
    // A device file is its person's.
    let file = seal_device_file(&bert.unlocked, bert.device.as_ref().unwrap(), &w.entropy);
    assert!(open_device_file(&unlocked, &file).is_ok());
    assert!(open_device_file(&anna.unlocked, &file).is_err());
}

#[tokio::test]
async fn a_changed_passphrase_opens_and_the_old_one_does_not() {
    let w = world(1).await;
    let old_slot = w.slots(1).remove(0);
    let old_bytes = w.bytes(&old_slot);
    let unlocked = unlock(&w.store, &passphrase(PASSPHRASE)).await.unwrap();
    let new = text("heavy walrus 8");
    let params = Argon2Params::WEAK_FOR_TESTS;
    let place = w.place();
    let weak = unlocked
        .change_passphrase(&place, &text("aaaaaaaaaaaa"), params)
        .await;
    assert!(matches!(weak.err(), Some(VaultError::Kdf(_))));
    let room = unlocked
        .change_passphrase(&place, &new, params)
        .await
        .unwrap();
    assert_eq!(room.state.slots_of(unlocked.person()).len(), 2);
    assert!(w.store.peek(&old_slot).is_none());
    let error = w.unlock_error(&passphrase(PASSPHRASE)).await;
    assert_eq!(error.class(), crate::Class::WrongSecret);
    for secret in [passphrase(&new), w.words()] {
        let unlocked = unlock(&w.store, &secret).await.unwrap();
        let state = unlocked.load_room(&w.store).await.unwrap().state;
        assert!(
            unlocked
                .check_slots(&w.store, &state)
                .await
                .unwrap()
                .is_empty()
        );
        assert!(state.lists_slot(unlocked.person(), unlocked.slot()));
    }
    // Stopped before the old object was deleted: the next time it goes. Stopped before the new one was listed: it is not made twice.
    w.replace(&old_slot, old_bytes);
    let again = w.unlock().await;
    let slots = w.names("slots/").len();
    again.change_passphrase(&place, &new, params).await.unwrap();
    assert!(w.store.peek(&old_slot).is_none());
    assert_eq!(w.names("slots/").len(), slots - 1);
    // With the words, by whoever forgot it; and what was unlocked by the old slot does it no more.
    let error = unlocked.change_passphrase(&place, &new, params).await.err();
    assert!(matches!(error, Some(VaultError::UnlistedSlot { .. })));
    let newest = text("third walrus 9!");
    w.unlock()
        .await
        .change_passphrase(&place, &newest, params)
        .await
        .unwrap();
    assert!(unlock(&w.store, &passphrase(&newest)).await.is_ok());
    assert!(unlock(&w.store, &passphrase(&new)).await.is_err());
}

#[tokio::test]
async fn the_audit_tells_all_records_in_an_order_and_what_was_taken_back() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let bert = joined(&w, &anna.officer(), "bert", Role::Manager).await;
    let before = w.store.snapshot();
    let (_, keys) = Someone::keys(&w, b'x');
    let new = member(&keys, "xaver", Role::Reader);
    bert.officer().add_member(&w.place(), &new).await.unwrap();
    let berts = w.store.snapshot();
    w.store.restore(before);
    let place = w.place();
    let removal = anna.officer();
    removal
        .remove_member(&place, bert.person(), vec![], EndReason::Compromised)
        .await
        .unwrap();
    for (name, bytes) in berts {
        if !name.as_str().contains("/tips/") {
            w.store.tamper(&name, Some(bytes));
        }
    }
    let state = anna.load(&w).await.unwrap().state;
    let audit = state.audit();
    assert_eq!(
        audit.len(),
        w.names(&format!("rooms/{}/control/", state.room)).len()
    );
    for (at, entry) in audit.iter().enumerate() {
        let earlier: Vec<Hash32> = audit[..at].iter().map(|entry| entry.id).collect();
        assert!(entry.parents.iter().all(|parent| earlier.contains(parent)));
    }
    let who = keys.person(w.made.anchor.vault);
    let added = |entry: &&crate::AuditEntry| matches!(&entry.what, What::MemberAdded { person, .. } if *person == who);
    let added = audit.iter().find(added).unwrap();
    assert!(added.overruled && added.author == bert.person());
    // With it the epoch and the links that he made for the new one; and nothing else.
    let overruled: Vec<_> = audit.iter().filter(|entry| entry.overruled).collect();
    assert!(
        overruled.iter().all(|entry| entry.author == bert.person()),
        "{overruled:?}"
    );
    assert!(overruled.len() >= 4);
    assert_eq!(state.epoch_heads().len(), 1, "his epoch is none");
    assert!(!state.needs_epoch());
}

/// Plants a record that a device signs, and returns what the room says of it; then the storage is as before.
async fn refused_by_device(w: &World, by: &Someone, record: Record, attachment: &[u8]) -> String {
    let store = w.store.snapshot();
    let room = w.room().await;
    let device = by.device.as_ref().unwrap();
    let key = device.signer(by.unlocked.vault());
    let signer = Signer::Device(device.id(), &key);
    let mut body = w.body(&by.unlocked, &room, record);
    body.signer = signer.reference();
    w.plant(&by.unlocked, &body, &signer, attachment);
    let finding = w.finding().await;
    let after = w.room().await;
    assert_eq!(after.roster, room.roster, "it changes nothing");
    assert_eq!(after.keys.current(), room.keys.current());
    w.store.restore(store);
    finding
}

#[tokio::test]
async fn keys_are_given_only_by_who_may_and_only_to_whom_they_belong() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let lost = owner(&w).await;
    let bert = joined(&w, &anna.officer(), "bert", Role::Editor).await;
    let carl = joined(&w, &anna.officer(), "carl", Role::Reader).await;
    let device = |someone: &Someone| someone.device.as_ref().unwrap().id();
    let place = w.place();
    let revoked = device(&lost);
    let unlocked = w.unlock().await;
    unlocked
        .revoke_device(&place, revoked, vec![], EndReason::Lost)
        .await
        .unwrap();
    let room = w.room().await;
    let current = room.keys.current().0;
    let earlier = room.keys.epochs().find(|id| *id != current).unwrap();
    let envelope = room.state.epochs[&current].envelopes[0].1.clone();
    let grant = |to: skrin_base::DeviceId| {
        Record::Grant(Box::new(crate::record::Grant {
            epoch: current,
            recipient: Recipient::Device(to),
            envelope: envelope.clone(),
        }))
    };
    let link = |recipient| {
        Record::BackLink(Box::new(crate::record::BackLink {
            epoch: current,
            earlier,
            recipient,
            envelope: envelope.clone(),
        }))
    };
    let promote = |person| {
        let (role, cut) = (Role::Manager, vec![]);
        Record::MemberRole(Box::new(crate::record::MemberRole { person, role, cut }))
    };
    let root_of_carl = Recipient::Root(carl.person());
    let stranger = Recipient::Root(PersonId([9; 16]));
    let cases = [
        (&bert, link(root_of_carl), "may not do this"),
        (&anna, link(stranger), "does not list"),
        (
            &anna,
            link(Recipient::Device(device(&carl))),
            "than the root of a member",
        ),
        (&bert, grant(device(&carl)), "not of its author"),
        (&anna, grant(revoked), "not certified"),
        (&bert, promote(bert.person()), "may not do this"),
        (&carl, promote(carl.person()), "may not do this"),
    ];
    for (by, record, what) in cases {
        let finding = refused_by_device(&w, by, record, &[]).await;
        assert!(finding.contains(what), "{what}: {finding}");
    }
}

#[tokio::test]
async fn an_epoch_lists_the_members_and_devices_of_its_world_whoever_makes_it() {
    // A forged member list, a planted key: with the control key and one's own device.
    let w = world(1).await;
    let anna = owner(&w).await;
    let bert = joined(&w, &anna.officer(), "bert", Role::Editor).await;
    let carl = joined(&w, &anna.officer(), "carl", Role::Reader).await;
    let room = bert.load(&w).await.unwrap();
    let info = &room.state.epochs[&room.keys.current().0];
    let envelopes: Vec<_> = info.envelopes.iter().map(|(_, e)| e.clone()).collect();
    let attachment = crate::epoch::encode_envelopes(&envelopes);
    let now = room.state.now();
    let core = crate::record::EpochCore {
        reason: EpochReason::Rekey,
        parents: room.state.epoch_heads(),
        suite: info.suite,
        commitment: info.commitment,
        members: now.members.iter().map(|(id, m)| (*id, m.role)).collect(),
        devices: now.devices.keys().copied().collect(),
        recipients: info.envelopes.iter().map(|(r, _)| *r).collect(),
    };
    let record = |core: &crate::record::EpochCore| {
        Record::Epoch(Box::new(crate::record::EpochRecord {
            core: core.clone(),
            envelopes: hash(&attachment),
        }))
    };
    let finding = refused_by_device(&w, &carl, record(&core), &attachment).await;
    assert!(finding.contains("may not do this"), "{finding}");
    type Change = fn(&mut crate::record::EpochCore, &Someone);
    let changes: [(Change, &str); 5] = [
        (
            |c, carl| c.members.retain(|m| m.0 != carl.person()),
            "members that it lists",
        ),
        (
            |c, _| c.members.push((PersonId([0xff; 16]), Role::Reader)),
            "members that it lists",
        ),
        (
            |c, carl| {
                let is_carl = |m: &&mut (PersonId, Role)| m.0 == carl.person();
                c.members.iter_mut().find(is_carl).unwrap().1 = Role::Editor;
            },
            "members that it lists",
        ),
        (|c, _| c.devices.clear(), "devices that it lists"),
        (
            |c, _| c.devices.push(skrin_base::DeviceId([0xff; 16])),
            "devices that it lists",
        ),
    ];
    for (change, what) in changes {
        let mut core = core.clone();
        change(&mut core, &carl);
        let finding = refused_by_device(&w, &bert, record(&core), &attachment).await;
        assert!(finding.contains(what), "{what}: {finding}");
    }
}

#[tokio::test]
async fn a_former_member_neither_stops_the_room_nor_asks_for_an_update() {
    let w = world(1).await;
    let anna = owner(&w).await;
    let bert = joined(&w, &anna.officer(), "bert", Role::Editor).await;
    let (place, person) = (w.place(), bert.person());
    let officer = anna.officer();
    officer
        .remove_member(&place, person, vec![], EndReason::Unsaid)
        .await
        .unwrap();
    let before = anna.load(&w).await.unwrap();
    // A record on top of nothing, and one of a tag of another time.
    let root = bert.unlocked.root_signer();
    let signer = Signer::Root(&root);
    let optional = |tag| Record::Optional { tag, bytes: vec![] };
    let mut body = w.body(&bert.unlocked, &before, optional(200));
    body.parents = vec![Hash32([9; 32])];
    w.plant(&bert.unlocked, &body, &signer, &[]);
    let body = w.body(&bert.unlocked, &before, optional(13));
    w.plant(&bert.unlocked, &body, &signer, &[]);
    let after = anna.load(&w).await.unwrap();
    assert_eq!(after.findings.len(), 2, "{:?}", after.findings);
    assert_eq!(after.roster, before.roster);
}
