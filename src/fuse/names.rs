//! Names on this mount: the forms of Unicode that name the same thing.

use std::time::Duration;

use unicode_normalization::{UnicodeNormalization, is_nfc};

use crate::convert::{ENTRY_TTL, NEGATIVE_TTL};
use crate::host::IS_MAC;

/// How this mount takes names. What the vault keeps are bytes; no rule of the format depends on this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// Whether a name is found by its composed and by its decomposed form alike, and new names are kept composed (NFC), as
    /// programs for Macs take for granted. Otherwise names are bytes.
    pub any_form: bool,
    /// Whether the kernel is to ask each time instead of keeping names, attributes and contents: for measuring what that is worth.
    pub uncached: bool,
}

/// What people expect on this system.
impl Default for Names {
    fn default() -> Self {
        Self {
            any_form: IS_MAC,
            uncached: false,
        }
    }
}

impl Names {
    /// Whether `name` may stand for a name of other bytes.
    fn has_forms(self, name: &[u8]) -> bool {
        self.any_form && !name.is_ascii()
    }

    /// The name that the vault has for what is asked for, as `is_there` tells; what it would be called, if it has none.
    pub(crate) fn stored(self, name: &[u8], is_there: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let text = match std::str::from_utf8(name) {
            Ok(text) if self.has_forms(name) => text,
            _ => return name.to_vec(),
        };
        let composed: String = text.nfc().collect();
        if is_there(name) {
            return name.to_vec();
        }
        if !is_nfc(text) && is_there(composed.as_bytes()) {
            return composed.into_bytes();
        }
        let decomposed: String = text.nfd().collect();
        match is_there(decomposed.as_bytes()) {
            true => decomposed.into_bytes(),
            false => composed.into_bytes(),
        }
    }

    /// How long the kernel may keep that a name is there. It caches by bytes, and would not see that another form is gone.
    pub(crate) fn ttl(self, name: &[u8]) -> Duration {
        match self.uncached || self.has_forms(name) {
            true => Duration::ZERO,
            false => ENTRY_TTL,
        }
    }

    /// The same of a name that is not there.
    pub(crate) fn negative_ttl(self, name: &[u8]) -> Duration {
        self.ttl(name).min(NEGATIVE_TTL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names = Names {
        any_form: true,
        uncached: false,
    };

    #[test]
    fn the_form_that_is_there_is_found_and_new_names_are_composed() {
        let (composed, decomposed) = ("\u{e9}t\u{e9}", "e\u{301}te\u{301}");
        for kept in [composed, decomposed] {
            for asked in [composed, decomposed] {
                let found = NAMES.stored(asked.as_bytes(), |name| name == kept.as_bytes());
                assert_eq!(found, kept.as_bytes());
            }
        }
        // With both there, each is itself.
        for asked in [composed, decomposed] {
            assert_eq!(NAMES.stored(asked.as_bytes(), |_| true), asked.as_bytes());
            let made = NAMES.stored(asked.as_bytes(), |_| false);
            assert_eq!(made, composed.as_bytes());
        }
    }

    #[test]
    fn bytes_that_are_no_text_and_plain_ascii_are_left_alone() {
        for name in [&b"\xff\xfe"[..], b"plain"] {
            assert_eq!(NAMES.stored(name, |_| panic!("asked")), name);
        }
    }
}
