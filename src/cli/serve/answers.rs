//! What a mount answers on its control socket.

use std::path::Path;
use std::sync::atomic::Ordering;

use skrin_base::Ino;
use skrin_fs::Shutdown;

use super::{Event, Mounted, NOTED};
use crate::control::{self, LaneStatus, Pending, PinReport, Room, Served};
use crate::exit::{Exit, Failure, Outcome};
use crate::{conflicts, machine, mount_point, past, people, scrub};

impl Served for Mounted {
    fn status(&self) -> control::Status {
        self.note_events();
        let fs = self.fs.status();
        let replica = self.replica.status();
        let scrub = self.scrub.report();
        let scrubbed = scrub.open().map(|f| format!("{}: {}", f.object, f.what));
        let scrubbed: Vec<String> = scrubbed.collect();
        let barred = self.replica.barred().map(|barred| barred.to_string());
        let failed = fs.pending.last_error.clone();
        let failed = failed.filter(|error| Some(error) != barred.as_ref());
        let errors = [barred, failed, fs.poll_error.clone()]
            .into_iter()
            .flatten();
        control::Status {
            mount_point: self.info.point.path().display().to_string(),
            vault: self.info.vault.clone(),
            vault_id: self.info.vault_id.clone(),
            pid: std::process::id(),
            uptime_seconds: self.info.since.elapsed().as_secs(),
            read_only: self.info.read_only
                || self.is_remounted_read_only()
                || self.replica.barred().is_some(),
            reader: self.info.read_only,
            online: match (&fs.poll_error, fs.polled_ago) {
                (Some(_), _) => Some(false),
                (None, Some(_)) => Some(true),
                (None, None) if self.uploaded.load(Ordering::Relaxed) => Some(true),
                (None, None) => self.info.answered,
            },
            pending: self.left(),
            room: Room {
                journal_bytes: fs.room.journal_bytes,
                journal_limit: fs.room.journal_limit,
                operations_limit: fs.room.operations_limit,
                waiting: fs.room.waiting,
            },
            cache_bytes: self.info.cache.as_deref().map_or(0, bytes_below),
            fetched_bytes: self.data.counters().fetched_bytes,
            memory_bytes: resident(),
            key_memory: self.info.key_memory,
            lanes: lanes_of(&replica, self.info.device),
            heads_code: replica.heads_code(),
            errors: errors
                .chain(
                    replica
                        .findings
                        .into_iter()
                        .map(|f| format!("{}: {}", f.object, f.text)),
                )
                .chain(scrubbed)
                .collect(),
            rollbacks: self.info.rollbacks.clone(),
            events: self.watch.all(),
            pinned: self.pins(),
            conflicts: self.fs.conflict_count().unwrap_or_default(),
            scrub,
        }
    }

    fn sync(&self, progress: &mut (dyn FnMut(Pending) + Send)) -> Outcome<Pending> {
        self.upload(progress)?;
        Ok(self.left())
    }

    fn retention(&self, set: Option<u64>) -> Outcome<u64> {
        if let Some(seconds) = set {
            self.fs.note_retention(seconds).map_err(|error| {
                let mut failure = Failure::from(error);
                // That one would say that it is noted.
                if failure.exit == Exit::Unreachable {
                    failure.exit = Exit::Other;
                }
                failure
            })?;
            self.upload(&mut |_| {})
                .map_err(|failure| failure.remedy(NOTED))?;
        }
        Ok(self.fs.retention()?)
    }

    fn scrub(&self, rate: Option<u64>, stop: bool) -> Outcome<scrub::Report> {
        match stop {
            true => self.scrub.stop(),
            false => self.scrub.start(rate),
        }
    }

    fn collect(&self) -> Outcome<control::Collected> {
        // With a bound for a storage that does not answer; a read-only mount has nothing to upload, and is refused below.
        if !self.info.read_only {
            self.upload(&mut |_| {})?;
        }
        let done = self.fs.collect()?;
        Ok(control::Collected {
            mount_point: self.info.point.path().display().to_string(),
            stored_segments: done.stored,
            stored_bytes: done.stored_bytes,
            freed_segments: done.freed,
            freed_bytes: done.freed_bytes,
            kept_segments: done.kept,
            kept_bytes: done.kept_bytes,
            unknown_objects: done.unknown,
            repacked_segments: done.repacked,
            repacked_bytes: done.repacked_bytes,
            held_by: done.holds,
        })
    }

    fn past(&self, request: &past::Request) -> Outcome<past::Answer> {
        // With a bound for a storage that does not answer.
        if !self.info.read_only && !matches!(request, past::Request::Snapshots) {
            self.upload(&mut |_| {})?;
        }
        past::answer(&self.fs, request)
    }

    fn conflicts(&self, request: &conflicts::Request) -> Outcome<conflicts::Answer> {
        conflicts::answer(&self.fs, request, &self.people.owners())
    }

    fn people(&self, request: &people::Request) -> Outcome<people::Answer> {
        self.people.answer(&self.fs, request)
    }

    fn pins(&self) -> PinReport {
        let status = self.fs.pin_status();
        let looked = status.is_some();
        let status = status.unwrap_or_default();
        let paths = self.fs.pins().into_iter().filter_map(|ino| self.path(ino));
        PinReport {
            paths: paths.collect(),
            files: status.files,
            bytes: status.bytes,
            missing_blocks: status.missing_blocks,
            looked,
            error: status.error,
        }
    }

    fn pin(&self, inodes: &[u64], pinned: bool) -> Outcome<PinReport> {
        let Some(file) = &self.pin_file else {
            return Err(Failure::new(
                Exit::Usage,
                "this vault lies in a folder of this machine: everything in it is here already",
            ));
        };
        let _changing = file.changing();
        let mut pins = self.fs.pins();
        for ino in inodes.iter().map(|n| Ino(*n)) {
            let known = if pinned {
                pins.insert(ino);
                self.path(ino).is_some()
            } else {
                pins.remove(&ino)
            };
            if !known {
                let what = match pinned {
                    true => "one of these paths is not there any more",
                    false => "one of these paths is not pinned by itself",
                };
                return Err(Failure::new(Exit::Absent, what)
                    .remedy("nothing was changed; `skrin pin --list` shows what is pinned"));
            }
        }
        // What was removed for good is forgotten.
        pins.retain(|ino| self.path(*ino).is_some());
        file.store(&pins)?;
        self.fs.pin(pins);
        Ok(self.pins())
    }

    fn unmount(
        &self,
        now: bool,
        lazy: bool,
        progress: &mut (dyn FnMut(Pending) + Send),
    ) -> Outcome<Pending> {
        if !now && !self.info.read_only {
            self.upload(progress)?;
        }
        if lazy {
            mount_point::detach(self.info.point.path(), true)?;
            return Ok(self.left());
        }
        self.let_go()?;
        let how = match now || self.info.read_only {
            true => Shutdown::LeaveInJournal,
            // What was written since the sync above is little; closing the lane tells the other devices.
            false => Shutdown::UploadAll {
                progress: Box::new(|_| {}),
            },
        };
        let down = self.shut_down(how);
        let left = self.left();
        self.is_down.store(true, Ordering::Release);
        // Whoever asked finds it gone.
        self.info.point.remove();
        down.map(|()| left)
    }

    fn answered(&self) {
        // Who comes second is answered while the first still waits.
        if self.is_down.load(Ordering::Acquire) {
            let _ = self.ended.send(Event::Ended);
        }
    }
}

fn lanes_of(status: &skrin_meta::replica::Status, own: skrin_base::DeviceId) -> Vec<LaneStatus> {
    let newest = status.newest_by_device().into_iter();
    newest
        .map(|lane| LaneStatus {
            lane: lane.lane.to_string(),
            device: lane.label.clone(),
            commit: lane.seq,
            time: machine::date(lane.time),
            own: lane.device == own,
        })
        .collect()
}

/// proc_pid_statm(5): the second field is resident pages; 0 on systems that have no such file.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text
        .split(' ')
        .nth(1)
        .and_then(|field| field.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
