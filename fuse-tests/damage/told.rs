//! What is said of an object that is not what was written: it is named, and there is a reason.

use serde_json::Value;

use crate::harness::{Mount, Run, Vault};

/// What is said of an object that is not there.
const GONE: [&str; 7] = [
    "is missing",
    "not there",
    "there is no such object",
    "does not have it",
    "does not show",
    "was seen, the storage shows",
    "no tip leads to its commit",
];

/// What is said of one that is there and holds other bytes than it must.
const CHANGED: [&str; 22] = [
    "authentication failed",
    "bytes are too few for a sealed object",
    "it is cut short",
    "exchanged",
    "than its name promises",
    "does not begin as",
    "its checksum is wrong",
    "is not what was written",
    "not as long as declared",
    "its hash is not the one",
    "its seal does not open",
    "its header is not that of a segment",
    "its padding is not zero",
    "its table ",
    "an epoch that this device has no key of",
    "it has format version",
    "or more where at most",
    "the object ends before",
    "does not give its bytes as a whole",
    "something else than a line end",
    "a commit that is not there or not whole",
    "is not listed by the vault",
];

/// The last part of an object's name, by which alone some texts call it.
pub(super) fn file(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Whether a text says what is wrong.
pub(super) fn is_reason(text: &str) -> bool {
    GONE.iter().chain(&CHANGED).any(|why| text.contains(why))
}

/// Whether one of the lines names the object and says what is wrong.
pub(super) fn names_it(texts: &[&str], name: &str) -> bool {
    let mut lines = texts.iter().flat_map(|text| text.lines());
    lines.any(|line| line.contains(file(name)) && is_reason(line))
}

/// What `status` calls errors, one a line.
pub(super) fn errors(mount: &Mount<'_>) -> String {
    let status = mount.status();
    let errors = status["errors"].as_array().unwrap().iter();
    let errors: Vec<&str> = errors.map(|error| error.as_str().unwrap()).collect();
    errors.join("\n")
}

/// Exit code of `verify --data`, its findings, and what it said beside them.
pub(super) fn verify(vault: &Vault) -> (i32, Vec<Value>, String) {
    let output = vault
        .skrin(&["verify", &vault.address(), "--data", "--json"])
        .arg("--words-file")
        .arg(vault.words_file())
        .finish();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    let lines = String::from_utf8_lossy(&output.stdout);
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let findings = lines.filter(|line: &Value| line["kind"].is_string());
    (output.status.code().unwrap_or(-1), findings.collect(), said)
}

/// One of the findings is about the object, of the kind that it must be, and says why; or it is about another that names this one.
pub(super) fn assert_finding(findings: &[Value], kind: &str, name: &str, gone: bool, what: &str) {
    let is_it = |finding: &Value| {
        let text = |field: &str| finding[field].as_str().unwrap();
        let fits = match text("object") == name {
            true => kinds(kind, gone).contains(&text("kind")),
            false => text("what").contains(file(name)),
        };
        let whys = if gone { &GONE[..] } else { &CHANGED[..] };
        let is_told = whys.iter().any(|why| text("what").contains(why));
        fits && is_told && !text("remedy").is_empty()
    };
    let is_told = findings.iter().any(is_it);
    assert!(is_told, "{what}, gone: {gone}, is not told: {findings:?}");
}

/// How docs/findings.md calls what can be wrong with an object.
fn kinds(kind: &str, gone: bool) -> &'static [&'static str] {
    match (kind, gone) {
        ("header", _) => &["header-damaged"],
        ("slot", false) => &["slot-damaged"],
        ("slot", true) => &["slot-missing"],
        ("control record", false) => &["control-damaged"],
        // What keeps the room shut is damaged, be it that it is gone.
        ("control record", true) => &["control-damaged", "control-missing"],
        ("commit", false) => &["commit-damaged"],
        ("commit", true) => &["commit-missing"],
        ("page", false) => &["page-damaged"],
        ("page", true) => &["page-missing"],
        ("checkpoint", false) => &["checkpoint-damaged"],
        ("checkpoint", true) => &["checkpoint-missing"],
        ("tip", false) => &["tip-damaged", "tip-dangling"],
        ("tip", true) => &["tip-missing"],
        ("segment", false) => &["segment-damaged", "block-damaged"],
        ("segment", true) => &["segment-missing"],
        _ => panic!("there is no kind {kind}"),
    }
}
