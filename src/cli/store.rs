//! From what was typed to an open storage, with the credentials that belong to it.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use skrin_storage::{Credentials, OpenOptions, Store, VaultUrl};

use crate::credentials;
use crate::exit::{Exit, Failure, Outcome};
use crate::machine::OsEntropy;
use crate::print;
use crate::secret::{self, Secret};

/// How long a command that a person waits for tries again before it says that the storage is unreachable.
pub(crate) const SHORT_PATIENCE: Duration = Duration::from_secs(8);

/// A storage, not yet open. Goes through the pipe to our child, with a password only where one was typed.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoreSpec {
    /// The address, absolute, without secrets.
    pub(crate) address: String,
    login: Option<(String, Secret)>,
}

impl StoreSpec {
    /// Reads the address, and asks for a password where one is needed and a person is there.
    ///
    /// # Errors
    /// `Usage` for what is no address of a vault.
    pub(crate) fn new(typed: &str) -> Outcome<Self> {
        let url = parse(typed)?;
        warn_of_plain_text(&url);
        let address = address_of(&url)?;
        let login = match &url {
            VaultUrl::WebDav(dav) => {
                ask_password(dav.url.host_str().unwrap_or_default(), dav.user.as_deref())?
            }
            _ => None,
        };
        Ok(Self { address, login })
    }

    /// Whether the password of the environment, which names no server, would be sent there.
    pub(crate) fn sends_password_of_environment(&self) -> bool {
        let is_server = matches!(parse(&self.address), Ok(VaultUrl::WebDav(_)));
        is_server
            && self.login.is_none()
            && credentials::process_env("SKRIN_WEBDAV_PASSWORD").is_some()
    }

    /// The address that [`Self::new`] would have, without asking anybody.
    ///
    /// # Errors
    /// As there.
    #[cfg(target_os = "linux")]
    pub(crate) fn address_of(typed: &str) -> Outcome<String> {
        address_of(&parse(typed)?)
    }

    /// Opens the storage; a server is not asked yet. `create` makes a missing local folder.
    ///
    /// # Errors
    /// `Absent` for a missing folder, `Usage` for broken credentials.
    pub(crate) fn open(&self, create: bool, patience: Duration) -> Outcome<Arc<dyn Store>> {
        let mut url = parse(&self.address)?;
        let mut options = OpenOptions::new(Arc::new(OsEntropy));
        options.create = create;
        options.patience = patience;
        options.ca_pem = ca_file()?;
        match &mut url {
            VaultUrl::Local(_) => {}
            VaultUrl::WebDav(dav) => options.credentials = self.web_dav(dav)?,
            VaultUrl::S3(s3) => {
                let settings = credentials::aws(&credentials::process_env)?;
                options.region = settings.region;
                options.credentials = settings.credentials;
                if let (None, Some(endpoint)) = (&s3.endpoint, settings.endpoint) {
                    s3.endpoint = endpoint_of_environment(&endpoint)?.endpoint;
                }
            }
        }
        Ok(skrin_storage::open(&url, options)?)
    }

    /// Whether it is a folder of this machine.
    pub(crate) fn is_local(&self) -> bool {
        matches!(VaultUrl::parse(&self.address), Ok(VaultUrl::Local(_)))
    }

    fn web_dav(&self, dav: &skrin_storage::DavUrl) -> Outcome<Credentials> {
        if let Some((user, password)) = &self.login {
            return Ok(Credentials::Password {
                user: user.clone(),
                password: skrin_storage::Secret::new(password.expose()),
                origin: "the prompt".into(),
            });
        }
        let host = dav.url.host_str().unwrap_or_default();
        let found = credentials::web_dav(host, dav.user.as_deref(), &credentials::process_env)?;
        Ok(found.unwrap_or_default())
    }
}

/// Before a password is typed. The endpoint of an S3 store may come from the environment; errors in that are told by `open`.
fn warn_of_plain_text(url: &VaultUrl) {
    let mut url = url.clone();
    if let VaultUrl::S3(s3) = &mut url
        && s3.endpoint.is_none()
        && let Ok(settings) = credentials::aws(&credentials::process_env)
        && let Some(endpoint) = settings.endpoint
        && let Ok(found) = endpoint_of_environment(&endpoint)
    {
        s3.endpoint = found.endpoint;
    }
    if let Some(host) = url.plain_text_host() {
        print::note(format!(
            "warning: the way to {host} is not encrypted (no TLS): whoever is on it can see the credentials or use them, and see which objects are moved; use webdavs:// or an https:// endpoint"
        ));
    }
}

fn parse(typed: &str) -> Outcome<VaultUrl> {
    VaultUrl::parse(typed).map_err(|e| Failure::new(Exit::Usage, e))
}

fn address_of(url: &VaultUrl) -> Outcome<String> {
    match url {
        VaultUrl::Local(path) => absolute(path),
        // One text for one place, however it was typed.
        _ => Ok(url.to_string()),
    }
}

/// Later commands and the process behind the mount have another working directory.
fn absolute(path: &Path) -> Outcome<String> {
    let path = std::path::absolute(path)
        .map_err(|e| Failure::io(path, "cannot make the path absolute", &e))?;
    let text = path.to_str().map(str::to_owned);
    // The argument was text; only the working directory can be anything else.
    text.ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            format!("{}: the path is not UTF-8", path.display()),
        )
    })
}

fn ask_password(host: &str, user: Option<&str>) -> Outcome<Option<(String, Secret)>> {
    let Some(user) = user else { return Ok(None) };
    if credentials::web_dav(host, Some(user), &credentials::process_env)?.is_some()
        || !std::io::stdin().is_terminal()
    {
        return Ok(None);
    }
    let password = secret::prompt(&format!("Password of {user} at {host}: "))?;
    Ok(Some((user.to_owned(), password)))
}

/// Read by the same rules as an endpoint in an address.
fn endpoint_of_environment(text: &str) -> Outcome<skrin_storage::S3Url> {
    match parse(&format!("s3://bucket?endpoint={text}"))? {
        VaultUrl::S3(s3) => Ok(s3),
        _ => Err(Failure::new(
            Exit::Usage,
            "AWS_ENDPOINT_URL must look like https://host:port",
        )),
    }
}

fn ca_file() -> Outcome<Option<Vec<u8>>> {
    let Some(path) = credentials::process_env("SKRIN_CA_FILE") else {
        return Ok(None);
    };
    let path = Path::new(&path);
    let read = std::fs::read(path);
    read.map(Some).map_err(|e| {
        Failure::io(
            path,
            "cannot read the certificates named by SKRIN_CA_FILE",
            &e,
        )
    })
}
