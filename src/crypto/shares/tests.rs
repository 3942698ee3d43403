use super::*;
use skrin_base::clock::testutil::SeededEntropy;

fn words(seed: u64) -> WordsEntropy {
    let mut bytes = [0; 16];
    SeededEntropy::new(seed).fill(&mut bytes);
    WordsEntropy::from_bytes(bytes)
}

fn divided(seed: u64, division: (u8, u8)) -> Vec<Zeroizing<String>> {
    divide(&words(seed), division, &SeededEntropy::new(seed + 1)).unwrap()
}

fn joined(shares: &[&Zeroizing<String>]) -> Result<Vec<u8>, SharesError> {
    let texts: Vec<&str> = shares.iter().map(|share| share.as_str()).collect();
    join(&texts).map(|words| words.raw().to_vec())
}

#[test]
fn every_choice_of_enough_shares_gives_the_words_in_any_order() {
    for (seed, division) in [
        (1, (2, 2)),
        (2, (2, 3)),
        (3, (3, 5)),
        (4, (15, 15)),
        (5, (2, 15)),
    ] {
        let shares = divided(seed, division);
        assert_eq!(shares.len(), usize::from(division.1));
        for chosen in 0_u32..1 << shares.len() {
            if chosen.count_ones() != division.0.into() {
                continue;
            }
            let all = shares.iter().enumerate();
            let some = all.filter(|(at, _)| chosen >> at & 1 == 1);
            let mut some: Vec<_> = some.map(|(_, share)| share).collect();
            some.reverse();
            assert_eq!(joined(&some), Ok(words(seed).raw().to_vec()));
        }
    }
}

#[test]
fn a_share_is_fifteen_words_that_say_when_they_are_miswritten() {
    let shares = divided(7, (2, 3));
    for share in &shares {
        assert_eq!(share.split(' ').count(), SHARE_WORDS);
    }
    let short = Zeroizing::new(shares[1].rsplit_once(' ').unwrap().0.to_owned());
    let count = SharesError::Words(2, WordsError::Count(14, 15));
    assert_eq!(joined(&[&shares[0], &short]), Err(count));
    let mut typed: Vec<&str> = shares[0].split(' ').collect();
    typed.swap(0, 1);
    let swapped = Zeroizing::new(typed.join(" "));
    let checksum = SharesError::Words(1, WordsError::Checksum);
    assert_eq!(joined(&[&swapped, &shares[1]]), Err(checksum));
}

#[test]
fn too_few_shares_and_shares_of_another_key_are_told() {
    let shares = divided(8, (3, 5));
    let few = |found| Err(SharesError::TooFew { found, needed: 3 });
    assert_eq!(joined(&[&shares[0], &shares[4]]), few(2));
    assert_eq!(
        joined(&[&shares[0], &shares[0], &shares[1], &shares[0]]),
        few(2)
    );
    let others = divided(9, (3, 5));
    let foreign = joined(&[&shares[0], &shares[1], &others[2]]);
    assert_eq!(foreign, Err(SharesError::Foreign(3)));
    assert!(joined(&[]).is_err());
}

#[test]
fn a_division_that_makes_no_sense_is_refused() {
    for (needed, count) in [(0, 3), (1, 3), (4, 3), (2, 16), (16, 16), (255, 255)] {
        let made = divide(&words(1), (needed, count), &SeededEntropy::new(1));
        assert_eq!(made.err(), Some(SharesError::Division { needed, count }));
    }
}

/// With one share less than needed, each secret is as likely as any other: the byte that one coefficient decides takes all values.
#[test]
fn one_share_alone_says_nothing_of_the_words() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..4000 {
        let entropy = SeededEntropy::new(seed);
        let shares = divide(&WordsEntropy::from_bytes([5; 16]), (2, 2), &entropy).unwrap();
        let bytes = decode::<SHARE_LEN>(&shares[0], SHARE_WORDS).unwrap();
        seen.insert(bytes[SHARE_LEN - 1]);
    }
    assert_eq!(seen.len(), 256);
}

#[test]
fn shares_of_fixed_randomness_stay_what_they_are() {
    let shares = divide(
        &WordsEntropy::from_bytes([0x61; 16]),
        (2, 3),
        &SeededEntropy::new(1),
    )
    .unwrap();
    let shares: Vec<&str> = shares.iter().map(|share| share.as_str()).collect();
    let frozen = [
        "scout theme marriage arrest wall hockey mandate little size retreat child duck route public april",
        "scout theme master garden student mango valid sphere clump lunar then web lizard armed ozone",
        "scout theme material much daughter fossil venture lemon luggage current panel keep choose biology awesome",
    ];
    assert_eq!(shares, frozen);
    assert_eq!(join(&shares[1..]).unwrap().raw(), &[0x61; 16]);
}
