//! Structures that every layer shares.

use super::{canonical, chosen};
use skrin_base::ids::{DeviceId, Hash32};
use skrin_base::{Extent, Ino, Name, OpId, SegmentInfo};
use skrin_storage::{ObjectName, Prefix};

/// The small structures of the format; the first byte chooses.
pub fn wire(data: &[u8]) {
    let (which, bytes) = chosen(data);
    // What an error says is of no interest here: that there is one or a canonical value is.
    let _ = match which {
        0 => canonical::<Extent>(bytes).map(|extent| extent_can_be_cut(&extent)),
        1 => canonical::<SegmentInfo>(bytes).map(drop),
        2 => canonical::<OpId>(bytes).map(drop),
        3 => canonical::<Ino>(bytes).map(drop),
        4 => canonical::<Name>(bytes).map(drop),
        _ => canonical::<Hash32>(bytes).map(drop),
    };
}

/// A decoded extent may be clipped and joined anywhere without overflow, and nothing gets lost.
fn extent_can_be_cut(extent: &Extent) {
    let middle = extent.first_block + u64::from(extent.count) / 2;
    let (head, tail) = (extent.clip(0, middle), extent.clip(middle, u64::MAX));
    match (head, tail) {
        (Some(head), Some(tail)) => assert_eq!(head.join(&tail), Some(*extent)),
        (Some(one), None) | (None, Some(one)) => assert_eq!(one, *extent),
        (None, None) => assert_eq!(extent.count, 0, "an extent that covers nothing"),
    }
    let _ = extent.join(extent);
}

/// Names of objects as a listing shows them, and hexadecimal ids in them.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(name) = ObjectName::new(text) {
        assert_eq!(name.as_str(), text);
        let joined = name.parent().object(name.file_name());
        assert_eq!(
            joined.as_ref(),
            Ok(&name),
            "a name is its directory and its last part"
        );
    }
    if let Ok(dir) = Prefix::new(text) {
        assert_eq!(dir.as_str(), text);
    }
    if let Some(id) = DeviceId::from_hex(text) {
        assert_eq!(id.to_string(), text);
    }
    if let Some(hash) = Hash32::from_hex(text) {
        assert_eq!(hash.to_string(), text);
    }
}
