//! The zip container (PyTorch 1.6 and later, and TorchScript): `<name>/data.pkl`, `<name>/data/<key>`,
//! `<name>/byteorder`, `<name>/version`.
//!
//! Every entry must be where, and what, both its headers say, with the right checksum: two readers must
//! not be able to see different contents. Stored entries are shared with the file, not copied.

use std::collections::HashMap;
use std::io::{Cursor, Read};

use bytes::Bytes;
use zip::{CompressionMethod, ZipArchive};

use super::super::ModelFile;
use super::super::tensor::ByteOrder;
use crate::error::{Error, Result, printable};

/// The most entries: one for each storage. Large models have some thousands.
const MOST_ENTRIES: u64 = 1 << 16;

/// Inflated entries together are at most this, or as large as the file if that is larger.
const MOST_INFLATED: u64 = 256 << 20;

/// What is read of an archive.
pub(super) struct Archive {
    pub(super) pickle: Bytes,
    /// By key.
    pub(super) records: HashMap<String, Bytes>,
    pub(super) order: ByteOrder,
    /// Of the file format.
    pub(super) version: Option<String>,
    pub(super) torch_script: bool,
}

type Zip = ZipArchive<Cursor<Bytes>>;

/// Opens and checks a PyTorch archive.
///
/// # Errors
/// Names the entry that is at fault.
pub(super) fn open(file: &ModelFile) -> Result<Archive> {
    let entries = declared_entries(file.bytes()).ok_or_else(|| file.invalid("", "a zip archive without its end"))?;
    if entries > MOST_ENTRIES {
        return Err(file.invalid("", format!("a zip archive of {entries} entries, expected at most {MOST_ENTRIES}")));
    }
    let broken = |e: zip::result::ZipError| file.invalid("", format!("zip archive: {e}"));
    let mut zip = ZipArchive::new(Cursor::new(file.bytes().clone())).map_err(broken)?;
    zip.validate_header_consistency().map_err(broken)?;
    if zip.len() as u64 != entries || zip.offset() != 0 {
        return Err(file.invalid("", format!("a zip archive of {entries} entries, but {} were found", zip.len())));
    }
    let names: Vec<String> =
        zip.file_names().map(|name| name.map(|name| name.into_owned())).collect::<Result<_, _>>().map_err(broken)?;
    let root = root(file, &names)?;
    let mut budget = MOST_INFLATED.max(file.bytes().len() as u64);
    let mut archive = Archive {
        pickle: Bytes::new(),
        records: HashMap::new(),
        order: ByteOrder::Little,
        version: None,
        torch_script: names.iter().any(|name| name.strip_prefix(&root) == Some("constants.pkl")),
    };
    for (index, name) in names.iter().enumerate() {
        let bytes = entry(file, &mut zip, index, name, &mut budget)?;
        match name.strip_prefix(&root) {
            Some("data.pkl") => archive.pickle = bytes,
            Some("byteorder") => archive.order = byte_order(file, name, &bytes)?,
            Some("version" | ".data/version") => {
                archive.version = std::str::from_utf8(&bytes).ok().map(|text| printable(text.trim()));
            }
            Some(inner) => {
                if let Some(key) = inner.strip_prefix("data/") {
                    archive.records.insert(key.to_owned(), bytes);
                }
            }
            None => {}
        }
    }
    Ok(archive)
}

/// The folder of the one `data.pkl`, with its slash.
fn root(file: &ModelFile, names: &[String]) -> Result<String> {
    let mut roots = names
        .iter()
        .filter_map(|name| name.strip_suffix("data.pkl"))
        .filter(|root| root.is_empty() || (root.ends_with('/') && root.matches('/').count() == 1));
    match (roots.next(), roots.next()) {
        (Some(root), None) => Ok(root.to_owned()),
        (None, _) => Err(file.invalid("", "a zip archive without data.pkl: not saved by PyTorch")),
        (Some(_), Some(_)) => Err(file.invalid("data.pkl", "stands in the zip archive twice")),
    }
}

fn byte_order(file: &ModelFile, name: &str, text: &[u8]) -> Result<ByteOrder> {
    match text {
        b"little" => Ok(ByteOrder::Little),
        b"big" => Ok(ByteOrder::Big),
        _ => Err(file.invalid(name, "expected 'little' or 'big'")),
    }
}

/// One entry's contents, its checksum verified.
fn entry(file: &ModelFile, zip: &mut Zip, index: usize, name: &str, budget: &mut u64) -> Result<Bytes> {
    let at_fault = |reason: String| -> Error { file.invalid(name, reason) };
    let outside = name.starts_with('/') || name.contains(['\\', '\0']) || name.split('/').any(|part| part == "..");
    if outside {
        return Err(at_fault("an entry's name that leaves the archive".to_owned()));
    }
    let data = zip.by_index_data(index).map_err(|e| at_fault(e.to_string()))?;
    let (method, size, compressed) = (data.compression(), data.size(), data.compressed_size());
    if data.encrypted() {
        return Err(at_fault("is encrypted".to_owned()));
    }
    match method {
        CompressionMethod::Stored if size == compressed => {}
        CompressionMethod::Stored => {
            return Err(at_fault(format!("stored in {compressed} bytes, but of {size} bytes")));
        }
        CompressionMethod::Deflated => {
            let left = budget.checked_sub(size);
            *budget = left.ok_or_else(|| at_fault(format!("inflates to {size} bytes, too many for this file")))?;
        }
        other => return Err(at_fault(format!("compressed by {other}, expected stored or deflated"))),
    }
    let mut reader = zip.by_index(index).map_err(|e| at_fault(e.to_string()))?;
    let start = reader.data_start().and_then(|start| usize::try_from(start).ok());
    let length = usize::try_from(size).map_err(|_| at_fault(format!("{size} bytes do not fit in memory")))?;
    if method == CompressionMethod::Stored {
        // The reader compares the checksum at the end.
        std::io::copy(&mut reader, &mut std::io::sink()).map_err(|e| at_fault(e.to_string()))?;
        let range = start.and_then(|start| Some(start..start.checked_add(length)?));
        let range = range.filter(|range| range.end <= file.bytes().len());
        return range
            .map(|range| file.bytes().slice(range))
            .ok_or_else(|| at_fault("reaches past the file".to_owned()));
    }
    let mut bytes = Vec::new();
    let read = reader.by_ref().take(size.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|e| at_fault(e.to_string()))?;
    if bytes.len() != length {
        return Err(at_fault(format!("inflates to other than its {size} bytes")));
    }
    Ok(bytes.into())
}

/// The number of entries that the end record declares; the record's comment must reach to the file's end.
fn declared_entries(bytes: &[u8]) -> Option<u64> {
    const RECORD: usize = 22;
    const LOCATOR: usize = 20;
    let lowest = bytes.len().saturating_sub(RECORD + usize::from(u16::MAX));
    let at = (lowest..=bytes.len().checked_sub(RECORD)?).rev().find(|&at| {
        let record = bytes.get(at..).unwrap_or_default();
        let comment = le(record, 20, 2).unwrap_or(u64::MAX);
        record.starts_with(b"PK\x05\x06") && (record.len() - RECORD) as u64 == comment
    })?;
    let entries = le(bytes, at + 10, 2)?;
    let locator =
        at.checked_sub(LOCATOR).filter(|&at| bytes.get(at..).is_some_and(|rest| rest.starts_with(b"PK\x06\x07")));
    match locator {
        Some(locator) => {
            let at = usize::try_from(le(bytes, locator + 8, 8)?).ok()?;
            bytes.get(at..)?.starts_with(b"PK\x06\x06").then_some(())?;
            let entries64 = le(bytes, at.checked_add(32)?, 8)?;
            (entries == 0xffff || entries == entries64).then_some(entries64)
        }
        None => Some(entries),
    }
}

/// A little-endian number of `size` bytes.
fn le(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(size)?)?;
    Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}
