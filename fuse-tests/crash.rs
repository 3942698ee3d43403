//! kill -9.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::harness::{Dice, Mount, Vault, command, files_below, kill};
use crate::rsync::{assert_same, copy, differences};
use crate::storages::On;
use crate::tree::{plain_tree, small_tree};

fn what_fsync_acknowledged_survives_a_kill(on: On) {
    let vault = Vault::new(on);
    let mount = vault.mount("a");
    let mut dice = Dice(11);
    std::fs::create_dir(mount.join("new")).unwrap();
    let lengths = [1usize, 2000, 65536, 1_000_000];
    let contents: Vec<_> = lengths.iter().map(|len| dice.bytes(*len)).collect();
    for body in &contents {
        let mut file = File::create(mount.join(format!("new/{}", body.len()))).unwrap();
        file.write_all(body).unwrap();
        file.sync_all().unwrap();
    }
    File::open(mount.join("new")).unwrap().sync_all().unwrap();
    mount.crash();
    let mount = vault.mount("a");
    for body in &contents {
        let back = std::fs::read(mount.join(format!("new/{}", body.len()))).unwrap();
        assert!(back == *body, "{} bytes came back otherwise", body.len());
    }
    mount.unmount();
    vault.verify_clean();
}

fn twenty_kills_in_the_middle_of_rsync_lose_nothing(on: On) {
    let vault = Vault::new(on);
    let (mut in_the_middle, mut rounds) = (0, 0);
    let mut longer = None;
    for seed in 1.. {
        // Where the test gets little of the machine rsync has often ended when it is killed: it goes on until enough kills did fall.
        if seed > 20 {
            let begun = *longer.get_or_insert_with(Instant::now);
            if in_the_middle >= 15 || begun.elapsed() > Duration::from_secs(300) {
                break;
            }
        }
        rounds = seed;
        let mut dice = Dice(seed);
        let mount = vault.mount("a");
        // Nothing of it is there yet.
        let to = mount.join(format!("round {seed}"));
        in_the_middle += u32::from(killed_while_copying(mount, &to, &mut dice));
        let mount = vault.mount("a");
        mount.sync();
        vault.verify_clean();
        copy(plain_tree(), &to);
        assert_eq!(differences(plain_tree(), &to), "");
        // The vault stays small: every round checks all of it.
        std::fs::remove_dir_all(&to).unwrap();
        mount.unmount();
    }
    assert!(
        in_the_middle >= 15,
        "only {in_the_middle} of {rounds} kills fell in the middle"
    );
    let mount = vault.mount("a");
    copy(small_tree(), mount.path());
    assert_same(small_tree(), mount.path());
    mount.unmount();
    vault.verify_clean();
}

/// Kills the process behind the mount after rsync has begun with some file or other, and says whether rsync had more to do.
fn killed_while_copying(mount: Mount<'_>, to: &Path, dice: &mut Dice) -> bool {
    let from = plain_tree();
    let files = files_below(from).len() as u64;
    let mut rsync = command("rsync")
        .args(["-aHAX", "--info=name", "--outbuf=L"])
        .arg(from.join(""))
        .arg(to)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Held until the end: without a reader rsync would die of that.
    let mut begun = BufReader::new(rsync.stdout.take().unwrap()).lines();
    let is_file = |line: &Result<String, _>| line.as_ref().is_ok_and(|name| !name.ends_with('/'));
    let at = 1 + dice.roll() % (files * 3 / 4);
    let seen = begun.by_ref().filter(is_file).take(at as usize).count();
    let was_running = rsync.try_wait().unwrap().is_none();
    kill(mount.pid(), "KILL");
    mount.crash();
    // Some versions of rsync wait for each other for ever when their target goes away.
    kill(rsync.id(), "TERM");
    let finished = rsync.wait().unwrap().success();
    was_running && !finished && seen as u64 == at
}

crate::on_every_storage! {
    what_fsync_acknowledged_survives_a_kill;
    twenty_kills_in_the_middle_of_rsync_lose_nothing;
}
