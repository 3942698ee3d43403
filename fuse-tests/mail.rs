//! A Maildir: no lock, only names that are linked, renamed and removed while others look.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread::JoinHandle;

use crate::harness::{Run, Vault, command, files_below};
use crate::rsync::assert_same;
use crate::storages::On;

/// Messages that each of two programs delivers.
const EACH: usize = 500;

/// Delivers as qmail does: a file in tmp, written and synced, gets a second name in new and loses the first. Every other one is renamed,
/// as Postfix and Dovecot do.
const DELIVER: &str = r#"
import os, sys
box, who, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
for n in range(count):
    name = f"{n}.{who}.host"
    tmp, new = f"{box}/tmp/{name}", f"{box}/new/{name}"
    with open(tmp, "xb") as file:
        file.write(f"From: {who}\nSubject: {n}\n\n".encode() + bytes([n % 251]) * (n * 37 % 9000) + b"\nend\n")
        file.flush()
        os.fsync(file.fileno())
    if n % 2:
        os.link(tmp, new)
        os.unlink(tmp)
    else:
        os.rename(tmp, new)
"#;

/// Takes what is new until it was told that no more comes and nothing is left; prints what it got. Only one program may get a message.
const TAKE: &str = r#"
import os, sys, time
box, over = sys.argv[1], sys.argv[2]
while True:
    last = os.path.exists(over)
    names = os.listdir(f"{box}/new")
    for name in names:
        try:
            os.rename(f"{box}/new/{name}", f"{box}/cur/{name}:2,S")
        except FileNotFoundError:
            continue
        n, who, _ = name.split(".")
        with open(f"{box}/cur/{name}:2,S", "rb") as file:
            text = file.read()
        n = int(n)
        whole = f"From: {who}\nSubject: {n}\n\n".encode() + bytes([n % 251]) * (n * 37 % 9000) + b"\nend\n"
        assert text == whole, f"{name} is {len(text)} bytes of {len(whole)}"
        print(name)
    if last and not names:
        break
    time.sleep(0.01)
"#;

fn python(script: &'static str, args: &[&str]) -> JoinHandle<String> {
    let mut python = command("/usr/bin/python3");
    python.args(["-c", script]).args(args);
    std::thread::spawn(move || python.output_ok())
}

fn a_thousand_messages_by_two_who_race_arrive_once_and_whole(on: On) {
    let vault = Vault::new(on);
    let mount = vault.mount("a");
    let at = mount.join("box");
    for dir in ["tmp", "new", "cur"] {
        std::fs::create_dir_all(at.join(dir)).unwrap();
    }
    let over = vault.path("over");
    let (path, over_path) = (at.to_str().unwrap(), over.to_str().unwrap());
    let takers = [(); 2].map(|()| python(TAKE, &[path, over_path]));
    let deliverers = ["one", "two"].map(|who| python(DELIVER, &[path, who, &EACH.to_string()]));
    for deliverer in deliverers {
        deliverer.join().unwrap();
    }
    std::fs::write(&over, "").unwrap();
    let taken = takers.map(|taker| taker.join().unwrap());
    println!("{:?} messages", taken.each_ref().map(|t| t.lines().count()));
    let taken: Vec<&str> = taken.iter().flat_map(|taken| taken.lines()).collect();
    assert_eq!(taken.len(), 2 * EACH);
    let names: BTreeSet<&str> = taken.into_iter().collect();
    assert_eq!(names.len(), 2 * EACH, "a message was taken twice");
    let left = |dir: &str| files_below(&at.join(dir)).len();
    assert_eq!(["tmp", "new", "cur"].map(left), [0, 0, 2 * EACH]);
    let copy = vault.path("copy");
    copy_natively(&at, &copy);
    mount.unmount();
    let other = vault.mount("b");
    assert_same(&copy, &other.join("box"));
    other.unmount();
}

fn copy_natively(from: &Path, to: &Path) {
    command("cp").arg("-a").arg(from).arg(to).output_ok();
}

crate::on_every_storage! { a_thousand_messages_by_two_who_race_arrive_once_and_whole; }
