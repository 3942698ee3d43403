//! What lies on the storage, and taking it away.

use super::Inner;
use crate::error::DataError;
use crate::segment::object_name;
use skrin_base::SegmentId;
use skrin_storage::{BadName, Prefix, StoreError};
use std::collections::BTreeMap;
use std::sync::Arc;

fn failed(error: impl Into<StoreError>) -> DataError {
    DataError::Storage(Arc::new(error.into()))
}

impl Inner {
    pub(super) async fn stored(
        &self,
    ) -> Result<(BTreeMap<SegmentId, Option<u64>>, usize), DataError> {
        let all = Prefix::new("segments").map_err(|bad: BadName| failed(bad))?;
        let listing = self.parts.store.list(&all).await.map_err(failed)?;
        let (mut stored, mut others) = (BTreeMap::new(), listing.objects.len());
        for dir in listing.dirs {
            let dir = all.dir(&dir).map_err(failed)?;
            for listed in self.parts.store.list(&dir).await.map_err(failed)?.objects {
                let id = SegmentId::from_hex(listed.name.file_name());
                let id = id.filter(|id| object_name(*id).is_ok_and(|name| name == listed.name));
                match id {
                    Some(id) => drop(stored.insert(id, listed.len)),
                    None => others += 1,
                }
            }
        }
        Ok((stored, others))
    }

    pub(super) async fn delete(&self, id: SegmentId) -> Result<(), DataError> {
        let name = object_name(id).map_err(failed)?;
        let deleted = self.parts.store.delete(&name).await;
        match deleted {
            // Somebody else was faster.
            Err(error) if error.is_absent() => Ok(()),
            other => other.map_err(failed),
        }
    }
}
