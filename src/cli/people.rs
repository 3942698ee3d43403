//! What is asked of a mount about people and devices, and how it is answered.

use serde::{Deserialize, Serialize};

use crate::args::{Past, Role};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    /// Who is in, with which devices.
    Members,
    /// What was decided.
    Audit,
    /// Make an invitation, and let in whoever asks with it.
    Invite {
        name: String,
        role: Role,
        /// Seconds.
        expires: u64,
        /// Nanoseconds since 1970.
        until: Option<i64>,
        history: Past,
    },
    /// Change a role.
    Role { person: String, role: Role },
    /// Remove somebody.
    Remove { person: String },
    /// The ends of a device's lanes, as seen here, encoded for the record that revokes it.
    Ends { device: String },
    /// Read the control records again: they were changed by another command of this machine.
    Refresh,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    Done,
    Members(Vec<Member>),
    Audit(Vec<Entry>),
    Invited(Invited),
    Ended(Ended),
    Ends(Ends),
}

/// A person of a vault. With `--json` these names are a stable interface: fields are added, never renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// The id, in hex.
    pub person: String,
    pub name: String,
    /// `owner`, `manager`, `editor`, `reader`, or `removed`.
    pub role: String,
    /// Whether it is who runs this command.
    pub own: bool,
    /// Who added that person; nothing for the owner.
    pub added_by: Option<String>,
    pub since: String,
    /// When the membership ends.
    pub until: Option<String>,
    /// The fingerprint of the person's root key, as the safety number that people compare.
    pub safety_number: String,
    pub devices: Vec<Machine>,
}

/// A device. With `--json` these names are a stable interface too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The id, in hex.
    pub device: String,
    pub name: String,
    pub since: String,
    /// Whether it was revoked, or its person removed.
    pub ended: bool,
    /// Whether it is the one that answers.
    pub own: bool,
}

/// One decision. With `--json` these names are a stable interface too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The id of the signed record.
    pub id: String,
    /// As the author's clock had it.
    pub time: String,
    pub author: String,
    /// `root`, `words`, or the name of a device.
    pub signed_with: String,
    /// What was decided.
    pub what: String,
    /// Whether it counts: a removal that its author could not know may stand against it.
    pub counts: bool,
    /// The records that its author had seen last.
    pub follows: Vec<String>,
}

/// An invitation. With `--json` these names are a stable interface too.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Invited {
    pub name: String,
    pub role: String,
    /// When it stops being good.
    pub expires: String,
    /// The invitation itself. A secret: whoever has it can ask to be let in.
    pub invitation: String,
}

/// What became of a member. With `--json` these names are a stable interface too.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub person: String,
    pub name: String,
    pub role: String,
    /// Devices that cannot read what is written from now on.
    pub devices: Vec<String>,
}

/// The ends of the lanes of one device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ends {
    /// The device's id, in hex.
    pub device: String,
    /// Lane, number and id of each.
    pub tips: Vec<(String, u64, String)>,
}
