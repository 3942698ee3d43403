//! What each sealed object is bound to: one type for each kind, so that nothing is sealed
//! without its place. The encodings are those of docs/format/README.md, section 3.

use crate::kdf::LABEL_PREFIX;
use skrin_base::Ino;
use skrin_base::ids::{KeyId, LaneId, RoomId, SegmentId, VaultId};
use skrin_base::wire::{Encode, Writer};

/// Associated data of one kind of object; the kinds are fixed here.
pub trait Aad: sealed::Sealed {
    /// Appends label and fields.
    fn write(&self, w: &mut Writer);
}

pub(crate) mod sealed {
    /// Keeps other crates from inventing kinds.
    pub trait Sealed {}
}

fn label(w: &mut Writer, kind: &str) {
    w.count(LABEL_PREFIX.len() + kind.len());
    w.raw(LABEL_PREFIX.as_bytes());
    w.raw(kind.as_bytes());
}

macro_rules! aad {
    ($(#[$doc:meta])* $name:ident, $kind:literal, { $($(#[$fdoc:meta])* $field:ident: $ty:ty => $put:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name {
            $($(#[$fdoc])* pub $field: $ty,)*
        }

        impl sealed::Sealed for $name {}

        impl Aad for $name {
            fn write(&self, w: &mut Writer) {
                label(w, $kind);
                $({
                    let put: fn(&mut Writer, &$ty) = $put;
                    put(w, &self.$field);
                })*
            }
        }
    };
}

aad!(/** A control record. */ ControlAad, "control", {
    /** Whose. */ vault: VaultId => |w, v| v.encode(w),
    /** Of which room. */ room: RoomId => |w, v| v.encode(w),
});

aad!(/** What two people write to each other while one joins. */ JoinAad, "join", {
    /** Whose. */ vault: VaultId => |w, v| v.encode(w),
    /** Of which room. */ room: RoomId => |w, v| v.encode(w),
});

aad!(/** A commit. */ CommitAad, "commit", {
    /** Whose. */ vault: VaultId => |w, v| v.encode(w),
    /** Of which room. */ room: RoomId => |w, v| v.encode(w),
    /** In which lane. */ lane: LaneId => |w, v| v.encode(w),
    /** At which place, from 1. */ seq: u64 => |w, v| w.u64(*v),
});

aad!(/** A page of a checkpoint. */ PageAad, "page", {
    /** Whose. */ vault: VaultId => |w, v| v.encode(w),
    /** Of which room. */ room: RoomId => |w, v| v.encode(w),
    /** Its random name. */ page: [u8; 16] => |w, v| w.raw(v),
});

aad!(/** The root of a checkpoint. */ CheckpointAad, "checkpoint", {
    /** Whose. */ vault: VaultId => |w, v| v.encode(w),
    /** Of which room. */ room: RoomId => |w, v| v.encode(w),
    /** Its random name. */ checkpoint: [u8; 16] => |w, v| w.raw(v),
});

aad!(/** The table at the end of a segment. */ TableAad, "table", {
    /** Whose. */ vault: VaultId => |w, v| v.encode(w),
    /** Of which room. */ room: RoomId => |w, v| v.encode(w),
    /** Of which segment. */ segment: SegmentId => |w, v| v.encode(w),
    /** Which lane wrote it first. */ author: LaneId => |w, v| v.encode(w),
});

aad!(/** One block of a file. */ BlockAad, "block", {
    /** Whose. */ vault: VaultId => |w, v| v.encode(w),
    /** Of which room. */ room: RoomId => |w, v| v.encode(w),
    /** In which segment. */ segment: SegmentId => |w, v| v.encode(w),
    /** Which lane wrote it first. */ author: LaneId => |w, v| v.encode(w),
    /** At which place in the segment. */ slot: u32 => |w, v| w.u32(*v),
    /** Names the file key. */ key_id: KeyId => |w, v| v.encode(w),
    /** The file for which it was written. */ origin_file: Ino => |w, v| v.encode(w),
    /** The block of that file. */ origin_block: u64 => |w, v| w.u64(*v),
    /** Length before compression, in bytes. */ plain_len: u32 => |w, v| w.u32(*v),
    /** 1 = compressed with zstd. */ flags: u8 => |w, v| w.u8(*v),
});

/// A slot: bound to its whole clear part.
#[derive(Clone, Copy, Debug)]
pub struct SlotAad<'a> {
    /// The clear part as it stands in the object.
    pub header: &'a [u8],
}

impl sealed::Sealed for SlotAad<'_> {}

impl Aad for SlotAad<'_> {
    fn write(&self, w: &mut Writer) {
        label(w, "slot");
        w.bytes(self.header);
    }
}

/// A file on this machine, which never reaches the storage.
#[derive(Clone, Debug)]
pub struct LocalAad {
    /// `journal`, `device`, `heads` or `cache`.
    pub purpose: &'static str,
    /// Whose.
    pub vault: VaultId,
    /// What else it must not be exchanged with.
    pub context: Vec<u8>,
}

impl sealed::Sealed for LocalAad {}

impl Aad for LocalAad {
    fn write(&self, w: &mut Writer) {
        label(w, self.purpose);
        self.vault.encode(w);
        w.bytes(&self.context);
    }
}
