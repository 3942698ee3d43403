//! Ciphers and hashes over blocks.

use super::{Bench, Unit, entropy, wrong};
use crate::error::BenchError;
use crate::tree::Random;
use aes_gcm_siv::aead::inout::InOutBuf;
use aes_gcm_siv::{AeadInOut, Aes256GcmSiv, KeyInit, Nonce};
use skrin_base::{Entropy, Ino, KeyId, LaneId, RoomId, SegmentId, VaultId};
use skrin_crypto::keys::make_file_key;
use skrin_crypto::{BlockAad, BlockCipher};
use std::hint::black_box;

const KIB: usize = 1024;

pub(super) fn run(bench: &Bench) -> Result<(), BenchError> {
    let entropy = entropy();
    for len in [64 * KIB, 4 * KIB] {
        let plain = Random::new(6).bytes(len);
        let unit = Unit::Bytes(len);
        let name = |what: &str| format!("{what}, {} KiB", len / KIB);
        let mut copy = vec![0; len];
        bench.rate(&name("memcpy"), unit, None, || {
            black_box(&mut copy).copy_from_slice(black_box(&plain));
            Ok(())
        })?;
        let raw = raw_seal(bench, &name("AES-256-GCM-SIV as it is"), &plain)?;
        seal_and_open(bench, &name, &plain, raw, entropy.as_ref())?;
        bench.rate(&name("BLAKE3"), unit, None, || {
            black_box(skrin_crypto::hash(black_box(&plain)));
            Ok(())
        })?;
    }
    text(bench)
}

fn raw_seal(bench: &Bench, name: &str, plain: &[u8]) -> Result<Option<f64>, BenchError> {
    let cipher = Aes256GcmSiv::new(&[1; 32].into());
    let (nonce, mut out) = (Nonce::from([2; 12]), vec![0; plain.len()]);
    bench.rate(name, Unit::Bytes(plain.len()), None, || {
        let buffer = InOutBuf::new(plain, &mut out).map_err(wrong)?;
        let tag = cipher.encrypt_inout_detached(&nonce, &[3; 150], buffer);
        black_box(tag.map_err(wrong)?);
        Ok(())
    })
}

fn aad(plain_len: usize) -> BlockAad {
    BlockAad {
        vault: VaultId([1; 16]),
        room: RoomId([2; 16]),
        segment: SegmentId([3; 16]),
        author: LaneId([4; 16]),
        slot: 5,
        key_id: KeyId([6; 16]),
        origin_file: Ino(7),
        origin_block: 8,
        plain_len: plain_len as u32,
        flags: 0,
    }
}

fn seal_and_open(
    bench: &Bench,
    name: &dyn Fn(&str) -> String,
    plain: &[u8],
    raw: Option<f64>,
    entropy: &dyn Entropy,
) -> Result<(), BenchError> {
    let unit = Unit::Bytes(plain.len());
    let (cipher, aad) = (BlockCipher::new(&make_file_key(entropy)), aad(plain.len()));
    let mut sealed = Vec::new();
    bench.rate(&name("seal a block"), unit, raw, || {
        sealed.clear();
        cipher.seal_into(&aad, black_box(plain), entropy, &mut sealed);
        Ok(())
    })?;
    let mut segment = Vec::new();
    bench.rate(&name("seal, hash, append to a segment"), unit, raw, || {
        if segment.len() > 4 << 20 {
            segment.clear();
        }
        let start = segment.len();
        cipher.seal_into(&aad, black_box(plain), entropy, &mut segment);
        black_box(skrin_crypto::hash(segment.get(start..).unwrap_or_default()));
        Ok(())
    })?;
    sealed.clear();
    cipher.seal_into(&aad, plain, entropy, &mut sealed);
    let mut opened = Vec::new();
    bench.rate(&name("check the hash and open a block"), unit, raw, || {
        black_box(skrin_crypto::hash(black_box(&sealed)));
        opened.clear();
        cipher.open_into(&aad, &sealed, &mut opened).map_err(wrong)
    })?;
    Ok(())
}

/// What compression costs before a block is sealed.
fn text(bench: &Bench) -> Result<(), BenchError> {
    for (name, plain) in [
        ("zstd 1, 64 KiB of text", Random::new(7).text(64 * KIB)),
        ("zstd 1, 64 KiB of noise", Random::new(7).bytes(64 * KIB)),
    ] {
        let mut zstd = zstd::bulk::Compressor::new(1).map_err(wrong)?;
        bench.rate(name, Unit::Bytes(plain.len()), None, || {
            black_box(zstd.compress(black_box(&plain)).map_err(wrong)?);
            Ok(())
        })?;
    }
    Ok(())
}
