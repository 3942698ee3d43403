//! `skrin scrub`: look slowly at everything that lies on the storage, while the vault is mounted.

use serde::Serialize;

use super::sync::{mount_of, senseless, silent};
use crate::args::ScrubArgs;
use crate::control::{Answer, Request, ask};
use crate::exit::Outcome;
use crate::print;
use crate::scrub::Report;

/// What `--json` says. These names are a stable interface: fields are added, never renamed.
#[derive(Serialize)]
struct Said {
    mount_point: String,
    #[serde(flatten)]
    report: Report,
}

/// Starts it, lets it go on, or stops it; says how it stands.
///
/// # Errors
/// `Absent` where no vault is mounted.
pub(crate) fn run(args: &ScrubArgs) -> Outcome {
    let point = mount_of(&args.dir)?;
    let request = Request::Scrub {
        rate: args.rate,
        stop: args.stop,
    };
    let report = match ask(&point, &request, &mut |_| {})? {
        Some(Answer::Scrub(report)) => *report,
        Some(_) => return Err(senseless()),
        None => return Err(silent(&point)),
    };
    if args.json {
        let mount_point = point.display().to_string();
        print::json(&Said {
            mount_point,
            report,
        });
        return Ok(());
    }
    print::line(format!("scrub: {}", report.line()));
    for found in report.open() {
        print::line(format!(
            "  {}: {} [{}]",
            found.object, found.what, found.kind
        ));
    }
    Ok(())
}
