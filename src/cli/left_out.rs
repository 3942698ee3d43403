//! What somebody who reads a vault is not shown, because a tip, a commit or a control record is missing or damaged.

use std::time::Duration;

use skrin_base::limits::CONTROL_MAX;
use skrin_meta::replica::{FindingKind, Problem, ProblemKind, Replica};
use skrin_storage::{ObjectName, Store};
use skrin_vault::BadRecord;

use crate::exit::{Failure, Outcome};
use crate::finding::{Finding, Kind};

/// A commit is put before its tip: so long it may take until that is there.
const UPLOAD: Duration = Duration::from_secs(3);

/// What lies in the lanes and does not show, but for uploads under way.
///
/// # Errors
/// A storage that cannot be reached.
pub(crate) async fn problems(replica: &Replica) -> Outcome<Vec<Problem>> {
    let is_hidden = |problem: &Problem| problem.kind == ProblemKind::Hidden;
    let mut problems = replica.left_out().await?;
    if problems.iter().any(is_hidden) {
        tokio::time::sleep(UPLOAD).await;
        replica.pull().await?;
        let again = replica.left_out().await?;
        problems.retain(|problem| again.contains(problem));
    }
    Ok(problems)
}

/// What is wrong with a control record.
pub(crate) async fn record(store: &dyn Store, bad: &BadRecord) -> Finding {
    let is_missing = match ObjectName::new(bad.object.as_str()) {
        Ok(name) => {
            let got = store.get(&name, CONTROL_MAX).await;
            got.is_err_and(|error| error.is_absent())
        }
        Err(_) => false,
    };
    let kind = Kind::of_object(&bad.object, is_missing);
    Finding::new(kind, &bad.object, &bad.what)
}

/// What keeps the vault shut. The text begins with the object where there is one.
pub(crate) fn shut(failure: &Failure) -> Finding {
    let text = failure.to_string();
    let object = text.split([':', ' ']).next().unwrap_or_default();
    match Kind::of_object(object, false) {
        Kind::Unreadable => Finding::new(Kind::Unreadable, "vault", &text),
        kind => Finding::new(kind, object, &text),
    }
}

/// All of it: what lies in the lanes, what was found while they were read, and bad control records.
///
/// # Errors
/// A storage that cannot be reached.
pub(crate) async fn findings(
    replica: &Replica,
    store: &dyn Store,
    records: &[BadRecord],
) -> Outcome<Vec<Finding>> {
    let mut findings: Vec<Finding> = Vec::new();
    for bad in records {
        findings.push(record(store, bad).await);
    }
    let problems = problems(replica).await?;
    let told = problems.iter().map(|problem| {
        let kind = Kind::of_problem(problem);
        Finding::new(kind, &problem.object, &problem.text)
    });
    findings.extend(told);
    for finding in replica.status().findings {
        let hides = match finding.kind {
            FindingKind::Incomplete
            | FindingKind::Withheld
            | FindingKind::Unknown
            | FindingKind::Newer
            | FindingKind::Rollback => true,
            FindingKind::Integrity => !finding.object.contains("/pages/"),
            FindingKind::Fork
            | FindingKind::Restored
            | FindingKind::Cloned
            | FindingKind::WentBack
            | FindingKind::Digest
            | FindingKind::Refuted
            | FindingKind::CutOff => false,
        };
        // All commits say what a checkpoint says.
        let told = findings.iter().any(|known| known.object == finding.object);
        if hides && !told && !finding.object.contains("/checkpoints/") {
            let kind = Kind::of_finding(&finding);
            findings.push(Finding::new(kind, finding.object, finding.text));
        }
    }
    Ok(findings)
}
