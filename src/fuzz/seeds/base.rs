//! Small structures.

use super::choose;
use skrin_base::ids::{DeviceId, Hash32, KeyId, LaneId, SegmentId};
use skrin_base::wire::Encode;
use skrin_base::{Content, Extent, Ino, Name, OpId, SegmentInfo, Stored};

/// An extent of four stored blocks.
pub fn extent(first_block: u64) -> Extent {
    let content = Content::Stored(Stored {
        segment: SegmentId([0x81; 16]),
        first_slot: 3,
        key: KeyId([0x91; 16]),
        origin_file: Ino(1 << 40),
        origin_block: first_block,
    });
    Extent {
        first_block,
        count: 4,
        content,
    }
}

/// A declaration.
pub fn segment_info() -> SegmentInfo {
    SegmentInfo {
        id: SegmentId([0x81; 16]),
        author: LaneId([0x82; 16]),
        number: 7,
        object_len: 262_144,
        table_offset: 262_000,
        table_hash: Hash32([0x92; 32]),
        table_key: [0x83; 32],
        slots: 1,
    }
}

/// A name; these are short enough to be one.
pub fn name(text: &str) -> Name {
    match Name::new(text.as_bytes()) {
        Ok(name) => name,
        Err(error) => unreachable!("{text:?}: {error}"),
    }
}

/// For `targets::base::wire`.
pub fn wire() -> Vec<Vec<u8>> {
    let op_id = OpId {
        device: DeviceId([1; 16]),
        counter: 9,
    };
    let hole = Extent {
        content: Content::Hole,
        ..extent(5)
    };
    vec![
        choose(0, &extent(2).to_bytes()),
        choose(0, &hole.to_bytes()),
        choose(1, &segment_info().to_bytes()),
        choose(2, &op_id.to_bytes()),
        choose(3, &Ino(77).to_bytes()),
        choose(4, &name("report.docx").to_bytes()),
        choose(5, &[3; 32]),
    ]
}

/// For `targets::base::names`.
pub fn names() -> Vec<Vec<u8>> {
    let (id, hash) = ("ab".repeat(16), "0c".repeat(32));
    let texts = [
        "skrin.vault".to_owned(),
        format!("slots/{id}"),
        format!("rooms/{id}/lanes/{id}/00000000/0000000000000001-{hash}"),
        format!("rooms/{id}/tips/{id}-0000000000000001-{hash}"),
        format!("segments/ab/{id}"),
        id,
        hash,
    ];
    texts.into_iter().map(String::into_bytes).collect()
}
