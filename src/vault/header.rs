//! `skrin.vault`: says that a vault is here. It authenticates nothing.

use crate::{VaultError, objects};
use skrin_base::ids::Hash32;
use skrin_base::limits::{CONTROL_MAX, FORMAT_VERSION};
use skrin_base::wire::{Decode, Encode, Reader, WireError, Writer};
use skrin_base::{Timestamp, VaultId};
use skrin_crypto::hash;
use skrin_storage::Store;

/// The object's name.
pub const HEADER_NAME: &str = skrin_storage::VAULT_HEADER;
const MAGIC: &[u8; 4] = b"SKRN";

/// What the header says; believed only where a slot names its hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The vault.
    pub vault: VaultId,
    /// When it was made, as its maker's clock had it.
    pub created: Timestamp,
    /// Optional features that this program does not know.
    pub optional: u32,
    /// The hash of the whole object.
    pub hash: Hash32,
}

impl Header {
    /// The object for a new vault.
    pub(crate) fn make(vault: VaultId, created: Timestamp) -> (Self, Vec<u8>) {
        let mut w = Writer::default();
        w.raw(MAGIC);
        w.u8(FORMAT_VERSION);
        write_features(&mut w, 0);
        vault.encode(&mut w);
        created.encode(&mut w);
        let bytes = with_checksum(w);
        let header = Self {
            vault,
            created,
            optional: 0,
            hash: hash(&bytes),
        };
        (header, bytes)
    }

    /// Reads the object.
    ///
    /// # Errors
    /// `NewerVersion`, `NewerFeature`, `Integrity`.
    pub fn parse(object: &str, bytes: &[u8]) -> Result<Self, VaultError> {
        let body = open_checksum(object, MAGIC, bytes)?;
        let mut r = Reader::new(body);
        let header = Self::decode_body(&mut r, hash(bytes));
        header
            .and_then(|header| r.finish().map(|()| header))
            .map_err(|e| VaultError::wire(object, e))
    }

    fn decode_body(r: &mut Reader<'_>, hash: Hash32) -> Result<Self, WireError> {
        Ok(Self {
            optional: read_features(r)?,
            vault: VaultId::decode(r)?,
            created: Timestamp::decode(r)?,
            hash,
        })
    }
}

/// Reads the header of the vault at this place.
///
/// # Errors
/// `NotAVault`, `Storage`, and those of `Header::parse`.
pub async fn open_header(store: &dyn Store) -> Result<Header, VaultError> {
    let name = objects::object(HEADER_NAME.to_owned())?;
    match store.get(&name, CONTROL_MAX).await {
        Ok(bytes) => Header::parse(HEADER_NAME, &bytes),
        Err(error) if error.is_absent() => Err(VaultError::NotAVault {
            place: store.place(),
        }),
        Err(error) => Err(error.into()),
    }
}

/// Two feature words; this program knows no critical feature.
pub(crate) fn write_features(w: &mut Writer, optional: u32) {
    w.u32(0);
    w.u32(optional);
}

/// Refuses unknown critical features and returns the optional ones.
pub(crate) fn read_features(r: &mut Reader<'_>) -> Result<u32, WireError> {
    match r.u32()? {
        0 => r.u32(),
        bits => Err(WireError::Unknown {
            what: "feature bits",
            found: bits.into(),
        }),
    }
}

/// Ends an object with the hash of all of it.
pub(crate) fn with_checksum(w: Writer) -> Vec<u8> {
    let mut bytes = w.into_bytes();
    let checksum = hash(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    bytes
}

/// Checks magic, checksum and version, which stay the same in all versions, and returns what
/// stands between version and checksum.
pub(crate) fn open_checksum<'a>(
    object: &str,
    magic: &[u8; 4],
    bytes: &'a [u8],
) -> Result<&'a [u8], VaultError> {
    let Some((body, checksum)) = bytes.split_last_chunk::<32>() else {
        return Err(VaultError::integrity(object, "it is cut short"));
    };
    let Some(rest) = body.strip_prefix(magic) else {
        return Err(VaultError::integrity(
            object,
            "it does not begin as it must",
        ));
    };
    if hash(body).0 != *checksum {
        return Err(VaultError::integrity(
            object,
            "it is damaged: its checksum is wrong",
        ));
    }
    match rest.split_first() {
        Some((&FORMAT_VERSION, rest)) => Ok(rest),
        Some((0, _)) | None => Err(VaultError::integrity(object, "it has no version")),
        Some((&found, _)) => Err(VaultError::NewerVersion {
            object: object.to_owned(),
            found,
        }),
    }
}
