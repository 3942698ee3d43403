//! What the layers above need of a room: its keys, and who may sign in it.

use crate::keys::{self, CheckpointKey, EpochCommitment, EpochKey, LaneKey, PageKey, RoomSecret};
use crate::names;
use crate::sign::VerifyingKey;
use skrin_base::ids::{EpochId, Hash32, KeyId, PersonId};
use skrin_base::{DeviceId, LaneId, RoomId, SegmentId, VaultId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// An epoch key that is not the one that the epoch's record commits to: whoever wrapped it
/// gave different keys to different people. The epoch must be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "epoch {0}: the key does not match the commitment in its record; do not use this epoch and tell the others who signed it"
)]
pub struct WrongEpochKey(pub EpochId);

struct Epoch {
    key: EpochKey,
    commitment: EpochCommitment,
}

/// The keys of one room. Deriving one costs about a microsecond, so nothing is cached
/// but the two name keys.
pub struct RoomKeys {
    vault: VaultId,
    room: RoomId,
    lane_names: keys::LaneNameKey,
    segment_names: keys::SegmentNameKey,
    epochs: BTreeMap<EpochId, Epoch>,
    current: EpochId,
    clean: BTreeSet<[u8; KEY_TAG_LEN]>,
}

/// So many bytes in front of a file key's id tell under which epoch it was drawn.
pub const KEY_TAG_LEN: usize = 8;

/// What the ids of file keys that are drawn under `epoch` begin with.
pub fn key_tag(epoch: &EpochId) -> [u8; KEY_TAG_LEN] {
    names::key_tag(epoch)
}

impl RoomKeys {
    /// A room with its first epoch, which is the current one and clean.
    ///
    /// # Errors
    /// `WrongEpochKey`.
    pub fn new(
        vault: VaultId,
        room: RoomId,
        secret: &RoomSecret,
        epoch: EpochId,
        key: EpochKey,
        commitment: EpochCommitment,
    ) -> Result<Self, WrongEpochKey> {
        let mut this = Self {
            vault,
            room,
            lane_names: keys::derive_lane_name_key(secret, vault, room),
            segment_names: keys::derive_segment_name_key(secret, vault, room),
            epochs: BTreeMap::new(),
            current: epoch,
            clean: BTreeSet::from([key_tag(&epoch)]),
        };
        this.add_epoch(epoch, key, commitment)?;
        Ok(this)
    }

    /// Adds an epoch; `current` stays.
    ///
    /// # Errors
    /// `WrongEpochKey`.
    pub fn add_epoch(
        &mut self,
        id: EpochId,
        key: EpochKey,
        commitment: EpochCommitment,
    ) -> Result<(), WrongEpochKey> {
        if keys::derive_epoch_commitment(&key, self.vault, self.room) != commitment {
            return Err(WrongEpochKey(id));
        }
        self.epochs.insert(id, Epoch { key, commitment });
        Ok(())
    }

    /// Makes a known epoch the one that is sealed under; says whether it is known.
    pub fn set_current(&mut self, id: EpochId) -> bool {
        let known = self.epochs.contains_key(&id);
        if known {
            self.current = id;
        }
        known
    }

    /// Says which epochs are clean, and that no other is: their records have every ending that is in force among their
    /// ancestors, so that nobody who was put out knows what is drawn under them. Their keys need not be known here.
    pub fn set_clean(&mut self, epochs: impl IntoIterator<Item = EpochId>) {
        self.clean = epochs.into_iter().map(|id| key_tag(&id)).collect();
    }

    /// Whether blocks may still be sealed under this file key: it was drawn under an epoch that is clean. Else the writer
    /// draws a new one, whose id begins with the tag of the current epoch.
    pub fn is_clean(&self, key: &KeyId) -> bool {
        let tag = key.0.first_chunk::<KEY_TAG_LEN>();
        tag.is_some_and(|tag| self.clean.contains(tag))
    }

    /// What the id of a file key begins with that is drawn now.
    pub fn current_key_tag(&self) -> [u8; KEY_TAG_LEN] {
        key_tag(&self.current)
    }

    /// The vault.
    pub fn vault(&self) -> VaultId {
        self.vault
    }

    /// The room.
    pub fn room(&self) -> RoomId {
        self.room
    }

    /// The epoch that new objects are sealed under. It is always known.
    pub fn current(&self) -> (EpochId, EpochCommitment) {
        let commitment = self.commitment(&self.current);
        (self.current, commitment.unwrap_or(EpochCommitment([0; 32])))
    }

    /// What the record of a known epoch commits to.
    pub fn commitment(&self, epoch: &EpochId) -> Option<EpochCommitment> {
        self.epochs.get(epoch).map(|epoch| epoch.commitment)
    }

    /// The known epochs.
    pub fn epochs(&self) -> impl Iterator<Item = EpochId> + '_ {
        self.epochs.keys().copied()
    }

    /// The key of a known epoch, for wrapping it for somebody else; it seals nothing itself.
    pub fn epoch_key(&self, epoch: &EpochId) -> Option<&EpochKey> {
        self.epochs.get(epoch).map(|epoch| &epoch.key)
    }

    /// Seals the commits of `lane`; `None` for an unknown epoch.
    pub fn lane_key(&self, epoch: &EpochId, lane: LaneId) -> Option<LaneKey> {
        let epoch = self.epochs.get(epoch)?;
        Some(keys::derive_lane_key(
            &epoch.key, self.vault, self.room, lane,
        ))
    }

    /// What stands in front of commits of `lane`; `None` for an unknown epoch.
    pub fn hint(&self, epoch: &EpochId, lane: LaneId) -> Option<[u8; 8]> {
        let epoch = self.epochs.get(epoch)?;
        Some(keys::derive_hint(&epoch.key, self.vault, self.room, lane))
    }

    /// The epoch that a commit of `lane` with this hint was sealed under.
    pub fn epoch_by_hint(&self, lane: LaneId, hint: &[u8; 8]) -> Option<EpochId> {
        let fits =
            |epoch: &Epoch| keys::derive_hint(&epoch.key, self.vault, self.room, lane) == *hint;
        // The current one first: it is nearly always that.
        if self.epochs.get(&self.current).is_some_and(fits) {
            return Some(self.current);
        }
        let mut all = self.epochs.iter();
        all.find(|(_, epoch)| fits(epoch)).map(|(id, _)| *id)
    }

    /// Seals pages; `None` for an unknown epoch.
    pub fn page_key(&self, epoch: &EpochId) -> Option<PageKey> {
        let epoch = self.epochs.get(epoch)?;
        Some(keys::derive_page_key(&epoch.key, self.vault, self.room))
    }

    /// Seals roots of checkpoints; `None` for an unknown epoch.
    pub fn checkpoint_key(&self, epoch: &EpochId) -> Option<CheckpointKey> {
        let epoch = self.epochs.get(epoch)?;
        Some(keys::derive_checkpoint_key(
            &epoch.key, self.vault, self.room,
        ))
    }

    /// The lane of a device.
    pub fn lane_id(&self, device: DeviceId, incarnation: u32) -> LaneId {
        names::lane_id(&self.lane_names, device, incarnation)
    }

    /// The `n`-th segment of a lane.
    pub fn segment_id(&self, lane: LaneId, n: u64) -> SegmentId {
        names::segment_id(&self.segment_names, lane, n)
    }
}

/// A device that the control records certify.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RosterDevice {
    /// Verifies its commits.
    pub key: VerifyingKey,
    /// Whose it is.
    pub person: PersonId,
    /// What people call it.
    pub label: String,
    /// What counts of its lanes, once a control record has ended it: its person was removed or made a reader, or the device revoked.
    pub cut: Option<Cut>,
}

/// The ends of the lanes of a device that was cut off, of each branch one: what they name counts, with all before it in its lane.
/// Nothing counts of a lane that has no entry.
pub type Cut = BTreeMap<LaneId, Vec<(u64, Hash32)>>;

/// Who might do what, as of any point in the control records.
pub trait Rights: Send + Sync {
    /// Whether a device's person may change the room's tree, and the device had not been revoked, as far as `heads` and their
    /// ancestors say. `heads` all stand.
    fn may_write(&self, device: DeviceId, heads: &[Hash32]) -> bool;
}

/// Whoever is certified may write: for a room of one person's devices.
#[derive(Clone, Copy, Debug)]
pub struct Everybody;

impl Rights for Everybody {
    fn may_write(&self, _: DeviceId, _: &[Hash32]) -> bool {
        true
    }
}

/// Who may sign commits, as far as the control records that are known say.
#[derive(Clone)]
pub struct Roster {
    /// All devices ever certified.
    pub devices: BTreeMap<DeviceId, RosterDevice>,
    /// The heads of the control records, in ascending order; a commit names them.
    pub control_heads: Vec<Hash32>,
    /// All control records that stand, with their parents.
    pub control: BTreeMap<Hash32, Vec<Hash32>>,
    /// Who might write when.
    pub rights: Arc<dyn Rights>,
}

/// `rights` follow from the records.
impl PartialEq for Roster {
    fn eq(&self, other: &Self) -> bool {
        (&self.devices, &self.control_heads, &self.control)
            == (&other.devices, &other.control_heads, &other.control)
    }
}

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Roster");
        out.field("devices", &self.devices);
        out.field("control_heads", &self.control_heads);
        out.finish_non_exhaustive()
    }
}

impl Roster {
    /// Without any control record.
    pub fn new(rights: Arc<dyn Rights>) -> Self {
        Self {
            devices: BTreeMap::new(),
            control_heads: Vec::new(),
            control: BTreeMap::new(),
            rights,
        }
    }

    /// Whether the control record is known here and stands.
    pub fn stands(&self, record: &Hash32) -> bool {
        self.control.contains_key(record)
    }

    /// Whether each of `earlier` is one of `heads` or an ancestor of one.
    pub fn includes(&self, heads: &[Hash32], earlier: &[Hash32]) -> bool {
        let mut missing: BTreeSet<&Hash32> = earlier.iter().collect();
        let (mut seen, mut todo) = (BTreeSet::new(), heads.iter().collect::<Vec<_>>());
        while let Some(record) = todo.pop() {
            missing.remove(record);
            if missing.is_empty() {
                return true;
            }
            if seen.insert(record) {
                todo.extend(self.control.get(record).into_iter().flatten());
            }
        }
        missing.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::derive_epoch_commitment;

    const VAULT: VaultId = VaultId([1; 16]);
    const ROOM: RoomId = RoomId([2; 16]);
    const LANE: LaneId = LaneId([3; 16]);

    fn epoch(n: u8) -> (EpochId, EpochKey, EpochCommitment) {
        let key = EpochKey::from_bytes([n; 32]);
        let commitment = derive_epoch_commitment(&key, VAULT, ROOM);
        (EpochId([n; 32]), key, commitment)
    }

    fn room() -> RoomKeys {
        let (id, key, commitment) = epoch(1);
        let secret = RoomSecret::from_bytes([9; 32]);
        RoomKeys::new(VAULT, ROOM, &secret, id, key, commitment).unwrap()
    }

    #[test]
    fn a_key_that_its_record_does_not_commit_to_is_refused() {
        let (id, key, _) = epoch(2);
        let wrong = epoch(3).2;
        let mut room = room();
        assert_eq!(room.add_epoch(id, key, wrong), Err(WrongEpochKey(id)));
        assert_eq!(room.epochs().count(), 1);
        let (_, key, _) = epoch(2);
        let secret = RoomSecret::from_bytes([9; 32]);
        assert!(RoomKeys::new(VAULT, ROOM, &secret, id, key, wrong).is_err());
    }

    #[test]
    fn heads_include_themselves_and_all_before_them() {
        let record = |n: u8| Hash32([n; 32]);
        // 1 <- 2 <- 4, 1 <- 3 <- 4, 3 <- 5
        let parents = [
            (1, vec![]),
            (2, vec![1]),
            (3, vec![1]),
            (4, vec![2, 3]),
            (5, vec![3]),
        ];
        let control = parents.map(|(n, p)| (record(n), p.into_iter().map(record).collect()));
        let roster = Roster {
            control: control.into(),
            ..Roster::new(Arc::new(Everybody))
        };
        let includes = |heads: &[u8], earlier: &[u8]| {
            let records = |all: &[u8]| all.iter().map(|n| record(*n)).collect::<Vec<_>>();
            roster.includes(&records(heads), &records(earlier))
        };
        assert!(includes(&[4], &[4]) && includes(&[4], &[1, 2, 3]) && includes(&[2, 5], &[3]));
        assert!(includes(&[], &[]) && includes(&[1], &[]));
        assert!(!includes(&[4], &[5]) && !includes(&[2], &[3]) && !includes(&[], &[1]));
        assert!(!includes(&[4], &[9]));
    }

    #[test]
    fn a_file_key_is_clean_if_the_epoch_of_its_tag_is_said_to_be() {
        let mut room = room();
        let key = |epoch: &EpochId, rest: u8| {
            let mut id = [rest; 16];
            id[..KEY_TAG_LEN].copy_from_slice(&key_tag(epoch));
            KeyId(id)
        };
        let (first, second, third) = (epoch(1).0, epoch(2).0, epoch(3).0);
        assert!(room.is_clean(&key(&first, 0)) && room.is_clean(&key(&first, 9)));
        assert!(!room.is_clean(&key(&second, 0)) && !room.is_clean(&KeyId([0; 16])));
        assert_eq!(room.current_key_tag(), key_tag(&first));
        // Also of one whose key is not known here.
        room.set_clean([second, third]);
        assert!(room.is_clean(&key(&second, 1)) && room.is_clean(&key(&third, 1)));
        assert!(!room.is_clean(&key(&first, 0)), "not any more");
        room.set_clean([]);
        assert!(!room.is_clean(&key(&second, 1)));
    }

    #[test]
    fn the_tag_of_an_epoch_is_the_one_of_the_format() {
        let tag = key_tag(&EpochId([7; 32]));
        let message = [&18u32.to_le_bytes()[..], b"skrin/v1/key-epoch", &[7; 32]].concat();
        assert_eq!(tag, crate::hash(&message).0[..8]);
    }

    #[test]
    fn a_hint_finds_its_epoch_and_only_in_its_lane() {
        let mut room = room();
        let (old, (new, key, commitment)) = (room.current().0, epoch(2));
        room.add_epoch(new, key, commitment).unwrap();
        assert_eq!(room.current().0, old, "adding does not switch");
        assert!(room.set_current(new));
        assert_eq!(room.current(), (new, commitment));
        for id in [old, new] {
            let hint = room.hint(&id, LANE).unwrap();
            assert_eq!(room.epoch_by_hint(LANE, &hint), Some(id));
            assert_eq!(room.epoch_by_hint(LaneId([4; 16]), &hint), None);
        }
    }

    #[test]
    fn unknown_epochs_have_no_keys_and_do_not_become_current() {
        let mut room = room();
        let unknown = EpochId([7; 32]);
        assert!(room.lane_key(&unknown, LANE).is_none());
        assert!(room.hint(&unknown, LANE).is_none());
        assert!(room.page_key(&unknown).is_none());
        assert!(room.checkpoint_key(&unknown).is_none());
        assert!(!room.set_current(unknown));
        assert_eq!(room.current().0, EpochId([1; 32]));
    }

    #[test]
    fn names_depend_on_room_device_incarnation_and_number_but_not_on_the_epoch() {
        let mut room = room();
        let device = DeviceId([5; 16]);
        let lane = room.lane_id(device, 1);
        assert_ne!(lane, room.lane_id(device, 2));
        assert_ne!(lane, room.lane_id(DeviceId([6; 16]), 1));
        assert_ne!(room.segment_id(lane, 1), room.segment_id(lane, 2));
        let (id, key, commitment) = epoch(2);
        room.add_epoch(id, key, commitment).unwrap();
        room.set_current(id);
        assert_eq!(lane, room.lane_id(device, 1));
    }
}
