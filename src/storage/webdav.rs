//! WebDAV (RFC 4918) with the few verbs that every server does alike: PUT, GET, PROPFIND, MKCOL, DELETE.
//! No locks, no conditions, no ETags: docs/storage.md says what servers make of those.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::header::LOCATION;
use reqwest::{Method, Response, StatusCode, Url};
use skrin_base::Entropy;

use crate::http::auth::{Answer, Auth, Login, put_header};
use crate::http::body::{Body, LISTING_BODY_MAX};
use crate::http::{Call, Http, Times, status};
use crate::memory::too_short;
use crate::name::is_segment;
use crate::secret::Credentials;
use crate::xml::{DavEntry, XmlError, parse_multistatus, percent_decode, read_multistatus};
use crate::{
    Capacity, DavUrl, ErrorKind, LIST_MAX, Listed, Listing, ObjectName, Prefix, Store, StoreError,
    VaultUrl,
};

/// Larger objects are not sent before their directory is known to be there.
const EARLY_MKCOL: usize = 64 * 1024;
/// Redirects within one server that are followed.
const REDIRECTS_MAX: usize = 4;
/// Collections that are made for one object, above the vault included.
const COLLECTIONS_MAX: usize = 64;
/// Bytes of an answer about a single resource.
const SMALL_ANSWER_MAX: usize = 256 * 1024;

const LIST_BODY: &str = r#"<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><prop><resourcetype/><getcontentlength/></prop></propfind>"#;
const QUOTA_BODY: &str = r#"<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><prop><quota-available-bytes/><quota-used-bytes/></prop></propfind>"#;

/// A collection on a WebDAV server.
pub struct WebDavStore {
    http: Http,
    /// Ends in a slash.
    base: Url,
    auth: Auth,
    /// Directories of the vault that are there.
    known: Mutex<HashSet<Prefix>>,
    /// Those that were not when they were listed.
    missing: Mutex<HashSet<Prefix>>,
}

impl WebDavStore {
    /// Makes a client; nothing is sent before the first operation.
    pub fn new(
        url: &DavUrl,
        credentials: Credentials,
        times: Times,
        ca_pem: Option<&[u8]>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, StoreError> {
        let place = VaultUrl::WebDav(url.clone()).to_string();
        let login = match credentials {
            Credentials::Password {
                user,
                password,
                origin,
            } => Some(Login {
                user,
                password,
                origin,
            }),
            Credentials::Anonymous => None,
            Credentials::Keys { .. } => {
                return Err(StoreError::new(
                    ErrorKind::Denied,
                    "S3 keys do not open a WebDAV server",
                )
                .place(place));
            }
        };
        let encrypted = url.url.scheme() == "https";
        Ok(Self {
            http: Http::new(&url.url, place, times, ca_pem)?,
            base: url.url.clone(),
            auth: Auth::new(login, encrypted, entropy),
            known: Mutex::default(),
            missing: Mutex::default(),
        })
    }

    fn call(&self, method: Method, name: &ObjectName) -> Call {
        Call::new(method, self.below(name.as_str()), name)
    }

    fn below(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path()));
        url
    }

    fn collection(&self, dir: &Prefix) -> Url {
        match dir.as_str() {
            "" => self.base.clone(),
            dir => self.below(&format!("{dir}/")),
        }
    }

    /// Sends a request, logging in and following redirects within the server.
    async fn send(&self, call: Call) -> Result<Response, StoreError> {
        if !self.auth.is_unproven() {
            return self.send_authorized(call).await;
        }
        let _alone = self.auth.gate.lock().await;
        if self.auth.is_unknown() && !self.auth.is_latched() {
            self.learn().await?;
        }
        self.send_authorized(call).await
    }

    /// Asks the server how it wants people to log in, so that no large body is sent in vain.
    async fn learn(&self) -> Result<(), StoreError> {
        let call = propfind(self.base.clone(), "0", LIST_BODY, "the vault's folder");
        let response = self.http.send(call).await?;
        match response.status() {
            StatusCode::UNAUTHORIZED => {
                self.auth.challenged(response.headers(), false);
            }
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Err(self.failed(&Method::GET, response, "the vault's folder"));
            }
            _ => self.auth.accepted(false),
        }
        Ok(())
    }

    async fn send_authorized(&self, mut call: Call) -> Result<Response, StoreError> {
        for _ in 0..=REDIRECTS_MAX {
            if self.auth.is_latched() {
                return Err(self.denied(&call.object));
            }
            let header = self.auth.header(&call.method, &call.url);
            let with_login = header.is_some();
            put_header(&mut call.headers, header);
            let response = self.http.send(call.clone()).await?;
            match response.status().as_u16() {
                401 => match self.auth.challenged(response.headers(), with_login) {
                    Answer::Again => {}
                    Answer::Refused => return Err(self.denied(&call.object)),
                },
                301 | 302 | 307 | 308 => call.url = self.redirected(&call, &response)?,
                _ => {
                    self.auth.accepted(with_login);
                    return Ok(response);
                }
            }
        }
        Err(self.http.error(
            ErrorKind::Broken,
            "the server redirects or asks for a log-in without end",
            &call.object,
        ))
    }

    /// Where to go on: never to another scheme, host or port, where our password has no business.
    fn redirected(&self, call: &Call, response: &Response) -> Result<Url, StoreError> {
        let location = response.headers().get(LOCATION);
        let target = location
            .and_then(|location| call.url.join(location.to_str().ok()?).ok())
            .ok_or_else(|| {
                let what = "the server redirects to nowhere";
                self.http.error(ErrorKind::Broken, what, &call.object)
            })?;
        if target.origin() != call.url.origin() {
            let host = target.host_str().unwrap_or("nowhere");
            let what = format!(
                "the server sends us to another one: {}://{host}",
                target.scheme()
            );
            return Err(self
                .http
                .error(ErrorKind::Untrusted, what, &call.object)
                .remedy("if that is right, use its address"));
        }
        Ok(target)
    }

    fn denied(&self, object: &str) -> StoreError {
        match &self.auth.login {
            Some(login) => {
                let what = format!(
                    "the server refuses the user {:?} with the password from {}",
                    login.user, login.origin
                );
                self.http
                    .error(ErrorKind::Denied, what, object)
                    .remedy("correct it; it is not tried again for five minutes, because servers lock out who guesses")
            }
            None => self
                .http
                .error(
                    ErrorKind::Denied,
                    "the server asks for a user and a password",
                    object,
                )
                .remedy(
                    "set SKRIN_WEBDAV_USER and SKRIN_WEBDAV_PASSWORD, or add the host to ~/.netrc",
                ),
        }
    }

    /// The error that an answer stands for.
    fn failed(&self, method: &Method, response: Response, object: &str) -> StoreError {
        let status = response.status();
        let kind = status::kind(method, status);
        let what = match kind {
            ErrorKind::Absent => "there is no such object".to_owned(),
            _ => format!("the server answered {status} to {method}"),
        };
        let error = self
            .http
            .error(kind, what, object)
            .retry_after(status::retry_after(&response));
        match status::remedy(status) {
            Some(remedy) => error.remedy(remedy),
            None => error,
        }
    }

    async fn put_once(&self, name: &ObjectName, bytes: &Bytes) -> Result<Response, StoreError> {
        let call = self
            .call(Method::PUT, name)
            .header("content-type", "application/octet-stream")
            .body(bytes.clone());
        self.send(call).await
    }

    /// A failed PUT: some servers say 405 or 500 where they mean "full", but tell their quota rightly.
    async fn put_failed(&self, response: Response, name: &ObjectName, len: usize) -> StoreError {
        let status = response.status().as_u16();
        let error = self.failed(&Method::PUT, response, name.as_str());
        if !matches!(status, 405 | 500) {
            return error;
        }
        match self.capacity().await {
            Ok(Capacity {
                available: Some(room),
                ..
            }) if room < len as u64 => {
                let what = format!("the server answered {status} and has {room} bytes left");
                self.http.error(ErrorKind::Full, what, name.as_str())
            }
            _ => error,
        }
    }

    /// Makes a directory of the vault, and what is missing above it.
    async fn make_collection(&self, dir: &Prefix) -> Result<(), StoreError> {
        let object = dir.to_string();
        let mut missing = self.not_known(dir);
        let mut made_above = false;
        while let Some(url) = missing.last().cloned() {
            if self.mkcol(&url, &object).await? {
                missing.pop();
                made_above = true;
                continue;
            }
            let above = url.join("..").ok().filter(|above| *above != url);
            match above {
                Some(above) if !made_above && missing.len() < COLLECTIONS_MAX => {
                    missing.push(above);
                }
                _ => {
                    return Err(self.http.error(
                        ErrorKind::Unsupported,
                        "the server does not let us make folders here",
                        &object,
                    ));
                }
            }
        }
        self.is_there(dir);
        Ok(())
    }

    fn is_there(&self, dir: &Prefix) {
        self.known.lock().insert(dir.clone());
        self.missing.lock().remove(dir);
    }

    /// What to make for a directory, the last one first: itself, and where it was missing the one above, unless that is known,
    /// as it is probably missing too.
    fn not_known(&self, dir: &Prefix) -> Vec<Url> {
        let mut dirs = vec![self.collection(dir)];
        if self.missing.lock().contains(dir)
            && let Some(above) = dir.parent()
        {
            let above = self.collection(&above);
            let inside = |known: &Prefix| self.collection(known).path().starts_with(above.path());
            if !self.known.lock().iter().any(inside) {
                dirs.push(above);
            }
        }
        dirs
    }

    /// True when the collection is there, false when the one above it is not.
    async fn mkcol(&self, url: &Url, object: &str) -> Result<bool, StoreError> {
        let method = Method::from_bytes(b"MKCOL").unwrap_or_default();
        let response = self
            .send(Call::new(method.clone(), url.clone(), object).body(Bytes::new()))
            .await?;
        match response.status().as_u16() {
            // 405: it exists.
            200..300 | 405 => return Ok(true),
            404 | 409 => return Ok(false),
            _ => {}
        }
        // Losers of a race are told all kinds of things (403, 423, 500): what counts is whether it is there.
        let error = self.failed(&method, response, object);
        let look = self
            .send(propfind(url.clone(), "0", LIST_BODY, object))
            .await?;
        match look.status() {
            StatusCode::MULTI_STATUS => Ok(true),
            _ => Err(error),
        }
    }

    fn read_failed(&self, response: Response, name: &ObjectName) -> StoreError {
        if response.status().is_success() {
            let what = format!("the server answered {} to GET", response.status());
            return self.http.error(ErrorKind::Broken, what, name.as_str());
        }
        self.failed(&Method::GET, response, name.as_str())
    }
}

fn propfind(url: Url, depth: &str, body: &'static str, object: &str) -> Call {
    let method = Method::from_bytes(b"PROPFIND").unwrap_or_default();
    let call = Call::new(method, url, object)
        .header("depth", depth)
        .header("content-type", "application/xml; charset=utf-8")
        .body(Bytes::from_static(body.as_bytes()));
    match depth {
        "0" => call,
        _ => call.listing(),
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for WebDavStore {
    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        let dir = name.parent();
        let known = self.known.lock().contains(&dir);
        if !known && (bytes.len() > EARLY_MKCOL || self.missing.lock().contains(&dir)) {
            self.make_collection(&dir).await?;
        }
        let mut response = self.put_once(name, &bytes).await?;
        if matches!(response.status().as_u16(), 404 | 409) {
            self.known.lock().remove(&dir);
            self.make_collection(&dir).await?;
            response = self.put_once(name, &bytes).await?;
        }
        match response.status().as_u16() {
            200..=204 => {
                self.is_there(&dir);
                Ok(())
            }
            _ => Err(self.put_failed(response, name, bytes.len()).await),
        }
    }

    async fn get(&self, name: &ObjectName, max: usize) -> Result<Bytes, StoreError> {
        let response = self.send(self.call(Method::GET, name)).await?;
        match response.status() {
            StatusCode::OK => {
                let body = Body::new(&self.http, response, max as u64, name.as_str());
                body.whole(max).await
            }
            _ => Err(self.read_failed(response, name)),
        }
    }

    async fn get_range(
        &self,
        name: &ObjectName,
        start: u64,
        len: usize,
    ) -> Result<Bytes, StoreError> {
        if len == 0 {
            return Ok(Bytes::new());
        }
        let short = || too_short(start, len).object(name).place(&self.http.place);
        let call = self.call(Method::GET, name);
        let call = call.range(start, len).ok_or_else(short)?;
        let response = self.send(call).await?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => {
                let far = start.saturating_add(len as u64);
                let body = Body::new(&self.http, response, far, name.as_str());
                body.range(start, len).await
            }
            StatusCode::RANGE_NOT_SATISFIABLE => Err(short()),
            _ => Err(self.read_failed(response, name)),
        }
    }

    async fn list(&self, dir: &Prefix) -> Result<Listing, StoreError> {
        let object = dir.to_string();
        let url = self.collection(dir);
        let call = propfind(url, "1", LIST_BODY, &object);
        let method = call.method.clone();
        let response = self.send(call).await?;
        match response.status().as_u16() {
            207 => {}
            404 | 410 => {
                self.known.lock().remove(dir);
                self.missing.lock().insert(dir.clone());
                return Ok(Listing::default());
            }
            200 | 400 | 405 | 501 => {
                let what = format!(
                    "the server answered {} to PROPFIND: no WebDAV is spoken here",
                    response.status()
                );
                return Err(self
                    .http
                    .error(ErrorKind::Unsupported, what, &object)
                    .remedy("check the path in the address"));
            }
            _ => return Err(self.failed(&method, response, &object)),
        }
        // Where it was redirected the names lie below the new place.
        let lister = Lister::new(response.url().clone(), dir.clone());
        let body = Body::new(&self.http, response, 64 << 20, &object);
        let listing = body
            .parse(LISTING_BODY_MAX, move |pipe| lister.read(pipe))
            .await?;
        self.is_there(dir);
        Ok(listing)
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        // Nextcloud would keep it in a bin that counts against the quota.
        let call = self
            .call(Method::DELETE, name)
            .header("x-nc-skip-trashbin", "true");
        let response = self.send(call).await?;
        match response.status().as_u16() {
            200..=204 | 404 | 410 => Ok(()),
            207 => Err(self.http.error(
                ErrorKind::Transient,
                "the server could not delete it now",
                name.as_str(),
            )),
            _ => Err(self.failed(&Method::DELETE, response, name.as_str())),
        }
    }

    async fn capacity(&self) -> Result<Capacity, StoreError> {
        let object = "the vault's folder";
        let response = self
            .send(propfind(self.base.clone(), "0", QUOTA_BODY, object))
            .await?;
        if response.status() != StatusCode::MULTI_STATUS {
            return match status::kind(&Method::GET, response.status()) {
                ErrorKind::Denied | ErrorKind::Transient => {
                    Err(self.failed(&Method::GET, response, object))
                }
                _ => Ok(Capacity::default()),
            };
        }
        let body = Body::new(&self.http, response, SMALL_ANSWER_MAX as u64, object);
        let bytes = body.whole(SMALL_ANSWER_MAX).await?;
        // A server that answers nonsense about its quota tells none.
        let entries = parse_multistatus(&bytes).unwrap_or_default();
        let entry = entries.into_iter().next().unwrap_or_default();
        Ok(Capacity {
            total: entry
                .available
                .zip(entry.used)
                .and_then(|(available, used)| available.checked_add(used)),
            available: entry.available,
        })
    }

    fn place(&self) -> String {
        self.http.place.clone()
    }
}

/// Turns the resources of a PROPFIND into a listing.
struct Lister {
    url: Url,
    /// The decoded path of the collection, ending in a slash.
    path: String,
    dir: Prefix,
    listing: Listing,
    /// Whether the collection itself was named.
    named: bool,
}

impl Lister {
    fn new(mut url: Url, dir: Prefix) -> Self {
        // A redirection may have taken it away.
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        Self {
            path: percent_decode(url.path()).unwrap_or_default(),
            url,
            dir,
            listing: Listing::default(),
            named: false,
        }
    }

    /// RFC 4918, 9.1: an answer of depth 1 names the collection itself. Where it does not, it is about another place, and
    /// that nothing of it lies below ours must not be taken for an empty directory.
    fn read(mut self, input: impl std::io::BufRead) -> Result<Listing, XmlError> {
        read_multistatus(input, &mut |entry| self.add(&entry))?;
        if !self.named {
            return Err(XmlError::Unexpected(
                "it lists another place than the address says, perhaps because of a proxy that changes paths, or of upper and lower case in the address",
            ));
        }
        let listing = &mut self.listing;
        listing.objects.sort_unstable();
        listing.objects.dedup_by(|a, b| a.name == b.name);
        listing.dirs.sort_unstable();
        listing.dirs.dedup();
        Ok(self.listing)
    }

    fn add(&mut self, entry: &DavEntry) -> Result<(), XmlError> {
        let Some(segment) = self.segment(&entry.href) else {
            self.named |= self.is_itself(&entry.href);
            return Ok(());
        };
        if entry.collection {
            self.listing.dirs.push(segment);
        } else if let Ok(name) = self.dir.object(&segment) {
            let len = entry.len;
            self.listing.objects.push(Listed { name, len });
        }
        if self.listing.objects.len() + self.listing.dirs.len() > LIST_MAX {
            return Err(XmlError::TooMuch("entries"));
        }
        Ok(())
    }

    fn is_itself(&self, href: &str) -> bool {
        let path = self.url.join(href).ok();
        let path = path.and_then(|url| percent_decode(url.path()));
        path.is_some_and(|path| path.trim_end_matches('/') == self.path.trim_end_matches('/'))
    }

    /// The last segment of a resource directly in the collection. Scheme and host are not looked at: behind a
    /// proxy servers name themselves as they please.
    fn segment(&self, href: &str) -> Option<String> {
        let url = self.url.join(href).ok()?;
        let path = percent_decode(url.path())?;
        let rest = path.strip_prefix(&self.path)?;
        let segment = rest.strip_suffix('/').unwrap_or(rest);
        is_segment(segment).then(|| segment.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_be_absolute_or_paths_and_must_lie_directly_in_the_collection() {
        let url: Url = "https://h/remote.php/dav/a%20b/slots/".parse().unwrap();
        let lister = Lister::new(url, Prefix::new("slots").unwrap());
        for (href, segment) in [
            ("/remote.php/dav/a%20b/slots/", None),
            ("/remote.php/dav/a%20b/slots", None),
            ("/remote.php/dav/a%20b/slots/one", Some("one")),
            ("http://inner:81/remote.php/dav/a b/slots/two", Some("two")),
            ("/remote.php/dav/a%20b/slots/sub/", Some("sub")),
            ("three", Some("three")),
            ("/remote.php/dav/a%20b/slots/sub/deep", None),
            ("/remote.php/dav/a%20b/slots/%2e%2e", None),
            ("/remote.php/dav/a%20b/slots/x%2fy", None),
            ("/remote.php/dav/a%20b/slots/Other", None),
            ("/elsewhere/four", None),
            ("http://[", None),
        ] {
            assert_eq!(lister.segment(href).as_deref(), segment, "{href}");
        }
    }

    #[test]
    fn a_listing_is_sorted_and_has_no_repetition() {
        let lister = Lister::new("http://h/v/".parse().unwrap(), Prefix::root());
        let response = |href: &str, prop: &str| {
            format!(
                "<response><href>{href}</href><propstat><prop>{prop}</prop><status>HTTP/1.1 200 OK</status></propstat></response>"
            )
        };
        let (dir, file) = (
            "<resourcetype><collection/></resourcetype>",
            "<getcontentlength>5</getcontentlength>",
        );
        let body: String = [
            response("/v/", dir),
            response("/v/b", file),
            response("http://other/v/a", file),
            response("b", file),
            response("/v/sub/", dir),
            response("/v/sub/deep", file),
            response("/v/x%2fy", file),
            response("/v/Upper", file),
            response("/w/z", file),
        ]
        .concat();
        let xml = format!(r#"<multistatus xmlns="DAV:">{body}</multistatus>"#);
        let listing = lister.read(xml.as_bytes()).unwrap();
        let names: Vec<_> = listing.objects.iter().map(|o| o.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(listing.objects[0].len, Some(5));
        assert_eq!(listing.dirs, ["sub"]);
    }

    #[test]
    fn a_listing_of_another_place_is_no_empty_directory() {
        let lister = || Lister::new("http://h/dav/v/".parse().unwrap(), Prefix::root());
        let answer = |hrefs: &[&str]| {
            let responses = hrefs.iter().map(|href| {
                let prop = "<prop><resourcetype/></prop><status>HTTP/1.1 200 OK</status>";
                format!("<response><href>{href}</href><propstat>{prop}</propstat></response>")
            });
            let body: String = responses.collect();
            format!(r#"<multistatus xmlns="DAV:">{body}</multistatus>"#)
        };
        for itself in ["/dav/v/", "/dav/v", "http://inner:81/dav/v", "/dav/%76/"] {
            let listing = lister().read(answer(&[itself]).as_bytes()).unwrap();
            assert!(listing.objects.is_empty());
        }
        let redirected = Lister::new("http://h/dav/v".parse().unwrap(), Prefix::root());
        let listing = redirected.read(answer(&["/dav/v", "/dav/v/a"]).as_bytes());
        assert_eq!(listing.unwrap().objects[0].name.as_str(), "a");
        for other in [&["/v/", "/v/skrin.vault"][..], &["/dav/V/"], &[]] {
            let error = lister().read(answer(other).as_bytes()).unwrap_err();
            assert!(error.to_string().contains("another place"), "{error}");
        }
    }
}
