//! Power cuts: the local state lies on a disk that remembers what it was told when, the storage on another one. At each flush, and between two, what
//! would be left of them is mounted, and has what was promised until then.
//!
//! A few cuts in the gate. At every flush, and once more with some of what came after it:
//! `SKRIN_POWER_CUTS=all SKRIN_EVIDENCE=/tmp SKRIN_MOUNT_SECONDS=7200 cargo test --test blackbox power -- --nocapture`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::disk::{Disks, Recorded, some};
use crate::harness::{Dice, Mount, Run, Vault};
use crate::load::{Load, NOW, Writer, dir_of, writers};
use crate::storages::On;

const STATE: usize = 0;
const STORAGE: usize = 1;
const SIZE: u64 = 1 << 30;
/// Cuts in the gate.
const CUTS: usize = 8;
/// Promises between a mount and the next one.
const PROMISES: usize = 60;
/// After one in so many cuts everything is uploaded, and a fresh device must have it too.
const FRESH_EVERY: usize = 8;

/// A vault on one disk and its state on another one, wherever they are mounted.
struct Place<'a> {
    vault: &'a Vault,
    storage: PathBuf,
    state: PathBuf,
}

impl<'a> Place<'a> {
    fn new(vault: &'a Vault, state: &Path, storage: &Path) -> Self {
        Self {
            vault,
            storage: storage.join("vault"),
            state: state.join("state"),
        }
    }

    /// A command on the vault, opened by its words.
    fn skrin(&self, verb: &str) -> Command {
        let mut command = self.vault.skrin(&[verb]);
        command.arg(&self.storage).arg("--words-file");
        command.arg(self.vault.words_file());
        command
    }

    fn mount(&self, device: &str, state: &Path) -> Mount<'a> {
        let point = self.vault.point(device);
        let mut mount = self.skrin("mount");
        mount.arg("--state-dir").arg(state).arg(&point).output_ok();
        Mount::adopt(self.vault, point)
    }
}

/// What was written, and what reached the disks meanwhile.
struct Story {
    vault: Vault,
    writers: Vec<Box<dyn Writer>>,
    recorded: Recorded,
    /// When the vault was there.
    begun: u64,
}

impl Story {
    /// Writes through three mounts, one after the other.
    fn record(promises: usize) -> Self {
        let disks = Disks::new(2, SIZE);
        let vault = Vault::without_init(On::Local);
        let place = Place::new(&vault, disks.at(STATE), disks.at(STORAGE));
        place.skrin("init").output_ok();
        let clock = || disks.time();
        let begun = clock();
        let mut writers = writers(200);
        for unmount in [Some(&["--now"][..]), Some(&[]), None] {
            let mount = place.mount("a", &place.state);
            for number in 0..writers.len() {
                std::fs::create_dir_all(dir_of(mount.path(), number)).unwrap();
            }
            let load = Load {
                root: mount.path(),
                clock: &clock,
                beside: &|_| {},
                promises,
            };
            load.run(&mut writers, |_| {});
            let Some(options) = unmount else {
                mount.crash();
                break;
            };
            writers.iter_mut().for_each(|writer| writer.close());
            mount.unmount_with(options);
            writers.iter_mut().for_each(|writer| writer.settle(&clock));
        }
        Self {
            recorded: disks.stop(),
            vault,
            writers,
            begun,
        }
    }

    /// Cuts the power, and starts again with what is left.
    fn cut(&mut self, time: u64, keeps: impl FnMut(usize) -> bool, fresh: bool) {
        let left = self.recorded.cut(time, keeps);
        let place = Place::new(&self.vault, &left[STATE].at, &left[STORAGE].at);
        let mount = place.mount("a", &place.state);
        self.check(mount.path(), time);
        if !fresh {
            return mount.crash();
        }
        mount.unmount();
        place.skrin("verify").arg("--data").output_ok();
        let state = self.vault.path("state-fresh");
        let mount = place.mount("fresh", &state);
        self.check(mount.path(), time);
        mount.unmount();
        std::fs::remove_dir_all(state).unwrap();
    }

    /// Before the first promise nothing that was promised later is there, and each writer misses it.
    fn assert_each_misses_what_is_not_there(&mut self) {
        let left = self.recorded.cut(self.begun, |_| true);
        let place = Place::new(&self.vault, &left[STATE].at, &left[STORAGE].at);
        let mount = place.mount("a", &place.state);
        for (number, writer) in self.writers.iter().enumerate() {
            let wrong = writer.check(&dir_of(mount.path(), number), NOW);
            assert!(wrong.is_err(), "writer {number} misses nothing");
        }
        mount.crash();
    }

    fn check(&self, mount: &Path, cut: u64) {
        for (number, writer) in self.writers.iter().enumerate() {
            if let Err(wrong) = writer.check(&dir_of(mount, number), cut) {
                panic!("cut at {cut}, writer {number}: {wrong}");
            }
        }
        for entry in std::fs::read_dir(mount).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(name.starts_with("writer-"), "cut at {cut}: {name} is there");
        }
    }
}

/// Times to cut at: that many of the barriers, or all; each right there, and somewhere before the next one.
fn cuts(story: &Story, count: Option<usize>, dice: &mut Dice) -> Vec<(u64, bool)> {
    let barriers = story.recorded.barriers().into_iter();
    let mut barriers: Vec<u64> = barriers.filter(|time| *time >= story.begun).collect();
    barriers.push(story.recorded.end());
    let spans = barriers.windows(2).map(|span| (span[0], span[1]));
    let mut cuts = Vec::new();
    for (here, next) in spans {
        cuts.push((here, false));
        cuts.push((here + dice.roll() % (next - here).max(1), true));
    }
    let count = count.unwrap_or(cuts.len()).min(cuts.len());
    // As many of them as are wanted, in order.
    let mut left = cuts.len();
    let mut wanted = count;
    cuts.retain(|_| {
        let taken = dice.roll() % (left as u64) < wanted as u64;
        left -= 1;
        wanted -= usize::from(taken);
        taken
    });
    cuts
}

#[test]
fn what_was_promised_before_a_power_cut_is_there_after_it() {
    let count = match std::env::var("SKRIN_POWER_CUTS").as_deref() {
        Ok("all") => None,
        Ok(count) => Some(count.parse().unwrap()),
        Err(_) => Some(CUTS),
    };
    let promises = std::env::var("SKRIN_POWER_PROMISES").map_or(PROMISES, |n| n.parse().unwrap());
    let begun = Instant::now();
    let mut story = Story::record(promises);
    let mut dice = Dice(promises as u64);
    let cuts = cuts(&story, count, &mut dice);
    println!(
        "{} events with {} flushes in {:.0?}; {} cuts",
        story.recorded.end(),
        story.recorded.barriers().len(),
        begun.elapsed(),
        cuts.len()
    );
    story.assert_each_misses_what_is_not_there();
    for (number, (time, torn)) in cuts.iter().enumerate() {
        let mut keeps = some(Dice(dice.roll()));
        // A server keeps what it has, though this machine does not; or both lose.
        let server = dice.roll().is_multiple_of(2);
        let fresh = number % FRESH_EVERY == FRESH_EVERY - 1;
        story.cut(
            *time,
            |disk| match disk {
                STORAGE if server => true,
                _ => *torn && keeps(),
            },
            fresh,
        );
        if number % 50 == 49 {
            println!("{} cuts after {:.0?}", number + 1, begun.elapsed());
        }
    }
}
