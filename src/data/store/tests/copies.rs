//! Blocks that were copied to another segment as they were sealed.

use super::*;

/// Blocks in one segment, some of which were copied to another one, by a device that has nothing in memory any more.
struct Moved {
    world: World,
    store: DataStore,
    written: Written,
    /// The host, too.
    infos: HashMap<SegmentId, SegmentInfo>,
    relocation: Relocation,
}

/// Every fourth block was copied.
async fn moved(world: World) -> Moved {
    let store = world.open();
    let written = Written::new(&store, 40, 5000).await;
    let info = Arc::new(written.the_info().clone());
    let runs = (0..40).step_by(4).map(|slot| CopiedRun {
        first_slot: slot,
        count: 1,
        host: info.id,
        host_slot: slot,
        table_slot: 0,
    });
    let needed = vec![(Arc::clone(&info), runs.collect())];
    let copied = store.copy_blocks(Arc::clone(&info), needed).await.unwrap();
    let mut infos = publish(&store).await;
    assert_eq!((copied.len(), infos.len()), (1, 1));
    infos.extend(written.infos.clone());
    let moved = Moved {
        store: world.open(),
        relocation: copied[0].clone(),
        world,
        written,
        infos,
    };
    moved.say(|runs| runs);
    moved
}

impl Moved {
    /// Lets the store know of the copies, as somebody says it.
    fn say(&self, told: impl Fn(Vec<CopiedRun>) -> Vec<CopiedRun>) {
        let infos = self.infos.iter();
        let copies = Copies {
            runs: told(self.relocation.runs.clone()),
            hosts: infos
                .map(|(id, info)| (*id, Arc::new(info.clone())))
                .collect(),
        };
        let mut known = self.world.copies.lock();
        known.insert(self.relocation.segment, copies);
    }

    fn host(&self) -> SegmentId {
        self.relocation.runs[0].host
    }

    async fn delete(&self, id: SegmentId) {
        self.store.delete(id).await.unwrap();
    }

    /// Changes one byte of an object.
    async fn flip(&self, id: SegmentId, at: usize) {
        let name = object_name(id).unwrap();
        let mut bytes = self.world.storage.peek(&name).unwrap().to_vec();
        bytes[at] ^= 1;
        self.delete(id).await;
        self.world.storage.put(&name, bytes.into()).await.unwrap();
    }

    async fn read(&self, block: u64) -> Result<Block, DataError> {
        let read = self.store.read(vec![self.written.request(block)]);
        read.await.remove(0)
    }

    async fn check(&self) -> Result<u64, DataError> {
        let info = Arc::new(self.written.the_info().clone());
        let copies = self.world.copies.lock().get(&info.id).cloned().unwrap();
        self.store.check_copies(info, copies).await
    }
}

#[tokio::test]
async fn copied_blocks_are_read_when_their_segment_is_gone_and_neighbours_by_one_request() {
    let moved = moved(World::new()).await;
    assert_eq!(moved.check().await.unwrap(), 10);
    let old = moved.relocation.segment;
    moved.delete(old).await;
    let before = moved.world.counts();
    let store = moved.world.open();
    moved.written.check(&store, (0..40).step_by(4)).await;
    // The table of the host, that of the segment, and the blocks, which are neighbours there.
    assert_eq!(moved.world.counts().ranges - before.ranges, 3);
    assert_eq!(moved.world.counts().gets - before.gets, 0);
    let gone = moved.read(1).await;
    assert!(
        matches!(gone, Err(DataError::Missing(id)) if id == old),
        "{gone:?}"
    );
}

#[tokio::test]
async fn the_storage_does_not_see_that_copied_bytes_are_the_same() {
    let moved = moved(World::new()).await;
    let object = |id| {
        let name = object_name(id).unwrap();
        moved.world.storage.peek(&name).unwrap()
    };
    let (old, new) = (object(moved.relocation.segment), object(moved.host()));
    let parts: HashSet<&[u8]> = old.windows(16).collect();
    let zeros = [0; 16];
    let same = new
        .windows(16)
        .filter(|part| *part != zeros && parts.contains(part));
    // The header.
    assert_eq!(same.count(), 1);
}

#[tokio::test]
async fn a_copy_that_is_missing_or_damaged_is_looked_for_in_the_segment_itself() {
    for (damage, flawed) in [(false, false), (true, true)] {
        let moved = moved(World::new()).await;
        match damage {
            // In the first block behind the copied table.
            true => moved.flip(moved.host(), 16 + 85 + 40 * 41 + 28 + 100).await,
            false => moved.delete(moved.host()).await,
        }
        moved.written.check(&moved.store, 0..40).await;
        assert!(moved.check().await.is_err());
        moved.delete(moved.relocation.segment).await;
        moved.store.inner.blocks.invalidate_all();
        let error = moved.read(0).await.unwrap_err();
        assert_eq!(!matches!(error, DataError::Missing(_)), flawed, "{error}");
    }
}

#[tokio::test]
async fn a_copied_table_that_is_damaged_is_not_believed() {
    let moved = moved(World::new()).await;
    moved.flip(moved.host(), 16 + 50).await;
    moved.written.check(&moved.store, 0..40).await;
    let checked = moved.check().await;
    let wrong = |id, flaw: &Flaw| id == moved.host() && *flaw == Flaw::Hash;
    assert!(
        matches!(&checked, Err(DataError::Integrity { segment, flaw, .. }) if wrong(*segment, flaw)),
        "{checked:?}"
    );
}

/// Whoever may write has the key of the file, and can seal what he likes for the old place.
#[tokio::test]
async fn another_text_that_a_member_sealed_for_the_old_place_is_refused() {
    let moved = moved(World::new()).await;
    let info = moved.written.the_info().clone();
    let forged = plain(999, 5000);
    let aad = skrin_crypto::BlockAad {
        vault: moved.world.config.vault,
        room: moved.world.config.room,
        segment: info.id,
        slot: 0,
        author: info.author,
        key_id: KEY,
        origin_file: FILE,
        origin_block: 0,
        plain_len: 5000,
        flags: 0,
    };
    let mut sealed = Vec::new();
    skrin_crypto::seal_block_into(&key(), &aad, &forged, &SeededEntropy::new(5), &mut sealed);
    let entry = crate::segment::Entry {
        sealed_len: sealed.len() as u32,
        plain_len: 5000,
        flags: 0,
        hash: skrin_crypto::hash(&sealed),
    };
    // The table that he puts beside it is the true one: another has another hash.
    let inner = &moved.store.inner;
    let name = object_name(info.id).unwrap();
    let object = moved.world.storage.peek(&name).unwrap();
    let table = object.slice(info.table_offset as usize..);
    let whole = crate::segment::Entry {
        sealed_len: table.len() as u32,
        plain_len: table.len() as u32 - 28,
        flags: 0,
        hash: skrin_crypto::hash(&table),
    };
    let table_at = inner.put_copy(&whole, &table).unwrap();
    let at = inner.put_copy(&entry, &sealed).unwrap();
    let declared = publish(&moved.store).await;
    let lie = CopiedRun {
        first_slot: 0,
        count: 1,
        host: at.segment,
        host_slot: at.slot,
        table_slot: table_at.slot,
    };
    let mut infos = moved.infos.clone();
    infos.extend(declared);
    let moved = Moved { infos, ..moved };
    moved.say(|_| vec![lie]);
    assert_eq!(&*moved.read(0).await.unwrap(), plain(0, 5000));
    assert!(moved.check().await.is_err());
    moved.delete(info.id).await;
    moved.store.inner.blocks.invalidate_all();
    let error = moved.read(0).await.unwrap_err();
    assert!(
        matches!(error, DataError::Missing(_) | DataError::Integrity { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn copies_of_copies_are_those_that_were_sealed_first() {
    let moved = moved(World::new()).await;
    let old = moved.relocation.segment;
    moved.delete(old).await;
    let host = Arc::new(moved.infos[&moved.host()].clone());
    let info = Arc::new(moved.written.the_info().clone());
    let runs = moved.relocation.runs[..3].to_vec();
    let copied = moved
        .store
        .copy_blocks(host, vec![(info, runs)])
        .await
        .unwrap();
    let declared = publish(&moved.store).await;
    moved.delete(moved.host()).await;
    let mut infos = moved.infos.clone();
    infos.extend(declared);
    let relocation = copied[0].clone();
    let moved = Moved {
        store: moved.world.open(),
        infos,
        relocation,
        ..moved
    };
    moved.say(|runs| runs);
    assert_eq!(moved.check().await.unwrap(), 3);
    moved.written.check(&moved.store, [0, 4, 8]).await;
}

#[tokio::test]
async fn copies_that_are_interrupted_by_the_end_of_a_segment_take_their_table_along() {
    let world = World::new();
    let store = world.open();
    let written = Written::new(&store, 100, 65_536).await;
    let info = Arc::new(written.the_info().clone());
    // So much is in the segment that is being filled that not all of it fits.
    for n in 0..60 {
        write(&store, 1000 + n, 65_536);
    }
    let run = CopiedRun {
        first_slot: 0,
        count: 100,
        host: info.id,
        host_slot: 0,
        table_slot: 0,
    };
    let needed = vec![(Arc::clone(&info), vec![run])];
    let copied = store.copy_blocks(Arc::clone(&info), needed).await.unwrap();
    let lens: Vec<u32> = copied
        .iter()
        .map(|r| r.runs.iter().map(|r| r.count).sum())
        .collect();
    assert_eq!((lens.len(), lens.iter().sum::<u32>()), (2, 100), "{lens:?}");
    let infos = publish(&store).await;
    let copies = Copies {
        runs: copied.iter().flat_map(|r| r.runs.clone()).collect(),
        hosts: infos
            .into_iter()
            .map(|(id, info)| (id, Arc::new(info)))
            .collect(),
    };
    assert_eq!(
        store
            .check_copies(Arc::clone(&info), copies.clone())
            .await
            .unwrap(),
        100
    );
    world.copies.lock().insert(info.id, copies);
    store.delete(info.id).await.unwrap();
    written.check(&world.open(), 0..100).await;
}

#[tokio::test]
async fn what_is_pinned_is_kept_from_where_it_lies_now() {
    let moved = moved(World::new().with_disk_cache(64 << 20)).await;
    moved.delete(moved.relocation.segment).await;
    let _ = std::fs::remove_dir_all(moved.world.dir.path().join("cache"));
    let store = moved.world.open();
    let info = Arc::new(moved.written.the_info().clone());
    let slots: Vec<Range<u32>> = (0..40).step_by(4).map(|slot| slot..slot + 1).collect();
    store.keep(Arc::clone(&info), &slots).await.unwrap();
    assert_eq!(store.absent(info.id, &slots), []);
    let before = moved.world.counts();
    moved.written.check(&store, (0..40).step_by(4)).await;
    assert_eq!(moved.world.counts().ranges, before.ranges);
}

#[tokio::test]
async fn a_member_who_names_a_thousand_false_places_costs_a_reader_a_few_requests() {
    let moved = moved(World::new()).await;
    let host = moved.host();
    // One for each slot, of which none has the table.
    moved.say(|_| {
        let lie = |slot| CopiedRun {
            first_slot: slot,
            count: 1,
            host,
            host_slot: 1,
            table_slot: 2 + slot % 8 + 1000 * (slot / 8),
        };
        (0..1600).map(lie).collect()
    });
    let store = moved.world.open();
    let before = moved.world.counts();
    let read = store.read(vec![moved.written.request(1)]).await.remove(0);
    assert!(read.is_ok());
    // The table of the host, three slots of it that are not in it or not the table, the table itself, the block there and here.
    let requests = moved.world.counts().ranges - before.ranges;
    assert_eq!(requests, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_of_another_segment_are_copied_where_their_object_takes_all_the_memory_there_is_for_it()
 {
    let mut moved = moved(World::new()).await;
    moved.delete(moved.relocation.segment).await;
    moved.world.config.fetch_bytes = 4 << 10;
    moved.store = moved.world.open();
    let host = Arc::new(moved.infos[&moved.host()].clone());
    assert!(host.object_len > moved.world.config.fetch_bytes);
    let info = Arc::new(moved.written.the_info().clone());
    let needed = vec![(info, moved.relocation.runs.clone())];
    let copying = moved.store.copy_blocks(host, needed);
    let copied = tokio::time::timeout(Duration::from_secs(120), copying).await;
    let copied = copied.expect("it waits for its own place").unwrap();
    assert_eq!(copied.len(), 1);
}
