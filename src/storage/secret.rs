//! Credentials that can be used and not printed.

use std::fmt;

use zeroize::Zeroizing;

/// A password or key: wiped when dropped, never shown.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret over.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(Zeroizing::new(secret.into()))
    }

    /// The secret itself, for the one place that sends or hashes it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What a server is told to let us in. `origin` says where it was found, such as "~/.netrc", and appears in errors.
#[derive(Debug, Clone, Default)]
pub enum Credentials {
    /// None: a local folder, or a server that asks for nothing.
    #[default]
    Anonymous,
    /// For WebDAV, by Basic or Digest.
    Password {
        /// Account name.
        user: String,
        /// Its password, better an app password.
        password: Secret,
        /// Where both were found.
        origin: String,
    },
    /// For S3.
    Keys {
        /// Access key id.
        access_key: String,
        /// Secret access key.
        secret_key: Secret,
        /// Session token of temporary keys.
        session_token: Option<Secret>,
        /// Where they were found.
        origin: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        let credentials = Credentials::Password {
            user: "anna".into(),
            password: Secret::new("hunter2"),
            origin: "~/.netrc".into(),
        };
        let shown = format!("{credentials:?}");
        assert!(
            shown.contains("anna") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}
