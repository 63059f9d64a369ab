//! Every reader against independent ones, on real and on odd but valid files: the same layers, bit by bit.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Int32Type};
use filterdb::ingest::{self, FORMATS, Metadata, Options};
use filterdb::record::{LayerRecord, ModelRecord};
use filterdb::session::Session;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::{LAYERS, MODELS, block_on, dataset, judge, metadata, models, session};

fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hash(values: impl IntoIterator<Item = f32>) -> String {
    let mut hasher = Sha256::new();
    for value in values {
        hasher.update(value.to_le_bytes());
    }
    hex(hasher.finalize())
}

fn hash_layer(layer: &LayerRecord) -> String {
    hash(layer.weights.iter().copied())
}

fn record(path: &Path) -> ModelRecord {
    let extracted = ingest::extract_one(path, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
    extracted.record.unwrap_or_else(|| panic!("{}: no 3x3 layer", path.display()))
}

/// What an independent reader finds: its 3x3 layers by depth, those of one depth in the file's order.
fn judged(path: &Path) -> Vec<Value> {
    let script =
        if path.extension().is_some_and(|ending| ending == "onnx") { "read_onnx.py" } else { "read_weights.py" };
    let found: Value = serde_json::from_str(&judge(script, [path])).expect("JSON");
    let mut layers: Vec<Value> = found["layers"].as_array().expect("layers").clone();
    layers.retain(|layer| layer["shape"][2] == 3 && layer["shape"][3] == 3);
    layers.sort_by_key(depth);
    layers
}

fn depth(layer: &Value) -> u64 {
    layer.get("conv_depth").or(layer.get("position")).and_then(Value::as_u64).expect("a depth")
}

fn check_layer(at: &str, layer: &LayerRecord, judged: &Value) {
    let (out, within, height, width) = layer.weights.dim();
    assert_eq!(serde_json::json!([out, within, height, width]), judged["shape"], "{at}");
    assert_eq!(hash_layer(layer), judged["sha256"].as_str().expect("a hash"), "{at}");
    assert_eq!(layer.conv_depth as u64, depth(judged), "{at}");
    if let Some(decile) = judged.get("depth_decile") {
        assert_eq!(u64::from(layer.depth_decile), decile.as_u64().expect("a decile"), "{at}");
        assert_eq!(layer.depth_source, "graph", "{at}");
    }
    for (name, found) in [("uses", Some(layer.uses)), ("groups", layer.groups)] {
        if let Some(expected) = judged.get(name) {
            assert_eq!(found.map(|n| n as u64), expected.as_u64(), "{at}: {name}");
        }
    }
}

fn real_models() -> Vec<PathBuf> {
    ingest::walk(&[models()]).expect("the models are there").0
}

#[test]
fn real_models_are_read_as_independent_readers_read_them() {
    let files = real_models();
    assert_eq!(files.len(), MODELS);
    let mut layers = 0;
    for path in files {
        let (record, judged) = (record(&path), judged(&path));
        assert_eq!(record.layers.len(), judged.len(), "{}", path.display());
        for (layer, judged) in record.layers.iter().zip(&judged) {
            check_layer(&format!("{}: layer {}", path.display(), layer.name), layer, judged);
        }
        layers += judged.len();
    }
    assert_eq!(layers as i64, LAYERS);
}

#[test]
fn the_data_set_holds_the_weights_bit_by_bit() {
    let (session, metadata) = (session(1, 8192), Metadata::open(&metadata()).expect("the CSV"));
    for path in real_models() {
        let row = metadata.row(&path).expect("one row").expect("a row");
        let model = row.model.as_deref().expect("a model");
        let stored = stored_hashes(&session, model);
        let judged: Vec<String> =
            judged(&path).iter().map(|layer| layer["sha256"].as_str().unwrap().to_owned()).collect();
        assert_eq!(stored, judged, "{model} in {}", dataset());
    }
}

/// The layers' hashes, in the order of `layer`. A layer is one row group: its rows come in their order.
fn stored_hashes(session: &Session, model: &str) -> Vec<String> {
    let sql = format!("SELECT layer, weights FROM filters WHERE model = '{model}'");
    let mut hashers: Vec<Sha256> = Vec::new();
    for batch in block_on(session.query(&sql)).expect("the model") {
        let layers = batch.column(0).as_primitive::<Int32Type>();
        for row in 0..batch.num_rows() {
            let layer = layers.value(row) as usize;
            hashers.resize_with(hashers.len().max(layer + 1), Sha256::new);
            weights(&batch, row).iter().for_each(|w| hashers[layer].update(w.to_le_bytes()));
        }
    }
    hashers.into_iter().map(|hasher| hex(hasher.finalize())).collect()
}

fn weights(batch: &RecordBatch, row: usize) -> Vec<f32> {
    let list: Arc<dyn Array> = batch.column(1).as_fixed_size_list().value(row);
    list.as_primitive::<Float32Type>().values().to_vec()
}

/// The files of a generator and what it expects of them.
fn generated(script: &str) -> (tempfile::TempDir, Vec<(PathBuf, Value)>) {
    let folder = tempfile::tempdir().expect("a folder");
    judge(script, [folder.path()]);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder.path()).expect("the folder") {
        let path = entry.expect("an entry").path();
        let known =
            path.extension().is_some_and(|e| FORMATS.iter().any(|f| f.extensions().contains(&e.to_str().unwrap())));
        if known {
            let json = std::fs::read(path.with_extension("json")).expect("what is expected");
            files.push((path.clone(), serde_json::from_slice(&json).expect("JSON")));
        }
    }
    (folder, files)
}

#[test]
fn odd_but_valid_onnx_is_read_right() {
    let (_folder, files) = generated("make_onnx.py");
    assert!(files.len() >= 20, "{} files", files.len());
    for (path, expected) in files {
        let extracted = ingest::extract_one(&path, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
        let mut found: Vec<String> = extracted.record.iter().flat_map(|record| &record.layers).map(summary).collect();
        let stored = |layer: &&Value| !layer["sha256"].is_null();
        let mut wanted: Vec<String> =
            expected["layers"].as_array().unwrap().iter().filter(stored).map(expected_summary).collect();
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted, "{}", path.display());
        let skipped: Vec<&str> = extracted.skipped.iter().map(|skipped| skipped.name.as_str()).collect();
        let mut wanted: Vec<&str> = expected["skipped"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        wanted.sort_unstable();
        let mut names = skipped.clone();
        names.sort_unstable();
        assert_eq!(names, wanted, "{}", path.display());
    }
}

fn summary(layer: &LayerRecord) -> String {
    let (out, within, height, width) = layer.weights.dim();
    let groups = layer.groups.map_or("null".to_owned(), |groups| groups.to_string());
    format!(
        "{} depth {} uses {} groups {groups} in {} [{out},{within},{height},{width}] {}",
        layer.name,
        layer.conv_depth,
        layer.uses,
        layer.in_channels,
        hash_layer(layer)
    )
}

fn expected_summary(layer: &Value) -> String {
    format!(
        "{} depth {} uses {} groups {} in {} {} {}",
        layer["name"].as_str().unwrap(),
        layer["conv_depth"],
        layer["uses"],
        layer["groups"],
        layer["in_channels"],
        layer["shape"],
        layer["sha256"].as_str().unwrap()
    )
}

#[test]
fn odd_but_valid_weight_files_are_read_right() {
    let (_folder, files) = generated("make_weights.py");
    assert!(files.len() >= 20, "{} files", files.len());
    for (path, expected) in files {
        let record = record(&path);
        let expected = expected["layers"].as_array().expect("layers");
        assert_eq!(record.layers.len(), expected.len(), "{}", path.display());
        for (layer, expected) in record.layers.iter().zip(expected) {
            let at = format!("{}: layer {}", path.display(), layer.name);
            assert_eq!(layer.name, expected["name"].as_str().unwrap(), "{at}");
            assert_eq!(layer.depth_source, "order", "{at}");
            check_layer(&at, layer, expected);
        }
    }
}
