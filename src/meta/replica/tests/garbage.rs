//! What commits say of segments, and which of these may be deleted.

use super::*;
use crate::commit::Decided;
use skrin_base::SegmentInfo;

fn segment_of(vault: &Vault, author: LaneId, number: u64) -> SegmentInfo {
    SegmentInfo {
        id: vault.world.keys.segment_id(author, number),
        author,
        number,
        object_len: 262_144,
        table_offset: 262_000,
        table_hash: Hash32([6; 32]),
        table_key: [6; 32],
        slots: 64,
    }
}

fn settled(lane: LaneId, below: u64) -> Settled {
    Settled {
        numbers: Some((lane, below)),
    }
}

/// What the newest commit of a lane of the device says.
fn said(vault: &Vault, device: &Device, lane: LaneId) -> Decided {
    let own = device.replica().commits.list().unwrap();
    let tip = own.into_iter().rfind(|head| head.lane == lane).unwrap();
    let name = RoomNames(vault.world.keys.room()).commit(&tip).unwrap();
    let bytes = vault.store.peek(&name).unwrap();
    let (keys, roster) = (&vault.world.keys, vault.world.roster());
    let checked = crate::commit::open_commit(&tip, &bytes, keys, &roster).unwrap();
    checked.commit().decided.clone()
}

async fn publish(device: &Device, settled: Settled) {
    let published = device.replica().publish(u64::MAX, Vec::new(), settled);
    published.await.unwrap();
}

#[tokio::test]
async fn commits_decide_numbers_once_and_name_those_that_were_given_up() {
    let vault = Vault::new(70);
    let mut rng = Rng(70);
    let mut device = vault.open(0).await;
    let lane = device.replica().own_lane().await;
    let declared = segment_of(&vault, lane, 1);
    device.replica().core.lock().redeclare.push(declared);
    publish(&device, settled(lane, 3)).await;
    let expect = |below, abandoned: &[u64]| Decided {
        below,
        abandoned: abandoned.to_vec(),
    };
    assert_eq!(said(&vault, &device, lane), expect(3, &[0, 2]));
    device.act(&mut rng);
    publish(&device, settled(lane, 5)).await;
    assert_eq!(said(&vault, &device, lane), expect(5, &[3, 4]));
    // Who knows less for a while takes nothing back, before a restart or after.
    device.open(&vault).await.unwrap();
    for (known, below) in [(2, 5), (6, 6)] {
        device.act(&mut rng);
        publish(&device, settled(lane, known)).await;
        let given_up: Vec<u64> = (5..below).collect();
        assert_eq!(said(&vault, &device, lane), expect(below, &given_up));
    }
}

#[tokio::test]
async fn numbers_of_another_lane_decide_nothing() {
    let vault = Vault::new(71);
    let mut rng = Rng(71);
    let mut device = vault.open(0).await;
    let lane = device.replica().own_lane().await;
    device.act(&mut rng);
    publish(&device, settled(LaneId([9; 16]), 3)).await;
    assert_eq!(said(&vault, &device, lane), Decided::default());
    publish(&device, settled(lane, 3)).await;
    device.replica().close_lane(settled(lane, 3)).await.unwrap();
    assert_eq!(said(&vault, &device, lane).below, 3);
    // The next lane begins anew.
    device.act(&mut rng);
    publish(&device, settled(lane, 3)).await;
    let next = device.replica().own_lane().await;
    assert_ne!(next, lane);
    assert_eq!(said(&vault, &device, next), Decided::default());
}

#[tokio::test]
async fn a_number_that_only_void_commits_declare_is_not_decided() {
    let vault = Vault::new(72);
    let mut rng = Rng(72);
    let mut device = vault.open(0).await;
    let lane = device.replica().own_lane().await;
    device.act(&mut rng);
    publish(&device, settled(lane, 1)).await;
    let void = segment_of(&vault, lane, 4);
    device.replica().core.lock().redeclare.push(void);
    // A commit that closes the lane declares nothing again.
    device.replica().close_lane(settled(lane, 9)).await.unwrap();
    let decided = said(&vault, &device, lane);
    assert_eq!((decided.below, decided.abandoned), (4, vec![1, 2, 3]));
}
