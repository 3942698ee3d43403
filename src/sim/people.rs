//! Several persons: some remove others, who go on writing until they hear of it, and come back with new devices. The world plays the
//! vault: it makes the control records, and tells each device of them at another time.

use crate::body::Image;
use crate::many::Many;
use crate::world::{Machine, World};
use bytes::Bytes;
use skrin_base::{DeviceId, Hash32};
use skrin_crypto::{Cut, Rights};
use skrin_meta::lane::RoomNames;
use skrin_meta::state;
use skrin_storage::Store;
use std::collections::{BTreeMap, BTreeSet};

/// The record that there is from the beginning.
pub(crate) const FIRST: Hash32 = Hash32([5; 32]);

/// A record that ends devices. Each follows the one before it.
pub(crate) struct Removal {
    pub(crate) id: Hash32,
    /// Each with what counts of it.
    pub(crate) ended: BTreeMap<DeviceId, Cut>,
}

/// The control records, and who knows how many.
#[derive(Default)]
pub(crate) struct People {
    pub(crate) removals: Vec<Removal>,
    pub(crate) told: BTreeMap<usize, usize>,
    /// The highest number of an operation that counts, of each device that was ended.
    last: BTreeMap<DeviceId, u64>,
}

/// Who was ended by the n-th record.
pub(crate) struct Ended(pub(crate) Vec<(Hash32, BTreeSet<DeviceId>)>);

impl Rights for Ended {
    fn may_write(&self, device: DeviceId, heads: &[Hash32]) -> bool {
        let up_to = self.0.iter().rposition(|(id, _)| heads.contains(id));
        let known = up_to.map_or(0, |last| last + 1);
        !self.0[..known]
            .iter()
            .any(|(_, ended)| ended.contains(&device))
    }
}

impl World {
    /// Lets a device read all control records.
    pub(crate) fn tell(&self, machine: &Machine) {
        let known = self.people.borrow().removals.len();
        let device = machine.body.device;
        let roster = self.roster(known);
        let keys = self.room_keys(known);
        match self.wait(machine.replica.set_control(roster, keys)) {
            Ok(()) => drop(self.people.borrow_mut().told.insert(device, known)),
            Err(error) => self.fail("people", format!("device {device} is told: {error}")),
        }
    }
}

/// Something that people do to each other, and the control records that get around.
pub(crate) fn act(many: &mut Many<'_>, who: usize) {
    match many.below(5) {
        0 | 1 => remove(many, who),
        2 => come_back(many, who),
        _ => hear(many, who),
    }
}

fn hear(many: &Many<'_>, who: usize) {
    let Some(machine) = many.machine(who) else {
        return;
    };
    if many.world.wait(machine.replica.needs_control()) || many.below(3) == 0 {
        many.world.tell(machine);
    }
}

fn remove(many: &mut Many<'_>, who: usize) {
    let whom = many.below(many.count() as u64) as usize;
    if whom == who || many.gone[who] || many.gone[whom] || !many.may_come_back() {
        return;
    }
    let Some(machine) = many.machine(who).filter(|m| m.is_alive()) else {
        return;
    };
    let world = many.world;
    world.tell(machine);
    let device = world.device(many.device(whom));
    let cut = machine.replica.cut_of(&[device]);
    let last = state::last_counter(&machine.replica.tree(), device).unwrap();
    let id = {
        let mut people = world.people.borrow_mut();
        let id = Hash32([100 + people.removals.len() as u8; 32]);
        let ended = BTreeMap::from([(device, cut)]);
        people.removals.push(Removal { id, ended });
        people.last.insert(device, last);
        id
    };
    world.trace.event("removed", format!("{whom} by {who}"));
    let tip = RoomNames(world.room()).control_tip(&id).unwrap();
    let put = machine.link.put(&tip, Bytes::from_static(b"\n"));
    world.trace.note(format!("tip {}", world.wait(put).is_ok()));
    world.tell(machine);
    many.gone[whom] = true;
    many.lose_unsettled(whom);
}

/// Whoever was removed comes back with a new device, sooner or later.
pub(crate) fn come_back(many: &mut Many<'_>, who: usize) {
    if many.gone[who] {
        many.gone[who] = false;
        many.begin_anew(who, Image::default());
    }
}

/// Nothing counts of devices that were ended but what was admitted when they were.
pub(crate) fn check(many: &Many<'_>, machine: &Machine) {
    for (device, last) in &many.world.people.borrow().last {
        let counts = state::last_counter(&machine.replica.tree(), *device).unwrap();
        if counts > *last {
            many.fail(format!(
                "operation {counts} of {device} counts, cut after {last}"
            ));
        }
    }
}
