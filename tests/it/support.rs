//! What the tests stand on: real models, the real binary, independent judges in Python.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use arrow::array::RecordBatch;
use filterdb::session::{Options, Session};
use serde_json::Value;
use tempfile::TempDir;

/// Facts about the real models that are fetched for the tests.
pub const MODELS: usize = 15;
pub const LAYERS: i64 = 183;
pub const FILTERS: i64 = 3_682_986;

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A part of what `scripts/setup-tests.sh` makes. Without it nothing is judged, so its absence is a failure.
fn cached(path: &str) -> PathBuf {
    let path = root().join(".cache").join(path);
    assert!(path.exists(), "{} is missing: run scripts/test.sh, which makes it", path.display());
    path
}

/// The folder of real models.
pub fn models() -> PathBuf {
    cached("models")
}

/// What the real models are.
pub fn metadata() -> PathBuf {
    root().join("demo/models.csv")
}

/// A judge of `tests/judge`; its standard output.
pub fn judge<S: AsRef<std::ffi::OsStr>>(script: &str, arguments: impl IntoIterator<Item = S>) -> String {
    let output = Command::new(cached("venv/bin/python"))
        .arg(root().join("tests/judge").join(script))
        .args(arguments)
        .output()
        .expect("the judges' Python runs");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a judge writes UTF-8")
}

/// The real binary.
pub fn filterdb<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_filterdb")).args(arguments).output().expect("the binary runs")
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The data set of all real models, ingested once by the binary.
pub fn dataset() -> &'static str {
    static DATASET: OnceLock<(TempDir, String)> = OnceLock::new();
    let (_, path) = DATASET.get_or_init(|| {
        let folder = tempfile::Builder::new().prefix("filterdb").tempdir().expect("a temporary folder");
        let path = folder.path().join("db").display().to_string();
        let (models, metadata) = (models(), metadata());
        let output =
            filterdb(["ingest".as_ref(), path.as_ref(), models.as_os_str(), "--metadata".as_ref(), metadata.as_ref()]);
        assert!(output.status.success(), "{}", stderr(&output));
        (folder, path)
    });
    path
}

/// The real data set opened with these settings.
pub fn session(target_partitions: usize, batch_size: usize) -> Session {
    let options =
        Options { target_partitions: Some(target_partitions), batch_size: Some(batch_size), ..Options::default() };
    block_on(Session::open(dataset(), &options)).expect("the data set opens")
}

/// Runs a future as the binary does: on a thread with a large stack.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(32 << 20)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// The rows of a query as JSON objects, doubles in full.
pub fn rows(session: &Session, sql: &str) -> Vec<Value> {
    let batches = block_on(session.query(sql)).unwrap_or_else(|e| panic!("{sql}: {e}"));
    to_json(&batches)
}

pub fn to_json(batches: &[RecordBatch]) -> Vec<Value> {
    let mut writer = arrow::json::writer::WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow::json::writer::JsonArray>(Vec::new());
    for batch in batches {
        writer.write(batch).expect("JSON");
    }
    writer.finish().expect("JSON");
    serde_json::from_slice(&writer.into_inner()).expect("JSON")
}

/// The heatmap query of the design for one key.
pub fn heatmap_sql(key: &str) -> String {
    format!(
        "WITH pca AS (SELECT pca_fit(filter_scale(weights)) AS fit FROM filters),
              c   AS (SELECT {key}, pca_transform(filter_scale(weights), (SELECT fit FROM pca)) AS coef FROM filters),
              r   AS (SELECT coef_range(coef) AS range FROM c),
              h   AS (SELECT {key}, coef_hist(coef, (SELECT range FROM r)) AS hist FROM c GROUP BY {key})
         SELECT unnest(sym_kl_shift({key}, hist, (SELECT fit['explained_variance_ratio'] FROM pca))) AS pair FROM h"
    )
}

pub fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("expected a number, found {value}"))
}

pub fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap_or_else(|| panic!("expected a list, found {value}")).iter().map(number).collect()
}

/// All numbers anywhere in a value, in order.
pub fn all_numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Number(_) => vec![number(value)],
        Value::Array(items) => items.iter().flat_map(all_numbers).collect(),
        Value::Object(fields) => fields.values().flat_map(all_numbers).collect(),
        _ => Vec::new(),
    }
}

#[track_caller]
pub fn assert_close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance, "{what}[{i}]: expected {expected}, found {found}");
    }
}
