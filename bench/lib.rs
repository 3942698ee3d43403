//! Benchmarks: the same work on a mount of ours and on peers, side by side, over loopback and over a slow link.
#![forbid(unsafe_code)]

pub mod relay;
