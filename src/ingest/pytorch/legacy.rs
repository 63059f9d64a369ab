//! The stream of PyTorch before 1.6 (and of `_use_new_zipfile_serialization=False`): five pickles (a magic
//! number, a version, the system's sizes, the object, the storages' keys), then each storage as its number
//! of elements and its bytes.
//!
//! PyTorch writes these storages little-endian on every machine, whatever the pickled system says.

use std::collections::HashMap;

use bytes::Bytes;

use super::super::ModelFile;
use super::pickle;
use super::value::{Id, Value, Values};
use crate::error::{Result, printable};

/// The start of the magic number's pickle: LONG1 of ten bytes, 0x1950a86a20f9469cfc6c.
pub(super) const MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// The same in a pickle of protocol 0.
pub(super) const MAGIC_TEXT: &[u8] = b"L119547037146038801333356L\n.";

/// The only version of the stream.
const VERSION: i64 = 1001;

/// What is read of a stream.
pub(super) struct Stream {
    pub(super) root: Id,
    /// By key.
    pub(super) records: HashMap<String, Bytes>,
}

/// Reads a stream; the object's values go to `values`.
///
/// # Errors
/// A stream that is none, a pickle that is refused, a storage that is cut.
pub(super) fn open<'a>(file: &ModelFile, bytes: &'a [u8], values: &mut Values<'a>) -> Result<Stream> {
    let mut at = 0;
    let mut next = |values: &mut Values<'a>, what: &str| -> Result<Id> {
        let (id, length) = pickle::load(bytes.get(at..).unwrap_or_default(), values)
            .map_err(|reason| file.invalid("", format!("{what}: {reason}")))?;
        at = at.saturating_add(length);
        Ok(id)
    };
    next(values, "magic number")?;
    let version = next(values, "version")?;
    if values.int(version) != Some(VERSION) {
        return Err(
            file.invalid("", format!("expected version {VERSION} of the stream, found {}", values.kind(version)))
        );
    }
    next(values, "system")?;
    let root = next(values, "object")?;
    let keys = next(values, "storage keys")?;
    let records = storages(file, bytes, at, values, keys)?;
    Ok(Stream { root, records })
}

fn storages(
    file: &ModelFile,
    bytes: &[u8],
    start: usize,
    values: &Values<'_>,
    keys: Id,
) -> Result<HashMap<String, Bytes>> {
    let keys = values.items(keys).ok_or_else(|| file.invalid("", "expected a list of storage keys"))?;
    let mut declared: HashMap<&str, (u64, usize)> = HashMap::new();
    for storage in &values.storages {
        let size = storage.dtype.as_ref().map_or(1, |(_, size)| *size);
        declared.entry(&storage.key).or_insert((storage.length, size));
    }
    let mut records = HashMap::new();
    let mut at = start;
    for &key in keys {
        let Value::Str(key) = values.get(key) else {
            return Err(file.invalid("", format!("expected a storage key, found {}", values.kind(key))));
        };
        let at_fault = |reason: String| file.invalid(format!("storage {}", printable(key)), reason);
        let &(length, size) = declared.get(&**key).ok_or_else(|| at_fault("is not used by the object".to_owned()))?;
        let rest = bytes.get(at..).unwrap_or_default();
        let (found, _) = rest.split_first_chunk::<8>().ok_or_else(|| at_fault("the file ends before it".to_owned()))?;
        let found = u64::from_le_bytes(*found);
        if found != length {
            return Err(at_fault(format!("expected {length} elements, found {found}")));
        }
        let range = usize::try_from(length)
            .ok()
            .and_then(|length| length.checked_mul(size))
            .and_then(|length| Some(at.checked_add(8)?..at.checked_add(8)?.checked_add(length)?))
            .filter(|range| range.end <= bytes.len());
        let range = range.ok_or_else(|| {
            at_fault(format!("{length} elements of {size} bytes, but {} bytes are left", rest.len().saturating_sub(8)))
        })?;
        at = range.end;
        if records.insert(key.clone().into_owned(), file.bytes().slice(range)).is_some() {
            return Err(at_fault("stands in the file twice".to_owned()));
        }
    }
    match bytes.len() - at {
        0 => Ok(records),
        rest => Err(file.invalid("", format!("{rest} bytes follow the last storage"))),
    }
}
