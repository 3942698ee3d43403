//! What this device has seen, remembered on its own disk: the memory against rollback
//! (docs/format/lanes.md, section 8).

use crate::commit::Verdict;
use crate::lane::Head;
use parking_lot::Mutex;
use skrin_base::limits::{FORMAT_VERSION, LABEL_MAX};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{DeviceId, Entropy, Hash32, LaneId, RoomId, Timestamp, VaultId};
use skrin_crypto::{LocalAad, LocalKey, OpenError, open, seal};
use skrin_storage::disk;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use thiserror::Error;

const MAGIC: &[u8; 4] = b"SKRH";
/// More lanes than a room ever has.
const LANES_MAX: usize = 1 << 20;
/// More control records than a room ever has.
const CONTROL_MAX: usize = 1 << 20;

/// A file of the local state that cannot be read or written.
#[derive(Debug, Error)]
pub enum LocalError {
    /// The disk says no.
    #[error("{}: {source}; the local state must be on a disk that can be written", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file does not open: damaged, or of another device.
    #[error(
        "{}: {reason}; this file remembers what was seen, so that an old copy of the storage is noticed: restore it, or delete it to be treated as a new device", path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Names the file in an error.
pub(crate) fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> LocalError + '_ {
    |source| LocalError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Replaces a file by new contents that are on stable storage before the name changes.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), LocalError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let stage = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&stage)?;
        file.write_all(bytes)?;
        disk::sync_all(&file, &stage)?;
        std::fs::rename(&stage, path)?;
        disk::sync_dir(dir)
    };
    write().map_err(io_error(path))
}

/// The newest commit of a lane that was seen and verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeenHead {
    /// The commit.
    pub head: Head,
    /// Its Lamport time.
    pub lamport: u64,
    /// Who wrote it.
    pub device: DeviceId,
    /// What people call that device.
    pub label: String,
    /// When, by that device's clock.
    pub time: Timestamp,
    /// Whether the lane ended.
    pub closed: bool,
    /// Since when others have published operations that the lane does not name: as this device saw it, by its own clock.
    pub awaited: Option<Timestamp>,
}

impl fmt::Display for SeenHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (label, seq) = (self.label.escape_debug(), self.head.seq);
        write!(f, "commit {seq} of {label} ({})", date(self.time))
    }
}

/// UTC date and time to the minute.
pub(crate) fn date(time: Timestamp) -> String {
    let seconds = time.0.div_euclid(1_000_000_000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Civil date from days since 1970, after H. Hinnant, "chrono-compatible low-level date algorithms".
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (rest / 3600, rest % 3600 / 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// What was seen, by lane, with what this device must never use twice.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Heads {
    /// The newest commit of each lane.
    pub lanes: BTreeMap<LaneId, SeenHead>,
    /// The heads of the control records, ascending.
    pub control: Vec<Hash32>,
    /// Refutations of checkpoints that this device owes.
    pub refuting: Vec<Verdict>,
    /// Roots of checkpoints that were proposed in commits seen here and could not be judged, ascending.
    pub unjudged: Vec<Hash32>,
    /// The highest operation counter that this device published.
    pub last_counter: u64,
    /// The highest incarnation that this device used.
    pub incarnation: u32,
}

impl Encode for SeenHead {
    fn encode(&self, w: &mut Writer) {
        self.head.encode(w);
        w.u64(self.lamport);
        self.device.encode(w);
        w.bytes(self.label.as_bytes());
        self.time.encode(w);
        w.u8(self.closed.into());
        w.option(self.awaited.as_ref());
    }
}

impl Decode for SeenHead {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let (head, lamport, device) = (Head::decode(r)?, r.u64()?, DeviceId::decode(r)?);
        let label = std::str::from_utf8(r.bytes("label", LABEL_MAX)?);
        Ok(Self {
            head,
            lamport,
            device,
            label: label.map_err(|_| WireError::Value("label"))?.to_owned(),
            time: Timestamp::decode(r)?,
            closed: r.bool()?,
            awaited: r.option()?,
        })
    }
}

impl Encode for Heads {
    fn encode(&self, w: &mut Writer) {
        w.count(self.lanes.len());
        self.lanes.values().for_each(|seen| seen.encode(w));
        w.list(&self.control);
        w.list(&self.refuting);
        w.list(&self.unjudged);
        w.u64(self.last_counter);
        w.u32(self.incarnation);
    }
}

impl Decode for Heads {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let lanes: Vec<SeenHead> = r.list("remembered lanes", LANES_MAX)?;
        Ok(Self {
            lanes: lanes
                .into_iter()
                .map(|seen| (seen.head.lane, seen))
                .collect(),
            control: r.list("remembered control records", CONTROL_MAX)?,
            refuting: r.list("refutations that are owed", LANES_MAX)?,
            unjudged: r.list("proposals that were not judged", LANES_MAX)?,
            last_counter: r.u64()?,
            incarnation: r.u32()?,
        })
    }
}

/// Where `Heads` are kept, and what seals them.
pub struct HeadsFile {
    path: PathBuf,
    key: LocalKey,
    aad: LocalAad,
    /// One writer at a time: a caller that stopped waiting leaves its write running.
    writing: Mutex<()>,
}

impl HeadsFile {
    /// The file `heads` in the directory of the local state.
    pub fn new(
        path: PathBuf,
        key: LocalKey,
        vault: VaultId,
        room: RoomId,
        device: DeviceId,
    ) -> Self {
        let mut context = Writer::default();
        room.encode(&mut context);
        device.encode(&mut context);
        let aad = LocalAad {
            purpose: "heads",
            vault,
            context: context.into_bytes(),
        };
        let writing = Mutex::new(());
        Self {
            path,
            key,
            aad,
            writing,
        }
    }

    /// What was remembered; `None` if there is no file, which means a device that has seen nothing.
    ///
    /// # Errors
    /// When the file is there and cannot be read or opened.
    pub fn load(&self) -> Result<Option<Heads>, LocalError> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_error(&self.path)(e)),
        };
        let damaged = |reason: String| LocalError::Damaged {
            path: self.path.clone(),
            reason,
        };
        let mut r = Reader::new(&bytes);
        if r.raw(MAGIC.len()) != Ok(MAGIC) || r.u8() != Ok(FORMAT_VERSION) {
            return Err(damaged("it is not a file of remembered heads".to_owned()));
        }
        let plain = open(&self.key, &self.aad, r.rest());
        let plain = plain.map_err(|e: OpenError| damaged(e.to_string()))?;
        Heads::from_bytes(&plain)
            .map(Some)
            .map_err(|e| damaged(e.to_string()))
    }

    /// Replaces what was remembered.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn store(&self, heads: &Heads, entropy: &dyn Entropy) -> Result<(), LocalError> {
        let _one = self.writing.lock();
        let mut w = Writer::default();
        w.raw(MAGIC);
        w.u8(FORMAT_VERSION);
        w.raw(&seal(&self.key, &self.aad, &heads.to_bytes(), entropy));
        replace_file(&self.path, &w.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::{CheckpointRef, Opinion};
    use proptest::prelude::*;
    use skrin_base::clock::testutil::SeededEntropy;

    fn file(dir: &Path, key: u8) -> HeadsFile {
        let ids = (VaultId([1; 16]), RoomId([2; 16]), DeviceId([3; 16]));
        HeadsFile::new(
            dir.join("heads"),
            LocalKey::from_bytes([key; 32]),
            ids.0,
            ids.1,
            ids.2,
        )
    }

    fn seen(lane: u8, seq: u64) -> SeenHead {
        SeenHead {
            head: Head {
                lane: LaneId([lane; 16]),
                seq,
                hash: Hash32([7; 32]),
            },
            lamport: seq + 1,
            device: DeviceId([lane; 16]),
            label: "anna-laptop".to_owned(),
            time: Timestamp(1_790_000_000_000_000_000),
            closed: seq.is_multiple_of(2),
            awaited: seq
                .is_multiple_of(3)
                .then_some(Timestamp(1_790_000_000_000_000_001)),
        }
    }

    proptest! {
        #[test]
        fn what_was_stored_is_loaded(lanes in prop::collection::btree_map(any::<u8>(), any::<u32>(), 0..9), counter: u64) {
            let dir = tempfile::tempdir().unwrap();
            let lanes = lanes.iter().map(|(l, s)| (LaneId([*l; 16]), seen(*l, u64::from(*s)))).collect();
            let control = vec![Hash32([counter as u8; 32])];
            let reference = CheckpointRef { name: [3; 16], hash: Hash32([4; 32]), floor: counter };
            let owed = Verdict { opinion: Opinion::Refute, checkpoint: reference, digest: Hash32([5; 32]) };
            let (refuting, unjudged) = (vec![owed], vec![Hash32([6; 32])]);
            let heads = Heads { lanes, control, refuting, unjudged, last_counter: counter, incarnation: 3 };
            prop_assert_eq!(file(dir.path(), 1).load().unwrap(), None);
            file(dir.path(), 1).store(&heads, &SeededEntropy::new(counter)).unwrap();
            prop_assert_eq!(file(dir.path(), 1).load().unwrap(), Some(heads));
        }
    }

    #[test]
    fn a_changed_or_foreign_file_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        file(dir.path(), 1)
            .store(&Heads::default(), &SeededEntropy::new(1))
            .unwrap();
        let foreign = file(dir.path(), 2).load().unwrap_err();
        assert!(foreign.to_string().contains("heads"), "{foreign}");
        let bytes = std::fs::read(dir.path().join("heads")).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            std::fs::write(dir.path().join("heads"), changed).unwrap();
            assert!(
                matches!(file(dir.path(), 1).load(), Err(LocalError::Damaged { .. })),
                "at {at}"
            );
        }
    }

    #[test]
    fn dates_are_written_as_people_read_them() {
        assert_eq!(date(Timestamp(0)), "1970-01-01 00:00 UTC");
        assert_eq!(
            date(Timestamp(951_827_696_000_000_000)),
            "2000-02-29 12:34 UTC"
        );
        assert_eq!(date(Timestamp(-60_000_000_000)), "1969-12-31 23:59 UTC");
    }
}
