//! Basic (RFC 7617) and Digest (RFC 7616) log-in, careful not to be taken for an attacker: Nextcloud locks out
//! everybody behind an address after eleven refused log-ins.

use std::sync::Arc;
use std::time::Duration;

use digest_auth::{AuthContext, HttpMethod, WwwAuthenticateHeader};
use parking_lot::Mutex;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, Url};
use skrin_base::Entropy;
use tokio::time::Instant;

use crate::secret::Secret;

/// After a refused log-in nothing is sent for this long: at most six failures in Nextcloud's half hour.
const LATCH: Duration = Duration::from_secs(300);

/// A user who can log in.
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: Secret,
    /// Where both were found, for errors.
    pub(crate) origin: String,
}

/// What the server wants.
enum Scheme {
    Unknown,
    /// Nothing so far.
    Open,
    Basic,
    /// The challenge, with its counter, and whether an answer to it was accepted.
    Digest(Box<WwwAuthenticateHeader>, bool),
}

/// Logs in to one server.
pub(crate) struct Auth {
    pub(crate) login: Option<Login>,
    /// Held while the first log-in is tried, so that a wrong password is tried once and not by every task.
    pub(crate) gate: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    entropy: Arc<dyn Entropy>,
    encrypted: bool,
}

struct State {
    scheme: Scheme,
    /// A log-in was accepted.
    proven: bool,
    refused: Option<Instant>,
}

/// What to do about a 401.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Ask again: the challenge is new.
    Again,
    /// Stop: the log-in itself was refused, or there is none.
    Refused,
}

impl Auth {
    pub(crate) fn new(login: Option<Login>, encrypted: bool, entropy: Arc<dyn Entropy>) -> Self {
        let scheme = if login.is_some() {
            Scheme::Unknown
        } else {
            Scheme::Open
        };
        Self {
            login,
            gate: tokio::sync::Mutex::new(()),
            state: Mutex::new(State {
                scheme,
                proven: false,
                refused: None,
            }),
            entropy,
            encrypted,
        }
    }

    /// Whether the server must still be asked what it wants.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self.state.lock().scheme, Scheme::Unknown)
    }

    /// Whether the next request is the first log-in and must be alone.
    pub(crate) fn is_unproven(&self) -> bool {
        self.login.is_some() && !self.state.lock().proven
    }

    /// Whether a log-in was refused a short while ago.
    pub(crate) fn is_latched(&self) -> bool {
        let refused = self.state.lock().refused;
        refused.is_some_and(|at| at.elapsed() < LATCH)
    }

    /// The header for a request; none where the server asked for none.
    pub(crate) fn header(&self, method: &Method, url: &Url) -> Option<HeaderValue> {
        let login = self.login.as_ref()?;
        let mut state = self.state.lock();
        let mut value = match &mut state.scheme {
            Scheme::Unknown | Scheme::Open => return None,
            Scheme::Basic => basic(login)?,
            Scheme::Digest(prompt, _) => self.digest(prompt, login, method, url)?,
        };
        value.set_sensitive(true);
        Some(value)
    }

    fn digest(
        &self,
        prompt: &mut WwwAuthenticateHeader,
        login: &Login,
        method: &Method,
        url: &Url,
    ) -> Option<HeaderValue> {
        let mut uri = url.path().to_owned();
        if let Some(query) = url.query() {
            uri = format!("{uri}?{query}");
        }
        let method = HttpMethod(method.as_str().to_owned().into());
        let (user, password) = (login.user.as_str(), login.password.expose());
        let mut context =
            AuthContext::new_with_method(user, password, uri, None::<&'static [u8]>, method);
        let nonce = format!("{:016x}{:016x}", self.entropy.u64(), self.entropy.u64());
        context.set_custom_cnonce(nonce);
        let answer = prompt.respond(&context).ok()?;
        HeaderValue::from_str(&answer.to_header_string()).ok()
    }

    /// The server let a request pass.
    pub(crate) fn accepted(&self, with_login: bool) {
        let mut state = self.state.lock();
        match &mut state.scheme {
            scheme @ Scheme::Unknown => *scheme = Scheme::Open,
            Scheme::Digest(_, proven) if with_login => *proven = true,
            _ => {}
        }
        if with_login {
            state.proven = true;
            state.refused = None;
        }
    }

    /// The server answered 401 to a request that was sent with or without a log-in.
    pub(crate) fn challenged(&self, headers: &HeaderMap, with_login: bool) -> Answer {
        let mut state = self.state.lock();
        let new = choose(headers, self.encrypted);
        let again = match (&state.scheme, &new) {
            _ if self.login.is_none() => false,
            (_, None) => false,
            (_, Some(_)) if !with_login => true,
            (Scheme::Digest(old, proven), Some(Scheme::Digest(new, _))) => {
                new.stale || (*proven && old.nonce != new.nonce)
            }
            _ => false,
        };
        if let (true, Some(new)) = (again, new) {
            state.scheme = new;
            return Answer::Again;
        }
        if with_login {
            state.refused = Some(Instant::now());
            state.proven = false;
        }
        Answer::Refused
    }
}

/// What a request is sent again with that was refused with these values of `WWW-Authenticate`; `None` where it is not. For the fuzz targets.
#[cfg(feature = "testutil")]
#[doc(hidden)]
pub fn answer_to_challenges(
    values: &[&[u8]],
    encrypted: bool,
    entropy: Arc<dyn Entropy>,
) -> Option<Vec<u8>> {
    let login = Login {
        user: "anna".to_owned(),
        password: Secret::new("secret"),
        origin: String::new(),
    };
    let auth = Auth::new(Some(login), encrypted, entropy);
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(value).ok()?);
    }
    auth.challenged(&headers, false);
    let url = Url::parse("https://h/a/b").ok()?;
    Some(auth.header(&Method::PUT, &url)?.as_bytes().to_vec())
}

/// Removes what must not leave.
pub(crate) fn put_header(headers: &mut HeaderMap, value: Option<HeaderValue>) {
    match value {
        Some(value) => headers.insert(AUTHORIZATION, value),
        None => headers.remove(AUTHORIZATION),
    };
}

fn basic(login: &Login) -> Option<HeaderValue> {
    let pair = zeroize::Zeroizing::new(format!("{}:{}", login.user, login.password.expose()));
    let value = format!("Basic {}", base64(pair.as_bytes()));
    HeaderValue::from_str(&value).ok()
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .chain(&[0; 2])
            .take(3)
            .fold(0_usize, |n, b| n << 8 | usize::from(*b));
        for i in 0..4 {
            out.push(if i <= chunk.len() {
                DIGITS[group >> (18 - 6 * i) & 63].into()
            } else {
                '='
            });
        }
    }
    out
}

/// Of what the server offers: Basic inside TLS (no nonce to go stale), Digest in the clear.
fn choose(headers: &HeaderMap, encrypted: bool) -> Option<Scheme> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter();
    let offers: Vec<String> = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(challenges)
        .collect();
    let basic = offers.iter().any(|offer| is_scheme(offer, "basic"));
    let digest = offers
        .iter()
        .filter(|offer| is_scheme(offer, "digest"))
        .find_map(|offer| {
            WwwAuthenticateHeader::parse(offer.get("digest".len()..)?)
                .ok()
                .map(|prompt| Scheme::Digest(Box::new(prompt), false))
        });
    match digest {
        Some(digest) if !(encrypted && basic) => Some(digest),
        _ => basic.then_some(Scheme::Basic),
    }
}

fn is_scheme(challenge: &str, scheme: &str) -> bool {
    let word = challenge.split_ascii_whitespace().next().unwrap_or("");
    word.eq_ignore_ascii_case(scheme)
}

/// One header may hold several challenges, joined by the same commas that join the parameters of one.
fn challenges(value: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for c in value.chars() {
        if c == ',' && !quoted {
            parts.push(String::new());
            continue;
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
        quoted ^= c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
    }
    let mut challenges: Vec<String> = Vec::new();
    for part in &parts {
        let part = part.trim();
        let word = part.split([' ', '\t']).next().unwrap_or("");
        let begins = !word.is_empty() && !word.contains('=');
        match challenges.last_mut() {
            Some(challenge) if !begins => {
                challenge.push_str(", ");
                challenge.push_str(part);
            }
            _ => challenges.push(part.to_owned()),
        }
    }
    challenges
}

#[cfg(test)]
mod tests {
    use super::*;
    use skrin_base::clock::testutil::SeededEntropy;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        headers
    }

    fn auth(encrypted: bool) -> Auth {
        let login = Login {
            user: "Aladdin".into(),
            password: Secret::new("open sesame"),
            origin: "a test".into(),
        };
        Auth::new(Some(login), encrypted, Arc::new(SeededEntropy::new(1)))
    }

    fn sent(auth: &Auth) -> Option<String> {
        let url = "http://h/a/b".parse().unwrap();
        let header = auth.header(&Method::PUT, &url)?;
        Some(header.to_str().unwrap().to_owned())
    }

    const DIGEST: &str = r#"Digest realm="r, s", nonce="n1", algorithm=MD5, qop="auth""#;

    #[test]
    fn basic_is_that_of_rfc_7617() {
        let auth = auth(true);
        assert_eq!(sent(&auth), None);
        assert_eq!(
            auth.challenged(&headers(&["basic realm=\"x\""]), false),
            Answer::Again
        );
        assert_eq!(sent(&auth).unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn a_password_is_not_sent_in_the_clear_where_digest_is_offered() {
        let both = headers(&["Basic realm=\"x\", digest realm=\"r\", nonce=\"n\", qop=\"auth\""]);
        let plain = auth(false);
        plain.challenged(&both, false);
        assert!(sent(&plain).unwrap().starts_with("Digest "));
        let tls = auth(true);
        tls.challenged(&both, false);
        assert!(sent(&tls).unwrap().starts_with("Basic "));
    }

    #[test]
    fn a_refused_login_is_not_repeated() {
        let auth = auth(true);
        let basic = headers(&["Basic realm=x"]);
        auth.challenged(&basic, false);
        assert_eq!(auth.challenged(&basic, true), Answer::Refused);
        assert!(auth.is_latched());
        assert!(auth.is_unproven());
    }

    #[test]
    fn a_stale_nonce_is_renewed_and_a_fresh_refusal_is_not() {
        let auth = auth(false);
        auth.challenged(&headers(&[DIGEST]), false);
        let first = sent(&auth).unwrap();
        assert!(
            first.contains("nc=00000001") && first.contains("uri=\"/a/b\""),
            "{first}"
        );
        assert!(sent(&auth).unwrap().contains("nc=00000002"));
        let fresh = DIGEST.replace("n1", "n2");
        assert_eq!(auth.challenged(&headers(&[&fresh]), true), Answer::Refused);
        auth.accepted(true);
        assert_eq!(auth.challenged(&headers(&[&fresh]), true), Answer::Again);
        assert!(sent(&auth).unwrap().contains("nonce=\"n2\""));
        let stale = format!("{DIGEST}, stale=true");
        assert_eq!(auth.challenged(&headers(&[&stale]), true), Answer::Again);
    }

    #[test]
    fn challenges_are_told_apart() {
        let split = challenges(r#"Digest realm="a, b", nonce="x\",y", Negotiate, Basic realm=z"#);
        assert_eq!(
            split,
            [
                r#"Digest realm="a, b", nonce="x\",y""#,
                "Negotiate",
                "Basic realm=z"
            ]
        );
        let nothing = headers(&["Negotiate", "Bearer realm=x"]);
        assert!(choose(&nothing, true).is_none());
    }
}
