//! What programs expect of a file system, checked through the kernel.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use skrin_servers::Kind;

use crate::harness::{Dice, Run, Vault, command, wait_for};
use crate::relay::Distant;
use crate::storages::On;

fn error(result: std::io::Result<impl Sized>) -> i32 {
    result.err().and_then(|e| e.raw_os_error()).unwrap_or(0)
}

const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const EEXIST: i32 = 17;
const ENOTDIR: i32 = 20;
const EISDIR: i32 = 21;
const EROFS: i32 = 30;
const EMLINK: i32 = 31;
const ENAMETOOLONG: i32 = 36;
const ENOTEMPTY: i32 = 39;

#[test]
fn opening_obeys_its_flags() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let path = mount.join("file");
    std::fs::write(&path, "0123456789").unwrap();
    assert_eq!(error(File::create_new(&path)), EEXIST);
    OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b"ab")
        .unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "0123456789ab");
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .write_at(b"X", 3)
        .unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "012X456789ab");
    OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    assert_eq!(error(File::open(mount.join("missing"))), ENOENT);
    assert_eq!(error(File::open(path.join("below"))), ENOTDIR);
    assert_eq!(
        error(OpenOptions::new().write(true).open(mount.path())),
        EISDIR
    );
    let longest = "n".repeat(255);
    std::fs::write(mount.join(&longest), "x").unwrap();
    assert_eq!(
        error(std::fs::write(mount.join(longest + "n"), "x")),
        ENAMETOOLONG
    );
    mount.unmount();
}

#[test]
fn renames_replace_refuse_and_exchange() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let at = |name: &str| mount.join(name);
    let text = |name: &str| std::fs::read_to_string(at(name)).unwrap();
    std::fs::write(at("one"), "1").unwrap();
    std::fs::write(at("two"), "2").unwrap();
    let refused = renameat_with(CWD, at("one"), CWD, at("two"), RenameFlags::NOREPLACE);
    assert_eq!(refused, Err(rustix::io::Errno::EXIST));
    renameat_with(CWD, at("one"), CWD, at("two"), RenameFlags::EXCHANGE).unwrap();
    assert_eq!((text("one").as_str(), text("two").as_str()), ("2", "1"));
    std::fs::rename(at("one"), at("two")).unwrap();
    assert_eq!(text("two"), "2");
    assert!(!at("one").exists());
    std::fs::create_dir_all(at("d/e")).unwrap();
    assert_eq!(error(std::fs::rename(at("d"), at("d/e/f"))), 22);
    assert_eq!(error(std::fs::rename(at("two"), at("d"))), EISDIR);
    assert_eq!(error(std::fs::rename(at("d"), at("two"))), ENOTDIR);
    std::fs::create_dir(at("g")).unwrap();
    std::fs::write(at("g/x"), "x").unwrap();
    assert_eq!(error(std::fs::rename(at("d"), at("g"))), ENOTEMPTY);
    assert_eq!(error(std::fs::remove_dir(at("g"))), ENOTEMPTY);
    std::fs::rename(at("g/x"), at("d/e/x")).unwrap();
    std::fs::rename(at("d"), at("g")).unwrap();
    assert_eq!(text("g/e/x"), "x");
    mount.unmount();
}

#[test]
fn a_file_that_was_removed_lives_until_it_is_closed() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let path = mount.join("file");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    file.write_all(&Dice(1).bytes(200_000)).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.write_all(b"more").unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut back = Vec::new();
    file.read_to_end(&mut back).unwrap();
    assert!(back[..200_000] == Dice(1).bytes(200_000) && &back[200_000..] == b"more");
    assert!(std::fs::read_dir(mount.path()).unwrap().next().is_none());
    drop(file);
    mount.unmount();
}

#[test]
fn inodes_times_modes_links_and_attributes_stay() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let file = mount.join("file");
    std::fs::write(&file, "x").unwrap();
    std::fs::hard_link(&file, mount.join("second name")).unwrap();
    std::os::unix::fs::symlink("file", mount.join("link")).unwrap();
    command("mkfifo").arg(mount.join("fifo")).output_ok();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o4751)).unwrap();
    std::os::unix::fs::chown(&file, Some(1234), Some(4321)).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o4751)).unwrap();
    command("touch")
        .args(["-d", "2001-02-03 04:05:06.789012345 UTC"])
        .arg(&file)
        .output_ok();
    command("setfattr")
        .args(["-n", "user.a", "-v", "b"])
        .arg(&file)
        .output_ok();
    let look = |root: &Path| -> Vec<_> {
        let names = ["file", "second name", "link", "fifo", ""];
        names
            .iter()
            .map(|name| std::fs::symlink_metadata(root.join(name)).unwrap())
            .map(|m| {
                let kind = m.mode() & 0o170_000;
                (
                    m.ino(),
                    kind,
                    m.mode(),
                    m.uid(),
                    m.gid(),
                    m.nlink(),
                    m.size(),
                    m.mtime(),
                    m.mtime_nsec(),
                )
            })
            .collect()
    };
    let before = look(mount.path());
    assert_eq!(before[0].0, before[1].0);
    assert_eq!(
        (before[0].2 & 0o7777, before[0].3, before[0].5),
        (0o4751, 1234, 2)
    );
    assert_eq!((before[0].7, before[0].8), (981_173_106, 789_012_345));
    mount.unmount();
    let same = vault.mount("a");
    assert_eq!(look(same.path()), before);
    same.unmount();
    let other = vault.mount("b");
    assert_eq!(look(other.path()), before);
    let value = command("getfattr")
        .args(["--only-values", "-n", "user.a"])
        .arg(other.join("file"))
        .output_ok();
    assert_eq!(value, "b");
    command("setfattr")
        .args(["-x", "user.a"])
        .arg(other.join("file"))
        .output_ok();
    let (code, _) = command("getfattr")
        .args(["-n", "user.a"])
        .arg(other.join("file"))
        .code();
    assert_ne!(code, 0);
    other.unmount();
}

#[test]
fn truncation_and_holes_read_as_zeros() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let path = mount.join("file");
    let body = Dice(5).bytes(300_000);
    std::fs::write(&path, &body).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(100_001).unwrap();
    file.set_len(250_000).unwrap();
    file.write_all_at(b"far away", 5_000_000_000).unwrap();
    file.sync_all().unwrap();
    drop(file);
    let check = |path: &Path| {
        let file = File::open(path).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 5_000_000_008);
        let mut head = vec![1; 300_000];
        file.read_exact_at(&mut head, 0).unwrap();
        assert!(head[..100_001] == body[..100_001] && head[100_001..].iter().all(|b| *b == 0));
        let mut tail = [0; 8];
        file.read_exact_at(&mut tail, 5_000_000_000).unwrap();
        assert_eq!(&tail, b"far away");
    };
    check(&path);
    mount.unmount();
    let mount = vault.mount("b");
    check(&mount.join("file"));
    mount.unmount();
    assert!(vault.storage.bytes() < 4 << 20, "holes were uploaded");
}

#[test]
fn a_directory_of_twenty_thousand_lists_each_name_once() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let dir = mount.join("large");
    std::fs::create_dir(&dir).unwrap();
    for number in 0..20_000 {
        File::create(dir.join(format!("{number:05}"))).unwrap();
    }
    let list = |dir: &Path| {
        std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect::<Vec<_>>()
    };
    let names = list(&dir);
    assert_eq!(names.len(), 20_000);
    assert_eq!(names.into_iter().collect::<HashSet<_>>().len(), 20_000);
    for name in list(&dir).iter().step_by(2) {
        std::fs::remove_file(dir.join(name)).unwrap();
    }
    mount.unmount();
    let mount = vault.mount("b");
    assert_eq!(list(&mount.join("large")).len(), 10_000);
    mount.unmount();
}

#[test]
fn the_kernel_enforces_permissions_for_other_users() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount_with("a", &["--allow-other"]);
    std::fs::set_permissions(mount.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(mount.join("private"), "p").unwrap();
    std::fs::set_permissions(
        mount.join("private"),
        std::fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    std::fs::write(mount.join("public"), "q").unwrap();
    std::fs::set_permissions(mount.join("public"), std::fs::Permissions::from_mode(0o644)).unwrap();
    // The way to the mount point is the test's own directory, which others may not pass.
    std::fs::set_permissions(vault.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    let nobody = |args: &[&str]| {
        let mut command = command("setpriv");
        command
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .args(args)
            .current_dir("/")
            .code()
    };
    let point = mount.path().to_owned();
    let at = |name: &str| point.join(name).to_str().unwrap().to_owned();
    assert_eq!(nobody(&["cat", &at("public")]).0, 0);
    assert_ne!(nobody(&["cat", &at("private")]).0, 0);
    assert_ne!(nobody(&["touch", &at("new")]).0, 0);
    assert_ne!(nobody(&["rm", "-f", &at("public")]).0, 0);
    mount.unmount();
    // Without --allow-other nobody else gets in at all.
    let mount = vault.mount("a");
    assert_ne!(nobody(&["ls", &at("")]).0, 0);
    mount.unmount();
}

/// Their mounts leave nothing that the next one cannot open.
#[test]
fn who_has_only_read_so_far_reads_again_and_writes_later() {
    let vault = Vault::new(On::WebDav);
    let mount = vault.mount("a");
    std::fs::write(mount.join("file"), "x").unwrap();
    mount.unmount();
    for _ in 0..2 {
        let mount = vault.mount_with("b", &["--read-only"]);
        assert_eq!(std::fs::read_to_string(mount.join("file")).unwrap(), "x");
        mount.unmount();
    }
    let mount = vault.mount("b");
    std::fs::write(mount.join("file"), "y").unwrap();
    mount.unmount();
    let mount = vault.mount_with("b", &["--read-only"]);
    assert_eq!(std::fs::read_to_string(mount.join("file")).unwrap(), "y");
    mount.unmount();
}

#[test]
fn a_read_only_mount_changes_nothing() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    std::fs::write(mount.join("file"), "x").unwrap();
    mount.unmount();
    let before = vault.storage.objects();
    let mount = vault.mount_with("a", &["--read-only"]);
    assert_eq!(std::fs::read_to_string(mount.join("file")).unwrap(), "x");
    assert_eq!(error(std::fs::write(mount.join("new"), "x")), EROFS);
    assert_eq!(error(std::fs::remove_file(mount.join("file"))), EROFS);
    assert_eq!(
        error(std::fs::rename(mount.join("file"), mount.join("other"))),
        EROFS
    );
    assert_eq!(
        error(std::fs::set_permissions(
            mount.join("file"),
            std::fs::Permissions::from_mode(0o000)
        )),
        EROFS
    );
    mount.unmount();
    assert_eq!(vault.storage.objects(), before);
}

#[test]
fn the_quota_that_a_web_dav_server_tells_is_the_free_space() {
    // Its quota is the room on its disk.
    let distant = Distant::on(Kind::WsgiDav);
    let mount = distant.mount("a");
    let free = |path: &Path| {
        let space = rustix::fs::statvfs(path).unwrap();
        space.f_bavail * space.f_frsize
    };
    wait_for("the server to be asked", || {
        let theirs = free(&distant.vault.path(""));
        free(mount.path()).abs_diff(theirs) < theirs / 2
    });
    mount.unmount();
}

#[test]
fn free_space_is_told() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let free = |path: &Path| {
        let space = rustix::fs::statvfs(path).unwrap();
        space.f_bavail * space.f_frsize
    };
    // Until then there is room without end.
    wait_for("the folder to be asked", || {
        let theirs = free(vault.storage.local());
        free(mount.path()).abs_diff(theirs) < theirs / 2
    });
    let space = rustix::fs::statvfs(mount.path()).unwrap();
    assert_eq!(space.f_namemax, 255);
    mount.unmount();
}

#[test]
fn who_only_reads_puts_nothing_on_the_storage_and_changes_no_time() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    for n in 0..50 {
        let dir = mount.join(format!("d{}", n % 5));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(n.to_string()), vec![n; 3000 * usize::from(n)]).unwrap();
    }
    mount.unmount();
    let look = |mount: &Path| {
        let listed = command("find")
            .args([".", "-printf", "%p %A@ %T@ %C@\\n"])
            .current_dir(mount)
            .output_ok();
        let mut lines: Vec<String> = listed.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let mount = vault.mount("a");
    // A mount begins a lane with its first change, and this makes none.
    let before = (vault.storage.objects(), look(mount.path()));
    assert_eq!(before.1.len(), 56);
    for _ in 0..2 {
        command("tar")
            .args(["-cf", "-", "."])
            .current_dir(mount.path())
            .output()
            .unwrap();
        command("grep")
            .args(["-r", "nothing that is there", "."])
            .current_dir(mount.path())
            .finish();
    }
    mount.sync();
    assert!((vault.storage.objects(), look(mount.path())) == before);
    assert_eq!(mount.status()["pending"]["operations"], 0);
    mount.unmount();
    assert!(vault.storage.objects() == before.0);
}

#[test]
fn a_shared_map_is_written_and_read() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let script = "import mmap,os,sys\n\
        f=os.open(sys.argv[1],os.O_RDWR|os.O_CREAT)\n\
        os.ftruncate(f,300000)\n\
        m=mmap.mmap(f,300000)\n\
        m[150000:150005]=b'hello'\n\
        m.flush()\n\
        os.close(f)\n";
    command("/usr/bin/python3")
        .args(["-c", script])
        .arg(mount.join("mapped"))
        .output_ok();
    mount.unmount();
    let mount = vault.mount("b");
    let back = std::fs::read(mount.join("mapped")).unwrap();
    assert_eq!(back.len(), 300_000);
    assert_eq!(&back[150_000..150_005], b"hello");
    assert_eq!(back.iter().filter(|b| **b != 0).count(), 5);
    mount.unmount();
}

#[test]
fn a_directory_without_permission_is_closed() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount_with("a", &["--allow-other"]);
    std::fs::set_permissions(vault.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir(mount.join("closed")).unwrap();
    std::fs::write(mount.join("closed/file"), "x").unwrap();
    std::fs::set_permissions(mount.join("closed"), std::fs::Permissions::from_mode(0o700)).unwrap();
    let script = "import os,sys\n\
        os.setgroups([])\n\
        os.setgid(65534)\n\
        os.setuid(65534)\n\
        try:\n    os.stat(sys.argv[1])\n\
        except OSError as e:\n    sys.exit(e.errno)\n";
    let (code, said) = command("/usr/bin/python3")
        .args(["-c", script])
        .arg(mount.join("closed/file"))
        .code();
    assert_eq!(code, EACCES, "{said}");
    mount.unmount();
}

#[test]
fn an_inode_has_4096_names_and_no_more() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let first = mount.join("0");
    std::fs::write(&first, "x").unwrap();
    for number in 1..4096 {
        std::fs::hard_link(&first, mount.join(number.to_string())).unwrap();
    }
    assert_eq!(
        error(std::fs::hard_link(&first, mount.join("4096"))),
        EMLINK
    );
    assert_eq!(std::fs::metadata(&first).unwrap().nlink(), 4096);
    std::fs::remove_file(mount.join("7")).unwrap();
    assert_eq!(std::fs::metadata(&first).unwrap().nlink(), 4095);
    std::fs::hard_link(&first, mount.join("4096")).unwrap();
    mount.unmount();
}

#[test]
fn access_lists_are_enforced_inherited_and_the_same_on_another_device() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount_with("a", &["--allow-other"]);
    let open = |path: &Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    open(&vault.path(""));
    open(mount.path());
    let (point, other_point) = (mount.path().to_owned(), vault.point("b"));
    let acl = |args: &[&str], path: &Path| {
        command("setfacl").args(args).arg(path).output_ok();
    };
    // A user who is neither the owner nor of the group, with a group of his own beside it.
    let as_user = |user: &str, args: &[&str]| {
        let ids = ["--reuid", user, "--regid", user, "--groups", "4321"];
        let mut command = command("setpriv");
        command.args(ids).args(args).current_dir("/").code().0
    };
    let at = |name: &str| point.join(name).to_str().unwrap().to_owned();
    std::fs::write(mount.join("f"), "x").unwrap();
    std::fs::set_permissions(mount.join("f"), std::fs::Permissions::from_mode(0o640)).unwrap();
    assert_ne!(as_user("1001", &["cat", &at("f")]), 0);
    acl(&["-m", "u:1001:r"], &mount.join("f"));
    assert_eq!(as_user("1001", &["cat", &at("f")]), 0);
    assert_ne!(as_user("1001", &["tee", "-a", &at("f")]), 0);
    assert_ne!(as_user("1002", &["cat", &at("f")]), 0);
    acl(&["-m", "g:4321:r"], &mount.join("f"));
    assert_eq!(as_user("1002", &["cat", &at("f")]), 0);
    acl(&["-m", "u:1002:-"], &mount.join("f"));
    assert_ne!(
        as_user("1002", &["cat", &at("f")]),
        0,
        "a user is named before his groups"
    );
    command("chmod").arg("g-r").arg(mount.join("f")).output_ok();
    assert_ne!(as_user("1001", &["cat", &at("f")]), 0, "the mask binds");
    command("chmod").arg("g+r").arg(mount.join("f")).output_ok();
    assert_eq!(as_user("1001", &["cat", &at("f")]), 0);
    std::fs::create_dir(mount.join("d")).unwrap();
    acl(&["-m", "u:1001:rwx,d:u:1001:rwx,d:o::-"], &mount.join("d"));
    assert_eq!(as_user("1001", &["mkdir", &at("d/below")]), 0);
    let script = format!("umask 077; echo x > {}", at("d/below/f"));
    assert_eq!(as_user("1001", &["sh", "-c", &script]), 0);
    let told = |root: &Path| {
        let mut command = command("getfacl");
        command
            .args(["-R", "-n", "--omit-header", "."])
            .current_dir(root)
            .output_ok()
    };
    let before = told(mount.path());
    assert!(before.contains("user:1001:rwx\t#effective:rw-"), "{before}");
    let made = std::fs::metadata(mount.join("d/below/f")).unwrap().mode();
    assert_eq!(made & 0o777, 0o660, "the umask has no part in it");
    mount.unmount();
    let other = vault.mount("b");
    assert_eq!(told(&other_point), before);
    acl(&["-b", "-k"], &other.join("d"));
    assert!(!told(&other.join("d")).starts_with("user::rwx\nuser:1001"));
    other.unmount();
}
