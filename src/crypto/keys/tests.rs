use super::*;
use crate::{DeviceSigner, KemSecret, RootSigner, WordsSigner};
use std::fmt::{Debug, Display};

/// Does not compile if `$key` has the trait: then two implementations fit.
macro_rules! lacks {
    ($key:ty: $($trait:path),*) => {$({
        trait Ambiguous<A> { fn check() {} }
        impl<T: ?Sized> Ambiguous<()> for T {}
        struct Has;
        impl<T: ?Sized + $trait> Ambiguous<Has> for T {}
        <$key as Ambiguous<_>>::check();
    })*};
}

macro_rules! secret {
    ($($key:ty),* $(,)?) => {
        $(
            lacks!($key: Debug, Display, Clone, Copy, PartialEq, AsRef<[u8]>, std::hash::Hash);
            // Not: T: Drop, which may be in a field.
            assert!(std::mem::needs_drop::<$key>(), "it is wiped when dropped");
        )*
    };
}

#[test]
fn no_key_prints_copies_or_compares_and_all_are_wiped() {
    secret!(
        VaultSecret,
        ControlKey,
        RoomSecret,
        LaneNameKey,
        SegmentNameKey,
        EpochKey,
        LaneKey,
        PageKey,
        CheckpointKey,
        TableKey,
        FileKey,
        SlotKey,
        RootSeed,
        DeviceSeed,
        WordsEntropy,
        LocalKey,
        KemSecret,
        DeviceSigner,
        RootSigner,
        WordsSigner,
    );
}

#[test]
fn a_wiped_key_is_all_zeros() {
    let mut key = EpochKey::from_bytes([7; 32]);
    key.zeroize();
    assert_eq!(key.expose(), &[0; 32]);
}

#[test]
fn keys_of_different_purposes_lanes_and_rooms_differ() {
    let (vault, room) = (VaultId([1; 16]), RoomId([2; 16]));
    let (lane, other) = (LaneId([3; 16]), LaneId([4; 16]));
    let epoch = EpochKey::from_bytes([5; 32]);
    let all = [
        *derive_lane_key(&epoch, vault, room, lane).raw(),
        *derive_lane_key(&epoch, vault, room, other).raw(),
        *derive_lane_key(&epoch, vault, RoomId([9; 16]), lane).raw(),
        *derive_lane_key(&epoch, VaultId([9; 16]), room, lane).raw(),
        *derive_page_key(&epoch, vault, room).raw(),
        *derive_checkpoint_key(&epoch, vault, room).raw(),
        derive_epoch_commitment(&epoch, vault, room).0,
        *epoch.raw(),
    ];
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
}
