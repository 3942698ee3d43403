use super::*;
use crate::testing::unhex;

#[test]
fn the_vector_of_rfc_9106_holds_for_the_algorithm_that_we_call() {
    // RFC 9106, section 5.3, with its secret and associated data.
    let params = argon2::ParamsBuilder::new()
        .m_cost(32)
        .t_cost(3)
        .p_cost(4)
        .data(argon2::AssociatedData::new(&[4; 12]).unwrap())
        .build()
        .unwrap();
    let argon =
        Argon2::new_with_secret(&[3; 8], Algorithm::Argon2id, Version::V0x13, params).unwrap();
    let mut out = [0; 32];
    argon
        .hash_password_into(&[1; 32], &[2; 16], &mut out)
        .unwrap();
    assert_eq!(
        out.as_slice(),
        unhex("0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659")
    );
}

const VAULT: VaultId = VaultId([5; 16]);

#[test]
fn release_builds_refuse_less_than_the_floor_and_all_refuse_more_than_the_ceiling() {
    let floor = Argon2Params::DEFAULT;
    let less = [
        Argon2Params {
            memory_kib: floor.memory_kib - 1,
            ..floor
        },
        Argon2Params { passes: 2, ..floor },
        Argon2Params { lanes: 3, ..floor },
    ];
    assert_eq!(floor.check_against(&floor), Ok(()));
    for params in less {
        assert_eq!(params.check_against(&floor), Err(KdfError::Weak(params)));
    }
    let most = Argon2Params::CEILING;
    assert_eq!(most.check(), Ok(()));
    let more = [
        Argon2Params {
            memory_kib: u32::MAX,
            ..most
        },
        Argon2Params { passes: 17, ..most },
        Argon2Params { lanes: 65, ..most },
    ];
    for params in more {
        assert_eq!(params.check(), Err(KdfError::Costly(params)));
        let derived = derive_passphrase_slot("x", &params, VAULT, &[0; 32]);
        assert_eq!(derived.err(), Some(KdfError::Costly(params)));
    }
    let none = Argon2Params {
        memory_kib: 0,
        passes: 0,
        lanes: 0,
    };
    assert_eq!(none.check(), Err(KdfError::Weak(none)));
}

#[test]
fn passphrase_vault_and_salt_all_change_the_slot_key_and_its_commitment() {
    let params = Argon2Params::WEAK_FOR_TESTS;
    let derive = |text, vault, salt| {
        let (key, commitment) = derive_passphrase_slot(text, &params, vault, &[salt; 32]).unwrap();
        (*key.raw(), commitment)
    };
    let base = derive("correct horse", VAULT, 1);
    assert_eq!(base.0, derive("correct horse", VAULT, 1).0);
    assert!(base.1.matches(&derive("correct horse", VAULT, 1).1));
    for other in [
        derive("correct hors", VAULT, 1),
        derive("correct horse", VaultId([6; 16]), 1),
        derive("correct horse", VAULT, 2),
    ] {
        assert_ne!(base.0, other.0);
        assert!(!base.1.matches(&other.1));
    }
    assert_ne!(
        &base.0, &base.1.0,
        "the commitment tells nothing of the key"
    );
}

#[test]
fn the_same_passphrase_from_two_keyboards_is_the_same() {
    let derive = |text| {
        let params = Argon2Params::WEAK_FOR_TESTS;
        *derive_passphrase_slot(text, &params, VAULT, &[1; 32])
            .unwrap()
            .0
            .raw()
    };
    assert_eq!(derive("bl\u{e5}b\u{e6}r"), derive("bla\u{30a}b\u{e6}r"));
}

#[test]
fn passphrases_that_are_guessed_first_are_refused_for_new_slots() {
    for weak in [
        "",
        "short",
        "ninechars",
        "aaaaaaaaaaaaaaaa",
        "abababababab",
        "1212121212121",
    ] {
        assert_eq!(
            check_new_passphrase(weak),
            Err(KdfError::Guessable),
            "{weak}"
        );
    }
    assert_eq!(check_new_passphrase("tiny walrus 7"), Ok(()));
    let long = "x".repeat(PASSPHRASE_MAX + 1);
    assert_eq!(
        check_new_passphrase(&long),
        Err(KdfError::TooLong(PASSPHRASE_MAX + 1))
    );
}
