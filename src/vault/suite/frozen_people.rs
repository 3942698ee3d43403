//! A vault with several people, frozen: docs/format/vectors/people.txt. `SKRIN_WRITE_VECTORS=1` writes it anew; otherwise
//! the file is opened as a vault, and what we would write is compared with it.

use super::people::{Someone, tip};
use super::*;
use crate::control::open_record;
use crate::record::{EndReason, History, Role};
use crate::{Invitation, JoinOptions, Offer, Officer, Pending, find_request, join_request};
use skrin_base::Timestamp;
use skrin_base::wire::Encode;
use skrin_crypto::Suite;
use std::collections::BTreeMap;
use std::fmt::Write;

const PATH: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/format/vectors/people.txt"
);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

/// What one joining leaves: the line, the file, the two objects by name.
struct Joined {
    line: String,
    pending: Pending,
    objects: Vec<(ObjectName, Vec<u8>)>,
    unlocked: Unlocked,
}

async fn join(w: &World, by: &Officer, name: &str, role: Role, history: History) -> Joined {
    let place = w.place();
    let room = by.load(&place).await.unwrap();
    let offer = Offer {
        role,
        history,
        until: Some(Timestamp(1_900_000_000_000_000_000)),
        lasts: 1_000_000_000,
        place: Some("webdavs://files.example.org/vault".to_owned()),
    };
    let invitation = Invitation::make(by, &room, &offer, &w.clock, &w.entropy).unwrap();
    let line = invitation.to_text().to_string();
    let options = JoinOptions {
        argon2: Argon2Params::WEAK_FOR_TESTS,
        ..JoinOptions::new(name)
    };
    let copy = Invitation::from_text(&line).unwrap();
    let pending = join_request(&place, copy, &options).await.unwrap();
    pending.ask(&place).await.unwrap();
    let mut objects: Vec<_> = w
        .names("joins/")
        .into_iter()
        .map(|n| (n.clone(), w.bytes(&n)))
        .collect();
    let request = find_request(&w.store, &invitation).await.unwrap().unwrap();
    by.accept(&place, &invitation, &request).await.unwrap();
    objects.extend(
        w.names("joins/")
            .into_iter()
            .map(|n| (n.clone(), w.bytes(&n))),
    );
    let unlocked = pending.finish(&place, None).await.unwrap();
    Joined {
        line,
        pending,
        objects,
        unlocked,
    }
}

/// Everything of tags 7 to 10 and 17, and three people: an owner, one who may only read any more, one who is out.
async fn written() -> String {
    let store = MemoryStore::new();
    let (clock, entropy) = (ManualClock::default(), SeededEntropy::new(2027));
    let options = InitOptions {
        suite: Suite::X25519,
        ..InitOptions::new("anna")
    };
    let made = init(&store, &options, &clock, &entropy).await.unwrap();
    let w = World {
        store,
        clock,
        entropy,
        made,
    };
    let (unlocked, device) = (w.unlock().await, None);
    let anna = Someone { unlocked, device }
        .with_device(&w, "anna's laptop")
        .await;
    let lost = Someone {
        unlocked: w.unlock().await,
        device: None,
    };
    let lost = lost.with_device(&w, "anna's phone").await;
    let officer = anna.officer();
    let bert = join(&w, &officer, "bert", Role::Manager, History::All).await;
    let carl = join(&w, &officer, "carl", Role::Editor, History::FromNow).await;
    let (unlocked, device) = (bert.unlocked, None);
    let berts = Someone { unlocked, device }
        .with_device(&w, "bert's laptop")
        .await;
    let (unlocked, device) = (carl.unlocked, None);
    let carls = Someone { unlocked, device }
        .with_device(&w, "carl's laptop")
        .await;
    let place = w.place();
    let id = lost.device.as_ref().unwrap().id();
    let reason = EndReason::Lost;
    w.unlock()
        .await
        .revoke_device(&place, id, vec![tip(1)], reason)
        .await
        .unwrap();
    let person = carls.person();
    let by_bert = berts.officer();
    let reason = EndReason::Finished;
    by_bert
        .remove_member(&place, person, vec![tip(2), tip(3)], reason)
        .await
        .unwrap();
    let person = berts.person();
    officer
        .set_role(&place, person, Role::Reader, vec![tip(4)])
        .await
        .unwrap();
    let room = anna.load(&w).await.unwrap();
    let mut out = String::from(
        "# A vault with several people as docs/format/vault.md describes it: name = hex; objects by their names on the storage.\n# Suite 0, so that it is short.\n\n# secrets\n",
    );
    let mut put = |name: &str, bytes: &[u8]| writeln!(out, "{name} = {}", hex(bytes)).unwrap();
    put("words_as_utf8", w.made.words.as_bytes());
    put("words_of_bert_as_utf8", bert.pending.words().as_bytes());
    put("invitation_of_bert_as_utf8", bert.line.as_bytes());
    put("invitation_of_carl_as_utf8", carl.line.as_bytes());
    put("file_of_bert_while_joining", bert.pending.to_file());
    let vault = w.made.anchor.vault;
    let number = crate::safety_number(vault, &bert.pending.keys().fingerprint());
    put("fingerprint_of_bert", &bert.pending.keys().fingerprint().0);
    put("safety_number_of_bert_as_utf8", number.as_bytes());
    let current = room.keys.current().0;
    put("epoch_id", &current.0);
    put("key_tag", &skrin_crypto::key_tag(&current));
    out.push_str("\n# the world at all heads\n");
    facts(&mut out, &room);
    out.push_str("\n# the first body of each tag\n");
    bodies(&mut out, &w, &anna.unlocked);
    out.push_str("\n# objects that were deleted when they had served\n");
    for (name, bytes) in bert.objects.into_iter().chain(carl.objects) {
        writeln!(out, "{name} = {}", hex(&bytes)).unwrap();
    }
    out.push_str("\n# objects\n");
    for name in w.store.names() {
        writeln!(out, "{name} = {}", hex(&w.bytes(&name))).unwrap();
    }
    out
}

fn facts(out: &mut String, room: &Room) {
    let now = room.state.now();
    for (person, member) in &now.members {
        writeln!(out, "member {person} = {}", hex(&member.role.to_bytes())).unwrap();
    }
    for (device, person) in &now.devices {
        writeln!(out, "device {device} = {person}").unwrap();
    }
    for (device, cut) in &now.cuts {
        for (lane, tips) in cut {
            for (seq, commit) in tips {
                writeln!(out, "cut {device} {lane} {seq} = {commit}").unwrap();
            }
        }
    }
    for epoch in room.state.clean_epochs() {
        writeln!(out, "clean {epoch} = ").unwrap();
    }
}

fn bodies(out: &mut String, w: &World, unlocked: &Unlocked) {
    let (vault, room) = (unlocked.vault(), unlocked.root_room());
    let key = unlocked.control_key(room);
    let mut first: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    for name in w.names(&format!("rooms/{room}/control/")) {
        let id = Hash32::from_hex(name.file_name()).unwrap();
        let opened = open_record(&key, vault, room, id, &w.bytes(&name)).unwrap();
        let tag = opened.body.record.to_bytes()[0];
        first.entry(tag).or_insert_with(|| opened.body.to_bytes());
    }
    assert_eq!(
        Vec::from_iter(first.keys().copied()),
        [1, 2, 3, 4, 5, 7, 8, 9, 10, 17]
    );
    for (tag, body) in first {
        writeln!(out, "body_{tag} = {}", hex(&body)).unwrap();
    }
}

fn value(file: &str, name: &str) -> String {
    let line = file
        .lines()
        .find_map(|l| l.strip_prefix(&format!("{name} = ")));
    String::from_utf8(unhex(line.unwrap())).unwrap()
}

#[tokio::test]
async fn the_frozen_people_are_what_we_write_and_see_the_world_that_it_says() {
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
    let (_, objects) = file.split_once("# objects that were").unwrap();
    let is_object = |line: &&str| line.contains('/') || line.starts_with(crate::HEADER_NAME);
    for line in objects.lines().filter(is_object) {
        let (name, bytes) = line.split_once(" = ").unwrap();
        let bytes = Bytes::from(unhex(bytes));
        store.tamper(&ObjectName::new(name).unwrap(), Some(bytes));
    }
    let (_, world) = file.split_once("# the world at all heads\n").unwrap();
    let (world, _) = world.split_once("\n# the first body").unwrap();
    for words in ["words_as_utf8", "words_of_bert_as_utf8"] {
        let words = value(&file, words);
        let unlocked = unlock(&store, &Secret::Words(text(&words))).await.unwrap();
        let room = unlocked.load_room(&store).await.unwrap();
        let mut seen = String::new();
        facts(&mut seen, &room);
        assert_eq!(seen, world);
        assert!(room.findings.is_empty() && !room.needs_epoch());
    }
    let line = value(&file, "invitation_of_bert_as_utf8");
    let invitation = Invitation::from_text(&line).unwrap();
    assert_eq!(*invitation.to_text(), line);
    let request = find_request(&store, &invitation).await.unwrap().unwrap();
    let number = crate::safety_number(invitation.anchor.vault, &request.fingerprint());
    assert_eq!(number, value(&file, "safety_number_of_bert_as_utf8"));
}
