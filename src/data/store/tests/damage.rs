use super::*;

fn flip(world: &World, id: SegmentId, at: usize) {
    let name = object_name(id).unwrap();
    let mut bytes = world.storage.peek(&name).unwrap().to_vec();
    bytes[at] ^= 0x10;
    world.storage.tamper(&name, Some(bytes.into()));
}

fn offset(slot: usize, len: usize) -> usize {
    16 + slot * (len + 28)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_a_block_hurts_that_block_only_and_verify_names_it() {
    let world = World::new();
    let written = Written::new(&world.open(), 20, 4096).await;
    let info = Arc::new(written.the_info().clone());
    for within in [0, 12, 2000, 4123] {
        flip(&world, info.id, offset(7, 4096) + within);
        let store = world.open();
        let got = store
            .read((0..20).map(|b| written.request(b)).collect())
            .await;
        for (block, got) in got.into_iter().enumerate() {
            match got {
                Err(DataError::Integrity {
                    segment,
                    slot: Some(7),
                    flaw: Flaw::Hash,
                }) if block == 7 => {
                    assert_eq!(segment, info.id);
                }
                other => assert_eq!(&*other.unwrap(), plain(block as u64, 4096)),
            }
        }
        let verified = store
            .verify_segment(Arc::clone(&info), vec![])
            .await
            .unwrap();
        assert_eq!(verified.flaws, [(Some(7), Flaw::Hash)]);
        assert_eq!(verified.blocks, 19);
        flip(&world, info.id, offset(7, 4096) + within);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bytes_elsewhere_are_named_by_verify() {
    let world = World::new();
    let written = Written::new(&world.open(), 20, 4096).await;
    let info = Arc::new(written.the_info().clone());
    let table = info.table_offset as usize;
    for (at, flaw) in [
        (3, Flaw::Header),
        (15, Flaw::Header),
        (offset(20, 4096), Flaw::Padding),
        (table - 1, Flaw::Padding),
    ] {
        flip(&world, info.id, at);
        let store = world.open();
        let verified = store
            .verify_segment(Arc::clone(&info), vec![])
            .await
            .unwrap();
        assert_eq!(verified.flaws, [(None, flaw)], "byte {at}");
        written.check(&store, 0..20).await;
        flip(&world, info.id, at);
    }
    for at in [table, table + 300, info.object_len as usize - 1] {
        flip(&world, info.id, at);
        let store = world.open();
        let error = store
            .verify_segment(Arc::clone(&info), vec![])
            .await
            .unwrap_err();
        assert!(error.to_string().contains(&info.id.to_string()), "{error}");
        let got = store.read(vec![written.request(3)]).await.remove(0);
        assert!(matches!(
            got,
            Err(DataError::Integrity {
                flaw: Flaw::Hash,
                ..
            })
        ));
        flip(&world, info.id, at);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_segment_verifies_and_its_blocks_open() {
    let world = World::new();
    let written = Written::new(&world.open(), 20, 4096).await;
    let store = world.open();
    let info = Arc::new(written.the_info().clone());
    let reads = (0..20).map(|b| written.request(b)).collect();
    let verified = store.verify_segment(info, reads).await.unwrap();
    assert_eq!(
        (verified.blocks, verified.opened, verified.flaws),
        (20, 20, vec![])
    );
    let other = BlockRead {
        origin_block: 4,
        ..written.request(3)
    };
    let verified = store
        .verify_segment(Arc::new(written.the_info().clone()), vec![other])
        .await
        .unwrap();
    assert_eq!(verified.flaws, [(Some(3), Flaw::Seal)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_another_length_swapped_or_missing_are_refused() {
    let world = World::new();
    let store = world.open();
    let a = Written::new(&store, 3, 4096).await;
    let b = Written::new(&store, 3, 4096).await;
    drop(store);
    let (name_a, name_b) = (
        object_name(a.the_info().id).unwrap(),
        object_name(b.the_info().id).unwrap(),
    );
    let good = world.storage.peek(&name_a).unwrap();
    let read = || async { world.open().read(vec![a.request(1)]).await.remove(0) };
    world.storage.tamper(&name_a, world.storage.peek(&name_b));
    assert!(
        matches!(read().await, Err(DataError::Integrity { .. })),
        "swapped"
    );
    world
        .storage
        .tamper(&name_a, Some(good.slice(..good.len() - 1)));
    assert!(
        matches!(
            read().await,
            Err(DataError::Integrity {
                flaw: Flaw::Length,
                ..
            })
        ),
        "cut"
    );
    world
        .storage
        .tamper(&name_a, Some(Bytes::from([&good[..], &[0]].concat())));
    assert!(read().await.is_err(), "longer");
    world.storage.tamper(&name_a, None);
    assert!(matches!(read().await, Err(DataError::Missing(_))));
    assert!(matches!(
        world
            .open()
            .verify_segment(Arc::new(a.the_info().clone()), vec![])
            .await,
        Err(DataError::Missing(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_opens_only_as_what_it_was_sealed() {
    let world = World::new();
    let written = Written::new(&world.open(), 3, 4096).await;
    let good = written.request(1);
    let wrong = [
        BlockRead {
            key_id: KeyId([0; 16]),
            ..good.clone()
        },
        BlockRead {
            key: Arc::new(FileKey::from_bytes([0; 32])),
            ..good.clone()
        },
        BlockRead {
            origin_file: Ino(78),
            ..good.clone()
        },
        BlockRead {
            origin_block: 2,
            ..good.clone()
        },
    ];
    let store = world.open();
    for read in wrong {
        let got = store.read(vec![read]).await.remove(0);
        assert!(matches!(
            got,
            Err(DataError::Integrity {
                slot: Some(1),
                flaw: Flaw::Seal,
                ..
            })
        ));
    }
    let beyond = BlockRead {
        at: BlockRef { slot: 3, ..good.at },
        ..good
    };
    let got = store.read(vec![beyond]).await.remove(0);
    assert!(matches!(
        got,
        Err(DataError::Integrity {
            slot: Some(3),
            flaw: Flaw::NoSlot,
            ..
        })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declaration_that_lies_is_refused_without_a_panic() {
    let world = World::new();
    let written = Written::new(&world.open(), 3, 4096).await;
    let info = written.the_info().clone();
    let lies: [fn(&mut SegmentInfo); 6] = [
        |i| i.table_offset = 20,
        |i| i.table_offset = i.object_len - 1,
        |i| i.object_len -= 1,
        |i| i.object_len += 1,
        |i| i.slots = 65_536,
        |i| i.author = LaneId([0; 16]),
    ];
    for lie in lies {
        let mut info = info.clone();
        lie(&mut info);
        let read = BlockRead {
            info: Some(Arc::new(info)),
            ..written.request(1)
        };
        assert!(world.open().read(vec![read]).await.remove(0).is_err());
    }
}
