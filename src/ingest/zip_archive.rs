//! A zip archive that can be read in one way only.
//!
//! Every entry must be where, and what, both its headers say, with the right checksum: two readers must
//! not be able to see different contents. Stored entries are shared with the file, not copied.

use std::io::{Cursor, Read};

use bytes::Bytes;
use zip::{CompressionMethod, ZipArchive};

use super::ModelFile;
use crate::error::{Error, Result};

/// The most entries. PyTorch writes one for each storage; large models have some thousands.
const MOST_ENTRIES: u64 = 1 << 16;

/// Inflated entries together are at most this, or as large as the file if that is larger.
const MOST_INFLATED: u64 = 256 << 20;

/// A checked archive.
pub(crate) struct Zip<'f> {
    file: &'f ModelFile,
    archive: ZipArchive<Cursor<Bytes>>,
    names: Vec<String>,
    budget: u64,
}

impl<'f> Zip<'f> {
    /// Opens the archive and checks its structure.
    ///
    /// # Errors
    /// Headers that contradict each other, entries that overlap or have one name, too many entries.
    pub(crate) fn open(file: &'f ModelFile) -> Result<Self> {
        let entries =
            declared_entries(file.bytes()).ok_or_else(|| file.invalid("", "a zip archive without its end"))?;
        if entries > MOST_ENTRIES {
            return Err(
                file.invalid("", format!("a zip archive of {entries} entries, expected at most {MOST_ENTRIES}"))
            );
        }
        let broken = |e: zip::result::ZipError| file.invalid("", format!("zip archive: {e}"));
        let mut archive = ZipArchive::new(Cursor::new(file.bytes().clone())).map_err(broken)?;
        archive.validate_header_consistency().map_err(broken)?;
        if archive.len() as u64 != entries || archive.offset() != 0 {
            return Err(
                file.invalid("", format!("a zip archive of {entries} entries, but {} were found", archive.len()))
            );
        }
        let names = archive.file_names().map(|name| name.map(|name| name.into_owned()));
        let names = names.collect::<Result<Vec<String>, _>>().map_err(broken)?;
        let budget = MOST_INFLATED.max(file.bytes().len() as u64);
        Ok(Zip { file, archive, names, budget })
    }

    /// The entries' names.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The contents of the entry at `index` of [`Self::names`], its checksum verified.
    ///
    /// # Errors
    /// An entry that is not what its headers say, is encrypted, or inflates to more than is allowed.
    pub(crate) fn entry(&mut self, index: usize) -> Result<Bytes> {
        let Self { file, archive: zip, names, budget } = self;
        let name = names.get(index).map(String::as_str).unwrap_or_default();
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
