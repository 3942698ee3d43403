//! A way to a server that can be shut: what clients send waits then, and nobody is told. It can be made narrow, too, and counts what passes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use skrin_servers::{Kind, Server};

use crate::harness::{Dice, Mount, Run, Vault, wait_for};
use crate::storages::{On, Storage};

/// Whether bytes pass, and who waits for it.
type Gate = Arc<(Mutex<bool>, Condvar)>;

/// One direction of the way, for all connections together.
#[derive(Default)]
struct Lane {
    /// Bytes in a second; 0 is as many as can be.
    rate: AtomicU64,
    /// When the next byte may pass.
    free: Mutex<Option<Instant>>,
    passed: AtomicU64,
}

impl Lane {
    fn pass(&self, bytes: usize) {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate > 0 {
            let time = Duration::from_secs_f64(bytes as f64 / rate as f64);
            let until = {
                let mut free = self.free.lock().unwrap();
                let begin = free.map_or_else(Instant::now, |free| free.max(Instant::now()));
                *free = Some(begin + time);
                begin + time
            };
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        self.passed.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// To the server, and back.
type Lanes = [Arc<Lane>; 2];

/// A relay on a port of its own.
pub(crate) struct Relay {
    port: u16,
    gate: Gate,
    lanes: Lanes,
    /// Every connection that there ever was.
    clients: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    /// Starts one to `port`; it is open.
    pub(crate) fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let own = listener.local_addr().unwrap().port();
        let gate = Gate::new((Mutex::new(true), Condvar::new()));
        let lanes = Lanes::default();
        let (shared, [up, down]) = (Arc::clone(&gate), lanes.clone());
        let clients: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let known = Arc::clone(&clients);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
                    continue;
                };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                known.lock().unwrap().push(client.try_clone().unwrap());
                let gate = Arc::clone(&shared);
                let (up, down) = (Arc::clone(&up), Arc::clone(&down));
                std::thread::spawn(move || pass(from, to, Some(&gate), &up));
                std::thread::spawn(move || pass(server, client, None, &down));
            }
        });
        Self {
            port: own,
            gate,
            lanes,
            clients,
        }
    }

    /// From now on no more bytes a second pass, each way; 0 is as many as can be.
    pub(crate) fn narrow(&self, rate: u64) {
        for lane in &self.lanes {
            lane.rate.store(rate, Ordering::Relaxed);
        }
    }

    /// Bytes that came from the server so far.
    pub(crate) fn received(&self) -> u64 {
        self.lanes[1].passed.load(Ordering::Relaxed)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on the server hears nothing.
    pub(crate) fn shut(&self) {
        *self.gate.0.lock().unwrap() = false;
    }

    /// All connections that there are end, as those of a machine that slept.
    pub(crate) fn cut(&self) {
        for client in self.clients.lock().unwrap().drain(..) {
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    /// What waits reaches the server.
    pub(crate) fn open(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }
}

impl Drop for Relay {
    /// Nothing waits for ever.
    fn drop(&mut self) {
        self.narrow(0);
        self.open();
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, gate: Option<&Gate>, lane: &Lane) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if let Some(gate) = gate {
            let open = gate.0.lock().unwrap();
            drop(gate.1.wait_while(open, |open| !*open).unwrap());
        }
        lane.pass(n);
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// A vault on a server behind a relay.
pub(crate) struct Distant {
    pub vault: Vault,
    pub relay: Relay,
    address: String,
    /// Its own; `None` if it is the one of `vault`.
    server: Option<Server>,
}

impl Distant {
    pub(crate) fn new() -> Self {
        Self::on(Kind::Rclone)
    }

    pub(crate) fn on(kind: Kind) -> Self {
        let server = Server::start(kind).unwrap();
        let relay = Relay::to(server.port());
        let address = server.vault_url_at(relay.port(), "vault");
        let vault = Vault::without_init(On::Local);
        Self::made(vault, relay, address, Some(server))
    }

    /// On the S3 server that all tests share, by a way of its own.
    pub(crate) fn on_s3() -> Self {
        let vault = Vault::without_init(On::S3);
        let Storage::Server { server, path } = &vault.storage else {
            panic!("S3 is a server")
        };
        let relay = Relay::to(server.port());
        let address = server.vault_url_at(relay.port(), path);
        Self::made(vault, relay, address, None)
    }

    fn made(vault: Vault, relay: Relay, address: String, server: Option<Server>) -> Self {
        let distant = Self {
            vault,
            relay,
            address,
            server,
        };
        let mut init = distant
            .vault
            .skrin(&["init", &distant.address, "--words-file"]);
        init.envs(distant.env())
            .arg(distant.vault.words_file())
            .output_ok();
        distant
    }

    /// What `vault` does not know of the server.
    fn env(&self) -> Vec<(&'static str, String)> {
        self.server.as_ref().map(Server::env).unwrap_or_default()
    }

    pub(crate) fn mount(&self, device: &str) -> Mount<'_> {
        let vault = &self.vault;
        let point = vault.point(device);
        let mut mount = vault.skrin(&["mount", &self.address, "--words-file"]);
        mount
            .envs(self.env())
            .arg(vault.words_file())
            .arg("--state-dir")
            .arg(vault.state(device))
            .arg(&point)
            .output_ok();
        Mount::adopt(vault, point)
    }
}

/// Files that are read by eight at once.
const BULK: usize = 32;
const BULK_LEN: usize = 4 << 20;
/// Bytes in a second: few, so that what passes while the machine itself is slow is little beside what is asked for.
const NARROW: u64 = 2 << 20;

/// A file manager that makes previews of everything, and uploads, and somebody who opens so many documents, each in a segment of its own.
/// No more than `others` may share the way with him.
fn who_opens_a_file_goes_first(distant: &Distant, documents: usize, others: u64) {
    let first = distant.mount("a");
    let bulk = |n: usize| Dice(n as u64).bytes(BULK_LEN);
    let wanted = |n: usize| Dice(1000 + n as u64).bytes(20_000);
    for n in 0..BULK {
        std::fs::write(first.join(format!("bulk-{n}")), bulk(n)).unwrap();
    }
    first.sync();
    for n in 0..documents {
        std::fs::write(first.join(format!("wanted-{n}")), wanted(n)).unwrap();
        first.sync();
    }
    first.unmount();

    let second = distant.mount("b");
    let relay = &distant.relay;
    relay.narrow(NARROW);
    let begun = relay.received();
    let (finished, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for reader in 0..8 {
            let (second, finished) = (&second, &finished);
            scope.spawn(move || {
                for n in (reader..BULK).step_by(8) {
                    let back = std::fs::read(second.join(format!("bulk-{n}"))).unwrap();
                    assert!(back == bulk(n), "bulk-{n}");
                    finished.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            for n in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                std::fs::write(second.join(format!("new-{}", n % 4)), bulk(n)).unwrap();
                // Four times what can be uploaded meanwhile.
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        wait_for("the previews to have begun", || {
            relay.received() > begun + (2 << 20)
        });
        let mut costs = Vec::new();
        for n in 0..documents {
            let before = relay.received();
            let path = second.join(format!("wanted-{n}"));
            assert_eq!(std::fs::metadata(&path).unwrap().len(), 20_000);
            assert!(std::fs::read(&path).unwrap() == wanted(n));
            costs.push((relay.received() - before) >> 10);
        }
        let finished = finished.load(Ordering::Relaxed);
        over.store(true, Ordering::Relaxed);
        relay.narrow(0);
        println!("KiB that crossed for each: {costs:?}; {finished} of {BULK} were read");
        assert!(finished < BULK, "all of {BULK} came first");
        costs.sort_unstable();
        // Nobody's whole queue goes first, which it would before each of them. Others pass too while the machine itself is slow.
        assert!(costs[documents / 4] < others << 10, "{costs:?}");
    });
    second.unmount();
}

/// Eight requests run at once over WebDAV. Of these what somebody waits for that was asked for ahead has six at most.
#[test]
fn who_opens_a_file_goes_before_what_is_read_ahead_for_previews_and_before_uploads() {
    who_opens_a_file_goes_first(&Distant::new(), 10, 6);
}

/// On S3 it is sixteen, and twelve.
#[test]
fn on_s3_too_who_opens_a_file_goes_before_what_is_read_ahead_for_previews_and_before_uploads() {
    who_opens_a_file_goes_first(&Distant::on_s3(), 6, 12);
}
