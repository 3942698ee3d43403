//! Records that somebody with the control key could make, and that must not stand.

use super::certificates::device_add;
use super::*;
use crate::Class;
use crate::control::seal_body;
use crate::epoch::{Binding, Purpose, encode_envelopes};
use crate::record::{
    EpochCore, EpochReason, EpochRecord, Genesis, Grant, Label, PersonKeys, Recipient, Role,
    SlotEntry,
};
use skrin_base::ids::{DeviceId, EpochId, PersonId, RoomId, VaultId};
use skrin_base::wire::{Decode, Encode, WireError};
use skrin_crypto::{
    Envelope, EpochKey, KemSecret, RootSeed, RootSigner, Suite, WordsSigner, keys, words,
};

fn slot(n: u8) -> SlotEntry {
    SlotEntry {
        name: [n; 16],
        hash: Hash32([n; 32]),
    }
}

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

#[tokio::test]
async fn unknown_critical_tags_features_and_versions_ask_for_an_update() {
    for tag in [11, 16, 18, 127] {
        let w = world(1).await;
        let bytes = vec![1, 2, 3];
        let error = w.fatal(|_| {}, Record::Optional { tag, bytes }).await;
        assert!(
            error.to_string().contains("unknown critical"),
            "{tag}: {error}"
        );
    }
    // Version, then both ends of the critical word.
    for (at, value) in [(0, 2), (1, 1), (4, 0x80)] {
        let w = world(1).await;
        let unlocked = w.unlock().await;
        let body = w.body(&unlocked, &w.room().await, Record::SlotAdd(slot(1)));
        let mut bytes = body.to_bytes();
        bytes[at] = value;
        plant_bytes(&w, &unlocked, &bytes);
        assert_eq!(w.room_error().await.class(), Class::Newer, "byte {at}");
    }
}

fn plant_bytes(w: &World, unlocked: &Unlocked, body: &[u8]) -> Hash32 {
    let (vault, room) = (unlocked.vault(), unlocked.root_room());
    let root = unlocked.root_signer();
    let key = unlocked.control_key(room);
    let aad = ControlAad { vault, room };
    let (name, object) = seal_body(&key, &aad, body, &Signer::Root(&root), &[], &w.entropy);
    w.plant_object(unlocked, name, object);
    name
}

#[tokio::test]
async fn unknown_optional_tags_and_features_are_kept_and_skipped() {
    let w = world(1).await;
    let unlocked = w.unlock().await;
    let record = Record::Optional {
        tag: 200,
        bytes: vec![1, 2, 3],
    };
    let mut body = w.body(&unlocked, &w.room().await, record);
    body.optional = 0x8000_0001;
    let name = w.plant(
        &unlocked,
        &body,
        &Signer::Root(&unlocked.root_signer()),
        &[],
    );
    let room = w.room().await;
    assert_eq!(
        room.roster.control_heads,
        [name],
        "it is part of the history"
    );
    assert_eq!(room.state.live_slots.len(), 2);
}

#[tokio::test]
async fn bytes_left_over_and_lists_out_of_order_are_refused() {
    let w = world(1).await;
    let unlocked = w.unlock().await;
    let body = w.body(&unlocked, &w.room().await, Record::SlotAdd(slot(1)));
    let mut bytes = body.to_bytes();
    bytes.push(0);
    plant_bytes(&w, &unlocked, &bytes);
    assert!(w.finding().await.contains("1 bytes too many"));
    let w = world(1).await;
    let error = w
        .refused(
            |body| body.parents = vec![body.parents[0], body.parents[0]],
            Record::SlotAdd(slot(1)),
        )
        .await;
    assert!(error.contains("ascending"), "{error}");
}

#[tokio::test]
async fn a_record_of_another_vault_or_room_is_refused() {
    for other in [true, false] {
        let w = world(1).await;
        let unlocked = w.unlock().await;
        let mut body = w.body(&unlocked, &w.room().await, Record::SlotAdd(slot(1)));
        if other {
            body.vault = VaultId([9; 16]);
        } else {
            body.room = RoomId([9; 16]);
        }
        // Sealed for the right place, so that only the signed body disagrees.
        plant_bytes(&w, &unlocked, &body.to_bytes());
        let error = w.finding().await;
        assert!(error.contains("another vault or room"), "{error}");
    }
}

#[tokio::test]
async fn parents_that_are_missing_or_absent_are_refused() {
    let w = world(1).await;
    let missing = Hash32([0xee; 32]);
    let error = w
        .fatal(
            |body| body.parents = vec![missing],
            Record::SlotAdd(slot(1)),
        )
        .await;
    assert!(matches!(error, VaultError::Missing { .. }), "{error}");
    assert!(error.to_string().contains(&missing.to_string()), "{error}");
    let w = world(1).await;
    let error = w
        .refused(|body| body.parents.clear(), Record::SlotAdd(slot(1)))
        .await;
    assert!(error.contains("second genesis"), "{error}");
}

#[tokio::test]
async fn a_second_genesis_is_refused_even_as_a_child() {
    let w = world(1).await;
    let record = genesis(&w, 16);
    let error = w.refused(|_| {}, Record::Genesis(Box::new(record))).await;
    assert!(error.contains("second genesis"), "{error}");
}

#[tokio::test]
async fn block_lengths_that_this_version_does_not_have_are_refused() {
    let w = world(1).await;
    assert!(Genesis::from_bytes(&genesis(&w, 16).to_bytes()).is_ok());
    for log2 in [0, 14, 15, 17, 255] {
        let decoded = Genesis::from_bytes(&genesis(&w, log2).to_bytes());
        let found = u64::from(log2);
        let what = "block length";
        assert_eq!(decoded.err(), Some(WireError::Unknown { what, found }));
    }
}

fn genesis(w: &World, block_log2: u8) -> Genesis {
    let seed = RootSeed::from_bytes([3; 32]);
    let vault = w.made.anchor.vault;
    let root = RootSigner::derive(&seed, vault);
    let kem = KemSecret::derive_root(&seed, vault, Suite::X25519).public();
    Genesis {
        format_version: 1,
        rule_set: 1,
        room_secret: keys::make_room_secret(&w.entropy),
        block_log2,
        compression: false,
        person: PersonId([3; 16]),
        name: label("mallory"),
        keys: PersonKeys {
            root_sign: root.public(),
            root_kem: kem.clone(),
            words_sign: root.public(),
            words_kem: kem,
        },
    }
}

#[tokio::test]
async fn only_keys_that_ancestors_certify_sign() {
    let w = world(1).await;
    let unlocked = w.unlock().await;
    let room = w.room().await;
    let before = w.store.snapshot();
    let stranger = RootSigner::derive(&RootSeed::from_bytes([3; 32]), unlocked.vault());
    let device = w.device().await;
    let device_key = device.signer(unlocked.vault());
    let signers = [
        (Signer::Root(&stranger), "signature is not valid"),
        (Signer::Device(device.id(), &device_key), "not certified"),
    ];
    for (signer, what) in signers {
        let mut body = w.body(&unlocked, &room, Record::SlotAdd(slot(1)));
        body.signer = signer.reference();
        w.plant(&unlocked, &body, &signer, &[]);
        let error = w.finding().await;
        assert!(error.contains(what), "{error}");
        w.store.restore(before.clone());
    }
    // The right key under the wrong name.
    let mut body = w.body(&unlocked, &room, Record::SlotAdd(slot(1)));
    body.signer = SignerRef::Words;
    w.plant(
        &unlocked,
        &body,
        &Signer::Root(&unlocked.root_signer()),
        &[],
    );
    let error = w.finding().await;
    assert!(error.contains("signature is not valid"), "{error}");
    w.store.restore(before);
    let error = w
        .refused(
            |body| body.author = PersonId([9; 16]),
            Record::SlotAdd(slot(1)),
        )
        .await;
    assert!(error.contains("author is not known"), "{error}");
}

#[tokio::test]
async fn the_words_sign_for_their_person() {
    let w = world(1).await;
    let unlocked = w.unlock().await;
    let words = words::parse_words(&w.made.words).unwrap();
    let signer = WordsSigner::derive(&words, unlocked.vault());
    let mut body = w.body(&unlocked, &w.room().await, Record::SlotAdd(slot(1)));
    body.signer = SignerRef::Words;
    w.plant(&unlocked, &body, &Signer::Words(&signer), &[]);
    assert!(w.room().await.state.live_slots.contains(&slot(1)));
}

#[tokio::test]
async fn a_device_signs_only_after_its_certificate_and_only_what_devices_may() {
    let w = world(1).await;
    let unlocked = w.unlock().await;
    let before = w.room().await;
    let device = w.device().await;
    let mut room = w.room().await;
    unlocked
        .certify_device(&w.store, &mut room, &device, "laptop", &w.clock, &w.entropy)
        .await
        .unwrap();
    let store = w.store.snapshot();
    let key = device.signer(unlocked.vault());
    let signer = Signer::Device(device.id(), &key);
    // On parents from before its certificate.
    let optional = Record::Optional {
        tag: 128,
        bytes: vec![],
    };
    let mut body = w.body(&unlocked, &before, optional);
    body.signer = signer.reference();
    w.plant(&unlocked, &body, &signer, &[]);
    let error = w.finding().await;
    assert!(error.contains("not certified"), "{error}");
    let second = device_add(&unlocked, &room, 5);
    for record in [
        Record::SlotAdd(slot(1)),
        Record::DeviceAdd(Box::new(second)),
    ] {
        w.store.restore(store.clone());
        let mut body = w.body(&unlocked, &room, record);
        body.signer = signer.reference();
        w.plant(&unlocked, &body, &signer, &[]);
        let error = w.finding().await;
        assert!(error.contains("may not"), "{error}");
    }
}

/// An epoch by the owner with one device, and what is needed to spoil it.
struct Epoch {
    core: EpochCore,
    key: EpochKey,
    kems: Vec<(Recipient, KemSecret)>,
}

fn rekey(w: &World, unlocked: &Unlocked, room: &Room) -> Epoch {
    let key = keys::make_epoch_key(&w.entropy);
    let (vault, person) = (unlocked.vault(), unlocked.person());
    let words = words::parse_words(&w.made.words).unwrap();
    Epoch {
        core: EpochCore {
            reason: EpochReason::Rekey,
            parents: room.state.epoch_heads(),
            suite: Suite::XWing,
            commitment: keys::derive_epoch_commitment(&key, vault, room.state.room),
            members: vec![(person, Role::Owner)],
            devices: vec![],
            recipients: vec![Recipient::Root(person), Recipient::Words(person)],
        },
        key,
        kems: vec![
            (
                Recipient::Root(person),
                KemSecret::derive_root(unlocked.root(), vault, Suite::XWing),
            ),
            (
                Recipient::Words(person),
                KemSecret::derive_words(&words, vault, Suite::XWing),
            ),
        ],
    }
}

impl Epoch {
    fn plant(self, w: &World, unlocked: &Unlocked, room: &Room) -> EpochId {
        let (record, attachment) = self.record(w, unlocked);
        let body = w.body(unlocked, room, Record::Epoch(Box::new(record)));
        let root = unlocked.root_signer();
        EpochId(
            w.plant(unlocked, &body, &Signer::Root(&root), &attachment)
                .0,
        )
    }

    fn record(&self, w: &World, unlocked: &Unlocked) -> (EpochRecord, Vec<u8>) {
        let binding = Binding {
            vault: unlocked.vault(),
            room: unlocked.root_room(),
            author: unlocked.person(),
            signer: SignerRef::Root,
        };
        let purpose = Purpose::of_core(&self.core);
        let wrap = |(recipient, kem): &(Recipient, KemSecret)| {
            let public = kem.public();
            binding
                .wrap(purpose, *recipient, &public, &self.key, &w.entropy)
                .unwrap()
        };
        let envelopes: Vec<Envelope> = self.kems.iter().map(wrap).collect();
        let attachment = encode_envelopes(&envelopes);
        let record = EpochRecord {
            core: self.core.clone(),
            envelopes: hash(&attachment),
        };
        (record, attachment)
    }
}

async fn spoiled(change: impl FnOnce(&mut Epoch, &World)) -> String {
    spoiled_world(change).await.finding().await
}

async fn spoiled_world(change: impl FnOnce(&mut Epoch, &World)) -> World {
    let w = world(1).await;
    let unlocked = w.unlock().await;
    let room = w.room().await;
    let mut epoch = rekey(&w, &unlocked, &room);
    change(&mut epoch, &w);
    epoch.plant(&w, &unlocked, &room);
    w
}

#[tokio::test]
async fn a_new_epoch_becomes_current_and_the_old_one_stays_readable() {
    let w = world(1).await;
    let unlocked = w.unlock().await;
    let room = w.room().await;
    let old = room.keys.current().0;
    let new = rekey(&w, &unlocked, &room).plant(&w, &unlocked, &room);
    let room = w.room().await;
    assert_eq!(room.keys.current().0, new);
    assert!(room.keys.commitment(&old).is_some());
    assert_eq!(room.state.epoch_heads(), [new]);
    // A device that comes now is granted both.
    let device = w.device().await;
    let mut room = room;
    unlocked
        .certify_device(&w.store, &mut room, &device, "laptop", &w.clock, &w.entropy)
        .await
        .unwrap();
    let mine = unlocked.reader_for(&device).load(&w.store).await.unwrap();
    assert_eq!(mine.keys.epochs().count(), 2);
}

#[tokio::test]
async fn two_epochs_made_at_once_are_two_heads() {
    let w = world(1).await;
    let unlocked = w.unlock().await;
    let room = w.room().await;
    for _ in 0..2 {
        rekey(&w, &unlocked, &room).plant(&w, &unlocked, &room);
    }
    assert_eq!(w.room().await.state.epoch_heads().len(), 2);
}

#[tokio::test]
async fn a_key_that_the_record_does_not_commit_to_refuses_the_epoch() {
    let w = spoiled_world(|epoch, w| epoch.key = keys::make_epoch_key(&w.entropy)).await;
    let error = w.room_error().await;
    assert!(matches!(error, VaultError::WrongEpochKey(_)), "{error}");
    assert_eq!(error.class(), Class::Integrity);
}

#[tokio::test]
async fn an_epoch_with_escrow_or_without_its_members_is_refused() {
    type Change = fn(&mut Epoch, &World);
    let cases: [(Change, &str); 7] = [
        (
            |e, _| {
                e.core
                    .recipients
                    .push(Recipient::Words(PersonId([0xff; 16])));
                let escrow = KemSecret::from_bytes(Suite::XWing, [1; 32]);
                e.kems
                    .push((Recipient::Words(PersonId([0xff; 16])), escrow));
            },
            "wrapped to others",
        ),
        (
            |e, _| {
                e.core.recipients.pop();
                e.kems.pop();
            },
            "wrapped to others",
        ),
        (|e, _| e.core.members.clear(), "without the owner"),
        (
            |e, _| e.core.members[0].1 = Role::Editor,
            "without the owner",
        ),
        (
            |e, _| {
                e.core.members.push((PersonId([0xff; 16]), Role::Reader));
            },
            "members that it lists",
        ),
        (
            |e, _| e.core.devices.push(DeviceId([1; 16])),
            "devices that it lists",
        ),
        (
            |e, _| {
                e.kems.pop();
            },
            "another number of envelopes",
        ),
    ];
    for (change, what) in cases {
        let error = spoiled(change).await;
        assert!(error.contains(what), "{error}");
    }
}

#[tokio::test]
async fn an_epoch_that_goes_back_or_does_not_follow_is_refused() {
    let error = spoiled(|e, _| e.core.suite = Suite::X25519).await;
    assert!(error.contains("weaker suite"), "{error}");
    let error = spoiled(|e, _| {
        // An old client's envelope in an epoch that claims the new suite.
        e.kems[0].1 = KemSecret::from_bytes(Suite::X25519, [1; 32]);
    })
    .await;
    assert!(error.contains("another suite"), "{error}");
    let error = spoiled(|e, _| e.core.parents.clear()).await;
    assert!(error.contains("only a first epoch"), "{error}");
    let error = spoiled(|e, _| {
        e.core.parents.clear();
        e.core.reason = EpochReason::First;
    })
    .await;
    assert!(error.contains("second first"), "{error}");
    let error = spoiled(|e, _| e.core.parents = vec![EpochId([1; 32])]).await;
    assert!(error.contains("parent is not known"), "{error}");
}

#[tokio::test]
async fn envelopes_that_were_exchanged_behind_the_signature_are_refused() {
    let w = world(1).await;
    let unlocked = w.unlock().await;
    let room = w.room().await;
    let (record, _) = rekey(&w, &unlocked, &room).record(&w, &unlocked);
    let (_, other) = rekey(&w, &unlocked, &room).record(&w, &unlocked);
    let body = w.body(&unlocked, &room, Record::Epoch(Box::new(record)));
    let root = unlocked.root_signer();
    w.plant(&unlocked, &body, &Signer::Root(&root), &other);
    let error = w.finding().await;
    assert!(error.contains("not those that were signed"), "{error}");
    // And an attachment where none belongs.
    let w = world(1).await;
    let body = w.body(&unlocked, &room, Record::SlotAdd(slot(1)));
    w.plant(&unlocked, &body, &Signer::Root(&root), b"more");
    let error = w.finding().await;
    assert!(error.contains("attachment"), "{error}");
}

#[tokio::test]
async fn an_envelope_for_one_purpose_does_not_serve_another() {
    let w = world(1).await;
    let unlocked = w.unlock().await;
    let room = w.room().await;
    let epoch = rekey(&w, &unlocked, &room);
    let (recipient, kem) = &epoch.kems[0];
    let binding = Binding {
        vault: unlocked.vault(),
        room: unlocked.root_room(),
        author: unlocked.person(),
        signer: SignerRef::Root,
    };
    let purpose = Purpose::of_core(&epoch.core);
    let envelope = binding
        .wrap(purpose, *recipient, &kem.public(), &epoch.key, &w.entropy)
        .unwrap();
    let opens = |binding: Binding, purpose, recipient| {
        let key = binding.unwrap(purpose, recipient, kem, &envelope);
        key.is_some_and(|key| key.expose() == epoch.key.expose())
    };
    assert!(opens(binding, purpose, *recipient));
    let Purpose::Epoch(core) = purpose else {
        panic!()
    };
    assert!(!opens(binding, Purpose::Grant(EpochId(core.0)), *recipient));
    assert!(!opens(binding, Purpose::Epoch(Hash32([0; 32])), *recipient));
    assert!(!opens(
        binding,
        purpose,
        Recipient::Words(unlocked.person())
    ));
    let others = [
        Binding {
            vault: VaultId([0; 16]),
            ..binding
        },
        Binding {
            room: RoomId([0; 16]),
            ..binding
        },
        Binding {
            author: PersonId([0; 16]),
            ..binding
        },
        Binding {
            signer: SignerRef::Words,
            ..binding
        },
    ];
    for other in others {
        assert!(!opens(other, purpose, *recipient));
    }
}

#[tokio::test]
async fn grants_go_to_certified_devices_of_members_only() {
    let w = world(1).await;
    let unlocked = w.unlock().await;
    let room = w.room().await;
    let epoch = room.keys.current().0;
    let grant = |epoch, recipient| {
        Record::Grant(Box::new(Grant {
            epoch,
            recipient,
            envelope: Envelope::from_bytes(vec![1]),
        }))
    };
    let device = Recipient::Device(DeviceId([1; 16]));
    let cases = [
        (grant(epoch, device), "not certified"),
        (grant(EpochId([1; 32]), device), "epoch that is not known"),
        (
            grant(epoch, Recipient::Root(unlocked.person())),
            "something else than a device",
        ),
    ];
    let store = w.store.snapshot();
    for (record, what) in cases {
        w.store.restore(store.clone());
        let error = w.refused(|_| {}, record).await;
        assert!(error.contains(what), "{error}");
    }
}
