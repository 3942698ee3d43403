use super::*;
use crate::testing::unhex;

/// RFC 8032, section 7.1, tests 1 to 3: secret, public, message, signature.
const RFC_8032: [[&str; 4]; 3] = [
    [
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ],
    [
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ],
    [
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ],
];

#[test]
fn the_vectors_of_rfc_8032_hold() {
    for [secret, public, message, signature] in RFC_8032 {
        let signer = DeviceSigner::from_secret(&unhex(secret).try_into().unwrap());
        assert_eq!(signer.public().as_bytes().as_slice(), unhex(public));
        let made = signer.0.sign(&unhex(message)).to_bytes();
        assert_eq!(made.as_slice(), unhex(signature));
        let signature = Signature(unhex(signature).try_into().unwrap());
        let key = VerifyingKey::from_bytes(&unhex(public).try_into().unwrap()).unwrap();
        assert!(key.verify_message(&unhex(message), &signature).is_ok());
    }
}

fn verify<'a>(
    key: &VerifyingKey,
    kind: SignatureKind,
    body: &'a [u8],
    signature: &Signature,
) -> Result<&'a [u8], BadSignature> {
    key.verify(kind, body, signature).map(Verified::into_inner)
}

#[test]
fn a_signature_is_for_one_kind_body_and_key() {
    let signer = DeviceSigner::from_secret(&[1; 32]);
    let other = RootSigner::from_secret(&[2; 32]);
    let signature = signer.sign(SignatureKind::Commit, b"body");
    let key = signer.public();
    assert_eq!(
        verify(&key, SignatureKind::Commit, b"body", &signature),
        Ok(b"body".as_slice())
    );
    for kind in [SignatureKind::Control, SignatureKind::Checkpoint] {
        assert!(verify(&key, kind, b"body", &signature).is_err());
    }
    assert!(verify(&key, SignatureKind::Commit, b"bodY", &signature).is_err());
    assert!(verify(&other.public(), SignatureKind::Commit, b"body", &signature).is_err());
    for at in 0..64 {
        let mut changed = signature;
        changed.0[at] ^= 1;
        assert!(verify(&key, SignatureKind::Commit, b"body", &changed).is_err());
    }
}

#[test]
fn keys_of_small_order_and_other_encodings_are_refused() {
    // The eight points of small order in their canonical encodings, and encodings with y >= p.
    let bad = [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    for text in bad {
        let bytes = unhex(text).try_into().unwrap();
        assert!(VerifyingKey::from_bytes(&bytes).is_err(), "{text}");
    }
}

#[test]
fn a_signature_with_a_scalar_above_the_order_is_refused() {
    let signer = DeviceSigner::from_secret(&[1; 32]);
    let signature = signer.sign(SignatureKind::Commit, b"body");
    // S + L is the same scalar modulo the order; RFC 8032 requires S < L.
    let order = unhex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let mut malleated = signature;
    let mut carry = 0;
    for (byte, add) in malleated.0[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    let verified = signer
        .public()
        .verify(SignatureKind::Commit, b"body", &malleated);
    assert!(verified.is_err());
}
