//! Writing down for good what a mount meets.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use skrin_base::SegmentId;
use skrin_data::{DataError, segment};
use skrin_meta::replica::{Finding, FindingKind};
use skrin_vault::{Room, Unlocked};

use super::Mounted;
use crate::events::{self, Event, EventLog};
use crate::exit::Failure;
use crate::finding::Kind;

/// What a mount has written down.
pub(super) struct Watch {
    events: Arc<EventLog>,
    /// What was wrong with the metadata when it was looked at last.
    standing: Mutex<BTreeSet<(Kind, String, String)>>,
}

impl Watch {
    pub(super) fn new(events: Arc<EventLog>) -> Self {
        Self {
            events,
            standing: Mutex::default(),
        }
    }

    pub(super) fn all(&self) -> Vec<Event> {
        self.events.all()
    }

    /// Takes in what stands now, of which only what is new is an event, and what readers met.
    fn look(&self, findings: Vec<Finding>, damage: &[DataError]) {
        let told = findings.into_iter().filter_map(|finding| {
            let kind = kind_of(&finding)?;
            Some((kind, finding.object, finding.text))
        });
        let now: BTreeSet<_> = told.collect();
        let mut standing = self.standing.lock();
        for (kind, object, what) in now.difference(&standing) {
            self.events.note(kind.name(), object, what, false);
        }
        *standing = now;
        drop(standing);
        for error in damage {
            let (kind, object, what) = met(error);
            self.events.note(kind.name(), object, what, false);
        }
        self.events.store();
    }
}

impl Mounted {
    /// Writes down what was found since the last look.
    pub(super) fn note_events(&self) {
        self.watch
            .look(self.replica.findings(), &self.data.take_damage());
    }
}

/// Notes what was damaged when the vault was opened.
pub(super) fn note_opened(events: &EventLog, unlocked: &Unlocked, room: &Room) {
    for slot in unlocked.damaged_slots() {
        let kind = Kind::SlotDamaged.name();
        events.note(kind, slot, "is not what was written", false);
    }
    for bad in &room.findings {
        let kind = Kind::of_object(&bad.object, false).name();
        events.note(kind, &bad.object, &bad.what, false);
    }
    events.store();
}

/// Notes that the vault was refused before it was known which device this is, if there is one.
pub(super) fn note_refused(state_dir: &Path, unlocked: &Unlocked, failure: &Failure) {
    if let Some(events) = events::of_known(state_dir, unlocked) {
        events.refused(failure);
    }
}

/// What a finding is, unless it comes and goes where all is well.
fn kind_of(finding: &Finding) -> Option<Kind> {
    match finding.kind {
        FindingKind::Incomplete
        | FindingKind::Unknown
        | FindingKind::Newer
        | FindingKind::CutOff => None,
        FindingKind::Withheld
        | FindingKind::Integrity
        | FindingKind::Rollback
        | FindingKind::Fork
        | FindingKind::Restored
        | FindingKind::Cloned
        | FindingKind::WentBack
        | FindingKind::Digest
        | FindingKind::Refuted => Some(Kind::of_finding(finding)),
    }
}

/// What an error of who reads says of which object. Not of which block: they may be thousands.
fn met(error: &DataError) -> (Kind, String, String) {
    let name = |id: SegmentId| {
        let name = segment::object_name(id);
        name.map_or_else(|_| id.to_string(), |name| name.to_string())
    };
    match error {
        DataError::Missing(id) => {
            let what = "is missing on the storage".to_owned();
            (Kind::SegmentMissing, name(*id), what)
        }
        DataError::Integrity {
            segment,
            slot,
            flaw,
        } => {
            let kind = match slot {
                Some(_) => Kind::BlockDamaged,
                None => Kind::SegmentDamaged,
            };
            (kind, name(*segment), flaw.to_string())
        }
        other => (
            Kind::SegmentDamaged,
            events::VAULT.to_owned(),
            other.to_string(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use skrin_data::Flaw;

    use super::*;

    #[test]
    fn blocks_of_one_segment_that_are_damaged_alike_are_one_event() {
        let error = |slot| DataError::Integrity {
            segment: SegmentId([0xab; 16]),
            slot,
            flaw: Flaw::Hash,
        };
        let (kind, object, _) = met(&error(Some(1)));
        assert_eq!(kind, Kind::BlockDamaged);
        assert_eq!(object, format!("segments/ab/{}", "ab".repeat(16)));
        assert_eq!(met(&error(Some(1))), met(&error(Some(2))));
        assert_eq!(met(&error(None)).0, Kind::SegmentDamaged);
    }
}
