//! Tests of the whole crate over a storage in memory.

mod certificates;
mod decoders;
mod devices;
mod forged;
mod frozen;
mod frozen_people;
mod joining;
mod opening;
mod people;
mod records;
mod recovery;
mod removal;

use crate::control::{Signer, seal_record};
use crate::record::{Body, Record, SignerRef};
use crate::{
    Argon2Params, Device, InitOptions, InitResult, Room, Secret, Unlocked, VaultError, init,
    objects, unlock, unlock_with_hint,
};
use bytes::Bytes;
use skrin_base::Clock;
use skrin_base::clock::testutil::{ManualClock, SeededEntropy};
use skrin_base::ids::Hash32;
use skrin_crypto::{ControlAad, hash, open, seal};
use skrin_storage::{MemoryStore, ObjectName};
use zeroize::Zeroizing;

const PASSPHRASE: &str = "tiny walrus 7";

/// A vault in memory.
struct World {
    store: MemoryStore,
    clock: ManualClock,
    entropy: SeededEntropy,
    made: InitResult,
}

fn options() -> InitOptions {
    InitOptions {
        passphrase: Some(text(PASSPHRASE)),
        argon2: Argon2Params::WEAK_FOR_TESTS,
        ..InitOptions::new("anna")
    }
}

fn text(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}

fn passphrase(value: &str) -> Secret {
    Secret::Passphrase(text(value))
}

async fn world(seed: u64) -> World {
    let store = MemoryStore::new();
    let (clock, entropy) = (ManualClock::default(), SeededEntropy::new(seed));
    let made = init(&store, &options(), &clock, &entropy).await.unwrap();
    World {
        store,
        clock,
        entropy,
        made,
    }
}

impl World {
    fn words(&self) -> Secret {
        Secret::Words(self.made.words.clone())
    }

    async fn unlock(&self) -> Unlocked {
        unlock(&self.store, &self.words()).await.unwrap()
    }

    async fn unlock_error(&self, secret: &Secret) -> VaultError {
        unlock(&self.store, secret).await.err().unwrap()
    }

    async fn room(&self) -> Room {
        self.unlock().await.load_room(&self.store).await.unwrap()
    }

    /// The error that the room gives, which must be one.
    async fn room_error(&self) -> VaultError {
        let unlocked = self.unlock().await;
        unlocked.load_room(&self.store).await.err().unwrap()
    }

    /// What the room finds in the only object that says nothing; all else stands.
    async fn finding(&self) -> String {
        let findings = self.room().await.findings;
        let [bad] = findings.as_slice() else {
            panic!("{findings:?}")
        };
        bad.to_string()
    }

    /// A new device, not certified.
    async fn device(&self) -> Device {
        Device::make(&self.unlock().await, &self.room().await, &self.entropy)
    }

    /// All objects below a directory.
    fn names(&self, dir: &str) -> Vec<ObjectName> {
        let names = self.store.names().into_iter();
        names.filter(|n| n.as_str().starts_with(dir)).collect()
    }

    fn bytes(&self, name: &ObjectName) -> Vec<u8> {
        self.store.peek(name).unwrap().to_vec()
    }

    fn replace(&self, name: &ObjectName, bytes: Vec<u8>) {
        self.store.tamper(name, Some(Bytes::from(bytes)));
    }

    /// The slots of a kind: 1 passphrase, 2 words.
    fn slots(&self, kind: u8) -> Vec<ObjectName> {
        let mut names = self.names("slots/");
        names.retain(|name| self.bytes(name)[5] == kind);
        names
    }

    /// A body by the root on top of the heads, for changing.
    fn body(&self, unlocked: &Unlocked, room: &Room, record: Record) -> Body {
        Body {
            vault: unlocked.vault(),
            room: room.state.room,
            optional: 0,
            parents: room.state.heads(),
            author: unlocked.person(),
            signer: SignerRef::Root,
            time: self.clock.now(),
            record,
        }
    }

    /// Seals and puts a record, as somebody who holds the control key could; no rule is checked.
    fn plant(
        &self,
        unlocked: &Unlocked,
        body: &Body,
        signer: &Signer<'_>,
        attachment: &[u8],
    ) -> Hash32 {
        let key = unlocked.control_key(body.room);
        let (name, object) = seal_record(&key, body, signer, attachment, &self.entropy);
        self.plant_object(unlocked, name, object);
        name
    }

    fn plant_object(&self, unlocked: &Unlocked, name: Hash32, object: Vec<u8>) {
        let name = objects::control_name(unlocked.root_room(), name);
        self.replace(&ObjectName::new(name).unwrap(), object);
    }

    /// What a former member makes of a record: the same content in another seal.
    fn seal_again(&self, unlocked: &Unlocked, object: &[u8]) -> Vec<u8> {
        let (vault, room) = (unlocked.vault(), unlocked.root_room());
        let (key, aad) = (unlocked.control_key(room), ControlAad { vault, room });
        let plain = open(&key, &aad, object).unwrap();
        let again = seal(&key, &aad, &plain, &self.entropy);
        assert_ne!(again, object);
        again
    }

    /// Plants a record by the root, which must be skipped, and returns what the room says of it.
    async fn refused(&self, change: impl FnOnce(&mut Body), record: Record) -> String {
        let before = self.room().await.roster;
        let name = self.plant_by_root(change, record).await;
        let finding = self.finding().await;
        assert!(finding.contains(&name.to_string()), "{finding}");
        assert_eq!(self.room().await.roster, before, "it changes nothing");
        finding
    }

    /// Plants a record by the root with which the room must not open, and returns why.
    async fn fatal(&self, change: impl FnOnce(&mut Body), record: Record) -> VaultError {
        let name = self.plant_by_root(change, record).await;
        let error = self.room_error().await;
        assert!(error.to_string().contains(&name.to_string()), "{error}");
        error
    }

    async fn plant_by_root(&self, change: impl FnOnce(&mut Body), record: Record) -> Hash32 {
        let unlocked = self.unlock().await;
        let room = unlocked.load_room(&self.store).await.unwrap();
        let mut body = self.body(&unlocked, &room, record);
        change(&mut body);
        let root = unlocked.root_signer();
        self.plant(&unlocked, &body, &Signer::Root(&root), &[])
    }
}

/// Replaces the checksum at the end of a header or slot, as a storage that is not just broken would.
fn with_new_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - 32);
    let checksum = hash(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    bytes
}
