//! The INI files of ~/.aws, as far as credentials need them: sections, `key = value`, comments on lines of their own.

use std::collections::HashMap;

/// Sections by name, each with its keys.
#[derive(Default)]
pub(crate) struct Sections(HashMap<String, HashMap<String, String>>);

impl Sections {
    pub(crate) fn has(&self, section: &str) -> bool {
        self.0.contains_key(section)
    }

    pub(crate) fn get(&self, section: &str, key: &str) -> Option<String> {
        self.0
            .get(section)?
            .get(key)
            .filter(|v| !v.is_empty())
            .cloned()
    }
}

/// Reads everything that makes sense and passes over the rest, as the AWS tools do. Indented lines belong to a
/// nested block that we do not use.
pub(crate) fn parse(text: &str) -> Sections {
    let mut sections = Sections::default();
    let mut current = String::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = trimmed
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            current = name.split_whitespace().collect::<Vec<_>>().join(" ");
            sections.0.entry(current.clone()).or_default();
        } else if let Some((key, value)) = trimmed.split_once('=')
            && !line.starts_with([' ', '\t'])
        {
            let section = sections.0.entry(current.clone()).or_default();
            section.insert(key.trim().to_lowercase(), value.trim().to_owned());
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_nested_blocks_and_noise_are_passed_over() {
        let text =
            "# c\n[ profile  a ]\nregion = x\ns3 =\n  region = nested\nnoise\n; c\n[b]\nKey=a=b\n";
        let sections = parse(text);
        assert_eq!(sections.get("profile a", "region").as_deref(), Some("x"));
        assert_eq!(sections.get("b", "key").as_deref(), Some("a=b"));
        assert_eq!(sections.get("profile a", "s3"), None);
        assert!(!sections.has("c"));
    }
}
