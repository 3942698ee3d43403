use super::*;
use crate::testing::unhex;

/// The vectors for 128 bits of the reference implementation named in BIP-39.
const BIP_39: [(&str, &str); 8] = [
    (
        "00000000000000000000000000000000",
        "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about",
    ),
    (
        "7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f",
        "legal winner thank year wave sausage worth useful legal winner thank yellow",
    ),
    (
        "80808080808080808080808080808080",
        "letter advice cage absurd amount doctor acoustic avoid letter advice cage above",
    ),
    (
        "ffffffffffffffffffffffffffffffff",
        "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo wrong",
    ),
    (
        "9e885d952ad362caeb4efe34a8e91bd2",
        "ozone drill grab fiber curtain grace pudding thank cruise elder eight picnic",
    ),
    (
        "c0ba5a8e914111210f2bd131f3d5e08d",
        "scheme spot photo card baby mountain device kick cradle pact join borrow",
    ),
    (
        "23db8160a31d3e0dca3688ed941adbf3",
        "cat swing flag economy stadium alone churn speed unique patch report train",
    ),
    (
        "f30f8c1da665478f49b001d94c5fc452",
        "vessel ladder alter error federal sibling chat ability sun glass valve picture",
    ),
];

fn parsed(text: &str) -> Result<Vec<u8>, WordsError> {
    parse_words(text).map(|entropy| entropy.raw().to_vec())
}

#[test]
fn the_vectors_of_bip_39_hold_both_ways() {
    for (entropy, words) in BIP_39 {
        let bytes: [u8; 16] = unhex(entropy).try_into().unwrap();
        assert_eq!(*words_of(&WordsEntropy::from_bytes(bytes)), words);
        assert_eq!(parsed(words), Ok(bytes.to_vec()));
    }
}

#[test]
fn case_white_space_full_width_and_four_letters_do_not_matter() {
    let expected = Ok(unhex("9e885d952ad362caeb4efe34a8e91bd2"));
    let typed = "  OZON\tdrill grab\nfibe curt grac pudd than crui elde eigh PICNIC\r\n";
    assert_eq!(parsed(typed), expected);
    let wide =
        "\u{ff4f}zone drill grab fiber curtain grace pudding thank cruise elder eight picnic";
    assert_eq!(parsed(wide), expected);
}

#[test]
fn the_first_wrong_word_is_named_by_its_place() {
    let base = "ozone drill grab fiber curtain grace pudding thank cruise elder eight picnic";
    assert_eq!(
        parsed(&base.replace("fiber", "fibre")),
        Err(WordsError::Unknown(4))
    );
    assert_eq!(
        parsed(&base.replace("picnic", "pic")),
        Err(WordsError::Unknown(12)),
        "three letters do not suffice"
    );
    assert_eq!(
        parsed(&base.replace("ozone", "ozonexx")),
        Err(WordsError::Unknown(1))
    );
}

#[test]
fn a_wrong_count_and_a_wrong_checksum_are_different_errors() {
    assert_eq!(parsed(""), Err(WordsError::Count(0, 12)));
    assert_eq!(parsed("ozone drill"), Err(WordsError::Count(2, 12)));
    assert_eq!(parsed(&"zoo ".repeat(24)), Err(WordsError::Count(24, 12)));
    assert_eq!(
        parsed(&"zoo ".repeat(5000)),
        Err(WordsError::Count(5000, 12))
    );
    assert_eq!(parsed(&"zoo ".repeat(12)), Err(WordsError::Checksum));
    let swapped = "drill ozone grab fiber curtain grace pudding thank cruise elder eight picnic";
    assert_eq!(parsed(swapped), Err(WordsError::Checksum));
}

#[test]
fn errors_never_repeat_what_was_typed() {
    let typed = "ozone drill grab secretword curtain grace pudding thank cruise elder eight picnic";
    let error = parse_words(typed).err().unwrap();
    assert!(!format!("{error} {error:?}").contains("secretword"));
}
