//! kill -9.

use std::fs::File;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use crate::harness::{Dice, Vault, command, kill};
use crate::rsync::{assert_same, copy};
use crate::storages::On;
use crate::tree::small_tree;

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
    for seed in 1..=20 {
        let mut dice = Dice(seed);
        let mount = vault.mount("a");
        let mut rsync = command("rsync");
        rsync
            .args(["-aHAX", "--delete"])
            .arg(small_tree().join(""))
            .arg(mount.join(""));
        let mut rsync = rsync
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(dice.roll() % 1500));
        kill(mount.pid(), "KILL");
        mount.crash();
        // Some versions of rsync wait for each other for ever when their target goes away.
        kill(rsync.id(), "TERM");
        rsync.wait().unwrap();
        let mount = vault.mount("a");
        mount.sync();
        vault.verify_clean();
        if seed % 4 == 0 {
            // Some rounds begin from less than the whole tree.
            std::fs::remove_dir_all(mount.join("src")).unwrap_or_default();
        }
        mount.unmount();
    }
    let mount = vault.mount("a");
    copy(small_tree(), mount.path());
    assert_same(small_tree(), mount.path());
    mount.unmount();
    vault.verify_clean();
}

crate::on_every_storage! {
    what_fsync_acknowledged_survives_a_kill;
    twenty_kills_in_the_middle_of_rsync_lose_nothing;
}
