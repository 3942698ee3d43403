//! Exit codes and the one error type of the command line. docs/exit-codes.md is the page for scripts.

use std::fmt;

use serde::{Deserialize, Serialize};
use skrin_storage::{ErrorKind, StoreError};

/// What a script may rely on. The numbers never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub(crate) enum Exit {
    /// Everything that was asked for was done.
    Done = 0,
    /// Anything that has no number of its own: a full disk, a format newer than this program, missing rights.
    Other = 1,
    /// The command line makes no sense, or carries a secret.
    Usage = 2,
    /// Wrong passphrase or words.
    Secret = 3,
    /// The storage cannot be reached, or does not let us in.
    Unreachable = 4,
    /// Something on the storage or in the local state is not what was written.
    Integrity = 5,
    /// In use: mounted already, state directory locked, mount point not empty or busy, a vault is there already.
    Busy = 6,
    /// No vault, no mount point, no mount, no such file.
    Absent = 7,
}

/// Why a command ended: what happened, to which object or path, and what to do next.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// The exit code.
    pub exit: Exit,
    what: String,
    remedy: Option<String>,
    /// How the command is typed; shown below the error.
    #[serde(skip)]
    pub usage: Option<String>,
}

/// What every command returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure with the code that scripts see; `what` names the object or path.
    pub(crate) fn new(exit: Exit, what: impl fmt::Display) -> Self {
        Self {
            exit,
            what: what.to_string(),
            remedy: None,
            usage: None,
        }
    }

    /// Says what to do next.
    #[must_use]
    pub(crate) fn remedy(mut self, remedy: impl fmt::Display) -> Self {
        self.remedy = Some(remedy.to_string());
        self
    }

    /// The same failure with `context` in front, such as "cannot make the vault".
    #[must_use]
    pub(crate) fn during(mut self, context: impl fmt::Display) -> Self {
        self.what = format!("{context}: {}", self.what);
        self
    }

    /// An I/O error at a path.
    pub(crate) fn io(path: &std::path::Path, doing: &str, error: &std::io::Error) -> Self {
        let exit = match error.kind() {
            std::io::ErrorKind::NotFound => Exit::Absent,
            _ => Exit::Other,
        };
        Self::new(exit, format!("{}: {doing}: {error}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// The innermost cause often is the only useful part ("Connection refused"), so it stands in the text.
fn root_cause(error: &dyn std::error::Error) -> Option<String> {
    let mut cause = error.source()?;
    while let Some(next) = cause.source() {
        cause = next;
    }
    Some(cause.to_string())
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = match error.kind() {
            ErrorKind::Denied | ErrorKind::Transient | ErrorKind::Untrusted => Exit::Unreachable,
            ErrorKind::Absent | ErrorKind::NoPlace => Exit::Absent,
            ErrorKind::Broken | ErrorKind::Exists => Exit::Integrity,
            ErrorKind::Full | ErrorKind::Unsupported => Exit::Other,
        };
        let untrusted = error.kind() == ErrorKind::Untrusted;
        let text = error.to_string();
        let failure = match root_cause(&error).filter(|cause| !text.contains(cause.as_str())) {
            Some(cause) => Self::new(exit, format!("{text} ({cause})")),
            None => Self::new(exit, text),
        };
        match untrusted {
            true => failure.remedy("the variable SKRIN_CA_FILE names such a file, in PEM"),
            false => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_then_what_to_do() {
        let failure = Failure::new(Exit::Busy, "/mnt is not empty").remedy("choose another");
        assert_eq!(failure.to_string(), "/mnt is not empty; choose another");
    }

    #[test]
    fn the_cause_of_a_storage_error_is_shown() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = StoreError::new(ErrorKind::Transient, "no answer").caused_by(refused);
        let failure = Failure::from(error);
        assert_eq!(failure.exit, Exit::Unreachable);
        assert!(failure.to_string().contains("connection refused"));
    }
}
