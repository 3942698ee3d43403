//! The world at some heads: who is a member, as what, and with which devices (docs/format/vault.md, section 4.4).

use super::graph::{Budget, Effect, Graph, Tangled, View};
use crate::record::{CutTips, History, Role};
use skrin_base::Timestamp;
use skrin_base::ids::{DeviceId, Hash32, LaneId, PersonId};
use skrin_crypto::{Cut, Rights};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Worlds that are remembered for judging commits: those that name the same heads come together.
const REMEMBERED: usize = 64;

/// Somebody who is a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// What he may do.
    pub role: Role,
    /// When he was let in, as the clock of who did so had it.
    pub since: Timestamp,
    /// Who let him in; the owner himself in his own case.
    pub author: PersonId,
    /// When he is meant to leave.
    pub until: Option<Timestamp>,
    /// Which epochs he was given.
    pub history: History,
    /// Whether his keys answered an invitation. If not, nobody has proven whose they are.
    pub invited: bool,
    /// How far from the owner he is: managers end and change only managers who are farther than they. Other members are
    /// farther than any.
    pub depth: u32,
    /// The record that let him in.
    pub add: Hash32,
}

/// Who is who at some heads of the control records.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct World {
    /// The members.
    pub members: BTreeMap<PersonId, Member>,
    /// The devices that read: certified, of members, not ended. And whose they are.
    pub devices: BTreeMap<DeviceId, PersonId>,
    /// What counts of the lanes of devices that write no more. Those of somebody who may only read are among `devices`, too.
    pub cuts: BTreeMap<DeviceId, Cut>,
}

impl World {
    /// What a person may do; `None` if he is no member.
    pub fn role(&self, person: &PersonId) -> Option<Role> {
        self.members.get(person).map(|member| member.role)
    }

    /// Whether the person may change the room's tree, and the device is his and was not ended.
    pub fn may_write(&self, device: &DeviceId) -> bool {
        let person = self.devices.get(device);
        let role = person.and_then(|person| self.role(person));
        role.is_some_and(|role| role <= Role::Editor) && !self.cuts.contains_key(device)
    }
}

/// The world of a view.
pub(super) fn derive(
    graph: &Graph,
    genesis: Hash32,
    view: &View,
    budget: &Budget,
) -> Result<World, Tangled> {
    graph.charge_for_all(budget)?;
    let mut world = World::default();
    let owner = graph.owner();
    for person in std::iter::once(&owner).chain(graph.about()) {
        let Some(standing) = graph.standing(view, person) else {
            continue;
        };
        let add = standing.add.and_then(|n| graph.record(n));
        let (mut until, mut history, mut invited) = (None, History::All, true);
        if let Some(Effect::Add {
            until: u,
            history: h,
            invited: i,
            ..
        }) = add.map(|add| &add.effect)
        {
            (until, history, invited) = (*u, *h, *i);
        }
        let begin = graph.record(0).map_or(Timestamp(0), |record| record.time);
        let member = Member {
            role: standing.role,
            since: add.map_or(begin, |add| add.time),
            author: add.map_or(owner, |add| add.author),
            until,
            history,
            invited,
            depth: standing.depth,
            add: add.map_or(genesis, |add| add.id),
        };
        world.members.insert(*person, member);
        let living = graph.devices_of(view, person).into_iter();
        world.devices.extend(living.map(|device| (device, *person)));
    }
    for (device, _) in graph.all_devices() {
        // What nobody certifies has written nothing.
        if !graph.is_certified(view, device) {
            world.cuts.insert(*device, Cut::new());
            continue;
        }
        let cuts = graph.cuts_of(view, device);
        if let Some(cut) = cuts.into_iter().map(as_cut).reduce(|a, b| within(&a, &b)) {
            world.cuts.insert(*device, cut);
        }
    }
    Ok(world)
}

fn as_cut(tips: &CutTips) -> Cut {
    let mut cut = Cut::new();
    for tip in tips {
        let of_lane: &mut Vec<_> = cut.entry(tip.lane).or_default();
        of_lane.push((tip.seq, tip.commit));
    }
    cut
}

/// What lies within both cuts: of each lane the tips that both name, and those below one of the other. (Which branch of a
/// forked lane a lower tip is on cannot be seen here; then what one of the two accepted counts.)
fn within(a: &Cut, b: &Cut) -> Cut {
    let mut out = Cut::new();
    for (lane, tips) in a {
        let Some(others) = b.get(lane) else {
            continue;
        };
        let kept = lower(tips, others);
        if !kept.is_empty() {
            let lane: LaneId = *lane;
            out.insert(lane, kept);
        }
    }
    out
}

fn lower(a: &[(u64, Hash32)], b: &[(u64, Hash32)]) -> Vec<(u64, Hash32)> {
    let fits = |tip: &(u64, Hash32), others: &[(u64, Hash32)]| {
        others.iter().any(|other| other == tip || other.0 > tip.0)
    };
    let mut kept: Vec<_> = a.iter().filter(|tip| fits(tip, b)).copied().collect();
    kept.extend(b.iter().filter(|tip| fits(tip, a)));
    kept.sort_unstable();
    kept.dedup();
    kept
}

/// Judges commits by the control heads that they name.
pub(super) struct WorldRights {
    graph: Arc<Graph>,
    genesis: Hash32,
    seen: Mutex<BTreeMap<Vec<Hash32>, Arc<World>>>,
}

impl WorldRights {
    pub(super) fn new(graph: Arc<Graph>, genesis: Hash32) -> Self {
        Self {
            graph,
            genesis,
            seen: Mutex::default(),
        }
    }

    fn world(&self, heads: &[Hash32]) -> Option<Arc<World>> {
        let mut seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(world) = seen.get(heads) {
            return Some(world.clone());
        }
        let budget = Budget::default();
        let view = self.graph.view_within(heads, &budget).ok()?;
        let world = Arc::new(derive(&self.graph, self.genesis, &view, &budget).ok()?);
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        seen.insert(heads.to_vec(), world.clone());
        Some(world)
    }
}

impl Rights for WorldRights {
    fn may_write(&self, device: DeviceId, heads: &[Hash32]) -> bool {
        let world = self.world(heads);
        world.is_some_and(|world| world.may_write(&device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tip(seq: u64, n: u8) -> (u64, Hash32) {
        (seq, Hash32([n; 32]))
    }

    #[test]
    fn a_commit_has_to_lie_within_each_of_several_cuts() {
        // The lower tip, whichever cut has it.
        assert_eq!(lower(&[tip(5, 1)], &[tip(7, 2)]), [tip(5, 1)]);
        assert_eq!(lower(&[tip(7, 2)], &[tip(5, 1)]), [tip(5, 1)]);
        assert_eq!(lower(&[tip(5, 1)], &[tip(5, 1)]), [tip(5, 1)]);
        // Two branches of one length: nothing is certainly in both.
        assert_eq!(lower(&[tip(5, 1)], &[tip(5, 2)]), []);
        let both = [tip(5, 1), tip(6, 2)];
        assert_eq!(lower(&both, &[tip(7, 3)]), both);
        assert_eq!(lower(&both, &[tip(6, 2)]), both);
    }

    #[test]
    fn a_lane_that_one_cut_does_not_name_is_cut_at_zero() {
        let (one, two) = (LaneId([1; 16]), LaneId([2; 16]));
        let a = Cut::from([(one, vec![tip(5, 1)]), (two, vec![tip(1, 1)])]);
        let b = Cut::from([(one, vec![tip(3, 2)])]);
        assert_eq!(within(&a, &b), Cut::from([(one, vec![tip(3, 2)])]));
        assert_eq!(within(&a, &Cut::new()), Cut::new());
    }
}
