//! What can be wrong with a vault, one kind each. docs/findings.md is the page for people and scripts.

use std::fmt;

use serde::Serialize;
use skrin_meta::replica::{FindingKind, Problem, ProblemKind};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Severity {
    /// Everything can still be read, but something that guards it or speeds it up is not as it was.
    Warning,
    /// Something cannot be read, is hidden, or contradicts itself.
    Error,
}

/// Makes the list of kinds: one place for the name, how bad it is and what can be done.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $severity:ident, $remedy:literal;)*) => {
        /// What is wrong. The names are a stable interface: kinds are added, never renamed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            /// All of them.
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];

            /// The name that scripts see.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            /// What can be done.
            pub(crate) fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }
        }
    };
}

kinds! {
    /// The header is not what the slots say it is.
    HeaderDamaged = "header-damaged", Error, "skrin verify --repair on a device that has mounted the vault";
    /// The vault cannot be opened far enough to look at the rest.
    Unreadable = "unreadable", Error, "skrin verify --repair on a device that has mounted the vault, or a backup of the storage";
    /// A slot holds other bytes than the control records list.
    SlotDamaged = "slot-damaged", Warning, "skrin verify --repair on a device that has mounted the vault";
    /// A slot that the control records list is gone.
    SlotMissing = "slot-missing", Warning, "skrin verify --repair on a device that has mounted the vault";
    /// A control record is not what its name promises, or nobody who may signed it.
    ControlDamaged = "control-damaged", Error, "skrin verify --repair on a device that has mounted the vault since it was written";
    /// A control record that others name is gone.
    ControlMissing = "control-missing", Error, "skrin verify --repair on a device that has mounted the vault since it was written";
    /// A commit is not what its name promises.
    CommitDamaged = "commit-damaged", Error, "skrin verify --repair on the device that wrote it";
    /// A commit that others name is gone.
    CommitMissing = "commit-missing", Error, "skrin verify --repair on the device that wrote it";
    /// A commit contradicts what it follows, or was made by no device that may: nobody takes it in.
    CommitRefused = "commit-refused", Error, "nothing has to be done; whoever can write to the storage or the device named may have made it";
    /// A commit by a device, under a key or from a program that is not known here.
    CommitUnknown = "commit-unknown", Error, "look for damaged control records, and update this program";
    /// A tip holds something else than a line end.
    TipDamaged = "tip-damaged", Warning, "skrin verify --repair anywhere";
    /// A tip names a commit that is not there or not whole.
    TipDangling = "tip-dangling", Error, "skrin verify --repair on the device that wrote the commit";
    /// The only tip that leads to commits is gone.
    TipMissing = "tip-missing", Error, "skrin verify --repair anywhere";
    /// A device that was removed went on writing before the others knew of it.
    LaneCut = "lane-cut", Warning, "nothing has to be done: what it wrote from there on counts for nothing";
    /// The root of a checkpoint is not what its commit promises.
    CheckpointDamaged = "checkpoint-damaged", Warning, "nothing is lost while all commits are there: they say the same; a later checkpoint takes its place";
    /// The root of a checkpoint is gone.
    CheckpointMissing = "checkpoint-missing", Warning, "nothing is lost while all commits are there: they say the same; a later checkpoint takes its place";
    /// A device refutes a checkpoint.
    CheckpointRefuted = "checkpoint-refuted", Warning, "it does not count; look at the device that proposed it";
    /// A page of a checkpoint is not what the root promises.
    PageDamaged = "page-damaged", Warning, "nothing is lost while all commits are there: they say the same; a later checkpoint takes its place";
    /// A page of a checkpoint is gone.
    PageMissing = "page-missing", Warning, "nothing is lost while all commits are there: they say the same; a later checkpoint takes its place";
    /// A segment of contents is gone.
    SegmentMissing = "segment-missing", Error, "skrin verify --repair on a device that has read or written the files, or restore an earlier version of them";
    /// Length, header, padding or table of a segment are not what was written.
    SegmentDamaged = "segment-damaged", Error, "skrin verify --repair on a device that has read or written the files, or restore an earlier version of them";
    /// A block of a segment is not what was written.
    BlockDamaged = "block-damaged", Error, "skrin verify --repair on a device that has read or written the files, or restore an earlier version of them";
    /// A block that was relocated is not where it is said to be.
    RelocationDamaged = "relocation-damaged", Error, "skrin gc copies it once more while the segment itself is there; else restore an earlier version of the file";
    /// Contents that were given up as lost before.
    ContentsLost = "contents-lost", Error, "restore an earlier version of the file";
    /// The tree contradicts itself.
    TreeInconsistent = "tree-inconsistent", Error, "this is a fault of a program: please report it";
    /// The state here is not what the objects give.
    StateDiffers = "state-differs", Error, "verify again; if it stays, look for missing commits of other devices";
    /// The storage shows less than was seen.
    RolledBack = "rolled-back", Error, "ask whoever runs the storage for the newer objects; see skrin accept-rollback";
    /// A device's lane has two branches, or its state is in use twice or was restored from a backup.
    DeviceForked = "device-forked", Error, "no bytes are lost; keep one copy of that device's state directory";
    /// Two digests of one state.
    DigestsDiffer = "digests-differ", Error, "this is a fault of a program or an attack: please report it";
}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Kind {
    /// What a missing or a damaged object of this name is.
    pub(crate) fn of_object(name: &str, missing: bool) -> Self {
        let part = |part: &str| name.split('/').nth(2) == Some(part);
        let (damaged, gone) = match name.split('/').next() {
            Some("segments") => (Self::SegmentDamaged, Self::SegmentMissing),
            Some("slots") => (Self::SlotDamaged, Self::SlotMissing),
            Some("rooms") if part("control") => (Self::ControlDamaged, Self::ControlMissing),
            Some("rooms") if part("lanes") => (Self::CommitDamaged, Self::CommitMissing),
            Some("rooms") if part("tips") => (Self::TipDamaged, Self::TipMissing),
            Some("rooms") if part("pages") => (Self::PageDamaged, Self::PageMissing),
            Some("rooms") if part("checkpoints") => {
                (Self::CheckpointDamaged, Self::CheckpointMissing)
            }
            _ if name == skrin_vault::HEADER_NAME => (Self::HeaderDamaged, Self::HeaderDamaged),
            _ => (Self::Unreadable, Self::Unreadable),
        };
        if missing { gone } else { damaged }
    }

    /// What a problem of the metadata is.
    pub(crate) fn of_problem(problem: &Problem) -> Self {
        match problem.kind {
            ProblemKind::Missing => Self::of_object(&problem.object, true),
            ProblemKind::Damaged => Self::of_object(&problem.object, false),
            ProblemKind::Refused => Self::CommitRefused,
            ProblemKind::Dangling => Self::TipDangling,
            ProblemKind::Hidden => Self::TipMissing,
            ProblemKind::Differs => Self::StateDiffers,
        }
    }

    /// What was found while the room was read.
    pub(crate) fn of_finding(finding: &skrin_meta::replica::Finding) -> Self {
        let damaged = Self::of_object(&finding.object, false);
        match finding.kind {
            FindingKind::Incomplete | FindingKind::Withheld => {
                Self::of_object(&finding.object, true)
            }
            FindingKind::Integrity if damaged == Self::Unreadable => Self::CommitDamaged,
            FindingKind::Integrity => damaged,
            FindingKind::Rollback => Self::RolledBack,
            FindingKind::Fork
            | FindingKind::Restored
            | FindingKind::Cloned
            | FindingKind::WentBack => Self::DeviceForked,
            FindingKind::Unknown | FindingKind::Newer => Self::CommitUnknown,
            FindingKind::Digest => Self::DigestsDiffer,
            FindingKind::Refuted => Self::CheckpointRefuted,
            FindingKind::CutOff => Self::LaneCut,
        }
    }
}

/// Something that is not as it must be. With `--json` these names are a stable interface: fields are added, never renamed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) kind: Kind,
    pub(crate) severity: Severity,
    /// The object on the storage, or `tree`, that it is about.
    pub(crate) object: String,
    /// Which block of a segment.
    pub(crate) block: Option<u32>,
    /// What is wrong with it.
    pub(crate) what: String,
    pub(crate) expected: Option<String>,
    pub(crate) got: Option<String>,
    /// The files that cannot be read whole because of it, as far as that can be known.
    pub(crate) files: Vec<Touched>,
    /// What can be done.
    pub(crate) remedy: String,
    /// Whether it was mended.
    pub(crate) repaired: bool,
}

/// A file that is not whole. Its names are a stable interface too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Touched {
    /// Where it is in the vault.
    pub(crate) path: String,
    /// The version of it that is not whole, as `skrin history` names it.
    pub(crate) version: String,
    /// Which bytes of it.
    pub(crate) ranges: Vec<Bytes>,
    /// The newest version before that the storage has whole, as `skrin restore --at` takes it.
    pub(crate) earlier: Option<String>,
}

/// Bytes of a file: from the first to the one behind the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Bytes {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Finding {
    /// Of a kind, about an object.
    pub(crate) fn new(kind: Kind, object: impl fmt::Display, what: impl fmt::Display) -> Self {
        Self {
            kind,
            severity: kind.severity(),
            object: object.to_string(),
            block: None,
            what: what.to_string(),
            expected: None,
            got: None,
            files: Vec::new(),
            remedy: kind.remedy().to_owned(),
            repaired: false,
        }
    }

    /// Says what was expected and what came.
    #[must_use]
    pub(crate) fn differing(mut self, expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        self.expected = Some(expected.to_string());
        self.got = Some(got.to_string());
        self
    }

    /// Something that was put again.
    pub(crate) fn repaired(object: &str, was_missing: bool) -> Self {
        let what = match was_missing {
            true => "was missing",
            false => "was not what was written",
        };
        Self {
            repaired: true,
            ..Self::new(Kind::of_object(object, was_missing), object, what)
        }
    }

    /// The lines for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let block = self.block.map(|block| format!("block {block}: "));
        let block = block.unwrap_or_default();
        let name = self.kind.name();
        let end = match self.repaired {
            true => "; it was put again".to_owned(),
            false => String::new(),
        };
        let mut lines = vec![format!(
            "{}: {block}{} [{name}]{end}",
            self.object, self.what
        )];
        lines.extend(self.files.iter().map(Touched::line));
        if !self.repaired {
            lines.push(format!("  remedy: {}", self.remedy));
        }
        lines
    }
}

impl Touched {
    fn line(&self) -> String {
        let range = |bytes: &Bytes| format!("{} to {}", bytes.from, bytes.to);
        let ranges: Vec<String> = self.ranges.iter().map(range).collect();
        let lost = format!(
            "  /{}: bytes {} of version {}",
            self.path,
            ranges.join(", "),
            self.version
        );
        match &self.earlier {
            Some(version) => {
                format!(
                    "{lost}; the version before is whole: skrin restore --at {version} PATH, in a mount"
                )
            }
            None => lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_is_on_the_page_once_and_the_page_has_no_other() {
        let page = include_str!("../../docs/findings.md");
        let (_, table) = page.split_once("| kind | severity |").unwrap();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
        let on_page: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
        let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(on_page, names);
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }

    #[test]
    fn an_objects_name_tells_what_it_is() {
        let room = "rooms/00/";
        for (name, damaged, missing) in [
            ("skrin.vault", Kind::HeaderDamaged, Kind::HeaderDamaged),
            ("slots/ab", Kind::SlotDamaged, Kind::SlotMissing),
            (
                "segments/ab/abcd",
                Kind::SegmentDamaged,
                Kind::SegmentMissing,
            ),
            (
                &format!("{room}control/1"),
                Kind::ControlDamaged,
                Kind::ControlMissing,
            ),
            (
                &format!("{room}lanes/1/0/2"),
                Kind::CommitDamaged,
                Kind::CommitMissing,
            ),
            (&format!("{room}tips/1"), Kind::TipDamaged, Kind::TipMissing),
            (
                &format!("{room}pages/1"),
                Kind::PageDamaged,
                Kind::PageMissing,
            ),
            (
                &format!("{room}checkpoints/1"),
                Kind::CheckpointDamaged,
                Kind::CheckpointMissing,
            ),
            ("tree", Kind::Unreadable, Kind::Unreadable),
        ] {
            assert_eq!(Kind::of_object(name, false), damaged, "{name}");
            assert_eq!(Kind::of_object(name, true), missing, "{name}");
        }
    }
}
