//! Several devices at once, each with its own program, over one storage. Files are lists of lines; each line is written once in the
//! life of a world and names its writer, so that it can be said of every byte where it comes from, and of every line that was
//! acknowledged whether it is still there.

use crate::body::{End, Image};
use crate::cloud::Weather;
use crate::past::{self, Past};
use crate::people;
use crate::random::{Chance, mix};
use crate::sut::{self, CALLER};
use crate::trouble::{self, Aim};
use crate::world::{self, Machine, Outcome, World};
use skrin_base::limits::{BLOCK_LEN, RUNS_TOLD_MAX};
use skrin_base::{Clock, Timestamp};
use skrin_fs::{Fs, FsError, NodeId, OpenMode, RenameMode, SetAttr, Shutdown};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What a line begins with, in bytes.
const HEAD: usize = 24;
/// As much as the tree itself holds of a file.
const INLINE: usize = 2_048;
/// Devices from this one on are for those who only look.
const LAST_DEVICE: usize = 10;
/// Trees are checked after so many steps.
const CHECKED: usize = 25;
/// Of so many times that all agree, somebody new looks on once.
const LOOKS_ON: u64 = 3;
/// Lines in blocks that are no neighbours: more than a write names as a whole.
const SCATTERED: usize = RUNS_TOLD_MAX + 6;
const NAMES: [&[u8]; 6] = [b"a", b"b", b"c.txt", b"d", b"e", b"f.docx"];

/// A line: who wrote it, and which of his it is.
pub(crate) type Line = (usize, u64);

/// What else happens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Play {
    Many,
    /// Programs look back, too.
    Past,
    /// People remove each other.
    People,
    /// Devices die at points that are chosen; every other world looks back, too.
    Points,
}

impl Play {
    fn name(self) -> &'static str {
        match self {
            Self::Many => "many",
            Self::Past => "past",
            Self::People => "people",
            Self::Points => "points",
        }
    }
}

/// What is known of the lines.
#[derive(Default)]
struct Ledger {
    /// Each line that was ever written.
    written: BTreeMap<Line, Vec<u8>>,
    /// Acknowledged; what is on the storage for sure is in `remote` too.
    acked: BTreeSet<Line>,
    remote: BTreeSet<Line>,
    /// Taken away by a program that had read them.
    removed: BTreeSet<Line>,
    /// Gone with a disk, before the storage had them, or with a removal, before all had them.
    lost: BTreeSet<Line>,
    /// All devices have had them.
    settled: BTreeSet<Line>,
}

/// A device and what its program is about.
struct Player {
    machine: Option<Machine>,
    /// What it starts with.
    image: Image,
    device: usize,
    next: u64,
    /// Lines of this run that nothing was promised of yet.
    waiting: Vec<Line>,
    backup: Option<Image>,
}

pub(crate) struct Many<'a> {
    pub(crate) world: &'a World,
    players: Vec<Player>,
    ledger: Ledger,
    /// Devices whose state was replaced by an older one.
    restored: BTreeSet<usize>,
    /// The next device that was never used.
    fresh: usize,
    play: Play,
    /// Where programs look back, too.
    looks_back: bool,
    /// Where people remove each other: who was removed and did not come back yet.
    removes: bool,
    /// Where devices die at points that are chosen.
    aim: Option<Aim>,
    /// When somebody new looks on.
    looks_on: Chance,
    pub(crate) gone: Vec<bool>,
    pub(crate) past: Past,
}

/// Lets the world of a seed happen.
pub(crate) fn many(seed: u64, steps: usize, play: Play) -> Outcome {
    let looks_back = play == Play::Past || play == Play::Points && seed % 2 == 1;
    world::run(seed, |world| {
        let removes = play == Play::People;
        let count = 2 + usize::from(removes) + world.chance.below(2) as usize;
        let player = |device| Player {
            machine: None,
            image: Image::default(),
            device,
            next: 0,
            waiting: Vec::new(),
            backup: None,
        };
        let mut many = Many {
            world,
            players: (0..count).map(player).collect(),
            ledger: Ledger::default(),
            restored: BTreeSet::new(),
            fresh: count,
            play,
            looks_back,
            removes,
            aim: (play == Play::Points).then(|| Aim::new(seed, count)),
            looks_on: Chance::new(seed, "looks on"),
            gone: vec![false; count],
            past: Past::default(),
        };
        if looks_back {
            past::begin(&mut many);
        }
        for step in 0..steps {
            let who = world.chance.below(count as u64) as usize;
            many.act(who, step);
            if looks_back && world.chance.per_mille(150) {
                past::act(&mut many, who, step);
                many.settle_death(who);
            }
            if removes && world.chance.per_mille(100) {
                people::act(&mut many, who);
                many.settle_death(who);
            }
            if world.chance.per_mille(8) {
                many.converge();
                many.look_on();
            }
            if step.is_multiple_of(CHECKED) {
                many.check_trees();
            }
        }
        if play == Play::Many && trouble::is_network_taken(world.seed) {
            trouble::without_network(&mut many);
        }
        many.converge();
        if looks_back {
            past::clear(&mut many);
        }
        many.end();
    })
}

fn line(line: Line, len: usize) -> Vec<u8> {
    let head = format!("{:03} {:010} {:07}\n", line.0, line.1, len);
    let mut out = head.into_bytes();
    let chance = Chance::new(mix(line.0 as u64, "line"), &line.1.to_string());
    while out.len() < len {
        out.extend(chance.draw().to_le_bytes());
    }
    out.truncate(len);
    out
}

impl Ledger {
    /// The lines of a file and where they begin; every byte must be one that was written, or lie in a hole before a block.
    fn parse(&self, bytes: &[u8]) -> Result<Vec<(u64, Line)>, String> {
        let (mut rest, mut lines) = (bytes, Vec::new());
        while !rest.is_empty() {
            let at = bytes.len() - rest.len();
            let zeros = rest.iter().take_while(|byte| **byte == 0).count();
            if zeros > 0 && (at + zeros).is_multiple_of(BLOCK_LEN) {
                rest = &rest[zeros..];
                continue;
            }
            let head = rest.get(..HEAD.min(rest.len())).unwrap_or_default();
            let text = String::from_utf8_lossy(head).into_owned();
            let mut words = text.split_ascii_whitespace().map(str::parse::<u64>);
            let (Some(Ok(device)), Some(Ok(n)), Some(Ok(len))) =
                (words.next(), words.next(), words.next())
            else {
                return Err(format!("no line at {at} of {}: {text:?}", bytes.len()));
            };
            let (id, len) = ((device as usize, n), len as usize);
            let written = self.written.get(&id);
            if written.is_none() || rest.get(..len) != written.map(Vec::as_slice) {
                return Err(format!("line {id:?} is not what was written"));
            }
            lines.push((at as u64, id));
            rest = &rest[len..];
        }
        Ok(lines)
    }
}

impl Many<'_> {
    fn scene(&self) -> &'static str {
        self.play.name()
    }

    /// A device that runs.
    pub(crate) fn machine(&self, who: usize) -> Option<&Machine> {
        self.players.get(who)?.machine.as_ref()
    }

    pub(crate) fn machine_mut(&mut self, who: usize) -> Option<&mut Machine> {
        self.players.get_mut(who)?.machine.as_mut()
    }

    pub(crate) fn device(&self, who: usize) -> usize {
        self.players[who].device
    }

    /// Whether there is another device for whoever needs one.
    pub(crate) fn may_come_back(&self) -> bool {
        let gone = self.gone.iter().filter(|gone| **gone).count();
        self.fresh + gone < LAST_DEVICE
    }

    /// What a removed device wrote and not all have seen may count for nothing.
    pub(crate) fn lose_unsettled(&mut self, who: usize) {
        let device = self.players[who].device;
        let ledger = &mut self.ledger;
        let mine = ledger.written.keys().filter(|line| line.0 == device);
        let unsettled = mine.filter(|line| !ledger.settled.contains(line));
        ledger.lost.extend(unsettled.copied());
    }

    /// A player goes on with another device.
    pub(crate) fn begin_anew(&mut self, who: usize, image: Image) {
        self.lose_unsettled(who);
        let player = &mut self.players[who];
        self.world.bodies[player.device].stop();
        (player.machine, player.image, player.device) = (None, image, self.fresh);
        self.fresh += 1;
    }

    pub(crate) fn fail(&self, what: impl AsRef<str>) -> ! {
        self.world.fail(self.scene(), what)
    }

    /// The file system of a device that runs.
    pub(crate) fn fs(&self, who: usize) -> Option<Arc<Fs>> {
        let machine = self.players.get(who)?.machine.as_ref()?;
        Some(Arc::clone(&machine.fs))
    }

    /// The time by the clock of a device that runs.
    pub(crate) fn now(&self, who: usize) -> Option<Timestamp> {
        Some(self.players.get(who)?.machine.as_ref()?.clock.now())
    }

    pub(crate) fn count(&self) -> usize {
        self.players.len()
    }

    pub(crate) fn is_removed(&self, line: &Line) -> bool {
        self.ledger.removed.contains(line)
    }

    /// A program may have taken away any of the lines that there are.
    pub(crate) fn remove_all_lines(&mut self) {
        let ledger = &mut self.ledger;
        ledger.removed.extend(ledger.written.keys());
    }

    pub(crate) fn below(&self, n: u64) -> u64 {
        self.world.chance.below(n)
    }

    /// How many lines of a device were acknowledged.
    pub(crate) fn acknowledged(&self, who: usize) -> usize {
        let device = self.players[who].device;
        let acked = self.ledger.acked.iter();
        acked.filter(|line| line.0 == device).count()
    }

    /// `verify` by somebody new while all agree, now and then.
    fn look_on(&self) {
        if self.looks_on.below(LOOKS_ON) == 0 {
            self.world.look_on(self.scene());
        }
    }

    fn check_trees(&self) {
        let machines = self.players.iter().filter_map(|p| p.machine.as_ref());
        machines.for_each(|machine| self.world.check_tree(self.scene(), machine));
    }

    fn an_end(&self) -> End {
        if self.world.chance.coin() {
            End::Kill
        } else {
            End::Power
        }
    }

    fn act(&mut self, who: usize, step: usize) {
        self.settle_death(who);
        if self.players[who].machine.is_none() && !self.start(who) {
            return self.world.pass(Duration::from_secs(5));
        }
        let end = self.an_end();
        let (planned, moments) = (self.world.chance.per_mille(60), self.below(50));
        let what = self.below(100);
        let Some(machine) = &mut self.players[who].machine else {
            return;
        };
        match &mut self.aim {
            Some(aim) => aim.take(who, machine, self.world),
            None if planned => machine.body.plan(moments, end),
            None => {}
        }
        self.world
            .trace
            .note(format!("step {step} of {who}: {what}"));
        let world = self.world;
        match what {
            0..=44 => self.call(who, what),
            45..=56 => machine.publish(world),
            57..=68 => machine.poll(world),
            69 | 70 => machine.checkpoint(world, what == 69),
            71..=75 => drop(machine.fs.house_step()),
            76..=84 => world.pass(Duration::from_millis(1 + world.chance.below(1_500))),
            85..=88 => world.pass(Duration::from_secs(1 + world.chance.below(20))),
            89 => world.pass(Duration::from_secs(world.chance.below(100_000))),
            90 | 91 => machine
                .link
                .cut(Duration::from_secs(world.chance.below(120))),
            92 => machine
                .clock
                .jump([3600, 86_400, -3600][what as usize % 3] * 1_000_000_000),
            93 => drop(machine.replica.flush()),
            94 | 95 => machine.body.crash(end, "at rest"),
            96 => self.sync(who),
            97 => self.shut_down(who),
            // Not by default: restored without the storage it still puts other bytes under names that are taken (docs/simulation.md).
            98 if std::env::var_os("SKRIN_BACKUPS").is_some() => {
                self.players[who].backup = Some(world.bodies[self.players[who].device].backup());
            }
            98 => {}
            // Whoever looks back waits for those who are gone.
            _ if !self.looks_back || world.chance.below(8) == 0 => self.lose_disk(who),
            _ => {}
        }
        self.settle_death(who);
    }

    /// A device that died is down until its next turn.
    pub(crate) fn settle_death(&mut self, who: usize) {
        let player = &mut self.players[who];
        let Some(machine) = &player.machine else {
            return;
        };
        let Some((image, _)) = machine.body.take_image() else {
            return;
        };
        player.machine = None;
        player.image = match self.world.chance.below(5) {
            0 => image.without_cache(),
            _ => image,
        };
    }

    /// Starts a device that is down; whether it runs.
    pub(crate) fn start(&mut self, who: usize) -> bool {
        let weather = Weather::drawn(&self.world.chance);
        let player = &mut self.players[who];
        match self
            .world
            .start(player.device, &player.image, weather, false)
        {
            Ok(machine) => {
                player.waiting.clear();
                self.world.check_tree(self.play.name(), &machine);
                player.machine = Some(machine);
                true
            }
            Err(error) => {
                let died = self.world.bodies[player.device].take_image();
                player.image = match died {
                    Some((image, _)) => image,
                    None => self.world.bodies[player.device].stop(),
                };
                if !error.to_string().contains("simulated") {
                    self.give_up_clone(who, &error.to_string());
                }
                false
            }
        }
    }

    /// The disk is gone, or an old copy of it comes back: what only it had is gone. A new disk is a new device.
    fn lose_disk(&mut self, who: usize) {
        // What the storage has of somebody who was removed counts for nothing either.
        if self.gone[who] {
            self.lose_unsettled(who);
        }
        let may_come_back = self.may_come_back();
        let player = &mut self.players[who];
        let device = player.device;
        self.world.bodies[device].stop();
        player.machine = None;
        let mine = |line: &&Line| line.0 == device;
        let here = self.ledger.acked.iter().filter(mine);
        let lost: Vec<Line> = here
            .filter(|l| !self.ledger.remote.contains(l))
            .copied()
            .collect();
        self.ledger.lost.extend(lost);
        match player.backup.take() {
            Some(backup) => {
                self.world.trace.event("restored", device.to_string());
                self.restored.insert(device);
                player.image = backup;
            }
            None if may_come_back => {
                self.world.trace.event("disk lost", device.to_string());
                self.past.lost_disks += 1;
                player.image = Image::default();
                player.device = self.fresh;
                self.fresh += 1;
                // Nobody has removed that one.
                self.gone[who] = false;
            }
            None => player.image = self.world.bodies[device].stop(),
        }
    }

    /// A restored copy that numbered changes as its later life did before it could know: the device says so, and that it must be made anew.
    fn give_up_clone(&mut self, who: usize, error: &str) {
        let device = self.players[who].device;
        let restored = self.restored.contains(&device);
        // The second: without the storage it went on in its old lane, and its segments have names that are taken.
        let known = ["another copy of this device", "its hash is not the one"];
        let known = known.iter().any(|text| error.contains(text));
        if !restored || !self.may_come_back() || !known {
            self.fail(format!("device {device}: {error}"));
        }
        self.world.trace.event("clone given up", device.to_string());
        self.players[who].backup = None;
        self.lose_disk(who);
    }

    pub(crate) fn shut_down(&mut self, who: usize) {
        let player = &mut self.players[who];
        let Some(mut machine) = player.machine.take() else {
            return;
        };
        machine.rest(self.world);
        let done = machine.fs.shutdown(Shutdown::LeaveInJournal);
        self.world
            .trace
            .event("shutdown", format!("{}: {done:?}", player.device));
        player.image = match machine.body.take_image() {
            Some((image, _)) => image,
            // A clean end is a promise, too.
            None if done.is_ok() => {
                self.ledger.acked.extend(player.waiting.drain(..));
                machine.body.stop()
            }
            None => machine.body.stop(),
        };
    }

    fn sync(&mut self, who: usize) {
        let Some(machine) = &self.players[who].machine else {
            return;
        };
        let done = machine.sync();
        if machine.is_alive() && done.is_ok() {
            self.promise_all(who);
        }
        self.world.trace.note(format!("sync {}", done.is_ok()));
    }

    /// Everything that a device has is on the storage.
    fn promise_all(&mut self, who: usize) {
        let player = &mut self.players[who];
        self.ledger.acked.extend(player.waiting.drain(..));
        let mine = self.ledger.acked.iter().filter(|l| l.0 == player.device);
        let mine: Vec<Line> = mine.copied().collect();
        self.ledger.remote.extend(mine);
    }

    /// One call of a program; errors of a bad storage are its bad luck.
    pub(crate) fn call(&mut self, who: usize, what: u64) {
        self.world.trace.count(|c| c.operations += 1);
        let Some(machine) = &self.players[who].machine else {
            return;
        };
        let fs = machine.fs.clone();
        let done = match what {
            0..=17 => self.append(&fs, who, false),
            18..=21 => self.append(&fs, who, true),
            22..=27 => self.remove(&fs),
            28..=37 => self.rename(&fs),
            38..=40 => self.change_dir(&fs, what == 40),
            41 => self.link(&fs),
            42 => fs.fsync_dir(),
            _ => self.look(&fs),
        };
        if let Err(error) = done {
            self.world.trace.note(format!("call {what}: {error}"));
        }
    }

    fn a_dir(&self, fs: &Fs) -> Result<NodeId, FsError> {
        let dirs: Vec<_> = places(fs)?.into_iter().filter(|p| p.2).collect();
        let nth = self.below(dirs.len() as u64 + 1) as usize;
        match dirs.get(nth) {
            Some((dir, name, _)) => child(fs, *dir, name),
            None => Ok(NodeId::ROOT),
        }
    }

    pub(crate) fn a_name(&self) -> &'static [u8] {
        NAMES[self.below(NAMES.len() as u64) as usize]
    }

    /// A name that leads to something, mostly; whether to a directory.
    fn a_place(&self, fs: &Fs) -> Result<(NodeId, Vec<u8>, bool), FsError> {
        let all = places(fs)?;
        let nth = self.below(all.len() as u64) as usize;
        all.into_iter().nth(nth).ok_or(FsError::NotFound)
    }

    /// Adds a line to a file, or begins it anew with one; acknowledged by fsync, mostly.
    fn append(&mut self, fs: &Fs, who: usize, anew: bool) -> Result<(), FsError> {
        let (dir, name) = match self.a_place(fs) {
            Ok((dir, name, false)) if self.below(3) > 0 => (dir, name),
            _ => (self.a_dir(fs)?, self.a_name().to_vec()),
        };
        let how = OpenMode {
            write: true,
            truncate: false,
        };
        let (attr, handle) = fs.create(dir, &name, 0o644, false, how, &CALLER)?;
        let done = self.append_to(fs, who, (attr.node, handle), anew);
        let released = fs.release(handle);
        fs.forget(attr.node, 1);
        done.and(released)
    }

    fn append_to(
        &mut self,
        fs: &Fs,
        who: usize,
        (node, handle): (NodeId, skrin_fs::HandleId),
        anew: bool,
    ) -> Result<(), FsError> {
        let old = read_handle(fs, handle)?;
        let known = self.lines_at(&old, "an open file");
        let mut at = old.len() as u64;
        let mut lens = vec![HEAD + [0, 10, 3_000, 70_000, 200_000][self.below(5) as usize]];
        // Contents in segments that only a removed device declares cannot be read any more: people keep short notes.
        if self.removes {
            lens = vec![HEAD + lens[0] % 40];
        }
        let anew = anew || self.removes && old.len() + lens[0] > INLINE;
        let some = self.below(known.len() as u64) as usize;
        match self.below(40) {
            // So many places that the next change names only what it changes.
            0 if !anew && !self.removes && old.len() < 4 << 20 => {
                lens = vec![HEAD + 10; SCATTERED];
                at = at.next_multiple_of(2 * BLOCK_LEN as u64);
            }
            // A line in the place of another one.
            1..=12 if !anew && !known.is_empty() => {
                let (place, line) = known[some];
                lens = vec![self.ledger.written[&line].len()];
                self.ledger.removed.insert(line);
                at = place;
            }
            _ => {}
        }
        if anew {
            let known = known.into_iter().map(|(_, line)| line);
            let none = SetAttr {
                size: Some(0),
                ..SetAttr::default()
            };
            self.ledger.removed.extend(known);
            fs.setattr(node, &none)?;
            at = 0;
        }
        let mut ids = Vec::new();
        for len in lens {
            let id = (self.players[who].device, self.players[who].next);
            self.players[who].next += 1;
            self.ledger.written.insert(id, line(id, len));
            fs.write(handle, at, &self.ledger.written[&id])?;
            at += 2 * BLOCK_LEN as u64;
            self.players[who].waiting.push(id);
            ids.push(id);
        }
        if self.below(4) == 0 {
            return Ok(());
        }
        fs.fsync(handle)?;
        if self.alive(who) {
            self.world.trace.note(format!("acknowledged {ids:?}"));
            self.ledger.acked.extend(ids);
        }
        Ok(())
    }

    pub(crate) fn alive(&self, who: usize) -> bool {
        let machine = self.players[who].machine.as_ref();
        machine.is_some_and(Machine::is_alive)
    }

    pub(crate) fn parse(&self, bytes: &[u8], what: &str) -> Vec<Line> {
        let lines = self.lines_at(bytes, what).into_iter();
        lines.map(|(_, line)| line).collect()
    }

    fn lines_at(&self, bytes: &[u8], what: &str) -> Vec<(u64, Line)> {
        match self.ledger.parse(bytes) {
            Ok(lines) => lines,
            Err(wrong) => self.fail(format!("{what}: {wrong}")),
        }
    }

    /// What a program is about to take away it has read, at the same moment.
    fn read_to_remove(&mut self, fs: &Fs, dir: NodeId, name: &[u8]) -> Result<(), FsError> {
        for _ in 0..5 {
            let before = self.world.time();
            let Ok(node) = child(fs, dir, name) else {
                return Ok(());
            };
            if fs.getattr(node)?.kind != skrin_fs::Kind::File {
                return Ok(());
            }
            let bytes = read_node(fs, node)?;
            if self.world.time() == before {
                let lines = self.parse(&bytes, "a file to remove");
                self.ledger.removed.extend(lines);
                return Ok(());
            }
        }
        Err(FsError::Stale)
    }

    fn remove(&mut self, fs: &Fs) -> Result<(), FsError> {
        let (dir, name, is_dir) = self.a_place(fs)?;
        if is_dir {
            return fs.rmdir(dir, &name);
        }
        self.read_to_remove(fs, dir, &name)?;
        fs.unlink(dir, &name)
    }

    fn rename(&mut self, fs: &Fs) -> Result<(), FsError> {
        let (dir, name, _) = self.a_place(fs)?;
        let (to, to_name) = match (self.below(2), self.a_place(fs)) {
            (0, Ok((to, to_name, _))) => (to, to_name),
            _ => (self.a_dir(fs)?, self.a_name().to_vec()),
        };
        let mode = match self.below(6) {
            0 => RenameMode::Exchange,
            1 => RenameMode::NoReplace,
            _ => RenameMode::Replace,
        };
        if mode == RenameMode::Replace && (dir, &name) != (to, &to_name) {
            self.read_to_remove(fs, to, &to_name)?;
        }
        fs.rename(dir, &name, to, &to_name, mode)
    }

    fn change_dir(&self, fs: &Fs, attributes: bool) -> Result<(), FsError> {
        let dir = self.a_dir(fs)?;
        if attributes {
            let set = SetAttr {
                mode: Some(0o700 + self.below(8) as u16),
                ..SetAttr::default()
            };
            return fs.setattr(dir, &set).map(drop);
        }
        let attr = fs.mkdir(dir, self.a_name(), 0o755, &CALLER)?;
        fs.forget(attr.node, 1);
        Ok(())
    }

    fn link(&self, fs: &Fs) -> Result<(), FsError> {
        let (dir, name, is_dir) = self.a_place(fs)?;
        if is_dir {
            return Ok(());
        }
        let node = child(fs, dir, &name)?;
        let attr = fs.link(node, self.a_dir(fs)?, self.a_name())?;
        fs.forget(attr.node, 1);
        Ok(())
    }

    /// Reads a file: whatever the others do, it holds whole lines.
    fn look(&self, fs: &Fs) -> Result<(), FsError> {
        let (dir, name, is_dir) = self.a_place(fs)?;
        if is_dir {
            return Ok(());
        }
        let bytes = read_node(fs, child(fs, dir, &name)?)?;
        self.parse(&bytes, "a file");
        Ok(())
    }

    /// All ways are good, all devices run: they come to the same tree, in which everything is.
    pub(crate) fn converge(&mut self) {
        for who in 0..self.players.len() {
            people::come_back(self, who);
            self.bring_up(who);
            if let Some(machine) = self.machine(who).filter(|_| self.removes) {
                self.world.tell(machine);
            }
        }
        for round in 0.. {
            for who in 0..self.players.len() {
                let synced = self.players[who].machine.as_ref().map(Machine::sync);
                if let Some(Err(error)) = synced {
                    self.give_up_clone(who, &error.to_string());
                    self.bring_up(who);
                }
                let player = &self.players[who];
                let Some(machine) = &player.machine else {
                    continue;
                };
                if let Err(error) = machine.fs.poll() {
                    self.world
                        .fail(self.scene(), format!("poll of {}: {error}", player.device));
                }
            }
            let machines = self.players.iter().filter_map(|p| p.machine.as_ref());
            let digests: Vec<_> = machines.map(|m| m.replica.digest().unwrap()).collect();
            if digests.windows(2).all(|pair| pair[0] == pair[1]) {
                break;
            }
            if round == 6 {
                self.fail(format!("the devices do not agree: {digests:?}"));
            }
        }
        let mut trees = Vec::new();
        for player in &self.players {
            if let Some(machine) = &player.machine {
                trees.push(sut::tree(&machine.fs));
            }
        }
        for pair in trees.windows(2) {
            if pair[0] != pair[1] {
                self.fail(format!(
                    "trees differ:\n{}",
                    sut::difference(&pair[0].0, &pair[1].0)
                ));
            }
        }
        let Some((tree, _)) = trees.first() else {
            return;
        };
        for who in 0..self.players.len() {
            if let Some(fs) = self.fs(who) {
                past::check(self, &fs);
            }
            if let Some(machine) = self.machine(who) {
                people::check(self, machine);
            }
        }
        let mut found = BTreeSet::new();
        for (path, seen) in tree.iter().filter(|(_, seen)| seen.kind == "file") {
            found.extend(self.parse(&seen.data, &format!("{path:?}")));
        }
        let ledger = &mut self.ledger;
        let missing = |l: &&Line| {
            !found.contains(l) && !ledger.removed.contains(l) && !ledger.lost.contains(l)
        };
        let gone: Vec<&Line> = ledger.acked.iter().filter(missing).collect();
        if !gone.is_empty() {
            let gone = format!("acknowledged lines are gone: {gone:?}");
            self.fail(gone);
        }
        ledger.remote.extend(ledger.acked.iter().copied());
        ledger.settled.extend(&ledger.acked);
        self.world
            .trace
            .event("converged", format!("{} lines", found.len()));
    }

    fn bring_up(&mut self, who: usize) {
        for _ in 0..20 {
            self.settle_death(who);
            if self.players[who].machine.is_none() && !self.start(who) {
                self.world.pass(Duration::from_secs(60));
                continue;
            }
            let Some(machine) = &mut self.players[who].machine else {
                continue;
            };
            machine.body.no_plan();
            machine.link.heal();
            machine.rest(self.world);
            if machine.is_alive() {
                return;
            }
        }
        self.fail("a device does not come up")
    }

    fn end(mut self) {
        let Some(mut machine) = self.players.first_mut().and_then(|p| p.machine.take()) else {
            return;
        };
        let tree = sut::tree(&machine.fs).0;
        self.world.judge(self.scene(), &mut machine, &tree);
        let others = self.players.iter().filter_map(|p| p.machine.as_ref());
        let all: Vec<&Machine> = others.chain([&machine]).collect();
        let is_clear = self.past.is_clear;
        self.world
            .check_objects(self.scene(), &machine, &all, is_clear);
    }
}

/// The node of a name; the kernel's reference is given back at once.
fn child(fs: &Fs, dir: NodeId, name: &[u8]) -> Result<NodeId, FsError> {
    let attr = fs.lookup(dir, name)?;
    fs.forget(attr.node, 1);
    Ok(attr.node)
}

/// All names in the tree: in which directory, and whether it leads to one.
pub(crate) fn places(fs: &Fs) -> Result<Vec<(NodeId, Vec<u8>, bool)>, FsError> {
    let (mut all, mut todo) = (Vec::new(), vec![NodeId::ROOT]);
    while let Some(dir) = todo.pop() {
        for entry in fs.readdir(dir, skrin_fs::PARENT_COOKIE, usize::MAX, false)? {
            let node = child(fs, dir, &entry.name)?;
            let is_dir = fs.getattr(node)?.kind == skrin_fs::Kind::Dir;
            if is_dir {
                todo.push(node);
            }
            all.push((dir, entry.name, is_dir));
        }
    }
    all.sort();
    Ok(all)
}

pub(crate) fn read_node(fs: &Fs, node: NodeId) -> Result<Vec<u8>, FsError> {
    let handle = fs.open_node(node, OpenMode::default())?;
    let read = read_handle(fs, handle);
    fs.release(handle)?;
    read
}

fn read_handle(fs: &Fs, handle: skrin_fs::HandleId) -> Result<Vec<u8>, FsError> {
    let mut out = Vec::new();
    loop {
        let part = fs.read(handle, out.len() as u64, 1 << 20)?;
        if part.is_empty() {
            return Ok(out);
        }
        out.extend(part);
    }
}
