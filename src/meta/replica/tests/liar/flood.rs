//! A member who writes more than anybody needs.

use super::super::cuts::{Records, tell};
use super::*;
use crate::replica::fetch::KEPT_WAITING;
use skrin_crypto::Cut;

#[tokio::test]
async fn a_lane_that_waits_is_kept_in_part_and_is_there_as_soon_as_it_need_not_wait() {
    let (vault, _a, reader) = with_history(953, false).await;
    let missing = Liar::new(1, 1).say(&vault, Lie::default()).await;
    let mut liar = Liar::new(1, 0);
    liar.name(&vault, vec![missing]).await;
    for _ in 0..KEPT_WAITING + 20 {
        liar.say(&vault, Lie::default()).await;
    }
    let lie = Lie {
        ops: vec![an_op(vault.world.device(1), 1, b"after all")],
        ..Lie::default()
    };
    let last = liar.say(&vault, lie).await;
    let name = RoomNames(vault.world.keys.room()).commit(&missing).unwrap();
    let object = vault.store.peek(&name);
    vault.store.tamper(&name, None);
    reader.replica().pull().await.unwrap();
    let kept = reader.replica().net.lock().await.inbox.held.len();
    assert_eq!(kept, KEPT_WAITING);
    let before = reader.counters.counts();
    reader.replica().pull().await.unwrap();
    let cost = reader.counters.counts().since(&before);
    assert_eq!(cost.gets, 0, "what was let go of is not got each time");
    vault.store.tamper(&name, object);
    vault.clock.advance(120_000_000_000);
    reader.replica().pull().await.unwrap();
    let admitted = reader.replica().core.lock().graph.admitted(&last);
    assert!(admitted.is_some(), "all of it, in one pull");
    assert!(reader.replica().net.lock().await.inbox.held.is_empty());
    assert_eq!(reader.digest(), vault.fresh_digest().await);
}

/// Whoever had it before they came has admitted it, and whoever comes later has to.
#[tokio::test]
async fn commits_that_wait_keep_no_other_branch_of_their_lane_away() {
    let (vault, _a, reader) = with_history(956, false).await;
    let mut liar = Liar::new(1, 0);
    let first = liar.say(&vault, Lie::default()).await;
    let nobodys = Head {
        hash: Hash32([9; 32]),
        ..first
    };
    for lane in [7, 8] {
        // Two branches that wait, of which one is long, and lie lower than what goes on.
        (liar.last, liar.lamport) = (Some(first), 1);
        let lane = LaneId([lane; 16]);
        liar.name(&vault, vec![Head { lane, ..nobodys }]).await;
        for _ in 0..KEPT_WAITING + 4 {
            liar.say(&vault, Lie::default()).await;
        }
    }
    reader.replica().pull().await.unwrap();
    (liar.last, liar.lamport) = (Some(first), 1);
    let mut last = first;
    for _ in 0..KEPT_WAITING + 8 {
        last = liar.say(&vault, Lie::default()).await;
    }
    reader.replica().pull().await.unwrap();
    let admitted = reader.replica().core.lock().graph.admitted(&last);
    assert_eq!(admitted, Some(liar.lamport));
}

fn invented(n: u8) -> Verdict {
    Verdict {
        opinion: Opinion::Propose,
        checkpoint: CheckpointRef {
            name: [n; 16],
            hash: Hash32([n; 32]),
            floor: 1,
        },
        digest: Hash32::default(),
    }
}

fn gets(device: &Device) -> u64 {
    device.counters.counts().gets
}

#[tokio::test]
async fn roots_that_nobody_put_are_asked_for_ever_more_seldom_and_keep_no_other_from_its_turn() {
    let (vault, mut a, reader) = with_history(954, false).await;
    let mut rng = Rng(954);
    let mut liar = Liar::new(1, 0);
    let heads = vec![*opened(&vault).last().unwrap().head()];
    liar.name(&vault, heads).await;
    liar.give(&vault, (0..48).map(invented).collect()).await;
    reader.replica().pull().await.unwrap();
    let mut asked = Vec::new();
    for _ in 0..2 {
        let before = gets(&reader);
        for _ in 0..60 {
            vault.clock.advance(60_000_000_000);
            reader.replica().pull().await.unwrap();
        }
        asked.push(gets(&reader) - before);
    }
    assert!(asked[0] <= 16 * 60 && asked[1] <= 4 * 48, "{asked:?}");
    // One that is there, and another by its name, which is tried first.
    a.act(&mut rng);
    let heads = vec![a.publish().await.unwrap().head.unwrap()];
    liar.name(&vault, heads).await;
    a.replica().pull().await.unwrap();
    assert!(a.replica().checkpoint().await.unwrap());
    a.act(&mut rng);
    a.publish().await.unwrap();
    let made = a.replica().status().checkpoint.unwrap();
    let checkpoint = CheckpointRef {
        hash: Hash32::default(),
        ..made
    };
    let twin = Verdict {
        checkpoint,
        ..invented(0)
    };
    liar.give(&vault, vec![twin]).await;
    reader.replica().pull().await.unwrap();
    assert_eq!(reader.replica().status().checkpoint, Some(made));
}

#[tokio::test]
async fn roots_that_only_a_removed_device_proposed_are_asked_for_no_more() {
    let (vault, _a, mut reader) = with_history(955, false).await;
    let mut liar = Liar::new(1, 0);
    let heads = vec![*opened(&vault).last().unwrap().head()];
    liar.name(&vault, heads).await;
    liar.give(&vault, (0..8).map(invented).collect()).await;
    reader.replica().pull().await.unwrap();
    let mut records = Records::new();
    records.end(vault.world.device(1), Cut::default());
    tell(&mut reader, &vault, &records).await;
    reader.replica().pull().await.unwrap();
    let before = gets(&reader);
    vault.clock.advance(120_000_000_000);
    reader.replica().pull().await.unwrap();
    assert_eq!(gets(&reader), before);
}
