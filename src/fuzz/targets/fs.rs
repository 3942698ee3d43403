//! Attributes that the file system reads, and what it keeps on this machine.

use skrin_fs::testutil::decoders;

/// Modes that lists are tried with.
const MODES: [u16; 4] = [0, 0o640, 0o751, 0o7777];

/// An access control list: it has one encoding, stays one whatever mode its inode gets, and says that mode; so does what a new entry
/// inherits of it.
pub fn acl(data: &[u8]) {
    let Some(again) = decoders::acl(data) else {
        return;
    };
    assert_eq!(again, data, "a list has two encodings");
    for mode in MODES {
        let Some((changed, said)) = decoders::acl_with_mode(data, mode) else {
            unreachable!("a list is one a second time");
        };
        assert_eq!(said, mode & 0o777);
        assert_eq!(decoders::acl(&changed).as_ref(), Some(&changed));
        for (_, inherited) in decoders::inherited(data, mode) {
            assert_eq!(decoders::acl(&inherited).as_ref(), Some(&inherited));
        }
    }
}

/// Edits that were noted in the journal.
pub fn edits(data: &[u8]) {
    if let Some(again) = decoders::edits(data) {
        assert_eq!(again, data, "edits have two encodings");
    }
}

/// The files that stay on this machine; local, so that the encoding need not be the only one.
pub fn mac_files(data: &[u8]) {
    if let Some(kept) = decoders::local_files(data) {
        assert_eq!(decoders::local_files(&kept).as_ref(), Some(&kept));
    }
}
