//! Reading vectors, and randomness that is known.

use skrin_base::Entropy;
use std::collections::BTreeMap;
use std::sync::Mutex;

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "{text}");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// One case of a file of `name = hex` lines; cases are separated by empty lines.
pub(crate) struct Case(BTreeMap<String, Vec<u8>>);

impl Case {
    pub(crate) fn get(&self, name: &str) -> &[u8] {
        &self.0[name]
    }

    pub(crate) fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.get(name).try_into().unwrap()
    }
}

pub(crate) fn cases(text: &str) -> Vec<Case> {
    let blocks = text.split("\n\n");
    let cases = blocks.map(|block| {
        let lines = block.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.map(|line| line.split_once('=').unwrap());
        Case(
            pairs
                .map(|(name, value)| (name.trim().to_owned(), unhex(value.trim())))
                .collect(),
        )
    });
    cases.filter(|case| !case.0.is_empty()).collect()
}

/// Gives out known bytes, and fails the test when they run out.
pub(crate) struct Known(Mutex<Vec<u8>>);

impl Known {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(Mutex::new(bytes.to_vec()))
    }
}

impl Entropy for Known {
    fn fill(&self, out: &mut [u8]) {
        let mut rest = self.0.lock().unwrap();
        let tail = rest.split_off(out.len());
        out.copy_from_slice(&rest);
        *rest = tail;
    }
}
