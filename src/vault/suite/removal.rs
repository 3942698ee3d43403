//! What it costs to remove somebody.

use super::people::{Someone, joined, owner};
use super::*;
use crate::Place;
use crate::record::{EndReason, Role};
use skrin_storage::{Count, Counters, ObjectName, Store};
use std::sync::Arc;

#[tokio::test]
async fn removing_one_of_fifty_members_costs_what_their_devices_cost() {
    let w = world(77).await;
    let anna = owner(&w).await;
    let mut last: Option<Someone> = None;
    let mut reader = None;
    for n in 0..49u8 {
        let name = char::from(b'A' + n).to_string();
        reader = last.map(|someone| someone.reader());
        last = Some(joined(&w, &anna.officer(), &name, Role::Editor).await);
    }
    let (last, reader) = (last.unwrap(), reader.unwrap());
    let counters = Arc::new(Counters::default());
    let copy = MemoryStore::new();
    for name in w.store.names() {
        copy.put(&name, w.bytes(&name).into()).await.unwrap();
    }
    let store = Count::new(copy, Arc::clone(&counters));
    let place = Place {
        store: &store,
        clock: &w.clock,
        entropy: &w.entropy,
    };
    let officer = anna.officer();
    officer.load(&place).await.unwrap();
    reader.load(&store).await.unwrap();
    let before = counters.counts();
    let room = officer
        .remove_member(&place, last.person(), Vec::new(), EndReason::Unsaid)
        .await
        .unwrap();
    assert_eq!(room.state.now().members.len(), 49);
    let counts = counters.counts().since(&before);
    // The removal, the epoch and a tip for each; what was published is read back.
    assert_eq!((counts.puts, counts.deletes, counts.lists), (4, 2, 3));
    assert_eq!((counts.gets, counts.ranges), (3, 1), "{counts:?}");
    // 148 wrapped keys: of each member the device, the root and the words, of who removes a device more than that.
    let wire = counts.sent + counts.received;
    assert!(wire < 200 * 1024, "{counts:?}");
    // Others read the two new records and no others.
    let before = counters.counts();
    let room = reader.load(&store).await.unwrap();
    assert_eq!(room.state.now().members.len(), 49);
    let counts = counters.counts().since(&before);
    assert_eq!((counts.gets, counts.lists, counts.sent), (2, 1, 0));
    // Whoever puts something among them that is no record makes nobody read the others again.
    let name = format!("rooms/{}/control/{}", w.made.anchor.room, Hash32([9; 32]));
    let junk = ObjectName::new(name).unwrap();
    store.put(&junk, vec![7; 100].into()).await.unwrap();
    for _ in 0..2 {
        let before = counters.counts();
        let room = reader.load(&store).await.unwrap();
        assert_eq!(room.findings.len(), 1);
        assert_eq!(counters.counts().since(&before).gets, 1);
    }
}

#[tokio::test]
async fn a_record_that_was_read_damaged_is_read_again_when_it_was_put_right() {
    let w = world(78).await;
    let anna = owner(&w).await;
    let reader = anna.reader();
    reader.load(&w.store).await.unwrap();
    let names = w.store.names();
    let control = |n: &&ObjectName| n.as_str().contains("/control/");
    let newest = names.iter().rfind(control).unwrap();
    let good = w.bytes(newest);
    // It came as it is and went into memory; what the storage shows now is another matter until it is asked for.
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    w.replace(newest, bad);
    assert!(reader.load(&w.store).await.unwrap().findings.is_empty());
    let fresh = anna.reader();
    let damaged = fresh.load(&w.store).await;
    assert!(damaged.is_err() || !damaged.unwrap().findings.is_empty());
    w.replace(newest, good);
    assert!(fresh.load(&w.store).await.unwrap().findings.is_empty());
}
