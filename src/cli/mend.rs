//! Putting segments again of which this machine has all parts. One that cannot be put does not keep the others.

use std::path::Path;
use std::sync::Arc;

use skrin_base::SegmentInfo;
use skrin_data::{DataError, DataStore, Mended};
use skrin_storage::ErrorKind;

/// What became of one.
pub(crate) enum Attempt {
    /// It went to its end.
    Ended(Mended),
    /// The storage or the local disk does not take this one. What was made of it stays on the disk.
    Failed(DataError),
}

/// Puts a segment again if that can be done, by way of the directory `spare`.
///
/// # Errors
/// What passes, or is not about this one: then the others are not to be tried either.
pub(crate) async fn mend(
    data: &DataStore,
    info: &Arc<SegmentInfo>,
    spare: &Path,
) -> Result<Attempt, DataError> {
    match data.mend_segment(Arc::clone(info), spare).await {
        Ok(mended) => Ok(Attempt::Ended(mended)),
        Err(error) if passes(&error) => Err(error),
        Err(error) => Ok(Attempt::Failed(error)),
    }
}

/// A storage that is full is among it: each further attempt could take a damaged object away for which there is no room again.
fn passes(error: &DataError) -> bool {
    match error {
        DataError::Storage(cause) => matches!(
            cause.kind(),
            ErrorKind::Transient | ErrorKind::Untrusted | ErrorKind::NoPlace | ErrorKind::Full
        ),
        DataError::Stopped => true,
        other => other.is_transient(),
    }
}

#[cfg(test)]
mod tests {
    use skrin_base::SegmentId;
    use skrin_storage::StoreError;

    use super::*;

    #[test]
    fn a_storage_that_is_away_or_full_ends_the_work_and_one_object_that_is_refused_does_not() {
        let storage = |kind| DataError::Storage(Arc::new(StoreError::new(kind, "said no")));
        for kind in [
            ErrorKind::Transient,
            ErrorKind::Untrusted,
            ErrorKind::NoPlace,
            ErrorKind::Full,
        ] {
            assert!(passes(&storage(kind)), "{kind:?}");
        }
        for kind in [ErrorKind::Denied, ErrorKind::Broken, ErrorKind::Exists] {
            assert!(!passes(&storage(kind)), "{kind:?}");
        }
        assert!(passes(&DataError::Stopped));
        assert!(!passes(&DataError::Missing(SegmentId([1; 16]))));
    }
}
