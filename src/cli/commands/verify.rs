//! `skrin verify`: a check of everything that can be reached, from keys and objects alone.

use serde::Serialize;

use crate::args::VerifyArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::fsck::{Checked, Finding, Fsck};
use crate::print;
use crate::reader::Target;

/// The last line of `--json`.
#[derive(Serialize)]
struct Summary {
    findings: usize,
    #[serde(flatten)]
    checked: Checked,
}

/// Checks.
///
/// # Errors
/// `Integrity` where something was found; `Secret`, `Absent`, `Unreachable` where nothing could be checked.
pub(crate) fn run(args: &VerifyArgs) -> Outcome {
    let (findings, checked) = super::runtime()?.block_on(check(args))?;
    for finding in &findings {
        match args.json {
            true => print::json(finding),
            false => print::line(format!("{}: {}", finding.object, finding.what)),
        }
    }
    let count = findings.len();
    if args.json {
        print::json(&Summary {
            findings: count,
            checked,
        });
    } else {
        let Checked {
            commits,
            checkpoints,
            pages,
            segments,
            blocks,
            bytes,
            ..
        } = checked;
        let read = indicatif::HumanBytes(bytes);
        print::line(format!(
            "checked {commits} commits, {checkpoints} checkpoints with {pages} pages, {segments} segments, {blocks} blocks; {read} read"
        ));
    }
    match count {
        0 => Ok(()),
        n => Err(Failure::new(Exit::Integrity, format!("{n} findings in {}", args.vault))
            .remedy("restore the objects named above from a backup of the storage; files that do not depend on them can still be read and exported")),
    }
}

async fn check(args: &VerifyArgs) -> Outcome<(Vec<Finding>, Checked)> {
    let target = Target::open(&args.vault, &args.unlock).await?;
    // Header and control records: nothing else can be opened without them, so what keeps the room shut ends the check.
    let room = target.unlocked.load_room(&*target.store).await?;
    let mut fsck = Fsck::new(&*target.store);
    for bad in &room.findings {
        fsck.found(&bad.object, &bad.what);
    }
    for slot in target
        .unlocked
        .check_slots(&*target.store, &room.state)
        .await?
    {
        let what = if slot.missing {
            "is missing: the storage lost it"
        } else {
            "is not what was written"
        };
        fsck.found(slot.object, what);
    }
    fsck.tips(target.unlocked.root_room()).await?;
    match target.layers().await {
        Ok((layers, _dir)) => {
            fsck.metadata(&layers).await?;
            fsck.tree(&layers, args.data).await?;
        }
        // So much is damaged that there is no tree; the error names the object.
        Err(failure) if failure.exit == Exit::Integrity => fsck.found("tree", failure),
        Err(failure) => return Err(failure),
    }
    Ok((fsck.findings, fsck.checked))
}
