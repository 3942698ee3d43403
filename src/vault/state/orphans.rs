//! Records with parents that do not stand: a loss that must be told, or garbage.

use super::rules::{device_of, is_signed_by_author};
use super::{BadRecord, ControlState};
use crate::control::Opened;
use crate::{Anchor, VaultError, objects};
use skrin_base::ids::Hash32;
use std::collections::BTreeMap;

/// Judges what was left over when all that stands was in: what a member signed must not be
/// ignored, because a parent that was there once is gone; all else joins `bad`.
///
/// # Errors
/// `Integrity` and `Missing`, naming the parent.
pub(super) fn judge(
    state: &ControlState,
    anchor: &Anchor,
    orphans: &BTreeMap<Hash32, Opened>,
    bad: &mut BTreeMap<Hash32, BadRecord>,
) -> Result<(), VaultError> {
    // Whoever is no member now has made nothing that counts and that what stands does not know: a removal beats what
    // it does not know, and follows what it knows.
    let is_present = |record: &Opened| {
        let now = state.now();
        let device = device_of(record.body.signer);
        now.members.contains_key(&record.body.author)
            && device.is_none_or(|device| now.devices.contains_key(&device))
    };
    let is_signed = |record: &Opened| is_present(record) && is_signed_by_author(state, record);
    let (signed, unsigned): (Vec<_>, Vec<_>) = orphans
        .iter()
        .partition(|(_, record)| !record.body.parents.is_empty() && is_signed(record));
    for (hash, record) in unsigned {
        let what = match record.body.parents.is_empty() {
            true => "it is a second genesis",
            false => "its parents are not there, and no key of a member signed it",
        };
        bad.insert(*hash, BadRecord::new(anchor, *hash, what));
    }
    for (_, record) in signed {
        for parent in &record.body.parents {
            if state.knows(parent) {
                continue;
            }
            if let Some(bad) = bad.get(parent) {
                let what = format!("{}, but {} follows it", bad.what, record.object());
                return Err(VaultError::integrity(&bad.object, what));
            }
            // A signed orphan among the parents has an error of its own, which says more.
            if !orphans.contains_key(parent) {
                return Err(VaultError::Missing {
                    object: objects::control_name(anchor.room, *parent),
                    named_by: record.object(),
                });
            }
        }
    }
    Ok(())
}
