//! Moves opaque objects by name and knows nothing else: local folders, WebDAV, S3 and memory behind one
//! [`Store`] trait, and decorators that add one promise each. docs/storage.md tells what servers really do.
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "testutil"))]
pub mod conformance;
mod count;
pub mod disk;
mod durable;
mod error;
#[cfg(any(test, feature = "testutil"))]
pub mod fault;
#[cfg(any(test, feature = "testutil"))]
pub mod gate;
mod http;
mod limit;
mod local;
mod memory;
mod name;
mod open;
mod retry;
mod s3;
mod secret;
mod store;
mod urgency;
mod url;
mod webdav;
pub mod xml;

pub use count::{Count, Counters, Counts};
pub use durable::{Durable, TRAILER_LEN, VERIFIED_MAX, put_confirmed, put_over, put_verified};
pub use error::{ErrorKind, StoreError};
pub use http::Times;
#[cfg(feature = "testutil")]
#[doc(hidden)]
pub use http::auth::answer_to_challenges;
pub use limit::Limit;
pub use local::LocalStore;
pub use memory::MemoryStore;
pub use name::{BadName, NAME_LEN_MAX, ObjectName, Prefix, SEGMENT_LEN_MAX, VAULT_HEADER};
pub use open::{OpenOptions, open};
pub use retry::{Retry, RetryPolicy};
pub use s3::S3Store;
pub use secret::{Credentials, Secret};
pub use store::{Capacity, LIST_MAX, Listed, Listing, Store, Verb};
pub use urgency::{Place, Places, Urgency};
pub use url::{BadUrl, DavUrl, S3Url, VaultUrl};
pub use webdav::WebDavStore;
