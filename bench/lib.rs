//! Benchmarks: the same work on a mount of ours and on peers, side by side, over loopback and over a slow link.
#![forbid(unsafe_code)]

pub mod error;
pub mod metric;
pub mod micro;
pub mod mount;
pub mod peers;
pub mod plan;
pub mod process;
pub mod relay;
pub mod report;
pub mod servers;
pub mod session;
pub mod tree;
pub mod work;
