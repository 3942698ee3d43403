//! The rows of the table.

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Rates.
    More,
    /// Times, sizes, counts.
    Less,
}

/// One row.
#[derive(Debug)]
pub struct Metric {
    /// In the JSON.
    pub id: &'static str,
    /// In the table.
    pub title: &'static str,
    /// Of its values.
    pub unit: &'static str,
    /// Which way is good.
    pub better: Better,
    /// The maximum of all values counts, not their median.
    pub peak: bool,
}

const fn metric(
    id: &'static str,
    title: &'static str,
    unit: &'static str,
    better: Better,
) -> Metric {
    Metric {
        id,
        title,
        unit,
        better,
        peak: false,
    }
}

macro_rules! metrics {
    ($($name:ident = $id:literal, $title:literal, $unit:literal, $better:ident;)*) => {
        $(
            #[doc = $title]
            pub const $name: Metric = metric($id, $title, $unit, Better::$better);
        )*
        /// All rows in the order of the table.
        pub const ALL: &[&Metric] = &[$(&$name,)* &PEAK_MEMORY];
    };
}

metrics! {
    SEQ_WRITE = "seq_write", "large file: write + fsync", "MiB/s", More;
    SEQ_STORED = "seq_stored", "large file: write until on the storage", "MiB/s", More;
    SEQ_READ_COLD = "seq_read_cold", "large file: cold read", "MiB/s", More;
    SEQ_READ_WARM = "seq_read_warm", "large file: warm read", "MiB/s", More;
    SEQ_OVERHEAD = "seq_overhead", "large file: bytes stored per byte", "B/B", Less;
    SEQ_SENT = "seq_sent", "large file: bytes sent per byte", "B/B", Less;
    RSYNC_LOCAL = "rsync_local", "small files: rsync returns", "s", Less;
    RSYNC = "rsync", "small files: rsync until on the storage", "s", Less;
    RSYNC_REQUESTS = "rsync_requests", "small files: requests", "", Less;
    RSYNC_SENT = "rsync_sent", "small files: bytes sent per byte", "B/B", Less;
    SMALL_OBJECTS = "small_objects", "small files: objects on the storage", "", Less;
    SMALL_OVERHEAD = "small_overhead", "small files: bytes stored per byte", "B/B", Less;
    FIND_COLD = "find_cold", "small files: cold find", "s", Less;
    FIND_WARM = "find_warm", "small files: warm find", "s", Less;
    SMALL_READ_COLD = "small_read_cold", "small files: cold read of all", "s", Less;
    EDITS = "edits", "4 KiB edits, each with fsync", "1/s", More;
    EDITS_SENT = "edits_sent", "4 KiB edits: bytes sent per edit", "B", Less;
    FSYNC_KEPT = "fsync_kept", "fsynced bytes survive kill -9 (1 = yes)", "", More;
    NAMES = "names", "create, rename, unlink", "1/s", More;
    CALLS_STAT = "calls_stat", "stat", "1/s", More;
    CALLS_ABSENT = "calls_absent", "stat of a name that is not there", "1/s", More;
    CALLS_OPEN = "calls_open", "open, read 4 KiB, close", "1/s", More;
    CALLS_LIST = "calls_list", "entries listed", "1/s", More;
    CALLS_REREAD = "calls_reread", "sequential reading once more", "MiB/s", More;
    CALLS_WRITE = "calls_write", "writes of 4 KiB in sequence, then fsync", "MiB/s", More;
    MANY_MOUNT = "many_mount", "many files: mount", "s", Less;
    MANY_LIST = "many_list", "many files: first ls -l", "s", Less;
    MANY_NEW = "many_new", "many files: mount + ls -l on a new machine", "s", Less;
}

/// Of all phases together.
pub const PEAK_MEMORY: Metric = Metric {
    id: "peak_memory",
    title: "peak memory",
    unit: "MiB",
    better: Better::Less,
    peak: true,
};
