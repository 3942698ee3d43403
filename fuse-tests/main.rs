//! Black box: the real program, mounted, over a local folder, WebDAV (Apache, TLS, a CA of its own) and S3 (Ceph's
//! radosgw), driven by the programs that people use. Nothing of ours is linked here but the starter of servers.
//! Every test leaves no mount and no process behind, or fails.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod bad_input;
mod big_file;
mod builds;
mod cgroup;
mod collect;
mod conflicts;
mod conformance;
mod crash;
mod damage;
mod devices;
mod disk;
mod events;
mod export;
mod four;
mod full;
mod git;
mod harness;
mod history;
mod json;
mod kills;
mod leaks;
mod lifecycle;
mod load;
mod mac_files;
mod mac_names;
mod machines;
mod mail;
mod memory;
mod office;
mod offline;
mod people;
mod posix;
mod postgres;
mod power;
mod recovery;
mod refused;
mod relay;
mod remounts;
mod repair;
mod rollback;
mod rsync;
mod scrub;
mod small_files;
mod sources;
mod sqlite;
mod storages;
mod synced;
mod terminal;
mod torture;
mod traces;
mod tree;
mod units;
mod users;
