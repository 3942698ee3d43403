//! S3: single PUT, GET with ranges, ListObjectsV2, DELETE, signed as presigned URLs (SigV4, payload not signed:
//! what is stored authenticates itself). The bucket is the user's to make.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{Method, Response, StatusCode, Url};
use rusty_s3::{Bucket, Credentials as Keys, S3Action, UrlStyle};

use crate::http::body::Body;
use crate::http::{Call, Http, Times, status};
use crate::memory::too_short;
use crate::name::is_segment;
use crate::secret::Credentials;
use crate::xml::{ListObjects, parse_error_code, read_list_objects};
use crate::{
    Capacity, ErrorKind, LIST_MAX, Listed, Listing, ObjectName, Prefix, S3Url, Store, StoreError,
    VaultUrl,
};

/// How long a signed address is valid: longer than any request may take.
const SIGNED_FOR: Duration = Duration::from_secs(60 * 60);
const DEFAULT_REGION: &str = "us-east-1";
/// Pages of one listing, twice as many as the most entries need in pages of a thousand.
const PAGES_MAX: usize = 2 * LIST_MAX / 1000;
/// Bytes of one page: a thousand entries, each with a key of a kilobyte, percent-encoded, take half of it. What a page shows is
/// held until its end, ours or not.
const PAGE_BODY_MAX: u64 = 8 << 20;

/// A place in a bucket.
pub struct S3Store {
    http: Http,
    bucket: Bucket,
    keys: Option<Keys>,
    /// Where the keys were found, for errors.
    origin: String,
    /// Empty, or ending in a slash.
    prefix: String,
}

impl S3Store {
    /// Makes a client; nothing is sent before the first operation. `region` is for addresses that name none.
    pub fn new(
        url: &S3Url,
        region: Option<&str>,
        credentials: Credentials,
        times: Times,
        ca_pem: Option<&[u8]>,
    ) -> Result<Self, StoreError> {
        let place = VaultUrl::S3(url.clone()).to_string();
        let region = url.region.as_deref().or(region).unwrap_or(DEFAULT_REGION);
        let bad = |what: String| StoreError::new(ErrorKind::NoPlace, what).place(&place);
        let endpoint = match &url.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => format!("https://s3.{region}.amazonaws.com")
                .parse()
                .map_err(|_| bad(format!("{region:?} is no region")))?,
        };
        let style = match url.virtual_host {
            true => UrlStyle::VirtualHost,
            false => UrlStyle::Path,
        };
        let bucket = Bucket::new(
            endpoint.clone(),
            style,
            url.bucket.clone(),
            region.to_owned(),
        )
        .map_err(|e| bad(format!("the address of the bucket is not usable: {e}")))?;
        let (keys, origin) = match credentials {
            Credentials::Keys {
                access_key,
                secret_key,
                session_token,
                origin,
            } => (
                Some(sign_with(access_key, &secret_key, session_token)),
                origin,
            ),
            Credentials::Anonymous => (None, String::new()),
            Credentials::Password { .. } => {
                return Err(StoreError::new(
                    ErrorKind::Denied,
                    "a user and password do not open S3",
                )
                .place(&place)
                .remedy("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or fill ~/.aws"));
            }
        };
        Ok(Self {
            http: Http::new(&endpoint, place, times, ca_pem)?,
            bucket,
            keys,
            origin,
            prefix: url.prefix.clone(),
        })
    }

    fn key(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// The error that an answer stands for; S3 says more in its body than in its status.
    async fn failed(&self, method: &Method, response: Response, object: &str) -> StoreError {
        let status = response.status();
        let pause = status::retry_after(&response);
        let region = response.headers().get("x-amz-bucket-region").cloned();
        let region = region.as_ref().and_then(|region| region.to_str().ok());
        let body = Body::new(&self.http, response, 0, object).snippet().await;
        let code = parse_error_code(&body).unwrap_or_default();
        let kind = kind(method, status, &code);
        let what = match (kind, code.as_str()) {
            (ErrorKind::Absent, _) => "there is no such object".to_owned(),
            (ErrorKind::NoPlace, _) => return self.no_bucket(object),
            (_, "") => format!("the server answered {status} to {method}"),
            (_, code) => format!("the server answered {status} ({code}) to {method}"),
        };
        let error = self.http.error(kind, what, object).retry_after(pause);
        match self.remedy(kind, &code, region) {
            Some(remedy) => error.remedy(remedy),
            None => error,
        }
    }

    fn no_bucket(&self, object: &str) -> StoreError {
        let what = format!("there is no bucket {:?}", self.bucket.name());
        self.http
            .error(ErrorKind::NoPlace, what, object)
            .remedy("make the bucket first, or correct its name")
    }

    fn remedy(&self, kind: ErrorKind, code: &str, region: Option<&str>) -> Option<String> {
        match (kind, code) {
            (_, "RequestTimeTooSkewed") => Some("set the clock of this computer".to_owned()),
            (_, "EntityTooLarge") => Some("raise the server's limit for objects".to_owned()),
            (ErrorKind::NoPlace, _) => {
                Some("make the bucket first, or correct its name".to_owned())
            }
            (ErrorKind::Untrusted, _) => Some(match region {
                Some(region) => {
                    format!("the bucket lies in the region {region}: add region={region}")
                }
                None => "give the bucket's own endpoint and region in the address".to_owned(),
            }),
            (ErrorKind::Denied, _) if self.keys.is_none() => {
                Some("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or fill ~/.aws".to_owned())
            }
            (ErrorKind::Denied, _) => Some(format!(
                "check the keys from {}, and what they may do with this bucket",
                self.origin
            )),
            _ => None,
        }
    }

    async fn get_call(&self, call: Call, name: &ObjectName) -> Result<Response, StoreError> {
        let response = self.http.send(call).await?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            _ => Err(self.failed(&Method::GET, response, name.as_str()).await),
        }
    }

    fn get_url(&self, name: &ObjectName) -> Url {
        let key = self.key(name.as_str());
        let action = self.bucket.get_object(self.keys.as_ref(), &key);
        action.sign(SIGNED_FOR)
    }

    async fn page(
        &self,
        prefix: &str,
        token: Option<&str>,
        object: &str,
    ) -> Result<ListObjects, StoreError> {
        let mut action = self.bucket.list_objects_v2(self.keys.as_ref());
        action.with_prefix(prefix);
        action.with_delimiter("/");
        if let Some(token) = token {
            action.with_continuation_token(token);
        }
        let call = Call::new(Method::GET, action.sign(SIGNED_FOR), object).listing();
        let response = self.http.send(call).await?;
        if response.status() != StatusCode::OK {
            let error = self.failed(&Method::GET, response, object).await;
            // A listing cannot lack an object, so what is missing is the bucket.
            return Err(match error.is_absent() {
                true => self.no_bucket(object),
                false => error,
            });
        }
        let body = Body::new(&self.http, response, 1 << 20, object);
        body.parse(PAGE_BODY_MAX, read_list_objects).await
    }
}

fn sign_with(
    access_key: String,
    secret_key: &crate::Secret,
    session_token: Option<crate::Secret>,
) -> Keys {
    match session_token {
        Some(token) => Keys::new_with_token(access_key, secret_key.expose(), token.expose()),
        None => Keys::new(access_key, secret_key.expose()),
    }
}

/// The kind of error that a status and code are for a request of this method.
fn kind(method: &Method, status: StatusCode, code: &str) -> ErrorKind {
    match code {
        "NoSuchBucket" | "InvalidBucketName" => ErrorKind::NoPlace,
        "NoSuchKey" => ErrorKind::Absent,
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => ErrorKind::Untrusted,
        "SlowDown"
        | "RequestTimeout"
        | "InternalError"
        | "ServiceUnavailable"
        | "OperationAborted"
        | "ThrottlingException" => ErrorKind::Transient,
        "AccessDenied"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "RequestTimeTooSkewed"
        | "AuthorizationQueryParametersError" => ErrorKind::Denied,
        "QuotaExceeded" | "XMinioStorageFull" | "StorageFull" | "InsufficientStorage" => {
            ErrorKind::Full
        }
        "EntityTooLarge" | "NotImplemented" => ErrorKind::Unsupported,
        "InvalidRange" => ErrorKind::Broken,
        // A put cannot lack an object, so what is missing is the bucket.
        _ if status == StatusCode::NOT_FOUND && *method == Method::PUT => ErrorKind::NoPlace,
        _ => status::kind(method, status),
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for S3Store {
    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        let key = self.key(name.as_str());
        let action = self.bucket.put_object(self.keys.as_ref(), &key);
        let call = Call::new(Method::PUT, action.sign(SIGNED_FOR), name).body(bytes);
        let response = self.http.send(call).await?;
        match response.status().as_u16() {
            200..=204 => Ok(()),
            _ => Err(self.failed(&Method::PUT, response, name.as_str()).await),
        }
    }

    async fn get(&self, name: &ObjectName, max: usize) -> Result<Bytes, StoreError> {
        let call = Call::new(Method::GET, self.get_url(name), name);
        let response = self.get_call(call, name).await?;
        let body = Body::new(&self.http, response, max as u64, name.as_str());
        body.whole(max).await
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
        let call = Call::new(Method::GET, self.get_url(name), name);
        let call = call.range(start, len).ok_or_else(short)?;
        let response = self.http.send(call).await?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => {
                let far = start.saturating_add(len as u64);
                let body = Body::new(&self.http, response, far, name.as_str());
                body.range(start, len).await
            }
            StatusCode::RANGE_NOT_SATISFIABLE => Err(short()),
            _ => Err(self.failed(&Method::GET, response, name.as_str()).await),
        }
    }

    async fn list(&self, dir: &Prefix) -> Result<Listing, StoreError> {
        let object = dir.to_string();
        let prefix = match dir.as_str() {
            "" => self.prefix.clone(),
            dir => self.key(&format!("{dir}/")),
        };
        let mut listing = Listing::default();
        let mut token: Option<String> = None;
        // Of all that is shown, ours or not: who shows only what we pass over must come to an end too.
        let (mut pages, mut shown) = (0, 0);
        loop {
            let page = self.page(&prefix, token.as_deref(), &object).await?;
            let entries = page.objects.len() + page.prefixes.len();
            (pages, shown) = (pages + 1, shown + entries);
            add_page(&mut listing, dir, &prefix, &page);
            let endless =
                page.next.is_some() && (entries == 0 || page.next == token || pages == PAGES_MAX);
            if endless || shown > LIST_MAX {
                let what = "the listing has no end";
                return Err(self.http.error(ErrorKind::Broken, what, &object));
            }
            token = page.next;
            if token.is_none() {
                break;
            }
        }
        listing.objects.sort_unstable();
        listing.objects.dedup_by(|a, b| a.name == b.name);
        listing.dirs.sort_unstable();
        listing.dirs.dedup();
        Ok(listing)
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let key = self.key(name.as_str());
        let action = self.bucket.delete_object(self.keys.as_ref(), &key);
        let call = Call::new(Method::DELETE, action.sign(SIGNED_FOR), name);
        let response = self.http.send(call).await?;
        if response.status().is_success() {
            return Ok(());
        }
        match self.failed(&Method::DELETE, response, name.as_str()).await {
            error if error.is_absent() => Ok(()),
            error => Err(error),
        }
    }

    async fn capacity(&self) -> Result<Capacity, StoreError> {
        Ok(Capacity::default())
    }

    fn place(&self) -> String {
        self.http.place.clone()
    }
}

fn add_page(listing: &mut Listing, dir: &Prefix, prefix: &str, page: &ListObjects) {
    let direct = |key: &str| {
        let segment = key.strip_prefix(prefix)?;
        is_segment(segment).then(|| segment.to_owned())
    };
    for (key, len) in &page.objects {
        if let Some(name) = direct(key).and_then(|segment| dir.object(&segment).ok()) {
            listing.objects.push(Listed { name, len: *len });
        }
    }
    let dirs = page.prefixes.iter();
    let dirs = dirs.filter_map(|prefix| direct(prefix.strip_suffix('/')?));
    listing.dirs.extend(dirs);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_more_than_statuses() {
        let get = |status, code| kind(&Method::GET, status, code);
        assert_eq!(
            get(StatusCode::NOT_FOUND, "NoSuchBucket"),
            ErrorKind::NoPlace
        );
        assert_eq!(get(StatusCode::NOT_FOUND, "NoSuchKey"), ErrorKind::Absent);
        assert_eq!(get(StatusCode::NOT_FOUND, ""), ErrorKind::Absent);
        assert_eq!(
            get(StatusCode::SERVICE_UNAVAILABLE, "SlowDown"),
            ErrorKind::Transient
        );
        assert_eq!(
            get(StatusCode::BAD_REQUEST, "RequestTimeout"),
            ErrorKind::Transient
        );
        assert_eq!(get(StatusCode::FORBIDDEN, "QuotaExceeded"), ErrorKind::Full);
        assert_eq!(get(StatusCode::FORBIDDEN, ""), ErrorKind::Denied);
    }

    #[test]
    fn an_address_without_endpoint_is_that_of_aws_and_the_secret_is_not_shown() {
        let VaultUrl::S3(url) = VaultUrl::parse("s3://bucket/x?region=eu-west-1").unwrap() else {
            panic!("not S3");
        };
        let keys = Credentials::Keys {
            access_key: "AK".into(),
            secret_key: crate::Secret::new("hunter2"),
            session_token: None,
            origin: "a test".into(),
        };
        let store = S3Store::new(&url, None, keys, Times::default(), None).unwrap();
        let name = ObjectName::new("slots/ab").unwrap();
        let signed = store.get_url(&name);
        assert_eq!(signed.host_str(), Some("s3.eu-west-1.amazonaws.com"));
        assert_eq!(signed.path(), "/bucket/x/slots/ab");
        assert!(!signed.as_str().contains("hunter2"));
        assert!(!store.place().contains("AK"));
    }

    #[test]
    fn the_bucket_stands_in_the_path_or_in_the_host() {
        for (style, host, path) in [
            ("path", "h.example", "/base/bucket/v/x"),
            ("virtual", "bucket.h.example", "/base/v/x"),
        ] {
            let text = format!("s3://bucket/v?endpoint=https://h.example:8443/base&style={style}");
            let VaultUrl::S3(url) = VaultUrl::parse(&text).unwrap() else {
                panic!("not S3");
            };
            let anonymous = Credentials::Anonymous;
            let store = S3Store::new(&url, None, anonymous, Times::default(), None).unwrap();
            let signed = store.get_url(&ObjectName::new("x").unwrap());
            assert_eq!((signed.host_str(), signed.path()), (Some(host), path));
            assert_eq!(signed.port(), Some(8443));
        }
    }

    #[test]
    fn pages_give_direct_entries_only() {
        let mut listing = Listing::default();
        let page = ListObjects {
            objects: ["v/d/a", "v/d/", "v/d/Upper", "v/d/x/y", "w/z"]
                .map(|key| (key.to_owned(), Some(1)))
                .into(),
            prefixes: ["v/d/sub/", "v/d/", "other/"].map(str::to_owned).into(),
            next: None,
        };
        add_page(&mut listing, &Prefix::new("d").unwrap(), "v/d/", &page);
        assert_eq!(listing.objects.len(), 1);
        assert_eq!(listing.objects[0].name.as_str(), "d/a");
        assert_eq!(listing.dirs, ["sub"]);
    }
}
