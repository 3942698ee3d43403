//! What commits say of segments, and which of these may be deleted.

use super::checkpoints::with_checkpoint;
use super::*;
use crate::commit::{CheckedCommit, Decided, Opinion};
use crate::op::{Body, Kind, OpKind, Place, SlotRun};
use crate::state;
use crate::usage::Usage;
use skrin_base::{Content, Extent, Ino, KeyId, SegmentInfo, Stored, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

fn segment_of(vault: &Vault, author: LaneId, number: u64) -> SegmentInfo {
    SegmentInfo {
        id: vault.world.keys.segment_id(author, number),
        author,
        number,
        object_len: 262_144,
        table_offset: 262_000,
        table_hash: Hash32([6; 32]),
        table_key: [6; 32],
        slots: 64,
    }
}

fn settled(lane: LaneId, below: u64) -> Settled {
    Settled {
        numbers: Some((lane, below)),
        ..Settled::default()
    }
}

/// What the newest commit of a lane of the device says of its segments.
fn said(vault: &Vault, device: &Device, lane: LaneId) -> Decided {
    newest(vault, device, lane).commit().decided.clone()
}

fn newest(vault: &Vault, device: &Device, lane: LaneId) -> CheckedCommit {
    let own = device.replica().commits.list().unwrap();
    let tip = own.into_iter().rfind(|head| head.lane == lane).unwrap();
    let name = RoomNames(vault.world.keys.room()).commit(&tip).unwrap();
    let bytes = vault.store.peek(&name).unwrap();
    let (keys, roster) = (&vault.world.keys, vault.world.roster());
    crate::commit::open_commit(&tip, &bytes, keys, &roster).unwrap()
}

async fn publish(device: &Device, settled: Settled) {
    let published = device.replica().publish(u64::MAX, Vec::new(), settled);
    published.await.unwrap();
}

#[tokio::test]
async fn commits_decide_numbers_once_and_name_those_that_were_given_up() {
    let vault = Vault::new(70);
    let mut rng = Rng(70);
    let mut device = vault.open(0).await;
    let lane = device.replica().own_lane().await;
    let declared = segment_of(&vault, lane, 1);
    device.replica().core.lock().redeclare.push(declared);
    publish(&device, settled(lane, 3)).await;
    let expect = |below, abandoned: &[u64]| Decided {
        below,
        abandoned: abandoned.to_vec(),
    };
    assert_eq!(said(&vault, &device, lane), expect(3, &[0, 2]));
    device.act(&mut rng);
    publish(&device, settled(lane, 5)).await;
    assert_eq!(said(&vault, &device, lane), expect(5, &[3, 4]));
    // Who knows less for a while takes nothing back, before a restart or after.
    device.open(&vault).await.unwrap();
    for (known, below) in [(2, 5), (6, 6)] {
        device.act(&mut rng);
        publish(&device, settled(lane, known)).await;
        let given_up: Vec<u64> = (5..below).collect();
        assert_eq!(said(&vault, &device, lane), expect(below, &given_up));
    }
}

#[tokio::test]
async fn numbers_of_another_lane_decide_nothing() {
    let vault = Vault::new(71);
    let mut rng = Rng(71);
    let mut device = vault.open(0).await;
    let lane = device.replica().own_lane().await;
    device.act(&mut rng);
    publish(&device, settled(LaneId([9; 16]), 3)).await;
    assert_eq!(said(&vault, &device, lane), Decided::default());
    publish(&device, settled(lane, 3)).await;
    device.replica().close_lane(settled(lane, 3)).await.unwrap();
    assert_eq!(said(&vault, &device, lane).below, 3);
    // The next lane begins anew.
    device.act(&mut rng);
    publish(&device, settled(lane, 3)).await;
    let next = device.replica().own_lane().await;
    assert_ne!(next, lane);
    assert_eq!(said(&vault, &device, next), Decided::default());
}

#[tokio::test]
async fn a_number_that_only_void_commits_declare_is_not_decided() {
    let vault = Vault::new(72);
    let mut rng = Rng(72);
    let mut device = vault.open(0).await;
    let lane = device.replica().own_lane().await;
    device.act(&mut rng);
    publish(&device, settled(lane, 1)).await;
    let void = segment_of(&vault, lane, 4);
    device.replica().core.lock().redeclare.push(void);
    // A commit that closes the lane declares nothing again.
    device.replica().close_lane(settled(lane, 9)).await.unwrap();
    let decided = said(&vault, &device, lane);
    assert_eq!((decided.below, decided.abandoned), (4, vec![1, 2, 3]));
}

/// It may name contents that nobody else knows to be needed.
#[tokio::test]
async fn a_device_releases_no_checkpoint_while_something_waits_that_it_had_when_it_noticed_that() {
    let (vault, mut device) = with_checkpoint(73).await;
    let mut rng = Rng(73);
    let lane = device.replica().own_lane().await;
    (0..2).for_each(|_| device.act(&mut rng));
    let release = device.replica().tree().releasable();
    assert!(release.is_some());
    let first = device.journal[device.journal.len() - 2].id.counter;
    for (upto, releases) in [(first, 0), (u64::MAX, 1)] {
        let settled = Settled {
            release,
            ..Settled::default()
        };
        let published = device.replica().publish(upto, Vec::new(), settled);
        published.await.unwrap();
        let newest = newest(&vault, &device, lane);
        let commit = newest.commit();
        assert_eq!(commit.ops.len(), 1);
        let said = commit.verdicts.iter();
        let said = said.filter(|verdict| verdict.opinion == Opinion::Release);
        assert_eq!(said.count(), releases);
    }
}

const SECOND: u64 = 1_000_000_000;
const KEPT: u64 = 60 * SECOND;
const BLOCK: u64 = 65_536;

/// A file as a program opened it.
struct Handle {
    ino: Ino,
    base: OpId,
    place: Place,
    extents: Vec<Extent>,
}

/// A device with what its file system would hold.
struct Player {
    device: Device,
    segments: u64,
    /// What commits have to declare.
    undeclared: Vec<SegmentInfo>,
    handles: Vec<Handle>,
}

struct Game {
    vault: Vault,
    players: Vec<Player>,
    rng: Rng,
    deleted: BTreeSet<SegmentId>,
    /// Wherever blocks were ever copied.
    copied: BTreeMap<(SegmentId, u32), BTreeSet<SegmentId>>,
    rules: GarbageRules,
    /// Whether listings are old now and then, so that commits come late.
    stale: bool,
}

/// Segments and slots.
type Blocks = BTreeSet<(SegmentId, u32)>;

fn names(extents: &[Extent]) -> impl Iterator<Item = (SegmentId, u32)> {
    extents.iter().flat_map(|extent| match &extent.content {
        Content::Stored(stored) => {
            let slots = stored.first_slot..stored.first_slot + extent.count;
            slots.map(|slot| (stored.segment, slot)).collect()
        }
        Content::Hole | Content::Lost => Vec::new(),
    })
}

fn named_by(rows: &dyn Rows) -> Blocks {
    let mut all = BTreeSet::new();
    let visit = |extent| {
        all.extend(names(&[extent]));
        Ok(())
    };
    state::for_each_extent(rows, visit).unwrap();
    all
}

fn write(handle: &Handle, id: OpId, full: bool, list: Vec<Extent>) -> Op {
    let end = |list: &[Extent]| list.last().map_or(1, Extent::end);
    let size = end(&list).max(end(&handle.extents)) * BLOCK;
    let size = if full { end(&list) * BLOCK } else { size };
    let kind = OpKind::Write {
        ino: handle.ino,
        base: handle.base,
        size,
        mtime: Timestamp(1),
        keys: Vec::new(),
        body: Body::Extents { full, list },
        place: handle.place.clone(),
        attributes: crate::testing::a_plain_file(),
    };
    let time = Timestamp(1);
    Op { id, time, kind }
}

impl Player {
    /// Opens a file of the tree.
    fn open_file(&self, rng: &mut Rng) -> Option<Handle> {
        let tree = self.device.replica().tree();
        let mut files = Vec::new();
        state::for_each_entry(&tree, |dir, name, entry| {
            let inode = state::inode(&tree, entry.ino)?;
            if let Some(inode) = inode.filter(|inode| inode.kind == Kind::File) {
                let entry_id = entry.id;
                let place = Place {
                    dir,
                    name,
                    entry: entry_id,
                };
                files.push((entry.ino, inode.version, place));
            }
            Ok(())
        })
        .unwrap();
        let (ino, base, place) = rng.pick(&files)?.clone();
        let extents = state::extents(&tree, ino, 0, u64::MAX).unwrap();
        Some(Handle {
            ino,
            base,
            place,
            extents,
        })
    }

    fn execute(&mut self, op: Op) {
        self.device.journal.push(op.clone());
        self.device.replica().tree().execute(op).unwrap();
    }

    fn next_id(&self) -> OpId {
        self.device.replica().tree().next_op_id().unwrap()
    }

    /// Stores blocks in a new segment.
    async fn store(&mut self, vault: &Vault, first_block: u64, count: u32) -> Extent {
        let lane = self.device.replica().own_lane().await;
        self.segments += 1;
        let info = segment_of(vault, lane, self.segments);
        self.undeclared.push(info.clone());
        Extent {
            first_block,
            count,
            content: Content::Stored(Stored {
                segment: info.id,
                first_slot: 0,
                key: KeyId([0; 16]),
                origin_file: Ino(77),
                origin_block: first_block,
            }),
        }
    }

    /// Writes to a file as it is, or as it was when it was opened.
    async fn write(&mut self, vault: &Vault, rng: &mut Rng) {
        let handle = match rng.below(3) {
            0 if !self.handles.is_empty() => {
                let at = rng.below(self.handles.len() as u64) as usize;
                self.handles.swap_remove(at)
            }
            _ => match self.open_file(rng) {
                Some(handle) => handle,
                None => return,
            },
        };
        let blocks = handle.extents.last().map_or(0, Extent::end);
        let (full, list) = match rng.below(4) {
            // Shares the blocks of another file.
            0 => match self.open_file(rng) {
                Some(other) if !other.extents.is_empty() => (true, other.extents),
                _ => return,
            },
            // Appends, and names everything.
            1 => {
                let new = self.store(vault, blocks, 2).await;
                let mut list = handle.extents.clone();
                list.push(new);
                (true, list)
            }
            // Changes one block.
            2 if blocks > 0 => (false, vec![self.store(vault, rng.below(blocks), 1).await]),
            _ => (true, vec![self.store(vault, 0, 3).await]),
        };
        let op = write(&handle, self.next_id(), full, list);
        self.execute(op);
    }

    /// Copies what is needed of half-dead segments into one.
    async fn repack(
        &mut self,
        vault: &Vault,
        sparse: &[Sparse],
    ) -> Vec<((SegmentId, u32), SegmentId)> {
        let lane = self.device.replica().own_lane().await;
        self.segments += 1;
        let info = segment_of(vault, lane, self.segments);
        let (host, mut next, mut copied) = (info.id, 0, Vec::new());
        self.undeclared.push(info);
        for located in sparse.iter().flat_map(|sparse| &sparse.needed) {
            let run = located.run;
            if next + run.count + 1 > 64 {
                break;
            }
            let op = Op {
                id: self.next_id(),
                time: Timestamp(1),
                kind: OpKind::Relocate {
                    segment: located.segment,
                    host,
                    table_slot: next,
                    runs: vec![SlotRun {
                        first: run.first_slot,
                        count: run.count,
                        at: next + 1,
                    }],
                },
            };
            next += run.count + 1;
            self.execute(op);
            let slots = run.first_slot..run.end();
            copied.extend(slots.map(|slot| ((located.segment, slot), host)));
        }
        copied
    }

    /// What the file system tells the replica.
    fn settled(&self) -> Settled {
        let tree = self.device.replica().tree();
        let release = tree.releasable();
        let version = |ino| state::inode(&tree, ino).unwrap().map(|inode| inode.version);
        let mut handles = self.handles.iter();
        let clean = handles.all(|handle| version(handle.ino) == Some(handle.base));
        Settled {
            numbers: None,
            release: release.filter(|_| clean),
            heads: true,
        }
    }

    async fn publish(&mut self, upto: u64) {
        let settled = self.settled();
        {
            let mut core = self.device.replica().core.lock();
            for info in std::mem::take(&mut self.undeclared) {
                if state::segment(&core.rows, info.id).unwrap().is_none() {
                    core.redeclare.push(info);
                }
            }
        }
        let replica = self.device.replica();
        replica.publish(upto, Vec::new(), settled).await.unwrap();
    }
}

impl Game {
    async fn new(seed: u64) -> Self {
        let vault = Vault::new(seed);
        let mut players = Vec::new();
        let mut rng = Rng(seed);
        for n in 0..3 {
            let mut device = vault.open(n).await;
            device.act(&mut rng);
            let mut player = Player {
                device,
                segments: 0,
                undeclared: Vec::new(),
                handles: Vec::new(),
            };
            player.publish(u64::MAX).await;
            players.push(player);
        }
        Self {
            rules: GarbageRules {
                now: vault.clock.now(),
                retention: Some(KEPT),
                unproven: 0,
                away: u64::MAX,
            },
            vault,
            players,
            rng,
            deleted: BTreeSet::new(),
            copied: BTreeMap::new(),
            stale: seed % 2 == 1,
        }
    }

    async fn step(&mut self) {
        let Self {
            vault,
            players,
            rng,
            stale,
            ..
        } = self;
        vault.clock.advance(rng.below(12) * SECOND);
        let n = rng.below(3) as usize;
        let player = &mut players[n];
        if player.device.replica.is_none() {
            player.device.open(vault).await.unwrap();
        }
        match rng.below(28) {
            0..=3 => player.device.act(rng),
            4..=9 => player.write(vault, rng).await,
            10..=11 => {
                let file = player.open_file(rng);
                player.handles.extend(file);
            }
            12..=13 => drop(player.handles.pop()),
            14..=16 => drop(player.device.replica().pull().await.unwrap()),
            17..=20 => {
                // Sometimes only a part fits into what is published.
                let pending = player.device.replica().tree().first_pending();
                let some = pending.map_or(u64::MAX, |first| first + rng.below(3));
                let upto = if rng.below(2) == 0 { u64::MAX } else { some };
                if *stale && rng.below(8) == 0 {
                    let stale = skrin_storage::fault::Failure::StaleList;
                    let rule = skrin_storage::fault::Rule::new(stale);
                    player.device.faults.add(rule);
                }
                player.publish(upto).await;
                player.device.faults.clear();
            }
            21..=22 => drop(player.device.replica().checkpoint().await.unwrap()),
            23 => {
                player.handles.clear();
                match rng.below(3) {
                    0 => player.device.forget_cache(),
                    1 => player.device.replica = None,
                    _ => {
                        player.publish(u64::MAX).await;
                        let settled = player.settled();
                        player.device.replica().close_lane(settled).await.unwrap();
                        player.device.replica = None;
                    }
                }
            }
            _ => {
                let sparse = self.collect(n).await;
                if !sparse.is_empty() && self.rng.below(2) == 0 {
                    let copied = self.players[n].repack(&self.vault, &sparse).await;
                    for (block, host) in copied {
                        self.copied.entry(block).or_default().insert(host);
                    }
                }
            }
        }
    }

    /// Deletes what may be deleted, and looks whether everything that is promised can be read.
    async fn collect(&mut self, n: usize) -> Vec<Sparse> {
        let now = self.vault.clock.now();
        let replica = self.players[n].device.replica();
        replica.pull().await.unwrap();
        let history = replica.history(now, |_| {}).await.unwrap();
        let rules = GarbageRules { now, ..self.rules };
        let garbage = replica
            .find_garbage(&history, &Needed::default(), &rules)
            .unwrap();
        let problem = |hold: &&Hold| matches!(hold, Hold::Problem(_));
        assert_eq!(garbage.holds.iter().find(problem), None);
        assert!(garbage.base.is_some() || !garbage.holds.is_empty());
        let before = self.deleted.len();
        self.deleted.extend(garbage.dead.iter().map(|info| info.id));
        for segment in garbage.vacated.values().flatten() {
            let located = &garbage.relocated[segment];
            let missing = located.iter().find(|l| self.deleted.contains(&l.run.host));
            assert_eq!(missing, None, "what was relocated is gone");
        }
        if self.deleted.len() == before {
            return garbage.sparse;
        }
        let newest = history.commits().map(|c| c.commit.time.0).max().unwrap();
        let from = newest - KEPT as i64;
        for _ in 0..4 {
            let time = Timestamp(from + self.rng.below(KEPT + 1) as i64);
            let rows = history.rows(&history.at_time(time).unwrap()).unwrap();
            self.assert_kept(&named_by(&rows), "a state of the past");
            self.assert_found(n, &named_by(&rows));
        }
        for player in &self.players {
            let held = player.handles.iter().flat_map(|h| names(&h.extents));
            let held = held.collect();
            self.assert_kept(&held, "an open file");
            self.assert_found(n, &held);
        }
        self.look();
        garbage.sparse
    }

    /// Whoever has seen everything finds these blocks where he looks for them.
    fn assert_found(&self, n: usize, needed: &Blocks) {
        let replica = self.players[n].device.replica();
        for (segment, slot) in needed {
            let copies = replica.copies(*segment);
            let run = copies.and_then(|copies| copies.find(*slot));
            let object = run.map_or(*segment, |run| run.host);
            assert!(
                !self.deleted.contains(&object),
                "{segment} {slot} is in {object}"
            );
        }
    }

    /// Every device can read what it sees.
    fn look(&self) {
        for player in &self.players {
            if let Some(replica) = &player.device.replica {
                self.assert_kept(&named_by(&replica.tree()), "a tree");
            }
        }
    }

    fn assert_kept(&self, needed: &Blocks, by: &str) {
        let is_lost = |block: &&(SegmentId, u32)| {
            let mut hosts = self.copied.get(block).into_iter().flatten();
            self.deleted.contains(&block.0) && hosts.all(|host| self.deleted.contains(host))
        };
        assert_eq!(
            needed.iter().find(is_lost),
            None,
            "{by} needs what was deleted"
        );
    }

    /// Everybody does what it does in the end, and time passes.
    async fn rest(&mut self) {
        for round in 0..5 {
            self.vault.clock.advance(KEPT + SECOND);
            for n in 0..3 {
                let player = &mut self.players[n];
                player.handles.clear();
                if player.device.replica.is_none() {
                    player.device.open(&self.vault).await.unwrap();
                }
                player.device.replica().pull().await.unwrap();
                if round < 2 {
                    player.device.act(&mut self.rng);
                }
                player.publish(u64::MAX).await;
            }
            self.players[0].device.replica().checkpoint().await.unwrap();
            self.players[0].publish(u64::MAX).await;
            self.look();
        }
    }
}

#[tokio::test]
async fn no_segment_is_dead_that_any_device_or_any_kept_state_still_needs_and_all_others_are_in_the_end()
 {
    let (mut early, mut repacked) = (0, 0);
    for seed in 800..800 + seeds(12) {
        println!("seed {seed}");
        let mut game = Game::new(seed).await;
        for _ in 0..220 {
            game.step().await;
            game.look();
        }
        early += game.deleted.len();
        let vacated = |block: &&(SegmentId, u32)| game.deleted.contains(&block.0);
        repacked += game.copied.keys().filter(vacated).count();
        game.rest().await;
        game.collect(1).await;
        let tree = game.players[1].device.replica().tree();
        let named = Usage::of(&tree).unwrap().objects();
        let mut left = Vec::new();
        state::for_each_segment(&tree, |info| {
            if !named.contains(&info.id) && !game.deleted.contains(&info.id) {
                left.push(info.id);
            }
            Ok(())
        })
        .unwrap();
        drop(tree);
        // Who was shown an old listing may have opened a lane far below all others, and holds the floor.
        assert!(
            game.stale || left.is_empty(),
            "seed {seed}: dead and never deleted: {left:?}"
        );
    }
    assert!(early > 0, "the programs delete something on their way");
    assert!(
        repacked > 0,
        "and something of which they copied what was needed"
    );
}

/// How many programs are tried; more with `SKRIN_SEEDS`.
fn seeds(usual: u64) -> u64 {
    let said = std::env::var("SKRIN_SEEDS").ok();
    said.and_then(|said| said.parse().ok()).unwrap_or(usual)
}
