//! ~/.netrc, as ftp(1) and curl read it: `machine`, `default`, `login`, `password`, `account`, `macdef`, quotes, comments.

/// User and password of the first entry for `host` (and `user`, where one is wanted); `default` last.
pub(crate) fn find(text: &str, host: &str, user: Option<&str>) -> Option<(String, String)> {
    entries(text).into_iter().find_map(|entry| {
        let host_fits = entry
            .machine
            .as_deref()
            .is_none_or(|m| m.eq_ignore_ascii_case(host));
        let login = entry.login.or_else(|| user.map(str::to_owned))?;
        let user_fits = user.is_none_or(|wanted| wanted == login);
        (host_fits && user_fits).then_some(())?;
        Some((login, entry.password?))
    })
}

#[derive(Default)]
struct Entry {
    /// `None` is `default`.
    machine: Option<String>,
    login: Option<String>,
    password: Option<String>,
}

fn entries(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut tokens = tokens(text).into_iter();
    while let Some(word) = tokens.next() {
        match (word.as_str(), entries.last_mut()) {
            ("machine", _) => entries.push(Entry {
                machine: Some(tokens.next().unwrap_or_default()),
                ..Entry::default()
            }),
            ("default", _) => entries.push(Entry::default()),
            ("login", Some(entry)) => entry.login = tokens.next(),
            ("password", Some(entry)) => entry.password = tokens.next(),
            ("account", _) => drop(tokens.next()),
            _ => {}
        }
    }
    entries
}

fn tokens(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut in_macro = false;
    for line in text.lines() {
        // A macro lasts until an empty line.
        in_macro = in_macro && !line.trim().is_empty();
        if in_macro {
            continue;
        }
        let mut rest = line.trim_start();
        while !rest.is_empty() && !rest.starts_with('#') {
            let is_quoted = rest.starts_with('"');
            let (token, after) = token(rest);
            rest = after.trim_start();
            if token == "macdef" && !is_quoted {
                in_macro = true;
                break;
            }
            out.push(token);
        }
    }
    out
}

/// The first token of a line that begins with one, and what follows it.
fn token(line: &str) -> (String, &str) {
    let quoted = line.strip_prefix('"');
    let body = quoted.unwrap_or(line);
    let mut out = String::new();
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => out.extend(chars.next().map(|(_, c)| c)),
            '"' if quoted.is_some() => return (out, &body[at + 1..]),
            c if quoted.is_none() && c.is_whitespace() => return (out, &body[at..]),
            c => out.push(c),
        }
    }
    (out, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_comments_macros_and_default_are_understood() {
        let text = "# c\nmacdef init\ncd /\nmachine no login x password y\n\nmachine h\n login a # c\n password \"p \\\" w\"\ndefault login d password e";
        let (user, password) = find(text, "h", None).unwrap();
        assert_eq!((user.as_str(), password.as_str()), ("a", "p \" w"));
        assert_eq!(find(text, "no", None).unwrap().0, "d");
        assert!(find(text, "h", Some("z")).is_none());
    }

    #[test]
    fn a_quoted_word_is_no_command() {
        let text = "machine h login a password \"macdef\"";
        assert_eq!(find(text, "h", None).unwrap().1, "macdef");
    }

    #[test]
    fn a_cut_file_is_no_trouble() {
        for text in [
            "machine",
            "machine h login",
            "password x",
            "machine h password \"",
            "\\",
        ] {
            assert!(find(text, "h", None).is_none());
        }
    }
}
