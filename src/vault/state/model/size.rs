//! How much it takes to judge the records of a large team, in steps, which are the same on every machine.

use super::*;

const PEOPLE: usize = 50;
const MANAGERS: usize = 6;
const RECORDS: usize = 3000;

impl Stage {
    /// A record that the model does not hear of.
    fn unheard(&mut self, author: usize, say: Say, parents: &[Hash32]) -> (Hash32, Vec<u8>) {
        let (record, _) = self.record(author, say, &BTreeSet::new()).unwrap();
        let me = &self.people[author];
        let signer = Signer::Root(&me.root);
        self.clock += 1;
        let parents: BTreeSet<Hash32> = parents.iter().copied().collect();
        let body = Body {
            vault: VAULT,
            room: ROOM,
            optional: 0,
            parents: parents.into_iter().collect(),
            author: me.id,
            signer: signer.reference(),
            time: Timestamp(self.clock),
            record,
        };
        seal_record(&self.control, &body, &signer, &[], &self.entropy)
    }

    fn opened(&self, objects: &[(Hash32, Vec<u8>)]) -> Vec<Result<Opened, crate::control::Unread>> {
        let open = |(id, object): &(Hash32, Vec<u8>)| {
            open_record(&self.control, VAULT, ROOM, *id, object).unwrap()
        };
        objects.iter().map(|object| Ok(open(object))).collect()
    }
}

/// The owner and managers change the roles of the others for years; now and then two do so at once.
fn years() -> (Stage, Vec<(Hash32, Vec<u8>)>) {
    let mut stage = Stage::new(PEOPLE, 1);
    for whom in 1..PEOPLE {
        let role = match whom < MANAGERS {
            true => Role::Manager,
            false => Role::Editor,
        };
        stage.now(0, Say::Add(whom, role));
        stage.now(whom, Say::Device(0));
    }
    let mut all = stage.objects.clone();
    let mut heads = vec![all[all.len() - 1].0];
    while all.len() < RECORDS {
        let at_once = 1 + usize::from(all.len().is_multiple_of(20));
        let mut next = Vec::new();
        for n in 0..at_once {
            let nth = all.len();
            let whom = MANAGERS + nth % (PEOPLE - MANAGERS);
            let role = [Role::Editor, Role::Reader][(nth / PEOPLE + n) % 2];
            let made = stage.unheard(nth % MANAGERS, Say::Role(whom, role), &heads);
            next.push(made.0);
            all.push(made);
        }
        heads = next;
    }
    (stage, all)
}

#[test]
fn three_thousand_records_of_fifty_members_take_a_hundredth_of_the_steps_that_are_allowed() {
    let (stage, all) = years();
    let opened = stage.opened(&all);
    let state = stage.fold(opened);
    let steps = state.graph.budget().spent();
    assert_eq!(state.now().members.len(), PEOPLE);
    assert!(steps < (1 << 30) / 100, "{steps}");
}

#[test]
fn what_a_removed_manager_says_of_the_past_of_a_large_team_does_not_keep_it_from_being_judged() {
    let (mut stage, mut all) = years();
    let last = all[all.len() - 1].0;
    let out = stage.unheard(0, Say::Remove(1), &[last]);
    let mut head = out.0;
    all.push(out);
    // He puts everybody out whom he could, in several years, and lets in as many.
    for nth in 0..200 {
        let at = all[1000 + 5 * nth].0;
        let whom = MANAGERS + nth % (PEOPLE - MANAGERS);
        all.push(stage.unheard(1, Say::Remove(whom), &[at]));
    }
    // The owner lets them in again, knowing why.
    let mut state = stage.fold(stage.opened(&all));
    assert_eq!(state.now().members.len(), MANAGERS - 1);
    for whom in MANAGERS..PEOPLE {
        let again = stage.unheard(0, Say::Add(whom, Role::Editor), &state.heads());
        head = again.0;
        state
            .accept(
                stage
                    .opened(std::slice::from_ref(&again))
                    .remove(0)
                    .ok()
                    .unwrap(),
            )
            .unwrap();
        all.push(again);
    }
    assert!(state.heads().contains(&head));
    let opened = stage.opened(&all);
    let state = stage.fold(opened);
    let steps = state.graph.budget().spent();
    assert_eq!(state.now().members.len(), PEOPLE - 1);
    assert!(steps < (1 << 30) / 4, "{steps}");
}
