//! Several devices of one person on one vault.

use std::path::Path;

use crate::harness::{Dice, Run, Vault, wait_for};
use crate::rsync::{assert_same, compare};
use crate::storages::On;

fn two_devices_that_write_in_turns_see_the_same(on: On) {
    let vault = Vault::new(on);
    let devices = [vault.mount("a"), vault.mount("b")];
    let mut dice = Dice(21);
    for round in 0..6 {
        let (writer, reader) = (&devices[round % 2], &devices[(round + 1) % 2]);
        let name = format!("round {round}");
        std::fs::create_dir(writer.join(&name)).unwrap();
        let body = dice.bytes(10_000 * round + 5);
        std::fs::write(writer.join(&name).join("file"), &body).unwrap();
        if round > 0 {
            let earlier = format!("round {}", round - 1);
            std::fs::rename(
                writer.join(&earlier).join("file"),
                writer.join(&earlier).join("moved"),
            )
            .unwrap();
        }
        writer.sync();
        let seen = || std::fs::read(reader.join(&name).join("file")).is_ok_and(|back| back == body);
        wait_for("the other device to see it", seen);
    }
    wait_for("both to agree", || {
        // It fails where something gets another name while it looks.
        let output = compare(devices[0].path(), devices[1].path()).finish();
        output.status.success() && output.stdout.is_empty()
    });
    assert_same(devices[0].path(), devices[1].path());
    assert_eq!(
        inode(&devices[0].join("round 0")),
        inode(&devices[1].join("round 0"))
    );
    let [first, second] = devices;
    first.unmount();
    second.unmount();
    vault.verify_clean();
}

fn inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&std::fs::symlink_metadata(path).unwrap())
}

fn two_devices_that_write_at_once_lose_no_byte(on: On) {
    let vault = Vault::new(on);
    let first = vault.mount("a");
    let second = vault.mount("b");
    std::thread::scope(|scope| {
        for (name, mount) in [("a", &first), ("b", &second)] {
            scope.spawn(move || {
                for file in 0..100 {
                    std::fs::write(
                        mount.join(format!("{name}-{file}")),
                        format!("{name} wrote {file}"),
                    )
                    .unwrap();
                }
                mount.sync();
            });
        }
    });
    let all = |mount: &crate::harness::Mount<'_>| {
        (0..100).all(|file| {
            ["a", "b"].iter().all(|name| {
                std::fs::read_to_string(mount.join(format!("{name}-{file}")))
                    .is_ok_and(|text| text == format!("{name} wrote {file}"))
            })
        })
    };
    wait_for("both to see all files", || all(&first) && all(&second));
    first.unmount();
    second.unmount();
    vault.verify_clean();
}

fn a_new_device_is_told_what_it_cannot_know(on: On) {
    let vault = Vault::new(on);
    let mount = vault.mount("a");
    std::fs::write(mount.join("file"), "x").unwrap();
    mount.unmount();
    let point = vault.point("b");
    let said = vault.mount_command("b", &point, &[]).finish();
    let second = crate::harness::Mount::adopt(&vault, point);
    let text =
        String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(text.contains("new device"), "{text}");
    assert!(text.contains("heads code"), "{text}");
    second.unmount();
    // A device that is known says nothing of the kind.
    let point = vault.point("b");
    let said = vault.mount_command("b", &point, &[]).output_ok();
    let second = crate::harness::Mount::adopt(&vault, point);
    assert!(!said.contains("new device"), "{said}");
    second.unmount();
}

crate::on_every_storage! {
    two_devices_that_write_in_turns_see_the_same;
    two_devices_that_write_at_once_lose_no_byte;
    a_new_device_is_told_what_it_cannot_know;
}
