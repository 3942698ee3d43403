//! What people see on a terminal while they wait, and what is left of it afterwards.

use std::io::Read;
use std::process::{Child, Stdio};

use crate::harness::{Dice, Mount, SKRIN, Vault, command};
use crate::relay::Distant;
use crate::storages::On;

/// The program on a pseudo-terminal, which script(1) makes.
fn on_a_terminal(vault: &Vault, args: &[&str]) -> Child {
    let words: Vec<String> = args.iter().map(|arg| format!("'{arg}'")).collect();
    let line = format!("'{SKRIN}' {}", words.join(" "));
    command("script")
        .args(["-qec", &line, "/dev/null"])
        .env("SKRIN_PASSPHRASE_FILE", vault.path("passphrase"))
        .env("TERM", "xterm")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Reads what is shown until these words are there.
fn read_until(child: &mut Child, words: &str) -> String {
    let out = child.stdout.as_mut().unwrap();
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let n = out.read(&mut buffer).unwrap();
        bytes.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&bytes);
        if text.contains(words) {
            return text.into_owned();
        }
        assert!(n > 0, "it ended without {words:?}: {text:?}");
    }
}

/// Everything else that it shows; it must end well.
fn rest(mut child: Child) -> String {
    let mut text = String::new();
    let out = child.stdout.as_mut().unwrap();
    out.read_to_string(&mut text).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}: {text:?}");
    text
}

/// How wide a terminal is where nobody says: a bar that is wider goes on in the next line.
const WIDTH: usize = 80;
/// Wide enough for any line.
const UNBOUNDED: usize = usize::MAX;

/// The lines that a terminal of this width shows at the end. It knows what progress bars need: to go back to the beginning of the line, to clear
/// it, and to go up.
fn screen(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![Vec::new()];
    let (mut row, mut column) = (0, 0);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\r' => column = 0,
            '\n' => row += 1,
            '\u{1b}' => {
                let sequence: String = take_through(&mut chars, char::is_alphabetic);
                match sequence.as_str() {
                    "[2K" | "[K" => lines[row].clear(),
                    "[1A" => {
                        row = row
                            .checked_sub(1)
                            .unwrap_or_else(|| panic!("above the top: {text:?}"))
                    }
                    other => panic!("{other:?} in {text:?}"),
                }
            }
            c => {
                if column == width {
                    (row, column) = (row + 1, 0);
                    lines.resize_with(lines.len().max(row + 1), Vec::new);
                }
                if lines[row].len() <= column {
                    lines[row].resize(column + 1, ' ');
                }
                lines[row][column] = c;
                column += 1;
            }
        }
        if lines.len() <= row {
            lines.push(Vec::new());
        }
    }
    let shown = lines.iter().map(|line| line.iter().collect::<String>());
    let mut shown: Vec<String> = shown.map(|line| line.trim_end().to_owned()).collect();
    while shown.last().is_some_and(String::is_empty) {
        shown.pop();
    }
    shown
}

fn take_through(chars: &mut std::str::Chars<'_>, last: fn(char) -> bool) -> String {
    let mut taken = String::new();
    for c in chars {
        taken.push(c);
        if last(c) {
            break;
        }
    }
    taken
}

#[test]
fn a_long_upload_shows_a_bar_that_leaves_nothing_behind() {
    let distant = Distant::new();
    let mount = distant.mount("a");
    distant.relay.shut();
    std::fs::write(mount.join("file"), Dice(9).bytes(20_000_000)).unwrap();
    let point = mount.path().to_str().unwrap();
    // Where there is no terminal there is no bar.
    let mut elsewhere = distant.vault.skrin(&["sync", point]);
    elsewhere.stdout(Stdio::piped()).stderr(Stdio::piped());
    let elsewhere = elsewhere.spawn().unwrap();
    let mut sync = on_a_terminal(&distant.vault, &["sync", point]);
    let shown = read_until(&mut sync, "changes left");
    assert!(
        shown.contains("uploading [") && shown.contains("0 B/19."),
        "{shown:?}"
    );
    distant.relay.open();
    let all = shown + &rest(sync);
    assert_eq!(screen(&all, WIDTH), [""; 0], "{all:?}");
    let output = elsewhere.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(
        output.stdout.is_empty() && output.stderr.is_empty(),
        "{output:?}"
    );
    mount.unmount();
}

#[test]
fn what_a_command_has_to_say_stands_on_lines_of_its_own_beside_a_spinner() {
    let vault = Vault::new(On::Local);
    let mount = vault.mount("b");
    std::fs::write(mount.join("file"), "x").unwrap();
    mount.unmount();
    let (point, address) = (vault.point("a"), vault.address());
    let state = vault.state("a");
    let (dir, state) = (point.to_str().unwrap(), state.to_str().unwrap());
    // With the passphrase, so that it takes a moment.
    let args = ["mount", &address, dir, "--state-dir", state];
    let shown = rest(on_a_terminal(&vault, &args));
    let mount = Mount::adopt(&vault, point.clone());
    assert!(shown.contains("mounting"), "{shown:?}");
    let lines = screen(&shown, UNBOUNDED);
    assert_eq!(lines.len(), 4, "{lines:?} of {shown:?}");
    for (line, begins) in lines.iter().zip([
        "skrin: warning: ",
        "this is a new device",
        "  newest commit of ",
        "  heads code: ",
    ]) {
        assert!(line.starts_with(begins), "{lines:?} of {shown:?}");
    }
    mount.unmount();

    let dest = vault.path("export");
    let args = ["export", &address, dest.to_str().unwrap()];
    let shown = rest(on_a_terminal(&vault, &args));
    let lines = screen(&shown, UNBOUNDED);
    let last = lines.last().unwrap();
    assert!(
        last.starts_with("1 files and 1 B were written to"),
        "{lines:?} of {shown:?}"
    );
    assert!(
        lines.iter().all(|line| !line.contains("exporting")),
        "{lines:?}"
    );
    assert!(shown.contains("exporting"), "{shown:?}");
}
