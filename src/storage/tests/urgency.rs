//! Who goes first where more is asked for than may run at once.
#![allow(clippy::unwrap_used)] // Helpers of tests; the lint only excuses the test functions themselves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use skrin_storage::gate::{Doorman, Gate};
use skrin_storage::{Limit, MemoryStore, ObjectName, Store, Urgency};

type Gated = Arc<Limit<Gate<MemoryStore>>>;

fn gated(parallel: usize) -> (Gated, Doorman) {
    let doorman = Doorman::default();
    let gate = Gate::new(MemoryStore::new(), doorman.clone());
    (Arc::new(Limit::new(gate, parallel)), doorman)
}

fn ask(store: &Gated, urgency: &Urgency, name: &str) {
    let (store, name) = (Arc::clone(store), ObjectName::new(name).unwrap());
    let asked = async move { store.get(&name, 1).await };
    tokio::spawn(urgency.clone().scope(asked));
}

fn put(store: &Gated, name: &str) {
    let (store, name) = (Arc::clone(store), ObjectName::new(name).unwrap());
    let asked = async move { store.put(&name, Bytes::new()).await };
    tokio::spawn(Urgency::later().scope(asked));
}

/// Until nothing moves: time stands still while anything can.
async fn rest() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// The names of what came, and nothing but it.
async fn arrived(doorman: &Doorman) -> Vec<String> {
    rest().await;
    doorman
        .arrived()
        .into_iter()
        .map(|(_, name)| name)
        .collect()
}

fn urgent() -> Urgency {
    Urgency::default()
}

#[tokio::test(start_paused = true)]
async fn what_is_urgent_overtakes_all_that_is_read_ahead_and_uploaded() {
    let (store, doorman) = gated(8);
    for n in 0..64 {
        ask(&store, &Urgency::later(), &format!("ahead-{n}"));
        put(&store, &format!("upload-{n}"));
    }
    assert_eq!(arrived(&doorman).await.len(), 4, "half is kept free");
    for n in 0..6 {
        ask(&store, &urgent(), &format!("urgent-{n}"));
    }
    let first = ["urgent-0", "urgent-1", "urgent-2", "urgent-3"];
    assert_eq!(arrived(&doorman).await[4..], first, "at once");
    doorman.admit(2);
    let came = arrived(&doorman).await;
    assert_eq!(came[8..], ["urgent-4", "urgent-5"], "the next ones");
    doorman.open();
    assert_eq!(
        arrived(&doorman).await.len(),
        134,
        "and all the others then"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_awaited_by_now_goes_before_what_nobody_waits_for_and_leaves_places_to_the_urgent()
{
    let (store, doorman) = gated(8);
    for n in 0..64 {
        ask(&store, &Urgency::later(), &format!("ahead-{n}"));
    }
    let awaited: Vec<Urgency> = (0..8).map(|_| Urgency::later()).collect();
    for (n, urgency) in awaited.iter().enumerate() {
        ask(&store, urgency, &format!("awaited-{n}"));
    }
    assert_eq!(arrived(&doorman).await.len(), 4);
    awaited.iter().for_each(Urgency::raise);
    let came = arrived(&doorman).await;
    assert_eq!(came[4..], ["awaited-0", "awaited-1"]);
    ask(&store, &urgent(), "urgent");
    assert_eq!(arrived(&doorman).await[6..], ["urgent"]);
    doorman.admit(4);
    let came = arrived(&doorman).await;
    let next = ["awaited-2", "awaited-3", "awaited-4", "awaited-5"];
    assert_eq!(came[7..], next);
}

#[tokio::test(start_paused = true)]
async fn what_can_wait_is_not_kept_waiting_for_ever() {
    let (store, doorman) = gated(4);
    for n in 0..4 {
        ask(&store, &urgent(), &format!("first-{n}"));
    }
    rest().await;
    put(&store, "upload");
    rest().await;
    for n in 0..20 {
        ask(&store, &urgent(), &format!("urgent-{n}"));
    }
    assert_eq!(arrived(&doorman).await.len(), 4);
    doorman.admit(1);
    assert_eq!(arrived(&doorman).await[4..], ["upload"]);
}

#[tokio::test(start_paused = true)]
async fn of_a_single_place_the_next_turn_is_that_of_who_waits_urgently() {
    let (store, doorman) = gated(1);
    for n in 0..10 {
        put(&store, &format!("upload-{n}"));
    }
    rest().await;
    ask(&store, &urgent(), "urgent");
    assert_eq!(arrived(&doorman).await, ["upload-0"]);
    doorman.admit(1);
    assert_eq!(arrived(&doorman).await[1..], ["urgent"]);
}
