//! What somebody who was put out, or may only read, tries with all the keys that he ever had and friends who were never
//! let in, on storage that shows whatever he likes.

use super::*;

impl Stage {
    /// A record by one of these on top of what the ending does not precede.
    fn attack(&mut self, gang: &[usize], ending: usize) -> bool {
        let all = self.model.all();
        let blind: Vec<usize> = all
            .into_iter()
            .filter(|n| !self.model.past(&BTreeSet::from([*n])).contains(&ending))
            .collect();
        let count = 1 + self.below(2);
        let some: BTreeSet<usize> = (0..count).map(|_| blind[self.below(blind.len())]).collect();
        let parents = self.model.heads_of(&some);
        let author = gang[self.below(gang.len())];
        let device = (self.below(3) == 0).then(|| self.below(DEVICES));
        let whom = self.below(self.people.len());
        let role = [Role::Manager, Role::Editor, Role::Reader][self.below(3)];
        let say = match self.below(9) {
            0 | 1 => Say::Add(gang[self.below(gang.len())], Role::Manager),
            2 | 3 => Say::Remove(whom),
            4 | 5 => Say::Role(whom, role),
            6 => Say::Device(self.below(DEVICES)),
            7 => Say::Revoke(self.below(DEVICES)),
            _ => Say::Add(whom, role),
        };
        self.say(author, device, say, &parents).is_some()
    }
}

impl Stage {
    /// How many have less than before; nobody has more, or anything that he had not.
    fn only_suspended(&self, before: &World) -> usize {
        let now = self.state.now();
        let mut less = 0;
        for (person, was) in &before.members {
            match now.role(person) {
                Some(role) => assert!(role >= was.role, "{person} {role:?}"),
                None => assert_ne!(was.role, Role::Owner),
            }
            less += usize::from(now.role(person) != Some(was.role));
        }
        let mut members = now.members.keys();
        assert!(members.all(|person| before.members.contains_key(person)));
        let mut devices = now.devices.keys();
        assert!(devices.all(|device| before.devices.contains_key(device)));
        let mut cuts = before.cuts.keys();
        assert!(cuts.all(|device| now.cuts.contains_key(device)));
        less
    }
}

/// 1 is a manager for a while, in a room with a random past; 6 and 7 are his friends and were never let in.
fn prey(seed: u64) -> Stage {
    let mut stage = Stage::new(8, seed);
    stage.now(0, Say::Add(1, Role::Manager));
    stage.now(1, Say::Device(0));
    for _ in 0..60 {
        if stage.objects.len() > 14 {
            break;
        }
        let author = stage.below(6);
        let say = match stage.random_say() {
            Say::Add(whom, role) => Say::Add(whom % 6, role),
            Say::Remove(whom) => Say::Remove(whom % 6),
            Say::Role(whom, role) => Say::Role(whom % 6, role),
            other => other,
        };
        let parents = stage.model.heads_of(&stage.model.all());
        // Nobody but the owner puts 1 out, or makes less of him.
        if !matches!(say, Say::Remove(1) | Say::Role(1, _)) || author == 1 {
            stage.say(author, None, say, &parents);
        }
    }
    stage
}

#[test]
fn whoever_the_owner_put_out_gives_nothing_to_anybody_whatever_he_says_he_did_before() {
    let (mut made, mut suspended) = (0, 0);
    for seed in 0..seeds(12) {
        let mut stage = prey(3000 + seed);
        if stage.role(1).is_none() {
            continue;
        }
        let ending = stage.now(0, Say::Remove(1));
        let before = stage.state.now().clone();
        let first = stage.objects.len();
        for _ in 0..60 {
            made += usize::from(stage.attack(&[1, 6, 7], ending));
        }
        let made_by = first..stage.objects.len();
        suspended += stage.only_suspended(&before);
        for n in made_by {
            // That somebody else has let the same person in since gives nothing to anybody, as was looked at above.
            let id = stage.objects[n].0;
            let stood_for = stage.model.is_stood_for(n);
            assert!(stage.state.is_overruled(&id) || stood_for, "{seed}");
        }
        // Whoever was put out so and is named again is in, and nobody can do it to him again.
        let mut named = Vec::new();
        for n in 2..6 {
            let was = before.role(&stage.person(n));
            if let (None, Some(role)) = (stage.role(n), was) {
                stage.now(0, Say::Add(n, role));
                named.push((n, role));
            }
        }
        for _ in 0..30 {
            stage.attack(&[1, 6, 7], ending);
        }
        for (n, role) in named {
            assert_eq!(stage.role(n), Some(role), "{seed}");
        }
    }
    assert!(suspended > 0, "{suspended}");
    assert!(made > 30, "{made}");
}

#[test]
fn whoever_the_owner_made_a_reader_gives_nothing_to_anybody_whatever_he_says_he_did_before() {
    let mut made = 0;
    for seed in 0..seeds(16) {
        let mut stage = prey(4000 + seed);
        if stage.role(1) != Some(Role::Manager) {
            continue;
        }
        let ending = stage.now(0, Say::Role(1, Role::Reader));
        let before = stage.state.now().clone();
        let me = stage.person(1);
        for _ in 0..60 {
            made += usize::from(stage.attack(&[1, 6, 7], ending));
        }
        let mut now = stage.state.now().clone();
        // What is left to him is his own: to leave, and his devices, which cannot write.
        for device in stage.people[1].devices.iter().map(|machine| machine.id) {
            assert!(!now.may_write(&device), "{seed}");
        }
        let mut then = before.clone();
        then.members.remove(&me);
        then.devices.retain(|_, person| *person != me);
        then.cuts
            .retain(|device, _| stage.people[1].devices.iter().all(|m| m.id != *device));
        let mine = &stage.people[1].devices;
        let theirs = now
            .devices
            .keys()
            .filter(|device| mine.iter().all(|m| m.id != **device));
        assert!(
            theirs
                .clone()
                .all(|device| then.devices.contains_key(device))
        );
        assert!(then.cuts.keys().all(|device| now.cuts.contains_key(device)));
        now.members.remove(&me);
        for (person, member) in &now.members {
            let was = then.role(person);
            assert!(was.is_some_and(|was| was <= member.role), "{seed} {person}");
        }
        let role = stage.role(1);
        assert!(
            role.is_none_or(|role| role == Role::Reader),
            "{seed}: {role:?}"
        );
    }
    assert!(made > 30, "{made}");
}

#[test]
fn who_was_removed_and_names_old_heads_may_not_write_by_the_world_now() {
    let mut stage = Stage::new(2, 1);
    stage.now(0, Say::Add(1, Role::Manager));
    stage.now(1, Say::Device(0));
    let device = stage.people[1].devices[0].id;
    let old = stage.state.heads();
    stage.now(0, Say::Remove(1));
    let roster = stage.state.roster();
    // By the heads that he names he might: it is the cut that stops him.
    assert!(roster.rights.may_write(device, &old));
    assert!(!roster.rights.may_write(device, &roster.control_heads));
    assert_eq!(roster.devices[&device].cut, Some(Default::default()));
}

#[test]
fn nobody_resurrects_himself_by_old_parents() {
    // Lets himself in again, lets a friend do so, leaves out his removal: from before and after it.
    let mut stage = Stage::new(4, 1);
    let joined = stage.now(0, Say::Add(1, Role::Manager));
    let friend = stage.now(1, Say::Add(2, Role::Editor));
    let out = stage.now(0, Say::Remove(1));
    let on = |n: usize| BTreeSet::from([n]);
    for parent in [joined, friend, out] {
        assert_eq!(
            stage.say(1, None, Say::Add(1, Role::Manager), &on(parent)),
            None
        );
        assert_eq!(
            stage.say(2, None, Say::Add(1, Role::Manager), &on(parent)),
            None
        );
    }
    let promoted = stage
        .say(1, None, Say::Role(2, Role::Manager), &on(friend))
        .unwrap();
    assert_eq!(stage.role(2), Some(Role::Editor));
    // He left, he says, and the friend let him in again, all before he was removed.
    let left = stage.say(1, None, Say::Remove(1), &on(promoted)).unwrap();
    let again = stage
        .say(2, None, Say::Add(1, Role::Manager), &on(left))
        .unwrap();
    assert_eq!(stage.role(1), None);
    assert!(stage.state.is_overruled(&stage.objects[again].0));
    stage.check();
}

#[test]
fn a_removed_manager_does_not_undo_his_removal_by_one_who_is_farther_from_the_owner_either() {
    // Was: a manager of depth 1 takes back his removal by one of depth 2 with a record that he dates before it.
    let mut stage = Stage::new(5, 1);
    stage.now(0, Say::Add(1, Role::Manager));
    stage.now(0, Say::Add(2, Role::Manager));
    let both = stage.now(2, Say::Add(3, Role::Manager));
    let on = BTreeSet::from([both]);
    assert_eq!(stage.say(3, None, Say::Remove(1), &on), None);
    assert_eq!(stage.say(2, None, Say::Remove(1), &on), None);
    let out = stage.now(0, Say::Remove(1));
    // He says that he, or a friend of his whom he let in before, removed his remover or one who stands beside him.
    let friend = stage.say(1, None, Say::Add(4, Role::Manager), &on).unwrap();
    let on = BTreeSet::from([friend]);
    for author in [1, 4] {
        for whom in [0, 2] {
            assert_eq!(stage.say(author, None, Say::Remove(whom), &on), None);
        }
    }
    assert!(!stage.state.is_overruled(&stage.objects[out].0));
    assert_eq!((stage.role(1), stage.role(4)), (None, None));
    assert_eq!(stage.role(2), Some(Role::Manager));
    // One who stands below him he puts out once more, until somebody names him.
    let last = stage.say(1, None, Say::Remove(3), &on).unwrap();
    assert!(stage.state.is_overruled(&stage.objects[last].0));
    assert_eq!(stage.role(3), None);
    stage.check();
    stage.now(2, Say::Add(3, Role::Manager));
    stage
        .say(1, None, Say::Remove(3), &BTreeSet::from([both]))
        .unwrap();
    assert_eq!(stage.role(3), Some(Role::Manager), "and never again");
    stage.check();
}

#[test]
fn whom_a_manager_removed_does_not_come_back_when_the_manager_is_removed_by_one_who_had_not_seen_it()
 {
    let mut stage = Stage::new(5, 1);
    stage.now(0, Say::Add(1, Role::Manager));
    let before = stage.now(1, Say::Add(2, Role::Manager));
    let on = BTreeSet::from([before]);
    let rightly = stage.say(1, None, Say::Remove(2), &on).unwrap();
    stage.say(0, None, Say::Remove(1), &on).unwrap();
    assert!(stage.state.is_overruled(&stage.objects[rightly].0));
    // Nor does anybody whom he says he had let in.
    stage.say(2, None, Say::Add(3, Role::Manager), &on).unwrap();
    for person in [1, 2, 3] {
        assert_eq!(stage.role(person), None);
    }
    stage.check();
}

#[test]
fn who_was_demoted_does_not_undo_what_he_did_before_by_leaving_earlier_or_revoking_his_device() {
    let mut stage = Stage::new(4, 1);
    stage.now(0, Say::Add(1, Role::Manager));
    stage.now(0, Say::Add(2, Role::Editor));
    let before = stage.now(1, Say::Device(0));
    let on = BTreeSet::from([before]);
    // A year ago he put 2 out, once with each of his keys.
    for device in [None, Some(0)] {
        stage.say(1, device, Say::Remove(2), &on).unwrap();
    }
    stage.now(0, Say::Role(1, Role::Reader));
    assert_eq!(stage.role(2), None);
    for say in [Say::Remove(1), Say::Revoke(0)] {
        stage.say(1, None, say, &on).unwrap();
        assert_eq!(stage.role(2), None, "{say:?}");
        stage.check();
    }
    assert_eq!(stage.role(1), None, "that is his own affair");
}

#[test]
fn a_revoked_device_gives_nothing_with_the_help_of_a_removed_manager_who_says_that_he_demoted_its_person()
 {
    // Was: the demotion, taken back itself, shielded what the device signs from the device's revocation.
    let mut stage = Stage::new(5, 1);
    stage.now(0, Say::Add(1, Role::Manager));
    stage.now(1, Say::Add(2, Role::Manager));
    let before = stage.now(2, Say::Device(0));
    stage.now(2, Say::Revoke(0));
    stage.now(0, Say::Remove(1));
    assert_eq!(stage.role(2), Some(Role::Manager));
    let on = BTreeSet::from([before]);
    let stolen = stage.say(2, Some(0), Say::Add(3, Role::Manager), &on);
    let on = BTreeSet::from([stolen.unwrap()]);
    stage.say(1, None, Say::Role(2, Role::Editor), &on).unwrap();
    assert_eq!(stage.role(3), None);
    stage.check();
}

#[test]
fn who_left_or_made_less_of_himself_gives_nothing_from_the_past_whoever_removes_him_then() {
    // Was: what somebody said of himself, and a removal by one as near to the owner, took nothing back; nobody could.
    for own in [Say::Remove(1), Say::Role(1, Role::Editor)] {
        let mut stage = Stage::new(6, 1);
        stage.now(0, Say::Add(1, Role::Manager));
        stage.now(0, Say::Add(2, Role::Manager));
        stage.now(0, Say::Add(4, Role::Reader));
        let before = stage.now(1, Say::Device(0));
        stage.now(1, own);
        if stage.role(1).is_some() {
            stage.now(2, Say::Remove(1));
        }
        let on = BTreeSet::from([before]);
        for device in [None, Some(0)] {
            stage.say(1, device, Say::Add(3, Role::Manager), &on);
            stage.say(1, device, Say::Role(4, Role::Manager), &on);
        }
        assert_eq!((stage.role(1), stage.role(3)), (None, None), "{own:?}");
        assert_eq!(stage.role(4), Some(Role::Reader), "{own:?}");
        stage.check();
    }
}

#[test]
fn whoever_was_promoted_while_one_who_had_not_seen_it_removed_him_gives_nothing_either() {
    // Was: he was out, nobody could remove him again, and what he said as a manager nearer to the owner still counted.
    let mut stage = Stage::new(5, 1);
    stage.now(0, Say::Add(1, Role::Manager));
    let before = stage.now(1, Say::Add(2, Role::Manager));
    let on = BTreeSet::from([before]);
    let raised = stage.say(0, None, Say::Role(2, Role::Manager), &on);
    stage.say(1, None, Say::Remove(2), &on).unwrap();
    assert_eq!(stage.role(2), None);
    let on = BTreeSet::from([raised.unwrap()]);
    let friend = stage.say(2, None, Say::Add(3, Role::Manager), &on).unwrap();
    assert_eq!(stage.role(3), None);
    stage
        .say(
            3,
            None,
            Say::Add(4, Role::Manager),
            &BTreeSet::from([friend]),
        )
        .unwrap();
    assert_eq!(stage.role(4), None);
    stage.check();
}

#[test]
fn who_was_demoted_does_not_undo_by_leaving_earlier_that_he_let_somebody_in() {
    let mut stage = Stage::new(4, 1);
    let before = stage.now(0, Say::Add(1, Role::Manager));
    stage.now(1, Say::Add(2, Role::Editor));
    stage.now(0, Say::Role(1, Role::Reader));
    let on = BTreeSet::from([before]);
    stage.say(1, None, Say::Remove(1), &on).unwrap();
    assert_eq!(stage.role(1), None, "that is his own affair");
    assert_eq!(stage.role(2), Some(Role::Editor));
    stage.check();
}

#[test]
fn whoever_removes_many_from_the_past_does_not_hide_his_own_removal_among_them() {
    // Was: of more than 64 heads those with the longest past are named, and the next epoch went to whom those let in.
    let mut stage = Stage::new(4, 1);
    stage.now(0, Say::Add(1, Role::Manager));
    let before = stage.now(1, Say::Device(0));
    let out = stage.now(0, Say::Remove(1));
    let mut on = BTreeSet::from([before]);
    for say in [
        Say::Device(1),
        Say::Add(2, Role::Reader),
        Say::Role(2, Role::Editor),
        Say::Role(2, Role::Manager),
    ] {
        on = BTreeSet::from([stage.say(1, None, say, &on).unwrap()]);
    }
    for _ in 0..70 {
        stage.say(1, None, Say::Remove(2), &on).unwrap();
    }
    let heads = stage.state.heads();
    assert_eq!(heads.len(), 64);
    assert!(heads.contains(&stage.objects[out].0));
    let named = stage.state.world(&heads).unwrap();
    assert_eq!(named.role(&stage.person(1)), None);
    assert!(named.devices.is_empty());
}

#[test]
fn who_was_put_out_gives_nobody_back_from_the_past_what_he_was_before() {
    // Was: the owner let 2 in as an editor after 1 had been out once; that stood in for whatever 1 said of 2 from before,
    // beside that the owner makes 2 a reader later.
    let mut stage = Stage::new(3, 1);
    stage.now(0, Say::Add(1, Role::Manager));
    let before = stage.now(1, Say::Device(0));
    stage.now(0, Say::Remove(1));
    stage.now(0, Say::Add(1, Role::Manager));
    stage.now(0, Say::Add(2, Role::Editor));
    stage.now(0, Say::Remove(2));
    stage.now(0, Say::Add(2, Role::Reader));
    stage.now(0, Say::Remove(1));
    let on = BTreeSet::from([before]);
    stage.say(1, None, Say::Add(2, Role::Editor), &on).unwrap();
    assert_eq!(stage.role(2), Some(Role::Reader));
    stage.check();
}
