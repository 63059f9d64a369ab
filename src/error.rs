//! The one public error. It says which file or data set, where in it, what was expected and what was
//! found; it becomes text once, in `main`.

use std::path::{Path, PathBuf};

/// What a source error is kept as: any error of a library underneath.
pub type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// The result of everything fallible in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, by who can mend it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model file that is not what it claims to be. `at` names the tensor, layer or record, and is
    /// empty where the file as a whole is meant.
    #[error("{}: {}{reason}", printable(&.file.to_string_lossy()), prefix(.at))]
    Model {
        /// The model file.
        file: PathBuf,
        /// Tensor, layer or record, or empty.
        at: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// A metadata CSV that cannot be used.
    #[error("{}: {}{reason}", printable(&.file.to_string_lossy()), prefix(.at))]
    Metadata {
        /// The CSV file.
        file: PathBuf,
        /// Line or column, or empty.
        at: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// The operating system refused a file.
    #[error("{}: {source}", printable(&.path.to_string_lossy()))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A data set that cannot be opened, read or written.
    #[error("{dataset}: {reason}")]
    Dataset {
        /// Folder or URL of the data set.
        dataset: String,
        /// What was expected and what was found.
        reason: String,
        /// The library's error, where there is one.
        source: Option<Source>,
    },
    /// A query that cannot be planned or run.
    #[error("{reason}")]
    Query {
        /// The engine's message, one line.
        reason: String,
        /// The engine's error.
        source: Option<Source>,
    },
    /// Numbers that do not fit together: lists of different length, histograms of different range.
    #[error("{0}")]
    Math(String),
    /// Arguments that contradict each other or the data set.
    #[error("{0}")]
    Usage(String),
    /// The user stopped the work (Ctrl-C).
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// A fault of a whole model file or of the tensor, layer or record `at` in it.
    pub fn model(file: impl AsRef<Path>, at: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Model { file: file.as_ref().into(), at: at.into(), reason: reason.into() }
    }

    /// A fault of a metadata CSV.
    pub fn metadata(file: impl AsRef<Path>, at: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Metadata { file: file.as_ref().into(), at: at.into(), reason: reason.into() }
    }

    /// The operating system's answer about `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::Io { path: path.as_ref().into(), source }
    }

    /// A fault of a data set without an underlying error.
    pub fn dataset(dataset: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Dataset { dataset: dataset.into(), reason: reason.into(), source: None }
    }

    /// Whether the command line is at fault (exit code 2) rather than the work (exit code 1).
    pub fn is_usage(&self) -> bool {
        matches!(self, Error::Usage(_))
    }
}

fn prefix(at: &str) -> String {
    if at.is_empty() { String::new() } else { format!("{}: ", printable(at)) }
}

/// `text` with control characters escaped and cut to a readable length: names come from files of
/// strangers and are printed on terminals.
pub fn printable(text: &str) -> String {
    const LONGEST: usize = 200;
    let mut out = String::with_capacity(text.len().min(LONGEST));
    for (i, c) in text.chars().enumerate() {
        if i == LONGEST {
            out.push('…');
            break;
        }
        // Bidirectional overrides reorder what a terminal shows: as misleading as an escape sequence.
        let hidden =
            c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if hidden { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}
