//! The `.keras` archive of Keras 3: a zip of `metadata.json`, `config.json` and `model.weights.h5`.

use bytes::Bytes;
use serde::Deserialize;

use super::super::ModelFile;
use super::super::zip_archive::Zip;
use crate::error::Result;

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
    let mut zip = Zip::open(file)?;
    let mut entry = |name: &str| -> Result<Bytes> {
        let index = zip.names().iter().position(|found| found == name);
        zip.entry(index.ok_or_else(|| file.invalid(name, "is missing in the zip archive"))?)
    };
    let text = |name: &str, bytes: Bytes| -> Result<String> {
        String::from_utf8(bytes.into()).map_err(|_| file.invalid(name, "is not UTF-8"))
    };
    let metadata: Metadata =
        serde_json::from_slice(&entry("metadata.json")?).map_err(|e| file.invalid("metadata.json", e.to_string()))?;
    Ok(Parts {
        config: text("config.json", entry("config.json")?)?,
        weights: entry("model.weights.h5")?,
        version: metadata.keras_version,
    })
}

/// The part of `metadata.json` that is used.
#[derive(Deserialize)]
struct Metadata {
    keras_version: Option<String>,
}
