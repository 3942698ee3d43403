//! Checking a whole segment, for `skrin verify --data`.

use super::{BlockRead, Inner};
use crate::error::{DataError, Flaw};
use crate::segment::{self, Table};
use bytes::Bytes;
use skrin_base::SegmentInfo;
use skrin_crypto::hash;
use skrin_storage::disk::blocking;
use std::sync::Arc;

/// What a whole segment was found to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Blocks whose hash fits.
    pub blocks: u32,
    /// Of these, how many were opened.
    pub opened: u32,
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong: with a slot, or with header or padding.
    pub flaws: Vec<(Option<u32>, Flaw)>,
}

impl Inner {
    pub(super) async fn verify(
        self: Arc<Self>,
        info: Arc<SegmentInfo>,
        reads: Vec<BlockRead>,
    ) -> Result<Verified, DataError> {
        let object = self.get_object(&info).await?;
        let inner = Arc::clone(&self);
        let checked = blocking(&self.parts.runtime, move || {
            inner.check(&info, &object, &reads)
        });
        checked.await.map_err(|_| DataError::Stopped)?
    }

    fn check(
        &self,
        info: &SegmentInfo,
        object: &Bytes,
        reads: &[BlockRead],
    ) -> Result<Verified, DataError> {
        let flawed = |flaw| DataError::flawed(info.id, None, flaw);
        let sealed = segment::table_part(info, object).map_err(flawed)?;
        let table =
            Table::open(self.config.vault, self.config.room, info, sealed).map_err(flawed)?;
        let mut verified = Verified {
            bytes: object.len() as u64,
            ..Verified::default()
        };
        if let Err(flaw) = segment::check_frame(info, &table, object) {
            verified.flaws.push((None, flaw));
        }
        for slot in 0..info.slots {
            let Some(entry) = table.entry(slot) else {
                continue;
            };
            match sealed_block(&table, object, slot) {
                Some(block) if hash(block) == entry.hash => verified.blocks += 1,
                _ => verified.flaws.push((Some(slot), Flaw::Hash)),
            }
        }
        for read in reads {
            self.check_block(&table, object, read, &mut verified);
        }
        Ok(verified)
    }

    fn check_block(
        &self,
        table: &Table,
        object: &Bytes,
        read: &BlockRead,
        verified: &mut Verified,
    ) {
        let slot = read.at.slot;
        if verified
            .flaws
            .iter()
            .any(|(flawed, _)| *flawed == Some(slot))
        {
            return;
        }
        let found = table.entry(slot).zip(sealed_block(table, object, slot));
        let opened = match found {
            Some((entry, sealed)) => self
                .open_sealed(table.place().author, entry, read, sealed)
                .map(drop),
            None => Err(Flaw::NoSlot),
        };
        match opened {
            Ok(()) => verified.opened += 1,
            Err(flaw) => verified.flaws.push((Some(slot), flaw)),
        }
    }
}

fn sealed_block<'a>(table: &Table, object: &'a Bytes, slot: u32) -> Option<&'a [u8]> {
    let range = table.range(slot..slot + 1)?;
    object.get(range.start as usize..range.end as usize)
}
