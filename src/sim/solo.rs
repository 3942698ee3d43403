//! One device at a time, compared with a model of POSIX after every step: what a crash leaves is a state that its programs made, not
//! older than the last promise.

use crate::body::{End, Image};
use crate::cloud::Weather;
use crate::model::{Model, Tree};
use crate::program::Program;
use crate::sut;
use crate::world::{self, Machine, Outcome, World};
use std::time::Duration;

const SCENE: &str = "solo";
/// The tree is checked after so many steps.
const CHECKED: usize = 25;

/// The states since the last known one; those from `floor` on may be found after a crash.
struct History {
    states: Vec<Model>,
    floor: usize,
}

impl History {
    fn begin(model: &Model) -> Self {
        Self {
            states: vec![model.crashed()],
            floor: 0,
        }
    }

    fn push(&mut self, model: &Model) {
        self.states.push(model.crashed());
    }

    fn promise(&mut self) {
        self.floor = self.states.len() - 1;
    }

    fn find(&self, tree: &Tree) -> Option<Model> {
        let allowed = &self.states[self.floor..];
        allowed.iter().rev().find(|m| m.tree() == *tree).cloned()
    }
}

struct Solo<'a> {
    world: &'a World,
    program: Program,
    machine: Machine,
    history: History,
    device: usize,
    step: usize,
}

/// Lets the world of a seed happen.
pub(crate) fn solo(seed: u64, steps: usize) -> Outcome {
    world::run(seed, |world| {
        let program = Program::new(seed);
        let machine = start(world, 0, Image::default());
        let history = History::begin(&program.model);
        let mut solo = Solo {
            world,
            program,
            machine,
            history,
            device: 0,
            step: 0,
        };
        for step in 0..steps {
            solo.step = step;
            solo.act();
        }
        solo.end();
    })
}

/// Tries until it starts: the ways may be bad.
fn start(world: &World, device: usize, mut image: Image) -> Machine {
    for _ in 0..40 {
        match world.start(device, &image, Weather::drawn(&world.chance), false) {
            Ok(machine) => {
                world.check_tree(SCENE, &machine);
                return machine;
            }
            Err(error) => {
                let text = error.to_string();
                if !text.contains("simulated") {
                    world.fail(SCENE, format!("device {device} does not start: {error}"));
                }
                image = world.bodies[device].stop();
                world.pass(Duration::from_secs(30));
            }
        }
    }
    world.fail(SCENE, "the device never starts")
}

impl Solo<'_> {
    fn act(&mut self) {
        let chance = &self.world.chance;
        if chance.per_mille(120) {
            let end = if chance.coin() { End::Kill } else { End::Power };
            self.machine.body.plan(chance.below(40), end);
        }
        let what = self.program.step(&self.machine.fs);
        self.world.trace.count(|c| c.operations += 1);
        self.world.trace.note(format!("step {} {what}", self.step));
        let between = std::mem::take(&mut self.program.between);
        between.iter().for_each(|m| self.history.push(m));
        self.history.push(&self.program.model);
        self.beside();
        if !self.machine.is_alive() {
            return self.recover();
        }
        if let Err(difference) = self.program.compare(&self.machine.fs)
            && self.machine.is_alive()
        {
            self.world
                .fail(SCENE, format!("after {what}:\n{difference}"));
        }
        if !self.machine.is_alive() {
            self.recover();
        }
        if self.step.is_multiple_of(CHECKED) {
            self.world.check_tree(SCENE, &self.machine);
        }
    }

    /// What happens beside the programs.
    fn beside(&mut self) {
        let (world, chance) = (self.world, &self.world.chance);
        match chance.below(24) {
            0..=2 => self.fsync(),
            3 => self.sync(),
            4 => drop(self.machine.replica.flush()),
            5 | 6 => self.machine.publish(world),
            7 => self.machine.checkpoint(world, chance.coin()),
            8 => self.machine.poll(world),
            9 | 10 => world.pass(Duration::from_millis(1 + chance.below(2_000))),
            11 => world.pass(Duration::from_secs(1 + chance.below(60))),
            12 => self.machine.link.cut(Duration::from_secs(chance.below(40))),
            13 => drop(self.machine.data.journal().flush()),
            14 if chance.below(4) == 0 => {
                let by = [3600, 86_400, -3600][chance.below(3) as usize];
                self.machine.clock.jump(by * 1_000_000_000);
            }
            15 if chance.below(3) == 0 => {
                let end = if chance.coin() { End::Kill } else { End::Power };
                self.machine.body.crash(end, "at rest");
            }
            _ => {}
        }
    }

    fn fsync(&mut self) {
        let fs = &self.machine.fs;
        let done = match self.program.open.first() {
            Some(open) => {
                let done = fs.fsync(open.handle);
                self.program.model.tell(open.id);
                done
            }
            None => fs.fsync_dir(),
        };
        self.history.push(&self.program.model);
        match done {
            _ if !self.machine.is_alive() => {}
            Ok(()) => self.history.promise(),
            Err(error) => self.world.fail(SCENE, format!("fsync: {error}")),
        }
        self.world.trace.note("fsync");
    }

    fn sync(&mut self) {
        // Open files are told one after the other, in an order that is not the model's to know.
        let mut open: Vec<_> = self.program.open.iter().map(|open| open.id).collect();
        open.sort_unstable();
        open.dedup();
        for some in 1..(1_usize << open.len()) {
            let mut model = self.program.model.clone();
            let chosen = open.iter().enumerate().filter(|(n, _)| some >> n & 1 == 1);
            chosen.for_each(|(_, id)| model.tell(*id));
            self.history.push(&model);
        }
        let done = self.machine.sync();
        self.program.model.tell_all();
        self.history.push(&self.program.model);
        match done {
            _ if !self.machine.is_alive() => {}
            Ok(()) => self.history.promise(),
            Err(error) => self.world.fail(SCENE, format!("sync: {error}")),
        }
        self.world.trace.note("sync");
    }

    /// The device died: what it left must be a state that was, not before the last promise.
    fn recover(&mut self) {
        let chance = &self.world.chance;
        let Some((mut image, why)) = self.machine.body.take_image() else {
            self.world.fail(SCENE, "it died of nothing");
        };
        if chance.below(4) == 0 {
            image = image.without_cache();
        }
        self.program.open.clear();
        self.machine = start(self.world, self.device, image);
        let tree = sut::tree(&self.machine.fs).0;
        let Some(model) = self.history.find(&tree) else {
            let last = self
                .history
                .states
                .last()
                .map(Model::tree)
                .unwrap_or_default();
            let difference = sut::difference(&tree, &last);
            self.world.fail(
                SCENE,
                format!("step {}: {why} left no state after the last promise; to the last one:\n{difference}", self.step),
            );
        };
        self.program.model = model;
        self.history = History::begin(&self.program.model);
    }

    /// All goes well from now on: everything is on the storage, another device sees the same, and nothing is wrong with it.
    fn end(mut self) {
        self.machine.rest(self.world);
        if !self.machine.is_alive() {
            self.recover();
        }
        self.machine.body.no_plan();
        self.machine.link.heal();
        self.program.close_all(&self.machine.fs);
        if let Err(error) = self.machine.sync() {
            self.world.fail(SCENE, format!("sync at the end: {error}"));
        }
        let tree = self.program.model.tree();
        self.world.judge(SCENE, &mut self.machine, &tree);
        let all = [&self.machine];
        self.world.check_objects(SCENE, &self.machine, &all, false);
    }
}
