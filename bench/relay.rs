//! A TCP relay that behaves like a slow link: a round trip, a rate each way, and exact counts of what crossed it.
//!
//! Each way is one link for all connections: a chunk leaves when the link is free, occupies it for length / rate,
//! and arrives half a round trip later. Opening a connection costs one round trip. Slow start, loss and
//! reordering are not modelled, so that runs can be repeated.

mod requests;

use requests::RequestCounter;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

/// What is read at once, and with it the grain in which connections share the link.
const CHUNK: usize = 16 * 1024;
/// In flight per connection and way when nothing limits the link.
const WINDOW: usize = 4 << 20;

/// A link: zero and `None` pass everything on at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Added to every request and answer together.
    pub round_trip: Duration,
    /// Bytes per second, each way.
    pub rate: Option<u64>,
}

impl Link {
    /// Bytes that one connection may have in flight: twice what fills the link, as TCP windows do.
    fn window(&self) -> usize {
        let fills = |rate: u64| (rate as f64 * self.round_trip.as_secs_f64()) as usize;
        self.rate
            .map_or(WINDOW, |rate| (2 * fills(rate) + 4 * CHUNK).min(WINDOW))
    }
}

/// What crossed the link since the relay began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Connections accepted.
    pub connections: u64,
    /// Bytes from clients, HTTP headers included, TCP's not.
    pub bytes_up: u64,
    /// Bytes to clients.
    pub bytes_down: u64,
    /// HTTP requests by method; empty for other protocols and for TLS.
    pub requests: BTreeMap<String, u64>,
}

impl Counts {
    /// Requests of all methods.
    pub fn requests_total(&self) -> u64 {
        self.requests.values().sum()
    }

    /// What came since `earlier`, which was taken from the same relay.
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |method| earlier.requests.get(method).copied().unwrap_or(0);
        Self {
            connections: self.connections.saturating_sub(earlier.connections),
            bytes_up: self.bytes_up.saturating_sub(earlier.bytes_up),
            bytes_down: self.bytes_down.saturating_sub(earlier.bytes_down),
            requests: self
                .requests
                .iter()
                .map(|(method, n)| (method.clone(), n.saturating_sub(before(method))))
                .filter(|(_, n)| *n > 0)
                .collect(),
        }
    }
}

#[derive(Default)]
struct Counters {
    connections: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    requests: Mutex<BTreeMap<String, u64>>,
}

/// A mutex whose holders cannot panic half-way.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running relay; dropping it ends all its connections.
pub struct Relay {
    addr: SocketAddr,
    counters: Arc<Counters>,
    accept: JoinHandle<()>,
}

impl Relay {
    /// Listens on `listen` (port 0 picks one) and relays each connection to `upstream`.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn start(listen: SocketAddr, upstream: SocketAddr, link: Link) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        let counters = Arc::<Counters>::default();
        let accept = tokio::spawn(accept(listener, upstream, link, Arc::clone(&counters)));
        Ok(Self {
            addr,
            counters,
            accept,
        })
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Everything that has entered the link so far.
    pub fn counts(&self) -> Counts {
        Counts {
            connections: self.counters.connections.load(Ordering::Relaxed),
            bytes_up: self.counters.up.load(Ordering::Relaxed),
            bytes_down: self.counters.down.load(Ordering::Relaxed),
            requests: locked(&self.counters.requests).clone(),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

/// One way of the link, shared by all connections.
struct Way {
    link: Link,
    free_at: Mutex<Instant>,
}

impl Way {
    fn new(link: Link) -> Arc<Self> {
        let free_at = Mutex::new(Instant::now());
        Arc::new(Self { link, free_at })
    }

    /// Occupies the link for `len` bytes and says when the last of them arrives.
    fn arrival(&self, len: usize) -> Instant {
        let now = Instant::now();
        let sent = match self.link.rate {
            None => now,
            Some(rate) => {
                let mut free_at = locked(&self.free_at);
                let busy = Duration::from_secs_f64(len as f64 / rate.max(1) as f64);
                *free_at = now.max(*free_at) + busy;
                *free_at
            }
        };
        sent + self.link.round_trip / 2
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, link: Link, counters: Arc<Counters>) {
    let (up, down) = (Way::new(link), Way::new(link));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((client, _)) => {
                counters.connections.fetch_add(1, Ordering::Relaxed);
                let (up, down) = (Arc::clone(&up), Arc::clone(&down));
                connections.spawn(serve(client, upstream, up, down, Arc::clone(&counters)));
            }
            // Out of file descriptors, or the client is gone already: others may still come.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve(
    client: TcpStream,
    upstream: SocketAddr,
    up: Arc<Way>,
    down: Arc<Way>,
    counters: Arc<Counters>,
) {
    // The kernel has answered the client's SYN already; the real link would have taken a round trip for it.
    sleep(up.link.round_trip).await;
    let Ok(server) = TcpStream::connect(upstream).await else {
        return; // closes the client's connection, which is what a dead server looks like
    };
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut seen = RequestCounter::default();
    let on_up = |bytes: &[u8]| {
        counters.up.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        seen.feed(bytes, |method| {
            let mut requests = locked(&counters.requests);
            *requests.entry(method.to_owned()).or_default() += 1;
        });
    };
    let on_down = |bytes: &[u8]| {
        counters
            .down
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
    };
    // An error on one way ends both, as a reset connection does; the end of one way does not.
    let both = tokio::try_join!(
        pump(from_client, to_server, &up, on_up),
        pump(from_server, to_client, &down, on_down),
    );
    drop(both);
}

type Chunk = (Instant, Vec<u8>, OwnedSemaphorePermit);

/// Carries bytes one way until their end.
async fn pump(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    way: &Way,
    seen: impl FnMut(&[u8]),
) -> io::Result<()> {
    let (queue, arriving) = mpsc::unbounded_channel();
    tokio::try_join!(enter(from, queue, way, seen), leave(arriving, to)).map(drop)
}

/// Reads as fast as window and link allow. The permits bound the queue.
async fn enter(
    mut from: OwnedReadHalf,
    queue: mpsc::UnboundedSender<Chunk>,
    way: &Way,
    mut seen: impl FnMut(&[u8]),
) -> io::Result<()> {
    let window = Arc::new(Semaphore::new(way.link.window()));
    let mut buffer = vec![0; CHUNK];
    loop {
        let len = from.read(&mut buffer).await?;
        let Some(bytes) = buffer.get(..len).filter(|b| !b.is_empty()) else {
            return Ok(());
        };
        seen(bytes);
        let permits = Arc::clone(&window).acquire_many_owned(len as u32).await;
        let permit = permits.map_err(io::Error::other)?;
        let due = way.arrival(len);
        if queue.send((due, bytes.to_vec(), permit)).is_err() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    }
}

async fn leave(
    mut arriving: mpsc::UnboundedReceiver<Chunk>,
    mut to: OwnedWriteHalf,
) -> io::Result<()> {
    while let Some((due, bytes, permit)) = arriving.recv().await {
        if due > Instant::now() {
            sleep_until(due).await;
        }
        to.write_all(&bytes).await?;
        drop(permit);
    }
    to.shutdown().await
}

#[cfg(test)]
mod tests;
