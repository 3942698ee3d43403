//! File names as bytes: stored as given, checked once.

use crate::limits::NAME_MAX;
use crate::wire::{Decode, Encode, Reader, WireError, Writer};
use std::fmt;
use std::sync::Arc;

/// A directory entry's name: 1 to 255 bytes, without `/` and NUL, and neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// Checks the bytes of a name.
    ///
    /// # Errors
    /// `Limit` when longer than 255 bytes, `Value` for what POSIX forbids.
    pub fn new(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > NAME_MAX {
            let (found, limit) = (bytes.len() as u64, NAME_MAX as u64);
            return Err(WireError::Limit {
                what: "name length",
                found,
                limit,
            });
        }
        let special = matches!(bytes, b"" | b"." | b"..");
        if special || bytes.iter().any(|b| matches!(b, 0 | b'/')) {
            return Err(WireError::Value("name"));
        }
        Ok(Self(bytes.into()))
    }

    /// The bytes as given.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.escape_ascii().to_string())
    }
}

impl Encode for Name {
    fn encode(&self, w: &mut Writer) {
        w.bytes(&self.0);
    }
}

impl Decode for Name {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Self::new(r.bytes("name length", NAME_MAX)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_posix_forbids_are_refused() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 256]] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
        assert!(
            Name::new(&[0xff; 255]).is_ok(),
            "names are bytes, not UTF-8"
        );
    }
}
