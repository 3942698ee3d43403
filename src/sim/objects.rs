//! What lies on the storage in the end, compared with what is needed and with what the rules let lie (docs/simulation.md, section 2).

use crate::cloud::kind_of;
use crate::world::{Machine, World};
use skrin_base::{SegmentId, SegmentInfo};
use skrin_meta::state;
use skrin_meta::usage::Usage;
use skrin_storage::ObjectName;
use std::collections::{BTreeMap, BTreeSet};

impl World {
    /// Everything that the tree names lies there; nothing does of which nobody knows why. `all` are the devices that run, and agree;
    /// `is_clear`: they have deleted what nobody needs.
    pub(crate) fn check_objects(
        &self,
        scene: &str,
        machine: &Machine,
        all: &[&Machine],
        is_clear: bool,
    ) {
        let stored = self.stored_segments(scene);
        let mut declared = BTreeSet::new();
        let needed = {
            let tree = machine.replica.tree();
            let note = |info: SegmentInfo| {
                declared.insert(info.id);
                Ok(())
            };
            state::for_each_segment(&tree, note).unwrap();
            Usage::of(&tree).unwrap().objects()
        };
        for id in &needed {
            if !stored.contains_key(id) || !declared.contains(id) {
                self.fail(
                    scene,
                    format!("segment {id} is needed, and is not there or not declared"),
                );
            }
        }
        let mut unneeded = 0;
        for (id, name) in &stored {
            if needed.contains(id) {
                continue;
            }
            if declared.contains(id) {
                unneeded += 1;
                continue;
            }
            // On its way to a commit.
            let is_known =
                |m: &&Machine| m.data.is_undeclared(id) || m.replica.tree().redeclares(id);
            if all.iter().any(is_known) {
                continue;
            }
            // A process that died had put what no operation named yet, or is gone with its disk.
            let maker = self.cloud.maker(name);
            let lives = |m: &&Machine| maker == Some((m.body.device, m.body.run()));
            if all.iter().any(lives) {
                self.fail(
                    scene,
                    format!("{name} is of a device that runs and knows nothing of it"),
                );
            }
            self.trace.event("segment left over", name.to_string());
        }
        if is_clear && unneeded > 0 {
            self.fail(
                scene,
                format!("{unneeded} segments lie there that nobody needs"),
            );
        }
    }

    /// The segments that lie there whole. Whatever lies there is of a kind that there is.
    fn stored_segments(&self, scene: &str) -> BTreeMap<SegmentId, ObjectName> {
        // Whoever put these in part is gone.
        let parts = self.cloud.parts.lock().clone();
        let mut stored = BTreeMap::new();
        for name in self.cloud.objects.names() {
            match kind_of(name.as_str()) {
                "other" => self.fail(scene, format!("nobody knows what {name} is")),
                "segments" if !parts.contains(&name) => {
                    match SegmentId::from_hex(name.file_name()) {
                        Some(id) => drop(stored.insert(id, name)),
                        None => self.fail(scene, format!("{name} is no name of a segment")),
                    }
                }
                _ => {}
            }
        }
        stored
    }
}
