//! One error type: what a caller may do is the kind, what a person should do is the text.

use std::fmt;
use std::time::Duration;

/// What an error lets a caller do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No object of that name. The storage answered; it may still lie.
    Absent,
    /// Other bytes stand under that name already. Never put again.
    Exists,
    /// The credentials were missing or refused, or permissions forbid it. Repeating it can lock accounts.
    Denied,
    /// No room left: disk, quota or bucket.
    Full,
    /// Unknown outcome or a busy server: the same request may be repeated later.
    Transient,
    /// An answer that makes no sense, or bytes that are not those that were put.
    Broken,
    /// The server or folder cannot do what is needed.
    Unsupported,
    /// The place itself is not there: the folder (an unmounted disk?) or the bucket.
    NoPlace,
    /// The server cannot prove who it is (its certificate), or sends us to another server.
    Untrusted,
}

impl ErrorKind {
    /// What a person can do about it, where the error itself does not know better.
    fn remedy(self) -> &'static str {
        match self {
            Self::Absent => "if it was there before, ask whoever runs the storage",
            Self::Exists => "another program writes into this vault; stop it",
            Self::Denied => "check user, password or keys, and the permissions of the storage",
            Self::Full => "free some space or raise the quota",
            // Whoever tries again says so himself: a command that ends does not.
            Self::Transient => "check the network and the server",
            Self::Broken => {
                "the server, or something between, changes what is stored; run `skrin verify`"
            }
            Self::Unsupported => "use another kind of storage",
            Self::NoPlace => "check the address; create the bucket or connect the disk first",
            Self::Untrusted => {
                "check the address, and name the CA's file if the server has its own"
            }
        }
    }
}

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    what: String,
    object: Option<String>,
    place: Option<String>,
    remedy: Option<String>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A failed operation on a storage: its kind, the object, the place without secrets, and what to do.
#[derive(Debug)]
pub struct StoreError(Box<Inner>);

impl StoreError {
    /// An error of `kind`; `what` is a phrase such as "the server answered 500".
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            what: what.into(),
            object: None,
            place: None,
            remedy: None,
            retry_after: None,
            source: None,
        }))
    }

    /// Names the object or directory, unless one is named already.
    #[must_use]
    pub fn object(mut self, object: impl fmt::Display) -> Self {
        self.0.object.get_or_insert_with(|| object.to_string());
        self
    }

    /// Names the place, which must carry no secret, unless one is named already.
    #[must_use]
    pub fn place(mut self, place: impl fmt::Display) -> Self {
        self.0.place.get_or_insert_with(|| place.to_string());
        self
    }

    /// Replaces the general advice.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// The server asked for this pause.
    #[must_use]
    pub fn retry_after(mut self, pause: Option<Duration>) -> Self {
        self.0.retry_after = pause;
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn caused_by(mut self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Box::new(cause));
        self
    }

    /// What a caller may do.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// How long the server asked to wait, if it did.
    pub fn pause(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether there is no such object.
    pub fn is_absent(&self) -> bool {
        self.0.kind == ErrorKind::Absent
    }

    /// Whether the same request may be repeated later.
    pub fn is_transient(&self) -> bool {
        self.0.kind == ErrorKind::Transient
    }

    /// Whether it does not let us in, or not do this.
    pub fn is_denied(&self) -> bool {
        self.0.kind == ErrorKind::Denied
    }

    /// Of an upload: whether none is taken as long as this goes on. A storage that does not answer, a disk that is not there, and whoever answers
    /// instead of the storage where a network wants a log-in first are away instead; who has no room takes something again, and an
    /// answer without sense is asked for once more.
    pub fn is_refusal(&self) -> bool {
        self.is_denied() || self.0.kind == ErrorKind::Unsupported
    }

    /// Whether nothing can be read there either: it does not let us in, or cannot prove that it is the one we know.
    pub fn is_closed(&self) -> bool {
        self.is_denied() || self.0.kind == ErrorKind::Untrusted
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        if let Some(object) = &inner.object {
            write!(f, "{object}: ")?;
        }
        f.write_str(&inner.what)?;
        if let Some(place) = &inner.place {
            write!(f, " (at {place})")?;
        }
        let remedy = inner.remedy.as_deref().unwrap_or(inner.kind.remedy());
        write!(f, "; {remedy}")
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.source {
            Some(source) => Some(&**source),
            None => None,
        }
    }
}

impl From<crate::BadName> for StoreError {
    fn from(bad: crate::BadName) -> Self {
        Self::new(ErrorKind::Broken, bad.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_where_and_what_to_do() {
        let error = StoreError::new(ErrorKind::Full, "the server answered 507")
            .object("slots/ab")
            .place("webdavs://host/v");
        assert_eq!(
            error.to_string(),
            "slots/ab: the server answered 507 (at webdavs://host/v); free some space or raise the quota"
        );
    }

    #[test]
    fn only_who_does_not_let_us_in_or_cannot_take_it_refuses_what_is_put() {
        for (kind, refuses, is_closed) in [
            (ErrorKind::Transient, false, false),
            (ErrorKind::NoPlace, false, false),
            (ErrorKind::Full, false, false),
            (ErrorKind::Denied, true, true),
            (ErrorKind::Untrusted, false, true),
            (ErrorKind::Unsupported, true, false),
            (ErrorKind::Broken, false, false),
        ] {
            let error = StoreError::new(kind, "x");
            let told = (error.is_refusal(), error.is_closed());
            assert_eq!(told, (refuses, is_closed), "{kind:?}");
        }
    }

    #[test]
    fn the_first_object_named_stays() {
        let error = StoreError::new(ErrorKind::Absent, "there is no such object")
            .object("inner")
            .object("outer");
        assert!(error.to_string().starts_with("inner: "));
    }
}
