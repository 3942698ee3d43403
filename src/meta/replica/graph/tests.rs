use super::*;
use crate::commit::CheckpointRef;
use crate::testing::World;
use proptest::prelude::*;

/// A room in which several lanes publish by the rules, each having seen what it is told to have seen.
struct Lanes {
    world: World,
    /// Everything that was published, with what each lane knows.
    all: Vec<(Head, Commit)>,
    known: Vec<Graph>,
}

impl Lanes {
    fn new(lanes: usize) -> Self {
        Self {
            world: World::new(7),
            all: Vec::new(),
            known: vec![Graph::default(); lanes],
        }
    }

    fn lane(&self, n: usize) -> LaneId {
        self.world.first_commit(n).lane
    }

    fn learn(&mut self, n: usize, up_to: usize) {
        for (head, commit) in &self.all[..up_to] {
            if !self.known[n].knows(head) {
                self.known[n].admit(head, commit).unwrap();
            }
        }
    }

    fn publish(&mut self, n: usize) -> &(Head, Commit) {
        let (lane, graph) = (self.lane(n), &mut self.known[n]);
        let tip = graph.lanes.get(&lane).and_then(|l| l.tip().cloned());
        let heads = graph.heads_to_name(lane);
        let mut commit = self.world.first_commit(n);
        commit.seq = tip.as_ref().map_or(0, |tip| tip.seq + 1);
        commit.prev = tip.as_ref().map_or(Hash32::default(), |tip| tip.hash);
        commit.lamport = graph.next_lamport(lane, &heads);
        commit.heads = heads;
        let head = Head {
            lane,
            seq: commit.seq,
            hash: skrin_crypto::hash(&commit.to_bytes()),
        };
        assert_eq!(graph.admit(&head, &commit), Ok(Admitted::default()));
        self.all.push((head, commit));
        self.all.last().unwrap()
    }

    /// Everything that a commit follows, itself included.
    fn past(&self, head: &Head) -> BTreeSet<Head> {
        let mut past = BTreeSet::new();
        let mut queue = vec![*head];
        while let Some(head) = queue.pop() {
            if past.insert(head) {
                let (_, commit) = self.all.iter().find(|(h, _)| *h == head).unwrap();
                queue.extend(Graph::parents(commit));
            }
        }
        past
    }

    /// The definition of the floor, by trying.
    fn floor_by_definition(&self) -> u64 {
        let lanes: BTreeSet<LaneId> = self.all.iter().map(|(head, _)| head.lane).collect();
        let holds = |floor: u64| {
            let below = self.all.iter().filter(|(_, c)| c.lamport <= floor);
            let below: BTreeSet<Head> = below.map(|(head, _)| *head).collect();
            lanes.iter().all(|lane| {
                let mut later = self
                    .all
                    .iter()
                    .filter(|(h, c)| h.lane == *lane && c.lamport > floor);
                later.any(|(head, _)| below.is_subset(&self.past(head)))
            })
        };
        let highest = self.all.iter().map(|(_, c)| c.lamport).max().unwrap_or(0);
        (0..=highest).rev().find(|floor| holds(*floor)).unwrap_or(0)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_floor_is_the_one_of_the_definition(steps in prop::collection::vec((0usize..3, 0.0f64..1.0, any::<bool>()), 1..40)) {
        let mut lanes = Lanes::new(3);
        for (n, seen, publish) in steps {
            let up_to = (lanes.all.len() as f64 * seen).ceil() as usize;
            lanes.learn(n, up_to);
            if publish {
                lanes.publish(n);
            }
        }
        let mut all = Graph::default();
        for (head, commit) in &lanes.all {
            all.admit(head, commit).unwrap();
        }
        prop_assert_eq!(all.floor(), lanes.floor_by_definition());
    }

    #[test]
    fn a_graph_from_the_cache_is_the_graph(steps in prop::collection::vec((0usize..3, any::<bool>()), 1..20)) {
        let mut lanes = Lanes::new(3);
        for (n, learn) in steps {
            if learn {
                let all = lanes.all.len();
                lanes.learn(n, all);
            }
            lanes.publish(n);
        }
        let mut graph = Graph::default();
        for (head, commit) in &lanes.all {
            graph.admit(head, commit).unwrap();
        }
        let (floor, latest) = (graph.floor(), graph.latest());
        let (rows, nodes) = graph.take_dirty();
        let rows = rows.into_iter().map(|(id, row)| (id, Lane::from_bytes(&row).unwrap()));
        let nodes = nodes.into_iter().map(|(id, row)| (id, Node::from_bytes(&row).unwrap()));
        let again = Graph::restore(rows.collect(), nodes.collect());
        prop_assert_eq!(&again.lanes, &graph.lanes);
        prop_assert_eq!((again.floor(), again.latest()), (floor, latest));
        prop_assert!(lanes.all.iter().all(|(head, _)| again.knows(head)));
    }

    #[test]
    fn what_stays_named_of_a_forked_lane_is_what_nothing_else_follows_that_was_named(
        parents in prop::collection::vec(any::<prop::sample::Index>(), 1..24),
        named in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 1..5), 1..6),
    ) {
        let (world, mut graph) = (World::new(9), Graph::default());
        let mut tree = vec![(put(&mut graph, &world, (0, None), Vec::new(), 0), None)];
        for (time, parent) in parents.iter().enumerate() {
            let at = parent.index(tree.len());
            let before = Some(tree[at].0);
            let head = put(&mut graph, &world, (0, before), Vec::new(), time as i64 + 1);
            tree.push((head, Some(at)));
        }
        let precedes = |earlier: usize, later: usize| {
            let mut before = std::iter::successors(tree[later].1, |at: &usize| tree[*at].1);
            before.any(|at| at == earlier)
        };
        let (mut all, mut last) = (BTreeSet::new(), None);
        for list in &named {
            let list: BTreeSet<usize> = list.iter().map(|at| at.index(tree.len())).collect();
            let mut heads: Vec<Head> = list.iter().map(|at| tree[*at].0).collect();
            heads.sort();
            last = Some(put(&mut graph, &world, (1, last), heads, 1));
            all.extend(list);
            let newest = all.iter().filter(|at| !all.iter().any(|other| precedes(**at, *other)));
            let newest: BTreeSet<Head> = newest.map(|at| tree[*at].0).collect();
            let tips = &graph.lanes[&world.first_commit(1).lane].tips;
            prop_assert_eq!(&tips[0].named, &newest);
            prop_assert_eq!(&graph.named_by(&tips[0].hash), &newest);
        }
    }
}

/// A commit of a device after another of its lane, which names these.
fn put(
    graph: &mut Graph,
    world: &World,
    (n, before): (usize, Option<Head>),
    heads: Vec<Head>,
    time: i64,
) -> Head {
    let followed = before.iter().chain(&heads);
    let latest = followed.filter_map(|head| graph.admitted(head)).max();
    let commit = Commit {
        seq: before.map_or(0, |before| before.seq + 1),
        prev: before.map_or(Hash32::default(), |before| before.hash),
        lamport: latest.unwrap_or(0) + 1,
        heads,
        time: Timestamp(time),
        ..world.first_commit(n)
    };
    let head = Head {
        lane: commit.lane,
        seq: commit.seq,
        hash: skrin_crypto::hash(&commit.to_bytes()),
    };
    graph.admit(&head, &commit).unwrap();
    head
}

#[test]
fn the_end_of_one_branch_stays_named_when_another_goes_on() {
    let (world, mut graph) = (World::new(10), Graph::default());
    let mut add = |n, before, heads, time| put(&mut graph, &world, (n, before), heads, time);
    let first = add(0, None, Vec::new(), 0);
    let mut one = first;
    for _ in 0..2 {
        one = add(0, Some(one), Vec::new(), 1);
    }
    let mut other = add(0, Some(first), Vec::new(), 2);
    let mut names = add(1, None, vec![one], 1);
    names = add(1, Some(names), vec![other], 1);
    for _ in 0..3 {
        other = add(0, Some(other), Vec::new(), 2);
    }
    add(1, Some(names), vec![other], 1);
    let tips = &graph.lanes[&names.lane].tips;
    assert_eq!(tips[0].named, BTreeSet::from([one, other]));
}

/// Once each was compared with each, for each of them.
#[test]
fn thousands_of_branches_that_are_named_at_once_are_looked_at_once() {
    let (world, mut graph) = (World::new(11), Graph::default());
    let mut add = |n, before, heads, time| put(&mut graph, &world, (n, before), heads, time);
    let first = add(0, None, Vec::new(), 0);
    let branches = 1..=skrin_base::limits::HEADS_MAX as i64;
    let mut ends: Vec<Head> = branches
        .map(|time| add(0, Some(first), Vec::new(), time))
        .collect();
    ends.sort();
    let mut names = add(1, None, ends.clone(), 1);
    for end in &mut ends {
        *end = add(0, Some(*end), Vec::new(), 1);
    }
    ends.sort();
    names = add(1, Some(names), ends.clone(), 1);
    let tips = &graph.lanes[&names.lane].tips;
    assert_eq!(tips[0].named, ends.into_iter().collect());
}

#[test]
fn a_declared_lamport_time_that_is_not_the_computed_one_is_refused() {
    let mut lanes = Lanes::new(2);
    lanes.publish(0);
    lanes.learn(1, 1);
    let (head, commit) = lanes.publish(1).clone();
    for said in [0, 1, 3, u64::MAX] {
        let mut graph = Graph::default();
        let (first, body) = &lanes.all[0];
        graph.admit(first, body).unwrap();
        let lying = Commit {
            lamport: said,
            ..commit.clone()
        };
        let refused = Refusal::Bad(Fault::Lamport { said, computed: 2 });
        assert_eq!(graph.admit(&head, &lying), Err(refused));
        assert_eq!(graph.admit(&head, &commit), Ok(Admitted::default()));
    }
}

#[test]
fn a_commit_waits_for_everything_that_it_follows() {
    let mut lanes = Lanes::new(2);
    let first = lanes.publish(0).0;
    lanes.learn(1, 1);
    let (head, commit) = lanes.publish(1).clone();
    let mut graph = Graph::default();
    assert_eq!(
        graph.admit(&head, &commit),
        Err(Refusal::Missing(vec![first]))
    );
    assert!(!graph.knows(&head));
}

#[test]
fn both_branches_of_a_fork_are_admitted_and_told() {
    let mut lanes = Lanes::new(1);
    lanes.publish(0);
    let before = lanes.known[0].clone();
    let (one, one_commit) = lanes.publish(0).clone();
    lanes.known[0] = before;
    let mut other_commit = one_commit.clone();
    other_commit.time.0 += 1;
    let other = Head {
        hash: skrin_crypto::hash(&other_commit.to_bytes()),
        ..one
    };
    let graph = &mut lanes.known[0];
    assert!(!graph.admit(&one, &one_commit).unwrap().forked);
    assert!(graph.admit(&other, &other_commit).unwrap().forked);
    assert_eq!(graph.lanes[&one.lane].tips.len(), 2);
    assert!(graph.knows(&one) && graph.knows(&other));
}

/// The second commit of the second device, which names a head that its first has named.
fn names_again(lanes: &Lanes, old: Head) -> (Head, Commit) {
    let mut commit = lanes.world.first_commit(1);
    let tip = lanes.known[1].lanes[&commit.lane].tip().unwrap().clone();
    (commit.seq, commit.prev, commit.heads) = (1, tip.hash, vec![old]);
    commit.lamport = tip.lamport + 1;
    let head = Head {
        lane: commit.lane,
        seq: 1,
        hash: skrin_crypto::hash(&commit.to_bytes()),
    };
    (head, commit)
}

#[test]
fn naming_an_older_head_again_is_noticed_and_changes_nothing() {
    let mut lanes = Lanes::new(2);
    let old = lanes.publish(0).0;
    lanes.publish(0);
    lanes.learn(1, 2);
    lanes.publish(1);
    let before = lanes.known[1].floor();
    let (head, commit) = names_again(&lanes, old);
    assert!(lanes.known[1].admit(&head, &commit).unwrap().went_back);
    assert!(lanes.known[1].floor() >= before);
}

#[test]
fn what_is_not_above_the_checkpoint_that_a_commit_calls_standing_may_be_named_again() {
    let mut lanes = Lanes::new(2);
    let old = lanes.publish(0).0;
    lanes.learn(1, 1);
    lanes.publish(1);
    let (head, mut commit) = names_again(&lanes, old);
    let time = lanes.known[1].admitted(&old).unwrap();
    for (floor, went_back) in [(time - 1, true), (time, false)] {
        commit.standing = Some(CheckpointRef {
            name: [1; 16],
            hash: Hash32([2; 32]),
            floor,
        });
        let mut graph = lanes.known[1].clone();
        assert_eq!(graph.admit(&head, &commit).unwrap().went_back, went_back);
    }
}

#[test]
fn a_shorter_branch_that_comes_late_is_named_after_a_longer_one_and_is_no_way_back() {
    let mut lanes = Lanes::new(3);
    lanes.publish(2);
    lanes.publish(0);
    let before = lanes.known[0].clone();
    lanes.publish(0);
    let long = lanes.publish(0).0;
    lanes.known[0] = before;
    lanes.learn(0, 1);
    let short = lanes.publish(0).0;
    assert!(short.lane == long.lane && short.seq < long.seq);
    lanes.learn(1, 4);
    assert!(lanes.publish(1).1.heads.contains(&long));
    lanes.learn(1, 5);
    // Looks itself that nothing is told of it.
    assert_eq!(lanes.publish(1).1.heads, [short]);
}

#[test]
fn after_a_close_nothing_counts_and_the_floor_does_not_wait() {
    let mut lanes = Lanes::new(2);
    lanes.publish(0);
    lanes.publish(1);
    lanes.learn(1, 1);
    lanes.publish(1);
    lanes.publish(1);
    assert_eq!(
        lanes.known[1].floor(),
        0,
        "lane 0 has seen nothing of lane 1"
    );
    let (lane, tip) = (
        lanes.lane(0),
        lanes.known[1].lanes[&lanes.lane(0)].tip().unwrap().clone(),
    );
    let (own, before) = (
        lanes.lane(1),
        lanes.known[1].lanes[&lanes.lane(1)].tip().unwrap().clone(),
    );
    let mut commit = lanes.world.first_commit(1);
    (commit.seq, commit.prev, commit.lamport) = (before.seq + 1, before.hash, before.lamport + 1);
    commit.closes = vec![Head {
        lane,
        seq: tip.seq,
        hash: tip.hash,
    }];
    let head = Head {
        lane: own,
        seq: commit.seq,
        hash: skrin_crypto::hash(&commit.to_bytes()),
    };
    assert_eq!(lanes.known[1].admit(&head, &commit).unwrap().closed, [lane]);
    assert_eq!(lanes.known[1].floor(), before.lamport);
    assert!(lanes.known[1].is_after_close(&Head {
        lane,
        seq: 1,
        hash: tip.hash
    }));
    assert!(!lanes.known[1].is_after_close(&Head {
        lane,
        seq: 0,
        hash: tip.hash
    }));
}

/// Only one commit has the number, as the other branch lies in the checkpoint there.
#[test]
fn a_branch_that_a_checkpoint_holds_further_is_not_taken_for_the_other_one() {
    let world = World::new(8);
    let first = world.first_commit(0);
    let lane = first.lane;
    let covered = |seq, hash, lamport| Covered {
        seq,
        hash: Hash32([hash; 32]),
        lamport,
    };
    let ends = vec![covered(5, 1, 6), covered(7, 2, 8)];
    let mut begun = Lane::new(first.device, first.incarnation);
    for end in &ends {
        begun.tips.push(Tip {
            seq: end.seq,
            hash: end.hash,
            lamport: end.lamport,
            time: Timestamp(1),
            control: Vec::new(),
            named: BTreeSet::new(),
        });
    }
    begun.covered = ends;
    let mut graph = Graph::default();
    graph.cover(lane, begun);
    let mut add = |seq, prev, lamport| {
        let commit = Commit {
            seq,
            prev: Hash32([prev; 32]),
            lamport,
            ..first.clone()
        };
        let hash = skrin_crypto::hash(&commit.to_bytes());
        let head = Head { lane, seq, hash };
        graph.admit(&head, &commit).unwrap();
        head
    };
    let (short, long) = (add(6, 1, 7), add(8, 2, 9));
    assert!(!graph.precedes_any(&short, &[(long.seq, long.hash)]));
    assert!(graph.precedes_any(&short, &[(short.seq, short.hash)]));
    assert_eq!(graph.last_at(lane, 9).len(), 2);
}
