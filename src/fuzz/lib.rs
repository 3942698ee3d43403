//! Every decoder of bytes that come from a storage, a disk or a person, as a total function over arbitrary bytes: it
//! returns, whatever it is given, and panics only where a promise is broken. The tests run them on mutated seeds;
//! `cargo-fuzz/` runs them for as long as one likes (README.md).
#![forbid(unsafe_code)]

pub mod mutate;
pub mod seeds;
pub mod targets;

/// A decoder under test.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, also that of the program in `cargo-fuzz/`.
    pub name: &'static str,
    /// Feeds it; panics if a promise is broken.
    pub run: fn(&[u8]),
    /// Good inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "wire",
        run: targets::base::wire,
        seeds: seeds::base::wire,
    },
    Target {
        name: "names",
        run: targets::base::names,
        seeds: seeds::base::names,
    },
    Target {
        name: "public_keys",
        run: targets::crypto::public_keys,
        seeds: seeds::crypto::public_keys,
    },
    Target {
        name: "sealed",
        run: targets::crypto::sealed,
        seeds: seeds::crypto::sealed,
    },
    Target {
        name: "envelope",
        run: targets::crypto::envelope,
        seeds: seeds::crypto::envelopes,
    },
    Target {
        name: "words",
        run: targets::crypto::words,
        seeds: seeds::crypto::words,
    },
    Target {
        name: "header",
        run: targets::vault::header,
        seeds: seeds::vault::headers,
    },
    Target {
        name: "slot",
        run: targets::vault::slot,
        seeds: seeds::vault::slots,
    },
    Target {
        name: "slot_payload",
        run: targets::vault::slot_payload,
        seeds: seeds::vault::slot_payloads,
    },
    Target {
        name: "control_body",
        run: targets::vault::control_body,
        seeds: seeds::vault::control_bodies,
    },
    Target {
        name: "control_object",
        run: targets::vault::control_object,
        seeds: seeds::vault::control_contents,
    },
    Target {
        name: "invitation",
        run: targets::vault::invitation,
        seeds: seeds::vault::invitations,
    },
    Target {
        name: "op",
        run: targets::meta::op,
        seeds: seeds::meta::ops,
    },
    Target {
        name: "apply",
        run: targets::meta::apply_program,
        seeds: seeds::meta::programs,
    },
    Target {
        name: "commit_body",
        run: targets::meta::commit_body,
        seeds: seeds::meta::commit_bodies,
    },
    Target {
        name: "commit_object",
        run: targets::meta::commit_object,
        seeds: seeds::meta::commit_bodies,
    },
    Target {
        name: "row",
        run: targets::meta::row,
        seeds: seeds::meta::rows,
    },
    Target {
        name: "segment_table",
        run: targets::data::segment_table,
        seeds: seeds::data::tables,
    },
    Target {
        name: "segment_object",
        run: targets::data::segment_object,
        seeds: seeds::data::objects,
    },
    Target {
        name: "journal_record",
        run: targets::data::journal_record,
        seeds: seeds::data::records,
    },
    Target {
        name: "multistatus",
        run: targets::storage::multistatus,
        seeds: seeds::storage::multistatus,
    },
    Target {
        name: "list_objects",
        run: targets::storage::list_objects,
        seeds: seeds::storage::list_objects,
    },
    Target {
        name: "address",
        run: targets::storage::address,
        seeds: seeds::storage::addresses,
    },
    Target {
        name: "checkpoint_root",
        run: targets::meta::checkpoint_root,
        seeds: seeds::meta::roots,
    },
    Target {
        name: "checkpoint_page",
        run: targets::meta::checkpoint_page,
        seeds: seeds::meta::pages,
    },
    Target {
        name: "heads",
        run: targets::meta::heads,
        seeds: seeds::meta::heads,
    },
    Target {
        name: "journal_file",
        run: targets::data::journal_file,
        seeds: seeds::data::log_files,
    },
    Target {
        name: "disk_cache",
        run: targets::data::disk_cache,
        seeds: seeds::data::cache_entries,
    },
    Target {
        name: "device_file",
        run: targets::vault::device_file,
        seeds: seeds::vault::device_files,
    },
    Target {
        name: "error_document",
        run: targets::storage::error_document,
        seeds: seeds::storage::error_documents,
    },
    Target {
        name: "netrc",
        run: targets::cli::netrc,
        seeds: seeds::cli::netrc,
    },
    Target {
        name: "ini",
        run: targets::cli::ini,
        seeds: seeds::cli::ini,
    },
    Target {
        name: "shares",
        run: targets::crypto::shares,
        seeds: seeds::crypto::shares,
    },
    Target {
        name: "join_request",
        run: targets::joining::join_request,
        seeds: seeds::joining::requests,
    },
    Target {
        name: "join_answer",
        run: targets::joining::join_answer,
        seeds: seeds::joining::answers,
    },
    Target {
        name: "joining_file",
        run: targets::joining::joining_file,
        seeds: seeds::joining::files,
    },
    Target {
        name: "acl",
        run: targets::fs::acl,
        seeds: seeds::fs::acls,
    },
    Target {
        name: "edits",
        run: targets::fs::edits,
        seeds: seeds::fs::edits,
    },
    Target {
        name: "mac_files",
        run: targets::fs::mac_files,
        seeds: seeds::fs::mac_files,
    },
    Target {
        name: "side_row",
        run: targets::meta::side_row,
        seeds: seeds::meta::side_rows,
    },
    Target {
        name: "tips",
        run: targets::meta::tips,
        seeds: seeds::meta::tips,
    },
    Target {
        name: "pins",
        run: targets::cli::pins,
        seeds: seeds::cli::pins,
    },
    Target {
        name: "challenges",
        run: targets::storage::challenges,
        seeds: seeds::storage::challenges,
    },
];

/// Feeds the target of that name.
///
/// # Panics
/// When a promise is broken, or when there is no such target.
pub fn run(name: &str, data: &[u8]) {
    match TARGETS.iter().find(|target| target.name == name) {
        Some(target) => (target.run)(data),
        None => unreachable!("no target is called {name}"),
    }
}

/// Writes all seeds and frozen vectors as files into `dir/<target>/`, where `cargo fuzz` looks for its corpus.
///
/// # Errors
/// Those of the file system.
pub fn write_corpus(dir: &std::path::Path) -> std::io::Result<()> {
    let frozen = seeds::frozen();
    for target in TARGETS {
        let dir = dir.join(target.name);
        std::fs::create_dir_all(&dir)?;
        for (number, seed) in (target.seeds)().iter().chain(&frozen).enumerate() {
            std::fs::write(dir.join(format!("seed-{number:04}")), seed)?;
        }
    }
    Ok(())
}
