//! The canonical encoding of every structure in the format (docs/format/conventions.md):
//! little-endian fixed-width integers, byte strings and lists with a `u32` count in front,
//! options as one byte. There is exactly one encoding of a value, and decoding is total:
//! it never panics and never allocates more than the input's length.

use thiserror::Error;

/// Why bytes are not an encoding of the expected structure.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// The input ends inside a value.
    #[error("input ends too early")]
    Short,
    /// Bytes are left after the last value.
    #[error("{0} bytes too many")]
    Trailing(usize),
    /// A length or count is above its limit.
    #[error("{what} is {found}, the limit is {limit}")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// What the input says.
        found: u64,
        /// The bound from `limits`.
        limit: u64,
    },
    /// A value that the format does not allow at this place.
    #[error("{0} is not allowed here")]
    Value(&'static str),
    /// A tag or flag that this program does not know and that must be understood.
    #[error("unknown critical {what} {found}: a newer program is needed")]
    Unknown {
        /// What kind of tag it is.
        what: &'static str,
        /// Its value.
        found: u64,
    },
}

/// Writes the canonical encoding.
pub trait Encode {
    /// Appends this value to `w`.
    fn encode(&self, w: &mut Writer);

    /// The encoding on its own.
    fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::default();
        self.encode(&mut w);
        w.into_bytes()
    }
}

/// Reads the canonical encoding.
pub trait Decode: Sized {
    /// Reads one value.
    ///
    /// # Errors
    /// Whatever is not the canonical encoding of a value.
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError>;

    /// Reads one value that must fill `bytes` exactly.
    ///
    /// # Errors
    /// As `decode`, and `Trailing`.
    fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let value = Self::decode(&mut r)?;
        r.finish()?;
        Ok(value)
    }
}

/// A growing buffer of encoded values.
#[derive(Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// Bytes exactly as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }
    /// One byte.
    pub fn u8(&mut self, v: u8) {
        self.out.push(v);
    }
    /// Two bytes, little-endian.
    pub fn u16(&mut self, v: u16) {
        self.raw(&v.to_le_bytes());
    }
    /// Four bytes, little-endian.
    pub fn u32(&mut self, v: u32) {
        self.raw(&v.to_le_bytes());
    }
    /// Eight bytes, little-endian.
    pub fn u64(&mut self, v: u64) {
        self.raw(&v.to_le_bytes());
    }
    /// Eight bytes, little-endian, two's complement.
    pub fn i64(&mut self, v: i64) {
        self.raw(&v.to_le_bytes());
    }
    /// `u32` length, then the bytes. Lengths over `u32::MAX` cannot be built: all limits are lower.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }
    /// The `u32` in front of a list or byte string.
    pub fn count(&mut self, n: usize) {
        debug_assert!(u32::try_from(n).is_ok(), "limits keep lengths below 2^32");
        self.u32(u32::try_from(n).unwrap_or(u32::MAX));
    }
    /// 0, or 1 and the value.
    pub fn option<T: Encode>(&mut self, v: Option<&T>) {
        match v {
            None => self.u8(0),
            Some(v) => {
                self.u8(1);
                v.encode(self);
            }
        }
    }
    /// Count and values.
    pub fn list<T: Encode>(&mut self, items: &[T]) {
        self.count(items.len());
        items.iter().for_each(|item| item.encode(self));
    }
    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.out.len()
    }
    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }
    /// The finished encoding.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }
}

/// A cursor over encoded values.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
    /// Takes `n` bytes as they are.
    pub fn raw(&mut self, n: usize) -> Result<&'a [u8], WireError> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(WireError::Short)?;
        self.rest = tail;
        Ok(head)
    }
    /// A fixed-size array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(WireError::Short)?;
        self.rest = tail;
        Ok(*head)
    }
    /// One byte.
    pub fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(u8::from_le_bytes)
    }
    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_le_bytes)
    }
    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }
    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }
    /// Eight bytes, little-endian, two's complement.
    pub fn i64(&mut self) -> Result<i64, WireError> {
        self.array().map(i64::from_le_bytes)
    }
    /// A byte string of at most `limit` bytes.
    pub fn bytes(&mut self, what: &'static str, limit: usize) -> Result<&'a [u8], WireError> {
        let n = self.u32()? as usize;
        if n > limit {
            return Err(WireError::Limit {
                what,
                found: n as u64,
                limit: limit as u64,
            });
        }
        self.raw(n)
    }
    /// The count of a list: at most `limit`, and at most one item for each `min_item` bytes left,
    /// so that allocating for it is safe.
    pub fn count(
        &mut self,
        what: &'static str,
        limit: usize,
        min_item: usize,
    ) -> Result<usize, WireError> {
        let n = self.u32()? as usize;
        if n > limit {
            return Err(WireError::Limit {
                what,
                found: n as u64,
                limit: limit as u64,
            });
        }
        if n.saturating_mul(min_item.max(1)) > self.rest.len() {
            return Err(WireError::Short);
        }
        Ok(n)
    }
    /// A list of at most `limit` values, each at least one byte long.
    pub fn list<T: Decode>(
        &mut self,
        what: &'static str,
        limit: usize,
    ) -> Result<Vec<T>, WireError> {
        let n = self.count(what, limit, 1)?;
        (0..n).map(|_| T::decode(self)).collect()
    }
    /// 0, or 1 and the value.
    pub fn option<T: Decode>(&mut self) -> Result<Option<T>, WireError> {
        match self.u8()? {
            0 => Ok(None),
            1 => T::decode(self).map(Some),
            _ => Err(WireError::Value("option byte")),
        }
    }
    /// A byte that must be 0 or 1.
    pub fn bool(&mut self) -> Result<bool, WireError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Value("boolean byte")),
        }
    }
    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
    /// Succeeds when everything was read.
    pub fn finish(&self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Trailing(self.rest.len()))
        }
    }
}

impl Encode for u64 {
    fn encode(&self, w: &mut Writer) {
        w.u64(*self);
    }
}

impl Decode for u64 {
    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        r.u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_larger_than_the_input_is_refused_before_allocating() {
        let mut w = Writer::default();
        w.u32(u32::MAX);
        let bytes = w.into_bytes();
        let mut r = Reader::new(&bytes);
        assert_eq!(r.list::<u64>("items", usize::MAX), Err(WireError::Short));
    }

    #[test]
    fn trailing_bytes_are_refused() {
        assert_eq!(u64::from_bytes(&[0; 9]), Err(WireError::Trailing(1)));
        assert_eq!(u64::from_bytes(&[0; 7]), Err(WireError::Short));
    }

    #[test]
    fn options_have_one_encoding_only() {
        assert_eq!(
            Reader::new(&[2]).option::<u64>(),
            Err(WireError::Value("option byte"))
        );
    }
}
