//! git, on this project's own repository.

use crate::harness::{Run, Vault, command};
use crate::storages::On;

fn a_clone_is_sound_before_and_after_gc(on: On) {
    let vault = Vault::new(on);
    let mount = vault.mount("a");
    let clone = mount.join("clone");
    let git = |args: &[&str]| {
        let mut git = command("git");
        git.args([
            "-c",
            "safe.directory=*",
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "-C",
        ])
        .arg(&clone)
        .args(args)
        .output_ok()
    };
    let own = format!("file://{}", env!("CARGO_MANIFEST_DIR"));
    command("git")
        .args(["-c", "safe.directory=*", "clone", "--no-local", "-q", &own])
        .arg(&clone)
        .output_ok();
    git(&["fsck", "--full", "--strict"]);
    assert_eq!(git(&["status", "--porcelain"]), "");
    std::fs::write(clone.join("new file"), "x").unwrap();
    git(&["add", "new file"]);
    git(&["commit", "-q", "-m", "a change"]);
    git(&["gc", "-q", "--prune=now"]);
    git(&["fsck", "--full", "--strict"]);
    let head = git(&["rev-parse", "HEAD"]);
    mount.unmount();
    std::fs::remove_dir_all(vault.state("a")).unwrap();
    let mount = vault.mount("a");
    assert_eq!(git(&["rev-parse", "HEAD"]), head);
    git(&["fsck", "--full", "--strict"]);
    assert_eq!(git(&["status", "--porcelain"]), "");
    mount.unmount();
}

crate::on_every_storage! { a_clone_is_sound_before_and_after_gc; }
