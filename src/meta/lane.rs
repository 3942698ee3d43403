//! Lanes and how their objects are named (docs/format/lanes.md, sections 1 and 2).

use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{Hash32, LaneId, RoomId};
use skrin_storage::{BadName, ObjectName, Prefix};
use std::fmt;

/// Commits in one directory of a lane.
pub(crate) const PER_DIRECTORY: u64 = 256;
/// The whole contents of a tip; its name is what it says.
pub(crate) const TIP_CONTENT: &[u8] = b"\n";

/// One commit, by its exact name: which lane, at which place, saying what.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Head {
    /// The lane.
    pub lane: LaneId,
    /// The number in it, from 0.
    pub seq: u64,
    /// Its id: the hash of body and signature, whatever seal they are in.
    pub hash: Hash32,
}

impl Encode for Head {
    fn encode(&self, w: &mut Writer) {
        self.lane.encode(w);
        w.u64(self.seq);
        self.hash.encode(w);
    }
}

impl Decode for Head {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            lane: LaneId::decode(r)?,
            seq: r.u64()?,
            hash: Hash32::decode(r)?,
        })
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "commit {} of lane {}", self.seq, self.lane)
    }
}

/// Names of the objects of one room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoomNames(pub RoomId);

impl RoomNames {
    /// Where the commit lies.
    ///
    /// # Errors
    /// Never in practice: all parts are hexadecimal and short.
    pub fn commit(&self, head: &Head) -> Result<ObjectName, BadName> {
        let dir = self.lane_directory(head.lane, head.seq)?;
        dir.object(&commit_file(head.seq, &head.hash))
    }

    /// The directory of commit `seq` of `lane`.
    ///
    /// # Errors
    /// As `commit`.
    pub fn lane_directory(&self, lane: LaneId, seq: u64) -> Result<Prefix, BadName> {
        let part = seq / PER_DIRECTORY;
        Prefix::new(format!("rooms/{}/lanes/{lane}/{part:08x}", self.0))
    }

    /// Where the tips lie.
    ///
    /// # Errors
    /// As `commit`.
    pub fn tips(&self) -> Result<Prefix, BadName> {
        Prefix::new(format!("rooms/{}/tips", self.0))
    }

    /// The tip that says that `head` is there.
    ///
    /// # Errors
    /// As `commit`.
    pub fn tip(&self, head: &Head) -> Result<ObjectName, BadName> {
        let file = commit_file(head.seq, &head.hash);
        self.tips()?.object(&format!("{}-{file}", head.lane))
    }

    /// The tip that says that a control record is there, which no other one follows.
    ///
    /// # Errors
    /// As `commit`.
    pub fn control_tip(&self, record: &Hash32) -> Result<ObjectName, BadName> {
        self.tips()?.object(&format!("control-{record}"))
    }

    /// A page of a checkpoint.
    ///
    /// # Errors
    /// As `commit`.
    pub fn page(&self, name: &[u8; 16]) -> Result<ObjectName, BadName> {
        ObjectName::new(format!("rooms/{}/pages/{}", self.0, Hex(name)))
    }

    /// The root of a checkpoint.
    ///
    /// # Errors
    /// As `commit`.
    pub fn checkpoint(&self, name: &[u8; 16]) -> Result<ObjectName, BadName> {
        ObjectName::new(format!("rooms/{}/checkpoints/{}", self.0, Hex(name)))
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// The file name of a commit, in its lane's directory and in the journal.
pub(crate) fn commit_file(seq: u64, hash: &Hash32) -> String {
    format!("{seq:016x}-{hash}")
}

/// Reads what `commit_file` made; `None` for anything else.
pub(crate) fn parse_commit_file(name: &str) -> Option<(u64, Hash32)> {
    let (seq, hash) = name.split_once('-')?;
    let seq = skrin_base::ids::parse_hex::<8>(seq)?;
    Some((u64::from_be_bytes(seq), Hash32::from_hex(hash)?))
}

/// Reads the last part of a tip's name; `None` for what is no tip.
pub fn parse_tip(name: &str) -> Option<Head> {
    let (lane, file) = name.split_once('-')?;
    let (seq, hash) = parse_commit_file(file)?;
    let lane = LaneId::from_hex(lane)?;
    Some(Head { lane, seq, hash })
}

/// The control record of which such a tip says that it is there; `None` for what is no tip of a control record.
pub fn parse_control_tip(name: &str) -> Option<Hash32> {
    Hash32::from_hex(name.strip_prefix("control-")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head = Head {
        lane: LaneId([0xab; 16]),
        seq: 0x1234,
        hash: Hash32([0xcd; 32]),
    };

    #[test]
    fn names_are_those_of_the_format() {
        let names = RoomNames(RoomId([1; 16]));
        let (room, lane, hash) = ("01".repeat(16), "ab".repeat(16), "cd".repeat(32));
        assert_eq!(
            names.commit(&HEAD).unwrap().as_str(),
            format!("rooms/{room}/lanes/{lane}/00000012/0000000000001234-{hash}")
        );
        let tip = names.tip(&HEAD).unwrap();
        assert_eq!(
            tip.as_str(),
            format!("rooms/{room}/tips/{lane}-0000000000001234-{hash}")
        );
        assert_eq!(parse_tip(tip.file_name()), Some(HEAD));
    }

    #[test]
    fn tips_of_commits_and_of_control_records_are_told_apart() {
        let names = RoomNames(RoomId([1; 16]));
        let (commit, record) = (names.tip(&HEAD).unwrap(), Hash32([0xcd; 32]));
        let control = names.control_tip(&record).unwrap();
        assert_eq!(
            control.as_str(),
            format!("rooms/{}/tips/control-{}", "01".repeat(16), "cd".repeat(32))
        );
        assert_eq!(parse_control_tip(control.file_name()), Some(record));
        assert_eq!(parse_tip(control.file_name()), None);
        assert_eq!(parse_control_tip(commit.file_name()), None);
        assert_eq!(parse_control_tip("control-"), None);
        assert_eq!(parse_control_tip(&control.file_name()[1..]), None);
    }

    #[test]
    fn what_is_no_tip_is_ignored() {
        let tip = RoomNames(RoomId([1; 16])).tip(&HEAD).unwrap();
        let name = tip.file_name();
        for bad in [
            "",
            "-",
            "x-y-z",
            &name[1..],
            &name[..name.len() - 1],
            &format!("{name}0"),
        ] {
            assert_eq!(parse_tip(bad), None, "{bad}");
        }
    }
}
