//! Putting ended segments on the storage.

use super::Inner;
use super::pending::{Ended, Part, Pending, Status};
use super::restored::There;
use crate::error::{DataError, Flaw};
use crate::segment;
use bytes::Bytes;
use parking_lot::Mutex;
use skrin_base::{SegmentId, SegmentInfo};
use skrin_crypto::hash;
use skrin_storage::disk::blocking;
use skrin_storage::{Durable, Urgency, put_confirmed, put_over};
use std::sync::Arc;

/// Buffers for whole objects, used again: fresh memory for 8 MiB costs milliseconds.
#[derive(Clone)]
pub(super) struct ObjectPool {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
    max: usize,
}

struct Pooled {
    bytes: Vec<u8>,
    pool: ObjectPool,
}

impl ObjectPool {
    pub(super) fn new(max: usize) -> Self {
        Self {
            free: Arc::default(),
            max,
        }
    }

    fn take(&self) -> Vec<u8> {
        self.free.lock().pop().unwrap_or_default()
    }

    fn share(&self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Pooled {
            bytes,
            pool: self.clone(),
        })
    }
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let mut free = self.pool.free.lock();
        if free.len() < self.pool.max {
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.clear();
            free.push(bytes);
        }
    }
}

impl Inner {
    pub(super) async fn make_durable(
        self: Arc<Self>,
        ids: Vec<SegmentId>,
    ) -> Result<Vec<Durable<SegmentInfo>>, DataError> {
        if self.config.read_only && !ids.is_empty() {
            return Err(DataError::Invalid(
                "a read-only mount puts nothing on the storage",
            ));
        }
        let segments: Vec<_> = {
            let pending = self.pending.lock();
            let find = |id| pending.get(id).cloned().ok_or(DataError::Missing(*id));
            ids.iter().map(find).collect::<Result<_, _>>()?
        };
        let (inner, to_end) = (Arc::clone(&self), segments.clone());
        let ended = blocking(&self.parts.runtime, move || {
            to_end
                .iter()
                .try_for_each(|segment| inner.end_if_open(segment))
        });
        ended.await.map_err(|_| DataError::Stopped)??;
        let mut durable = Vec::with_capacity(segments.len());
        for segment in &segments {
            durable.push(wait(segment).await?);
        }
        Ok(durable)
    }

    /// Starts an upload unless one runs or none is needed; a failed one is tried again.
    pub(super) fn start_upload(self: &Arc<Self>, segment: &Arc<Pending>) {
        let start = segment.status.send_if_modified(|status| {
            let start = matches!(status, Status::Ready | Status::Failed(_));
            if start {
                *status = Status::Uploading;
            }
            start
        });
        if start {
            let (inner, segment) = (Arc::clone(self), Arc::clone(segment));
            // Whoever reads goes first, also where somebody waits for this.
            let upload = async move { inner.upload(segment).await };
            self.parts.runtime.spawn(Urgency::later().scope(upload));
        }
    }

    async fn upload(self: Arc<Self>, segment: Arc<Pending>) {
        let mut attempt = Attempt {
            segment: &segment,
            result: Err(DataError::Stopped),
        };
        let Ok(_permit) = self.uploads.acquire().await else {
            return;
        };
        let put = self.try_upload(&segment).await;
        attempt.result = match &put {
            Ok((durable, _)) => Ok(durable.clone()),
            Err(error) => {
                tracing::warn!(%error, segment = %segment.place.segment, "the segment is not on the storage yet");
                Err(error.clone())
            }
        };
        drop(attempt);
        if let Ok((durable, object)) = put {
            // With the permit, so that objects do not pile up in memory before a slow disk.
            self.keep_on_disk(durable.into_inner(), object).await;
        }
    }

    async fn try_upload(
        self: &Arc<Self>,
        segment: &Arc<Pending>,
    ) -> Result<(Durable<SegmentInfo>, Bytes), DataError> {
        let id = segment.place.segment;
        let (ended, parts) = segment.ended().ok_or(DataError::Missing(id))?;
        let (inner, info) = (Arc::clone(self), ended.info.clone());
        let object = blocking(&self.parts.runtime, move || {
            // After a crash the same name must get the same bytes: what is put is in the journal first.
            inner.parts.journal.sync(ended.lsn)?;
            inner.assemble(&ended, parts)
        });
        let object = object.await.map_err(|_| DataError::Stopped)??;
        let name = segment::object_name(id).map_err(|e| DataError::storage(id, e.into()))?;
        let (mut info, mut object, mut over) = (info, object, false);
        if segment.may_be_stored {
            let ours = (info.clone(), object.clone());
            match self.look_there(segment, &name, ours).await? {
                There::Nothing => {}
                There::Damaged => over = true,
                There::Whole(its, whole) => (info, object) = (its, whole),
            }
        }
        let store = &*self.parts.store;
        let put = match over {
            // What is put is on stable storage here: the journal has it.
            true => put_over(store, &name, object.clone()).await,
            false => put_confirmed(store, &name, object.clone()).await,
        };
        let durable = put.map_err(|e| DataError::storage(id, e))?;
        if let Err(error) = self.parts.journal.append_durable(id) {
            // Without the note it is put once more after a crash.
            tracing::debug!(%error, "cannot note that a segment is durable");
        }
        Ok((durable.map(|_| info), object))
    }

    /// What was just written will be read again: keeps it in the disk cache.
    async fn keep_on_disk(self: &Arc<Self>, info: SegmentInfo, object: Bytes) {
        if self.disk.is_none() {
            return;
        }
        let inner = Arc::clone(self);
        let kept = blocking(&self.parts.runtime, move || {
            let (vault, room) = (inner.config.vault, inner.config.room);
            let sealed = segment::table_part(&info, &object)?;
            let table = segment::Table::open(vault, room, &info, sealed)?;
            let blocks = object.get(segment::HEADER_LEN..table.blocks_end() as usize);
            if let Some(disk) = &inner.disk {
                disk.put_table(info.id, sealed);
                disk.put(info.id, 0..info.slots, blocks.unwrap_or_default());
            }
            Ok::<_, Flaw>(())
        });
        if !matches!(kept.await, Ok(Ok(()))) {
            tracing::debug!("an uploaded segment was not kept in the cache");
        }
    }

    /// The object, the same at every attempt.
    fn assemble(&self, ended: &Ended, parts: Vec<Part>) -> Result<Bytes, DataError> {
        let id = ended.info.id;
        let mut object = self.objects.take();
        segment::begin_object(&mut object, &ended.info);
        for part in parts {
            match part {
                Part::Lost(len) => object.resize(object.len() + len, 0),
                Part::Sealed(block) => match &block.memory {
                    Some(bytes) => object.extend_from_slice(bytes),
                    None => {
                        let read = self
                            .parts
                            .journal
                            .read(block.pos)?
                            .ok_or(DataError::Missing(id))?;
                        if hash(&read) != block.entry.hash {
                            return Err(DataError::flawed(id, None, Flaw::Hash));
                        }
                        object.extend_from_slice(&read);
                    }
                },
            }
        }
        segment::finish_object(&mut object, &ended.info, &ended.sealed_table);
        Ok(self.objects.share(object))
    }
}

/// Says how an attempt ended, also when its task is dropped with the runtime.
struct Attempt<'a> {
    segment: &'a Pending,
    result: Result<Durable<SegmentInfo>, DataError>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let result = std::mem::replace(&mut self.result, Err(DataError::Stopped));
        self.segment.status.send_replace(match result {
            Ok(durable) => Status::Durable(durable),
            Err(e) => Status::Failed(e),
        });
    }
}

async fn wait(segment: &Pending) -> Result<Durable<SegmentInfo>, DataError> {
    let mut status = segment.status.subscribe();
    let over = status.wait_for(|s| matches!(s, Status::Durable(_) | Status::Failed(_)));
    match &*over.await.map_err(|_| DataError::Stopped)? {
        Status::Durable(durable) => Ok(durable.clone()),
        Status::Failed(e) => Err(e.clone()),
        Status::Filling | Status::Ready | Status::Uploading => Err(DataError::Stopped),
    }
}
