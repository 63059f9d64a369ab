//! Tensors in files beside the model.

use bytes::Bytes;

use super::super::proto::{StringStringEntryProto, TensorProto};
use super::*;

fn external(entries: &[(&str, &str)]) -> ModelProto {
    changed(|graph| {
        let tensor = &mut graph.initializer[0];
        tensor.raw_data = Bytes::new();
        tensor.data_location = 1;
        let entry = |&(key, value): &(&str, &str)| StringStringEntryProto { key: key.into(), value: value.into() };
        tensor.external_data = entries.iter().map(entry).collect();
    })
}

/// 28, 29, 30, 32, 40
#[test]
fn external_data_stays_beside_the_model_and_within_its_file() {
    for location in ["../w.bin", "sub/../../etc/passwd", "/etc/passwd", "", "a\0b", "..\\w.bin"] {
        assert_refused(&external(&[("location", location)]), "external data must stand beside the model");
    }
    assert_refused(&external(&[]), "w: external data without a location");
    assert_refused(&external(&[("location", "a"), ("basepath", "/")]), "found 'basepath'");
    assert_refused(&external(&[("location", "a"), ("location", "b")]), "location of external data stands twice");

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("w.bin"), (0_u8..150).collect::<Vec<_>>()).unwrap();
    let read = |offset: &str, length: &str| {
        let entries = [("location", "w.bin"), ("offset", offset), ("length", length)];
        let model = external(&entries[..if length.is_empty() { 2 } else { 3 }]);
        Onnx.read(&ModelFile::from_bytes(folder.path().join("model.onnx"), model.encode_to_vec()))
    };
    let weights = read("6", "144").unwrap().convolutions[0].weights.clone().unwrap();
    assert_eq!(weights[[0, 0, 0, 0]], f32::from_le_bytes([6, 7, 8, 9]));
    assert_eq!(read("6", "").unwrap().convolutions[0].weights.clone().unwrap(), weights);
    for (offset, length, expected) in [
        ("7", "144", "expected 144 bytes at offset 7 of 'w.bin', which has 150 bytes"),
        ("151", "", "expected the rest at offset 151"),
        ("18446744073709551615", "144", "at offset 18446744073709551615"),
        ("-1", "144", "found '-1'"),
        ("0", "18446744073709551616", "found '18446744073709551616'"),
        ("0", "150", "expected 144 bytes for FLOAT of dims [2, 2, 3, 3], found 150"),
    ] {
        let message = refused(read(offset, length));
        assert!(message.contains("w: ") && message.contains(expected), "{message}");
    }
}

/// 31
#[cfg(unix)]
#[test]
fn external_data_is_no_link() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("w.bin"), [0; 144]).unwrap();
    std::os::unix::fs::symlink(path("w.bin"), path("symbolic.bin")).unwrap();
    let read = |location: &str| {
        let bytes = external(&[("location", location)]).encode_to_vec();
        Onnx.read(&ModelFile::from_bytes(path("model.onnx"), bytes))
    };
    assert!(read("w.bin").is_ok());
    assert!(refused(read("symbolic.bin")).contains("symbolic link"));
    std::fs::hard_link(path("w.bin"), path("hard.bin")).unwrap();
    assert!(refused(read("hard.bin")).contains("hard link"));
}

/// One external file of many tensors' names must not become many files' worth of memory.
#[test]
fn external_data_is_not_multiplied() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("w.bin"), vec![0; 1_440_000]).unwrap();
    let mut model = external(&[("location", "w.bin")]);
    let graph = model.graph.as_mut().unwrap();
    graph.initializer[0].dims = vec![20_000, 2, 3, 3];
    for i in 0..1000 {
        graph.initializer.push(TensorProto { name: format!("w{i}"), ..graph.initializer[0].clone() });
        graph.node.push(node("Conv", &["x", &format!("w{i}")], &[&format!("y{i}")]));
    }
    let message = refused(Onnx.read(&ModelFile::from_bytes(folder.path().join("model.onnx"), model.encode_to_vec())));
    assert!(message.contains("the same bytes more than twice"), "{message}");
}
