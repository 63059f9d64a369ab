//! Files and folders on the command line: which files are model files.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::{FORMATS, Skipped, extract};
use crate::error::{Error, Result};

/// What a folder's file is judged by where its name tells nothing.
const HEAD: u64 = 1 << 20;

/// The model files below `inputs`, in the order of the arguments and of names within a folder, without
/// duplicates; and links that lead out of a folder, which are not followed.
///
/// A file that is named is taken as it is. In a folder, files with an ending of a known format are taken, and
/// others if their first megabyte shows a signature; hidden files are passed over.
///
/// # Errors
/// [`Error::Io`] for what does not exist or cannot be listed, [`Error::Model`] where nothing is found.
pub fn walk(inputs: &[PathBuf]) -> Result<(Vec<PathBuf>, Vec<Skipped>)> {
    let (mut files, mut skipped) = (Vec::new(), Vec::new());
    for input in inputs {
        let meta = std::fs::metadata(input).map_err(|e| Error::io(input, e))?;
        if meta.is_dir() { folder(input, &mut files, &mut skipped)? } else { files.push(input.clone()) }
    }
    let mut seen = std::collections::HashSet::new();
    files.retain(|file| seen.insert(std::fs::canonicalize(file).unwrap_or_else(|_| file.clone())));
    if files.is_empty() {
        let input = inputs.first().map(PathBuf::as_path).unwrap_or(Path::new(""));
        return Err(Error::model(input, "", "expected model files, found none"));
    }
    Ok((files, skipped))
}

fn folder(root: &Path, files: &mut Vec<PathBuf>, skipped: &mut Vec<Skipped>) -> Result<()> {
    let inside = std::fs::canonicalize(root).map_err(|e| Error::io(root, e))?;
    let hidden = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with('.');
    let entries = WalkDir::new(root)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || !hidden(entry.file_name()));
    for entry in entries {
        let entry = entry.map_err(|e| {
            let path = e.path().unwrap_or(root).to_path_buf();
            Error::io(path, e.into())
        })?;
        let path = entry.path();
        if entry.path_is_symlink() {
            let Ok(target) = std::fs::canonicalize(path) else { continue };
            match target.strip_prefix(&inside) {
                Err(_) if known_ending(path) => skipped.push(Skipped {
                    name: path.display().to_string(),
                    reason: "a symbolic link out of the folder".into(),
                }),
                // Caches keep the files in a hidden folder and link to them.
                Ok(below) if below.iter().any(hidden) && target.is_file() && known_ending(path) => {
                    files.push(path.to_path_buf());
                }
                // What it leads to is found anyway, or is no model.
                _ => {}
            }
        } else if entry.file_type().is_file() && (known_ending(path) || shows_signature(path)) {
            files.push(path.to_path_buf());
        }
    }
    Ok(())
}

fn known_ending(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    ending.is_some_and(|ending| FORMATS.iter().any(|format| format.extensions().contains(&ending.as_str())))
}

fn shows_signature(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head));
    read.is_ok() && extract::sniff(&head).is_some()
}
