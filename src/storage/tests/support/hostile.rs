//! A server that does to its clients whatever a test says.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use skrin_base::clock::testutil::SeededEntropy;
use skrin_storage::{Credentials, ObjectName, OpenOptions, Secret, Store, Times, VaultUrl, open};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What is sent for a request.
pub(crate) enum Answer {
    /// These bytes, and then the connection stays.
    Send(String),
    /// These bytes, and then it is closed.
    Close(String),
    /// These bytes, and then one more every so often without end.
    Drip(String, Duration),
    /// The first bytes, and then the others again and again, as many as the client takes.
    Flood(String, String),
    /// These bytes, which are no text, and then the connection stays.
    Bytes(Bytes),
    /// Nothing: what the client sends is read byte by byte, one now and then.
    Sip,
}

/// What a server reads of its requests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    Everything,
    Heads,
}

/// A server that answers by a function of the request's head, and remembers all heads.
pub(crate) struct Hostile {
    pub(crate) port: u16,
    heads: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hostile {
    pub(crate) async fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        Self::reading(Reads::Everything, answer).await
    }

    /// One that answers before it has read the body of a request.
    pub(crate) async fn rash(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        Self::reading(Reads::Heads, answer).await
    }

    async fn reading(
        reads: Reads,
        answer: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (answer, seen) = (Arc::new(answer), Arc::clone(&heads));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                tokio::spawn(async move { serve(stream, reads, &*answer, &seen).await });
            }
        });
        Self { port, heads, task }
    }

    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().clone()
    }

    pub(crate) fn count(&self, method: &str) -> usize {
        let heads = self.heads();
        heads.iter().filter(|head| head.starts_with(method)).count()
    }

    pub(crate) fn webdav(&self, user: Option<&str>) -> Arc<dyn Store> {
        let credentials = match user {
            Some(user) => Credentials::Password {
                user: user.into(),
                password: Secret::new("hunter2"),
                origin: "the test".into(),
            },
            None => Credentials::Anonymous,
        };
        self.open_webdav(options(credentials))
    }

    pub(crate) fn s3(&self) -> Arc<dyn Store> {
        self.open_s3(options(keys()))
    }

    /// WebDAV and S3 for what has to succeed, or to fail at once: a machine that is busy is no reason to give up.
    pub(crate) fn patient(&self) -> [Arc<dyn Store>; 2] {
        let patient = |credentials| OpenOptions {
            patience: Duration::from_secs(60),
            ..options(credentials)
        };
        let webdav = self.open_webdav(patient(Credentials::Anonymous));
        [webdav, self.open_s3(patient(keys()))]
    }

    /// WebDAV and S3 that ask once and repeat nothing.
    pub(crate) fn once(&self, times: Times) -> [Arc<dyn Store>; 2] {
        let once = |credentials| OpenOptions {
            patience: Duration::ZERO,
            times,
            ..options(credentials)
        };
        let webdav = self.open_webdav(once(Credentials::Anonymous));
        [webdav, self.open_s3(once(keys()))]
    }

    fn open_webdav(&self, options: OpenOptions) -> Arc<dyn Store> {
        let url = format!("webdav://127.0.0.1:{}/v", self.port);
        open(&VaultUrl::parse(&url).unwrap(), options).unwrap()
    }

    fn open_s3(&self, options: OpenOptions) -> Arc<dyn Store> {
        let url = format!("s3://bucket/v?endpoint=http://127.0.0.1:{}", self.port);
        open(&VaultUrl::parse(&url).unwrap(), options).unwrap()
    }
}

fn keys() -> Credentials {
    Credentials::Keys {
        access_key: "AK".into(),
        secret_key: Secret::new("hunter2"),
        session_token: None,
        origin: "the test".into(),
    }
}

/// What fails is tried again for a moment only. Each request has the usual time, so that nothing fails because a machine is busy.
pub(crate) fn options(credentials: Credentials) -> OpenOptions {
    OpenOptions {
        credentials,
        patience: Duration::from_millis(1500),
        ..OpenOptions::new(Arc::new(SeededEntropy::new(3)))
    }
}

/// For servers that are slow on purpose.
pub(crate) const SHORT: Times = Times {
    connect: Duration::from_secs(2),
    answer: Duration::from_secs(1),
    stall: Duration::from_millis(500),
    slowest: 1 << 20,
};

async fn read_head(stream: &mut TcpStream, reads: Reads) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    if reads == Reads::Heads {
        return Some(head);
    }
    let len = head.split("content-length: ").nth(1);
    let len = len.map_or(0, |rest| {
        rest.split_once("\r\n").unwrap().0.parse().unwrap()
    });
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await.ok()?;
    Some(head)
}

async fn serve(
    mut stream: TcpStream,
    reads: Reads,
    answer: &(dyn Fn(&str) -> Answer + Send + Sync),
    seen: &Mutex<Vec<String>>,
) {
    while let Some(head) = read_head(&mut stream, reads).await {
        seen.lock().push(head.clone());
        let answer = answer(&head);
        let bytes: &[u8] = match &answer {
            Answer::Sip => &[],
            Answer::Bytes(bytes) => bytes,
            Answer::Send(text)
            | Answer::Close(text)
            | Answer::Drip(text, _)
            | Answer::Flood(text, _) => text.as_bytes(),
        };
        if stream.write_all(bytes).await.is_err() {
            return;
        }
        match answer {
            Answer::Send(_) | Answer::Bytes(_) => {}
            Answer::Close(_) => return,
            Answer::Sip => {
                while stream.read_u8().await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            Answer::Drip(_, every) => loop {
                tokio::time::sleep(every).await;
                if stream.write_all(b"x").await.is_err() {
                    return;
                }
            },
            Answer::Flood(_, more) => while stream.write_all(more.as_bytes()).await.is_ok() {},
        }
    }
}

pub(crate) fn http(status: &str, headers: &str, body: &str) -> String {
    let len = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {len}\r\n{headers}\r\n{body}")
}

pub(crate) fn name(s: &str) -> ObjectName {
    ObjectName::new(s).unwrap()
}

pub(crate) const BASIC: &str = "WWW-Authenticate: Basic realm=\"x\"\r\n";
