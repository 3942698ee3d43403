//! Every bound of the format and of the program, each with its reason.

/// Version of the format that this program writes and the highest that it reads.
pub const FORMAT_VERSION: u8 = 1;

/// Bytes of plain text in a block of a file; sequential work gains nothing above it and random work suffers.
pub const BLOCK_LEN: usize = 64 * 1024;
/// Files up to this many bytes live inline in the metadata.
pub const INLINE_MAX: usize = 2048;
/// Largest file: 2^31 blocks of 64 KiB fit every index type with room to spare.
pub const FILE_LEN_MAX: u64 = 1 << 47;

/// POSIX NAME_MAX, in bytes.
pub const NAME_MAX: usize = 255;
/// PATH_MAX of Linux, less its terminating NUL; also the longest symbolic link.
pub const SYMLINK_MAX: usize = 4095;
/// Linux XATTR_NAME_MAX.
pub const XATTR_NAME_MAX: usize = 255;
/// Linux XATTR_SIZE_MAX.
pub const XATTR_VALUE_MAX: usize = 64 * 1024;
/// All extended attributes of one inode together; they share its metadata row.
pub const XATTR_TOTAL_MAX: usize = 128 * 1024;
/// Hard links of one inode; their places share its metadata row.
pub const LINK_MAX: usize = 4096;

/// A segment ends before it would grow past this, a length that Padmé leaves alone: few requests, under 1 % of
/// padding when full, yet a retry costs little.
pub const SEGMENT_TARGET: usize = 8 * 1024 * 1024;
/// Largest segment object that a reader accepts.
pub const SEGMENT_MAX: usize = 64 * 1024 * 1024;
/// Blocks in one segment.
pub const SEGMENT_SLOTS_MAX: usize = 65_536;
/// Blocks from the beginning of a segment that may be relocated: the table of a longer one does not fit into a slot.
pub const RELOCATED_SLOTS_MAX: usize = 2048;

/// A version with more runs of blocks than this is remembered when it is no longer the newest, and a write that starts from it may
/// tell only what it changed. One that starts from a version with fewer tells the whole file.
pub const RUNS_TOLD_MAX: usize = 64;
/// Bytes of extended attributes that a write carries, for whoever has to make the file again.
pub const XATTRS_TOLD_MAX: usize = 4 * 1024;

/// Largest sealed commit that a reader accepts.
pub const COMMIT_MAX: usize = 16 * 1024 * 1024;
/// Operations in one commit.
pub const COMMIT_OPS_MAX: usize = 65_536;
/// Bytes of operations after which a batch is closed.
pub const COMMIT_TARGET: usize = 1024 * 1024;
/// Heads in one commit: far more lanes than fifty people with three devices each have open.
pub const HEADS_MAX: usize = 4096;
/// One operation: an extent list of a very fragmented file is cut into several.
pub const OP_MAX: usize = 4 * 1024 * 1024;

/// Length of every sealed checkpoint page object.
pub const PAGE_LEN: usize = 256 * 1024;
/// Pages of one checkpoint: a thousand million rows are out of scope for version 1.
pub const PAGES_MAX: usize = 1 << 20;
/// Largest sealed checkpoint root.
pub const CHECKPOINT_MAX: usize = 128 * 1024 * 1024;

/// Largest header, slot or control record object.
pub const CONTROL_MAX: usize = 1024 * 1024;
/// Slots of one vault.
pub const SLOTS_MAX: usize = 1024;
/// Control records of one room that a reader accepts.
pub const CONTROL_RECORDS_MAX: usize = 1 << 20;
/// Parents of one control record: records that as many devices made at once.
pub const CONTROL_PARENTS_MAX: usize = 64;
/// Control records of one room about members, devices, epochs and slots: for each it is kept which others it follows, so
/// that the cost grows with the square; 800 members with three devices who come and go are far below.
pub const MEMBERSHIP_RECORDS_MAX: usize = 1 << 15;
/// Ends of lanes in one cut: those of all devices that a person ever had in a room.
pub const CUT_LANES_MAX: usize = 4096;
/// Members, devices or recipients of one epoch: their envelopes must fit a control record.
pub const EPOCH_RECIPIENTS_MAX: usize = 800;
/// Devices of one person that are certified and not ended: each fresh state directory is one, and nobody may fill an epoch alone.
pub const DEVICES_OF_PERSON_MAX: usize = 256;
/// A label for people: device or person name, in bytes of UTF-8.
pub const LABEL_MAX: usize = 64;
