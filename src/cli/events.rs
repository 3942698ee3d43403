//! What befell the vault as this device saw it: damage that was found and what of it was put again, rollbacks, mounts that were refused,
//! copies of the device. A sealed file of the state directory, so that it can still be read when the mount that met it has ended.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use skrin_base::{Clock, VaultId};
use skrin_vault::{Device, Unlocked};

use crate::exit::{Exit, Failure, Outcome};
use crate::machine::{SystemClock, date};
use crate::sealed::SealedFile;
use crate::unlock;

/// The file in a state directory.
const PURPOSE: &str = "events";
/// Where one is moved that does not open.
const ASIDE: &str = "events.damaged";
/// Events that are kept.
const KEPT: usize = 256;
/// Longest text of one, in characters.
const TEXT_MAX: usize = 512;
/// The same event within so many nanoseconds is counted once: programs read again and again, and mounts are tried again.
const QUIET: i64 = 60_000_000_000;

/// The vault could not be mounted, because it is not what this device knows.
pub(crate) const MOUNT_REFUSED: &str = "mount-refused";
/// Somebody decided to go on with what a storage shows that went back.
pub(crate) const ROLLBACK_ACCEPTED: &str = "rollback-accepted";
/// The journal on this disk is not what was written.
pub(crate) const JOURNAL_DAMAGED: &str = "journal-damaged";
/// The list of events was not what was written, and began anew.
pub(crate) const EVENTS_DAMAGED: &str = "events-damaged";
/// What an event is about that is about no object.
pub(crate) const VAULT: &str = "vault";

/// One event. With `--json` these names are a stable interface: fields are added, never renamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// One of the kinds of findings, or one of those above.
    pub(crate) kind: String,
    pub(crate) object: String,
    pub(crate) what: String,
    /// Whether it was put again.
    pub(crate) repaired: bool,
    /// When it was seen first.
    pub(crate) first: String,
    /// When it was seen last.
    pub(crate) last: String,
    /// How often.
    pub(crate) times: u64,
}

impl Event {
    fn is_same(&self, other: &Self) -> bool {
        (&self.kind, &self.object, &self.what, self.repaired)
            == (&other.kind, &other.object, &other.what, other.repaired)
    }

    /// In one line.
    pub(crate) fn line(&self) -> String {
        let Self {
            kind,
            object,
            what,
            first,
            last,
            times,
            ..
        } = self;
        let end = match self.repaired {
            true => "; it was put again",
            false => "",
        };
        let often = match times {
            0 | 1 => String::new(),
            n => format!(" ({n} times since {first})"),
        };
        format!("{last}: {object}: {what} [{kind}]{end}{often}")
    }
}

/// The events, in the order in which they were seen last, each with when that was.
#[derive(Default)]
struct List {
    entries: Vec<(i64, Event)>,
    /// Whether something is not written down.
    changed: bool,
    /// Whether it was said that it cannot be.
    failed: bool,
}

impl List {
    fn take(&mut self, now: i64, mut event: Event) {
        let known = self
            .entries
            .iter()
            .position(|(_, known)| known.is_same(&event));
        if let Some(at) = known {
            let (last, known) = self.entries.remove(at);
            if (0..QUIET).contains(&now.saturating_sub(last)) {
                self.entries.insert(at, (last, known));
                return;
            }
            event.first = known.first;
            event.times = known.times.saturating_add(1);
        }
        self.entries.push((now, event));
        while self.entries.len() > KEPT {
            self.forget_one();
        }
        self.changed = true;
    }

    /// The oldest of the kind of which there are most: who damages very much does not push out everything else.
    fn forget_one(&mut self) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, event) in &self.entries {
            *counts.entry(&event.kind).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        let most = most.map(|(kind, _)| kind.to_owned());
        let is_one = |entry: &(i64, Event)| most.as_ref() == Some(&entry.1.kind);
        if let Some(at) = self.entries.iter().position(is_one) {
            self.entries.remove(at);
        }
    }
}

/// The events of a device.
pub(crate) struct EventLog {
    file: SealedFile,
    clock: Arc<dyn Clock>,
    list: Mutex<List>,
    /// Held by who writes the file.
    writing: Mutex<()>,
}

impl EventLog {
    /// Those in a state directory. A file that does not open is moved aside and told as an event; it keeps nobody from his files.
    pub(crate) fn open(state_dir: &Path, device: &Device, vault: VaultId) -> Arc<Self> {
        let file = SealedFile::new(state_dir, PURPOSE, device, vault);
        Arc::new(Self::of(file, Arc::new(SystemClock)))
    }

    fn of(file: SealedFile, clock: Arc<dyn Clock>) -> Self {
        let read = read(&file);
        let log = Self {
            file,
            clock,
            list: Mutex::default(),
            writing: Mutex::default(),
        };
        match read {
            Ok(entries) => log.list.lock().entries = entries,
            Err(failure) => log.begin_anew(&failure),
        }
        log
    }

    fn begin_anew(&self, failure: &Failure) {
        let path = self.file.path();
        if let Err(error) = std::fs::rename(path, path.with_file_name(ASIDE)) {
            tracing::warn!(%error, "the list of events cannot be moved aside");
        }
        self.note(EVENTS_DAMAGED, PURPOSE, failure, false);
    }

    /// Takes something in; `store` writes it down.
    pub(crate) fn note(
        &self,
        kind: &str,
        object: impl Display,
        what: impl Display,
        repaired: bool,
    ) {
        let now = self.clock.now();
        let event = Event {
            kind: kind.to_owned(),
            object: cut(object),
            what: cut(what),
            repaired,
            first: date(now),
            last: date(now),
            times: 1,
        };
        self.list.lock().take(now.0, event);
    }

    /// Writes down what is new. Where that fails it is tried again by the next who stores.
    pub(crate) fn store(&self) {
        let _writing = self.writing.lock();
        let entries = {
            let mut list = self.list.lock();
            if !std::mem::take(&mut list.changed) {
                return;
            }
            list.entries.clone()
        };
        let written = serde_json::to_vec(&entries).map_err(std::io::Error::other);
        let written = written.and_then(|plain| self.file.store(&plain));
        let mut list = self.list.lock();
        let failed_before = std::mem::replace(&mut list.failed, written.is_err());
        if let Err(error) = written {
            list.changed = true;
            if !failed_before {
                tracing::warn!(%error, "what was found cannot be written down");
            }
        }
    }

    /// All of them, the newest last.
    pub(crate) fn all(&self) -> Vec<Event> {
        let list = self.list.lock();
        list.entries
            .iter()
            .map(|(_, event)| event.clone())
            .collect()
    }

    /// Writes down at once that the vault could not be mounted, if that is because of what it is.
    pub(crate) fn refused(&self, failure: &Failure) {
        // Busy is the copy of a device.
        if matches!(failure.exit, Exit::Integrity | Exit::Busy) {
            self.note(MOUNT_REFUSED, VAULT, failure, false);
            self.store();
        }
    }

    /// The same events, for the device that takes the place of this one and has another directory.
    pub(crate) fn pass_on(&self, state_dir: &Path, device: &Device, vault: VaultId) {
        let heir = Self {
            file: SealedFile::new(state_dir, PURPOSE, device, vault),
            clock: Arc::clone(&self.clock),
            list: Mutex::new(List {
                entries: self.list.lock().entries.clone(),
                changed: true,
                failed: false,
            }),
            writing: Mutex::default(),
        };
        heir.store();
    }
}

/// The events of the device that a state directory has, if it has one that opens.
pub(crate) fn of_known(state_dir: &Path, unlocked: &Unlocked) -> Option<Arc<EventLog>> {
    let device = unlock::known_device(unlocked, state_dir).ok().flatten()?;
    Some(EventLog::open(state_dir, &device, unlocked.vault()))
}

fn read(file: &SealedFile) -> Outcome<Vec<(i64, Event)>> {
    match file.load()? {
        Some(plain) => serde_json::from_slice(&plain).map_err(|_| file.damaged()),
        None => Ok(Vec::new()),
    }
}

fn cut(text: impl Display) -> String {
    let text = text.to_string();
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}\u{2026}", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicI64, Ordering};

    use skrin_base::Timestamp;
    use skrin_crypto::LocalKey;

    use super::*;

    const DAY: i64 = 86_400_000_000_000;

    #[derive(Default)]
    struct Hand(AtomicI64);

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::Relaxed))
        }
        fn monotonic(&self) -> u64 {
            0
        }
    }

    fn log(dir: &Path, hand: &Arc<Hand>) -> EventLog {
        let key = LocalKey::from_bytes([3; 32]);
        let file = SealedFile::with_key(dir, PURPOSE, key, VaultId([1; 16]));
        EventLog::of(file, Arc::clone(hand) as Arc<dyn Clock>)
    }

    #[test]
    fn an_event_that_comes_again_is_counted_and_stands_last_with_both_dates() {
        let dir = tempfile::tempdir().unwrap();
        let hand = Arc::new(Hand::default());
        let first = log(dir.path(), &hand);
        first.note("slot-damaged", "slots/1", "is not what was written", false);
        first.note("slot-missing", "slots/2", "is missing", false);
        first.store();
        drop(first);
        hand.0.store(DAY, Ordering::Relaxed);
        let second = log(dir.path(), &hand);
        for _ in 0..3 {
            second.note("slot-damaged", "slots/1", "is not what was written", false);
        }
        second.note("slot-damaged", "slots/1", "is not what was written", true);
        second.store();
        let all = log(dir.path(), &hand).all();
        let [missing, again, put] = &all[..] else {
            panic!("{all:?}");
        };
        assert_eq!((missing.times, missing.object.as_str()), (1, "slots/2"));
        assert_eq!((again.times, again.repaired), (2, false));
        assert_eq!(
            again.line(),
            "1970-01-02 00:00:00 UTC: slots/1: is not what was written [slot-damaged] (2 times since 1970-01-01 00:00:00 UTC)"
        );
        assert_eq!((put.times, put.repaired), (1, true));
        assert!(put.line().ends_with("; it was put again"));
    }

    #[test]
    fn very_much_of_one_kind_is_forgotten_before_anything_else() {
        let dir = tempfile::tempdir().unwrap();
        let hand = Arc::new(Hand::default());
        let log = log(dir.path(), &hand);
        log.note(ROLLBACK_ACCEPTED, VAULT, "long ago", false);
        for n in 0..1000 {
            log.note("segment-missing", n, "x".repeat(10_000), false);
        }
        let all = log.all();
        assert_eq!(all.len(), KEPT);
        assert_eq!(all[0].kind, ROLLBACK_ACCEPTED);
        assert_eq!(all[KEPT - 1].object, "999");
        let longest = all.iter().map(|event| event.what.chars().count()).max();
        assert_eq!(longest, Some(TEXT_MAX + 1));
    }

    #[test]
    fn the_file_is_private_and_sealed_and_one_that_does_not_open_is_moved_aside_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let hand = Arc::new(Hand::default());
        let first = log(dir.path(), &hand);
        first.note(MOUNT_REFUSED, VAULT, "written by anna", false);
        first.store();
        let path = dir.path().join(PURPOSE);
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(4).any(|four| four == b"anna"));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let second = log(dir.path(), &hand);
        let all = second.all();
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(all[0].kind, EVENTS_DAMAGED);
        assert!(dir.path().join(ASIDE).exists() && !path.exists());
        second.store();
        assert_eq!(log(dir.path(), &hand).all(), all);
    }

    #[test]
    fn every_kind_of_event_that_is_no_finding_is_on_the_page() {
        let page = include_str!("../../docs/findings.md");
        for kind in [
            MOUNT_REFUSED,
            ROLLBACK_ACCEPTED,
            JOURNAL_DAMAGED,
            EVENTS_DAMAGED,
        ] {
            assert!(page.contains(&format!("- `{kind}`")), "{kind}");
        }
    }
}
