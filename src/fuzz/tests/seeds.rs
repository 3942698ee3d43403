//! The seeds are what they say: mutants of garbage would be garbage.

use skrin_base::wire::Decode;
use skrin_fuzz::seeds;

#[test]
fn every_seed_is_good_input() {
    let decodes = |seeds: Vec<Vec<u8>>, decode: fn(&[u8]) -> bool| {
        let bad = seeds.iter().position(|seed| !decode(seed));
        assert_eq!(bad, None);
    };
    decodes(seeds::meta::commit_bodies(), |b| {
        skrin_meta::commit::Commit::from_bytes(b).is_ok()
    });
    decodes(seeds::data::tables(), |b| {
        skrin_data::segment::Table::from_bytes(b).is_ok()
    });
    decodes(seeds::vault::headers(), |b| {
        skrin_vault::Header::parse("h", b).is_ok()
    });
    decodes(seeds::vault::slots(), |b| {
        skrin_vault::slot::Slot::parse("s", b).is_ok()
    });
    decodes(seeds::storage::list_objects()[..2].to_vec(), |b| {
        skrin_storage::xml::parse_list_objects(b).is_ok()
    });
    decodes(seeds::storage::multistatus()[..2].to_vec(), |b| {
        skrin_storage::xml::parse_multistatus(b).is_ok_and(|entries| !entries.is_empty())
    });
    decodes(seeds::crypto::words(), |b| {
        skrin_crypto::words::parse_words(&String::from_utf8_lossy(b)).is_ok()
    });
    decodes(seeds::data::cache_entries()[..2].to_vec(), |b| {
        skrin_fuzz::targets::data::cached_blocks(b) == 2
    });
    decodes(seeds::vault::device_files(), |b| {
        skrin_vault::open_device_file(&seeds::vault::devices().unlocked, b).is_ok()
    });
    decodes(seeds::storage::error_documents()[..3].to_vec(), |b| {
        skrin_storage::xml::parse_error_code(b).is_some()
    });
    decodes(seeds::cli::netrc()[..2].to_vec(), |b| {
        let text = String::from_utf8_lossy(b);
        skrin_cli::testutil::netrc(&text, "dav.example", Some("anna")).is_some()
    });
    decodes(seeds::cli::ini()[..2].to_vec(), |b| {
        let (text, ini) = (String::from_utf8_lossy(&b[1..]), skrin_cli::testutil::ini);
        let keys = ini(&text, "default", "aws_access_key_id");
        keys.or_else(|| ini(&text, "profile work", "region"))
            .is_some()
    });
    let bodies = seeds::vault::control_bodies();
    let good = bodies
        .iter()
        .filter(|b| skrin_vault::record::Body::from_bytes(b).is_ok());
    assert_eq!(
        good.count(),
        bodies.len() / 2,
        "bodies first, then their attachments"
    );
}
