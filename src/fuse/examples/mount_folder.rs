#![allow(clippy::unwrap_used, reason = "an example")]
use skrin_fs::testutil::TestVault;
use skrin_fs::{FsOptions, Shutdown};
use skrin_fuse::{MountOptions, mount};
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let vault = TestVault::in_folder(1, args[1].as_ref()).unwrap();
    let opened = vault.open(0, FsOptions::default()).unwrap();
    let how = MountOptions {
        name: "test".into(),
        allow_other: true,
        read_only: false,
    };
    let mut m = mount(opened.fs.clone(), args[2].as_ref(), &how).unwrap();
    println!("mounted");
    m.join().unwrap();
    opened
        .fs
        .shutdown(Shutdown::UploadAll {
            progress: Box::new(|_| ()),
        })
        .unwrap();
    println!("{:?}", opened.data.counters());
}
