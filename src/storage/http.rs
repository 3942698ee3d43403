//! The part of HTTP that WebDAV and S3 share: one client, deadlines, bounded bodies, errors from statuses.

pub(crate) mod auth;
pub(crate) mod body;
mod pace;
pub(crate) mod status;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, ClientBuilder, Method, Response, Url};
use tokio::time::{Instant, timeout_at};

use crate::{ErrorKind, StoreError};
use pace::Pace;

/// How patient requests are. A request that moves `n` bytes may take `answer + n / slowest` in all.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Until a connection stands, TLS included.
    pub connect: Duration,
    /// Until the answer begins, once everything is sent: at most this, and less where the server used to be quicker.
    pub answer: Duration,
    /// Between two pieces of an answer.
    pub stall: Duration,
    /// Slowest acceptable rate, in bytes per second.
    pub slowest: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            answer: Duration::from_secs(45),
            stall: Duration::from_secs(30),
            slowest: 16 * 1024,
        }
    }
}

impl Times {
    /// When something that moves `len` bytes and begins now must be done.
    fn deadline(&self, len: u64) -> Instant {
        Instant::now() + self.allowed(len)
    }

    /// How long `len` bytes may take.
    fn allowed(&self, len: u64) -> Duration {
        self.answer + Duration::from_secs(len / self.slowest.max(1))
    }
}

/// A client for one server.
pub(crate) struct Http {
    client: Client,
    pub(crate) times: Times,
    /// Of requests for objects and parts of them.
    objects: Pace,
    /// Of listings, which a server makes while we wait.
    listings: Pace,
    /// The address for people, without secrets.
    pub(crate) place: String,
}

/// One request, complete: it may be sent more than once.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// What to name in errors.
    pub(crate) object: String,
    listing: bool,
}

impl Call {
    pub(crate) fn new(method: Method, url: Url, object: impl Display) -> Self {
        let mut headers = HeaderMap::new();
        // A compressed answer would have other lengths and ranges.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Self {
            method,
            url,
            headers,
            body: Bytes::new(),
            object: object.to_string(),
            listing: false,
        }
    }

    /// Marks a request for a listing.
    pub(crate) fn listing(mut self) -> Self {
        self.listing = true;
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        // All values are ours or were validated: an invalid one would be a header that is not sent.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub(crate) fn body(mut self, body: Bytes) -> Self {
        self.headers
            .insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        self.body = body;
        self
    }

    /// Asks for `len` bytes from `start` on, `len` not being 0; false if there are no such numbers.
    pub(crate) fn range(self, start: u64, len: usize) -> Option<Self> {
        let last = start.checked_add(len as u64)?.checked_sub(1)?;
        Some(self.header("range", &format!("bytes={start}-{last}")))
    }
}

impl Http {
    /// A client that follows no redirects, for `url`, trusting the system's CAs and those of `ca_pem`.
    pub(crate) fn new(
        url: &Url,
        place: String,
        times: Times,
        ca_pem: Option<&[u8]>,
    ) -> Result<Self, StoreError> {
        let builder = Client::builder()
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .user_agent(concat!("skrin/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(times.connect)
            .pool_max_idle_per_host(32)
            .pool_idle_timeout(Duration::from_secs(55))
            .tcp_keepalive(Duration::from_secs(30))
            .tcp_nodelay(true);
        let builder = match url.scheme() {
            "https" => with_roots(builder, ca_pem, &place)?,
            _ => without_tls(builder, &place)?,
        };
        let client = builder
            .build()
            .map_err(|e| tls_setup(&place, &root_cause(&e)).caused_by(e.without_url()))?;
        Ok(Self {
            client,
            times,
            objects: Pace::default(),
            listings: Pace::default(),
            place,
        })
    }

    pub(crate) fn error(
        &self,
        kind: ErrorKind,
        what: impl Into<String>,
        object: &str,
    ) -> StoreError {
        StoreError::new(kind, what)
            .object(object)
            .place(&self.place)
    }

    /// Sends a request and waits for the head of the answer, whatever its status.
    pub(crate) async fn send(&self, call: Call) -> Result<Response, StoreError> {
        let pace = match call.listing {
            true => Some(&self.listings),
            false if call.method == Method::GET => Some(&self.objects),
            // A server may scan, copy or replicate what it is given; and how long large bodies take is a matter of the link.
            false => None,
        };
        let begun = Instant::now();
        let deadline = match pace {
            Some(pace) => begun + pace.patience(self.times.answer),
            None => self.times.deadline(call.body.len() as u64),
        };
        let mut request = reqwest::Request::new(call.method, call.url);
        *request.headers_mut() = call.headers;
        if request.headers().contains_key(CONTENT_LENGTH) {
            *request.body_mut() = Some(call.body.into());
        }
        match timeout_at(deadline, self.client.execute(request)).await {
            Ok(Ok(response)) => {
                pace.inspect(|pace| pace.answered(begun.elapsed()));
                self.as_asked(response, &call.object)
            }
            Ok(Err(error)) => Err(self.transport(error, &call.object)),
            Err(_) => {
                pace.inspect(|pace| pace.in_vain());
                Err(self.error(
                    ErrorKind::Transient,
                    "the server did not answer in time",
                    &call.object,
                ))
            }
        }
    }

    /// What was compressed on the way has other bytes, lengths and ranges than the object, and nothing here undoes it.
    fn as_asked(&self, response: Response, object: &str) -> Result<Response, StoreError> {
        let encoding = response.headers().get(CONTENT_ENCODING);
        let plain = encoding.is_none_or(|e| e.is_empty() || e == "identity");
        if plain || !response.status().is_success() {
            return Ok(response);
        }
        let what = "the server sent a compressed answer, which was not asked for";
        Err(self.error(ErrorKind::Broken, what, object).remedy(
            "turn compression off for this path, on the server or on the proxy in front of it",
        ))
    }

    /// What a failure below HTTP means.
    pub(crate) fn transport(&self, error: reqwest::Error, object: &str) -> StoreError {
        let cause = root_cause(&error);
        let (kind, what) = if is_certificate(&error) {
            let what = format!("the certificate of the server does not verify: {cause}");
            (ErrorKind::Untrusted, what)
        } else if error.is_connect() {
            let what = format!("the server cannot be reached: {cause}");
            (ErrorKind::Transient, what)
        } else if error.is_builder() {
            (
                ErrorKind::Broken,
                format!("no request can be made of this: {cause}"),
            )
        } else {
            let what = format!("the connection broke: {cause}");
            (ErrorKind::Transient, what)
        };
        self.error(kind, what, object)
            .caused_by(error.without_url())
    }
}

fn tls_setup(place: &str, cause: &str) -> StoreError {
    StoreError::new(
        ErrorKind::Unsupported,
        format!("TLS cannot be set up: {cause}"),
    )
    .place(place)
    .remedy("install the package ca-certificates, or name a CA file")
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn with_roots(
    builder: ClientBuilder,
    ca_pem: Option<&[u8]>,
    place: &str,
) -> Result<ClientBuilder, StoreError> {
    // Whoever was first to install one is right: there is only ring in this program.
    let _ = Arc::unwrap_or_clone(provider()).install_default();
    let Some(pem) = ca_pem else {
        return Ok(builder);
    };
    let certificates = Certificate::from_pem_bundle(pem).unwrap_or_default();
    if certificates.is_empty() {
        return Err(
            StoreError::new(ErrorKind::Untrusted, "the CA file holds no certificate")
                .place(place)
                .remedy("give a file in PEM format, with BEGIN CERTIFICATE in it"),
        );
    }
    Ok(builder.tls_certs_merge(certificates))
}

/// Plain http never speaks TLS, so it must not fail where the system has no CAs.
fn without_tls(builder: ClientBuilder, place: &str) -> Result<ClientBuilder, StoreError> {
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| tls_setup(place, &e.to_string()))?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Ok(builder.tls_backend_preconfigured(config))
}

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

fn root_cause(error: &reqwest::Error) -> String {
    chain(error).last().map_or_else(
        || error.to_string(),
        // Some causes begin a new sentence; ours goes on.
        |cause| cause.to_string().replace('\n', " "),
    )
}

fn is_certificate(error: &reqwest::Error) -> bool {
    chain(error).any(is_bad_certificate)
}

/// An I/O error's own source skips the error that it wraps, so that one is looked at here.
fn is_bad_certificate(cause: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
        return matches!(
            tls,
            rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented
        );
    }
    let io = cause.downcast_ref::<std::io::Error>();
    let inner = io.and_then(std::io::Error::get_ref);
    inner.is_some_and(|inner| is_bad_certificate(inner))
}
