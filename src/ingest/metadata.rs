//! The metadata CSV: what its rows say of which file.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, printable};
use crate::schema;

/// More columns than this are a mistake (a transposed table), and each becomes a column of every query.
const MAX_COLUMNS: usize = 1000;

/// The columns that are not free metadata.
const FILE: &str = "file";
const MODEL: &str = "model";
const KEYS: [&str; 2] = ["task", "data_type"];

/// A metadata CSV. A column `file` (a path, matched from its end) or `model` (the file's stem) says which file
/// a row is about; `task` and `data_type` are keys; every other column is free metadata.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    path: PathBuf,
    /// Names of the free columns, in the file's order.
    columns: Vec<String>,
    rows: Vec<Row>,
}

/// What the CSV says of one model; empty cells are `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    line: u64,
    file: Option<String>,
    /// Name of the model.
    pub model: Option<String>,
    /// The model's task.
    pub task: Option<String>,
    /// The type of data that it was trained on.
    pub data_type: Option<String>,
    /// The free columns' values, as [`Metadata::columns`].
    pub free: Vec<Option<String>>,
}

impl Metadata {
    /// Reads a CSV: UTF-8, comma-separated, a header line, quotes as usual, LF or CRLF, with or without a
    /// byte-order mark. Every cell is text, formulas too.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Metadata`] for ragged rows, a missing or doubled column, a column of a name that
    /// a table has already, two rows for one file.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        Self::parse(path, &bytes)
    }

    /// The same from the file's bytes.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|e| {
            Error::metadata(path, "", format!("expected UTF-8, found an invalid byte at {}", e.valid_up_to()))
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
        let header = reader.headers().map_err(|e| broken(path, &e))?.clone();
        let names: Vec<String> = header.iter().map(str::to_owned).collect();
        check_header(path, &names)?;
        let is_free = |name: &str| ![FILE, MODEL].contains(&name) && !KEYS.contains(&name);
        let columns = names.iter().filter(|name| is_free(name)).cloned().collect();
        let mut metadata = Metadata { path: path.into(), columns, rows: Vec::new() };
        for record in reader.records() {
            let record = record.map_err(|e| broken(path, &e))?;
            let mut row = Row { line: record.position().map_or(0, csv::Position::line), ..Row::default() };
            for (name, cell) in names.iter().zip(&record) {
                let cell = (!cell.is_empty()).then(|| cell.to_owned());
                match name.as_str() {
                    FILE => row.file = cell,
                    MODEL => row.model = cell,
                    "task" => row.task = cell,
                    "data_type" => row.data_type = cell,
                    _ => row.free.push(cell),
                }
            }
            metadata.rows.push(row);
        }
        metadata.check_unique()?;
        Ok(metadata)
    }

    /// Names of the free columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The row about a model file, if there is one.
    ///
    /// # Errors
    /// [`Error::Metadata`] where two rows match.
    pub fn row(&self, file: &Path) -> Result<Option<&Row>> {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let matches = |row: &&Row| match (&row.file, &row.model) {
            (Some(name), _) => file.ends_with(Path::new(name)),
            (None, Some(model)) => *model == stem,
            (None, None) => false,
        };
        let mut rows = self.rows.iter().filter(matches);
        let (first, second) = (rows.next(), rows.next());
        match (first, second) {
            (Some(a), Some(b)) => Err(Error::metadata(
                &self.path,
                format!("lines {} and {}", a.line, b.line),
                format!("expected one row for {}, found two", file.display()),
            )),
            _ => Ok(first),
        }
    }

    /// The rows that none of `files` matches, as `(line, name)`: a typing error in a file's name is silent otherwise.
    pub fn unmatched(&self, files: &[PathBuf]) -> Vec<(u64, String)> {
        let known: HashSet<u64> =
            files.iter().filter_map(|file| self.row(file).ok().flatten()).map(|row| row.line).collect();
        self.rows
            .iter()
            .filter(|row| !known.contains(&row.line))
            .map(|row| (row.line, printable(row.file.as_ref().or(row.model.as_ref()).map_or("", String::as_str))))
            .collect()
    }

    fn check_unique(&self) -> Result<()> {
        let mut seen = HashSet::new();
        for row in &self.rows {
            let key = (row.file.as_ref(), row.file.is_none().then_some(row.model.as_ref()).flatten());
            if key == (None, None) {
                return Err(Error::metadata(
                    &self.path,
                    format!("line {}", row.line),
                    "expected a file or model, found neither",
                ));
            }
            if !seen.insert(key) {
                let name = printable(row.file.as_ref().or(row.model.as_ref()).map_or("", String::as_str));
                return Err(Error::metadata(
                    &self.path,
                    format!("line {}", row.line),
                    format!("a second row for '{name}'"),
                ));
            }
        }
        Ok(())
    }
}

fn check_header(path: &Path, names: &[String]) -> Result<()> {
    if names.len() > MAX_COLUMNS {
        return Err(Error::metadata(
            path,
            "",
            format!("expected at most {MAX_COLUMNS} columns, found {}", names.len()),
        ));
    }
    if !names.iter().any(|name| name == FILE || name == MODEL) {
        return Err(Error::metadata(path, "", "expected a column 'file' or 'model', found neither"));
    }
    let mut seen = HashSet::new();
    for name in names {
        let at = || format!("column '{}'", printable(name));
        if name.is_empty() || name.chars().any(char::is_control) || name.len() > 200 {
            return Err(Error::metadata(path, at(), "expected a printable name of at most 200 bytes"));
        }
        if !seen.insert(name.to_lowercase()) {
            return Err(Error::metadata(path, at(), "stands twice in the header (upper and lower case count as one)"));
        }
        let own = [FILE, MODEL].contains(&name.as_str()) || KEYS.contains(&name.as_str());
        if !own && schema::is_reserved(name) {
            return Err(Error::metadata(path, at(), "has the name of a column of filterdb's own: rename it"));
        }
    }
    Ok(())
}

fn broken(path: &Path, error: &csv::Error) -> Error {
    let at = error.position().map(|position| format!("line {}", position.line())).unwrap_or_default();
    let reason = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("expected {expected_len} cells as in the header, found {len}")
        }
        _ => error.to_string(),
    };
    Error::metadata(path, at, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Metadata> {
        Metadata::parse(Path::new("m.csv"), text.as_bytes())
    }

    #[test]
    fn rows_are_found_by_the_end_of_the_path_or_by_the_stem() {
        let by_file = parse("\u{feff}file,task,family\r\na/x.onnx,\"cls, top\",f1\r\nb/x.onnx,,\r\n").unwrap();
        let row = by_file.row(Path::new("/data/a/x.onnx")).unwrap().unwrap();
        assert_eq!((row.task.as_deref(), row.free[0].as_deref()), (Some("cls, top"), Some("f1")));
        let row = by_file.row(Path::new("/data/b/x.onnx")).unwrap().unwrap();
        assert_eq!((row.task.as_deref(), row.free[0].as_deref()), (None, None));
        assert!(by_file.row(Path::new("/data/c/x.onnx")).unwrap().is_none());
        assert!(by_file.row(Path::new("/data/aa/x.onnx")).unwrap().is_none());
        let by_model = parse("model,licence\nx,=1+1\n").unwrap();
        assert_eq!(by_model.row(Path::new("q/x.pt")).unwrap().unwrap().free[0].as_deref(), Some("=1+1"));
        assert_eq!(by_model.unmatched(&["y.pt".into()]), [(2, "x".to_owned())]);
    }

    #[test]
    fn refusals_name_line_and_reason() {
        for (text, expected) in [
            ("task\nx\n", "expected a column 'file' or 'model'"),
            ("file,task\na\n", "expected 2 cells as in the header, found 1"),
            ("file,Weights\na,b\n", "column 'Weights': has the name of a column"),
            ("file,layer\na,b\n", "column 'layer': has the name"),
            ("file,x,X\na,b,c\n", "stands twice"),
            ("file\na\na\n", "line 3: a second row for 'a'"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with("m.csv: ") && error.contains(expected), "{text:?}: {error}");
        }
        assert!(Metadata::parse(Path::new("m.csv"), b"file\n\xff\n").unwrap_err().to_string().contains("UTF-8"));
        let two = parse("file\nx.onnx\na/x.onnx\n").unwrap();
        assert!(two.row(Path::new("/a/x.onnx")).unwrap_err().to_string().contains("found two"));
    }
}
