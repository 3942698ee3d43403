//! Roots that lie about the commits that they name, and commits that lie to who began with a checkpoint.

use super::*;

/// Who folds everything knows the time of what it follows, and who began with the checkpoint once took it for 0.
#[tokio::test]
async fn a_commit_beside_one_that_a_checkpoint_holds_is_refused_for_its_time_by_who_began_with_that()
 {
    let (vault, mut a, reader) = with_history(950, false).await;
    let mut rng = Rng(950);
    let mut liar = Liar::new(1, 0);
    let mut told = Vec::new();
    for _ in 0..5 {
        a.act(&mut rng);
        let heads = vec![a.publish().await.unwrap().head.unwrap()];
        told.push(liar.name(&vault, heads).await);
    }
    for _ in 0..2 {
        a.act(&mut rng);
        a.publish().await.unwrap();
        assert!(a.replica().checkpoint().await.is_ok());
    }
    a.act(&mut rng);
    a.publish().await.unwrap();
    let began = vault.open(3).await;
    let ends = began.replica().core.lock().graph.ends_of(told[0].lane);
    let end = told.iter().position(|head| ends == [*head]).unwrap();
    assert!(began.replica().core.lock().graph.is_below(&told[end - 1]));
    liar.last = Some(told[end - 1]);
    let lie = Lie {
        ops: vec![an_op(vault.world.device(1), 1, b"beside")],
        lamport: Some(1),
        ..Lie::default()
    };
    let beside = liar.say(&vault, lie).await;
    let mut devices = vec![a, reader, began];
    for device in &mut devices {
        device.replica().pull().await.unwrap();
        device.act(&mut rng);
        device.publish().await.unwrap();
    }
    settle(&vault, &mut devices).await;
    assert_converged(&devices, 950);
    for device in &devices {
        let folded = device.replica().core.lock().graph.admitted(&beside);
        assert_eq!(folded, None);
    }
    assert_eq!(vault.fresh_digest().await, devices[0].digest());
}

/// Who begins with it would refuse what others say that follows it.
#[tokio::test]
async fn a_checkpoint_that_says_another_time_of_a_commit_is_refuted_and_nobody_begins_with_it() {
    for said in [3, 11] {
        let (vault, a, reader) = with_history(951, false).await;
        let before = a.digest();
        let all = opened(&vault);
        let last = all.last().unwrap();
        let mut liar = Liar::new(1, 0);
        liar.name(&vault, vec![*last.head()]).await;
        assert!(said < last.commit().lamport);
        let end = CoveredLane {
            lamport: said,
            ..end_of(last)
        };
        let floor = last.commit().lamport;
        let verdicts = vec![put_checkpoint(&vault, 1, floor, None, vec![end]).await];
        liar.give(&vault, verdicts).await;
        // Before anybody has said what is wrong with it.
        let fresh = vault.open(3).await;
        assert_eq!(fresh.digest(), before);
        assert_repelled(&vault, vec![a, reader], None, before).await;
    }
}

#[tokio::test]
async fn a_checkpoint_that_says_of_a_lane_what_cannot_be_is_none() {
    for (time, incarnation) in [(Some(1 << 40), 0), (None, 7)] {
        let (vault, mut a, reader) = with_history(952, false).await;
        let mut rng = Rng(952);
        let before = a.digest();
        let all = opened(&vault);
        let last = all.last().unwrap();
        let mut liar = Liar::new(1, 0);
        liar.name(&vault, vec![*last.head()]).await;
        let end = CoveredLane {
            lamport: time.unwrap_or(last.commit().lamport),
            incarnation,
            ..end_of(last)
        };
        let floor = last.commit().lamport;
        let verdicts = vec![put_checkpoint(&vault, 1, floor, None, vec![end]).await];
        liar.give(&vault, verdicts).await;
        for device in [&a, &reader] {
            device.replica().pull().await.unwrap();
            assert_eq!(device.digest(), before);
            assert_eq!(device.replica().status().checkpoint, None);
            assert!(device.kinds().contains(&FindingKind::Integrity));
        }
        a.act(&mut rng);
        a.publish().await.unwrap();
        let fresh = vault.open(3).await;
        assert_eq!(fresh.digest(), a.digest());
        assert_eq!(fresh.replica().status().checkpoint, None);
    }
}

/// Before anybody has refuted it: the lie is seen by what follows the end, also when that was looked up for something else.
#[tokio::test]
async fn who_began_with_a_root_that_lies_of_a_time_takes_in_what_honest_ones_write_after_it() {
    let (vault, mut a, _) = with_history(953, false).await;
    let mut rng = Rng(953);
    let all = opened(&vault);
    let last = all.last().unwrap();
    let mut liar = Liar::new(1, 0);
    let end = CoveredLane {
        lamport: 3,
        ..end_of(last)
    };
    let verdicts = vec![put_checkpoint(&vault, 1, 3, None, vec![end]).await];
    let lie = Lie {
        heads: vec![*last.head()],
        lamport: Some(4),
        verdicts,
        ..Lie::default()
    };
    liar.say(&vault, lie).await;
    let mut fresh = vault.open(3).await;
    for _ in 0..2 {
        a.act(&mut rng);
        a.publish().await.unwrap();
        fresh.replica().pull().await.unwrap();
        fresh.act(&mut rng);
        fresh.publish().await.unwrap();
        a.replica().pull().await.unwrap();
        assert_eq!(fresh.digest(), a.digest());
    }
}
