use super::*;
use crate::testing::{World, an_op};
use proptest::prelude::*;
use skrin_crypto::OpenError;

fn sample(world: &World) -> Commit {
    let mut commit = world.first_commit(0);
    commit.heads = vec![Head {
        lane: LaneId([7; 16]),
        seq: 3,
        hash: Hash32([8; 32]),
    }];
    commit.lamport = 44;
    commit.decided = Decided {
        below: 9,
        abandoned: vec![2, 5],
    };
    let checkpoint = CheckpointRef {
        name: [1; 16],
        hash: Hash32([2; 32]),
        floor: 40,
    };
    commit.standing = Some(checkpoint);
    commit.verdicts = vec![Verdict {
        opinion: Opinion::Confirm,
        checkpoint,
        digest: Hash32([3; 32]),
    }];
    commit.ops = vec![
        an_op(world.device(0), 1, b"name"),
        an_op(world.device(0), 5, b"other"),
    ];
    commit
}

fn reseal(world: &World, change: impl FnOnce(&mut Commit)) -> Fault {
    let mut commit = sample(world);
    change(&mut commit);
    let sealed = seal_commit(&commit, &world.keys, world.signer(0), &world.entropy).unwrap();
    open_commit(&sealed.head, &sealed.bytes, &world.keys, &world.roster()).unwrap_err()
}

#[test]
fn a_sealed_commit_opens_to_what_was_sealed() {
    let world = World::new(1);
    let commit = sample(&world);
    let sealed = seal_commit(&commit, &world.keys, world.signer(0), &world.entropy).unwrap();
    assert_eq!(sealed.bytes.len() - 13, 1024, "padded to a power of two");
    let opened = open_commit(&sealed.head, &sealed.bytes, &world.keys, &world.roster()).unwrap();
    assert_eq!(**opened.commit(), commit);
}

#[test]
fn a_flipped_byte_in_any_region_is_refused_with_its_reason() {
    let world = World::new(2);
    let sealed = seal_commit(
        &sample(&world),
        &world.keys,
        world.signer(0),
        &world.entropy,
    )
    .unwrap();
    for at in [0, 3, 4, 5, 12, 13, 24, 25, 500, sealed.bytes.len() - 1] {
        let mut bytes = sealed.bytes.to_vec();
        bytes[at] ^= 1;
        let opened = open_commit(&sealed.head, &bytes, &world.keys, &world.roster());
        let expected = match at {
            0..4 => Fault::Magic,
            4 => Fault::Version(0),
            5..13 => Fault::UnknownEpoch,
            _ => Fault::Open(OpenError::Tag),
        };
        let fault = opened.unwrap_err();
        assert_eq!(fault, expected, "at {at}");
        assert!(fault.is_of_the_bytes(), "the right ones may still come");
    }
}

#[test]
fn the_same_content_in_another_seal_is_the_same_commit_and_has_no_other_name() {
    let world = World::new(9);
    let sealed = seal_commit(
        &sample(&world),
        &world.keys,
        world.signer(0),
        &world.entropy,
    )
    .unwrap();
    let again = world.seal_again(&sealed.head, &sealed.bytes);
    let opened = open_commit(&sealed.head, &again, &world.keys, &world.roster()).unwrap();
    assert_eq!(**opened.commit(), sample(&world));
    for hash in [
        skrin_crypto::hash(&again),
        skrin_crypto::hash(&sealed.bytes),
    ] {
        let other = Head {
            hash,
            ..sealed.head
        };
        let opened = open_commit(&other, &again, &world.keys, &world.roster());
        assert_eq!(opened.unwrap_err(), Fault::Name);
    }
}

#[test]
fn a_commit_is_bound_to_its_lane_and_number() {
    let world = World::new(3);
    let sealed = seal_commit(
        &sample(&world),
        &world.keys,
        world.signer(0),
        &world.entropy,
    )
    .unwrap();
    let elsewhere = Head {
        seq: 1,
        ..sealed.head
    };
    let result = open_commit(&elsewhere, &sealed.bytes, &world.keys, &world.roster());
    assert_eq!(result.unwrap_err(), Fault::Open(OpenError::Tag));
    let elsewhere = Head {
        lane: LaneId([9; 16]),
        ..sealed.head
    };
    let result = open_commit(&elsewhere, &sealed.bytes, &world.keys, &world.roster());
    assert_eq!(result.unwrap_err(), Fault::UnknownEpoch);
}

#[test]
fn a_signer_who_lies_about_his_place_is_refused() {
    let world = World::new(4);
    assert_eq!(
        reseal(&world, |c| c.vault = VaultId([9; 16])),
        Fault::Place("vault")
    );
    assert_eq!(
        reseal(&world, |c| c.room = RoomId([9; 16])),
        Fault::Place("room")
    );
    assert_eq!(reseal(&world, |c| c.prev = Hash32([9; 32])), Fault::Chain);
    assert_eq!(
        reseal(&world, |c| c.commitment = EpochCommitment([9; 32])),
        Fault::Epoch(world.keys.current().0)
    );
    let device = world.device(0);
    assert_eq!(reseal(&world, |c| c.incarnation = 1), Fault::Lane(device));
    assert_eq!(
        reseal(&world, |c| c.device = DeviceId([9; 16])),
        Fault::UnknownDevice(DeviceId([9; 16]))
    );
    let own = |c: &Commit| Head {
        lane: c.lane,
        seq: 0,
        hash: Hash32([1; 32]),
    };
    assert_eq!(reseal(&world, |c| c.heads = vec![own(c)]), Fault::Chain);
    assert_eq!(
        reseal(&world, |c| c.closes = vec![own(c)]),
        Fault::Place("end of its own lane")
    );
    let other = world.device(1);
    let forged = reseal(&world, |c| c.device = other);
    assert!(matches!(forged, Fault::Signature { device, .. } if device == other));
}

#[test]
fn unknown_critical_features_are_refused_and_optional_ones_kept() {
    let world = World::new(5);
    let mut commit = sample(&world);
    commit.optional = 0x8000_0001;
    let bytes = commit.to_bytes();
    assert_eq!(Commit::from_bytes(&bytes).unwrap(), commit);
    let mut critical = bytes;
    critical[0] = 4;
    let refused = Fault::from(Commit::from_bytes(&critical).unwrap_err());
    assert!(refused.is_newer());
}

#[test]
fn lists_out_of_order_are_refused() {
    let world = World::new(6);
    let head = |n: u8| Head {
        lane: LaneId([n; 16]),
        seq: 0,
        hash: Hash32([n; 32]),
    };
    for heads in [vec![head(2), head(1)], vec![head(1), head(1)]] {
        assert!(matches!(
            reseal(&world, |c| c.heads = heads),
            Fault::Wire(WireError::Value(_))
        ));
    }
    let twice = vec![Hash32([1; 32]); 2];
    assert!(matches!(
        reseal(&world, |c| c.control = twice),
        Fault::Wire(_)
    ));
    assert!(matches!(
        reseal(&world, |c| c.decided.abandoned = vec![9]),
        Fault::Wire(_)
    ));
}

#[test]
fn what_does_not_fit_is_refused_when_it_is_made() {
    let world = World::new(7);
    let mut commit = sample(&world);
    let long = crate::OpKind::Unknown {
        tag: 0x80,
        body: vec![0; 4 << 20],
    };
    commit.ops = vec![
        Op {
            kind: long,
            ..an_op(world.device(0), 1, b"x")
        };
        5
    ];
    let result = seal_commit(&commit, &world.keys, world.signer(0), &world.entropy);
    assert!(matches!(result, Err(Fault::TooLong(_))));
}

proptest! {
    #[test]
    fn any_bytes_decode_canonically_or_not_at_all(bytes: Vec<u8>, flips in prop::collection::vec((0usize..900, any::<u8>()), 0..4)) {
        let _ = Commit::from_bytes(&bytes);
        let mut changed = sample(&World::new(8)).to_bytes();
        for (at, with) in flips {
            let at = at % changed.len();
            changed[at] ^= with;
        }
        if let Ok(commit) = Commit::from_bytes(&changed) {
            prop_assert_eq!(commit.to_bytes(), changed);
        }
    }
}
