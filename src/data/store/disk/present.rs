//! What the index calls here and the disk does not have: anybody may remove files of the cache, and a power cut may empty them.

use super::{DiskCache, Entry, HEADER_LEN, Kind};
use skrin_base::SegmentId;
use std::io;

impl DiskCache {
    /// Forgets what of a segment somebody removed, or what is not as long as it was. Nothing is read: whoever does finds damage within.
    pub(in crate::store) fn forget_removed(&self, segment: SegmentId) {
        let entries: Vec<Entry> = {
            let index = self.index.lock();
            index.segments.get(&segment).cloned().unwrap_or_default()
        };
        for entry in entries {
            match std::fs::metadata(self.path(segment, entry.kind)) {
                Ok(meta) if meta.len() == entry.len && entry.len >= entry.kind.least() => {}
                Ok(_) => self.drop_bad(segment, entry.kind),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    self.index.lock().remove(segment, entry.kind);
                }
                // Whoever reads it meets the error.
                Err(_) => {}
            }
        }
    }
}

impl Kind {
    /// A shorter file holds nothing.
    fn least(self) -> u64 {
        match self {
            Self::Table => 1,
            Self::Slots(..) => HEADER_LEN as u64,
        }
    }
}
