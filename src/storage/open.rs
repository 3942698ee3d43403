//! From an address to a storage that is ready for use.

use std::sync::Arc;
use std::time::Duration;

use skrin_base::Entropy;

use crate::http::Times;
use crate::limit::Limit;
use crate::retry::{Retry, RetryPolicy};
use crate::secret::Credentials;
use crate::{LocalStore, S3Store, Store, StoreError, VaultUrl, WebDavStore};

/// What an address does not say.
pub struct OpenOptions {
    /// How to be let in.
    pub credentials: Credentials,
    /// A local folder that is missing is made.
    pub create: bool,
    /// Certificates of private CAs, in PEM, trusted besides the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// Region for S3 addresses that name none (`AWS_REGION`).
    pub region: Option<String>,
    /// How long transient errors are retried in all before they are returned.
    pub patience: Duration,
    /// Requests at once; the kind's default if `None`.
    pub parallel: Option<usize>,
    /// Time limits of single requests.
    pub times: Times,
    /// For jitter, and for names of staged files.
    pub entropy: Arc<dyn Entropy>,
}

impl OpenOptions {
    /// No credentials, nothing created, two minutes of patience.
    pub fn new(entropy: Arc<dyn Entropy>) -> Self {
        Self {
            credentials: Credentials::Anonymous,
            create: false,
            ca_pem: None,
            region: None,
            patience: Duration::from_secs(120),
            parallel: None,
            times: Times::default(),
            entropy,
        }
    }
}

/// Opens the storage behind an address, with limited parallelism and retries. A server is not contacted yet.
pub fn open(url: &VaultUrl, options: OpenOptions) -> Result<Arc<dyn Store>, StoreError> {
    let OpenOptions {
        credentials,
        times,
        entropy,
        ..
    } = options;
    let ca = options.ca_pem.as_deref();
    let (store, parallel): (Arc<dyn Store>, usize) = match url {
        VaultUrl::Local(path) => {
            let store = LocalStore::open(path, options.create, &*entropy)?;
            (Arc::new(store), 16)
        }
        // Fewer than the eleven refused log-ins that make Nextcloud lock an address out.
        VaultUrl::WebDav(url) => {
            let store = WebDavStore::new(url, credentials, times, ca, Arc::clone(&entropy))?;
            (Arc::new(store), 8)
        }
        VaultUrl::S3(url) => {
            let region = options.region.as_deref();
            let store = S3Store::new(url, region, credentials, times, ca)?;
            (Arc::new(store), 16)
        }
    };
    let policy = RetryPolicy {
        patience: options.patience,
        ..RetryPolicy::default()
    };
    // The limit lies inside: who waits before a retry holds no place.
    let limited = Limit::new(store, options.parallel.unwrap_or(parallel));
    Ok(Arc::new(Retry::new(limited, policy, entropy)))
}
