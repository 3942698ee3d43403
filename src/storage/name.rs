//! Names of objects and directories, checked once and trusted afterwards.

use std::fmt;

/// The object that every vault has, in its root, and that nothing else has.
pub const VAULT_HEADER: &str = "skrin.vault";

/// Longest object name in bytes; every store takes paths this long.
pub const NAME_LEN_MAX: usize = 512;
/// Longest segment of a name in bytes: Nextcloud refuses more than 250, and some servers append to names.
pub const SEGMENT_LEN_MAX: usize = 200;

/// Why a string is not an object's or a directory's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// More than [`NAME_LEN_MAX`] bytes, or a segment of more than [`SEGMENT_LEN_MAX`].
    #[error("the object name is too long ({0} bytes)")]
    TooLong(usize),
    /// An empty segment: an empty name, a slash at an end, or two in a row.
    #[error("the object name has an empty segment")]
    EmptySegment,
    /// Something other than `a-z`, `0-9`, `-` and, inside a segment, `.`.
    #[error("the object name has a byte that is not allowed at position {0}")]
    BadByte(usize),
}

/// The name of an object: segments of `[a-z0-9.-]` joined by `/` (docs/format/README.md, section 2).
/// No segment begins or ends with a dot, so `..` and hidden names do not exist.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(Box<str>);

/// A directory that objects lie in, such as `slots`; the root is the empty string.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Prefix(Box<str>);

fn check_segment(segment: &str, offset: usize) -> Result<(), BadName> {
    if segment.is_empty() {
        return Err(BadName::EmptySegment);
    }
    if segment.len() > SEGMENT_LEN_MAX {
        return Err(BadName::TooLong(segment.len()));
    }
    let last = segment.len() - 1;
    let bad = segment.bytes().enumerate().find(|&(i, b)| match b {
        b'a'..=b'z' | b'0'..=b'9' | b'-' => false,
        b'.' => i == 0 || i == last,
        _ => true,
    });
    match bad {
        Some((i, _)) => Err(BadName::BadByte(offset + i)),
        None => Ok(()),
    }
}

fn check(name: &str) -> Result<(), BadName> {
    if name.len() > NAME_LEN_MAX {
        return Err(BadName::TooLong(name.len()));
    }
    let mut offset = 0;
    for segment in name.split('/') {
        check_segment(segment, offset)?;
        offset += segment.len() + 1;
    }
    Ok(())
}

/// Whether `segment` may stand between two slashes of a name; listings skip what may not.
pub(crate) fn is_segment(segment: &str) -> bool {
    check_segment(segment, 0).is_ok()
}

impl ObjectName {
    /// Checks and wraps a name.
    pub fn new(name: impl Into<String>) -> Result<Self, BadName> {
        let name = name.into();
        check(&name)?;
        Ok(Self(name.into_boxed_str()))
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands behind the last slash.
    pub fn file_name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, last)| last)
    }

    /// The directory that the object lies in.
    pub fn parent(&self) -> Prefix {
        Prefix(self.0.rsplit_once('/').map_or("", |(dir, _)| dir).into())
    }
}

impl Prefix {
    /// Checks and wraps a directory; the empty string is the root.
    pub fn new(dir: impl Into<String>) -> Result<Self, BadName> {
        let dir = dir.into();
        if !dir.is_empty() {
            check(&dir)?;
        }
        Ok(Self(dir.into_boxed_str()))
    }

    /// The directory that everything lies in.
    pub fn root() -> Self {
        Self::default()
    }

    /// The whole path, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory above; none above the root.
    pub fn parent(&self) -> Option<Self> {
        if self.0.is_empty() {
            return None;
        }
        Some(Self(
            self.0.rsplit_once('/').map_or("", |(dir, _)| dir).into(),
        ))
    }

    fn with(&self, segment: &str) -> String {
        match &*self.0 {
            "" => segment.to_owned(),
            dir => format!("{dir}/{segment}"),
        }
    }

    /// The object `segment` in this directory.
    pub fn object(&self, segment: &str) -> Result<ObjectName, BadName> {
        ObjectName::new(self.with(segment))
    }

    /// The directory `segment` in this directory.
    pub fn dir(&self, segment: &str) -> Result<Self, BadName> {
        Self::new(self.with(segment))
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}/\"", self.0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.0)
    }
}

impl std::str::FromStr for ObjectName {
    type Err = BadName;
    fn from_str(s: &str) -> Result<Self, BadName> {
        Self::new(s)
    }
}

impl std::str::FromStr for Prefix {
    type Err = BadName;
    fn from_str(s: &str) -> Result<Self, BadName> {
        Self::new(s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_format_are_accepted() {
        for name in [
            "skrin.vault",
            "slots/00ff",
            "rooms/ab/tips/cd-0000000000000001-ef",
            "a.b-c/d",
        ] {
            assert_eq!(ObjectName::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn names_that_could_escape_or_hide_are_refused() {
        for name in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/..",
            "../a",
            ".stage",
            "a.",
            "A",
            "a b",
            "a%2fb",
            "a\\b",
            "a\0",
            "ä",
            "a/.hidden",
        ] {
            assert!(ObjectName::new(name).is_err(), "{name:?}");
        }
        assert!(ObjectName::new("a".repeat(SEGMENT_LEN_MAX)).is_ok());
        assert!(ObjectName::new("a".repeat(SEGMENT_LEN_MAX + 1)).is_err());
        assert!(ObjectName::new(vec!["a"; NAME_LEN_MAX].join("/")).is_err());
    }

    #[test]
    fn a_name_knows_its_directory() {
        let name = ObjectName::new("rooms/ab/tips/cd").unwrap();
        assert_eq!(name.file_name(), "cd");
        assert_eq!(name.parent(), Prefix::new("rooms/ab/tips").unwrap());
        assert_eq!(name.parent().object("cd").unwrap(), name);
        assert_eq!(ObjectName::new("x").unwrap().parent(), Prefix::root());
        assert_eq!(Prefix::root().object("x").unwrap().as_str(), "x");
        assert_eq!(Prefix::root().parent(), None);
        assert_eq!(Prefix::new("a").unwrap().parent(), Some(Prefix::root()));
    }
}
