//! Trouble that is made on purpose, by streams of chance of its own: crashes at points that are chosen, and an hour without network.

use crate::body::End;
use crate::many::Many;
use crate::random::Chance;
use crate::world::{Machine, World};
use std::time::Duration;
use tokio::time::Instant;

/// After so many turns of a device it is to die at another point.
const TURNS: u64 = 10;
/// A point that was come by less often is rare.
const RARE: u64 = 50;
/// How long the network is away.
const AWAY: Duration = Duration::from_secs(3600);

/// At which points the devices of a world die.
pub(crate) struct Aim {
    chance: Chance,
    /// Of each player, after how many turns he dies elsewhere.
    left: Vec<u64>,
}

impl Aim {
    pub(crate) fn new(seed: u64, players: usize) -> Self {
        Self {
            chance: Chance::new(seed, "aim"),
            left: vec![0; players],
        }
    }

    /// Lets a device die at a point that was come by in this world and at which nobody has died yet in the same way, and starts what may
    /// bring it there. Every other time it is rather one of the rare points.
    pub(crate) fn take(&mut self, who: usize, machine: &mut Machine, world: &World) {
        let left = &mut self.left[who];
        *left = left.saturating_sub(1);
        if *left > 0 && machine.body.is_planned() {
            return;
        }
        *left = TURNS;
        let counts = world.trace.counts();
        let mut points: Vec<(u64, &str, End)> = Vec::new();
        for (point, times) in &counts.passed {
            for end in [End::Kill, End::Power] {
                if !counts.crashes.contains_key(&format!("{end:?} {point}")) {
                    points.push((*times, point.as_str(), end));
                }
            }
        }
        points.sort_by_key(|(times, ..)| *times);
        let mut among = points.len() as u64;
        if self.chance.coin() {
            among = self.chance.below(among) + 1;
        }
        let nth = self.chance.below(among) as usize;
        let Some((times, point, end)) = points.get(nth) else {
            return machine.body.no_plan();
        };
        let lives = if *times < RARE {
            0
        } else {
            self.chance.below(4)
        };
        machine.body.plan_at(point, lives, *end);
        world.trace.note(format!(
            "{} is to die: {end:?} {point}",
            machine.body.device
        ));
        let is_about = |all: &[&str]| all.iter().any(|what| point.ends_with(*what));
        if is_about(&["pages", "checkpoints"]) {
            machine.checkpoint(world, true);
        } else if is_about(&["list segments", "delete segments"]) {
            drop(machine.fs.collect());
        } else {
            machine.publish(world);
        }
    }
}

/// Whether there is such an hour: in worlds of fixed seeds, and by `SKRIN_AWAY` in all (docs/simulation.md says what it finds).
pub(crate) fn is_network_taken(seed: u64) -> bool {
    seed < 1000 || std::env::var_os("SKRIN_AWAY").is_some()
}

/// An hour without network for one device, for two, or for all. Programs go on, on two of them at the least, and devices die, start and
/// are shut down. Then all ways are there again.
pub(crate) fn without_network(many: &mut Many<'_>) {
    let (world, count) = (many.world, many.count() as u64);
    let chance = Chance::new(world.seed, "without network");
    let first = chance.below(count) as usize;
    let one_more = chance.below(count) as usize;
    let all = chance.below(4) == 0;
    let until = Instant::now() + AWAY;
    for who in (0..many.count()).filter(|who| all || *who == first || *who == one_more) {
        world.cloud.take_away(many.device(who), until);
        world.trace.note(format!("{who} has no network"));
    }
    let before: Vec<usize> = (0..many.count()).map(|w| many.acknowledged(w)).collect();
    // Whoever has none, and somebody else, who may have it.
    for who in [first, (first + 1) % many.count()] {
        turn(many, who, 0, &chance);
    }
    while Instant::now() < until {
        world.pass(Duration::from_secs(chance.below(300)));
        let who = chance.below(count) as usize;
        turn(many, who, chance.below(60), &chance);
    }
    let wrote = (0..many.count()).filter(|who| many.acknowledged(*who) > before[*who]);
    let name = match wrote.count() {
        0 | 1 => "an hour without network",
        _ => "an hour without network, two wrote",
    };
    world.trace.event(name, first.to_string());
}

fn turn(many: &mut Many<'_>, who: usize, what: u64, chance: &Chance) {
    let world = many.world;
    many.settle_death(who);
    if many.machine(who).is_none() && !many.start(who) {
        return;
    }
    world.trace.note(format!("away: {what} of {who}"));
    match what {
        0..=44 => many.call(who, what),
        54..=56 => many.shut_down(who),
        _ => {
            let end = if chance.coin() { End::Kill } else { End::Power };
            match many.machine_mut(who) {
                Some(machine) if what < 50 => machine.publish(world),
                Some(machine) if what < 54 => machine.poll(world),
                Some(machine) => machine.body.crash(end, "at rest"),
                None => {}
            }
        }
    }
    many.settle_death(who);
}
