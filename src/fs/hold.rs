//! What is not published by itself yet: programs save in several steps, and other devices shall see the first only with the last.
//!
//! A file that is being made is held until its contents are told, a name that was given up until something has it again, each for a moment.
//! Operations are published in their order, so all that comes behind waits as well.

use parking_lot::Mutex;
use skrin_base::{Ino, Name};
use std::collections::{BTreeMap, HashMap};

/// A new file is told after five seconds at the latest, and a second of housekeeping.
const MADE: u64 = 7_000_000_000;
/// A new file that was closed without contents may be about to get some: so much longer.
const EMPTY: u64 = 2_000_000_000;
/// A name that was given up may be about to be given away again.
const LEFT: u64 = 1_000_000_000;
/// Of more the oldest are let go.
const HELD_MAX: usize = 4096;

enum What {
    File(Ino),
    Name(Ino, Name),
}

struct Hold {
    what: What,
    /// On the monotonic clock.
    until: u64,
    /// The operation that goes along with this one.
    end: Option<u64>,
}

#[derive(Default)]
struct State {
    /// By the number of the first operation.
    ops: BTreeMap<u64, Hold>,
    files: HashMap<Ino, u64>,
    names: HashMap<(Ino, Name), u64>,
}

impl State {
    fn add(&mut self, counter: u64, hold: Hold) {
        while self.ops.len() >= HELD_MAX {
            let Some((oldest, _)) = self.ops.first_key_value() else {
                break;
            };
            self.let_go(*oldest);
        }
        match &hold.what {
            What::File(ino) => self.files.insert(*ino, counter),
            What::Name(dir, name) => self.names.insert((*dir, name.clone()), counter),
        };
        self.ops.insert(counter, hold);
    }

    fn let_go(&mut self, counter: u64) {
        match self.ops.remove(&counter).map(|hold| hold.what) {
            Some(What::File(ino)) => {
                self.files.retain_unless(&ino, counter);
            }
            Some(What::Name(dir, name)) => {
                self.names.retain_unless(&(dir, name), counter);
            }
            None => {}
        }
    }

    fn end(&mut self, counter: Option<u64>, with: u64) {
        if let Some(hold) = counter.and_then(|counter| self.ops.get_mut(&counter)) {
            hold.end.get_or_insert(with);
            // What ends it may wait itself.
            hold.until = hold.until.saturating_add(MADE);
        }
    }
}

/// Takes out a value that is the one given; a later one stays.
trait RetainUnless<K> {
    fn retain_unless(&mut self, key: &K, value: u64);
}

impl<K: std::hash::Hash + Eq> RetainUnless<K> for HashMap<K, u64> {
    fn retain_unless(&mut self, key: &K, value: u64) {
        if self.get(key) == Some(&value) {
            self.remove(key);
        }
    }
}

/// Operations that wait for later ones. Its lock is a leaf.
#[derive(Default)]
pub(crate) struct Holds(Mutex<State>);

impl Holds {
    /// A file was made and is open.
    pub(crate) fn file_made(&self, ino: Ino, counter: u64, now: u64) {
        let hold = Hold {
            what: What::File(ino),
            until: now.saturating_add(MADE),
            end: None,
        };
        self.0.lock().add(counter, hold);
    }

    /// Its contents were told, or it lost its name.
    pub(crate) fn file_told(&self, ino: Ino, counter: u64) {
        let mut state = self.0.lock();
        let first = state.files.remove(&ino);
        state.end(first, counter);
    }

    /// It was closed, and nothing is left to tell.
    pub(crate) fn file_closed(&self, ino: Ino, now: u64) {
        let mut state = self.0.lock();
        let first = state.files.get(&ino).copied();
        if let Some(hold) = first.and_then(|counter| state.ops.get_mut(&counter)) {
            hold.until = hold.until.min(now.saturating_add(EMPTY));
        }
    }

    /// What had the name was removed or renamed.
    pub(crate) fn name_left(&self, dir: Ino, name: &Name, counter: u64, now: u64) {
        let hold = Hold {
            what: What::Name(dir, name.clone()),
            until: now.saturating_add(LEFT),
            end: None,
        };
        self.0.lock().add(counter, hold);
    }

    /// Something has the name again.
    pub(crate) fn name_taken(&self, dir: Ino, name: &Name, counter: u64) {
        let mut state = self.0.lock();
        if state.names.is_empty() {
            return;
        }
        let first = state.names.remove(&(dir, name.clone()));
        state.end(first, counter);
    }

    /// The number of the first operation that waits, if nothing from `cut` on is published either way.
    pub(crate) fn limit(&self, now: u64, cut: u64) -> u64 {
        let mut state = self.0.lock();
        let over = state.ops.iter().filter(|(_, hold)| hold.until <= now);
        let over: Vec<u64> = over.map(|(counter, _)| *counter).collect();
        over.into_iter().for_each(|counter| state.let_go(counter));
        let mut limit = cut;
        for (counter, hold) in state.ops.range(..cut).rev() {
            if hold.end.is_none_or(|end| end >= limit) {
                limit = *counter;
            }
        }
        limit
    }

    /// Everything up to that operation is on the storage.
    pub(crate) fn published(&self, upto: u64) {
        let mut state = self.0.lock();
        while let Some((counter, _)) = state.ops.first_key_value()
            && *counter <= upto
        {
            let counter = *counter;
            state.let_go(counter);
        }
    }
}

/// Whether a program that saves a document makes a file of this name for a moment: it is not told when it is closed, but when it is renamed or
/// synced, or after five seconds, so that what is removed before is never stored.
pub(crate) fn is_passing(name: &[u8]) -> bool {
    let ends = |end: &[u8]| {
        let tail = name
            .len()
            .checked_sub(end.len())
            .and_then(|at| name.get(at..));
        tail.is_some_and(|tail| tail.eq_ignore_ascii_case(end))
    };
    // LibreOffice and Microsoft Office (lu*.tmp, ~WRD*.tmp, 1A2B3C4D.tmp), GIO, copies before a save.
    ends(b".tmp") || ends(b"~") || name.starts_with(b".goutputstream-")
}

/// Whether the directory is one in which macOS makes the new version of a document before it takes the place of the old.
pub(crate) fn is_passing_dir(name: &[u8]) -> bool {
    name.windows(4).any(|part| part == b".sb-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_file_is_published_with_its_contents_or_not_at_all() {
        let holds = Holds::default();
        holds.file_made(Ino(20), 5, 0);
        assert_eq!(holds.limit(1, 100), 5);
        holds.file_told(Ino(20), 8);
        assert_eq!(holds.limit(1, 100), 100);
        // A cut between the two comes before the first.
        assert_eq!(holds.limit(1, 8), 5);
        // One that is not told yet holds back another that began before it and ended behind it.
        holds.file_made(Ino(21), 7, 0);
        assert_eq!(holds.limit(1, 100), 5);
        assert_eq!(holds.limit(2 * MADE, 100), 100);
    }

    #[test]
    fn a_name_that_is_given_up_waits_a_moment_for_what_has_it_next() {
        let holds = Holds::default();
        holds.name_left(Ino(1), &name("doc"), 5, 0);
        assert_eq!(holds.limit(1, 9), 5);
        holds.name_taken(Ino(1), &name("doc"), 7);
        assert_eq!((holds.limit(1, 9), holds.limit(1, 7)), (9, 5));
        // That waits for its contents, however long the name alone would have waited.
        holds.file_made(Ino(20), 7, 0);
        assert_eq!(holds.limit(LEFT + 1, 9), 5);
        holds.file_told(Ino(20), 8);
        assert_eq!(holds.limit(LEFT + 1, 9), 9);
        holds.name_left(Ino(1), &name("doc"), 9, 0);
        assert_eq!(holds.limit(LEFT, 10), 10);
        holds.published(9);
        assert!(holds.0.lock().ops.is_empty());
    }

    #[test]
    fn a_file_that_was_closed_empty_waits_two_seconds_and_very_many_do_not_wait() {
        let holds = Holds::default();
        holds.file_made(Ino(20), 5, 0);
        holds.file_closed(Ino(20), 0);
        assert_eq!((holds.limit(1, 9), holds.limit(EMPTY, 9)), (5, 9));
        for n in 0..2 * HELD_MAX as u64 {
            holds.file_made(Ino(100 + n), 100 + n, 0);
        }
        assert_eq!(holds.0.lock().files.len(), HELD_MAX);
    }

    #[test]
    fn names_that_suites_make_for_a_moment_are_known() {
        for passing in [
            "lu9995f1m0z.tmp",
            "~WRD0001.TMP",
            "report.docx~",
            ".goutputstream-ABC123",
        ] {
            assert!(is_passing(passing.as_bytes()), "{passing}");
        }
        for lasting in ["report.docx", "tmp", "a.tmp.docx", ".~lock.report.docx#"] {
            assert!(!is_passing(lasting.as_bytes()), "{lasting}");
        }
        assert!(is_passing_dir(b"report.rtf.sb-5a2e-XyZ") && !is_passing_dir(b"sub"));
    }
}
