//! `skrin verify`: a check of everything that can be reached, from keys and objects alone; with `--repair` everything is put again
//! before that the machine still has.

use std::sync::Arc;

use serde::Serialize;
use tempfile::TempDir;

use crate::args::VerifyArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::finding::{Finding, Kind};
use crate::fsck::{Checked, Fsck};
use crate::left_out::{self, shut};
use crate::print;
use crate::reader::Target;
use crate::repair::Repair;
use crate::session::Layers;

/// The last line of `--json`.
#[derive(Serialize)]
struct Summary {
    /// What is wrong.
    findings: usize,
    /// What was, and was put again.
    repaired: usize,
    #[serde(flatten)]
    checked: Checked,
}

/// Checks.
///
/// # Errors
/// `Integrity` where something was found and not mended; `Secret`, `Absent`, `Unreachable` where nothing could be checked;
/// `Busy` where `--repair` finds the vault mounted with the same state directory.
pub(crate) fn run(args: &VerifyArgs) -> Outcome {
    let (findings, checked) = super::runtime()?.block_on(async {
        match args.repair {
            true => repair(args).await,
            false => check(args).await,
        }
    })?;
    for finding in &findings {
        match args.json {
            true => print::json(finding),
            false => finding.lines().into_iter().for_each(print::line),
        }
    }
    let repaired = findings.iter().filter(|finding| finding.repaired).count();
    let count = findings.len() - repaired;
    match args.json {
        true => print::json(&Summary {
            findings: count,
            repaired,
            checked,
        }),
        false => summary(&checked, repaired),
    }
    match (count, args.repair) {
        (0, _) => Ok(()),
        (n, true) => Err(Failure::new(Exit::Integrity, format!("{n} findings in {} could not be repaired here", args.vault))
            .remedy("run it on the other devices that have used the vault, or restore the objects named above from a backup of the storage; what does not depend on them can still be read and exported")),
        (n, false) => Err(Failure::new(Exit::Integrity, format!("{n} findings in {}", args.vault))
            .remedy("skrin verify --repair, on each device that has used the vault, puts again what they still have; files that do not depend on the objects named above can still be read and exported")),
    }
}

fn summary(checked: &Checked, repaired: usize) {
    let Checked {
        commits,
        checkpoints,
        pages,
        segments,
        blocks,
        bytes,
    } = checked;
    let read = indicatif::HumanBytes(*bytes);
    print::line(format!(
        "checked {commits} commits, {checkpoints} checkpoints with {pages} pages, {segments} segments, {blocks} blocks; {read} read"
    ));
    if repaired > 0 {
        print::line(format!("{repaired} objects were put again"));
    }
}

type Found = (Vec<Finding>, Checked);

async fn check(args: &VerifyArgs) -> Outcome<Found> {
    let target = match Target::open(&args.vault, &args.unlock).await {
        Err(failure) if failure.exit == Exit::Integrity => return Ok(unreadable(&failure)),
        other => other?,
    };
    let opened = target.layers().await;
    look(&target, Fsck::new(&*target.store), opened, args.data).await
}

async fn repair(args: &VerifyArgs) -> Outcome<Found> {
    let mut repair = match Repair::begin(args).await {
        Err(failure) if failure.exit == Exit::Integrity => return Ok(unreadable(&failure)),
        other => other?,
    };
    let opened = repair.layers().await;
    let store = Arc::clone(&repair.target.store);
    let mut fsck = Fsck::mending(&*store, repair.spare());
    fsck.findings.append(&mut repair.done);
    let (mut findings, checked) = look(&repair.target, fsck, opened, true).await?;
    if findings.iter().all(|finding| finding.repaired) {
        findings.extend(repair.rolled_back().await?);
    }
    repair.note(&findings);
    Ok((findings, checked))
}

async fn look(
    target: &Target,
    mut fsck: Fsck<'_>,
    opened: Outcome<(Layers, TempDir)>,
    data: bool,
) -> Outcome<Found> {
    // Nothing else can be opened without the control records, so what keeps the room shut ends the check.
    let room = match target.unlocked.load_room(&*target.store).await {
        Ok(room) => room,
        Err(error) => match Failure::from(error) {
            failure if failure.exit == Exit::Integrity => {
                fsck.found(shut(&failure));
                return Ok((fsck.findings, fsck.checked));
            }
            failure => return Err(failure),
        },
    };
    for bad in &room.findings {
        fsck.found(left_out::record(&*target.store, bad).await);
    }
    let slots = target.unlocked.check_slots(&*target.store, &room.state);
    for slot in slots.await? {
        let (kind, what) = match slot.missing {
            true => (Kind::SlotMissing, "is missing: the storage lost it"),
            false => (Kind::SlotDamaged, "is not what was written"),
        };
        fsck.found(Finding::new(kind, slot.object, what));
    }
    fsck.tips(target.unlocked.root_room()).await?;
    match opened {
        Ok((layers, _dir)) => {
            fsck.metadata(&layers).await?;
            fsck.tree(&layers, data).await?;
        }
        // So much is damaged that there is no tree; the error names the object.
        Err(failure) if failure.exit == Exit::Integrity => drop(fsck.found(shut(&failure))),
        Err(failure) => return Err(failure),
    }
    Ok((fsck.findings, fsck.checked))
}

fn unreadable(failure: &Failure) -> Found {
    (vec![shut(failure)], Checked::default())
}
