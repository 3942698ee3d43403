//! The seeds are what they say: mutants of garbage would be garbage.

use skrin_base::clock::testutil::SeededEntropy;
use skrin_base::wire::{Decode, Reader};
use skrin_data::journal::record::{Record, decode_record};
use skrin_fs::testutil::decoders;
use skrin_fuzz::targets::{cli, joining};
use skrin_fuzz::{TARGETS, seeds};
use std::path::Path;
use std::sync::Arc;

fn decodes(seeds: Vec<Vec<u8>>, decode: fn(&[u8]) -> bool) {
    let bad = seeds.iter().position(|seed| !decode(seed));
    assert_eq!(bad, None);
}

#[test]
fn every_seed_is_good_input() {
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

#[test]
fn every_seed_of_people_and_machines_is_good_input() {
    let joins = |text: &Vec<u8>| {
        let text = String::from_utf8_lossy(text);
        skrin_crypto::shares::join(&text.lines().collect::<Vec<_>>()).is_ok()
    };
    let joined: Vec<bool> = seeds::crypto::shares().iter().map(joins).collect();
    assert_eq!(joined, [true, true, true, false, false]);
    decodes(seeds::joining::requests(), joining::asks);
    let answers = seeds::joining::answers();
    let answers: Vec<bool> = answers.iter().map(|a| joining::lets_in(a)).collect();
    assert_eq!(answers, [true, false]);
    decodes(seeds::joining::files()[..1].to_vec(), |b| {
        joining::opened(&joining::file_of(b)).is_some()
    });
    decodes(seeds::joining::files()[1..].to_vec(), |b| {
        joining::opened(b).is_some()
    });
    decodes(seeds::cli::pins()[..2].to_vec(), |b| {
        cli::pinned(&cli::pins_file(&b[1..])).is_some()
    });
    decodes(seeds::cli::pins()[2..].to_vec(), |b| {
        cli::pinned(&b[1..]).is_some()
    });
    decodes(seeds::storage::challenges()[..3].to_vec(), |b| {
        let values: Vec<&[u8]> = b.split(|byte| *byte == b'\n').collect();
        let entropy = Arc::new(SeededEntropy::new(1));
        skrin_storage::answer_to_challenges(&values, false, entropy).is_some()
    });
}

#[test]
fn every_seed_of_local_files_and_names_is_good_input() {
    decodes(seeds::fs::acls(), |b| decoders::acl(b).is_some());
    decodes(seeds::fs::edits(), |b| decoders::edits(b).is_some());
    assert!(seeds::fs::edits().len() >= 3, "each change was noted");
    decodes(seeds::fs::mac_files(), |b| {
        decoders::local_files(b).as_deref() == Some(b)
    });
    decodes(seeds::meta::side_rows(), |b| {
        skrin_meta::replica::side_row(b[0], &b[1..]).as_deref() == Ok(&b[1..])
    });
    let tips = seeds::meta::tips();
    let tips: Vec<_> = tips.iter().map(|b| String::from_utf8_lossy(b)).collect();
    assert!(skrin_meta::lane::parse_tip(&tips[0]).is_some());
    assert!(skrin_meta::lane::parse_control_tip(&tips[1]).is_some());
    let mut records = seeds::data::records();
    records.pop(); // not a record, but where one might stand in a file
    let is_again = |b: &Vec<u8>| {
        let record = decode_record(&mut Reader::new(b));
        matches!(record.unwrap(), Record::Again { .. })
    };
    let again = records.iter().map(is_again).filter(|is_again| *is_again);
    assert_eq!(again.count(), 1);
}

#[test]
fn every_target_can_be_run_with_coverage() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("cargo-fuzz");
    let manifest = std::fs::read_to_string(dir.join("Cargo.toml")).unwrap();
    for target in TARGETS {
        let name = target.name;
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        let program = dir.join("fuzz_targets").join(format!("{name}.rs"));
        let text = std::fs::read_to_string(program).unwrap();
        assert!(text.contains(&format!("run(\"{name}\", data)")), "{name}");
    }
}
