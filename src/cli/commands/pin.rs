//! `skrin pin` and `skrin unpin`: what this machine keeps, so that it can be read without the storage.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::sync::{mount_of, senseless, silent};
use crate::args::{PinArgs, UnpinArgs};
use crate::control::{Answer, PinReport, Request, ask};
use crate::exit::{Exit, Failure, Outcome};
use crate::print;
use crate::progress::Blocks;

/// How often it is looked how far it is.
const LOOK: Duration = Duration::from_millis(200);

/// What `--json` says. These names are a stable interface: fields are added, never renamed.
#[derive(Serialize)]
struct Pinned<'a> {
    mount_point: String,
    #[serde(flatten)]
    report: &'a PinReport,
}

/// Pins what is named and waits until it is here; without names, shows what is pinned.
///
/// # Errors
/// `Absent` where a path is in no mount, `Usage` where the storage is a folder of this machine, `Unreachable` where the storage does not give what
/// is missing: it stays pinned then, and is fetched when it does.
pub(crate) fn pin(args: &PinArgs) -> Outcome {
    let point = one_mount(&args.paths)?;
    if args.list {
        let report = ask_pins(&point, &Request::Pins)?;
        return show(&point, &report, args.json);
    }
    let inodes = inodes(&args.paths)?;
    let mut report = ask_pins(
        &point,
        &Request::Pin {
            inodes,
            pinned: true,
        },
    )?;
    if !args.no_wait {
        let mut bar = Blocks::new();
        while !report.is_here() {
            if let Some(error) = &report.error {
                drop(bar);
                return Err(Failure::new(Exit::Unreachable, error)
                    .during("what is pinned is not all here")
                    .remedy("it stays pinned, and is fetched when the storage gives it"));
            }
            bar.report(report.missing_blocks);
            std::thread::sleep(LOOK);
            report = ask_pins(&point, &Request::Pins)?;
        }
    }
    show(&point, &report, args.json)
}

/// Lets go of what is named.
///
/// # Errors
/// `Absent` where a path is in no mount or is not pinned.
pub(crate) fn unpin(args: &UnpinArgs) -> Outcome {
    let point = one_mount(&args.paths)?;
    let inodes = inodes(&args.paths)?;
    let pinned = false;
    let report = ask_pins(&point, &Request::Pin { inodes, pinned })?;
    show(&point, &report, args.json)
}

fn one_mount(paths: &[PathBuf]) -> Outcome<PathBuf> {
    let mut points = paths.iter().map(|path| mount_of(path));
    let Some(first) = points.next() else {
        return Err(Failure::new(Exit::Usage, "no path was given"));
    };
    let first = first?;
    for point in points {
        if point? != first {
            let what = "the paths lie in different mounts";
            return Err(Failure::new(Exit::Usage, what).remedy("name those of one mount at a time"));
        }
    }
    Ok(first)
}

/// The mount shows the numbers that the vault keeps.
fn inodes(paths: &[PathBuf]) -> Outcome<Vec<u64>> {
    let number = |path: &PathBuf| {
        let meta = std::fs::symlink_metadata(path);
        let meta = meta.map_err(|e| Failure::io(path, "cannot look at it", &e))?;
        Ok(meta.ino())
    };
    paths.iter().map(number).collect()
}

fn ask_pins(point: &Path, request: &Request) -> Outcome<PinReport> {
    match ask(point, request, &mut |_| {})? {
        Some(Answer::Pins(report)) => Ok(*report),
        Some(_) => Err(senseless()),
        None => Err(silent(point)),
    }
}

fn show(point: &Path, report: &PinReport, json: bool) -> Outcome {
    if json {
        let mount_point = point.display().to_string();
        print::json(&Pinned {
            mount_point,
            report,
        });
        return Ok(());
    }
    for path in &report.paths {
        print::line(path);
    }
    if report.paths.is_empty() {
        print::line("nothing is pinned");
    }
    if let Some(error) = &report.error {
        print::note(format!("warning: {error}"));
    }
    if !report.paths.is_empty() {
        print::note(summary(report));
    }
    Ok(())
}

/// One line on how far it is.
pub(crate) fn summary(report: &PinReport) -> String {
    let files = HumanCount(report.files);
    let bytes = HumanBytes(report.bytes);
    match (report.looked, report.missing_blocks) {
        (false, _) => "not looked through yet".to_owned(),
        (true, 0) => format!("{files} files, {bytes}, all here"),
        (true, missing) => {
            let missing = HumanCount(missing);
            format!("{files} files, {bytes}, {missing} blocks are not here yet")
        }
    }
}
