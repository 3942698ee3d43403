//! What programmers do all day: a crate that is built, and a Python environment, inside the mount.

use std::path::Path;
use std::process::Command;

use crate::harness::{Run, Vault, command};
use crate::storages::On;

const FILES: [(&str, &str); 4] = [
    (
        "Cargo.toml",
        "[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[workspace]\n",
    ),
    (
        "build.rs",
        "fn main() { println!(\"cargo:rerun-if-changed=build.rs\"); println!(\"cargo:rustc-env=BUILT=yes\"); }\n",
    ),
    (
        "src/lib.rs",
        "pub fn twice(n: u64) -> u64 { 2 * n }\n\n#[test]\nfn four_is_twice_two() { assert_eq!(twice(2), 4); }\n",
    ),
    (
        "src/main.rs",
        "fn main() { println!(\"{} {}\", env!(\"BUILT\"), small::twice(21)); }\n",
    ),
];

fn cargo(at: &Path, args: &[&str]) -> Command {
    let mut cargo = command(env!("CARGO"));
    // Nothing of the build that runs this test; incremental, which locks and links files.
    for (name, _) in std::env::vars() {
        if name.starts_with("CARGO_") || name.starts_with("RUSTC") {
            cargo.env_remove(name);
        }
    }
    if let Ok(home) = std::env::var("CARGO_HOME") {
        cargo.env("CARGO_HOME", home);
    }
    cargo
        .env("CARGO_INCREMENTAL", "1")
        .env("CARGO_TARGET_DIR", at.join("target"))
        .args(args)
        .arg("--offline")
        .current_dir(at);
    cargo
}

/// What cargo compiled, by its own words.
fn compiled(at: &Path) -> usize {
    let (code, said) = cargo(at, &["build"]).code();
    assert_eq!(code, 0, "{said}");
    said.lines()
        .filter(|line| line.contains("Compiling"))
        .count()
}

#[test]
fn cargo_builds_a_crate_and_knows_after_a_remount_that_nothing_changed() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("a");
    let small = mount.join("small");
    for (name, text) in FILES {
        std::fs::create_dir_all(small.join(name).parent().unwrap()).unwrap();
        std::fs::write(small.join(name), text).unwrap();
    }
    assert_eq!(compiled(&small), 1);
    let program = small.join("target/debug/small");
    let run = || command(program.to_str().unwrap()).output_ok();
    assert_eq!(run(), "yes 42\n");
    cargo(&small, &["test", "--quiet"]).output_ok();
    assert_eq!(compiled(&small), 0);
    mount.unmount();
    let mount = vault.mount("a");
    assert_eq!(compiled(&small), 0);
    let changed = FILES[2].1.replace("2 * n", "n + n + 1");
    std::fs::write(small.join("src/lib.rs"), changed).unwrap();
    assert_eq!(compiled(&small), 1);
    assert_eq!(run(), "yes 43\n");
    cargo(&small, &["clean"]).output_ok();
    assert!(!small.join("target").exists());
    mount.unmount();
    vault.verify_clean();
}

fn a_python_environment_works_here_and_on_another_device(on: On) {
    let vault = Vault::new(on);
    let mount = vault.mount("a");
    let venv = mount.join("venv");
    command("/usr/bin/python3")
        .args(["-m", "venv"])
        .arg(&venv)
        .output_ok();
    let python = |venv: &Path| {
        let mut python = command(venv.join("bin/python").to_str().unwrap());
        python.env_remove("PYTHONDONTWRITEBYTECODE");
        python
    };
    let site = python(&venv)
        .args(["-c", "import site; print(site.getsitepackages()[0])"])
        .output_ok();
    let site = Path::new(site.trim());
    assert!(site.starts_with(&venv));
    std::fs::create_dir(site.join("box_of_ours")).unwrap();
    std::fs::write(site.join("box_of_ours/__init__.py"), "answer = 42\n").unwrap();
    let answer = |venv: &Path| {
        python(venv)
            .args([
                "-c",
                "import box_of_ours; print(box_of_ours.answer, box_of_ours.__cached__)",
            ])
            .output_ok()
    };
    // The first import compiles, the second reads what was compiled.
    assert_eq!(answer(&venv), answer(&venv));
    let cached = answer(&venv);
    let cached = cached.trim().strip_prefix("42 ").unwrap();
    assert!(Path::new(cached).is_file(), "{cached}");
    // pip is some hundred modules.
    let pip = |venv: &Path| python(venv).args(["-m", "pip", "--version"]).output_ok();
    let version = pip(&venv);
    mount.unmount();
    let other = vault.mount("b");
    let there = other.join("venv");
    assert!(answer(&there).starts_with("42 "));
    assert_eq!(
        version.split(' ').nth(1).unwrap(),
        pip(&there).split(' ').nth(1).unwrap()
    );
    other.unmount();
}

crate::on_every_storage! { a_python_environment_works_here_and_on_another_device; }
