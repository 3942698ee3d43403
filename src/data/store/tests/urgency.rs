//! Who waits for a block goes before what is read ahead, and before uploads.

use super::*;
use skrin_storage::Verb;

/// Requests at once: two of what nobody waits for, three with what is awaited by now.
const PARALLEL: usize = 4;
/// Segments that are read ahead, of one block each.
const AHEAD: u64 = 64;

/// Until nothing moves: time stands still while anything can.
async fn rest() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// The segments for which requests came.
fn arrived(doorman: &Doorman) -> Vec<String> {
    let came = doorman.arrived().into_iter();
    came.map(|(_, name)| name).collect()
}

#[tokio::test(start_paused = true)]
async fn a_block_that_somebody_waits_for_is_asked_for_before_what_is_read_ahead_and_uploaded() {
    let mut world = World::new();
    let store = world.open();
    let mut written = Written::default();
    for n in 0..AHEAD + 2 {
        written.blocks.push((write(&store, n, 65_536), 65_536));
        written.infos.extend(publish(&store).await);
    }
    drop(store);
    let doorman = Doorman::default();
    world.gate = Some((PARALLEL, doorman.clone()));
    let store = world.open();
    let object = |block: u64| {
        let (at, _) = written.blocks[block as usize];
        object_name(at.segment).unwrap().to_string()
    };
    let read = |block: u64| {
        let (store, request) = (store.clone(), written.request(block));
        tokio::spawn(async move { store.read(vec![request]).await })
    };

    store.prefetch((0..AHEAD).map(|b| written.request(b)).collect());
    rest().await;
    for n in 1000..1004 {
        write(&store, n, 65_536);
        let (uploading, ids) = (store.clone(), store.undeclared());
        tokio::spawn(async move { uploading.make_durable(&ids).await });
        rest().await;
    }
    assert_eq!(doorman.arrived().len(), 2);

    // What is read ahead, and did not get a turn yet, goes before all else that is, as somebody comes to wait for it.
    let late = read(AHEAD - 1);
    rest().await;
    assert_eq!(arrived(&doorman)[2..], [object(AHEAD - 1)]);
    let mut wanted = Vec::new();
    for block in [AHEAD, AHEAD + 1] {
        wanted.push((object(block), read(block)));
        // Two that come at once look into the cache side by side, and any of them may be the first.
        rest().await;
    }
    assert_eq!(arrived(&doorman)[3..], [wanted[0].0.clone()]);
    doorman.admit(1);
    rest().await;
    assert_eq!(arrived(&doorman)[4], wanted[1].0);
    let puts = doorman.arrived().into_iter();
    assert_eq!(puts.filter(|(verb, _)| *verb == Verb::Put).count(), 0);

    doorman.open();
    for (reading, block) in wanted
        .into_iter()
        .map(|(_, reading)| reading)
        .chain([late])
        .zip([AHEAD, AHEAD + 1, AHEAD - 1])
    {
        let got = reading.await.unwrap().remove(0).unwrap();
        assert_eq!(&*got, plain(block, 65_536));
    }
    store.make_durable(&store.undeclared()).await.unwrap();
}
