//! A whole vault, frozen: docs/format/vectors/vault.txt. `SKRIN_WRITE_VECTORS=1` writes it anew;
//! otherwise the file is opened as a vault, and what we would write is compared with it.

use super::*;
use crate::seal_device_file;
use std::fmt::Write;

const PATH: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/format/vectors/vault.txt"
);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// A vault with one device, and all that a reader in another language needs to compare.
async fn written() -> String {
    let w = world(2026).await;
    let unlocked = w.unlock().await;
    let mut room = w.room().await;
    let device = w.device().await;
    let file = seal_device_file(&unlocked, &device, &w.entropy);
    unlocked
        .certify_device(&w.store, &mut room, &device, "laptop", &w.clock, &w.entropy)
        .await
        .unwrap();
    let room = w.room().await;
    let (epoch, commitment) = room.keys.current();
    let anchor = unlocked.anchor();
    let mut out = String::from(
        "# A vault as docs/format/vault.md describes it: name = hex; objects by their names on the storage.\n\n# secrets\n",
    );
    let mut put = |name: &str, bytes: &[u8]| writeln!(out, "{name} = {}", hex(bytes)).unwrap();
    put("passphrase_as_utf8", PASSPHRASE.as_bytes());
    put("words_as_utf8", w.made.words.as_bytes());
    put("vault_id", &anchor.vault.0);
    put("root_room", &anchor.room.0);
    put("genesis", &anchor.genesis.0);
    put("owner_fingerprint", &anchor.fingerprint.0);
    put("owner", &unlocked.person().0);
    put("root_seed", unlocked.root().expose());
    put("epoch_id", &epoch.0);
    put("epoch_commitment", &commitment.0);
    put("epoch_key", room.keys.epoch_key(&epoch).unwrap().expose());
    put("device_id", &device.id().0);
    put("device_seed", device.seed().expose());
    put("device_file", &file);
    put("control_head", &room.roster.control_heads[0].0);
    out.push_str("\n# objects\n");
    for name in w.store.names() {
        writeln!(out, "{name} = {}", hex(&w.bytes(&name))).unwrap();
    }
    out
}

fn value(file: &str, name: &str) -> Vec<u8> {
    let line = file
        .lines()
        .find_map(|l| l.strip_prefix(&format!("{name} = ")));
    unhex(line.unwrap())
}

#[tokio::test]
async fn the_frozen_vault_is_what_we_write_and_opens_as_it_says() {
    let ours = written().await;
    if std::env::var_os("SKRIN_WRITE_VECTORS").is_some() {
        std::fs::write(PATH, &ours).unwrap();
    }
    let file = std::fs::read_to_string(PATH).unwrap();
    for (line, (ours, theirs)) in ours.lines().zip(file.lines()).enumerate() {
        assert_eq!(ours, theirs, "line {}", line + 1);
    }
    assert_eq!(ours, file);
    let store = MemoryStore::new();
    let (_, objects) = file.split_once("# objects\n").unwrap();
    for line in objects.lines() {
        let (name, bytes) = line.split_once(" = ").unwrap();
        let bytes = Bytes::from(unhex(bytes));
        store.tamper(&ObjectName::new(name).unwrap(), Some(bytes));
    }
    let words = String::from_utf8(value(&file, "words_as_utf8")).unwrap();
    let unlocked = unlock(&store, &Secret::Words(text(&words))).await.unwrap();
    let room = unlocked.load_room(&store).await.unwrap();
    assert_eq!(room.keys.current().0.0.to_vec(), value(&file, "epoch_id"));
    let file_bytes = value(&file, "device_file");
    let device = crate::open_device_file(&unlocked, &file_bytes).unwrap();
    assert_eq!(device.seed().expose().to_vec(), value(&file, "device_seed"));
    let mine = unlocked.reader_for(&device).load(&store).await.unwrap();
    assert_eq!(mine.roster, room.roster);
}
