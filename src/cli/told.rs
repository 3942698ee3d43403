//! What everybody who mounts is told once: that there is a recovery key, and that one was used.

use std::collections::BTreeSet;
use std::path::Path;

use skrin_base::ids::Hash32;
use skrin_vault::record::{RecoveryPurpose, Role};
use skrin_vault::{AuditEntry, Room, What};

use crate::past::{local, rfc3339};
use crate::unlock::write_durably;

/// The ids of the records that were told, one a line; they are names of objects that everybody can see.
const FILE: &str = "told";

/// Tells what was not told on this device, and remembers it; where that fails it is told again.
pub(crate) fn tell(state_dir: &Path, room: &Room, say: &mut dyn FnMut(String)) {
    let path = state_dir.join(FILE);
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let known: BTreeSet<Hash32> = known.lines().filter_map(Hash32::from_hex).collect();
    let all: Vec<(Hash32, String)> = room
        .state
        .audit()
        .into_iter()
        .filter(|entry| !entry.overruled)
        .filter_map(|entry| Some((entry.id, text(room, &entry)?)))
        .collect();
    let new: Vec<&(Hash32, String)> = all.iter().filter(|(id, _)| !known.contains(id)).collect();
    if new.is_empty() {
        return;
    }
    new.iter().for_each(|(_, text)| say(text.clone()));
    let lines: String = all.iter().map(|(id, _)| format!("{id}\n")).collect();
    if let Err(failure) = write_durably(&path, lines.as_bytes()) {
        tracing::warn!(%failure, "what was told of recovery keys is not remembered");
    }
}

fn text(room: &Room, entry: &AuditEntry) -> Option<String> {
    let persons = &room.state.persons;
    let author = persons.get(&entry.author).map(|p| p.name.as_str());
    let (author, when) = (author.unwrap_or("somebody"), local(&rfc3339(entry.time)));
    match &entry.what {
        What::MemberAdded {
            name,
            role: Role::Recovery,
            ..
        } => Some(format!(
            "{author} made a recovery key on {when}: whoever has \u{201c}{}\u{201d} reads everything in this vault (skrin member list)",
            name.as_str()
        )),
        What::RecoveryUsed(RecoveryPurpose::Drill) => {
            Some(format!("\u{201c}{author}\u{201d} was tried on {when}"))
        }
        What::RecoveryUsed(RecoveryPurpose::Read) => Some(format!(
            "warning: somebody read this vault with \u{201c}{author}\u{201d} on {when} (skrin audit)"
        )),
        _ => None,
    }
}
