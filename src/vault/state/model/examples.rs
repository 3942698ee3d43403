//! What the rules are for, by example. People: 0 owns, the others are what they are made.

use super::*;

fn set(numbers: &[usize]) -> BTreeSet<usize> {
    numbers.iter().copied().collect()
}

impl Stage {
    /// Says something on top of these.
    fn on(&mut self, parents: &[usize], author: usize, say: Say) -> usize {
        self.say(author, None, say, &set(parents)).unwrap()
    }

    fn refuses(&mut self, parents: &[usize], author: usize, say: Say) {
        assert_eq!(self.say(author, None, say, &set(parents)), None);
    }

    fn overruled(&self, n: usize) -> bool {
        self.state.is_overruled(&self.objects[n].0)
    }

    fn machine(&self, person: usize, at: usize) -> DeviceId {
        self.people[person].devices[at].id
    }
}

/// The owner lets in managers of one depth, 1 and 2, and an editor, 3; each has a device. The number of the last record.
fn team() -> (Stage, usize) {
    let mut stage = Stage::new(7, 1);
    stage.now(0, Say::Add(1, Role::Manager));
    stage.now(0, Say::Add(2, Role::Manager));
    stage.now(0, Say::Add(3, Role::Editor));
    let mut last = 0;
    for person in 0..4 {
        last = stage.now(person, Say::Device(0));
    }
    (stage, last)
}

#[test]
fn roles_say_who_may_do_what() {
    let (mut stage, last) = team();
    // Nobody is above the owner, and there is one.
    for author in [0, 1] {
        stage.refuses(&[last], author, Say::Remove(0));
        stage.refuses(&[last], author, Say::Role(0, Role::Reader));
        stage.refuses(&[last], author, Say::Add(4, Role::Owner));
        stage.refuses(&[last], author, Say::Role(1, Role::Owner));
    }
    // Editors change nobody, themselves neither.
    let says = [
        Say::Add(4, Role::Reader),
        Say::Remove(1),
        Say::Role(3, Role::Manager),
    ];
    for say in says {
        stage.refuses(&[last], 3, say);
    }
    // Strangers do nothing at all.
    for say in [Say::Add(4, Role::Reader), Say::Remove(4), Say::Remove(3)] {
        stage.refuses(&[last], 5, say);
    }
    // Managers do it all, but to those who are farther from the owner only; everybody leaves as he likes.
    let four = stage.on(&[last], 1, Say::Add(4, Role::Manager));
    stage.on(&[last], 1, Say::Role(3, Role::Manager));
    stage.on(&[last], 3, Say::Remove(3));
    for say in [Say::Remove(2), Say::Role(2, Role::Reader)] {
        stage.refuses(&[four], 1, say);
        stage.refuses(&[four], 4, say);
    }
    // Less of himself he may make, and what he is already he does not say again.
    stage.refuses(&[four], 1, Say::Role(1, Role::Manager));
    stage.on(&[four], 2, Say::Role(2, Role::Reader));
    assert_eq!(stage.role(2), Some(Role::Reader));
    assert_eq!(
        stage.role(3),
        None,
        "he left, whatever else was said of him"
    );
    assert_eq!(stage.role(4), Some(Role::Manager));
    stage.check();
}

#[test]
fn a_removal_beats_whatever_the_removed_does_at_the_same_time() {
    let (mut stage, last) = team();
    let added = stage.on(&[last], 1, Say::Add(4, Role::Manager));
    let device = stage.on(&[last], 1, Say::Device(1));
    let removed = stage.on(&[last], 1, Say::Remove(3));
    stage.check();
    assert_eq!(stage.role(3), None);
    // Whoever removes him does not know of any of it.
    stage.on(&[last], 0, Say::Remove(1));
    for n in [added, device, removed] {
        assert!(stage.overruled(n));
    }
    assert_eq!(stage.role(3), None, "he stays out until he is named again");
    assert_eq!((stage.role(4), stage.role(1)), (None, None));
    stage.check();
    stage.now(0, Say::Add(3, Role::Editor));
    assert_eq!(stage.role(3), Some(Role::Editor));
    assert!(
        stage.state.now().may_write(&stage.machine(3, 0)),
        "as he was"
    );
    stage.check();
}

#[test]
fn what_a_removal_knows_of_stays() {
    let (mut stage, last) = team();
    let added = stage.on(&[last], 1, Say::Add(4, Role::Editor));
    stage.on(&[added], 0, Say::Remove(1));
    assert!(!stage.overruled(added));
    assert_eq!(stage.role(4), Some(Role::Editor));
    stage.check();
}

#[test]
fn nobody_ends_a_manager_who_is_nearer_to_the_owner() {
    let (mut stage, last) = team();
    let deep = stage.on(&[last], 1, Say::Add(4, Role::Manager));
    stage.refuses(&[deep], 4, Say::Remove(2));
    let low = stage.on(&[deep], 4, Say::Add(5, Role::Reader));
    let high = stage.on(&[deep], 2, Say::Remove(4));
    assert!(stage.overruled(low) && !stage.overruled(high));
    assert_eq!(stage.role(2), Some(Role::Manager));
    assert_eq!(stage.role(4), None);
    stage.check();
}

#[test]
fn a_manager_is_as_near_to_the_owner_as_who_made_him_one_last_is() {
    let (mut stage, last) = team();
    let four = stage.on(&[last], 1, Say::Add(4, Role::Manager));
    let five = stage.on(&[four], 4, Say::Add(5, Role::Manager));
    // 5 is below 4, 4 below 1 and 2.
    stage.refuses(&[five], 5, Say::Remove(4));
    stage.refuses(&[five], 4, Say::Remove(1));
    // The owner makes 5 a manager himself.
    let raised = stage.on(&[five], 0, Say::Role(5, Role::Manager));
    stage.refuses(&[raised], 1, Say::Remove(5));
    stage.refuses(&[raised], 4, Say::Remove(5));
    let out = stage.on(&[raised], 5, Say::Remove(4));
    assert_eq!(stage.role(4), None);
    stage.check();
    // That is his though whoever let him in is out, and was without knowing of it.
    stage.on(&[four], 1, Say::Remove(4));
    assert!(!stage.overruled(out));
    assert_eq!(
        stage.role(5),
        Some(Role::Manager),
        "the owner vouched for him"
    );
    stage.check();
}

#[test]
fn of_two_managers_made_by_one_the_same_neither_ends_the_other_and_two_who_do_not_see_it_are_no_exception()
 {
    let (mut stage, last) = team();
    stage.refuses(&[last], 1, Say::Remove(2));
    // 3 is an editor for 1, who removes him; the owner makes him a manager, and he removes 1's friend.
    let friend = stage.on(&[last], 1, Say::Add(4, Role::Manager));
    let out = stage.on(&[friend], 4, Say::Remove(3));
    let raised = stage.on(&[friend], 0, Say::Role(3, Role::Manager));
    let back = stage.on(&[raised], 3, Say::Remove(4));
    // The one nearer to the owner is not taken back; the other is, and suspends until somebody names him.
    assert!(stage.overruled(out) && !stage.overruled(back));
    assert_eq!((stage.role(3), stage.role(4)), (None, None));
    stage.check();
    stage.now(0, Say::Add(3, Role::Manager));
    assert_eq!(stage.role(3), Some(Role::Manager));
    stage.check();
}

#[test]
fn a_removal_that_is_taken_back_suspends_until_its_person_is_named_by_who_knows_why() {
    // The owner removes 1, who removed 4, who removed 3, none knowing of the other.
    let (mut stage, last) = team();
    let four = stage.on(&[last], 1, Say::Add(4, Role::Manager));
    let of_three = stage.on(&[four], 4, Say::Remove(3));
    let of_four = stage.on(&[four], 1, Say::Remove(4));
    let of_one = stage.on(&[four], 0, Say::Remove(1));
    assert!(stage.overruled(of_three) && stage.overruled(of_four));
    for person in [1, 3, 4] {
        assert_eq!(stage.role(person), None);
    }
    stage.check();
    // Who does not know of the ending of 1 says nothing about that.
    stage.on(&[four], 2, Say::Role(3, Role::Editor));
    assert_eq!(stage.role(3), None);
    // 4 is what he was as soon as somebody who does names him, and so is what he did.
    stage.on(&[of_one], 0, Say::Role(4, Role::Manager));
    assert_eq!(stage.role(4), Some(Role::Manager));
    assert!(!stage.overruled(of_three), "what he did holds");
    assert_eq!(stage.role(3), None);
    stage.check();
}

#[test]
fn whoever_fell_with_a_removed_one_is_what_he_was_if_he_is_let_in_by_who_knows_of_it() {
    let (mut stage, last) = team();
    let four = stage.on(&[last], 1, Say::Add(4, Role::Editor));
    let device = stage.on(&[four], 4, Say::Device(0));
    let out = stage.on(&[last], 0, Say::Remove(1));
    assert!(stage.overruled(four) && stage.overruled(device));
    // What nobody certifies any more has written nothing.
    let cut = stage.state.now().cuts.get(&stage.machine(4, 0)).cloned();
    assert_eq!(cut, Some(Default::default()));
    // As less than he was it does not stand in for that.
    let less = stage.on(&[device, out], 0, Say::Add(4, Role::Reader));
    assert!(stage.overruled(four) && stage.overruled(device));
    stage.check();
    let gone = stage.on(&[less], 0, Say::Remove(4));
    stage.on(&[out], 2, Say::Add(4, Role::Editor));
    assert!(!stage.overruled(four) && !stage.overruled(device));
    assert_eq!(stage.role(4), None, "he was removed");
    stage.on(&[gone], 0, Say::Add(4, Role::Editor));
    assert_eq!(stage.role(4), Some(Role::Editor));
    stage.check();
}

#[test]
fn those_whom_a_removed_one_let_in_fall_with_him_and_all_that_they_did() {
    let (mut stage, last) = team();
    let puppet = stage.on(&[last], 1, Say::Add(4, Role::Manager));
    let another = stage.on(&[puppet], 4, Say::Add(5, Role::Manager));
    let removal = stage.on(&[another], 5, Say::Remove(3));
    assert_eq!(stage.role(3), None);
    stage.on(&[last], 0, Say::Remove(1));
    for n in [puppet, another, removal] {
        assert!(stage.overruled(n));
    }
    for person in [1, 3, 4, 5] {
        assert_eq!(stage.role(person), None);
    }
    stage.check();
    stage.now(0, Say::Add(3, Role::Editor));
    assert_eq!(stage.role(3), Some(Role::Editor));
    stage.check();
}

#[test]
fn a_role_that_a_removed_one_gave_falls_with_him() {
    let (mut stage, last) = team();
    let given = stage.on(&[last], 1, Say::Role(3, Role::Manager));
    let used = stage.on(&[given], 3, Say::Add(4, Role::Editor));
    assert_eq!(stage.role(4), Some(Role::Editor));
    stage.on(&[last], 0, Say::Remove(1));
    assert!(stage.overruled(given) && stage.overruled(used));
    assert_eq!(stage.role(3), Some(Role::Editor));
    assert_eq!(stage.role(4), None);
    stage.check();
}

#[test]
fn a_demotion_takes_back_what_the_demoted_may_not_do_any_more_and_no_more() {
    let (mut stage, last) = team();
    let added = stage.on(&[last], 1, Say::Add(4, Role::Reader));
    let device = stage.on(&[last], 1, Say::Device(1));
    stage.on(&[last], 0, Say::Role(1, Role::Editor));
    assert!(stage.overruled(added) && !stage.overruled(device));
    assert_eq!(stage.role(1), Some(Role::Editor));
    let now = stage.state.now();
    assert!(now.may_write(&stage.machine(1, 0)) && now.cuts.is_empty());
    stage.check();
}

#[test]
fn of_several_roles_the_lowest_counts_and_a_removal_above_all() {
    let (mut stage, last) = team();
    stage.on(&[last], 0, Say::Role(3, Role::Manager));
    stage.on(&[last], 1, Say::Role(3, Role::Reader));
    assert_eq!(stage.role(3), Some(Role::Reader));
    stage.on(&[last], 2, Say::Remove(3));
    assert_eq!(stage.role(3), None);
    // Let in twice at the same time: the higher role, but for who says that it is to be less.
    let one = stage.on(&[last], 0, Say::Add(4, Role::Editor));
    let two = stage.on(&[last], 1, Say::Add(4, Role::Reader));
    assert_eq!(stage.role(4), Some(Role::Editor));
    stage.check();
    stage.on(&[two], 1, Say::Role(4, Role::Reader));
    assert_eq!(stage.role(4), Some(Role::Reader));
    stage.on(&[one, two], 0, Say::Role(4, Role::Reader));
    assert_eq!(stage.role(4), Some(Role::Reader));
    stage.check();
}

#[test]
fn who_comes_back_comes_with_new_devices() {
    let (mut stage, _) = team();
    let (old, new) = (stage.machine(3, 0), stage.machine(3, 1));
    let out = stage.now(0, Say::Remove(3));
    stage.refuses(&[out], 3, Say::Device(1));
    let back = stage.now(0, Say::Add(3, Role::Editor));
    assert_eq!(stage.role(3), Some(Role::Editor));
    let now = stage.state.now();
    assert!(!now.devices.contains_key(&old) && now.cuts.contains_key(&old));
    // The old one is not certified again, and signs nothing.
    stage.refuses(&[back], 3, Say::Device(0));
    let all = stage.model.heads_of(&stage.model.all());
    assert_eq!(stage.say(3, Some(0), Say::Remove(3), &all), None);
    stage.now(3, Say::Device(1));
    let now = stage.state.now();
    assert!(now.may_write(&new) && !now.may_write(&old));
    stage.check();
}

#[test]
fn a_device_of_somebody_who_may_only_read_reads_and_is_cut_for_good() {
    let (mut stage, _) = team();
    let (old, new) = (stage.machine(3, 0), stage.machine(3, 1));
    stage.now(1, Say::Role(3, Role::Reader));
    let now = stage.state.now();
    assert!(now.devices.contains_key(&old) && now.cuts.contains_key(&old));
    assert!(!now.may_write(&old));
    stage.now(1, Say::Role(3, Role::Editor));
    assert!(!stage.state.now().may_write(&old), "its lanes have ended");
    stage.now(3, Say::Device(1));
    assert!(stage.state.now().may_write(&new));
    stage.check();
}

#[test]
fn a_revoked_device_takes_back_what_it_signs_without_knowing_of_it() {
    let (mut stage, last) = team();
    let laptop = stage.machine(1, 0);
    let signed = stage
        .say(1, Some(0), Say::Remove(3), &set(&[last]))
        .unwrap();
    let by_root = stage.on(&[last], 1, Say::Add(4, Role::Reader));
    stage.on(&[last], 1, Say::Revoke(0));
    assert!(stage.overruled(signed) && !stage.overruled(by_root));
    assert_eq!(stage.role(3), None, "until he is named again");
    let now = stage.state.now();
    assert!(now.cuts.contains_key(&laptop) && !now.devices.contains_key(&laptop));
    assert_eq!(stage.role(1), Some(Role::Manager), "the person stays");
    stage.check();
}

#[test]
fn devices_change_no_devices() {
    let (mut stage, last) = team();
    for say in [Say::Device(1), Say::Revoke(0)] {
        assert_eq!(stage.say(1, Some(0), say, &set(&[last])), None);
    }
    assert!(
        stage
            .say(1, Some(0), Say::Remove(3), &set(&[last]))
            .is_some()
    );
}

#[test]
fn more_devices_than_a_person_may_have_are_refused_and_do_not_fill_an_epoch() {
    let most = skrin_base::limits::DEVICES_OF_PERSON_MAX;
    let mut stage = Stage::new(2, 1);
    stage.people[1] = with_devices(2, most + 3);
    let joined = stage.now(0, Say::Add(1, Role::Editor));
    // All at once: none knows of another, and all stand.
    for at in 0..most + 2 {
        stage.model_blind(joined, at);
    }
    assert_eq!(stage.state.now().devices.len(), most);
    // A record names no more of them.
    let heads = stage.state.heads();
    assert_eq!(heads.len(), skrin_base::limits::CONTROL_PARENTS_MAX);
}

fn with_devices(n: u8, count: usize) -> Somebody {
    let base = somebody(n);
    let machine = |at: usize| {
        let mut seed = [100; 32];
        seed[..8].copy_from_slice(&(at as u64).to_le_bytes());
        let seed = DeviceSeed::from_bytes(seed);
        let signer = DeviceSigner::derive(&seed, VAULT);
        let kem = KemSecret::derive_device(&seed, VAULT, Suite::X25519).public();
        let sign = signer.public();
        Machine {
            id: device_id(VAULT, base.id, &sign, &kem),
            signer,
            sign,
            kem,
        }
    };
    Somebody {
        devices: (0..count).map(machine).collect(),
        ..base
    }
}

impl Stage {
    /// Certifies a device of person 1 on top of a record, which the model does not follow.
    fn model_blind(&mut self, parent: usize, at: usize) {
        self.on(&[parent], 1, Say::Device(at));
    }
}

#[test]
fn the_next_record_names_at_most_64_heads_and_none_that_was_taken_back() {
    let (mut stage, last) = team();
    let out = stage.on(&[last], 0, Say::Remove(1));
    for _ in 0..80 {
        stage.on(&[last], 1, Say::Add(4, Role::Editor));
    }
    assert_eq!(stage.state.heads(), [stage.objects[out].0]);
    for _ in 0..80 {
        stage.on(&[out], 2, Say::Add(5, Role::Editor));
    }
    assert_eq!(stage.state.heads().len(), 64);
    assert!(stage.state.heads().is_sorted());
}

#[test]
fn nobody_certifies_a_device_of_another_as_his_own() {
    // Was: a member certifies the device of another, so that neither is known to have signed what it signs.
    let (mut stage, last) = team();
    let theirs = stage.machine(1, 1);
    let machine = Machine {
        id: theirs,
        signer: DeviceSigner::derive(&DeviceSeed::from_bytes([1; 32]), VAULT),
        sign: stage.people[1].devices[1].sign.clone(),
        kem: stage.people[1].devices[1].kem.clone(),
    };
    let (record, _) = {
        stage.people[3].devices[1] = machine;
        stage.record(3, Say::Device(1), &set(&[last])).unwrap()
    };
    let me = &stage.people[3];
    let signer = Signer::Root(&me.root);
    let body = Body {
        vault: VAULT,
        room: ROOM,
        optional: 0,
        parents: vec![stage.objects[last].0],
        author: me.id,
        signer: signer.reference(),
        time: Timestamp(1),
        record,
    };
    let (id, object) = seal_record(&stage.control, &body, &signer, &[], &stage.entropy);
    let opened = open_record(&stage.control, VAULT, ROOM, id, &object).unwrap();
    let error = stage.state.accept(opened).unwrap_err().to_string();
    assert!(
        error.contains("follows from its keys and its person"),
        "{error}"
    );
    // Its own person certifies it as if nothing had been.
    stage.on(&[last], 1, Say::Device(1));
    assert_eq!(stage.state.now().devices[&theirs], stage.person(1));
}
