//! Below the command line and FUSE time, randomness, threads and stable storage come from where the simulation can see them: nobody asks
//! the machine behind its back.
#![allow(clippy::unwrap_used)] // Helpers of tests; the lint only excuses the test functions themselves.

use std::path::{Path, PathBuf};

const CRATES: [&str; 7] = ["base", "crypto", "storage", "vault", "meta", "data", "fs"];

/// What only the places below may say.
const FORBIDDEN: [&str; 13] = [
    "SystemTime::now",
    "Instant::now",
    "time::Instant",
    "time::{Duration, Instant}",
    "UNIX_EPOCH",
    "getrandom",
    "thread_rng",
    "rand::",
    "thread::sleep",
    "thread::spawn",
    "spawn_blocking",
    "file.sync_",
    "File::open(dir)?.sync",
];

/// Who may, and why.
const ALLOWED: [(&str, &str, &str); 13] = [
    ("storage/disk.rs", "", "the place itself"),
    (
        "storage/local.rs",
        "",
        "a storage, which the simulation has its own of",
    ),
    ("storage/local/durable_file.rs", "file.sync_", "the same"),
    ("storage/http.rs", "", "a storage, and the runtime's clock"),
    ("storage/http/auth.rs", "", "the same"),
    ("storage/http/body.rs", "", "the same"),
    (
        "storage/retry.rs",
        "Instant",
        "the runtime's clock, which the simulation moves",
    ),
    (
        "data/journal.rs",
        "Instant",
        "writers that wait for room; one thread waits for none",
    ),
    ("fs/commit.rs", "Instant", "the same"),
    ("fs/commit.rs", "thread::sleep", "the same"),
    (
        "data/store/disk.rs",
        "",
        "the age of entries of a cache, from their files",
    ),
    (
        "data/store/keep.rs",
        "spawn_blocking",
        "the disk cache, which the simulation does not have yet",
    ),
    ("fs/testutil.rs", "", "tests"),
];

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if [
            "tests",
            "tests.rs",
            "suite",
            "suite.rs",
            "testing.rs",
            "conformance.rs",
        ]
        .contains(&&*name)
        {
            continue;
        }
        match path.is_dir() {
            true => sources(&path, out),
            false if name.ends_with(".rs") => out.push(path),
            false => {}
        }
    }
}

#[test]
fn nobody_below_the_command_line_asks_the_machine_for_time_or_chance() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    CRATES
        .iter()
        .for_each(|name| sources(&src.join(name), &mut files));
    assert!(files.len() > 100);
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file
            .strip_prefix(src)
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (n, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in FORBIDDEN.iter().filter(|word| code.contains(**word)) {
                let may = |(at, part, _): &(&str, &str, &str)| *at == name && word.contains(part);
                if !ALLOWED.iter().any(may) {
                    found.push(format!("{name}:{}: {word}", n + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
