//! What opens the vault: header, control records and slots, as the storage shows them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use skrin_base::Hash32;
use skrin_storage::{ObjectName, StoreError};
use skrin_vault::{Class, HEADER_NAME, VaultError, slot_objects};

use super::{AGAIN, Scrub, Stop};
use crate::exit::Failure;
use crate::finding::Kind;
use crate::left_out;
use crate::mirror::bytes_of;

/// Whether bytes are those of an object.
type IsRight<'a> = dyn Fn(&[u8]) -> bool + Send + Sync + 'a;

impl Scrub {
    /// Looks at each of them. Slots come last: which of them count the records say. Nothing is put again: another vault may lie here by now, and a
    /// slot of a passphrase that was changed must not come back, which is for somebody to decide.
    pub(super) async fn opening(&self) -> Result<(), Stop> {
        let (reader, _) = self.around.people.reader();
        let header = ObjectName::new(HEADER_NAME).map_err(StoreError::from)?;
        self.guard(&header, &|bytes: &[u8]| reader.is_header(bytes))
            .await?;
        for name in self.records().await? {
            let is_right = |bytes: &[u8]| reader.is_control_record(&name, bytes);
            self.guard(&name, &is_right).await?;
        }
        self.slots().await
    }

    /// The control records that the storage lists, and those that this machine has good copies of.
    async fn records(&self) -> Result<BTreeSet<ObjectName>, Stop> {
        let (reader, store) = self.around.people.reader();
        let copies = &*self.around.copies;
        let listed = reader.control_objects(store).await?;
        let mut names: BTreeSet<ObjectName> = listed.into_iter().collect();
        for name in reader.control_objects(copies).await? {
            let copy = bytes_of(copies, &name).await?;
            if copy.is_some_and(|bytes| reader.is_control_record(&name, &bytes)) {
                names.insert(name);
            }
        }
        Ok(names)
    }

    /// The slots that count.
    async fn slots(&self) -> Result<(), Stop> {
        let (_, store) = self.around.people.reader();
        for (name, hash) in self.live_slots().await? {
            let is_right = |bytes: &[u8]| skrin_crypto::hash(bytes) == hash;
            let shown = bytes_of(store, &name).await?;
            if let Some(bytes) = shown.filter(|bytes| is_right(bytes)) {
                self.looked_at(bytes.len() as u64, None).await?;
                continue;
            }
            // Another one may have taken its place meanwhile.
            self.pause(AGAIN).await?;
            if self.live_slots().await?.get(&name) == Some(&hash) {
                self.guard(&name, &is_right).await?;
            }
        }
        Ok(())
    }

    /// Which they are; none where the records do not say it, which is told. So is what is wrong between the records.
    async fn live_slots(&self) -> Result<BTreeMap<ObjectName, Hash32>, Stop> {
        let (reader, store) = self.around.people.reader();
        let room = match reader.load(store).await {
            Ok(room) => room,
            Err(VaultError::Storage(error)) => return Err(error.into()),
            Err(error) if error.class() == Class::Integrity => {
                let found = left_out::shut(&Failure::from(error));
                self.found_once(found.kind, found.object, found.what);
                return Ok(BTreeMap::new());
            }
            Err(error) => {
                tracing::debug!(%error, "the slots are not looked at");
                return Ok(BTreeMap::new());
            }
        };
        for bad in &room.findings {
            let found = left_out::record(store, bad).await;
            self.found_once(found.kind, found.object, found.what);
        }
        let mut slots = BTreeMap::new();
        for (name, hash) in slot_objects(&room.state) {
            slots.insert(ObjectName::new(name).map_err(StoreError::from)?, hash);
        }
        Ok(slots)
    }

    /// Notes something, unless that object was told by itself.
    fn found_once(&self, kind: Kind, object: String, what: String) {
        let is_known = {
            let saved = self.saved.lock();
            let mut findings = saved.report.findings.iter();
            findings.any(|found| found.object == object)
        };
        if !is_known {
            self.found(kind, object, what, false);
        }
    }

    /// Looks at one object, twice if it is not right.
    async fn guard(&self, name: &ObjectName, is_right: &IsRight<'_>) -> Result<(), Stop> {
        let (_, store) = self.around.people.reader();
        let mut shown = bytes_of(store, name).await?;
        let is_wrong = |shown: &Option<Bytes>| shown.as_ref().is_none_or(|b| !is_right(b));
        if is_wrong(&shown) {
            self.pause(AGAIN).await?;
            shown = bytes_of(store, name).await?;
        }
        if is_wrong(&shown) {
            let what = match shown {
                None => "is missing: the storage lost it",
                Some(_) => "is not what was written",
            };
            let what = format!("{what}; skrin verify --repair puts it again from the copy here");
            let kind = Kind::of_object(name.as_str(), shown.is_none());
            self.found(kind, name.to_string(), what, false);
        }
        let read = shown.map_or(0, |bytes| bytes.len());
        self.looked_at(read as u64, None).await
    }
}
