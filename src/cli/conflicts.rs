//! What is asked of a mount about conflict copies, and how it is answered.

use serde::{Deserialize, Serialize};
use skrin_fs::{Cause, Fs, FsError, Kind};

use crate::exit::{Exit, Failure, Outcome};
use crate::past::{Below, rfc3339, text};
use crate::people::Owners;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    /// Which there are below a path.
    List { below: Below },
    /// Choose what is at a path.
    Keep { path: Below },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    Listed(Vec<Conflict>),
    Kept(Kept),
}

/// A conflict copy. With `--json` these names are a stable interface: fields are added, never renamed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Conflict {
    /// The path of the copy, from the root of the vault.
    pub path: String,
    /// The name that it was to have.
    pub of: String,
    /// `written`, `made`, `moved` or `revived`.
    pub cause: String,
    /// When that was done that did not get the name.
    pub time: String,
    /// The device that did it.
    pub device: String,
    /// The first digits of that device's id.
    pub device_id: String,
    /// Whose device it is; nothing where the control records do not say.
    pub person: Option<String>,
    /// The copy.
    pub copy: Side,
    /// What it is a copy of; nothing if that is gone.
    pub document: Option<Side>,
}

/// One of the two. With `--json` these names are a stable interface too.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Side {
    pub path: String,
    /// `file`, `directory`, `symlink` or `other`.
    pub kind: String,
    pub size: u64,
    pub mtime: String,
    /// The device that made the contents.
    pub device: String,
    /// Whose device it is, likewise.
    pub person: Option<String>,
    /// The change that made the contents, as `skrin history` names it.
    pub version: String,
}

/// What came of a choice. With `--json` these names are a stable interface too.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The path of the document.
    pub document: String,
    /// The copy whose contents it has now; nothing if it kept its own.
    pub from: Option<String>,
    /// Copies that are gone.
    pub gone: Vec<String>,
    /// How many other copies of the document there still are.
    pub left: u64,
}

fn path(names: &[Vec<u8>]) -> String {
    text(&names.join(&b'/'))
}

fn short(id: skrin_base::DeviceId) -> String {
    id.to_string().chars().take(8).collect()
}

impl Side {
    fn new(side: skrin_fs::Side, owners: &Owners) -> Self {
        let kind = match side.kind {
            Kind::File => "file",
            Kind::Dir => "directory",
            Kind::Symlink => "symlink",
            _ => "other",
        };
        let version = side.version;
        Self {
            path: path(&side.path),
            kind: kind.to_owned(),
            size: side.size,
            mtime: rfc3339(side.mtime),
            device: side.device,
            person: owners.get(&version.device).cloned(),
            version: format!("{}:{}", short(version.device), version.counter),
        }
    }
}

impl Conflict {
    fn new(conflict: skrin_fs::Conflict, owners: &Owners) -> Self {
        let cause = match conflict.cause {
            Cause::Written => "written",
            Cause::Made => "made",
            Cause::Moved => "moved",
            Cause::Revived => "revived",
        };
        Self {
            path: path(&conflict.copy.path),
            of: text(&conflict.of),
            cause: cause.to_owned(),
            time: rfc3339(conflict.time),
            device: conflict.device,
            device_id: short(conflict.op.device),
            person: owners.get(&conflict.op.device).cloned(),
            copy: Side::new(conflict.copy, owners),
            document: conflict.document.map(|side| Side::new(side, owners)),
        }
    }
}

/// What lies below a path of a vault, by its path.
///
/// # Errors
/// `Absent`; those of the local cache.
pub(crate) fn list(fs: &Fs, below: &Below, owners: &Owners) -> Outcome<Vec<Conflict>> {
    let conflicts = fs.conflicts(below)?.into_iter();
    Ok(conflicts
        .map(|conflict| Conflict::new(conflict, owners))
        .collect())
}

/// Answers for a mount.
///
/// # Errors
/// `Absent` for what is not there or no conflict copy; `Busy` for what is open or changed meanwhile.
pub(crate) fn answer(fs: &Fs, request: &Request, owners: &Owners) -> Outcome<Answer> {
    match request {
        Request::List { below } => list(fs, below, owners).map(Answer::Listed),
        Request::Keep { path: chosen } => {
            let kept = fs.keep(chosen).map_err(failure)?;
            Ok(Answer::Kept(Kept {
                document: path(&kept.document),
                from: kept.from.as_deref().map(path),
                gone: kept.gone.iter().map(|gone| path(gone)).collect(),
                left: kept.left,
            }))
        }
    }
}

fn failure(error: FsError) -> Failure {
    match error {
        FsError::InUse(why) => {
            Failure::new(Exit::Busy, why).remedy("close it, and choose again; nothing was changed")
        }
        FsError::IsDirectory => Failure::new(
            Exit::Busy,
            "a directory would have to go, with all that is in it",
        )
        .remedy("move what you want out of it, or rename it; nothing was changed"),
        FsError::NoConflict => {
            Failure::from(error).remedy("`skrin conflicts` lists what there is to choose")
        }
        other => other.into(),
    }
}
