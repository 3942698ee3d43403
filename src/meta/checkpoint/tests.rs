use super::*;
use crate::commit::CheckpointRef;
use crate::testing::World;
use proptest::prelude::*;
use skrin_base::limits::PAGE_LEN;
use skrin_base::wire::{Decode, Encode};
use skrin_base::{Timestamp, VaultId};
use skrin_crypto::hash;
use std::collections::BTreeMap;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn paginate(rows: &Map) -> Vec<PageContent> {
    let mut paginator = Paginator::default();
    let mut pages: Vec<PageContent> = Vec::new();
    for (key, value) in rows {
        pages.extend(paginator.row(key, value));
    }
    pages.extend(paginator.finish());
    pages
}

fn assemble(pages: &[PageContent]) -> Result<(Map, u64), CheckpointFault> {
    let mut assembler = RowAssembler::default();
    let mut rows = BTreeMap::new();
    for page in pages {
        for (key, value) in assembler.page(&page.bytes)? {
            rows.insert(key.to_vec(), value.to_vec());
        }
    }
    Ok((rows, assembler.finish()?.0))
}

fn many_rows(n: u32, value_len: usize) -> Map {
    let row = |i: u32| {
        (
            format!("E{i:08}").into_bytes(),
            vec![i as u8; value_len + (i % 50) as usize],
        )
    };
    (0..n).map(row).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rows_cut_into_pages_are_the_same_rows(sizes in prop::collection::vec((any::<u32>(), prop_oneof![
        8 => 0usize..400, 1 => PAGE_CAPACITY - 40..PAGE_CAPACITY + 40, 1 => Just(3 * PAGE_CAPACITY)]), 0..60)) {
        let rows: BTreeMap<Vec<u8>, Vec<u8>> = sizes
            .iter()
            .map(|(key, len)| (key.to_be_bytes().to_vec(), vec![*key as u8; *len]))
            .collect();
        let pages = paginate(&rows);
        prop_assert!(pages.iter().all(|page| page.bytes.len() <= PAGE_CAPACITY + 4));
        let (back, count) = assemble(&pages).unwrap();
        prop_assert_eq!(count, rows.len() as u64);
        prop_assert_eq!(back, rows);
    }

    #[test]
    fn any_bytes_are_rows_or_an_error(bytes: Vec<u8>) {
        let _ = RowAssembler::default().page(&bytes);
        let _ = Root::from_bytes(&bytes);
    }
}

#[test]
fn a_change_leaves_nearly_all_pages_as_they_were() {
    let before = many_rows(40_000, 100);
    let pages = paginate(&before);
    let mut after = before.clone();
    after.insert(b"E00020000x".to_vec(), vec![1; 300]);
    after.remove(b"E00000005".as_slice());
    let known: std::collections::HashSet<_> = pages.iter().map(PageContent::plain_hash).collect();
    let changed = paginate(&after);
    let new = changed
        .iter()
        .filter(|page| !known.contains(&page.plain_hash()))
        .count();
    assert!(pages.len() > 15, "{}", pages.len());
    assert!(new <= 6, "{new} of {} pages changed", changed.len());
    let fill: usize = pages.iter().map(|page| page.bytes.len()).sum::<usize>() / pages.len();
    assert!(fill > PAGE_CAPACITY * 6 / 10, "average fill {fill}");
}

fn page_ref(world: &World, content: &PageContent, name: [u8; 16]) -> (PageRef, Vec<u8>) {
    let (epoch, _) = world.keys.current();
    let sealed = seal_page(content, name, &epoch, &world.keys, &world.entropy).unwrap();
    let reference = PageRef {
        name,
        hash: hash(&sealed),
        plain_hash: content.plain_hash(),
        first_key: content.first_key.clone(),
    };
    (reference, sealed)
}

#[test]
fn a_page_has_one_length_and_refuses_every_flipped_byte() {
    let world = World::new(1);
    let (epoch, _) = world.keys.current();
    let content = paginate(&many_rows(20, 10)).remove(0);
    let (reference, sealed) = page_ref(&world, &content, [3; 16]);
    assert_eq!(sealed.len(), PAGE_LEN);
    let opened = open_page(&sealed, &reference, &epoch, &world.keys).unwrap();
    assert_eq!(opened, content.bytes);
    for at in [0, 4, 5, 16, 17, 1000, PAGE_LEN - 1] {
        let mut bytes = sealed.clone();
        bytes[at] ^= 1;
        let refused =
            |expected: &PageRef| open_page(&bytes, expected, &epoch, &world.keys).unwrap_err();
        assert_eq!(refused(&reference), CheckpointFault::Hash);
        // A forger who controls the root's hash still meets the seal.
        let forged = PageRef {
            hash: hash(&bytes),
            ..reference.clone()
        };
        let expected = match at {
            0 => CheckpointFault::Magic,
            4 => CheckpointFault::Version(0),
            _ => CheckpointFault::Open(OpenError::Tag),
        };
        assert_eq!(refused(&forged), expected, "at {at}");
    }
    let elsewhere = PageRef {
        name: [4; 16],
        ..reference
    };
    assert_eq!(
        open_page(&sealed, &elsewhere, &epoch, &world.keys).unwrap_err(),
        CheckpointFault::Open(OpenError::Tag)
    );
}

fn a_root(world: &World) -> Root {
    let (epoch, commitment) = world.keys.current();
    let content = paginate(&many_rows(20, 10)).remove(0);
    Root {
        optional: 0,
        vault: world.keys.vault(),
        room: world.keys.room(),
        name: [7; 16],
        epoch,
        commitment,
        device: world.device(0),
        time: Timestamp(5),
        floor: 41,
        parent: Some(CheckpointRef {
            name: [6; 16],
            hash: Hash32([6; 32]),
            floor: 12,
        }),
        covered: vec![CoveredLane {
            lane: world.keys.lane_id(world.device(0), 2),
            device: world.device(0),
            incarnation: 2,
            seq: 9,
            hash: Hash32([1; 32]),
            lamport: 40,
            time: Timestamp(4),
            closed: Some(9),
        }],
        control: vec![Hash32([5; 32])],
        rules: crate::RULE_SET,
        rows: 20,
        digest: Hash32([9; 32]),
        pages: vec![page_ref(world, &content, [3; 16]).0],
    }
}

#[test]
fn a_sealed_root_opens_to_what_was_sealed() {
    let world = World::new(2);
    let root = a_root(&world);
    let (reference, bytes) =
        seal_root(&root, &world.keys, world.signer(0), &world.entropy).unwrap();
    let opened = open_root(&reference, &bytes, &world.keys, &world.roster()).unwrap();
    assert_eq!(opened, root);
    assert_eq!(Root::from_bytes(&root.to_bytes()).unwrap(), root);
}

#[test]
fn a_root_names_each_branch_of_a_lane_once_and_in_order() {
    let root = a_root(&World::new(8));
    let end = root.covered[0].clone();
    let decode = |covered: Vec<CoveredLane>| {
        let root = Root {
            covered,
            ..root.clone()
        };
        Root::from_bytes(&root.to_bytes()).is_ok()
    };
    let with = |change: fn(&mut CoveredLane)| {
        let mut next = end.clone();
        change(&mut next);
        next
    };
    let branch = with(|end| end.hash = Hash32([2; 32]));
    let later = with(|end| end.seq = 10);
    assert!(decode(vec![end.clone(), branch.clone(), later.clone()]));
    assert!(!decode(vec![end.clone(), end.clone()]));
    assert!(!decode(vec![branch, end.clone()]));
    assert!(!decode(vec![later, end.clone()]));
    // All of one device, with one end of the lane.
    for other in [
        with(|end| (end.seq, end.closed) = (10, None)),
        with(|end| (end.seq, end.incarnation) = (10, 3)),
        with(|end| (end.seq, end.device) = (10, DeviceId([9; 16]))),
    ] {
        assert!(!decode(vec![end.clone(), other]));
    }
}

#[test]
fn a_flipped_byte_in_any_region_of_a_root_is_refused_with_its_reason() {
    let world = World::new(3);
    let (reference, sealed) = seal_root(
        &a_root(&world),
        &world.keys,
        world.signer(0),
        &world.entropy,
    )
    .unwrap();
    for at in [0, 4, 5, 12, 13, 30, sealed.len() - 1] {
        let mut bytes = sealed.to_vec();
        bytes[at] ^= 1;
        let open =
            |expected| open_root(expected, &bytes, &world.keys, &world.roster()).unwrap_err();
        assert_eq!(open(&reference), CheckpointFault::Hash);
        let forged = CheckpointRef {
            hash: hash(&bytes),
            ..reference
        };
        let expected = match at {
            0 => CheckpointFault::Magic,
            4 => CheckpointFault::Version(0),
            5..13 => CheckpointFault::UnknownEpoch,
            _ => CheckpointFault::Open(OpenError::Tag),
        };
        assert_eq!(open(&forged), expected, "at {at}");
    }
}

#[test]
fn a_root_is_bound_to_its_place_and_signer() {
    let world = World::new(4);
    let refuse = |change: &dyn Fn(&mut Root), expected: CheckpointFault| {
        let mut root = a_root(&world);
        change(&mut root);
        let (reference, bytes) =
            seal_root(&root, &world.keys, world.signer(0), &world.entropy).unwrap();
        let refused = open_root(&reference, &bytes, &world.keys, &world.roster()).unwrap_err();
        assert_eq!(refused, expected);
    };
    refuse(
        &|root| root.vault = VaultId([1; 16]),
        CheckpointFault::Place("vault"),
    );
    refuse(&|root| root.rules = 99, CheckpointFault::RuleSet(99));
    for other in [0, 3] {
        let device = CheckpointFault::Place("device of a lane");
        refuse(&|root| root.covered[0].incarnation = other, device);
    }
    for lamport in [42, 1 << 40, u64::MAX] {
        let late = WireError::Value("time of a lane above the floor");
        refuse(&|root| root.covered[0].lamport = lamport, late.into());
    }
    let record = Hash32([7; 32]);
    refuse(
        &|root| root.control = vec![record],
        CheckpointFault::UnknownControl(record),
    );
    let unknown = DeviceId([1; 16]);
    refuse(
        &|root| root.device = unknown,
        CheckpointFault::UnknownDevice(unknown),
    );
    let other = world.device(1);
    let forged = CheckpointFault::Signature {
        device: other,
        source: BadSignature,
    };
    refuse(&|root| root.device = other, forged);
}
