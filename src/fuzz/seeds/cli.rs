//! Files as people write them.

use super::choose;
use crate::targets::cli::pins_file;

/// For `targets::cli::netrc`.
pub fn netrc() -> Vec<Vec<u8>> {
    let texts = [
        "machine dav.example login anna password secret\ndefault login bert password x",
        "# c\nmacdef init\ncd /\nmachine no login x password y\n\nmachine dav.example\n login anna # c\n password \"p \\\" w\"\n account z",
        "machine dav.example login",
        "machine other login a password \"",
        "macdef",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

/// For `targets::cli::ini`: which section is asked for, then the file.
pub fn ini() -> Vec<Vec<u8>> {
    let texts = [
        "[default]\naws_access_key_id = AK\naws_secret_access_key=a=b\n",
        "# c\n[ profile  work ]\nRegion = eu-north-1\ns3 =\n  region = nested\nnoise\n; c\n",
        "[work]\nregion =\n[",
        "region = before any section",
    ];
    let numbered = texts.iter().zip(0..);
    numbered
        .map(|(text, which)| choose(which, text.as_bytes()))
        .collect()
}

/// For `targets::cli::pins`: numbers, none, and the whole file.
pub fn pins() -> Vec<Vec<u8>> {
    let numbers = [1, 1 << 40, u64::MAX].map(u64::to_le_bytes).concat();
    vec![
        choose(0, &numbers),
        choose(0, &[]),
        choose(1, &pins_file(&numbers)),
    ]
}
