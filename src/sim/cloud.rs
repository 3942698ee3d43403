//! The storage and the ways to it: slow, narrow, sometimes cut, with answers that get lost. It keeps what rule P10 asks of a storage:
//! what was put and answered is there for the next get and list.

use crate::body::Body;
use crate::random::Chance;
use crate::trace::Trace;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use skrin_storage::{
    Capacity, ErrorKind, Listing, MemoryStore, ObjectName, Prefix, Store, StoreError,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// A request over a cut way fails after this, at the latest.
const GIVES_UP: Duration = Duration::from_secs(10);
/// A listing may lack what was put without an answer for this long.
const STALE: Duration = Duration::from_secs(30);
/// Where something lies on the storage: parts of the names of objects.
pub(crate) const PLACES: [&str; 5] = ["/lanes", "/tips", "/pages", "/checkpoints", "segments"];

/// How bad the ways are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Of a thousand requests, so many fail without being done.
    pub(crate) refused: u64,
    /// Of a thousand requests, so many are done and their answer is lost.
    pub(crate) unanswered: u64,
    /// Of a thousand puts of what is read back, so many are answered well and stored in part, or not at all.
    pub(crate) cut_short: u64,
    /// Slowest answer.
    pub(crate) latency: Duration,
    /// Bytes a second.
    pub(crate) bandwidth: u64,
}

impl Weather {
    pub(crate) const FAIR: Self = Self {
        refused: 0,
        unanswered: 0,
        cut_short: 0,
        latency: Duration::from_millis(40),
        bandwidth: 100 << 20,
    };

    /// Of somebody who looks on: nothing goes wrong and no time passes, so that nobody else notices.
    pub(crate) const STILL: Self = Self {
        refused: 0,
        unanswered: 0,
        cut_short: 0,
        latency: Duration::ZERO,
        bandwidth: u64::MAX,
    };

    pub(crate) fn drawn(chance: &Chance) -> Self {
        let bad = [0, 20, 150][chance.below(3) as usize];
        Self {
            refused: bad,
            unanswered: bad / 2,
            cut_short: bad / 5,
            latency: Duration::from_millis([5, 80, 700][chance.below(3) as usize]),
            bandwidth: [64 << 10, 1 << 20, 100 << 20][chance.below(3) as usize],
        }
    }
}

/// What lies on the storage.
pub(crate) struct Cloud {
    pub(crate) objects: MemoryStore,
    /// Objects whose put was not answered, and when they came.
    unanswered: Mutex<BTreeMap<ObjectName, Instant>>,
    /// Objects of which a part was stored: another put makes them whole.
    pub(crate) parts: Mutex<BTreeSet<ObjectName>>,
    /// Which run of which device stored an object first, whole or in part.
    makers: Mutex<BTreeMap<ObjectName, (usize, u64)>>,
    /// Devices without network, and until when.
    away: Mutex<BTreeMap<usize, Instant>>,
    /// Rules that a device broke.
    pub(crate) broken: Mutex<Vec<String>>,
    pub(crate) trace: Arc<Trace>,
}

impl Cloud {
    pub(crate) fn new(trace: Arc<Trace>) -> Self {
        Self {
            objects: MemoryStore::new(),
            unanswered: Mutex::default(),
            parts: Mutex::default(),
            makers: Mutex::default(),
            away: Mutex::default(),
            broken: Mutex::default(),
            trace,
        }
    }

    /// A device has no network until then, whichever process of it runs.
    pub(crate) fn take_away(&self, device: usize, until: Instant) {
        self.away.lock().insert(device, until);
    }

    /// Which run of which device stored an object first.
    pub(crate) fn maker(&self, name: &ObjectName) -> Option<(usize, u64)> {
        self.makers.lock().get(name).copied()
    }

    fn accuse(&self, what: String) {
        self.broken.lock().push(what);
    }
}

/// The way of one process to the storage.
pub(crate) struct Link {
    cloud: Arc<Cloud>,
    body: Arc<Body>,
    run: u64,
    chance: Chance,
    weather: Mutex<Weather>,
    cut_until: Mutex<Instant>,
    busy_until: Mutex<Instant>,
}

impl Link {
    pub(crate) fn new(
        cloud: &Arc<Cloud>,
        body: &Arc<Body>,
        chance: Chance,
        weather: Weather,
    ) -> Self {
        let now = Instant::now();
        Self {
            cloud: Arc::clone(cloud),
            body: Arc::clone(body),
            run: body.run(),
            chance,
            weather: Mutex::new(weather),
            cut_until: Mutex::new(now),
            busy_until: Mutex::new(now),
        }
    }

    /// Nothing goes through for so long.
    pub(crate) fn cut(&self, time: Duration) {
        *self.cut_until.lock() = Instant::now() + time;
    }

    /// From now on all goes well.
    pub(crate) fn heal(&self) {
        *self.cut_until.lock() = Instant::now();
        *self.weather.lock() = Weather::FAIR;
    }

    fn error(&self, kind: ErrorKind, object: &str) -> StoreError {
        StoreError::new(kind, "simulated")
            .object(object)
            .place("the simulation")
    }

    /// Whether the process at this end lives; if not, a later one of the same device may.
    fn lives(&self) -> bool {
        self.body.lives(self.run)
    }

    fn moment(&self, when: &str, what: &str) {
        if self.lives() {
            self.body.moment(when, what);
        }
    }

    /// Until when nothing goes through.
    fn closed_until(&self) -> Instant {
        let away = self.cloud.away.lock().get(&self.body.device).copied();
        let cut = *self.cut_until.lock();
        away.map_or(cut, |away| away.max(cut))
    }

    fn is_cut(&self) -> bool {
        self.closed_until() > Instant::now()
    }

    async fn while_cut(&self, object: &str) -> Result<(), StoreError> {
        if !self.is_cut() {
            return Ok(());
        }
        let until = self.closed_until().min(Instant::now() + GIVES_UP);
        sleep_until(until).await;
        self.fault();
        Err(self.error(ErrorKind::Transient, object))
    }

    fn fault(&self) {
        self.cloud.trace.count(|c| c.faults += 1);
    }

    /// The time that a request takes one way, behind those before it.
    async fn travel(&self, bytes: usize) {
        let weather = *self.weather.lock();
        let latency = weather.latency.as_micros() as u64;
        let latency = Duration::from_micros(latency / 8 + self.chance.below(latency.max(1)));
        let moving = Duration::from_micros(bytes as u64 * 1_000_000 / weather.bandwidth.max(1));
        let done = {
            let mut busy = self.busy_until.lock();
            *busy = (*busy).max(Instant::now()) + moving;
            *busy + latency
        };
        // Sleeping until now would take the clock to the next millisecond.
        if done > Instant::now() {
            sleep_until(done).await;
        }
    }

    /// One request: the way there, the deed, the way back; each of them may fail, and the device may die before, between and after.
    async fn request<T>(
        &self,
        verb: &'static str,
        object: &str,
        up: usize,
        writes: bool,
        deed: impl FnOnce(bool) -> Result<T, StoreError> + Send,
        down: impl Fn(&T) -> usize + Send,
    ) -> Result<T, StoreError>
    where
        T: Send,
    {
        let named = format!("{verb} {}", kind_of(object));
        self.moment("before", &named);
        if !self.lives() {
            return self.ghost(object, writes, deed);
        }
        self.cloud.trace.count(|c| c.requests += 1);
        self.while_cut(object).await?;
        self.travel(up).await;
        let weather = *self.weather.lock();
        let (refused, lost) = (
            self.chance.per_mille(weather.refused) || self.is_cut(),
            self.chance.per_mille(weather.unanswered),
        );
        // What is on its way when the device dies may arrive all the same.
        let arrives = self.lives() || (writes && self.chance.coin());
        if refused || !arrives {
            self.fault();
            let device = self.body.device;
            self.cloud
                .trace
                .note(format!("{device}: {verb} {object} refused"));
            sleep(weather.latency / 4).await;
            return Err(self.error(ErrorKind::Transient, object));
        }
        let done = deed(lost);
        let device = self.body.device;
        let outcome = done
            .as_ref()
            .map_or_else(|e| format!("{:?}", e.kind()), |_| "done".to_owned());
        self.cloud
            .trace
            .note(format!("{device}: {verb} {object} {outcome}"));
        self.moment("after", &named);
        let len = done.as_ref().map_or(0, &down);
        self.travel(len).await;
        if lost || self.is_cut() {
            self.fault();
            return Err(self.error(ErrorKind::Transient, object));
        }
        done
    }

    /// What a dead process still asks for: it reads, so that it ends quietly, and changes nothing.
    fn ghost<T>(
        &self,
        object: &str,
        writes: bool,
        deed: impl FnOnce(bool) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match writes {
            // No refusal, after which its programs would not end quietly; and not tried again.
            true => Err(self.error(ErrorKind::Unsupported, object)),
            false => deed(false),
        }
    }

    fn put_now(&self, name: &ObjectName, bytes: Bytes, lost: bool) -> Result<(), StoreError> {
        let objects = &self.cloud.objects;
        let mut parts = self.cloud.parts.lock();
        if parts.remove(name) {
            objects.tamper(name, None);
        }
        let cut_short = self.weather.lock().cut_short;
        let read_back = !name.as_str().contains("/tips/");
        let bytes = match read_back && self.lives() && self.chance.per_mille(cut_short) {
            true if objects.peek(name).is_none() => {
                self.fault();
                parts.insert(name.clone());
                bytes.slice(..self.chance.below(bytes.len() as u64) as usize)
            }
            _ => bytes,
        };
        drop(parts);
        let done = match objects.peek(name) {
            Some(old) if old == bytes => Ok(()),
            Some(_) => {
                self.cloud.accuse(format!(
                    "device {} put other bytes under {name}",
                    self.body.device
                ));
                Err(self.error(ErrorKind::Exists, name.as_str()))
            }
            None => {
                objects.tamper(name, Some(bytes));
                let maker = (self.body.device, self.run);
                self.cloud
                    .makers
                    .lock()
                    .entry(name.clone())
                    .or_insert(maker);
                Ok(())
            }
        };
        let mut unanswered = self.cloud.unanswered.lock();
        match lost {
            true => unanswered.entry(name.clone()).or_insert_with(Instant::now),
            false => {
                unanswered.remove(name);
                return done;
            }
        };
        done
    }
}

/// Where on the storage something lies.
pub(crate) fn kind_of(object: &str) -> &'static str {
    PLACES
        .into_iter()
        .find(|part| object.contains(part))
        .map_or("other", |part| part.trim_start_matches('/'))
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Link {
    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        let len = bytes.len();
        let deed = |lost| self.put_now(name, bytes, lost);
        self.request("put", name.as_str(), len, true, deed, |()| 0)
            .await
    }

    async fn get(&self, name: &ObjectName, max: usize) -> Result<Bytes, StoreError> {
        let got = futures_now(self.cloud.objects.get(name, max));
        let deed = |_| got();
        self.request("get", name.as_str(), 0, false, deed, Bytes::len)
            .await
    }

    async fn get_range(
        &self,
        name: &ObjectName,
        start: u64,
        len: usize,
    ) -> Result<Bytes, StoreError> {
        let got = futures_now(self.cloud.objects.get_range(name, start, len));
        let deed = |_| got();
        self.request("get", name.as_str(), 0, false, deed, Bytes::len)
            .await
    }

    async fn list(&self, dir: &Prefix) -> Result<Listing, StoreError> {
        let listed = futures_now(self.cloud.objects.list(dir));
        let deed = |_| {
            let mut listing = listed()?;
            let now = Instant::now();
            let unanswered = self.cloud.unanswered.lock();
            // What nobody was told of may not be listed yet.
            listing.objects.retain(|listed| {
                let came = unanswered.get(&listed.name);
                came.is_none_or(|at| now.duration_since(*at) > STALE || self.chance.coin())
            });
            Ok(listing)
        };
        let down = |listing: &Listing| 100 * listing.objects.len();
        self.request("list", dir.as_str(), 0, false, deed, down)
            .await
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let deed = |_| {
            // What was stored in part may go, to be put whole.
            let is_part = self.cloud.parts.lock().remove(name);
            let is_there = self.cloud.objects.peek(name).is_some();
            // Tips are hints; that no segment goes that is needed, those say who read everything.
            let may = |dir: &str| name.as_str().contains(dir);
            if is_there && !is_part && !may("/tips/") && !may("segments/") {
                self.cloud
                    .accuse(format!("device {} deleted {name}", self.body.device));
            }
            self.cloud.objects.tamper(name, None);
            Ok(())
        };
        self.request("delete", name.as_str(), 0, true, deed, |()| 0)
            .await
    }

    async fn capacity(&self) -> Result<Capacity, StoreError> {
        Ok(Capacity::default())
    }

    fn place(&self) -> String {
        "the simulation".to_owned()
    }
}

/// A future of the memory store is ready at once; it runs when the request arrives.
fn futures_now<T>(work: impl Future<Output = T> + Send) -> impl FnOnce() -> T + Send {
    move || {
        let mut work = std::pin::pin!(work);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match work.as_mut().poll(&mut context) {
            std::task::Poll::Ready(done) => done,
            std::task::Poll::Pending => panic!("memory does not wait"),
        }
    }
}
