//! The one printer: names that others chose cannot move the cursor, colour the terminal or reverse the text.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use crate::exit::Failure;

/// Shows foreign text with everything escaped that a terminal would obey: control characters, the bidirectional
/// overrides of Unicode (UAX 9), zero-width and line separators.
pub(crate) struct Shown<'a>(pub &'a str);

fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            if is_hostile(c) {
                write!(f, "{}", c.escape_unicode())
            } else {
                write!(f, "{c}")
            }
        })
    }
}

/// Prints one line of result on standard output: escaped for a terminal, raw on a pipe. A closed pipe is nobody's fault.
pub(crate) fn line(text: impl fmt::Display) {
    let _ = line_or_error(text);
}

/// The same for what is told only once.
///
/// # Errors
/// Of standard output: nobody has read it then.
pub(crate) fn line_or_error(text: impl fmt::Display) -> io::Result<()> {
    let text = text.to_string();
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        writeln!(out, "{}", Shown(&text))?;
    } else {
        writeln!(out, "{text}")?;
    }
    out.flush()
}

/// Prints a value as one line of JSON.
pub(crate) fn json(value: &impl serde::Serialize) {
    let _ = json_or_error(value);
}

/// The same for what is told only once.
///
/// # Errors
/// As [`line_or_error`].
pub(crate) fn json_or_error(value: &impl serde::Serialize) -> io::Result<()> {
    let text = serde_json::to_string(value)?;
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Prints something that a person should know but that is no failure.
pub(crate) fn note(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "skrin: {}", Shown(&text.to_string()));
}

/// Prints why a command ended.
pub(crate) fn failure(failure: &Failure) {
    let text = failure.to_string();
    let mut err = io::stderr().lock();
    let _ = writeln!(err, "skrin: error: {}", Shown(&text));
    if let Some(usage) = &failure.usage {
        let _ = writeln!(err, "\n{}", usage.trim());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_colour_or_reverse_the_terminal() {
        let shown = Shown("a\x1b[31m\u{202e}fdp.exe\r\n").to_string();
        assert_eq!(shown, "a\\u{1b}[31m\\u{202e}fdp.exe\\u{d}\\u{a}");
    }

    #[test]
    fn ordinary_names_stay_as_they_are() {
        assert_eq!(
            Shown("Übung 日本 (1).odt").to_string(),
            "Übung 日本 (1).odt"
        );
    }
}
