//! A tree of real files to copy: documentation of the toolchain and sources of crates, with everything that is
//! awkward about real trees.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::harness::{Dice, Run, command, files_below};

/// At least so many real files, as the rsync suite asks for.
const FILES: usize = 3200;

/// Removes a directory when its own input ends. That is ours: nothing of what lives as long as the program is ever dropped.
const REMOVES: &str = "trap '' HUP INT TERM
    read -r _
    exec rm -rf \"$0\"";

/// A tree that is removed at the end of the program.
struct Tree {
    root: PathBuf,
    _remover: Child,
}

/// The tree; made once, never changed.
pub(crate) fn real_tree() -> &'static Path {
    static TREE: OnceLock<Tree> = OnceLock::new();
    &TREE.get_or_init(|| with_odd_ones(make("tree", FILES))).root
}

/// A smaller one, for tests that copy many times.
pub(crate) fn small_tree() -> &'static Path {
    static TREE: OnceLock<Tree> = OnceLock::new();
    let tree = TREE.get_or_init(|| with_odd_ones(make("small-tree", 500)));
    &tree.root
}

/// Real files only, for tests that copy all of it dozens of times.
pub(crate) fn plain_tree() -> &'static Path {
    static TREE: OnceLock<Tree> = OnceLock::new();
    &TREE.get_or_init(|| make("plain-tree", 100)).root
}

fn with_odd_ones(tree: Tree) -> Tree {
    odd_ones(&tree.root.join("odd"));
    tree
}

fn make(name: &str, count: usize) -> Tree {
    let tree = place(name);
    let root = &tree.root;
    let files = sources(count);
    assert!(
        files.len() >= count,
        "only {} real files were found",
        files.len()
    );
    for (from, to) in files {
        let to = root.join(to);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(&from, &to).unwrap();
    }
    tree
}

/// An empty one, under a name that no other process ever had.
fn place(name: &str) -> Tree {
    let root = tempfile::Builder::new()
        .prefix(&format!("{name}-"))
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .unwrap()
        .keep();
    let remover = Command::new("sh")
        .args(["-c", REMOVES])
        .arg(&root)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Tree {
        root,
        _remover: remover,
    }
}

/// Half documentation of the toolchain where it is installed, the rest sources of crates.
fn sources(count: usize) -> Vec<(PathBuf, PathBuf)> {
    let sysroot = command("rustc").args(["--print", "sysroot"]).output_ok();
    let docs = Path::new(sysroot.trim()).join("share");
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo =
        cargo.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cargo"));
    let mut chosen = take(&docs, "doc", count / 2);
    let rest = count - chosen.len();
    chosen.extend(take(&cargo.join("registry/src"), "src", rest));
    chosen
}

/// Files spread over the whole of `from`, without the few huge ones.
fn take(from: &Path, below: &str, count: usize) -> Vec<(PathBuf, PathBuf)> {
    let small = |file: &PathBuf| std::fs::metadata(file).is_ok_and(|meta| meta.len() < 1 << 20);
    let all: Vec<PathBuf> = files_below(from).into_iter().filter(small).collect();
    let step = (all.len() / count.max(1)).max(1);
    let named = |file: PathBuf| {
        let name = Path::new(below).join(file.strip_prefix(from).unwrap());
        (file, name)
    };
    all.into_iter()
        .step_by(step)
        .take(count)
        .map(named)
        .collect()
}

/// Names, kinds, sizes and attributes that naive copies lose.
fn odd_ones(dir: &Path) {
    std::fs::create_dir_all(dir.join("empty directory")).unwrap();
    let longest = "x".repeat(255);
    let names: [&[u8]; 8] = [
        b"-rf",
        b" leading and trailing ",
        b"new\nline",
        b"tab\t\"quote\" 'and' \\",
        "Übung 日本語 🦀".as_bytes(),
        b"latin1-\xe9",
        b"..hidden",
        longest.as_bytes(),
    ];
    for name in names {
        std::fs::write(dir.join(OsStr::from_bytes(name)), name).unwrap();
    }
    std::fs::write(dir.join("empty"), b"").unwrap();
    std::fs::write(dir.join("one block"), Dice(1).bytes(65536)).unwrap();
    std::fs::write(dir.join("one byte more"), Dice(2).bytes(65537)).unwrap();
    std::fs::write(dir.join("large"), Dice(3).bytes(20_000_000)).unwrap();
    let sparse = std::fs::File::create(dir.join("sparse")).unwrap();
    sparse.set_len(50_000_000).unwrap();
    sparse.write_all_at(b"island", 30_000_000).unwrap();
    std::fs::hard_link(dir.join("large"), dir.join("the same as large")).unwrap();
    std::fs::hard_link(
        dir.join("empty"),
        dir.join("empty directory/the same as empty"),
    )
    .unwrap();
    symlink("large", dir.join("link")).unwrap();
    symlink("/nowhere/at all", dir.join("broken link")).unwrap();
    symlink("..", dir.join("link to a directory")).unwrap();
    symlink("x".repeat(4000), dir.join("longest link")).unwrap();
    for (name, mode) in [
        ("-rf", 0o400),
        ("empty", 0o777),
        ("one block", 0o600),
        ("sparse", 0o640),
    ] {
        std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    std::fs::set_permissions(
        dir.join("empty directory"),
        std::fs::Permissions::from_mode(0o1755),
    )
    .unwrap();
    command("setfattr")
        .args(["-n", "user.skrin test", "-v", "0x00ff0a00"])
        .arg(dir.join("large"))
        .output_ok();
    command("setfattr")
        .args(["-n", "user.mime", "-v", "text/plain"])
        .arg(dir.join("empty directory"))
        .output_ok();
    command("setfacl")
        .args(["-m", "u:1001:rw,g:1002:r"])
        .arg(dir.join("large"))
        .output_ok();
    command("setfacl")
        .args(["-m", "u:1001:rx,d:u:1001:rwx,d:o::-"])
        .arg(dir.join("empty directory"))
        .output_ok();
    command("touch")
        .args(["-h", "-d", "1985-10-26 01:21:00.123456789 UTC"])
        .arg(dir.join("link"))
        .arg(dir.join("empty"))
        .output_ok();
}
