//! Nothing readable: not on the storage, not in the local state.

use std::path::Path;

use crate::harness::{Run, Vault, command, files_below};
use crate::storages::On;

const NAMES: [&str; 3] = [
    "salary-negotiation",
    "Zeugnisverweigerung",
    "quicksilver.txt",
];
const BODY: &str = "the combination of the safe is 17-4-33; ";
const XATTR: &str = "remember-the-milk";

fn assert_nothing_readable(dir: &Path) {
    assert!(
        !files_below(dir).is_empty(),
        "{} holds nothing to look through",
        dir.display()
    );
    let needles = NAMES.iter().chain([&BODY, &XATTR, &"fuse.skrin test"]);
    for needle in needles {
        let (code, _) = command("grep")
            .args(["-r", "-a", "-l", "-F", "-e", needle])
            .arg(dir)
            .code();
        let found = command("grep")
            .args(["-r", "-a", "-l", "-F", "-e", needle])
            .arg(dir)
            .finish()
            .stdout;
        assert_eq!(
            code,
            1,
            "{needle:?} stands in {}",
            String::from_utf8_lossy(&found)
        );
        let (code, _) = command("find")
            .arg(dir)
            .args(["-name", &format!("*{needle}*")])
            .code();
        assert_eq!(code, 0);
        let named = command("find")
            .arg(dir)
            .args(["-name", &format!("*{needle}*")])
            .output_ok();
        assert_eq!(named, "");
    }
}

#[test]
fn storage_and_local_state_hold_no_name_and_no_content() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let dir = mount.join(NAMES[0]);
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join(NAMES[1]), BODY).unwrap();
    std::fs::write(dir.join(NAMES[2]), BODY.repeat(50_000)).unwrap();
    std::os::unix::fs::symlink(BODY, dir.join("link")).unwrap();
    command("setfattr")
        .args(["-n", "user.note", "-v", XATTR])
        .arg(dir.join(NAMES[1]))
        .output_ok();
    // Errors name objects, not files, in the log too.
    assert!(std::fs::read(dir.join("quicksilver.txt.missing")).is_err());
    mount.sync();
    assert_nothing_readable(&vault.state("a"));
    assert_nothing_readable(vault.storage.local());
    std::fs::write(dir.join("late"), BODY.repeat(10_000)).unwrap();
    mount.crash();
    assert_nothing_readable(&vault.state("a"));
    let mount = vault.mount("a");
    assert_eq!(std::fs::read_to_string(dir.join(NAMES[1])).unwrap(), BODY);
    mount.unmount();
    assert_nothing_readable(&vault.state("a"));
    assert_nothing_readable(vault.storage.local());
}
