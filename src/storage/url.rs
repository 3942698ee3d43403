//! Where a vault lies, as a user writes it.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use reqwest::Url;

use crate::xml::percent_decode;

/// An address of a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultUrl {
    /// A path or `file:///path`.
    Local(PathBuf),
    /// `webdavs://user@host/path`, or `webdav://` without TLS.
    WebDav(DavUrl),
    /// `s3://bucket/prefix?endpoint=...&region=...&style=...`.
    S3(S3Url),
}

/// A collection on a WebDAV server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DavUrl {
    /// The collection, `http` or `https`, ending in a slash, without a user.
    pub url: Url,
    /// The user, where the address names one.
    pub user: Option<String>,
}

/// A place in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Url {
    /// Name of the bucket.
    pub bucket: String,
    /// What the keys begin with: empty, or ending in a slash.
    pub prefix: String,
    /// The server; AWS of the region where none is given.
    pub endpoint: Option<Url>,
    /// Region; `us-east-1` where none is given here or by the environment.
    pub region: Option<String>,
    /// The bucket is part of the host name and not of the path.
    pub virtual_host: bool,
}

/// Why an address is none. None of these repeats a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// The address is empty.
    #[error("the address of the vault is empty")]
    Empty,
    /// A password in it would be seen by everybody who lists processes or reads the shell's history.
    #[error(
        "the address holds a password; take it out and use SKRIN_WEBDAV_PASSWORD, ~/.netrc, AWS_* or ~/.aws"
    )]
    Password,
    /// No such scheme.
    #[error(
        "unknown kind of address {0}://; use a path, file://, webdavs://, webdav:// (no TLS) or s3://"
    )]
    Scheme(String),
    /// http and https do not say what is spoken there.
    #[error("write {0}:// for a WebDAV server, or s3://bucket/prefix?endpoint=... for S3")]
    Http(&'static str),
    /// Not parseable, or a part is missing.
    #[error("the address is not complete: {0}")]
    Incomplete(&'static str),
    /// A bucket that no server can have.
    #[error(
        "the name of a bucket has 3 to 63 characters: letters, digits, and -, . or _ between them"
    )]
    Bucket,
    /// A parameter that is not known, or given twice.
    #[error(
        "unknown or repeated parameter {0:?} in the address; known are endpoint, region and style"
    )]
    Parameter(String),
}

impl VaultUrl {
    /// Understands what a user wrote. Whatever has no `://` is a path.
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return match text {
                "" => Err(BadUrl::Empty),
                path => Ok(Self::Local(path.into())),
            };
        };
        match scheme.to_ascii_lowercase().as_str() {
            "file" => local(rest),
            "webdavs" => Ok(Self::WebDav(webdav("https", rest)?)),
            "webdav" => Ok(Self::WebDav(webdav("http", rest)?)),
            "s3" => Ok(Self::S3(s3(rest)?)),
            "https" => Err(BadUrl::Http("webdavs")),
            "http" => Err(BadUrl::Http("webdav")),
            other => Err(BadUrl::Scheme(other.to_owned())),
        }
    }
}

impl VaultUrl {
    /// The host that is spoken to without TLS, unless it is this machine: whoever sits between reads along.
    pub fn plain_text_host(&self) -> Option<&str> {
        let url = match self {
            Self::Local(_) => None,
            Self::WebDav(dav) => Some(&dav.url),
            Self::S3(s3) => s3.endpoint.as_ref(),
        };
        url.filter(|url| url.scheme() == "http")?
            .host_str()
            .filter(|host| !is_loopback(host))
    }
}

/// 127.0.0.0/8, ::1 and their name.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

fn local(rest: &str) -> Result<VaultUrl, BadUrl> {
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err(BadUrl::Incomplete("file:// needs an absolute path"));
    }
    let path = percent_decode(path).ok_or(BadUrl::Incomplete("a % in it is not %25"))?;
    Ok(VaultUrl::Local(Path::new(&path).to_owned()))
}

/// Parses `scheme://rest` and takes the user out; a password is refused.
fn http(scheme: &str, rest: &str) -> Result<(Url, Option<String>), BadUrl> {
    let mut url = Url::parse(&format!("{scheme}://{rest}"))
        .map_err(|_| BadUrl::Incomplete("it needs a host, as in webdavs://host/path"))?;
    if url.password().is_some() {
        return Err(BadUrl::Password);
    }
    if url.fragment().is_some() {
        return Err(BadUrl::Incomplete("it may not hold a #"));
    }
    let user = percent_decode(url.username()).ok_or(BadUrl::Incomplete("the user is no text"))?;
    // An address with a host always takes a user, and so gives it back.
    let _ = url.set_username("");
    Ok((url, Some(user).filter(|user| !user.is_empty())))
}

fn webdav(scheme: &str, rest: &str) -> Result<DavUrl, BadUrl> {
    let (mut url, user) = http(scheme, rest)?;
    if url.query().is_some() {
        return Err(BadUrl::Incomplete("a WebDAV address may not hold a ?"));
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(DavUrl { url, user })
}

fn s3(rest: &str) -> Result<S3Url, BadUrl> {
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    if bucket.contains('@') {
        return Err(if bucket.contains(':') {
            BadUrl::Password
        } else {
            BadUrl::Incomplete("keys do not belong into an S3 address")
        });
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if bucket.len() < 3 || bucket.len() > 63 || !bucket.bytes().all(allowed) {
        return Err(match bucket {
            "" => BadUrl::Incomplete("s3:// needs the name of a bucket"),
            _ => BadUrl::Bucket,
        });
    }
    let mut s3 = S3Url {
        bucket: bucket.to_owned(),
        prefix: s3_prefix(prefix)?,
        endpoint: None,
        region: None,
        virtual_host: false,
    };
    let mut seen = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode(value).ok_or(BadUrl::Incomplete("a % in it is not %25"))?;
        if seen.contains(&key) || !s3.parameter(key, value)? {
            return Err(BadUrl::Parameter(key.to_owned()));
        }
        seen.push(key);
    }
    Ok(s3)
}

fn s3_prefix(prefix: &str) -> Result<String, BadUrl> {
    let prefix = prefix.trim_matches('/');
    let segments = || prefix.split('/');
    if prefix.is_empty() {
        return Ok(String::new());
    }
    // Such keys cannot be written as URLs: they would be shortened like paths.
    if segments().any(|s| s.is_empty() || s == "." || s == "..") || prefix.len() > 256 {
        return Err(BadUrl::Incomplete("the prefix in the bucket is not usable"));
    }
    Ok(format!("{prefix}/"))
}

impl S3Url {
    /// Takes a parameter; false if there is no such.
    fn parameter(&mut self, key: &str, value: String) -> Result<bool, BadUrl> {
        match (key, value.as_str()) {
            ("endpoint", text) => self.endpoint = Some(endpoint(text)?),
            ("region", "") => return Err(BadUrl::Incomplete("the region is empty")),
            ("region", _) => self.region = Some(value),
            ("style", "path") => self.virtual_host = false,
            ("style", "virtual") => self.virtual_host = true,
            ("style", _) => return Err(BadUrl::Incomplete("style is path or virtual")),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// `https` unless it says `http://`.
fn endpoint(text: &str) -> Result<Url, BadUrl> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("https", text));
    if scheme != "http" && scheme != "https" {
        return Err(BadUrl::Scheme(scheme.to_owned()));
    }
    match http(scheme, rest)? {
        (_, Some(_)) => Err(BadUrl::Incomplete("keys do not belong into an S3 address")),
        (url, None) if url.query().is_some() => {
            Err(BadUrl::Incomplete("the endpoint may not hold a ?"))
        }
        (url, None) => Ok(url),
    }
}

impl fmt::Display for VaultUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::WebDav(dav) => {
                let secure = dav.url.scheme() == "https";
                let host = dav.url.host_str().unwrap_or_default();
                f.write_str(if secure { "webdavs://" } else { "webdav://" })?;
                if let Some(user) = &dav.user {
                    write!(f, "{}@", encoded(user, b""))?;
                }
                f.write_str(host)?;
                if let Some(port) = dav.url.port() {
                    write!(f, ":{port}")?;
                }
                f.write_str(dav.url.path())
            }
            Self::S3(s3) => {
                write!(f, "s3://{}/{}", s3.bucket, s3.prefix)?;
                let endpoint = s3.endpoint.as_ref().map(|url| ("endpoint", url.as_str()));
                let region = s3.region.as_deref().map(|region| ("region", region));
                let style = s3.virtual_host.then_some(("style", "virtual"));
                for (n, (key, value)) in [endpoint, region, style].into_iter().flatten().enumerate()
                {
                    let sign = if n == 0 { '?' } else { '&' };
                    write!(f, "{sign}{key}={}", encoded(value, b":/[]"))?;
                }
                Ok(())
            }
        }
    }
}

/// RFC 3986, 2.1: all bytes but the unreserved ones, and those that `kept` names, as %XX.
fn encoded(text: &str, kept: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dav(text: &str) -> DavUrl {
        match VaultUrl::parse(text) {
            Ok(VaultUrl::WebDav(dav)) => dav,
            other => panic!("{other:?}"),
        }
    }

    fn s3(text: &str) -> S3Url {
        match VaultUrl::parse(text) {
            Ok(VaultUrl::S3(s3)) => s3,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn paths_and_file_addresses_are_local() {
        for (text, path) in [
            ("/srv/v", "/srv/v"),
            ("rel/v", "rel/v"),
            ("file:///a%20b", "/a b"),
            ("file://localhost/x", "/x"),
        ] {
            assert_eq!(VaultUrl::parse(text), Ok(VaultUrl::Local(path.into())));
        }
    }

    #[test]
    fn an_address_that_is_shown_can_be_typed_and_is_the_same() {
        for text in [
            "/srv/v",
            "webdavs://anna@h:8443/a%20b/c",
            "webdav://h/v",
            "webdavs://DOM%5Canna%40corp@h/v",
            "webdavs://a%3Ab%2Fc%25%23%3F%C3%A9@h/v",
            "s3://bucket/v?endpoint=http://h/a%2526b",
            "s3://bucket/a/b",
            "s3://bucket/v?region=garage",
            "s3://bucket/v?endpoint=http://127.0.0.1:9000&region=eu&style=virtual",
            "s3://bucket?style=virtual&endpoint=https://h/",
        ] {
            let url = VaultUrl::parse(text).unwrap();
            let shown = url.to_string();
            assert_eq!(VaultUrl::parse(&shown), Ok(url), "{text}: {shown}");
        }
    }

    #[test]
    fn webdav_is_encrypted_unless_it_says_otherwise() {
        let secure = dav("webdavs://anna@h.example:8443/dav/my%20vault");
        assert_eq!(
            secure.url.as_str(),
            "https://h.example:8443/dav/my%20vault/"
        );
        assert_eq!(secure.user.as_deref(), Some("anna"));
        assert_eq!(dav("webdav://h").url.as_str(), "http://h/");
        let shown = VaultUrl::WebDav(secure).to_string();
        assert_eq!(shown, "webdavs://anna@h.example:8443/dav/my%20vault/");
    }

    #[test]
    fn s3_takes_bucket_prefix_and_parameters() {
        let plain = s3("s3://bucket");
        assert_eq!((plain.prefix.as_str(), plain.endpoint), ("", None));
        let full = s3("s3://bucket/a/b/?endpoint=http://127.0.0.1:9000&region=eu&style=virtual");
        assert_eq!(full.prefix, "a/b/");
        assert_eq!(full.endpoint.unwrap().as_str(), "http://127.0.0.1:9000/");
        assert_eq!(full.region.as_deref(), Some("eu"));
        assert!(full.virtual_host);
        let implied = s3("s3://bucket?endpoint=minio.example:9000");
        assert_eq!(
            implied.endpoint.unwrap().as_str(),
            "https://minio.example:9000/"
        );
    }

    #[test]
    fn passwords_are_refused_and_not_repeated() {
        for text in [
            "webdavs://anna:hunter2@h/x",
            "webdav://:hunter2@h/x",
            "s3://AK:hunter2@bucket/x",
            "s3://bucket?endpoint=https://AK:hunter2@h",
        ] {
            let error = VaultUrl::parse(text).unwrap_err();
            assert_eq!(error, BadUrl::Password, "{text}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn a_bucket_that_is_too_short_is_told_what_a_bucket_may_be() {
        let error = VaultUrl::parse("s3://b/v").unwrap_err();
        assert_eq!(error, BadUrl::Bucket);
        assert!(error.to_string().contains("3 to 63"), "{error}");
        let none = VaultUrl::parse("s3:///v").unwrap_err().to_string();
        assert!(none.contains("needs the name"), "{none}");
    }

    #[test]
    fn what_leaves_this_machine_without_tls_is_known() {
        for (text, host) in [
            ("webdav://h.example:8080/v", Some("h.example")),
            ("webdav://10.0.0.1/v", Some("10.0.0.1")),
            ("webdav://[fe80::1]/v", Some("[fe80::1]")),
            ("webdav://localhost.example/v", Some("localhost.example")),
            ("s3://bucket?endpoint=http://h.example", Some("h.example")),
            ("webdavs://h.example/v", None),
            ("s3://bucket?endpoint=https://h.example", None),
            ("s3://bucket", None),
            ("webdav://127.0.0.1/v", None),
            ("webdav://127.9.9.9:81/v", None),
            ("webdav://[::1]:8080/v", None),
            ("webdav://LocalHost/v", None),
            ("s3://bucket?endpoint=http://localhost:9000", None),
            ("/srv/v", None),
        ] {
            assert_eq!(
                VaultUrl::parse(text).unwrap().plain_text_host(),
                host,
                "{text}"
            );
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "ftp://h/x",
            "https://h/x",
            "webdavs://",
            "webdavs://h/x?y",
            "webdavs://h/x#y",
            "s3://",
            "s3://b",
            "s3://bucket/../x",
            "s3://bucket?secret=x",
            "s3://bucket?region=",
            "s3://bucket?region=a&region=b",
            "s3://bucket?endpoint=ftp://x",
            "file://host/x",
            "s3://bucket?style=x",
        ] {
            assert!(VaultUrl::parse(text).is_err(), "{text}");
        }
    }
}
