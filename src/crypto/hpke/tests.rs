use super::*;
use crate::keys::make_epoch_key;
use crate::testing::{Known, cases};
use hpke::aead::AesGcm128;
use skrin_base::clock::testutil::SeededEntropy;

const SUITES: [Suite; 2] = [Suite::X25519, Suite::XWing];

fn rfc_case<A: Aead>(case: &crate::testing::Case) {
    let entropy = Known::new(case.get("ikm_e"));
    let (info, aad, pt) = (case.get("info"), case.get("aad"), case.get("pt"));
    let sealed = seal_to::<A, X25519HkdfSha256>(case.get("pk_r"), info, aad, pt, &entropy).unwrap();
    assert_eq!(sealed, [case.get("enc"), case.get("ct")].concat());
    let (secret, enc, ct) = (case.array("sk_r"), case.get("enc"), case.get("ct"));
    let opened = open_from::<A, X25519HkdfSha256>(&secret, enc, info, aad, ct).unwrap();
    assert_eq!(*opened, pt);
    assert_eq!(public_of::<X25519HkdfSha256>(&secret), case.get("pk_r"));
}

#[test]
fn the_vectors_of_rfc_9180_hold_through_our_calls() {
    let cases = cases(include_str!("../published/hpke.txt"));
    assert_eq!(cases.len(), 2, "AES-128-GCM of A.1.1, and AES-256-GCM");
    for case in &cases {
        match case.get("aead") {
            [1] => rfc_case::<AesGcm128>(case),
            [2] => rfc_case::<AesGcm256>(case),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_vectors_of_the_x_wing_draft_hold() {
    let cases = cases(include_str!("../published/xwing.txt"));
    assert_eq!(cases.len(), 3);
    for case in &cases {
        let secret = case.array("sk");
        assert_eq!(public_of::<XWing>(&secret), case.get("pk"));
        let public = parse::<<XWing as Kem>::PublicKey>(case.get("pk")).unwrap();
        let entropy = Known::new(case.get("eseed"));
        let (shared, encapped) =
            XWing::encap_with_rng(&public, None, &mut Random(&entropy)).unwrap();
        assert_eq!(encapped.to_bytes().as_slice(), case.get("ct"));
        assert_eq!(shared.0.as_slice(), case.get("ss"));
        let private = parse::<<XWing as Kem>::PrivateKey>(&secret).unwrap();
        let back = XWing::decap(&private, None, &encapped).unwrap();
        assert_eq!(back.0.as_slice(), case.get("ss"));
    }
}

#[test]
fn the_registered_numbers_are_those_of_the_format() {
    assert_eq!(<X25519HkdfSha256 as Kem>::KEM_ID, 0x0020);
    assert_eq!(<XWing as Kem>::KEM_ID, 0x647a);
    assert_eq!(<HkdfSha256 as hpke::kdf::Kdf>::KDF_ID, 0x0001);
    assert_eq!(AesGcm256::AEAD_ID, 0x0002);
}

struct World {
    secret: KemSecret,
    envelope: Envelope,
    key: crate::EpochKey,
}

fn world(suite: Suite) -> World {
    let entropy = SeededEntropy::new(suite.number().into());
    let secret = KemSecret::from_bytes(suite, skrin_base::clock::random(&entropy));
    let key = make_epoch_key(&entropy);
    let envelope = wrap(&secret.public(), b"info", key.expose(), &entropy).unwrap();
    World {
        secret,
        envelope,
        key,
    }
}

#[test]
fn an_envelope_opens_with_its_key_and_info_only() {
    for suite in SUITES {
        let World {
            secret,
            envelope,
            key,
        } = world(suite);
        let opened = unwrap(&secret, b"info", &envelope).unwrap();
        assert_eq!(opened.as_slice(), key.expose());
        let other = KemSecret::from_bytes(suite, [9; 32]);
        assert_eq!(
            unwrap(&other, b"info", &envelope).err(),
            Some(HpkeError::Open)
        );
        assert_eq!(
            unwrap(&secret, b"info2", &envelope).err(),
            Some(HpkeError::Open)
        );
    }
}

#[test]
fn a_flipped_bit_in_each_region_of_an_envelope_is_refused() {
    for suite in SUITES {
        let World {
            secret, envelope, ..
        } = world(suite);
        let len = envelope.as_bytes().len();
        let encapped = suite.encapped_len();
        // Suite, both ends of the encapsulated key, body, tag.
        for at in [0, 1, encapped, 1 + encapped, len - 17, len - 16, len - 1] {
            let mut bytes = envelope.as_bytes().to_vec();
            bytes[at] ^= 1;
            let changed = Envelope::from_bytes(bytes);
            assert!(unwrap(&secret, b"info", &changed).is_err(), "byte {at}");
        }
        for len in [0, 1, encapped, len - 1] {
            let cut = Envelope::from_bytes(envelope.as_bytes()[..len].to_vec());
            assert!(unwrap(&secret, b"info", &cut).is_err(), "length {len}");
        }
    }
}

#[test]
fn a_key_of_one_suite_opens_nothing_of_the_other() {
    let (old, new) = (world(Suite::X25519), world(Suite::XWing));
    assert_eq!(
        unwrap(&old.secret, b"info", &new.envelope).err(),
        Some(HpkeError::Suite {
            expected: 0,
            found: 1
        })
    );
}

#[test]
fn public_keys_encode_to_one_form_and_bad_ones_are_refused() {
    for suite in SUITES {
        let public = world(suite).secret.public();
        let bytes = public.to_bytes();
        assert_eq!(bytes.len(), 1 + suite.public_len());
        assert_eq!(KemPublic::from_bytes(&bytes).unwrap(), public);
        assert!(KemPublic::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    }
    // ML-KEM coefficients above q are not a public key (FIPS 203, section 7.2).
    let mut bytes = vec![0xff; 1 + Suite::XWing.public_len()];
    bytes[0] = 1;
    assert!(KemPublic::from_bytes(&bytes).is_err());
    assert!(matches!(
        KemPublic::from_bytes(&[7; 33]),
        Err(WireError::Unknown { .. })
    ));
}

#[test]
fn messages_and_infos_above_the_bounds_are_refused() {
    let world = world(Suite::X25519);
    let public = world.secret.public();
    let entropy = SeededEntropy::new(1);
    let long = vec![0; 70_000];
    let too_long = Some(HpkeError::Length(70_000));
    assert_eq!(wrap(&public, &long, b"k", &entropy).err(), too_long);
    assert_eq!(wrap(&public, b"info", &long, &entropy).err(), too_long);
    assert_eq!(
        unwrap(&world.secret, &long, &world.envelope).err(),
        too_long
    );
}
