//! Worlds in which programs look back: snapshots, restores, and segments that are deleted while all of it goes on. Beside what is checked of
//! `many`: a snapshot never changes, whoever looks at it, and what nobody needs any more goes in the end.

use crate::many::{Line, Many, places, read_node};
use crate::trace::Trace;
use skrin_base::Timestamp;
use skrin_fs::{Attr, Fs, FsError, Kind, NodeId, PARENT_COOKIE, RestoreWish, When};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);
/// Rounds after which nothing is kept that nobody needs.
const ROUNDS: usize = 8;

/// The files of a state: their paths, and what is in them.
type Files = BTreeMap<Vec<Vec<u8>>, Vec<u8>>;

/// What is known of the past.
#[derive(Default)]
pub(crate) struct Past {
    /// What snapshots showed when they were looked at first.
    snapshots: BTreeMap<Vec<u8>, Files>,
    /// Those that may be there or not: whoever took them away died.
    doubtful: BTreeSet<Vec<u8>>,
    /// Disks that are gone: their lanes stay open, and nothing is deleted any more.
    pub(crate) lost_disks: usize,
    /// Whether the last that was said of collecting is that nothing is kept which nobody needs.
    pub(crate) is_clear: bool,
}

/// What is known to a kernel until it is read: what lies in the past has no other name.
struct Known<'a> {
    fs: &'a Fs,
    nodes: Vec<NodeId>,
}

impl Known<'_> {
    fn look_up(&mut self, dir: NodeId, name: &[u8]) -> Result<Attr, FsError> {
        let attr = self.fs.lookup(dir, name)?;
        self.nodes.push(attr.node);
        Ok(attr)
    }
}

impl Drop for Known<'_> {
    fn drop(&mut self) {
        self.nodes.iter().for_each(|node| self.fs.forget(*node, 1));
    }
}

/// Everything that is in the files below a directory, found by the names that lead to it.
fn files(fs: &Fs, way: &[&[u8]]) -> Result<Files, FsError> {
    let mut known = Known {
        fs,
        nodes: Vec::new(),
    };
    let mut root = NodeId::ROOT;
    for name in way {
        root = known.look_up(root, name)?.node;
    }
    let (mut files, mut todo) = (Files::new(), vec![(Vec::new(), root)]);
    while let Some((path, dir)) = todo.pop() {
        for entry in fs.readdir(dir, PARENT_COOKIE, usize::MAX, false)? {
            let attr = known.look_up(dir, &entry.name)?;
            let mut path = path.clone();
            path.push(entry.name);
            match attr.kind {
                Kind::Dir => todo.push((path, attr.node)),
                _ => drop(files.insert(path, read_node(fs, attr.node)?)),
            }
        }
    }
    Ok(files)
}

/// What a snapshot shows.
fn look_back(fs: &Fs, name: &[u8]) -> Result<Files, FsError> {
    files(fs, &[b".snapshots", name])
}

/// Something that a program does about the past: to which device, and in which step.
pub(crate) fn act(many: &mut Many<'_>, who: usize, step: usize) {
    let Some(fs) = many.fs(who) else { return };
    let what = many.below(100);
    let world = many.world;
    world
        .trace
        .note(format!("step {step} of {who}: past {what}"));
    let done = match what {
        0..=14 => take(many, &fs, who, format!("s{step}").as_bytes()),
        15..=22 => forget(many, &fs, who),
        23..=37 => restore(many, &fs, who, step),
        38..=45 => look_at_versions(many, &fs),
        46..=79 => collect(&world.trace, &fs),
        80..=97 => {
            world.pass(DAY * (1 + many.below(4) as u32));
            Ok(())
        }
        _ => fs.set_retention(DAY.as_secs() * (1 + many.below(3))),
    };
    if let Err(error) = done {
        world.trace.note(format!("past {what}: {error}"));
    }
}

fn collect(trace: &Trace, fs: &Fs) -> Result<(), FsError> {
    let done = fs.collect()?;
    if done.freed > 0 {
        trace.event("segments freed", done.freed.to_string());
    }
    trace.note(format!("{done:?}"));
    Ok(())
}

fn take(many: &mut Many<'_>, fs: &Fs, who: usize, name: &[u8]) -> Result<(), FsError> {
    let before: BTreeSet<Line> = lines(many, &files(fs, &[])?);
    fs.take_snapshot(name)?;
    if !many.alive(who) {
        return Ok(());
    }
    let seen = look_back(fs, name)?;
    if !many.alive(who) {
        return Ok(());
    }
    let there = lines(many, &seen);
    let gone = |line: &&Line| !there.contains(line) && !many.is_removed(line);
    let gone: Vec<&Line> = before.iter().filter(gone).collect();
    if !gone.is_empty() {
        many.fail(format!(
            "a snapshot does not hold what was written: {gone:?}"
        ));
    }
    many.world
        .trace
        .event("snapshot", name.escape_ascii().to_string());
    many.past.snapshots.insert(name.to_vec(), seen);
    Ok(())
}

fn lines(many: &Many<'_>, files: &Files) -> BTreeSet<Line> {
    let parse = |(path, data): (&Vec<Vec<u8>>, &Vec<u8>)| many.parse(data, &format!("{path:?}"));
    files.iter().flat_map(parse).collect()
}

/// The nth of the snapshots that are known.
fn some_snapshot(many: &Many<'_>) -> Option<Vec<u8>> {
    let nth = many.below(many.past.snapshots.len() as u64 + 1) as usize;
    many.past.snapshots.keys().nth(nth).cloned()
}

fn forget(many: &mut Many<'_>, fs: &Fs, who: usize) -> Result<(), FsError> {
    let Some(name) = some_snapshot(many) else {
        return Ok(());
    };
    let done = fs.forget_snapshot(&name);
    let unknown = matches!(done, Err(FsError::NoSuchPoint(_)));
    if done.is_ok() && many.alive(who) {
        many.past.snapshots.remove(&name);
    } else if !unknown {
        many.past.doubtful.insert(name);
    }
    done
}

/// Puts the tree, or what is under a name, back to what it was, or beside.
fn restore(many: &mut Many<'_>, fs: &Fs, who: usize, step: usize) -> Result<(), FsError> {
    let when = match some_snapshot(many) {
        Some(name) => When::Snapshot(name),
        None => {
            let ago = many.below(2 * DAY.as_nanos() as u64) as i64;
            let now = many.now(who).unwrap_or(Timestamp(0));
            When::Time(Timestamp(now.0 - ago))
        }
    };
    let path = match many.below(3) {
        0 => Vec::new(),
        _ => vec![many.a_name().to_vec()],
    };
    let to =
        (many.below(3) == 0 && !path.is_empty()).then(|| vec![format!("r{step}").into_bytes()]);
    let exact = to.is_none() && many.below(3) == 0;
    if to.is_none() {
        // It looks at what others published before it begins, and may take any of it away.
        many.remove_all_lines();
    }
    let wish = RestoreWish {
        path,
        when,
        to,
        exact,
    };
    let done = fs.restore_path(&wish)?;
    many.world.trace.event("restored", format!("{done:?}"));
    Ok(())
}

fn look_at_versions(many: &Many<'_>, fs: &Fs) -> Result<(), FsError> {
    let all = places(fs)?;
    let nth = many.below(all.len() as u64) as usize;
    let top = all.into_iter().filter(|place| place.0 == NodeId::ROOT);
    match top.cycle().nth(nth) {
        Some((_, name, _)) => fs.versions(&[name]).map(drop),
        None => Ok(()),
    }
}

/// What must be true when all devices agree: each snapshot shows what it ever showed.
pub(crate) fn check(many: &Many<'_>, fs: &Fs) {
    for (name, seen) in &many.past.snapshots {
        let shown = name.escape_ascii();
        match look_back(fs, name) {
            Ok(now) if now == *seen => {}
            Ok(_) => many.fail(format!("snapshot {shown} shows something else than it did")),
            Err(FsError::NotFound) if many.past.doubtful.contains(name) => {}
            Err(error) => many.fail(format!("snapshot {shown}: {error}")),
        }
    }
}

/// Little is kept.
pub(crate) fn begin(many: &mut Many<'_>) {
    many.converge();
    let seconds = DAY.as_secs() * (1 + many.below(3));
    if let Some(Err(error)) = many.fs(0).map(|fs| fs.set_retention(seconds)) {
        many.fail(format!("the retention is not taken: {error}"));
    }
}

/// In the end nothing is kept that nobody needs: all devices say so again and again, and time passes.
pub(crate) fn clear(many: &mut Many<'_>) {
    let Some(fs) = many.fs(0) else { return };
    let all_go = many.below(2) == 0;
    // Also those that somebody took who died before he could say so.
    let names = match fs.snapshots() {
        Ok(all) if all_go => all.into_iter().map(|snapshot| snapshot.name).collect(),
        Ok(_) => Vec::new(),
        Err(error) => many.fail(format!("the snapshots are not listed: {error}")),
    };
    for name in names {
        many.past.snapshots.remove(&name);
        if let Err(error) = fs.forget_snapshot(&name) {
            many.fail(format!("a snapshot is not forgotten: {error}"));
        }
    }
    let mut last = String::new();
    for _ in 0..ROUNDS {
        many.world.pass(DAY * 5);
        many.converge();
        for who in 0..many.count() {
            let Some(fs) = many.fs(who) else { continue };
            match fs.collect() {
                Ok(done) if done.kept == 0 => {
                    // What was repacked goes another time.
                    many.past.is_clear = done.repacked == 0;
                    return;
                }
                Ok(done) => {
                    last = format!("{done:?}");
                    let now = many.now(who).map(|t| t.0 / 86_400_000_000_000);
                    many.world.trace.note(format!("{who} day {now:?}: {last}"));
                }
                Err(error) => many.fail(format!("collecting: {error}")),
            }
        }
    }
    if all_go && many.past.lost_disks == 0 {
        many.fail(format!("segments are kept that nobody needs: {last}"));
    }
}
