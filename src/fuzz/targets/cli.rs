//! Files in which people keep credentials.

use super::chosen;
use skrin_cli::testutil;

/// A .netrc: who is wanted is who is found, and what is written with quotes comes back, whatever it is.
pub fn netrc(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for user in [None, Some("anna")] {
        if let Some((login, password)) = testutil::netrc(&text, "dav.example", user) {
            assert!(user.is_none_or(|wanted| wanted == login));
            assert!(login.len() + password.len() <= text.len() + 4);
        }
    }
    let line: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    let quoted = line.replace('\\', "\\\\").replace('"', "\\\"");
    let file = format!("machine h login \"{quoted}\" password \"{quoted}\"");
    assert_eq!(
        testutil::netrc(&file, "h", None),
        Some((line.clone(), line))
    );
}

/// A file of ~/.aws: what is found stands in it, in one line and without space around it.
pub fn ini(data: &[u8]) {
    let (which, rest) = chosen(data);
    let text = String::from_utf8_lossy(rest);
    let section = ["default", "profile work", "work", ""][usize::from(which) % 4];
    for key in ["aws_access_key_id", "region", "s3", ""] {
        if let Some(value) = testutil::ini(&text, section, key) {
            assert!(text.contains(&value) && !value.contains('\n'));
            assert_eq!(value.trim(), value);
            assert!(!value.is_empty());
        }
    }
}
