//! A peer at work on one vault: mounts, times, counts.

use crate::error::{BenchError, Context};
use crate::metric::{Metric, PEAK_MEMORY};
use crate::mount::{Mounted, drop_kernel_caches};
use crate::peers::{Peer, Site};
use crate::relay::{Counts, Relay};
use crate::report::Sample;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What a piece of work cost.
#[derive(Clone, Debug, Default)]
pub struct Cost {
    /// Seconds on the wall.
    pub wall: f64,
    /// CPU seconds of the peer's processes.
    pub cpu: f64,
    /// What crossed the relay.
    pub network: Option<Counts>,
}

/// How much work a phase does.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// Bytes of the large file.
    pub large: u64,
    /// Small files.
    pub small: usize,
    /// Most seconds of edits, and of names.
    pub seconds: f64,
    /// Files of the large vault.
    pub many: usize,
}

/// What all phases of a setting share.
pub struct Setting<'a> {
    /// Storage and link, as in the tables.
    pub name: String,
    /// How much to do.
    pub sizes: Sizes,
    /// A tree of `sizes.small` files.
    pub small_tree: PathBuf,
    /// A tree of `sizes.many` files, if that phase is asked for.
    pub many_tree: PathBuf,
    /// Incompressible.
    pub noise: &'a [u8],
    /// Between clients and server.
    pub relay: Option<&'a Relay>,
    /// Whether "cold" empties the kernel's caches too.
    pub drop_caches: bool,
}

/// One vault of one peer. Whatever is mounted is unmounted when it is dropped.
pub struct Session<'a> {
    /// The surroundings.
    pub setting: &'a Setting<'a>,
    peer: &'a dyn Peer,
    /// The vault.
    pub site: Site,
    mounted: Option<Mounted>,
    cpu_ended: f64,
    samples: Vec<Sample>,
}

impl<'a> Session<'a> {
    /// Makes the vault.
    ///
    /// # Errors
    /// Of the peer.
    pub fn new(
        setting: &'a Setting<'a>,
        peer: &'a dyn Peer,
        site: Site,
    ) -> Result<Self, BenchError> {
        peer.init(&site)?;
        Ok(Self {
            setting,
            peer,
            site,
            mounted: None,
            cpu_ended: 0.0,
            samples: Vec::new(),
        })
    }

    /// Mounts, unless it is mounted.
    ///
    /// # Errors
    /// Of the peer.
    pub fn mount(&mut self) -> Result<(), BenchError> {
        if self.mounted.is_none() {
            self.mounted = Some(self.peer.mount(&self.site)?);
        }
        Ok(())
    }

    /// Unmounts, and notes the peak memory.
    ///
    /// # Errors
    /// Of the peer.
    pub fn unmount(&mut self) -> Result<(), BenchError> {
        let Some(mounted) = self.mounted.take() else {
            return Ok(());
        };
        self.note(mounted.cpu_seconds(), mounted.peak_memory());
        mounted.unmount()
    }

    /// Keeps what processes that are about to end have used.
    fn note(&mut self, cpu: f64, peak: u64) {
        self.cpu_ended += cpu;
        let peak = peak as f64 / f64::from(1 << 20);
        self.push(&PEAK_MEMORY, peak, &Cost::default());
    }

    /// Kills the processes as a crash would, and mounts again.
    ///
    /// # Errors
    /// Of the peer.
    pub fn crash(&mut self) -> Result<(), BenchError> {
        if let Some(mounted) = self.mounted.take() {
            self.note(mounted.cpu_seconds(), mounted.peak_memory());
            mounted.kill();
        }
        self.mount()
    }

    /// Waits until everything is on the storage; `mount` before going on.
    ///
    /// # Errors
    /// Of the peer.
    pub fn settle(&mut self) -> Result<(), BenchError> {
        if let Some(mounted) = self.mounted.take() {
            let (cpu, peak) = (mounted.cpu_seconds(), mounted.peak_memory());
            self.mounted = self.peer.settle(&self.site, mounted)?;
            if self.mounted.is_none() {
                self.note(cpu, peak);
            }
        }
        Ok(())
    }

    /// Mounts again with nothing of the contents left on this machine.
    ///
    /// # Errors
    /// Of the peer.
    pub fn cold(&mut self) -> Result<(), BenchError> {
        self.unmount()?;
        self.peer.drop_contents(&self.site)?;
        if self.setting.drop_caches {
            drop_kernel_caches()?;
        }
        self.mount()
    }

    /// Deletes all local state, as on a new machine, and leaves it unmounted. `false` where the vault cannot be
    /// had without it.
    ///
    /// # Errors
    /// Of the peer.
    pub fn forget(&mut self) -> Result<bool, BenchError> {
        self.unmount()?;
        let possible = self.peer.forget(&self.site)?;
        if self.setting.drop_caches {
            drop_kernel_caches()?;
        }
        Ok(possible)
    }

    /// Fills the vault with a tree by the shortest way, while unmounted.
    ///
    /// # Errors
    /// Of the peer.
    pub fn populate(&self, from: &Path) -> Result<(), BenchError> {
        self.peer.populate(&self.site, from)
    }

    /// A path in the mount.
    pub fn path(&self, name: &str) -> PathBuf {
        let root = self.mounted.as_ref().map(Mounted::dir);
        root.unwrap_or(&self.site.mountpoint).join(name)
    }

    fn cpu(&self) -> f64 {
        let running = self.mounted.as_ref().map_or(0.0, Mounted::cpu_seconds);
        self.cpu_ended + running
    }

    /// Does the work and says what it cost.
    ///
    /// # Errors
    /// Of the work.
    pub fn timed<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, BenchError>,
    ) -> Result<(T, Cost), BenchError> {
        let before = self.setting.relay.map(Relay::counts);
        let cpu = self.cpu();
        let begin = Instant::now();
        let done = work(self)?;
        let wall = begin.elapsed().as_secs_f64();
        let after = self.setting.relay.map(Relay::counts);
        let cost = Cost {
            wall,
            cpu: self.cpu() - cpu,
            network: after.zip(before).map(|(a, b)| a.since(&b)),
        };
        Ok((done, cost))
    }

    /// Notes a value.
    pub fn record(&mut self, metric: &Metric, value: f64, cost: &Cost) {
        eprintln!(
            "  {:<9} {:<20} {:<42} {value:>10.3} {:<6} ({:.2} s, {:.2} s CPU)",
            self.setting.name,
            self.peer.name(),
            metric.title,
            metric.unit,
            cost.wall,
            cost.cpu
        );
        self.push(metric, value, cost);
    }

    fn push(&mut self, metric: &Metric, value: f64, cost: &Cost) {
        self.samples.push(Sample {
            setting: self.setting.name.clone(),
            peer: self.peer.name().to_owned(),
            metric: metric.id,
            value,
            wall: cost.wall,
            cpu: cost.cpu,
            network: cost.network.clone(),
        });
    }

    /// Unmounts and gives the values.
    ///
    /// # Errors
    /// Of the peer; the values are kept even so.
    pub fn finish(&mut self, into: &mut Vec<Sample>) -> Result<(), BenchError> {
        let ended = self.unmount();
        into.append(&mut self.samples);
        ended
    }

    /// Flushes one file to where the peer promises to keep it.
    ///
    /// # Errors
    /// Of the peer.
    pub fn fsync(&self, file: &std::fs::File) -> Result<(), BenchError> {
        file.sync_all().context(|| "fsync".to_owned())
    }
}
