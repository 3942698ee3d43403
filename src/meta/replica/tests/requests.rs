//! What it costs, in requests.

use super::*;

#[tokio::test]
async fn a_poll_with_nothing_new_is_one_request() {
    let vault = Vault::new(1);
    let mut rng = Rng(1);
    let mut devices = [vault.open(0).await, vault.open(1).await];
    for round in 0..3 {
        devices[round % 2].act(&mut rng);
        settle(&vault, &mut devices).await;
    }
    let before = devices[0].counters.counts();
    devices[0].replica().pull().await.unwrap();
    let poll = devices[0].counters.counts().since(&before);
    assert_eq!((poll.operations(), poll.lists), (1, 1));
}

#[tokio::test]
async fn publishing_a_small_batch_is_five_requests() {
    let vault = Vault::new(2);
    let mut rng = Rng(2);
    let mut device = vault.open(0).await;
    device.act(&mut rng);
    device.publish().await.unwrap();
    for _ in 0..3 {
        (0..20).for_each(|_| device.act(&mut rng));
        let before = device.counters.counts();
        assert_eq!(device.publish().await.unwrap().commits, 1);
        let cost = device.counters.counts().since(&before);
        // List the tips; put the commit, read it back, put its tip, delete the tip before.
        assert_eq!(
            (cost.lists, cost.puts, cost.gets, cost.ranges, cost.deletes),
            (1, 2, 1, 0, 1)
        );
    }
}

#[tokio::test]
async fn taking_in_one_commit_is_two_requests() {
    let vault = Vault::new(3);
    let mut rng = Rng(3);
    let (mut one, two) = (vault.open(0).await, vault.open(1).await);
    one.act(&mut rng);
    one.publish().await.unwrap();
    let before = two.counters.counts();
    let diff = two.replica().pull().await.unwrap();
    assert_eq!(diff.commits, 1);
    assert!(!diff.entries.is_empty() && !diff.inodes.is_empty());
    let cost = two.counters.counts().since(&before);
    assert_eq!((cost.operations(), cost.lists, cost.gets), (2, 1, 1));
}

#[tokio::test]
async fn opening_with_a_cache_and_nothing_new_is_one_request() {
    let vault = Vault::new(4);
    let mut rng = Rng(4);
    let mut device = vault.open(0).await;
    device.act(&mut rng);
    device.publish().await.unwrap();
    device
        .replica()
        .close_lane(Settled::default())
        .await
        .unwrap();
    device.replica().flush().unwrap();
    let before = device.counters.counts();
    device.open(&vault).await.unwrap();
    let cost = device.counters.counts().since(&before);
    assert_eq!((cost.operations(), cost.lists), (1, 1));
}

#[tokio::test]
async fn a_long_lane_is_listed_and_got_many_at_once() {
    let vault = Vault::new(6);
    let mut rng = Rng(6);
    let mut device = vault.open(0).await;
    for _ in 0..40 {
        device.act(&mut rng);
        device.publish().await.unwrap();
    }
    let fresh = vault.open(1).await;
    assert_eq!(fresh.digest(), device.digest());
    let cost = fresh.counters.counts();
    // The tips, then the lane's directory; every commit once.
    assert_eq!((cost.lists, cost.gets), (2, 40));
}

#[tokio::test]
async fn a_large_batch_is_cut_into_commits_of_at_most_a_mebibyte() {
    let vault = Vault::new(5);
    let device = vault.open(0).await;
    {
        let mut tree = device.replica().tree();
        for _ in 0..600 {
            let id = tree.next_op_id().unwrap();
            let kind = crate::OpKind::Unknown {
                tag: 0x80,
                body: vec![1; 4096],
            };
            tree.execute(Op {
                kind,
                ..crate::testing::an_op(id.device, id.counter, b"x")
            })
            .unwrap();
        }
    }
    let published = device.publish().await.unwrap();
    assert_eq!(published.commits, 3);
    let commits = vault
        .store
        .names()
        .into_iter()
        .filter(|name| name.as_str().contains("/lanes/"));
    let sizes: Vec<usize> = commits
        .map(|name| vault.store.peek(&name).unwrap().len() - 13)
        .collect();
    assert!(
        sizes
            .iter()
            .all(|size| *size <= 1 << 20 && size.is_power_of_two()),
        "{sizes:?}"
    );
    assert_eq!(device.pending(), 0);
}
