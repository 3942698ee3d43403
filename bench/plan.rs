//! Which settings, peers and phases, in which order.

use crate::error::{BenchError, Context};
use crate::peers::{Endpoint, Peer, Site, Tools, for_endpoint};
use crate::process::check;
use crate::relay::{Link, Relay};
use crate::report::{Failure, Report, Sample};
use crate::servers::{Server, apache, rclone_s3};
use crate::session::{Session, Setting, Sizes};
use crate::tree::{Random, TreeSpec, write_tree};
use crate::work::Phase;
use clap::ValueEnum;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Written over and over into the large file; more than the caches of a processor hold.
const NOISE: usize = 64 << 20;

/// Storage and link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Where {
    /// A folder.
    Local,
    /// Apache on loopback.
    Webdav,
    /// Apache behind a relay that only counts.
    WebdavCounted,
    /// Apache behind the slow link.
    WebdavSlow,
    /// `rclone serve s3` on loopback.
    S3,
    /// `rclone serve s3` behind a relay that only counts.
    S3Counted,
    /// `rclone serve s3` behind the slow link.
    S3Slow,
}

impl Where {
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |v| v.get_name().to_owned())
    }

    fn server(self, dir: &Path, tools: &Tools) -> Result<Option<Server>, BenchError> {
        match self {
            Self::Local => Ok(None),
            Self::Webdav | Self::WebdavCounted | Self::WebdavSlow => apache(dir).map(Some),
            Self::S3 | Self::S3Counted | Self::S3Slow => rclone_s3(&tools.rclone, dir).map(Some),
        }
    }

    fn link(self, slow: Link) -> Option<Link> {
        match self {
            Self::Local | Self::Webdav | Self::S3 => None,
            Self::WebdavCounted | Self::S3Counted => Some(Link::default()),
            Self::WebdavSlow | Self::S3Slow => Some(slow),
        }
    }

    fn endpoint(self, addr: std::net::SocketAddr) -> Endpoint {
        match self {
            Self::Local => Endpoint::Folder,
            Self::Webdav | Self::WebdavCounted | Self::WebdavSlow => Endpoint::WebDav(addr),
            Self::S3 | Self::S3Counted | Self::S3Slow => Endpoint::S3(addr),
        }
    }
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In this order.
    pub settings: Vec<Where>,
    /// In this order, each with a fresh vault.
    pub phases: Vec<Phase>,
    /// Only peers whose name contains one of these; all for none.
    pub peers: Vec<String>,
    /// How often everything is done.
    pub runs: usize,
    /// How much is done.
    pub sizes: Sizes,
    /// The large file over a slow link.
    pub large_slow: u64,
    /// The slow link.
    pub slow: Link,
    /// Programs.
    pub tools: Tools,
    /// Empty folder for everything that is written.
    pub work: PathBuf,
    /// Whether "cold" empties the kernel's caches too.
    pub drop_caches: bool,
}

impl Plan {
    /// Measures. What could not be measured stands in the report; after an interruption it holds what there is.
    ///
    /// # Errors
    /// When the harness itself fails.
    pub fn run(&self, runtime: &Runtime, report: &mut Report) -> Result<(), BenchError> {
        let noise = Random::new(3).bytes(NOISE);
        let small_tree = self.tree("small", self.sizes.small, 50, (1 << 10, 8 << 10))?;
        let many_tree = match self.phases.contains(&Phase::Many) {
            true => self.tree("many", self.sizes.many, 1000, (50, 150))?,
            false => PathBuf::new(),
        };
        for place in &self.settings {
            let dir = self.work.join(place.name());
            fs::create_dir_all(&dir).at("create", &dir)?;
            let server = place.server(&dir, &self.tools)?;
            let relay = match (place.link(self.slow), &server) {
                (Some(link), Some(server)) => Some(start_relay(runtime, server, link)?),
                _ => None,
            };
            let mut sizes = self.sizes.clone();
            if place.link(self.slow) == Some(self.slow) {
                sizes.large = self.large_slow;
            }
            let setting = Setting {
                name: place.name(),
                sizes,
                small_tree: small_tree.clone(),
                many_tree: many_tree.clone(),
                noise: &noise,
                relay: relay.as_ref(),
                drop_caches: self.drop_caches,
            };
            report.settings.push(place.name());
            let scene = Scene {
                plan: self,
                place: *place,
                dir: &dir,
                server: server.as_ref(),
                setting: &setting,
            };
            scene.run(report)?;
        }
        Ok(())
    }

    fn tree(
        &self,
        name: &str,
        files: usize,
        per_dir: usize,
        sizes: (u64, u64),
    ) -> Result<PathBuf, BenchError> {
        let dir = self.work.join("source").join(name);
        let spec = TreeSpec {
            files,
            per_dir,
            sizes,
        };
        write_tree(&dir, &spec).map(|_| dir)
    }

    fn wants(&self, peer: &dyn Peer) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|p| peer.name().contains(p.as_str()))
    }
}

fn start_relay(runtime: &Runtime, server: &Server, link: Link) -> Result<Relay, BenchError> {
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let relay = runtime.block_on(Relay::start(any, server.addr, link));
    relay.context(|| "start the relay".to_owned())
}

/// One setting with its server.
struct Scene<'a> {
    plan: &'a Plan,
    place: Where,
    dir: &'a Path,
    server: Option<&'a Server>,
    setting: &'a Setting<'a>,
}

impl Scene<'_> {
    fn run(&self, report: &mut Report) -> Result<(), BenchError> {
        let (direct, endpoint) = self.endpoints();
        let mut peers = for_endpoint(endpoint, &self.plan.tools);
        peers.retain(|p| self.plan.wants(p.as_ref()));
        peers.retain(|peer| announce(peer.as_ref(), &self.setting.name, report));
        let mut vaults = 0;
        for phase in &self.plan.phases {
            for _ in 0..self.plan.runs {
                for peer in &peers {
                    check()?;
                    vaults += 1;
                    let site = self.site(vaults, direct, endpoint)?;
                    let done = self.measure(peer.as_ref(), *phase, site, &mut report.samples);
                    self.clean(vaults)?;
                    match done {
                        Err(BenchError::Interrupted) => return Err(BenchError::Interrupted),
                        Err(e) => self.failed(peer.as_ref(), *phase, &e, report),
                        Ok(()) => {}
                    }
                }
            }
        }
        Ok(())
    }

    fn failed(&self, peer: &dyn Peer, phase: Phase, error: &BenchError, report: &mut Report) {
        eprintln!("  {} {phase:?} failed: {error}", peer.name());
        report.failures.push(Failure {
            setting: self.setting.name.clone(),
            peer: peer.name().to_owned(),
            phase: format!("{phase:?}").to_lowercase(),
            error: error.to_string(),
        });
    }

    fn endpoints(&self) -> (Endpoint, Endpoint) {
        let Some(server) = self.server else {
            return (Endpoint::Folder, Endpoint::Folder);
        };
        let via = self.setting.relay.map_or(server.addr, Relay::addr);
        (self.place.endpoint(server.addr), self.place.endpoint(via))
    }

    fn site(&self, n: usize, direct: Endpoint, endpoint: Endpoint) -> Result<Site, BenchError> {
        let name = format!("vault{n}");
        let home = self.dir.join(&name);
        let (state, mountpoint) = (home.join("state"), home.join("mnt"));
        for dir in [&state, &mountpoint] {
            fs::create_dir_all(dir).at("create", dir)?;
        }
        let storage = match self.server {
            Some(server) => server.folder.join(&name),
            None => home.join("storage"),
        };
        Ok(Site {
            endpoint,
            direct,
            storage,
            name,
            state,
            mountpoint,
        })
    }

    fn measure(
        &self,
        peer: &dyn Peer,
        phase: Phase,
        site: Site,
        samples: &mut Vec<Sample>,
    ) -> Result<(), BenchError> {
        let mut session = Session::new(self.setting, peer, site)?;
        let done = phase.run(&mut session);
        done.and(session.finish(samples))
    }

    /// Frees the disk for the next vault. What is still mounted below must not be deleted through the mount.
    fn clean(&self, n: usize) -> Result<(), BenchError> {
        let name = format!("vault{n}");
        let mut folders = vec![self.dir.join(&name)];
        folders.extend(self.server.map(|s| s.folder.join(&name)));
        for dir in folders.iter().filter(|d| d.exists()) {
            let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
            if !mounts.contains(&*dir.to_string_lossy()) {
                fs::remove_dir_all(dir).at("remove", dir)?;
            }
        }
        Ok(())
    }
}

/// Notes the peer and its version; one that is not installed is left out.
fn announce(peer: &dyn Peer, setting: &str, report: &mut Report) -> bool {
    let name = peer.name().to_owned();
    match peer.version() {
        Ok(version) => {
            if !report.peers.contains(&name) {
                report.peers.push(name.clone());
            }
            if !peer.competes() && !report.ceilings.contains(&name) {
                report.ceilings.push(name.clone());
            }
            report.versions.insert(name, version);
            true
        }
        Err(error) => {
            report.failures.push(Failure {
                setting: setting.to_owned(),
                peer: name,
                phase: "version".to_owned(),
                error: error.to_string(),
            });
            false
        }
    }
}

/// What a reader must know of the machine.
pub fn about(plan: &Plan) -> BTreeMap<String, String> {
    let first = |file: &str, key: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|l| l.starts_with(key)).unwrap_or("");
        line.trim_start_matches(key)
            .trim_start_matches([' ', '\t', ':'])
            .to_owned()
    };
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let large = |bytes: u64| format!("{} MiB", bytes >> 20);
    let link = plan.slow;
    [
        ("kernel", first("/proc/sys/kernel/osrelease", "")),
        ("processor", first("/proc/cpuinfo", "model name")),
        ("processors", processors.to_string()),
        ("load before", first("/proc/loadavg", "")),
        ("work folder", plan.work.display().to_string()),
        ("large file", large(plan.sizes.large)),
        ("large file over the slow link", large(plan.large_slow)),
        ("small files", plan.sizes.small.to_string()),
        ("many files", plan.sizes.many.to_string()),
        ("runs", plan.runs.to_string()),
        ("kernel caches dropped", plan.drop_caches.to_string()),
        ("slow link", slow_text(link.round_trip, link.rate)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn slow_text(round_trip: Duration, rate: Option<u64>) -> String {
    let rate = rate.map_or_else(
        || "no limit".to_owned(),
        |r| format!("{} Mbit/s", r / 125_000),
    );
    format!("{} ms, {rate}", round_trip.as_millis())
}
