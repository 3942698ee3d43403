//! git, on this project's own repository.

use std::path::Path;
use std::process::Command;

use crate::harness::{Run, Vault, command};
use crate::storages::On;

fn git_at(at: &Path, args: &[&str]) -> Command {
    let mut git = command("git");
    git.args(["-c", "safe.directory=*", "-c", "user.name=t"])
        .args(["-c", "user.email=t@t", "-c", "core.hooksPath=/dev/null"])
        .arg("-C")
        .arg(at)
        .args(args);
    git
}

fn a_clone_is_sound_before_and_after_gc(on: On) {
    let vault = Vault::new(on);
    let mount = vault.mount("a");
    let clone = mount.join("clone");
    let git = |args: &[&str]| git_at(&clone, args).output_ok();
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

/// Commits of each of two programs that race for the index.
const COMMITS: usize = 25;

/// Commits until it has done so often, again and again where another one has the lock; prints what it committed.
const COMMIT: &str = r#"
for n in $(seq $2); do
    echo $n >>$1
    until git add $1 2>/dev/null && git commit -q -m "$1 $n" -- $1 2>/dev/null; do echo again >&2; sleep 0.0$((RANDOM % 9)); done
    echo "$1 $n"
done
"#;

fn two_programs_that_race_for_the_index_lose_no_commit(on: On) {
    let vault = Vault::new(on);
    let mount = vault.mount("a");
    let tree = mount.join("tree");
    std::fs::create_dir(&tree).unwrap();
    let git = |args: &[&str]| git_at(&tree, args).output_ok();
    git(&["init", "-q", "-b", "main"]);
    // Packing in the background would outlive the test.
    git(&["config", "gc.auto", "0"]);
    let committers = ["one", "two"].map(|name| {
        let mut bash = command("bash");
        bash.args(["-c", COMMIT, "commit", name, &COMMITS.to_string()])
            .current_dir(&tree);
        for (key, value) in [("NAME", "t"), ("EMAIL", "t@t")] {
            bash.env(format!("GIT_AUTHOR_{key}"), value);
            bash.env(format!("GIT_COMMITTER_{key}"), value);
        }
        std::thread::spawn(move || {
            let output = bash.finish();
            assert!(output.status.success(), "{output:?}");
            let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().count();
            (lines(&output.stdout), lines(&output.stderr))
        })
    });
    let done = committers.map(|committer| committer.join().unwrap());
    println!("commits, and times another one had the lock: {done:?}");
    assert_eq!(done.map(|(commits, _)| commits), [COMMITS; 2]);
    let mut subjects: Vec<String> = git(&["log", "--format=%s"])
        .lines()
        .map(str::to_owned)
        .collect();
    subjects.sort();
    let mut all: Vec<String> = ["one", "two"]
        .iter()
        .flat_map(|name| (1..=COMMITS).map(move |n| format!("{name} {n}")))
        .collect();
    all.sort();
    assert_eq!(subjects, all);
    git(&["fsck", "--full", "--strict"]);
    assert_eq!(git(&["status", "--porcelain"]), "");
    mount.unmount();
}

fn branches_rebase_onto_each_other_and_have_trees_of_their_own(on: On) {
    let vault = Vault::new(on);
    let mount = vault.mount("a");
    let tree = mount.join("tree");
    std::fs::create_dir(&tree).unwrap();
    let git = |args: &[&str]| git_at(&tree, args).output_ok();
    let commit = |at: &Path, name: &str, text: &str| {
        std::fs::write(at.join(name), text).unwrap();
        git_at(at, &["add", name]).output_ok();
        git_at(at, &["commit", "-q", "-m", name]).output_ok();
    };
    git(&["init", "-q", "-b", "main"]);
    commit(&tree, "ground", "0");
    // A second tree of the same repository, beside the first.
    let beside = mount.join("beside");
    git(&[
        "worktree",
        "add",
        "-q",
        "-b",
        "topic",
        beside.to_str().unwrap(),
    ]);
    for number in 0..10 {
        commit(&tree, &format!("main-{number}"), "main");
        commit(&beside, &format!("topic-{number}"), "topic");
    }
    git_at(&beside, &["rebase", "-q", "main"]).output_ok();
    assert_eq!(
        git_at(&beside, &["rev-list", "--count", "HEAD"])
            .output_ok()
            .trim(),
        "21"
    );
    // A conflict stops it, and what it was about to do is there after a remount too.
    commit(&tree, "ground", "1");
    commit(&beside, "ground", "2");
    let (code, said) = git_at(&beside, &["rebase", "main"]).code();
    assert_ne!(code, 0, "{said}");
    mount.unmount();
    let mount = vault.mount("a");
    assert_eq!(
        git_at(&beside, &["status", "--porcelain"]).output_ok(),
        "UU ground\n"
    );
    std::fs::write(beside.join("ground"), "3").unwrap();
    git_at(&beside, &["add", "ground"]).output_ok();
    git_at(&beside, &["-c", "core.editor=true", "rebase", "--continue"]).output_ok();
    git(&["merge", "-q", "--ff-only", "topic"]);
    assert_eq!(std::fs::read_to_string(tree.join("ground")).unwrap(), "3");
    git(&["worktree", "remove", beside.to_str().unwrap()]);
    assert!(!beside.exists());
    git(&["gc", "-q", "--prune=now"]);
    git(&["fsck", "--full", "--strict"]);
    assert_eq!(git(&["status", "--porcelain"]), "");
    assert_eq!(git(&["rev-list", "--count", "HEAD"]).trim(), "23");
    mount.unmount();
}

crate::on_every_storage! {
    two_programs_that_race_for_the_index_lose_no_commit;
    branches_rebase_onto_each_other_and_have_trees_of_their_own;
    a_clone_is_sound_before_and_after_gc;
}
