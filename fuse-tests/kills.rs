//! kill -9 at any moment, again and again on one vault: while several programs write, during unmount, during mount and its replay of the journal,
//! and, where `fsync` waits for the storage, with the local state lost as well.
//!
//! Few rounds in the gate. Long, with evidence of what fails kept:
//! `SKRIN_KILLS=80 SKRIN_EVIDENCE=/tmp SKRIN_MOUNT_SECONDS=7200 cargo test --test blackbox kills::local -- --nocapture`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{
    Dice, Mount, Run, Vault, command, detach, files_below, is_alive, is_mounted, kill, wait_for,
};
use crate::load::{Load, NOW, Writer, dir_of, writers};
use crate::rsync::{assert_same, copy};
use crate::storages::On;
use crate::tree::plain_tree;

/// When the program is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    /// While everything writes.
    Load,
    /// The same, and again while the next mount reads what was left.
    Replay,
    /// While it uploads and lets go.
    Unmount,
    /// While everything writes with `--durability remote`; the local state is lost too.
    Remote,
}

/// Kills while everything writes, each followed by what its number says.
const TURNS: [Moment; 8] = [
    Moment::Load,
    Moment::Replay,
    Moment::Remote,
    Moment::Unmount,
    Moment::Load,
    Moment::Replay,
    Moment::Load,
    Moment::Unmount,
];

struct Rounds<'a> {
    vault: &'a Vault,
    dice: Dice,
    writers: Vec<Box<dyn Writer>>,
    kills: BTreeMap<Moment, usize>,
    promises: usize,
}

impl Rounds<'_> {
    /// Kills at one moment; the vault is mounted before and after it.
    fn round<'m>(&mut self, vault: &'m Vault, mut mount: Mount<'m>, moment: Moment) -> Mount<'m> {
        if moment == Moment::Remote {
            mount.unmount();
            mount = vault.mount_with("a", &["--durability", "remote"]);
        }
        let promises = match moment {
            Moment::Remote => 5 + self.dice.roll() % 15,
            _ => 5 + self.dice.roll() % 60,
        };
        let (point, pid) = (mount.path().to_owned(), mount.pid());
        let rsync = |over: &AtomicBool| keep_copying(&point, over);
        let load = Load {
            root: &point,
            clock: &|| 0,
            beside: &rsync,
            promises: promises as usize,
        };
        self.promises += load.run(&mut self.writers, |killed| {
            if moment != Moment::Unmount {
                killed.store(true, Ordering::SeqCst);
                kill(pid, "KILL");
            }
        });
        if moment == Moment::Unmount {
            self.writers.iter_mut().for_each(|writer| writer.close());
            let mut unmount = vault.skrin(&["unmount"]);
            let unmount = unmount.arg(&point).stderr(Stdio::null());
            let mut unmount = unmount.stdout(Stdio::null()).spawn().unwrap();
            self.pause(500);
            kill(pid, "KILL");
            unmount.wait().unwrap();
        }
        mount.crash();
        *self.kills.entry(moment).or_default() += 1;
        match moment {
            Moment::Remote => std::fs::remove_dir_all(vault.state("a")).unwrap(),
            Moment::Replay => {
                for _ in 0..=self.dice.roll() % 2 {
                    self.kill_while_mounting(vault, &point);
                }
            }
            Moment::Load | Moment::Unmount => {}
        }
        let mount = vault.mount("a");
        self.check(mount.path(), moment);
        mount
    }

    fn pause(&mut self, most: u64) {
        std::thread::sleep(Duration::from_millis(self.dice.roll() % most));
    }

    /// Kills the process that is about to mount, at the latest when it does.
    fn kill_while_mounting(&mut self, vault: &Vault, point: &Path) {
        let files = files_below(&vault.state("a"));
        let lock = files.iter().find(|file| file.ends_with("lock")).unwrap();
        let held = || std::fs::read_to_string(lock).unwrap_or_default();
        // The number of the dead process, which may be that of another one by now.
        let before = held();
        let mut mounting = vault.mount_command("a", point, &["--foreground"]);
        let mounting = mounting.stdout(Stdio::null()).stderr(Stdio::null());
        let mut mounting = mounting.spawn().unwrap();
        let holder = || {
            let text = Some(held()).filter(|text| *text != before)?;
            text.parse().ok().filter(|pid| is_alive(*pid))
        };
        wait_for("the new process to take the state", || holder().is_some());
        self.pause(400);
        kill(holder().unwrap(), "KILL");
        mounting.wait().unwrap();
        if is_mounted(point) {
            detach(point);
        }
        *self.kills.entry(Moment::Replay).or_default() += 1;
    }

    /// Nothing that was promised is missing or wrong, and nothing is there that nobody made.
    fn check(&mut self, mount: &Path, moment: Moment) {
        let kills: usize = self.kills.values().sum();
        for (number, writer) in self.writers.iter_mut().enumerate() {
            let dir = dir_of(mount, number);
            if let Err(wrong) = writer.check(&dir, NOW) {
                let kept = keep(self.vault);
                panic!("after kill {kills} ({moment:?}), writer {number}: {wrong}; {kept}");
            }
            writer.accept(&dir);
        }
        let copies = files_below(mount).into_iter().filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.contains("(conflict") || name.contains("lost+found")
        });
        let copies: Vec<PathBuf> = copies.collect();
        assert!(
            copies.is_empty(),
            "after kill {kills} ({moment:?}): {copies:?}; {}",
            keep(self.vault)
        );
    }

    /// The storage as a kill left it has nothing that `verify` finds. The tip of a commit that has just come may be late, which `verify` waits for
    /// but a moment: where nothing else is missing it may try again.
    fn verify(&self) {
        let address = self.vault.address();
        for attempt in 1.. {
            let mut verify = self.vault.skrin(&["verify", &address, "--json"]);
            verify.arg("--words-file").arg(self.vault.words_file());
            let output = verify.finish();
            if output.status.success() {
                return;
            }
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(
                attempt < 3 && is_only_of_tips(&said),
                "{output:?}; {}",
                keep(self.vault)
            );
            std::thread::sleep(Duration::from_secs(10));
        }
    }
}

/// Whether `verify --json` found that tips are missing, and nothing else.
fn is_only_of_tips(said: &str) -> bool {
    let parse = |line| serde_json::from_str(line).unwrap_or_default();
    let lines: Vec<serde_json::Value> = said.lines().map(parse).collect();
    // The last one sums up.
    let findings = lines.split_last().map_or(&[][..], |(_, findings)| findings);
    !findings.is_empty() && findings.iter().all(|found| found["kind"] == "tip-missing")
}

/// Copies a tree of real files into the vault, over and over, until it is over or cannot.
fn keep_copying(mount: &Path, over: &AtomicBool) {
    for turn in 0.. {
        let mut rsync = command("rsync");
        rsync.args(["-aHAX", "--delete"]).arg(plain_tree().join(""));
        rsync.arg(mount.join(format!("tree-{}", turn % 3)));
        let mut rsync = rsync.stderr(Stdio::null()).spawn().unwrap();
        while rsync.try_wait().unwrap().is_none() && !over.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
        if !ended_well(&mut rsync) {
            return;
        }
        if turn >= 2 {
            let old = mount.join(format!("tree-{}", (turn + 1) % 3));
            drop(std::fs::remove_dir_all(old));
        }
    }
}

/// Some versions of rsync wait for each other for ever when their target goes away, and one that lives on would write below the mount point.
fn ended_well(rsync: &mut Child) -> bool {
    // `timeout` and all that it runs are a group.
    let group = format!("-{}", rsync.id());
    let signal = |signal: &str| command("kill").args(["-s", signal, "--", &group]).finish();
    if rsync.try_wait().unwrap().is_none() {
        signal("KILL");
    }
    let well = rsync.wait().unwrap().success();
    wait_for("rsync to be gone", || !signal("0").status.success());
    well
}

/// Keeps a copy of local state and storage below `SKRIN_EVIDENCE`, and says where.
fn keep(vault: &Vault) -> String {
    let Some(dir) = std::env::var_os("SKRIN_EVIDENCE") else {
        return "set SKRIN_EVIDENCE to a directory to keep a copy of the state".to_owned();
    };
    let to = Path::new(&dir).join(format!("skrin-kills-{}", std::process::id()));
    std::fs::create_dir_all(to.join("storage")).unwrap();
    let from = vault.storage.as_files(&to.join("storage"));
    for path in [vault.path(""), from] {
        command("cp").arg("-axn").arg(path).arg(&to).finish();
    }
    format!("evidence is in {}", to.display())
}

/// Kills so often that it is at least `least`, or what `SKRIN_KILLS` says; `verify` runs after every so many rounds.
fn kills_at_any_moment(on: On, least: usize, verify_every: usize) {
    let least = std::env::var("SKRIN_KILLS").map_or(least, |n| n.parse().unwrap());
    let begun = Instant::now();
    let vault = Vault::new(on);
    let mut rounds = Rounds {
        vault: &vault,
        dice: Dice(least as u64),
        writers: writers(100),
        kills: BTreeMap::new(),
        promises: 0,
    };
    let mut mount = vault.mount("a");
    for number in 0..rounds.writers.len() {
        std::fs::create_dir(dir_of(mount.path(), number)).unwrap();
    }
    std::fs::File::open(mount.path())
        .unwrap()
        .sync_all()
        .unwrap();
    for (round, moment) in TURNS.iter().cycle().enumerate() {
        if rounds.kills.values().sum::<usize>() >= least {
            break;
        }
        mount = rounds.round(&vault, mount, *moment);
        if round % verify_every == 0 {
            rounds.verify();
        }
        println!(
            "{:?} after {:.0?}, {} promises",
            rounds.kills,
            begun.elapsed(),
            rounds.promises
        );
    }
    copy(plain_tree(), &mount.join("tree-0"));
    assert_same(plain_tree(), &mount.join("tree-0"));
    rounds.check(mount.path(), Moment::Load);
    mount.unmount();
    vault.verify_clean();
    let (mount, fresh) = (vault.mount("a"), vault.mount("fresh"));
    rounds.check(fresh.path(), Moment::Load);
    assert_same(mount.path(), fresh.path());
    fresh.unmount();
    mount.unmount();
}

fn nothing_that_was_promised_is_lost_by_kills_at_any_moment(on: On) {
    match on {
        On::Local => kills_at_any_moment(on, TURNS.len(), 1),
        _ => kills_at_any_moment(on, TURNS.len() / 2, 4),
    }
}

crate::on_every_storage! {
    nothing_that_was_promised_is_lost_by_kills_at_any_moment;
}
