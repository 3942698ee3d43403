//! `skrin device revoke`: a device of one's own that was lost.

use std::path::Path;

use super::member::{address_of, ask_at};
use crate::args::UnlockArgs;
use crate::commands::sync::senseless;
use crate::exit::Outcome;
use crate::officer::tips_of;
use crate::past::find;
use crate::people::{Answer, Ends, Request};
use crate::print;
use crate::reader::Target;
use skrin_base::ids::DeviceId;
use skrin_vault::record::EndReason;

/// Revokes one, with the root: a mount alone may not.
///
/// # Errors
/// `Absent` for a device that is not one's own; those of opening a vault.
pub(crate) fn revoke(dir: &Path, device: &str, unlock: &UnlockArgs, json: bool) -> Outcome {
    let mount = find(dir)?.mount;
    let vault = address_of(&mount)?;
    let runtime = super::runtime()?;
    // Before the mount says what counts of that device: somebody may have to type a passphrase.
    let target = runtime.block_on(Target::open(&vault, unlock))?;
    let device = device.to_owned();
    let Answer::Ends(ends) = ask_at(&mount, Request::Ends { device })? else {
        return Err(senseless());
    };
    runtime.block_on(publish(&target, &ends))?;
    ask_at(&mount, Request::Refresh)?;
    match json {
        true => print::json(&ends),
        false => print::line(format!(
            "{} was revoked: nothing that is written from now on can be read with what was on it",
            ends.name
        )),
    }
    Ok(())
}

async fn publish(target: &Target, ends: &Ends) -> Outcome {
    let device = skrin_base::ids::parse_hex(&ends.device).map(DeviceId);
    let device = device.ok_or_else(senseless)?;
    let cut = tips_of(ends)?;
    let unlocked = &target.unlocked;
    unlocked
        .revoke_device(&target.place(), device, cut, EndReason::Lost)
        .await?;
    Ok(())
}
