//! The file system through the kernel. These tests mount: they need /dev/fuse and root, as CI has.

#[path = "support/harness.rs"]
mod harness;

use harness::Mounted;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

#[test]
fn what_is_written_is_read_back_also_after_a_remount() {
    let mut m = Mounted::new(1);
    let big: Vec<u8> = (0..5_000_000u32).map(|n| (n * 7 / 3) as u8).collect();
    fs::write(m.path("small"), b"hello").unwrap();
    fs::write(m.path("big"), &big).unwrap();
    fs::create_dir(m.path("dir")).unwrap();
    symlink("../small", m.path("dir/link")).unwrap();
    let ino = fs::metadata(m.path("big")).unwrap().ino();
    for round in 0..3 {
        assert_eq!(
            fs::read(m.path("small")).unwrap(),
            b"hello",
            "round {round}"
        );
        assert!(fs::read(m.path("big")).unwrap() == big, "round {round}");
        assert_eq!(fs::read(m.path("dir/link")).unwrap(), b"hello");
        assert_eq!(fs::metadata(m.path("big")).unwrap().ino(), ino);
        match round {
            0 => m.remount(),
            _ => m.remount_without_local_state(),
        }
    }
}
