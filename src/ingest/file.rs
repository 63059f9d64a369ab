//! A model file in memory, and the files beside it that it may name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result, printable};

/// A model file's contents and its place, for messages and for external data.
#[derive(Debug)]
pub struct ModelFile {
    path: PathBuf,
    bytes: Bytes,
    siblings: Mutex<BTreeMap<String, Bytes>>,
}

impl ModelFile {
    /// Reads a regular file whole. Folders, devices and pipes are refused: reading them may never end.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Model`] for what is no regular file or changes while it is read.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(ModelFile { path: path.into(), bytes: read_regular(path, path)?, siblings: Mutex::default() })
    }

    /// Contents that are already in memory, as if they stood at `path`.
    pub fn from_bytes(path: impl Into<PathBuf>, bytes: impl Into<Bytes>) -> Self {
        ModelFile { path: path.into(), bytes: bytes.into(), siblings: Mutex::default() }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The contents; clones and slices share them.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The error for something wrong at `at` in this file.
    pub fn invalid(&self, at: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::model(&self.path, at, reason)
    }

    /// The contents of a file beside this one (ONNX external data), read once. Only plain relative names
    /// below the model's own folder, and no links on the way: a model file must not reach other files.
    ///
    /// # Errors
    /// [`Error::Model`] for a name that leaves the folder or is a link, [`Error::Io`] for one that is not there.
    pub fn sibling(&self, name: &str) -> Result<Bytes> {
        let mut siblings = self.siblings.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(bytes) = siblings.get(name) {
            return Ok(bytes.clone());
        }
        let bytes = read_regular(&self.sibling_path(name)?, &self.path)?;
        siblings.insert(name.to_owned(), bytes.clone());
        Ok(bytes)
    }

    /// SHA-256 of the contents, and of every sibling read so far in the order of their names; lower-case hex.
    pub fn sha256(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(&self.bytes);
        let siblings = self.siblings.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for bytes in siblings.values() {
            hasher.update(bytes);
        }
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn sibling_path(&self, name: &str) -> Result<PathBuf> {
        let relative = Path::new(name);
        let plain = !name.is_empty()
            && !name.contains(['\0', '\\'])
            && relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !plain {
            return Err(self.invalid(
                "",
                format!("external data must stand beside the model, found the location '{}'", printable(name)),
            ));
        }
        let mut path = self.path.parent().unwrap_or(Path::new("")).to_path_buf();
        for part in relative.components() {
            path.push(part);
            let meta = std::fs::symlink_metadata(&path)
                .map_err(|e| self.invalid("", format!("external data '{}': {e}", printable(name))))?;
            if meta.file_type().is_symlink() {
                return Err(self.invalid("", format!("external data '{}' is a symbolic link", printable(name))));
            }
            #[cfg(unix)]
            if meta.is_file() && std::os::unix::fs::MetadataExt::nlink(&meta) > 1 {
                return Err(self.invalid("", format!("external data '{}' is a hard link", printable(name))));
            }
        }
        Ok(path)
    }
}

/// Reads `path`, and blames `model` for what is no regular file.
fn read_regular(path: &Path, model: &Path) -> Result<Bytes> {
    // Opening a FIFO for reading blocks until someone writes: look before opening, then look again at
    // what was opened.
    let regular = |meta: &std::fs::Metadata| {
        if meta.is_file() {
            Ok(())
        } else {
            Err(Error::model(model, "", format!("{} is not a regular file", path.display())))
        }
    };
    regular(&std::fs::metadata(path).map_err(|e| Error::io(path, e))?)?;
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let meta = file.metadata().map_err(|e| Error::io(path, e))?;
    regular(&meta)?;
    let expected = meta.len();
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(usize::try_from(expected).unwrap_or(usize::MAX))
        .map_err(|_| Error::model(model, "", format!("{expected} bytes do not fit in memory")))?;
    // One byte more than expected tells a file that grows from one that ends where it should.
    let read = (&file).take(expected.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    let modified = |meta: &std::fs::Metadata| meta.modified().ok();
    let after = file.metadata().map_err(|e| Error::io(path, e))?;
    if read as u64 != expected || modified(&after) != modified(&meta) {
        return Err(Error::model(model, "", format!("{} changed while it was read", path.display())));
    }
    Ok(bytes.into())
}
