use crate::core::Fs;
use crate::types::StatFs;
use skrin_base::limits::{BLOCK_LEN, NAME_MAX};

/// What is said of a storage that does not tell how much room it has: 1 PiB, all free.
const UNKNOWN: u64 = 1 << 50;

impl Fs {
    /// Room on the storage, as last heard.
    pub fn statfs(&self) -> StatFs {
        let space = *self.known_space.lock();
        let (total, free) = space.map_or((UNKNOWN, UNKNOWN), |s| (s.total, s.free));
        let block = BLOCK_LEN as u64;
        StatFs {
            block_len: BLOCK_LEN as u32,
            blocks: total / block,
            free: free.min(total) / block,
            name_max: NAME_MAX as u32,
        }
    }
}
