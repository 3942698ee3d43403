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
