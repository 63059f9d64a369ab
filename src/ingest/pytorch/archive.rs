//! The zip container (PyTorch 1.6 and later, and TorchScript): `<name>/data.pkl`, `<name>/data/<key>`,
//! `<name>/byteorder`, `<name>/version`.

use std::collections::HashMap;

use bytes::Bytes;

use super::super::ModelFile;
use super::super::tensor::ByteOrder;
use super::super::zip_archive::Zip;
use crate::error::{Result, printable};

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

/// Opens and checks a PyTorch archive.
///
/// # Errors
/// Names the entry that is at fault.
pub(super) fn open(file: &ModelFile) -> Result<Archive> {
    let mut zip = Zip::open(file)?;
    let names = zip.names().to_vec();
    let root = root(file, &names)?;
    let mut archive = Archive {
        pickle: Bytes::new(),
        records: HashMap::new(),
        order: ByteOrder::Little,
        version: None,
        torch_script: names.iter().any(|name| name.strip_prefix(&root) == Some("constants.pkl")),
    };
    for (index, name) in names.iter().enumerate() {
        let bytes = zip.entry(index)?;
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
