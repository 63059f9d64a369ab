//! The binary as a user meets it: summaries, repeated runs, wrong arguments, bad files, pipes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{MODELS, dataset, filterdb, metadata, models, stderr, stdout};

fn scratch() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db").display().to_string();
    (folder, db)
}

fn model(name: &str) -> PathBuf {
    models().join(name)
}

fn ingest(db: &str, files: &[&Path], more: &[&str]) -> std::process::Output {
    let files = files.iter().map(|file| file.display().to_string());
    filterdb(["ingest".to_owned(), db.to_owned()].into_iter().chain(files).chain(more.iter().map(|s| s.to_string())))
}

fn query(db: &str, sql: &str) -> Value {
    let output = filterdb(["query", db, sql, "--format", "json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// One line on stderr, the exit code, no panic.
#[track_caller]
fn assert_refused(output: &std::process::Output, code: i32, parts: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    for part in parts {
        assert!(text.contains(part), "expected '{part}' in: {text}");
    }
}

#[test]
fn the_summary_counts_and_a_second_run_changes_nothing() {
    let (_folder, db) = scratch();
    let (models, metadata) = (models(), metadata());
    let run = || ingest(&db, &[&models], &["--metadata", metadata.to_str().unwrap()]);
    let first = run();
    assert!(first.status.success(), "{}", stderr(&first));
    let text = stdout(&first);
    assert!(text.contains("15 models, 183 layers, 3,682,986 filters"), "{text}");
    assert!(text.contains("upsampler.weight") && text.contains("transposed convolution"), "{text}");
    let log = || std::fs::read_dir(Path::new(&db).join("filters/_delta_log")).unwrap().count();
    let versions = log();
    let second = run();
    assert!(second.status.success());
    assert!(stdout(&second).contains("nothing to do"), "{}", stdout(&second));
    assert_eq!(log(), versions);
    assert_eq!(query(&db, "SELECT count(*) AS n FROM models")[0]["n"], MODELS);
}

#[test]
fn models_without_metadata_are_unknown_and_the_summary_says_so() {
    let (_folder, db) = scratch();
    let pnet = model("facenet-pytorch/pnet.pt");
    let output = ingest(&db, &[&pnet], &["--task", "face detection"]);
    assert!(output.status.success());
    assert!(stderr(&output).contains("data_type is 'unknown' for pnet"), "{}", stderr(&output));
    let rows = query(&db, "SELECT model, task, data_type, count(*) AS n FROM filters GROUP BY ALL");
    assert_eq!(
        rows,
        serde_json::json!([{"model": "pnet", "task": "face detection", "data_type": "unknown", "n": 702}])
    );
}

#[test]
fn other_contents_under_a_known_name_need_replace() {
    let (folder, db) = scratch();
    let file = folder.path().join("net.pt");
    std::fs::copy(model("facenet-pytorch/pnet.pt"), &file).unwrap();
    assert!(ingest(&db, &[&file], &[]).status.success());
    std::fs::copy(model("facenet-pytorch/rnet.pt"), &file).unwrap();
    assert_refused(&ingest(&db, &[&file], &[]), 1, &["net.pt", "'net'", "--replace"]);
    assert_eq!(query(&db, "SELECT count(*) AS n FROM filters")[0]["n"], 702);
    assert!(stdout(&ingest(&db, &[&file], &["--replace"])).contains("replaced"));
    assert_eq!(query(&db, "SELECT count(*) AS n FROM filters")[0]["n"], 1428);
    for table in ["models", "layers"] {
        let n = query(&db, &format!("SELECT count(DISTINCT model) AS n, count(*) AS rows FROM {table}"));
        assert_eq!(n[0]["n"], 1, "{n}");
    }
    assert_eq!(query(&db, "SELECT count(*) AS n FROM layers")[0]["n"], 2);
}

#[test]
fn new_metadata_columns_join_old_ones() {
    let (folder, db) = scratch();
    let (a, b) = (folder.path().join("a.pt"), folder.path().join("b.pt"));
    std::fs::copy(model("facenet-pytorch/pnet.pt"), &a).unwrap();
    std::fs::copy(model("facenet-pytorch/rnet.pt"), &b).unwrap();
    let csv = folder.path().join("m.csv");
    std::fs::write(&csv, "model,family,top 1\na,f,=1+1\n").unwrap();
    assert!(ingest(&db, &[&a], &["--metadata", csv.to_str().unwrap()]).status.success());
    std::fs::write(&csv, "model,year\nb,2021\nc,2022\n").unwrap();
    let output = ingest(&db, &[&b], &["--metadata", csv.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("line 3 of the metadata is about 'c'"), "{}", stderr(&output));
    let rows =
        query(&db, "SELECT model, family, \"top 1\", year, count(*) AS n FROM filters GROUP BY ALL ORDER BY model");
    assert_eq!(
        rows,
        serde_json::json!([
            {"model": "a", "family": "f", "top 1": "=1+1", "year": null, "n": 702},
            {"model": "b", "family": null, "top 1": null, "year": "2021", "n": 1428},
        ])
    );
    assert_eq!(query(&db, "SELECT count(*) AS n FROM filters WHERE family IS NULL")[0]["n"], 1428);
    assert_eq!(query(&db, "SELECT count(*) AS n FROM layers WHERE year = '2021'")[0]["n"], 2);
}

#[test]
fn all_or_nothing_and_keep_going() {
    let (folder, db) = scratch();
    let bad = folder.path().join("bad.onnx");
    std::fs::write(&bad, "this is no model").unwrap();
    let good = model("facenet-pytorch/pnet.pt");
    assert_refused(&ingest(&db, &[&good, &bad], &[]), 1, &["bad.onnx", "expected a model file"]);
    assert!(!Path::new(&db).join("filters/_delta_log").exists(), "a failed ingest makes no data set");
    let output = ingest(&db, &[&good, &bad], &["--keep-going"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).lines().next().unwrap().contains("bad.onnx"), "{}", stderr(&output));
    assert_eq!(query(&db, "SELECT count(*) AS n FROM filters")[0]["n"], 702);
}

#[test]
fn bad_files_are_refused_in_one_line() {
    let (folder, db) = scratch();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("empty.pt"), "").unwrap();
    std::fs::write(path("one.safetensors"), "x").unwrap();
    let onnx = std::fs::read(model("nudenet/320n.onnx")).unwrap();
    std::fs::write(path("cut.onnx"), &onnx[..onnx.len() / 2]).unwrap();
    std::fs::write(path("renamed.pt"), &onnx).unwrap();
    assert_refused(&ingest(&db, &[&path("empty.pt")], &[]), 1, &["empty.pt", "empty"]);
    assert_refused(&ingest(&db, &[&path("one.safetensors")], &[]), 1, &["one.safetensors"]);
    assert_refused(&ingest(&db, &[&path("cut.onnx")], &[]), 1, &["cut.onnx"]);
    assert_refused(&ingest(&db, &[&path("missing.pt")], &[]), 1, &["missing.pt", "No such file"]);
    assert_refused(&ingest(&db, &[Path::new("/dev/zero")], &[]), 1, &["/dev/zero", "not a regular file"]);
    // The contents decide, not the name.
    let output = ingest(&db, &[&path("renamed.pt")], &[]);
    assert!(output.status.success() && stdout(&output).contains("onnx"), "{}", stderr(&output));
}

#[test]
fn names_are_data_and_never_steer_a_path() {
    let (folder, db) = scratch();
    let csv = folder.path().join("m.csv");
    let name = "../a=b/%2F x'y\"é";
    std::fs::write(&csv, format!("file,model,task,note\npnet.pt,\"{}\",../../t,=cmd()\n", name.replace('"', "\"\"")))
        .unwrap();
    let output = ingest(&db, &[&model("facenet-pytorch/pnet.pt")], &["--metadata", csv.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let rows = query(&db, "SELECT model, task, note, count(*) AS n FROM filters GROUP BY ALL");
    assert_eq!(rows, serde_json::json!([{"model": name, "task": "../../t", "note": "=cmd()", "n": 702}]));
    let entries: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(entries.len(), 2, "{entries:?}");
    std::fs::write(&csv, format!("file,model\npnet.pt,{}\n", "é".repeat(100))).unwrap();
    let long = ingest(&db, &[&model("facenet-pytorch/pnet.pt")], &["--metadata", csv.to_str().unwrap()]);
    assert_refused(&long, 1, &["pnet.pt", "at most 255 bytes"]);
}

#[test]
fn non_finite_weights_are_counted_and_strict_refuses_them() {
    let (folder, db) = scratch();
    let file = folder.path().join("nan.safetensors");
    let mut weights = vec![0.5f32; 2 * 3 * 9];
    weights[4] = f32::NAN;
    weights[20] = f32::INFINITY;
    let header = r#"{"conv.weight":{"dtype":"F32","shape":[2,3,3,3],"data_offsets":[0,216]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(weights.iter().flat_map(|w| w.to_le_bytes()));
    std::fs::write(&file, bytes).unwrap();
    assert_refused(&ingest(&db, &[&file], &["--strict"]), 1, &["nan.safetensors", "conv.weight", "--strict"]);
    assert!(stdout(&ingest(&db, &[&file], &[])).contains("2 filters with NaN or infinity"));
    let fit = query(&db, "SELECT pca_fit(weights) AS fit, count(*) AS n FROM filters");
    assert_eq!([&fit[0]["fit"]["n"], &fit[0]["fit"]["n_skipped"], &fit[0]["n"]], [4, 2, 6]);
}

#[test]
fn the_same_model_by_three_processes_is_stored_once() {
    let (_folder, db) = scratch();
    let pnet = model("facenet-pytorch/pnet.pt");
    for round in 1..=3 {
        let more = ["--task", &format!("round {round}"), "--replace"].map(str::to_owned);
        let children: Vec<_> = (0..3)
            .map(|_| {
                let mut command = Command::new(env!("CARGO_BIN_EXE_filterdb"));
                command.arg("ingest").arg(&db).arg(&pnet).args(&more).stdout(Stdio::null()).spawn().unwrap()
            })
            .collect();
        for mut child in children {
            assert!(child.wait().unwrap().success(), "round {round}");
        }
        let rows = query(&db, "SELECT task, count(*) AS n FROM filters GROUP BY task");
        assert_eq!(rows, serde_json::json!([{"task": format!("round {round}"), "n": 702}]));
        assert_eq!(query(&db, "SELECT count(*) AS n FROM models")[0]["n"], 1);
    }
}

#[test]
fn a_replacement_that_cannot_be_stored_removes_nothing() {
    let (folder, db) = scratch();
    let pnet = model("facenet-pytorch/pnet.pt");
    assert!(ingest(&db, &[&pnet], &["--task", "a"]).status.success());
    // Where the folder of the new key would be, a file is in the way.
    std::fs::write(Path::new(&db).join("filters/task=b"), "").unwrap();
    let output =
        ingest(&db, &[&pnet, &model("facenet-pytorch/rnet.pt")], &["--task", "b", "--replace", "--keep-going"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        query(&db, "SELECT task, count(*) AS n FROM filters GROUP BY ALL"),
        serde_json::json!([{"task": "a", "n": 702}])
    );
    drop(folder);
}

#[test]
fn an_output_file_holds_one_result() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("two.csv");
    let output = filterdb(["query", dataset(), "SELECT 1 AS a; SELECT 2 AS b", "-o", file.to_str().unwrap()]);
    assert_refused(&output, 2, &["one result"]);
}

#[test]
fn a_cache_of_links_to_hidden_files_is_taken_in() {
    let (folder, db) = scratch();
    let cache = folder.path().join("cache");
    std::fs::create_dir_all(cache.join(".blobs")).unwrap();
    std::fs::copy(model("facenet-pytorch/pnet.pt"), cache.join(".blobs/0123")).unwrap();
    std::os::unix::fs::symlink(".blobs/0123", cache.join("net.pt")).unwrap();
    std::os::unix::fs::symlink(model("facenet-pytorch/rnet.pt"), cache.join("outside.pt")).unwrap();
    let output = ingest(&db, &[&cache], &[]);
    assert!(stdout(&output).contains("1 model, 3 layers, 702 filters"), "{}", stdout(&output));
    assert!(stderr(&output).contains("outside.pt was passed over"), "{}", stderr(&output));
}

#[test]
fn wrong_usage_is_told_from_failure() {
    let (folder, db) = scratch();
    let output = filterdb(["nonsense"]);
    assert_eq!(output.status.code(), Some(2));
    let file = folder.path().join("x.txt");
    std::fs::write(&file, "x").unwrap();
    assert_refused(&filterdb(["query", &db, "SELECT 1"]), 1, &["is not a data set"]);
    assert_refused(&filterdb(["query", "ftp://host/x", "SELECT 1"]), 2, &["'ftp'"]);
    assert_refused(
        &ingest(folder.path().to_str().unwrap(), &[&model("facenet-pytorch/pnet.pt")], &[]),
        1,
        &["x.txt", "is not a data set"],
    );
    assert_refused(&filterdb(["query", dataset(), "SELECT nope FROM filters"]), 1, &["nope"]);
    assert_refused(
        &filterdb(["query", dataset(), "SELECT pca_fit('x') FROM filters"]),
        1,
        &["expected pca_fit(weights LIST of numbers)", "found pca_fit(Utf8)"],
    );
    assert_refused(&filterdb(["query", dataset(), ""]), 2, &["SQL statement"]);
}

#[test]
fn every_format_holds_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "SELECT model, n_filters, [1.5, 2.5] AS list FROM models ORDER BY model";
    let json = query(dataset(), sql);
    assert_eq!(json.as_array().unwrap().len(), MODELS);
    let csv = stdout(&filterdb(["query", dataset(), sql, "--format", "csv"]));
    assert_eq!(csv.lines().count(), MODELS + 1);
    assert_eq!(csv.lines().next(), Some("model,n_filters,list"));
    assert!(csv.lines().nth(1).unwrap().ends_with("\"[1.5,2.5]\""), "{csv}");
    let table = stdout(&filterdb(["query", dataset(), sql, "--format", "table"]));
    assert_eq!(table.lines().count(), MODELS + 4);
    for ending in ["parquet", "arrow", "csv", "json"] {
        let file = folder.path().join(format!("out.{ending}"));
        let output = filterdb(["query", dataset(), sql, "--output", file.to_str().unwrap()]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(std::fs::metadata(&file).unwrap().len() > 100, "{ending}");
    }
    let parquet = folder.path().join("out.parquet");
    let read = query(dataset(), &format!("SELECT model, n_filters, list FROM '{}' ORDER BY model", parquet.display()));
    assert_eq!(read, json);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4, "no partial file is left");
}

#[test]
fn statements_come_from_a_file_or_from_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("q.sql");
    std::fs::write(&file, "-- two statements\nCREATE VIEW big AS SELECT * FROM models WHERE n_filters > 1000000;\nSELECT count(*) AS n FROM big;").unwrap();
    let from_file = filterdb(["query", dataset(), "-f", file.to_str().unwrap()]);
    assert_eq!(stdout(&from_file).trim(), r#"[{"n":2}]"#);
    let mut child = Command::new(env!("CARGO_BIN_EXE_filterdb"))
        .args(["query", dataset()])
        .stdin(Stdio::from(std::fs::File::open(&file).unwrap()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(std::io::read_to_string(child.stdout.take().unwrap()).unwrap().trim(), r#"[{"n":2}]"#);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_filterdb"))
        .args(["query", dataset(), "SELECT layer FROM filters", "--format", "csv"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}

#[test]
fn inspect_and_models_show_what_is_there() {
    let onnx = model("nudenet/320n.onnx");
    let output = filterdb(["inspect", onnx.to_str().unwrap(), "--format", "json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!([&found["n_layers"], &found["n_filters"], &found["n_convolutions"]], [39, 250_928, 64]);
    assert_eq!(found["layers"].as_array().unwrap().len(), 39);
    let table = stdout(&filterdb(["inspect", onnx.to_str().unwrap(), "--format", "table"]));
    assert!(table.contains("64 2-D convolutions, 39 of 3x3, 250,928 filters"), "{table}");
    let listed: Value = serde_json::from_slice(&filterdb(["models", dataset(), "--format", "json"]).stdout).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), MODELS);
    assert_eq!(listed[0]["family"], "demosaicnet");
}
