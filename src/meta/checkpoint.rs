//! Checkpoints: the state at the room's floor as sealed pages below a signed root
//! (docs/format/checkpoints.md).

mod page;
mod root;

pub use page::{
    DigestOfRows, PAGE_CAPACITY, PageContent, Paginator, RowAssembler, open_page, seal_page,
};
pub use root::{CoveredLane, PageRef, Root, open_root, seal_root};

use skrin_base::limits::FORMAT_VERSION;
use skrin_base::wire::WireError;
use skrin_base::{DeviceId, Hash32};
use skrin_crypto::{BadSignature, OpenError};
use thiserror::Error;

/// Why a root or page is not to be believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CheckpointFault {
    /// Other bytes than the commit or root that names it promises.
    #[error("its bytes are not those that were promised: it was changed, cut short or exchanged")]
    Hash,
    /// It does not begin as a root or page does.
    #[error("it does not begin as it must")]
    Magic,
    /// A later version of the format.
    #[error("it has format version {0}, this program reads up to {FORMAT_VERSION}: update it")]
    Version(u8),
    /// A rule set that this program does not know.
    #[error("it was folded by rule set {0}, which this program does not know: update it")]
    RuleSet(u32),
    /// Sealed under an epoch whose key is not known here.
    #[error(
        "it is sealed under an epoch that this device has no key of: refresh the control records"
    )]
    UnknownEpoch,
    /// Sealed bytes that do not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Contents that are not canonical.
    #[error("its contents are malformed: {0}")]
    Wire(#[from] WireError),
    /// It says that it belongs elsewhere.
    #[error("it says another {0} than expected")]
    Place(&'static str),
    /// Signed by nobody that is known.
    #[error("device {0} is not in the control records: refresh them")]
    UnknownDevice(DeviceId),
    /// It was made by somebody who has seen more control records.
    #[error("it names control record {0}, which the storage does not show here: refresh them")]
    UnknownControl(Hash32),
    /// Not signed by the device.
    #[error("device {device}: {source}")]
    Signature {
        /// Who is said to have signed it.
        device: DeviceId,
        /// What is wrong.
        source: BadSignature,
    },
    /// Another checkpoint with the same parent stands.
    #[error("another checkpoint with the same parent stands")]
    Superseded,
    /// Rows out of order, or not the rows that the root counts.
    #[error("its rows are not those that the root promises")]
    Rows,
    /// The state has another digest than the root says.
    #[error("the state has digest {computed}, but the root says {said}")]
    Digest {
        /// What the root says.
        said: Hash32,
        /// What the rows give.
        computed: Hash32,
    },
}

#[cfg(test)]
mod tests;
