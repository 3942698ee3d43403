//! Ten thousand small files are few objects.

use std::time::Instant;

use crate::harness::{Dice, Vault};
use crate::rsync::{assert_same, copy};
use crate::storages::On;

fn ten_thousand_small_files_make_fewer_than_a_hundred_objects(on: On) {
    let vault = Vault::new(on);
    let source = vault.path("source");
    let mut dice = Dice(7);
    for directory in 0..100 {
        let dir = source.join(format!("d{directory:02}"));
        std::fs::create_dir_all(&dir).unwrap();
        for file in 0..100 {
            let len = 1024 + (dice.roll() % 7168) as usize;
            std::fs::write(dir.join(format!("f{file:02}")), dice.bytes(len)).unwrap();
        }
    }
    let mount = vault.mount("a");
    let before = vault.storage.objects().len();
    let begun = Instant::now();
    copy(&source, mount.path());
    mount.sync();
    // What there is is published every three seconds, as two objects: a slow copy makes more.
    let bound = 60 + begun.elapsed().as_secs() as usize;
    let objects = vault.storage.objects().len() - before;
    assert!(objects < bound, "{objects} objects, not fewer than {bound}");
    mount.unmount();
    let mount = vault.mount("b");
    assert_same(&source, mount.path());
    mount.unmount();
}

crate::on_every_storage! { ten_thousand_small_files_make_fewer_than_a_hundred_objects; }
