//! Pages: runs of rows in the order of keys, cut where the keys say so, all of one length when sealed.

use super::CheckpointFault;
use crate::rows::{Row, RowKey};
use skrin_base::limits::{FORMAT_VERSION, PAGE_LEN};
use skrin_base::wire::{Reader, WireError, Writer};
use skrin_base::{Entropy, EpochId, Hash32};
use skrin_crypto::{PageAad, RoomKeys, SEAL_OVERHEAD, hash, open, seal};

const MAGIC: &[u8; 4] = b"SKRP";
const HEADER_LEN: usize = MAGIC.len() + 1;
/// Bytes of items in one page: what is left after header, seal, length and count.
pub const PAGE_CAPACITY: usize = PAGE_LEN - HEADER_LEN - SEAL_OVERHEAD - 4 - 4;
/// What an item costs beside its key and part: four lengths.
const ITEM_OVERHEAD: usize = 16;
/// A page that is half full ends before a key whose hash is a multiple of this: with rows of 150 bytes, pages are
/// about three quarters full, and a change moves no boundary far away.
const CUT_EVERY: u32 = 512;
/// Longest value of a row.
const VALUE_MAX: usize = 64 * 1024 * 1024;
/// Longest key of a row.
const KEY_MAX: usize = 1024;

/// A digest over rows in the order of their keys, independent of how they are cut into pages:
/// BLAKE3 of `bytes(key) ‖ bytes(value)` of every row.
#[derive(Default)]
pub struct DigestOfRows {
    hasher: blake3::Hasher,
    rows: u64,
}

impl DigestOfRows {
    /// Takes the next row.
    pub fn row(&mut self, key: &[u8], value: &[u8]) {
        for part in [key, value] {
            // Limits keep keys and values below 2^32 bytes.
            let len = u32::try_from(part.len()).unwrap_or(u32::MAX);
            self.hasher.update(&len.to_le_bytes()).update(part);
        }
        self.rows += 1;
    }

    /// How many rows there were, and their digest.
    pub fn finish(&self) -> (u64, Hash32) {
        (self.rows, Hash32(*self.hasher.finalize().as_bytes()))
    }
}

/// The contents of one page before it is sealed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageContent {
    /// Key of the first row in it.
    pub first_key: RowKey,
    /// Count and items.
    pub bytes: Vec<u8>,
}

impl PageContent {
    /// The same for the same rows: lets a later checkpoint use the page again.
    pub fn plain_hash(&self) -> Hash32 {
        hash(&self.bytes)
    }
}

/// Cuts a stream of rows into pages.
#[derive(Default)]
pub struct Paginator {
    items: Vec<u8>,
    count: u32,
    first_key: Option<RowKey>,
}

fn is_boundary(key: &[u8]) -> bool {
    let mut first = [0; 4];
    first.copy_from_slice(&blake3::hash(key).as_bytes()[..4]);
    u32::from_le_bytes(first).is_multiple_of(CUT_EVERY)
}

impl Paginator {
    /// Takes the next row; gives the pages that are complete.
    pub fn row(&mut self, key: &[u8], value: &[u8]) -> Vec<PageContent> {
        let len = ITEM_OVERHEAD + key.len() + value.len();
        let half_full = self.items.len() >= PAGE_CAPACITY / 2;
        let mut done = Vec::new();
        if self.items.len() + len > PAGE_CAPACITY || (half_full && is_boundary(key)) {
            done.extend(self.finish());
        }
        if len <= PAGE_CAPACITY {
            self.item(key, value.len(), 0, value);
            return done;
        }
        // A row longer than a page takes pages of its own.
        let part_len = PAGE_CAPACITY - ITEM_OVERHEAD - key.len();
        for (n, part) in value.chunks(part_len).enumerate() {
            self.item(key, value.len(), n * part_len, part);
            done.extend(self.finish());
        }
        done
    }

    fn item(&mut self, key: &[u8], total: usize, offset: usize, part: &[u8]) {
        let mut w = Writer::default();
        w.bytes(key);
        w.count(total);
        w.count(offset);
        w.bytes(part);
        self.items.extend_from_slice(&w.into_bytes());
        self.count += 1;
        self.first_key.get_or_insert_with(|| key.into());
    }

    /// The last page, if anything is left.
    pub fn finish(&mut self) -> Option<PageContent> {
        let first_key = self.first_key.take()?;
        let mut bytes = std::mem::take(&mut self.count).to_le_bytes().to_vec();
        bytes.append(&mut self.items);
        Some(PageContent { first_key, bytes })
    }
}

fn aad(keys: &RoomKeys, page: [u8; 16]) -> PageAad {
    PageAad {
        vault: keys.vault(),
        room: keys.room(),
        page,
    }
}

/// Seals a page under its name.
///
/// # Errors
/// `UnknownEpoch`.
pub fn seal_page(
    content: &PageContent,
    name: [u8; 16],
    epoch: &EpochId,
    keys: &RoomKeys,
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, CheckpointFault> {
    let key = keys.page_key(epoch).ok_or(CheckpointFault::UnknownEpoch)?;
    let mut w = Writer::default();
    w.bytes(&content.bytes);
    let mut plain = zeroize::Zeroizing::new(w.into_bytes());
    plain.resize(PAGE_LEN - HEADER_LEN - SEAL_OVERHEAD, 0);
    let mut w = Writer::default();
    w.raw(MAGIC);
    w.u8(FORMAT_VERSION);
    w.raw(&seal(&key, &aad(keys, name), &plain, entropy));
    Ok(w.into_bytes())
}

/// A part of a row, as a page holds it.
pub(super) struct Item<'a> {
    key: &'a [u8],
    total: usize,
    offset: usize,
    part: &'a [u8],
}

fn items(content: &[u8]) -> Result<Vec<Item<'_>>, WireError> {
    let mut r = Reader::new(content);
    let n = r.count("items of a page", PAGE_LEN, ITEM_OVERHEAD)?;
    let mut items = Vec::with_capacity(n);
    for _ in 0..n {
        let key = r.bytes("row key", KEY_MAX)?;
        let (total, offset) = (r.u32()? as usize, r.u32()? as usize);
        let part = r.bytes("part of a row", PAGE_CAPACITY)?;
        if total > VALUE_MAX || offset.saturating_add(part.len()) > total {
            return Err(WireError::Value("length of a row"));
        }
        items.push(Item {
            key,
            total,
            offset,
            part,
        });
    }
    r.finish()?;
    Ok(items)
}

/// Puts rows together from pages that come in order.
#[derive(Default)]
pub struct RowAssembler {
    last: Option<RowKey>,
    open: Option<(RowKey, usize, Vec<u8>)>,
    digest: DigestOfRows,
}

impl RowAssembler {
    /// Takes the next page's content; gives the rows that are complete.
    ///
    /// # Errors
    /// Rows out of order or parts that do not fit.
    pub fn page(&mut self, content: &[u8]) -> Result<Vec<(RowKey, Row)>, CheckpointFault> {
        let mut rows = Vec::new();
        for item in items(content)? {
            let (key, total, mut value) = match self.open.take() {
                Some(open) if *open.0 == *item.key && open.1 == item.total => open,
                Some(_) => return Err(CheckpointFault::Rows),
                None => (item.key.into(), item.total, Vec::new()),
            };
            if value.len() != item.offset || self.last.as_ref().is_some_and(|last| *last >= key) {
                return Err(CheckpointFault::Rows);
            }
            value.extend_from_slice(item.part);
            if value.len() < total {
                self.open = Some((key, total, value));
                continue;
            }
            self.digest.row(&key, &value);
            self.last = Some(key.clone());
            rows.push((key, value.into()));
        }
        Ok(rows)
    }

    /// Row count and digest, after the last page.
    ///
    /// # Errors
    /// When a row is not complete.
    pub fn finish(&self) -> Result<(u64, Hash32), CheckpointFault> {
        match self.open {
            Some(_) => Err(CheckpointFault::Rows),
            None => Ok(self.digest.finish()),
        }
    }
}

/// Opens a page object and gives its content (count and items).
///
/// # Errors
/// The first thing that is wrong.
pub fn open_page(
    bytes: &[u8],
    expected: &super::PageRef,
    epoch: &EpochId,
    keys: &RoomKeys,
) -> Result<Vec<u8>, CheckpointFault> {
    if bytes.len() != PAGE_LEN || hash(bytes) != expected.hash {
        return Err(CheckpointFault::Hash);
    }
    let mut r = Reader::new(bytes);
    if r.raw(MAGIC.len()) != Ok(MAGIC) {
        return Err(CheckpointFault::Magic);
    }
    match r.u8()? {
        FORMAT_VERSION => {}
        version => return Err(CheckpointFault::Version(version)),
    }
    let key = keys.page_key(epoch).ok_or(CheckpointFault::UnknownEpoch)?;
    let plain = open(&key, &aad(keys, expected.name), r.rest())?;
    let mut r = Reader::new(&plain);
    let content = r.bytes("page content", PAGE_CAPACITY + 4)?;
    if r.rest().iter().any(|b| *b != 0) {
        return Err(CheckpointFault::Open(skrin_crypto::OpenError::Padding));
    }
    if hash(content) != expected.plain_hash {
        return Err(CheckpointFault::Rows);
    }
    Ok(content.to_vec())
}
