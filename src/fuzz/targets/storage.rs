//! What storages answer, and addresses that people type.

use skrin_base::clock::testutil::SeededEntropy;
use skrin_storage::xml::{
    parse_error_code, parse_list_objects, parse_multistatus, read_list_objects, read_multistatus,
};
use skrin_storage::{VaultUrl, answer_to_challenges};
use std::io::BufReader;
use std::sync::Arc;

/// How an answer may be cut on its way.
const PIECES: [usize; 3] = [1, 7, 4096];
/// More headers are read of no answer.
const HEADERS_MAX: usize = 100;

/// An answer to PROPFIND: the same however the network cuts it.
pub fn multistatus(data: &[u8]) {
    let whole = parse_multistatus(data).ok();
    for piece in PIECES {
        let mut entries = Vec::new();
        let result = read_multistatus(BufReader::with_capacity(piece, data), &mut |entry| {
            entries.push(entry);
            Ok(())
        });
        assert_eq!(
            result.is_ok().then_some(entries),
            whole,
            "in pieces of {piece}"
        );
    }
}

/// An answer to ListObjectsV2: the same however the network cuts it.
pub fn list_objects(data: &[u8]) {
    let whole = parse_list_objects(data).ok();
    for piece in PIECES {
        let read = read_list_objects(BufReader::with_capacity(piece, data)).ok();
        assert_eq!(read, whole, "in pieces of {piece}");
    }
}

/// The document of an S3 error: what it is called is never empty, stands in it, and is told by nothing that ends before it is named.
pub fn error_document(data: &[u8]) {
    let Some(code) = parse_error_code(data) else {
        return;
    };
    assert!(!code.is_empty() && code.trim() == code && code.len() <= data.len());
    assert_eq!(
        parse_error_code(&data[..data.len() / 2]).unwrap_or(code.clone()),
        code
    );
    // What comes behind the code says nothing about it.
    assert_eq!(
        parse_error_code(&[data, b"<!-- and more"].concat()),
        Some(code)
    );
}

/// An address: what is shown for it is an address of the same kind, and never holds a password.
pub fn address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match VaultUrl::parse(text) {
        Ok(VaultUrl::WebDav(dav)) => {
            assert_eq!(dav.url.password(), None);
            assert_eq!(dav.url.username(), "");
            let _ = VaultUrl::WebDav(dav).to_string();
        }
        Ok(VaultUrl::S3(s3)) => {
            assert!(s3.prefix.is_empty() || s3.prefix.ends_with('/'));
            assert!(!s3.prefix.split('/').any(|part| part == ".."));
            let _ = VaultUrl::S3(s3).to_string();
        }
        Ok(VaultUrl::Local(path)) => drop(path),
        Err(error) => drop(error.to_string()),
    }
}

/// What a server asks for that wants to know who comes, a header a line: it is told just that or nothing, and little more than it sent.
pub fn challenges(data: &[u8]) {
    let values = data.split(|byte| *byte == b'\n').take(HEADERS_MAX);
    let values: Vec<&[u8]> = values.collect();
    for encrypted in [false, true] {
        let entropy = Arc::new(SeededEntropy::new(2));
        let Some(answer) = answer_to_challenges(&values, encrypted, entropy) else {
            continue;
        };
        let is_basic = answer == b"Basic YW5uYTpzZWNyZXQ=";
        assert!(is_basic || answer.starts_with(b"Digest username="));
        assert!(answer.len() <= 2 * data.len() + 1024);
    }
}
