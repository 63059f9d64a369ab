//! The `.keras` archive of Keras 3: a zip of `metadata.json`, `config.json` and `model.weights.h5`.

use std::io::{Cursor, Read};

use bytes::Bytes;
use zip::{CompressionMethod, ZipArchive};

use super::super::ModelFile;
use crate::error::Result;

/// The longest `metadata.json` and `config.json`.
const LONGEST_TEXT: u64 = 16 << 20;

/// What is read of an archive.
pub(super) struct Parts {
    pub(super) config: String,
    pub(super) weights: Bytes,
    /// The version of Keras.
    pub(super) version: Option<String>,
}

/// Whether these are the contents of a `.keras` archive: Keras writes `metadata.json` first.
pub(super) fn is_keras(bytes: &[u8]) -> bool {
    const FIRST: &[u8] = b"metadata.json";
    bytes.starts_with(b"PK\x03\x04")
        && bytes.get(26..28) == Some(&[FIRST.len() as u8, 0])
        && bytes.get(30..).is_some_and(|rest| rest.starts_with(FIRST))
}

/// Opens an archive.
///
/// # Errors
/// An archive that lacks a part, or whose parts are not what its headers say.
pub(super) fn open(file: &ModelFile) -> Result<Parts> {
    let broken = |e: zip::result::ZipError| file.invalid("", format!("zip archive: {e}"));
    let mut zip = ZipArchive::new(Cursor::new(file.bytes().clone())).map_err(broken)?;
    zip.validate_header_consistency().map_err(broken)?;
    let metadata = text(file, &mut zip, "metadata.json")?;
    let metadata: serde_json::Value =
        serde_json::from_str(&metadata).map_err(|e| file.invalid("metadata.json", e.to_string()))?;
    Ok(Parts {
        config: text(file, &mut zip, "config.json")?,
        weights: weights(file, &mut zip, "model.weights.h5")?,
        version: metadata.get("keras_version").and_then(|version| version.as_str()).map(str::to_owned),
    })
}

fn text(file: &ModelFile, zip: &mut ZipArchive<Cursor<Bytes>>, name: &str) -> Result<String> {
    let entry = zip.by_name(name).map_err(|e| file.invalid(name, e.to_string()))?;
    let mut text = String::new();
    entry.take(LONGEST_TEXT).read_to_string(&mut text).map_err(|e| file.invalid(name, e.to_string()))?;
    Ok(text)
}

/// The weights, which Keras stores without compression; only their place in the file is taken.
fn weights(file: &ModelFile, zip: &mut ZipArchive<Cursor<Bytes>>, name: &str) -> Result<Bytes> {
    let mut entry = zip.by_name(name).map_err(|e| file.invalid(name, e.to_string()))?;
    if entry.compression() != CompressionMethod::Stored {
        return Err(file.invalid(name, "is compressed, expected stored"));
    }
    let start = entry.data_start().and_then(|start| usize::try_from(start).ok());
    let length = usize::try_from(entry.size()).ok();
    // The reader compares the checksum at the end.
    std::io::copy(&mut entry, &mut std::io::sink()).map_err(|e| file.invalid(name, e.to_string()))?;
    let range = start.zip(length).and_then(|(start, length)| Some(start..start.checked_add(length)?));
    let range = range.filter(|range| range.end <= file.bytes().len());
    range.map(|range| file.bytes().slice(range)).ok_or_else(|| file.invalid(name, "reaches past the file"))
}
