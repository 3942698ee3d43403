//! What it costs to remove somebody.

use super::people::{joined, owner};
use super::*;
use crate::Place;
use crate::record::{EndReason, Role};
use skrin_storage::{Count, Counters, Store};
use std::sync::Arc;

#[tokio::test]
async fn removing_one_of_fifty_members_costs_what_their_devices_cost() {
    let w = world(77).await;
    let anna = owner(&w).await;
    let mut last = None;
    for n in 0..49u8 {
        let name = char::from(b'A' + n).to_string();
        last = Some(joined(&w, &anna.officer(), &name, Role::Editor).await);
    }
    let last = last.unwrap();
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
    let before = std::time::Instant::now();
    let room = officer
        .remove_member(&place, last.person(), Vec::new(), EndReason::Unsaid)
        .await
        .unwrap();
    eprintln!("{:?} {:?}", counters.counts(), before.elapsed());
    assert_eq!(room.state.now().members.len(), 49);
    let counts = counters.counts();
    assert_eq!(counts.deletes, 1);
    assert_eq!(counts.sent, 0);
}
