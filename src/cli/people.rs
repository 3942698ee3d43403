//! What is asked of a mount about people and devices, and how it is answered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skrin_base::ids::{DeviceId, PersonId};
use skrin_vault::record::{Recipient, RecoveryPurpose, SignerRef};
use skrin_vault::state::{AuditEntry, ControlState, What};
use skrin_vault::{Room, safety_number};

use crate::args::Role;
use crate::exit::{Exit, Failure, Outcome};
use crate::past::rfc3339;

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
    /// `owner`, `manager`, `editor`, `reader`, `recovery` (a key on paper that reads everything), or `removed`.
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
    pub name: String,
    /// Lane, number and id of each.
    pub tips: Vec<(String, u64, String)>,
}

fn hex(id: impl std::fmt::Display) -> String {
    id.to_string()
}

/// Instead of the role of who was a member.
pub(crate) const REMOVED: &str = "removed";

/// As answers have it.
pub(crate) fn role_name(role: skrin_vault::record::Role) -> &'static str {
    use skrin_vault::record::Role as R;
    match role {
        R::Owner => "owner",
        R::Manager => "manager",
        R::Editor => "editor",
        R::Reader => "reader",
        R::Recovery => "recovery",
    }
}

impl From<Role> for skrin_vault::record::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Manager => Self::Manager,
            Role::Editor => Self::Editor,
            Role::Reader => Self::Reader,
        }
    }
}

/// Answers what only has to be read.
///
/// # Errors
/// `Usage` for what has to be asked of a mount.
pub(crate) fn read(
    request: &Request,
    room: &Room,
    own: PersonId,
    device: Option<DeviceId>,
) -> Outcome<Answer> {
    match request {
        Request::Members => Ok(Answer::Members(members(room, own, device))),
        Request::Audit => Ok(Answer::Audit(audit(&room.state))),
        _ => Err(Failure::new(
            Exit::Usage,
            "this can only be asked of a mount",
        )),
    }
}

/// Members in the order of their names, then those who were.
pub(crate) fn members(room: &Room, own: PersonId, device: Option<DeviceId>) -> Vec<Member> {
    let state = &room.state;
    let now = state.now();
    let name_of = |person: &PersonId| {
        state
            .persons
            .get(person)
            .map(|p| p.name.as_str().to_owned())
    };
    let mut all: Vec<Member> = state
        .persons
        .iter()
        .map(|(id, person)| {
            let member = now.members.get(id);
            let role = member.map_or(REMOVED, |member| role_name(member.role));
            let added_by = member.filter(|member| member.author != *id);
            Member {
                person: hex(id),
                name: person.name.as_str().to_owned(),
                role: role.to_owned(),
                own: *id == own,
                added_by: added_by.and_then(|member| name_of(&member.author)),
                since: member.map_or_else(String::new, |member| rfc3339(member.since)),
                until: member.and_then(|member| member.until).map(rfc3339),
                safety_number: safety_number(room.keys.vault(), &person.keys.fingerprint()),
                devices: machines(state, id, device),
            }
        })
        .collect();
    all.sort_by(|a, b| {
        let key = |m: &Member| (m.role == REMOVED, m.name.clone(), m.person.clone());
        key(a).cmp(&key(b))
    });
    all
}

/// What the persons are called whose devices these are, those of devices that were revoked among them.
pub(crate) type Owners = BTreeMap<DeviceId, String>;

/// All that the control records name.
pub(crate) fn owners(state: &ControlState) -> Owners {
    let devices = state.devices.iter();
    let owned = devices.filter_map(|(id, device)| {
        let person = state.persons.get(&device.person)?;
        Some((*id, person.name.as_str().to_owned()))
    });
    owned.collect()
}

fn machines(state: &ControlState, person: &PersonId, own: Option<DeviceId>) -> Vec<Machine> {
    let now = state.now();
    let devices = state.devices.iter().filter(|(_, d)| d.person == *person);
    devices
        .map(|(id, device)| Machine {
            device: hex(id),
            name: device.label.as_str().to_owned(),
            since: rfc3339(device.time),
            ended: !now.devices.contains_key(id),
            own: own == Some(*id),
        })
        .collect()
}

fn audit(state: &ControlState) -> Vec<Entry> {
    let person = |id: &PersonId| match state.persons.get(id) {
        Some(person) => person.name.as_str().to_owned(),
        None => hex(id),
    };
    let device = |id: &DeviceId| match state.devices.get(id) {
        Some(device) => device.label.as_str().to_owned(),
        None => hex(id),
    };
    let entry = |entry: AuditEntry| Entry {
        id: hex(entry.id),
        time: rfc3339(entry.time),
        author: person(&entry.author),
        signed_with: match entry.signer {
            SignerRef::Root => "root".to_owned(),
            SignerRef::Words => "words".to_owned(),
            SignerRef::Device(id) => device(&id),
        },
        what: what(&entry.what, &person, &device),
        counts: !entry.overruled,
        follows: entry.parents.iter().map(hex).collect(),
    };
    state.audit().into_iter().map(entry).collect()
}

fn what(
    what: &What,
    person: &dyn Fn(&PersonId) -> String,
    device: &dyn Fn(&DeviceId) -> String,
) -> String {
    let recipient = |recipient: &Recipient| match recipient {
        Recipient::Device(id) => format!("the device {}", device(id)),
        Recipient::Root(id) => format!("{}'s root", person(id)),
        Recipient::Words(id) => format!("{}'s words", person(id)),
    };
    match what {
        What::Made { name, .. } => format!("made the vault, owned by {}", name.as_str()),
        What::DeviceAdded { label, .. } => format!("certified the device {}", label.as_str()),
        What::DeviceRevoked { device: id, .. } => format!("revoked the device {}", device(id)),
        What::Epoch {
            members, devices, ..
        } => format!("made new keys for {members} members and {devices} devices"),
        What::Granted { recipient: to, .. } => format!("gave keys to {}", recipient(to)),
        What::Linked { recipient: to, .. } => format!("gave earlier keys to {}", recipient(to)),
        What::SlotAdded(_) => "listed a passphrase or words".to_owned(),
        What::SlotRemoved(_) => "took a passphrase or words off the list".to_owned(),
        What::MemberAdded {
            name, role, until, ..
        } => {
            let until = until.map(|until| format!(" until {}", rfc3339(until)));
            let until = until.unwrap_or_default();
            format!("let {} in as {}{until}", name.as_str(), role_name(*role))
        }
        What::MemberRemoved { person: id, .. } => format!("removed {}", person(id)),
        What::RoleChanged {
            person: id, role, ..
        } => format!("made {} {}", person(id), role_name(*role)),
        What::RecoveryUsed(RecoveryPurpose::Drill) => {
            "showed that the recovery key works".to_owned()
        }
        What::RecoveryUsed(RecoveryPurpose::Read) => {
            "read the vault with the recovery key".to_owned()
        }
        What::Unknown { tag } => format!("something that this program does not know ({tag})"),
    }
}

/// The member whom somebody means by a name, or by the first digits of an id.
///
/// # Errors
/// `Absent` for nobody, `Usage` for several.
pub(crate) fn find<'a>(members: &'a [Member], wanted: &str) -> Outcome<&'a Member> {
    let is_id = |id: &str| wanted.len() >= 4 && id.starts_with(&wanted.to_ascii_lowercase());
    let fits = |member: &&Member| member.name == wanted || is_id(&member.person);
    let found: Vec<&Member> = members.iter().filter(fits).collect();
    // Who was removed may have had the name of somebody who is there.
    let present = found.iter().filter(|member| member.role != REMOVED);
    let present: Vec<&Member> = present.copied().collect();
    match present.is_empty() {
        true => one(&found, wanted, "member"),
        false => one(&present, wanted, "member"),
    }
}

/// The device whom somebody means, likewise.
///
/// # Errors
/// As `find`.
pub(crate) fn find_device<'a>(devices: &[&'a Machine], wanted: &str) -> Outcome<&'a Machine> {
    let is_id = |id: &str| wanted.len() >= 4 && id.starts_with(&wanted.to_ascii_lowercase());
    let fits = |device: &&&Machine| device.name == wanted || is_id(&device.device);
    let found: Vec<&Machine> = devices.iter().filter(fits).copied().collect();
    one(&found, wanted, "device")
}

fn one<'a, T>(found: &[&'a T], wanted: &str, kind: &str) -> Outcome<&'a T> {
    match found {
        [one] => Ok(one),
        [] => Err(
            Failure::new(Exit::Absent, format!("{wanted}: there is no such {kind}")).remedy(
                format!(
                    "`skrin {kind} list` shows names and ids; of an id, give at least four digits"
                ),
            ),
        ),
        _ => Err(
            Failure::new(Exit::Usage, format!("{wanted}: there are several")).remedy(format!(
                "give the first digits of an id from `skrin {kind} list`"
            )),
        ),
    }
}
