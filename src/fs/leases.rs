//! Lock files of office suites as leases (docs/adr/0014): ordinary files, which the device of their maker renews while the program lives, and which
//! others remove when that has not happened for long. They carry an attribute, so that a copy of a lock file is none.

use crate::core::Fs;
use crate::error::FsError;
use crate::types::NodeId;
use parking_lot::Mutex;
use skrin_base::{Ino, Name, OpId, Timestamp};
use skrin_meta::OpKind;
use skrin_meta::replica::{MergeDiff, TreeGuard};
use skrin_meta::state::{self, Inode};
use std::collections::HashMap;

/// The attribute that a lease has: its maker's process, start and boot, which mean something on its device only.
const LEASE: &[u8] = b"user.skrin.lease";
/// Who gives a lock file a time that long ago copies it.
const PAST: i64 = 60_000_000_000;

/// Whether programs lock a document by a file of this name: `.~lock.NAME#` (LibreOffice, ONLYOFFICE) and `~$NAME` (Microsoft Office).
pub fn is_lock(name: &[u8]) -> bool {
    let libre = name.starts_with(b".~lock.") && name.ends_with(b"#");
    libre || name.len() > 2 && name.starts_with(b"~$")
}

/// A process, as far as it can be told from one that gets its number later.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Process {
    pid: u32,
    started: String,
    boot: String,
}

impl Process {
    /// The process that a thread belongs to; `None` if it cannot be seen from here.
    fn of(thread: u32) -> Option<Self> {
        let pid = process_of(thread)?;
        Some(Self {
            pid,
            started: started(pid)?,
            boot: boot()?,
        })
    }

    fn lives(&self) -> bool {
        started(self.pid).is_some_and(|started| started == self.started)
    }

    /// From the attribute of a lease that this device made, in this life of the machine.
    fn parse(value: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(value).ok()?.split(' ');
        let process = Self {
            pid: words.next()?.parse().ok()?,
            started: words.next()?.to_owned(),
            boot: words.next()?.to_owned(),
        };
        (boot()? == process.boot).then_some(process)
    }
}

/// The number of the process that a thread belongs to; `None` if it cannot be seen from here.
pub(crate) fn process_of(thread: u32) -> Option<u32> {
    let status = read(&format!("/proc/{thread}/status"))?;
    let group = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    group.trim().parse().ok()
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn boot() -> Option<String> {
    Some(read("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// When a process began, in ticks since the machine did; `None` when it has ended.
fn started(pid: u32) -> Option<String> {
    let stat = read(&format!("/proc/{pid}/stat"))?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let ended = matches!(fields.next()?, "Z" | "X");
    fields.nth(18).filter(|_| !ended).map(str::to_owned)
}

/// Lock files are shorter: two hundred bytes.
const LOCK_MAX: u64 = 1024;

/// Who has a lock file.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Holder {
    /// A process of this machine.
    Here(Process),
    /// One of this mount that cannot be seen: for as long as the mount lives.
    Unseen,
    /// Another device, or nobody any more.
    Away,
}

#[derive(Clone)]
struct Lease {
    dir: Ino,
    name: Name,
    holder: Holder,
    /// Its contents, which each renewal makes anew, and since when this mount knows them, on the monotonic clock.
    version: OpId,
    since: u64,
}

/// The leases that this mount has seen. Its locks are leaves.
#[derive(Default)]
pub(crate) struct Leases {
    known: Mutex<HashMap<Ino, Lease>>,
    /// What the kernel has still to be told: of lock files that ended while it looked for them, and of what this device brought about itself
    /// in a request for which the kernel holds a directory.
    untold: Mutex<MergeDiff>,
}

impl Leases {
    pub(crate) fn knows(&self, ino: Ino) -> bool {
        self.known.lock().contains_key(&ino)
    }

    pub(crate) fn forget(&self, ino: Ino) {
        self.known.lock().remove(&ino);
    }
}

/// What becomes of a lease now.
enum Turn {
    Stay,
    Forget,
    /// Its contents are new.
    Renewed(OpId, bool),
    Renew,
    /// It is this file now, which is to be one.
    Again(Ino),
    /// It goes, from where it is.
    Remove(Ino, Name, OpId),
}

impl Fs {
    /// A program made a lock file.
    pub(crate) fn lease(&self, ino: Ino, thread: u32) -> Result<(), FsError> {
        let holder = Process::of(thread).map_or(Holder::Unseen, Holder::Here);
        self.mark(ino, holder)
    }

    /// Makes a file a lease of this device.
    fn mark(&self, ino: Ino, holder: Holder) -> Result<(), FsError> {
        let value = match &holder {
            Holder::Here(p) => format!("{} {} {}", p.pid, p.started, p.boot),
            Holder::Unseen | Holder::Away => "unknown".to_owned(),
        };
        let mut tree = self.replica.tree();
        let inode = state::inode(&tree, ino)?;
        let Some((inode, link)) = inode.and_then(|i| i.links.first().cloned().map(|l| (i, l)))
        else {
            return Ok(());
        };
        let attribute = OpKind::SetXattr {
            ino,
            name: LEASE.to_vec(),
            value: value.into_bytes(),
        };
        self.execute(&mut tree, attribute)?;
        let lease = Lease {
            dir: link.dir,
            name: link.name,
            holder,
            version: inode.version,
            since: self.clock.monotonic(),
        };
        self.leases.known.lock().insert(ino, lease);
        Ok(())
    }

    /// Takes note of a lock file, if the name leads to one.
    pub(crate) fn watch(&self, tree: &TreeGuard<'_>, dir: Ino, name: &Name) -> Result<(), FsError> {
        let Some(entry) = state::entry(tree, dir, name)?.filter(|_| is_lock(name.as_bytes()))
        else {
            return Ok(());
        };
        let ino = entry.ino;
        let value = state::xattr(tree, ino, LEASE)?;
        let (Some(value), Some(inode)) = (value, state::inode(tree, ino)?) else {
            return Ok(());
        };
        let mine = inode.version.device == tree.device();
        // From before this mount: its program may live still.
        let process = mine.then(|| Process::parse(&value)).flatten();
        let lease = Lease {
            dir,
            name: name.clone(),
            holder: process.map_or(Holder::Away, Holder::Here),
            version: inode.version,
            since: self.clock.monotonic(),
        };
        self.leases.known.lock().entry(ino).or_insert(lease);
        Ok(())
    }

    /// Whoever looks for the lock file of a program of this machine that has ended does not find it: to go while a program reads what it found
    /// would tell that program that it cannot lock. Holds no lock of the file system when it begins.
    pub(crate) fn end_if_dead(&self, dir: Ino, name: &Name) -> Result<(), FsError> {
        let ino = {
            let tree = self.replica.tree();
            self.watch(&tree, dir, name)?;
            state::entry(&tree, dir, name)?.map(|entry| entry.ino)
        };
        let Some(ino) = ino.filter(|_| self.check_writable().is_ok()) else {
            return Ok(());
        };
        // Once more where its maker wrote it since it was noted.
        for _ in 0..2 {
            let lease = self.leases.known.lock().get(&ino).cloned();
            let dead =
                |lease: &Lease| matches!(&lease.holder, Holder::Here(process) if !process.lives());
            let Some(lease) = lease.filter(dead) else {
                break;
            };
            match self.turn(ino, &lease)? {
                Turn::Remove(dir, name, version) => {
                    let diff = self.end_lease(ino, dir, name, version)?;
                    // Not now: the kernel holds the directory while it waits for the look-up.
                    self.leases.untold.lock().extend(diff);
                    break;
                }
                renewed @ Turn::Renewed(..) => self.take_turn(ino, renewed)?,
                _ => break,
            }
        }
        Ok(())
    }

    /// The kernel is told soon that these names are others than it may know. Not now: it may hold their directories.
    pub(crate) fn tell_names(&self, names: impl IntoIterator<Item = (Ino, Name)>) {
        let mut untold = self.leases.untold.lock();
        untold.extend(MergeDiff {
            entries: names.into_iter().collect(),
            ..MergeDiff::default()
        });
    }

    /// Whoever gives a lock file a time of long ago copies a tree: that is no lease.
    pub(crate) fn unlease_if_copied(
        &self,
        ino: Ino,
        mtime: Option<Timestamp>,
    ) -> Result<(), FsError> {
        let old = |at: Timestamp| at.0 < self.now().0.saturating_sub(PAST);
        if !mtime.is_some_and(old) || !self.leases.knows(ino) {
            return Ok(());
        }
        self.leases.forget(ino);
        let name = LEASE.to_vec();
        self.commit(|_| Ok(OpKind::RemoveXattr { ino, name }))
            .map(drop)
    }

    /// Renews the leases of this device, withdraws those that another device has as well, and removes those that nobody renews. Holds no lock of
    /// the file system when it begins.
    pub fn keep_leases(&self) {
        let untold = std::mem::take(&mut *self.leases.untold.lock());
        if !untold.is_empty()
            && let Err(error) = self.invalidate(untold)
        {
            tracing::debug!(%error, "the kernel was not told of names that came or went");
        }
        if self.check_writable().is_err() {
            return;
        }
        let all: Vec<(Ino, Lease)> = {
            let known = self.leases.known.lock();
            known
                .iter()
                .map(|(ino, lease)| (*ino, lease.clone()))
                .collect()
        };
        for (ino, lease) in all {
            let kept = self
                .turn(ino, &lease)
                .and_then(|turn| self.take_turn(ino, turn));
            if let Err(error) = kept {
                tracing::debug!(ino = ino.0, %error, "a lock file cannot be kept now");
            }
        }
    }

    fn turn(&self, ino: Ino, lease: &Lease) -> Result<Turn, FsError> {
        // Before the tree: see `polled`.
        let looked = self.polled().at;
        let tree = self.replica.tree();
        let inode = state::inode(&tree, ino)?;
        let Some((inode, link)) = inode.as_ref().and_then(|i| Some((i, i.links.first()?))) else {
            return Ok(match state::entry(&tree, lease.dir, &lease.name)? {
                // Another device removed it, and a renewal brought it back.
                Some(entry) if lease.holder != Holder::Away => Turn::Again(entry.ino),
                _ => Turn::Forget,
            });
        };
        let mine = inode.version.device == tree.device();
        // What is larger, or has another kind of name by now, is somebody's work, whatever it was called.
        let is_lock = inode.size <= LOCK_MAX && is_lock(link.name.as_bytes());
        let gone = || match is_lock {
            true => Turn::Remove(link.dir, link.name.clone(), inode.version),
            false => Turn::Forget,
        };
        if (link.dir, &link.name) != (lease.dir, &lease.name) {
            // A rename by a program is not watched any more: the merge gave the name to another's lock file.
            return Ok(match mine {
                true => gone(),
                false => Turn::Forget,
            });
        }
        if state::xattr(&tree, ino, LEASE)?.is_none() && lease.holder != Holder::Away {
            return Ok(Turn::Again(ino));
        }
        if inode.version != lease.version {
            return Ok(Turn::Renewed(inode.version, mine));
        }
        let told = |first: u64| first > inode.version.counter;
        let told = tree.first_pending().is_none_or(told);
        Ok(match &lease.holder {
            Holder::Here(process) if !process.lives() => gone(),
            Holder::Here(_) | Holder::Unseen if told && self.is_older(lease, 3) => Turn::Renew,
            Holder::Away if self.is_unrenewed(lease, looked) => gone(),
            _ => Turn::Stay,
        })
    }

    /// Whether a part of the life of a lease is over.
    fn is_older(&self, lease: &Lease, part: u32) -> bool {
        let age = self.clock.monotonic().saturating_sub(lease.since);
        u128::from(age) >= (self.options.lease / part).as_nanos()
    }

    /// Whether a look at the storage after all of its life found nothing new.
    fn is_unrenewed(&self, lease: &Lease, looked: Option<u64>) -> bool {
        let life = u64::try_from(self.options.lease.as_nanos()).unwrap_or(u64::MAX);
        self.is_older(lease, 1) && looked.is_some_and(|at| at >= lease.since.saturating_add(life))
    }

    fn take_turn(&self, ino: Ino, turn: Turn) -> Result<(), FsError> {
        match turn {
            Turn::Stay => Ok(()),
            Turn::Again(now) => self.take_again(ino, now),
            Turn::Forget => {
                self.leases.forget(ino);
                Ok(())
            }
            Turn::Renewed(version, mine) => {
                if let Some(lease) = self.leases.known.lock().get_mut(&ino) {
                    (lease.version, lease.since) = (version, self.clock.monotonic());
                    if !mine {
                        lease.holder = Holder::Away;
                    }
                }
                Ok(())
            }
            Turn::Renew => self.renew(ino),
            Turn::Remove(dir, name, version) => {
                let diff = self.end_lease(ino, dir, name, version)?;
                self.invalidate(diff)
            }
        }
    }

    /// A removal took the attribute along, and perhaps the number.
    fn take_again(&self, ino: Ino, now: Ino) -> Result<(), FsError> {
        let lease = self.leases.known.lock().remove(&ino);
        let mine = {
            let tree = self.replica.tree();
            let inode = state::inode(&tree, now)?;
            inode.is_some_and(|inode| inode.version.device == tree.device())
        };
        match lease.filter(|_| mine) {
            Some(lease) => self.mark(now, lease.holder),
            None => Ok(()),
        }
    }

    /// Tells the same contents once more. A removal that saw the old ones does not count then.
    fn renew(&self, ino: Ino) -> Result<(), FsError> {
        let open = || self.open_file(self.nodes.current(ino));
        let file = match open() {
            // It has another node since.
            Err(FsError::Stale) => open()?,
            opened => opened?,
        };
        let told = {
            let mut state = file.state.lock();
            if !state.content.is_modified() {
                state.mtime = Some(state.inode.mtime);
                state.content.touch();
            }
            self.flush_state(&file, &mut state)
        };
        told.and(self.close_file(&file))
    }

    /// What the kernel is to be told of it.
    fn end_lease(
        &self,
        ino: Ino,
        dir: Ino,
        name: Name,
        version: OpId,
    ) -> Result<MergeDiff, FsError> {
        let unchanged = |inode: &Inode| inode.version == version;
        match self.unlink_if(NodeId(dir.0), name.clone(), |entry, inode| {
            entry == ino && unchanged(inode)
        }) {
            Err(FsError::NotFound) => return Ok(MergeDiff::default()),
            done => done?,
        }
        tracing::info!("a lock file that nobody holds any more was removed");
        Ok(MergeDiff {
            inodes: [ino].into(),
            entries: [(dir, name)].into(),
            ..MergeDiff::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_files_are_known_by_their_names() {
        for lock in [".~lock.report.docx#", "~$report.docx", "~$port.docx"] {
            assert!(is_lock(lock.as_bytes()), "{lock}");
        }
        for other in ["report.docx", "~$", ".~lock.report.docx", "~WRD0001.tmp"] {
            assert!(!is_lock(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_process_is_known_again_until_it_has_ended() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = Process::of(child.id()).unwrap();
        let value = format!("{} {} {}", process.pid, process.started, process.boot);
        assert_eq!(Process::parse(value.as_bytes()), Some(process.clone()));
        assert!(process.lives());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!process.lives());
        assert_eq!(Process::parse(b"17 4 another-boot"), None);
    }
}
