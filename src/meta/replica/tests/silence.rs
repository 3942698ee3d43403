//! Lanes of devices that say nothing any more are closed by others; who comes back has lost nothing.

use super::*;

const DAY: u64 = 86_400_000_000_000;

async fn say(device: &mut Device, rng: &mut Rng) {
    device.act(rng);
    device.publish().await.unwrap();
}

fn is_open(at: &Device, lane: LaneId) -> bool {
    let status = at.replica().status();
    status.lanes.iter().any(|l| l.lane == lane && l.open)
}

#[tokio::test]
async fn the_lane_of_a_device_that_is_silent_for_a_week_is_closed_and_what_it_did_meanwhile_is_published_in_another()
 {
    let vault = Vault::new(71);
    let mut rng = Rng(71);
    let mut devices = [vault.open(0).await, vault.open(1).await];
    say(&mut devices[0], &mut rng).await;
    let silent = devices[0].replica().own_lane().await;
    devices[0].act(&mut rng);
    say(&mut devices[1], &mut rng).await;
    let held = devices[1].replica().status().floor;
    devices[1].replica().pull().await.unwrap();
    vault.clock.advance(6 * DAY);
    say(&mut devices[1], &mut rng).await;
    assert!(is_open(&devices[1], silent));
    assert_eq!(devices[1].replica().status().floor, held);

    // Also across a restart.
    devices[1].open(&vault).await.unwrap();
    vault.clock.advance(DAY + 1);
    say(&mut devices[1], &mut rng).await;
    assert!(!is_open(&devices[1], silent));
    say(&mut devices[1], &mut rng).await;
    assert!(devices[1].replica().status().floor > held);

    settle(&vault, &mut devices).await;
    assert_converged(&devices, 71);
    let second = devices[0].replica().own_lane().await;
    assert_ne!(second, silent);
    assert!(is_open(&devices[1], second));
    assert_eq!(vault.fresh_digest().await, devices[0].digest());
}

#[tokio::test]
async fn a_lane_for_which_nobody_waits_and_one_that_answers_stay_open() {
    let vault = Vault::new(72);
    let mut rng = Rng(72);
    let mut devices = [vault.open(0).await, vault.open(1).await];
    say(&mut devices[0], &mut rng).await;
    let lane = devices[0].replica().own_lane().await;
    devices[1].replica().pull().await.unwrap();
    // Nothing happens for a month.
    vault.clock.advance(30 * DAY);
    say(&mut devices[1], &mut rng).await;
    devices[1].replica().pull().await.unwrap();
    assert!(is_open(&devices[1], lane));
    let answer = Settled {
        heads: true,
        ..Settled::default()
    };
    for _ in 0..10 {
        vault.clock.advance(5 * DAY);
        let answered = devices[0].replica().publish(0, Vec::new(), answer).await;
        answered.unwrap();
        say(&mut devices[1], &mut rng).await;
        assert!(is_open(&devices[1], lane));
    }
}

#[tokio::test]
async fn a_device_whose_clock_is_years_ahead_closes_nothing_that_answers() {
    let vault = Vault::new(73);
    let mut rng = Rng(73);
    let mut devices = [vault.open(0).await, vault.open(1).await];
    say(&mut devices[0], &mut rng).await;
    let lane = devices[0].replica().own_lane().await;
    let mut ahead = vault.device(2);
    let mut config = vault.config(&ahead, ahead.dir.path());
    let clock = Arc::new(ManualClock::default());
    clock.advance(5 * 365 * DAY);
    config.clock = clock.clone();
    ahead.replica = Some(Replica::open(config).await.unwrap());
    for _ in 0..10 {
        say(&mut ahead, &mut rng).await;
        clock.advance(DAY);
        say(&mut devices[0], &mut rng).await;
        say(&mut devices[1], &mut rng).await;
    }
    assert!(is_open(&devices[1], lane));
}

#[tokio::test]
async fn who_collects_without_a_lane_of_his_own_opens_one_to_close_those_that_are_silent() {
    let vault = Vault::new(74);
    let mut rng = Rng(74);
    let mut devices = [vault.open(0).await, vault.open(1).await];
    say(&mut devices[0], &mut rng).await;
    say(&mut devices[1], &mut rng).await;
    let (first, second) = (
        devices[0].replica().own_lane().await,
        devices[1].replica().own_lane().await,
    );
    let reader = vault.open(2).await;
    reader.replica().pull().await.unwrap();
    vault.clock.advance(8 * DAY);
    let look = Settled {
        heads: true,
        ..Settled::default()
    };
    let published = reader.replica().publish(0, Vec::new(), look).await.unwrap();
    assert_eq!(published.commits, 1);
    // The second names the first, and so waits for nobody.
    assert!(!is_open(&reader, first));
    assert!(is_open(&reader, second));
    let again = reader.replica().publish(0, Vec::new(), look).await.unwrap();
    assert_eq!(again.commits, 1);
}

#[tokio::test]
async fn a_device_whose_lane_has_ended_opens_one_to_release_a_checkpoint_when_it_collects_and_only_once()
 {
    let vault = Vault::new(75);
    let mut rng = Rng(75);
    let mut devices = [vault.open(0).await, vault.open(1).await];
    say(&mut devices[0], &mut rng).await;
    let closing = devices[0].replica().close_lane(Settled::default());
    closing.await.unwrap();
    say(&mut devices[1], &mut rng).await;
    assert!(devices[1].replica().checkpoint().await.unwrap());
    say(&mut devices[1], &mut rng).await;
    devices[0].replica().pull().await.unwrap();
    for commits in [1, 0] {
        let release = devices[0].replica().tree().releasable();
        assert_eq!(release.is_some(), commits == 1);
        assert!(commits == 0 || !devices[0].replica().tree().is_waited_for());
        let collect = Settled {
            heads: commits == 1,
            release,
            ..Settled::default()
        };
        let published = devices[0].replica().publish(0, Vec::new(), collect).await;
        assert_eq!(published.unwrap().commits, commits);
    }
    let stranger = vault.open(2).await;
    let release = stranger.replica().tree().releasable();
    let collect = Settled {
        heads: true,
        release,
        ..Settled::default()
    };
    let published = stranger.replica().publish(0, Vec::new(), collect).await;
    assert_eq!(published.unwrap().commits, 0, "it never published anything");
}

#[tokio::test]
async fn a_device_that_was_taken_for_gone_says_that_it_is_not_also_after_a_restart() {
    let vault = Vault::new(76);
    let mut rng = Rng(76);
    let mut devices = [vault.open(0).await, vault.open(1).await];
    say(&mut devices[0], &mut rng).await;
    say(&mut devices[1], &mut rng).await;
    devices[1].replica().pull().await.unwrap();
    let silent = devices[0].replica().own_lane().await;
    vault.clock.advance(8 * DAY);
    say(&mut devices[1], &mut rng).await;
    assert!(!is_open(&devices[1], silent));
    for again in [false, true] {
        if again {
            devices[0].open(&vault).await.unwrap();
        }
        devices[0].replica().pull().await.unwrap();
        assert!(devices[0].replica().tree().is_waited_for());
    }
    let look = Settled {
        heads: true,
        ..Settled::default()
    };
    let published = devices[0].replica().publish(0, Vec::new(), look).await;
    assert_eq!(published.unwrap().commits, 1);
    devices[1].replica().pull().await.unwrap();
    assert!(is_open(&devices[1], devices[0].replica().own_lane().await));
    // Whoever ends his lane himself is not asked for another.
    let closing = devices[0].replica().close_lane(Settled::default());
    closing.await.unwrap();
    devices[0].open(&vault).await.unwrap();
    assert!(!devices[0].replica().tree().is_waited_for());
    assert_converged(&devices, 76);
}

/// A clock that somebody sets.
struct Wall(Arc<ManualClock>, std::sync::atomic::AtomicU64);

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        let ahead = self.1.load(std::sync::atomic::Ordering::SeqCst);
        Timestamp(self.0.now().0 + ahead as i64)
    }
    fn monotonic(&self) -> u64 {
        self.0.monotonic()
    }
}

#[tokio::test]
async fn a_clock_that_is_put_forward_by_months_closes_no_lane() {
    let vault = Vault::new(75);
    let mut rng = Rng(75);
    let mut first = vault.open(0).await;
    say(&mut first, &mut rng).await;
    let lane = first.replica().own_lane().await;
    let wall = Arc::new(Wall(vault.clock.clone(), 0.into()));
    let mut second = vault.device(1);
    let mut config = vault.config(&second, second.dir.path());
    config.clock = wall.clone();
    second.replica = Some(Replica::open(config).await.unwrap());
    say(&mut second, &mut rng).await;
    second.replica().pull().await.unwrap();
    wall.1.store(100 * DAY, std::sync::atomic::Ordering::SeqCst);
    say(&mut second, &mut rng).await;
    assert!(is_open(&second, lane));
    // A day of them counts.
    vault.clock.advance(6 * DAY - 1);
    say(&mut second, &mut rng).await;
    assert!(is_open(&second, lane));
    vault.clock.advance(DAY);
    say(&mut second, &mut rng).await;
    assert!(!is_open(&second, lane));
}

#[tokio::test]
async fn a_device_that_was_restarted_knows_who_is_waited_for() {
    let vault = Vault::new(76);
    let mut rng = Rng(76);
    let mut devices = [vault.open(0).await, vault.open(1).await];
    say(&mut devices[0], &mut rng).await;
    devices[1].replica().pull().await.unwrap();
    say(&mut devices[1], &mut rng).await;
    say(&mut devices[0], &mut rng).await;
    devices[1].replica().pull().await.unwrap();
    let holds = |device: &Device| device.replica().tree().is_waited_for();
    assert!(holds(&devices[1]));
    devices[1].replica().flush().unwrap();
    devices[1].open(&vault).await.unwrap();
    assert!(holds(&devices[1]), "after a restart");
}
