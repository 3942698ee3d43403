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
fn whoever_the_owner_put_out_changes_nothing_whatever_he_says_he_did_before() {
    let mut made = 0;
    for seed in 0..seeds(12) {
        let mut stage = prey(3000 + seed);
        if stage.role(1).is_none() {
            continue;
        }
        let ending = stage.now(0, Say::Remove(1));
        let before = stage.state.now().clone();
        let heads = stage.state.heads();
        for _ in 0..60 {
            made += usize::from(stage.attack(&[1, 6, 7], ending));
        }
        let mut now = stage.state.now().clone();
        // A device that he says he had is cut like the others.
        now.cuts
            .retain(|device, _| before.cuts.contains_key(device));
        assert_eq!(now, before, "{seed}");
        assert_eq!(stage.state.heads(), heads, "nobody builds on it");
    }
    assert!(made > 30, "{made}");
}

#[test]
fn whoever_the_owner_made_a_reader_changes_nothing_whatever_he_says_he_did_before() {
    let mut made = 0;
    for seed in 0..seeds(12) {
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
        for world in [&mut now, &mut then] {
            world.members.remove(&me);
            world.devices.retain(|_, person| *person != me);
            world.cuts.retain(|device, _| {
                !stage.people[1]
                    .devices
                    .iter()
                    .any(|machine| machine.id == *device)
            });
        }
        assert_eq!(now, then, "{seed}");
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
fn a_removed_manager_does_not_undo_his_removal_by_one_of_the_same_depth_or_above() {
    for remover in [0, 2] {
        let mut stage = Stage::new(5, 1);
        stage.now(0, Say::Add(1, Role::Manager));
        let both = stage.now(0, Say::Add(2, Role::Manager));
        stage.now(remover, Say::Remove(1));
        let on = BTreeSet::from([both]);
        // He says that a friend of his, whom he let in before, removed his remover.
        let friend = stage.say(1, None, Say::Add(3, Role::Manager), &on).unwrap();
        let on = BTreeSet::from([friend]);
        let by_friend = stage.say(3, None, Say::Remove(2), &on).unwrap();
        assert_eq!((stage.role(1), stage.role(3)), (None, None));
        assert_eq!(stage.role(2), Some(Role::Manager));
        assert!(stage.state.is_overruled(&stage.objects[by_friend].0));
        stage.check();
        // Or that he did so himself: one of the same depth is out as well, and the owner decides.
        stage.say(1, None, Say::Remove(2), &on).unwrap();
        assert_eq!(stage.role(1), None);
        let other = (remover == 0).then_some(Role::Manager);
        assert_eq!(stage.role(2), other);
        stage.check();
    }
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
