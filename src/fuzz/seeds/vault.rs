//! Objects of a whole vault, made by `init` in memory.

use crate::targets::crypto::VAULT;
use crate::targets::vault::ROOM;
use skrin_base::Timestamp;
use skrin_base::clock::testutil::{ManualClock, SeededEntropy};
use skrin_base::ids::{DeviceId, EpochId, Hash32, LaneId, PersonId, RoomId};
use skrin_base::wire::{Encode, Writer};
use skrin_crypto::keys::derive_control_key;
use skrin_crypto::passphrase::Argon2Params;
use skrin_crypto::words::parse_words;
use skrin_crypto::{Envelope, KemSecret, RootSeed, RootSigner, Suite, VaultSecret, WordsEntropy};
use skrin_storage::{MemoryStore, ObjectName, Prefix, Store};
use skrin_vault::control::open_record;
use skrin_vault::record::{
    BackLink, Body, CutTip, DeviceRevoke, EndReason, Grant, History, Label, MemberAdd, MemberKeys,
    MemberRemove, MemberRole, Recipient, Record, RecoveryPurpose, Role, SignerRef, SlotEntry,
};
use skrin_vault::slot::Slot;
use skrin_vault::{
    Device, HEADER_NAME, InitOptions, Secret, Unlocked, init, seal_device_file, unlock,
};
use std::sync::LazyLock;

/// Objects of a vault, by name, and its words.
struct Made {
    words: String,
    objects: Vec<(String, Vec<u8>)>,
}

static MADE: LazyLock<Made> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let made = runtime.ok().and_then(|runtime| runtime.block_on(make()));
    match made {
        Some(made) => made,
        None => unreachable!("a vault in memory can be made"),
    }
});

async fn make() -> Option<Made> {
    let store = MemoryStore::default();
    let options = InitOptions {
        passphrase: Some("correct horse battery staple".to_owned().into()),
        argon2: Argon2Params::WEAK_FOR_TESTS,
        suite: Suite::X25519,
        ..InitOptions::new("Anna")
    };
    let made = init(
        &store,
        &options,
        &ManualClock::default(),
        &SeededEntropy::new(7),
    )
    .await
    .ok()?;
    let mut objects = Vec::new();
    let mut dirs = vec![Prefix::root()];
    while let Some(dir) = dirs.pop() {
        let listing = store.list(&dir).await.ok()?;
        for listed in listing.objects {
            let bytes = store.get(&listed.name, 1 << 20).await.ok()?;
            objects.push((listed.name.as_str().to_owned(), bytes.to_vec()));
        }
        dirs.extend(
            listing
                .dirs
                .iter()
                .filter_map(|name| dir.dir(name.as_str()).ok()),
        );
    }
    Some(Made {
        words: made.words.to_string(),
        objects,
    })
}

fn objects_in(dir: &str) -> impl Iterator<Item = &'static (String, Vec<u8>)> {
    let made: &'static Made = &MADE;
    let dir = dir.to_owned();
    made.objects
        .iter()
        .filter(move |(name, _)| name.contains(&dir))
}

/// The vault, open, and two device files of it.
pub struct Devices {
    /// What opens them.
    pub unlocked: Unlocked,
    /// Their bytes.
    pub files: Vec<Vec<u8>>,
}

static DEVICES: LazyLock<Devices> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let made = runtime
        .ok()
        .and_then(|runtime| runtime.block_on(make_devices()));
    match made {
        Some(made) => made,
        None => unreachable!("the words open the vault"),
    }
});

async fn make_devices() -> Option<Devices> {
    let store = MemoryStore::default();
    for (name, bytes) in &MADE.objects {
        let name = ObjectName::new(name.as_str()).ok()?;
        store.put(&name, bytes.clone().into()).await.ok()?;
    }
    let words = Secret::Words(MADE.words.clone().into());
    let unlocked = unlock(&store, &words).await.ok()?;
    let room = unlocked.load_room(&store).await.ok()?;
    let entropy = SeededEntropy::new(12);
    let file = |_| {
        let device = Device::make(&unlocked, &room, &entropy);
        seal_device_file(&unlocked, &device, &entropy)
    };
    let files = (0..2).map(file).collect();
    Some(Devices { unlocked, files })
}

/// The vault of the device files.
pub fn devices() -> &'static Devices {
    &DEVICES
}

/// For `targets::vault::device_file`.
pub fn device_files() -> Vec<Vec<u8>> {
    devices().files.clone()
}

/// For `targets::vault::header`.
pub fn headers() -> Vec<Vec<u8>> {
    objects_in(HEADER_NAME)
        .map(|(_, bytes)| bytes.clone())
        .collect()
}

/// For `targets::vault::slot`.
pub fn slots() -> Vec<Vec<u8>> {
    objects_in("slots/")
        .map(|(_, bytes)| bytes.clone())
        .collect()
}

/// For `targets::vault::slot_payload`.
pub fn slot_payloads() -> Vec<Vec<u8>> {
    let mut w = Writer::default();
    w.u8(1);
    w.u32(0);
    w.u32(0);
    VAULT.encode(&mut w);
    w.raw(&[1; 32]);
    w.u8(1);
    ROOM.encode(&mut w);
    [[2; 32], [3; 32]].iter().for_each(|hash| w.raw(hash));
    PersonId([4; 16]).encode(&mut w);
    [[5; 32], [6; 32]].iter().for_each(|secret| w.raw(secret));
    vec![w.into_bytes()]
}

fn opened_slot() -> Option<(VaultSecret, RoomId, skrin_base::VaultId)> {
    let words: WordsEntropy = parse_words(&MADE.words).ok()?;
    let mut slots =
        objects_in("slots/").filter_map(|(_, bytes)| Slot::parse("slot", bytes).ok()?);
    let payload = slots.find_map(|slot| slot.open_words("slot", &words).ok()?)?;
    Some((payload.vault_secret, payload.room, payload.vault))
}

/// The bodies of all records of the vault, and of kinds that it has none of.
fn bodies() -> Vec<(Body, Vec<u8>)> {
    let Some((secret, room, vault)) = opened_slot() else {
        unreachable!("the words open the vault");
    };
    let key = derive_control_key(&secret, vault, room);
    let records = objects_in("/control/").filter_map(|(name, bytes)| {
        let hash = ObjectName::new(name.as_str())
            .ok()
            .and_then(|n| Hash32::from_hex(n.file_name()))?;
        let opened = open_record(&key, vault, room, hash, bytes).ok()?;
        Some((opened.body, opened.attachment))
    });
    let mut all: Vec<_> = records.collect();
    assert!(all.len() >= 4, "genesis, two slots and an epoch");
    let recipient = Recipient::Words(PersonId([4; 16]));
    let envelope = Envelope::from_bytes(vec![0; 81]);
    let grant = Grant {
        epoch: EpochId([5; 32]),
        recipient,
        envelope,
    };
    let slot = SlotEntry {
        name: [6; 16],
        hash: Hash32([7; 32]),
    };
    let more = [
        Record::Grant(Box::new(grant)),
        Record::SlotRemove(slot),
        Record::Optional {
            tag: 200,
            bytes: vec![1, 2, 3],
        },
    ];
    all.extend(more.map(|record| (body(record), Vec::new())));
    all.extend(
        people()
            .into_iter()
            .map(|record| (body(record), Vec::new())),
    );
    all
}

/// Records about people.
fn people() -> Vec<Record> {
    let seed = RootSeed::from_bytes([8; 32]);
    let sign = RootSigner::derive(&seed, VAULT).public();
    let kem = KemSecret::derive_root(&seed, VAULT, Suite::X25519).public();
    let keys = MemberKeys {
        root_sign: sign.clone(),
        root_kem: kem.clone(),
        words_sign: Some(sign),
        words_kem: Some(kem),
    };
    let person = keys.person(VAULT);
    let tip = |n: u8| CutTip {
        lane: LaneId([n; 16]),
        seq: n.into(),
        commit: Hash32([n; 32]),
    };
    let cut = vec![tip(1), tip(2)];
    let Ok(name) = Label::new("bert") else {
        unreachable!("that is a name");
    };
    let revoke = DeviceRevoke {
        person,
        previous: Hash32([1; 32]),
        device: DeviceId([2; 16]),
        cut: cut.clone(),
        reason: EndReason::Lost,
    };
    let add = MemberAdd {
        person,
        name,
        role: Role::Editor,
        keys,
        history: History::All,
        until: Some(Timestamp(5)),
        invitation: Some([3; 32]),
    };
    let remove = MemberRemove {
        person,
        cut: cut.clone(),
        reason: EndReason::Left,
    };
    let role = MemberRole {
        person,
        role: Role::Reader,
        cut,
    };
    let link = BackLink {
        epoch: EpochId([4; 32]),
        earlier: EpochId([5; 32]),
        recipient: Recipient::Root(person),
        envelope: Envelope::from_bytes(vec![0; 81]),
    };
    vec![
        Record::DeviceRevoke(Box::new(revoke)),
        Record::MemberAdd(Box::new(add)),
        Record::MemberRemove(Box::new(remove)),
        Record::MemberRole(Box::new(role)),
        Record::BackLink(Box::new(link)),
        Record::RecoveryUse(RecoveryPurpose::Read),
    ]
}

/// For `targets::vault::invitation`.
pub fn invitations() -> Vec<Vec<u8>> {
    let mut w = Writer::default();
    w.u8(1);
    w.raw(&[2; 16]);
    w.raw(&[3; 32]);
    w.raw(&[4; 16]);
    w.raw(&[5; 32]);
    w.raw(&[6; 32]);
    w.raw(&[7; 16]);
    w.raw(&[8; 32]);
    // Editor, all of the history, until, expires, a place, the suite, the secret.
    w.raw(&[3, 1, 1]);
    w.i64(9);
    w.i64(10);
    w.u8(1);
    w.bytes(b"webdavs://example.org/vault");
    w.u8(1);
    w.raw(&[11; 16]);
    vec![w.into_bytes()]
}

fn body(record: Record) -> Body {
    Body {
        vault: VAULT,
        room: ROOM,
        optional: 0,
        parents: vec![Hash32([1; 32]), Hash32([2; 32])],
        author: PersonId([4; 16]),
        signer: SignerRef::Words,
        time: Timestamp(5),
        record,
    }
}

/// For `targets::vault::control_body`.
pub fn control_bodies() -> Vec<Vec<u8>> {
    let bodies = bodies();
    let attachments = bodies.iter().map(|(_, attachment)| attachment.clone());
    bodies
        .iter()
        .map(|(body, _)| body.to_bytes())
        .chain(attachments)
        .collect()
}

/// For `targets::vault::control_object`: what stands under the seal, moved to the vault of the target.
pub fn control_contents() -> Vec<Vec<u8>> {
    let content = |(mut body, attachment): (Body, Vec<u8>)| {
        (body.vault, body.room) = (VAULT, ROOM);
        let mut w = Writer::default();
        w.bytes(&body.to_bytes());
        w.raw(&[0; 64]);
        w.bytes(&attachment);
        w.into_bytes()
    };
    bodies().into_iter().map(content).collect()
}
