//! A slow look at everything that lies on the storage, beside a mount: each object is read from the storage and authenticated, at a
//! bounded rate and behind everything that somebody waits for. Where it stands is kept in the state directory, so that it goes on
//! with the next mount; what it finds is mended from what this device has, where that can be done.

mod opening;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use skrin_base::{Clock, SegmentId, SegmentInfo};
use skrin_data::{DataError, DataStore, Mended};
use skrin_meta::replica::{MetaObject, ProblemKind, Replica};
use skrin_meta::state;
use skrin_storage::{ErrorKind, Store, Urgency};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use crate::events::EventLog;
use crate::exit::{Exit, Failure, Outcome};
use crate::finding::Kind;
use crate::left_out;
use crate::machine::{SystemClock, date};
use crate::mend::{Attempt, mend};
use crate::officer::People;
use crate::session::Layers;
use crate::state_dir::SPARE;
use crate::unlock::write_durably;

/// The file in the state directory. It names objects, never files.
const FILE: &str = "scrub";
/// Bytes a second, unless somebody says otherwise.
pub(crate) const RATE: u64 = 8 << 20;
/// Segments asked for at once.
const BATCH: usize = 64;
/// Findings that are kept; beyond, they are only counted.
const KEPT: usize = 100;
/// Something that is wrong is looked at again after so long: it may have been on its way, or deleted to give space back.
const AGAIN: Duration = Duration::from_secs(5);
/// The storage does not answer: it is asked again after so long.
const AWAY: Duration = Duration::from_secs(30);
/// How often it is written down where it stands.
const SAVE: Duration = Duration::from_secs(5);

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// What it is, as `skrin verify` calls it.
    pub(crate) kind: String,
    pub(crate) object: String,
    pub(crate) what: String,
    pub(crate) time: String,
    /// Whether it was put again.
    pub(crate) repaired: bool,
}

/// How it stands. With `--json` these names are a stable interface: fields are added, never renamed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Whether it goes on while the vault is mounted.
    pub(crate) running: bool,
    /// Bytes a second.
    pub(crate) rate: u64,
    /// When the present or last one was begun; null before the first.
    pub(crate) begun: Option<String>,
    /// When the last one that looked at everything ended.
    pub(crate) ended: Option<String>,
    /// How much of the segments the present one has looked at, in hundredths.
    pub(crate) percent: u64,
    /// Objects that it has looked at.
    pub(crate) objects: u64,
    /// Bytes that it has read.
    pub(crate) bytes: u64,
    /// How much it found, and how much of that is put again.
    pub(crate) found: u64,
    pub(crate) repaired: u64,
    /// The first of it.
    pub(crate) findings: Vec<Found>,
    /// Why it waits, if it does.
    pub(crate) waiting: Option<String>,
}

/// What the file holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Saved {
    report: Report,
    /// The metadata of this round are done, and segments up to this one; null is none.
    segments: bool,
    after: Option<String>,
}

/// What it works with beside the layers.
struct Around {
    /// Read what opens the vault, without the root.
    people: Arc<People>,
    /// The copies of that on this machine.
    copies: Arc<dyn Store>,
    /// Where it is written down for good what was found.
    events: Arc<EventLog>,
}

/// The scrub of one mount.
pub(crate) struct Scrub {
    replica: Arc<Replica>,
    data: Arc<DataStore>,
    around: Around,
    state_dir: PathBuf,
    read_only: bool,
    saved: Mutex<Saved>,
    /// Held by who writes the file.
    writing: Mutex<()>,
    wake: Notify,
    end: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Why a step ended early.
enum Stop {
    /// Somebody stopped it, or began anew.
    Asked,
    /// The storage or the local disk does not do what is asked.
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Scrub {
    /// Goes on from what an earlier mount left. A file that cannot be read is none: the next round begins anew.
    pub(crate) fn new(
        layers: &Layers,
        (people, copies, events): (&Arc<People>, Arc<dyn Store>, &Arc<EventLog>),
        state_dir: &Path,
        read_only: bool,
    ) -> Arc<Self> {
        let bytes = std::fs::read(state_dir.join(FILE)).unwrap_or_default();
        let mut saved: Saved = serde_json::from_slice(&bytes).unwrap_or_default();
        if saved.report.rate == 0 {
            saved.report.rate = RATE;
        }
        Arc::new(Self {
            replica: Arc::clone(&layers.replica),
            data: Arc::clone(&layers.data),
            around: Around {
                people: Arc::clone(people),
                copies,
                events: Arc::clone(events),
            },
            state_dir: state_dir.to_owned(),
            read_only,
            saved: Mutex::new(saved),
            writing: Mutex::default(),
            wake: Notify::new(),
            end: watch::Sender::new(false),
            thread: Mutex::new(None),
        })
    }

    /// Works on a thread of its own until `end`.
    ///
    /// # Errors
    /// Where there can be no such thread.
    pub(crate) fn begin(self: &Arc<Self>, runtime: Handle) -> Outcome {
        let scrub = Arc::clone(self);
        let work = move || {
            let mut end = scrub.end.subscribe();
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = end.wait_for(|end| *end) => {}
                    () = scrub.run() => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("scrub".into()).spawn(work);
        let thread =
            thread.map_err(|e| Failure::new(Exit::Other, format!("cannot start a thread: {e}")))?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    /// Nothing of it goes on when this returns.
    pub(crate) fn end(&self) {
        self.end.send_replace(true);
        if let Some(thread) = self.thread.lock().take() {
            // It has said itself why it failed.
            let _ = thread.join();
        }
    }

    /// How it stands.
    pub(crate) fn report(&self) -> Report {
        self.saved.lock().report.clone()
    }

    /// Starts it, or lets it go on where it was stopped.
    ///
    /// # Errors
    /// A state directory that cannot be written.
    pub(crate) fn start(&self, rate: Option<u64>) -> Outcome<Report> {
        {
            let mut saved = self.saved.lock();
            saved.report.rate = rate.unwrap_or(saved.report.rate);
            if saved.report.running {
                return Ok(saved.report.clone());
            }
            let is_new = saved.report.begun.is_none() || saved.report.percent == 100;
            if is_new {
                *saved = Saved {
                    report: Report {
                        rate: saved.report.rate,
                        begun: Some(date(SystemClock.now())),
                        ended: saved.report.ended.take(),
                        ..Report::default()
                    },
                    ..Saved::default()
                };
            }
            saved.report.running = true;
        }
        let report = self.save()?;
        self.wake.notify_waiters();
        Ok(report)
    }

    /// Stops it; it goes on from there when it is started again.
    ///
    /// # Errors
    /// A state directory that cannot be written.
    pub(crate) fn stop(&self) -> Outcome<Report> {
        {
            let mut saved = self.saved.lock();
            saved.report.running = false;
            saved.report.waiting = None;
        }
        // What was being read meanwhile is counted here, and not in the file: the next mount goes on from what was answered.
        let report = self.save()?;
        self.wake.notify_waiters();
        Ok(report)
    }

    /// Writes down where it stands, and returns that.
    fn save(&self) -> Outcome<Report> {
        // Two who write at once would mix what they write, and the older state could stay.
        let _writing = self.writing.lock();
        let saved = self.saved.lock().clone();
        let text = serde_json::to_vec(&saved).map_err(|e| Failure::new(Exit::Other, e))?;
        write_durably(&self.state_dir.join(FILE), &text)?;
        Ok(saved.report)
    }

    async fn run(&self) {
        loop {
            let woken = self.wake.notified();
            if !self.saved.lock().report.running {
                woken.await;
                continue;
            }
            drop(woken);
            let round = Urgency::later().scope(self.round()).await;
            if let Err(Stop::Failed(failure)) = round {
                tracing::info!(%failure, "the scrub waits");
                self.saved.lock().report.waiting = Some(failure.to_string());
                let _ = self.pause(AWAY).await;
            }
        }
    }

    /// From where it stands to the end.
    async fn round(&self) -> Result<(), Stop> {
        let segments = self.saved.lock().segments;
        if !segments {
            self.metadata().await?;
            self.saved.lock().segments = true;
            self.save()?;
        }
        self.segments().await?;
        {
            let mut saved = self.saved.lock();
            let report = &mut saved.report;
            report.running = false;
            report.percent = 100;
            report.ended = Some(date(SystemClock.now()));
            tracing::info!(
                objects = report.objects,
                found = report.found,
                repaired = report.repaired,
                "the scrub has ended"
            );
        }
        self.save()?;
        Ok(())
    }

    /// What opens the vault, lanes, tips and checkpoints. They are little beside the contents: a round that was cut off here begins anew.
    async fn metadata(&self) -> Result<(), Stop> {
        {
            let mut saved = self.saved.lock();
            (saved.report.objects, saved.report.bytes) = (0, 0);
        }
        self.opening().await?;
        let hidden = left_out::problems(&self.replica).await?;
        if !self.read_only {
            let mut put = self.replica.put_kept_again(&self.state_dir).await?;
            put.extend(self.replica.put_tips_again(&hidden).await?);
            for object in put {
                let kind = Kind::of_object(&object.object, object.was_missing);
                self.found(kind, object.object, "was not what was written", true);
            }
        } else {
            let hidden = hidden.into_iter();
            for problem in hidden.filter(|problem| problem.kind == ProblemKind::Hidden) {
                self.found(Kind::TipMissing, problem.object, problem.text, false);
            }
        }
        let mut objects = self.replica.meta_objects().await?;
        while let Some(object) = objects.pop() {
            objects.extend(self.object(&object).await?);
        }
        Ok(())
    }

    async fn object(&self, object: &MetaObject) -> Result<Vec<MetaObject>, Stop> {
        let mut looked = self.replica.look_at(object).await?;
        if looked.problem.is_some() {
            self.pause(AGAIN).await?;
            looked = self.replica.look_at(object).await?;
        }
        if let Some(problem) = looked.problem {
            self.found(
                Kind::of_problem(&problem),
                problem.object,
                problem.text,
                false,
            );
        }
        self.looked_at(looked.bytes, None).await?;
        Ok(looked.more)
    }

    async fn segments(&self) -> Result<(), Stop> {
        let mut saved = tokio::time::Instant::now();
        loop {
            let after = self
                .saved
                .lock()
                .after
                .as_deref()
                .and_then(SegmentId::from_hex);
            let batch = {
                let tree = self.replica.tree();
                state::segments_after(&tree, after, BATCH)
            };
            let batch = batch.map_err(|error| Failure::new(Exit::Other, error))?;
            if batch.is_empty() {
                return Ok(());
            }
            for info in batch {
                let info = Arc::new(info);
                self.segment(&info).await?;
                if saved.elapsed() > SAVE {
                    saved = tokio::time::Instant::now();
                    self.save()?;
                }
            }
            self.save()?;
        }
    }

    async fn segment(&self, info: &Arc<SegmentInfo>) -> Result<(), Stop> {
        let mut looked = self.look(info).await?;
        if !looked.1.is_empty() {
            self.pause(AGAIN).await?;
            looked = self.look(info).await?;
        }
        let (bytes, flaws) = looked;
        if !flaws.is_empty() && !self.was_given_back(info, &flaws)? {
            let object = segment_name(info);
            match self.mend(info).await? {
                Attempt::Ended(Mended::Whole) => {}
                Attempt::Ended(mended) => {
                    for (kind, what) in flaws {
                        self.found(kind, object.clone(), what, mended == Mended::PutAgain);
                    }
                }
                Attempt::Failed(error) => {
                    for (kind, what) in flaws {
                        let what = format!("{what}; it cannot be put again: {error}");
                        self.found(kind, object.clone(), what, false);
                    }
                }
            }
        }
        self.looked_at(bytes, Some(info.id)).await
    }

    async fn mend(&self, info: &Arc<SegmentInfo>) -> Result<Attempt, Stop> {
        match self.read_only {
            true => Ok(Attempt::Ended(Mended::NoTable)),
            false => Ok(mend(&self.data, info, &self.state_dir.join(SPARE)).await?),
        }
    }

    /// Reads a segment from the storage, without keys of files: how many bytes, and what is wrong with it.
    async fn look(&self, info: &Arc<SegmentInfo>) -> Result<(u64, Vec<(Kind, String)>), Stop> {
        let error = match self.data.verify_segment(Arc::clone(info), Vec::new()).await {
            Ok(verified) => {
                let flaws = verified.flaws.into_iter().map(|(slot, flaw)| match slot {
                    Some(slot) => (Kind::BlockDamaged, format!("block {slot}: {flaw}")),
                    None => (Kind::SegmentDamaged, flaw.to_string()),
                });
                return Ok((verified.bytes, flaws.collect()));
            }
            Err(error) => error,
        };
        let kind = match &error {
            DataError::Missing(_) => Kind::SegmentMissing,
            DataError::Integrity { .. } => Kind::SegmentDamaged,
            DataError::Storage(cause) if cause.kind() == ErrorKind::Broken => Kind::SegmentDamaged,
            _ => return Err(error.into()),
        };
        Ok((0, vec![(kind, error.to_string())]))
    }

    /// Whether it is gone because no file of today needs it.
    fn was_given_back(&self, info: &SegmentInfo, flaws: &[(Kind, String)]) -> Result<bool, Stop> {
        if flaws.iter().all(|(kind, _)| *kind != Kind::SegmentMissing) {
            return Ok(false);
        }
        let unneeded = self.replica.unneeded();
        let (unneeded, _) = unneeded.map_err(|error| Failure::new(Exit::Other, error))?;
        Ok(unneeded.iter().any(|other| other.id == info.id))
    }

    /// Counts what was read, notes the place, and waits until as much may be read again.
    async fn looked_at(&self, bytes: u64, segment: Option<SegmentId>) -> Result<(), Stop> {
        let rate = {
            let mut saved = self.saved.lock();
            if let Some(id) = segment {
                // Names of segments are spread evenly, so the first digits of one say how far it is.
                let [first, second, ..] = *id.as_bytes();
                let place = u64::from(u16::from_be_bytes([first, second]));
                saved.report.percent = place * 100 / 65_536;
                saved.after = Some(id.to_string());
            }
            let report = &mut saved.report;
            report.objects += 1;
            report.bytes += bytes;
            report.waiting = None;
            report.rate.max(1)
        };
        let micros = bytes.saturating_mul(1_000_000) / rate;
        self.pause(Duration::from_micros(micros)).await
    }

    /// Waits, unless it is to stop.
    async fn pause(&self, time: Duration) -> Result<(), Stop> {
        let woken = self.wake.notified();
        if !self.saved.lock().report.running {
            return Err(Stop::Asked);
        }
        match tokio::time::timeout(time, woken).await {
            Ok(()) if !self.saved.lock().report.running => Err(Stop::Asked),
            _ => Ok(()),
        }
    }

    fn found(&self, kind: Kind, object: String, what: impl ToString, repaired: bool) {
        let what = what.to_string();
        let name = kind.name();
        let mut saved = self.saved.lock();
        let report = &mut saved.report;
        // A part of a round that was cut off is looked at again.
        let same = |f: &Found| f.object == object && f.what == what && f.repaired == repaired;
        if report.findings.iter().any(same) {
            return;
        }
        tracing::warn!(
            kind = name,
            object,
            what,
            repaired,
            "the scrub found something"
        );
        self.around.events.note(name, &object, &what, repaired);
        report.found += 1;
        report.repaired += u64::from(repaired);
        if report.findings.len() < KEPT {
            report.findings.push(Found {
                kind: name.to_owned(),
                object,
                what,
                time: date(SystemClock.now()),
                repaired,
            });
        }
    }
}

fn segment_name(info: &SegmentInfo) -> String {
    let name = skrin_data::segment::object_name(info.id);
    name.map_or_else(|_| info.id.to_string(), |name| name.to_string())
}

impl Report {
    /// In one line.
    pub(crate) fn line(&self) -> String {
        let Some(begun) = &self.begun else {
            return "never".to_owned();
        };
        let found = match (self.found, self.repaired) {
            (0, _) => "nothing found".to_owned(),
            (n, 0) => format!("{n} found"),
            (n, repaired) => format!("{n} found, {repaired} put again"),
        };
        let rate = indicatif::HumanBytes(self.rate);
        let now = match (self.running, &self.waiting, self.percent, &self.ended) {
            (true, Some(why), ..) => format!("waits at {} %: {why}", self.percent),
            (true, None, ..) => format!("at {} % since {begun}, {rate}/s", self.percent),
            (false, _, 100, Some(ended)) => return format!("ended {ended}; {found}"),
            (false, ..) => format!("stopped at {} %, begun {begun}", self.percent),
        };
        let last = match &self.ended {
            Some(ended) => format!("; the one before ended {ended}"),
            None => String::new(),
        };
        format!("{now}; {found}{last}")
    }

    /// What was found and is still so.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Found> {
        self.findings.iter().filter(|found| !found.repaired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_goes_on_and_what_was_found() {
        let mut report = Report {
            rate: RATE,
            ..Report::default()
        };
        assert_eq!(report.line(), "never");
        report.begun = Some("monday".into());
        report.running = true;
        report.percent = 40;
        assert_eq!(
            report.line(),
            "at 40 % since monday, 8.00 MiB/s; nothing found"
        );
        report.waiting = Some("no answer".into());
        (report.found, report.repaired) = (3, 1);
        assert_eq!(
            report.line(),
            "waits at 40 %: no answer; 3 found, 1 put again"
        );
        (report.running, report.waiting) = (false, None);
        report.ended = Some("sunday".into());
        let line =
            "stopped at 40 %, begun monday; 3 found, 1 put again; the one before ended sunday";
        assert_eq!(report.line(), line);
        report.percent = 100;
        assert_eq!(report.line(), "ended sunday; 3 found, 1 put again");
    }
}
