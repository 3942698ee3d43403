//! What of a device outlives its process: the local disk, with what of it would be left if the power failed now.
//!
//! Every sync of a local file passes through `skrin_storage::disk`, which tells us. So we know the *stable* contents of each file and of each
//! directory, and can make the image that a crash at this very moment would leave, while the process that has died goes on in its old
//! directory without effect on anything: nobody looks at it any more, and its way to the storage is cut.

use crate::random::{Chance, mix};
use crate::trace::Trace;
use parking_lot::Mutex;
use skrin_storage::disk::watch::Watch;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// Pages reach the disk in any order.
const PAGE: usize = 4096;
/// What a device syncs.
pub(crate) const SYNCS: [&str; 4] = [
    "sync journal",
    "sync own commit",
    "sync heads",
    "sync of names",
];

/// How a process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// It is killed: all that it wrote is there.
    Kill,
    /// The power fails: what was not synced may be there or not, page by page and name by name.
    Power,
}

/// When a process ends: the n-th time from now that it comes by a point, or by any.
struct Plan {
    point: Option<String>,
    left: u64,
    end: End,
}

/// A file in an image.
#[derive(Clone, Debug)]
struct Saved {
    bytes: Vec<u8>,
    /// What of it is on stable storage.
    stable: Vec<u8>,
    /// Whether its name is.
    named: bool,
}

/// A state directory at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    files: BTreeMap<PathBuf, Saved>,
    dirs: BTreeSet<PathBuf>,
}

/// What a name leads to after a power cut.
enum Kept {
    Dir,
    /// What was written last, and what was synced.
    File(Vec<u8>, Vec<u8>),
}

#[derive(Default)]
struct Stable {
    /// Contents by inode.
    files: BTreeMap<u64, Vec<u8>>,
    /// Files (`Some`) and directories by name, of each directory.
    dirs: BTreeMap<PathBuf, BTreeMap<PathBuf, Option<u64>>>,
}

struct State {
    dir: PathBuf,
    alive: bool,
    stable: Stable,
    plan: Option<Plan>,
    image: Option<(Image, String)>,
    run: u64,
}

/// One device, beyond the life of its processes.
pub(crate) struct Body {
    pub(crate) device: usize,
    seed: u64,
    base: PathBuf,
    trace: Arc<Trace>,
    state: Mutex<State>,
}

/// SQLite looks after itself; it is a cache, and may be gone or older.
fn is_cache(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str());
    name.is_some_and(|n| n.starts_with("meta.db"))
}

fn entries(dir: &Path) -> Vec<(PathBuf, std::fs::Metadata)> {
    let Ok(listing) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut all: Vec<_> = listing
        .filter_map(|e| e.ok())
        .filter_map(|e| Some((e.path(), e.metadata().ok()?)))
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

impl Body {
    pub(crate) fn new(device: usize, seed: u64, base: &Path, trace: &Arc<Trace>) -> Arc<Self> {
        let state = State {
            dir: PathBuf::new(),
            alive: false,
            stable: Stable::default(),
            plan: None,
            image: None,
            run: 0,
        };
        Arc::new(Self {
            device,
            seed: mix(seed, &format!("body {device}")),
            base: base.join(format!("device-{device}")),
            trace: Arc::clone(trace),
            state: Mutex::new(state),
        })
    }

    /// How often it was started.
    pub(crate) fn run(&self) -> u64 {
        self.state.lock().run
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.state.lock().alive
    }

    /// Whether the n-th process is the one that lives.
    pub(crate) fn lives(&self, run: u64) -> bool {
        let state = self.state.lock();
        state.alive && state.run == run
    }

    /// A process starts with what an image holds; its state directory.
    pub(crate) fn start(&self, image: &Image) -> PathBuf {
        let mut state = self.state.lock();
        state.run += 1;
        let dir = self.base.join(format!("run-{}", state.run));
        let _ = std::fs::remove_dir_all(
            self.base
                .join(format!("run-{}", state.run.saturating_sub(4))),
        );
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir);
        made.unwrap();
        state.stable = image.lay_out(&dir);
        state.dir.clone_from(&dir);
        (state.alive, state.plan, state.image) = (true, None, None);
        dir
    }

    /// A clean end: the state directory as it is.
    pub(crate) fn stop(&self) -> Image {
        let mut state = self.state.lock();
        state.alive = false;
        Image::of(&state)
    }

    /// A copy of the state directory, as a backup makes it.
    pub(crate) fn backup(&self) -> Image {
        Image::of(&self.state.lock()).settled()
    }

    /// Lets it die at the n-th moment from now.
    pub(crate) fn plan(&self, moments: u64, end: End) {
        self.state.lock().plan = Some(Plan {
            point: None,
            left: moments,
            end,
        });
    }

    /// Lets it die when it comes by this point, after so many times that it lives through.
    pub(crate) fn plan_at(&self, point: &str, times: u64, end: End) {
        self.state.lock().plan = Some(Plan {
            point: Some(point.to_owned()),
            left: times,
            end,
        });
    }

    /// Whether it is to die.
    pub(crate) fn is_planned(&self) -> bool {
        self.state.lock().plan.is_some()
    }

    /// Lets it live.
    pub(crate) fn no_plan(&self) {
        self.state.lock().plan = None;
    }

    /// Lets it die now.
    pub(crate) fn crash(&self, end: End, why: &str) {
        let mut state = self.state.lock();
        if state.alive {
            self.die(&mut state, end, why);
        }
    }

    /// What it died with, if it died.
    pub(crate) fn take_image(&self) -> Option<(Image, String)> {
        self.state.lock().image.take()
    }

    fn die(&self, state: &mut State, end: End, why: &str) {
        let chance = Chance::new(mix(self.seed, why), &format!("crash {}", state.run));
        let image = match end {
            End::Kill => Image::of(state),
            End::Power => Image::of(state).after_power_cut(&state.stable, &chance),
        };
        let what = format!("{end:?} {why}");
        self.trace.note(format!("{}: {what}", self.device));
        self.trace
            .count(|c| *c.crashes.entry(what.clone()).or_default() += 1);
        state.alive = false;
        state.image = Some((image, what));
    }

    /// A named point at which a crash is possible.
    pub(crate) fn moment(&self, when: &str, what: &str) {
        let mut state = self.state.lock();
        if !state.alive {
            return;
        }
        let here = format!("{when} {what}");
        self.trace
            .count(|c| *c.passed.entry(here.clone()).or_default() += 1);
        let Some(plan) = &mut state.plan else { return };
        if plan.point.as_ref().is_some_and(|point| *point != here) {
            return;
        }
        match plan.left.checked_sub(1) {
            Some(left) => plan.left = left,
            None => {
                let end = plan.end;
                self.die(&mut state, end, &here);
            }
        }
    }

    fn synced_file(&self, path: &Path) {
        let mut state = self.state.lock();
        if let (true, Ok(bytes), Ok(meta)) = (state.alive, std::fs::read(path), path.metadata()) {
            state.stable.files.insert(meta.ino(), bytes);
        }
    }

    fn synced_dir(&self, path: &Path) {
        let mut state = self.state.lock();
        if !state.alive {
            return;
        }
        let names = entries(path).into_iter().map(|(path, meta)| {
            let name = path.file_name().unwrap_or_default();
            (PathBuf::from(name), meta.is_file().then(|| meta.ino()))
        });
        let names = names.collect();
        if let Ok(below) = path.strip_prefix(&state.dir) {
            let below = below.to_owned();
            state.stable.dirs.insert(below, names);
        }
    }

    fn owns(&self, path: &Path) -> bool {
        let state = self.state.lock();
        state.run > 0 && path.starts_with(&state.dir)
    }
}

/// Which names of a directory a power cut leaves: those of now, or those of the last sync.
#[derive(Clone, Copy)]
enum Names {
    Now,
    Synced,
    /// Of each name one of both, by a number.
    Either(u64),
}

impl Names {
    fn is_now(self, name: &Path) -> bool {
        match self {
            Self::Now => true,
            Self::Synced => false,
            Self::Either(seed) => Chance::new(seed, &name.to_string_lossy()).coin(),
        }
    }
}

impl Image {
    /// Everything in the directory, with what is known to be stable.
    fn of(state: &State) -> Self {
        let mut image = Self::default();
        let mut todo = vec![state.dir.clone()];
        while let Some(dir) = todo.pop() {
            let below = dir.strip_prefix(&state.dir).unwrap_or(&dir).to_owned();
            let named = state.stable.dirs.get(&below);
            for (path, meta) in entries(&dir) {
                let rel = path.strip_prefix(&state.dir).unwrap_or(&path).to_owned();
                if meta.is_dir() {
                    image.dirs.insert(rel);
                    todo.push(path);
                    continue;
                }
                // What a process that lives shares with others.
                if rel.extension().is_some_and(|e| e == "db-shm") {
                    continue;
                }
                let name = path.file_name().map(PathBuf::from).unwrap_or_default();
                let known = named.and_then(|n| n.get(&name)).copied().flatten();
                let saved = Saved {
                    bytes: std::fs::read(&path).unwrap_or_default(),
                    stable: state
                        .stable
                        .files
                        .get(&meta.ino())
                        .cloned()
                        .unwrap_or_default(),
                    named: known == Some(meta.ino()),
                };
                image.files.insert(rel, saved);
            }
        }
        image
    }

    /// All of it is on stable storage: it was copied there.
    fn settled(mut self) -> Self {
        for file in self.files.values_mut() {
            file.stable.clone_from(&file.bytes);
            file.named = true;
        }
        self
    }

    /// What the disk would hold.
    fn after_power_cut(self, stable: &Stable, chance: &Chance) -> Self {
        let mut left = Self::default();
        let mut todo = vec![PathBuf::new()];
        let cache = chance.below(3) > 0;
        while let Some(dir) = todo.pop() {
            // All names of now, or those that were synced, or some of both: a file system may write names in any order.
            let now = match chance.below(4) {
                0 => Names::Now,
                1 => Names::Synced,
                _ => Names::Either(chance.draw()),
            };
            for (name, kept) in self.names_left(&dir, stable, now, cache) {
                let path = dir.join(name);
                match kept {
                    Kept::Dir => {
                        left.dirs.insert(path.clone());
                        todo.push(path);
                    }
                    Kept::File(now, stable) => {
                        let bytes = torn(&now, &stable, chance);
                        let saved = Saved {
                            stable: bytes.clone(),
                            bytes,
                            named: true,
                        };
                        left.files.insert(path, saved);
                    }
                }
            }
        }
        left
    }

    /// The names in a directory after a power cut: those of now, or those that were synced, of which some led elsewhere.
    fn names_left(
        &self,
        dir: &Path,
        stable: &Stable,
        which: Names,
        cache: bool,
    ) -> BTreeMap<PathBuf, Kept> {
        let mut names = BTreeMap::new();
        let inside = |p: &Path| p.parent() == Some(dir);
        let name_of = |p: &Path| PathBuf::from(p.file_name().unwrap_or_default());
        let synced = stable.dirs.get(dir);
        for sub in self.dirs.iter().filter(|p| inside(p)) {
            let name = name_of(sub);
            if which.is_now(&name) || synced.is_some_and(|d| d.contains_key(&name)) {
                names.insert(name, Kept::Dir);
            }
        }
        for (path, file) in self.files.iter().filter(|(p, _)| inside(p)) {
            let (bytes, stable) = (file.bytes.clone(), file.stable.clone());
            if is_cache(path) {
                if cache {
                    names.insert(name_of(path), Kept::File(bytes.clone(), bytes));
                }
            } else if which.is_now(&name_of(path)) || file.named {
                names.insert(name_of(path), Kept::File(bytes, stable));
            }
        }
        let told = synced.into_iter().flatten();
        for (name, ino) in told.filter(|(name, _)| !which.is_now(name)) {
            // Names that led elsewhere, or were removed and may be back.
            let old = ino.and_then(|ino| stable.files.get(&ino));
            if let Some(old) = old.filter(|_| !is_cache(name)) {
                let old = || Kept::File(old.clone(), old.clone());
                names.entry(name.clone()).or_insert_with(old);
            }
        }
        names
    }

    /// Writes it to a directory; what of that is stable.
    fn lay_out(&self, dir: &Path) -> Stable {
        let mut stable = Stable::default();
        stable.dirs.insert(PathBuf::new(), BTreeMap::new());
        for sub in &self.dirs {
            std::fs::create_dir_all(dir.join(sub)).unwrap();
            stable.dirs.entry(sub.clone()).or_default();
            let parent = sub.parent().map(Path::to_owned).unwrap_or_default();
            let name = PathBuf::from(sub.file_name().unwrap_or_default());
            stable.dirs.entry(parent).or_default().insert(name, None);
        }
        for (path, file) in &self.files {
            let at = dir.join(path);
            std::fs::write(&at, &file.bytes).unwrap();
            let ino = at.metadata().unwrap().ino();
            stable.files.insert(ino, file.stable.clone());
            if file.named {
                let parent = path.parent().map(Path::to_owned).unwrap_or_default();
                let name = PathBuf::from(path.file_name().unwrap_or_default());
                stable
                    .dirs
                    .entry(parent)
                    .or_default()
                    .insert(name, Some(ino));
            }
        }
        stable
    }

    /// Deletes the cache of metadata, which may be done at any time.
    pub(crate) fn without_cache(mut self) -> Self {
        self.files.retain(|path, _| !is_cache(path));
        self
    }
}

/// Each page that is not synced may be the old or the new one.
fn torn(now: &[u8], stable: &[u8], chance: &Chance) -> Vec<u8> {
    if now == stable {
        return now.to_vec();
    }
    let len = if chance.coin() {
        now.len()
    } else {
        stable.len()
    };
    let mut out = vec![0; len];
    let how = chance.below(4);
    for (n, page) in out.chunks_mut(PAGE).enumerate() {
        let new = match how {
            0 => false,
            1 => true,
            _ => chance.coin(),
        };
        let from = if new { now } else { stable };
        let from = from.get(n * PAGE..).unwrap_or_default();
        let fits = from.len().min(page.len());
        page[..fits].copy_from_slice(&from[..fits]);
        // And a page may be written in part.
        if how == 3 && chance.per_mille(200) {
            let half = chance.below(page.len() as u64 + 1) as usize;
            let old = stable.get(n * PAGE..).unwrap_or_default();
            let fits = old.len().min(page.len());
            if half < fits {
                page[half..fits].copy_from_slice(&old[half..fits]);
            }
        }
    }
    out
}

/// Tells each body what happens to its files.
pub(crate) struct Watcher(pub(crate) Vec<Arc<Body>>);

impl Watcher {
    pub(crate) fn new(bodies: &[Arc<Body>]) -> Rc<Self> {
        Rc::new(Self(bodies.to_vec()))
    }

    fn owner(&self, path: &Path) -> Option<&Arc<Body>> {
        self.0.iter().find(|body| body.owns(path))
    }
}

/// What it is called to sync a file.
fn kind_of(path: &Path) -> &'static str {
    let [journal, own_commit, heads, _] = SYNCS;
    let in_lanes = path.components().any(|c| c.as_os_str() == "lanes");
    match path.extension().and_then(|e| e.to_str()) {
        Some("log") => journal,
        _ if in_lanes => own_commit,
        Some("new") => heads,
        _ => "sync names",
    }
}

impl Watch for Watcher {
    fn file(&self, path: &Path, done: bool) {
        let Some(body) = self.owner(path) else { return };
        if done {
            body.synced_file(path);
        }
        body.moment(when(done), kind_of(path));
    }

    fn dir(&self, path: &Path, done: bool) {
        let Some(body) = self.owner(path) else { return };
        if done {
            body.synced_dir(path);
        }
        let [_, _, _, names] = SYNCS;
        body.moment(when(done), names);
    }
}

fn when(done: bool) -> &'static str {
    if done { "after" } else { "before" }
}
