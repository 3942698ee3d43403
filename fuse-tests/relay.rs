//! A way to a server that can be shut: what clients send waits then, and nobody is told.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use skrin_servers::{Kind, Server};

use crate::harness::{Mount, Run, Vault};
use crate::storages::On;

/// Whether bytes pass, and who waits for it.
type Gate = Arc<(Mutex<bool>, Condvar)>;

/// A relay on a port of its own.
pub(crate) struct Relay {
    port: u16,
    gate: Gate,
}

impl Relay {
    /// Starts one to `port`; it is open.
    pub(crate) fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let own = listener.local_addr().unwrap().port();
        let gate = Gate::new((Mutex::new(true), Condvar::new()));
        let shared = Arc::clone(&gate);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
                    continue;
                };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let gate = Arc::clone(&shared);
                std::thread::spawn(move || pass(from, to, Some(&gate)));
                std::thread::spawn(move || pass(server, client, None));
            }
        });
        Self { port: own, gate }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on the server hears nothing.
    pub(crate) fn shut(&self) {
        *self.gate.0.lock().unwrap() = false;
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
        self.open();
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, gate: Option<&Gate>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if let Some(gate) = gate {
            let open = gate.0.lock().unwrap();
            drop(gate.1.wait_while(open, |open| !*open).unwrap());
        }
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
    server: Server,
}

impl Distant {
    pub(crate) fn new() -> Self {
        let server = Server::start(Kind::Rclone).unwrap();
        let relay = Relay::to(server.port());
        let distant = Self {
            vault: Vault::without_init(On::Local),
            address: server.vault_url_at(relay.port(), "vault"),
            relay,
            server,
        };
        let mut init = distant
            .vault
            .skrin(&["init", &distant.address, "--words-file"]);
        init.envs(distant.server.env())
            .arg(distant.vault.words_file())
            .output_ok();
        distant
    }

    pub(crate) fn mount(&self, device: &str) -> Mount<'_> {
        let vault = &self.vault;
        let point = vault.point(device);
        let mut mount = vault.skrin(&["mount", &self.address, "--words-file"]);
        mount
            .envs(self.server.env())
            .arg(vault.words_file())
            .arg("--state-dir")
            .arg(vault.state(device))
            .arg(&point)
            .output_ok();
        Mount::adopt(vault, point)
    }
}
