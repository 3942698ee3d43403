//! Good inputs to start from: made here with fixed randomness, and the frozen vectors of docs/format/vectors.

pub mod base;
pub mod cli;
pub mod crypto;
pub mod data;
pub mod fs;
pub mod joining;
pub mod meta;
pub mod storage;
pub mod vault;

use std::path::Path;

/// Puts the byte in front that chooses a decoder.
pub(crate) fn choose(which: u8, bytes: &[u8]) -> Vec<u8> {
    [&[which], bytes].concat()
}

/// Every value of `name = hex` lines in docs/format/vectors, whatever it is: a decoder must live with any of them.
/// Empty where the vectors are not there.
pub fn frozen() -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/format/vectors");
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<_> = files.map(|file| file.path()).collect();
    paths.sort();
    let texts = paths
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok());
    texts.flat_map(|text| values(&text)).collect()
}

fn values(text: &str) -> Vec<Vec<u8>> {
    let value = |line: &str| hex::decode(line.split_once('=')?.1.trim()).ok();
    text.lines()
        .filter_map(value)
        .filter(|bytes| !bytes.is_empty())
        .collect()
}
