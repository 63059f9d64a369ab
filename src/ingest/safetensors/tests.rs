use super::*;

/// A file of a header and as many data bytes.
fn file(header: &str, data: usize) -> ModelFile {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend((0..data).map(|i| i as u8));
    ModelFile::from_bytes("m.safetensors", bytes)
}

fn refused(file: &ModelFile, words: &[&str]) {
    let error = Safetensors.read(file).unwrap_err().to_string();
    assert!(words.iter().all(|word| error.contains(word)), "expected {words:?} in: {error}");
    assert!(error.len() < 600 && !error.contains('\n'), "{error}");
}

fn raw(bytes: &[u8]) -> ModelFile {
    ModelFile::from_bytes("m.safetensors", bytes.to_vec())
}

#[test]
fn order_dtypes_and_producer() {
    let header = r#"{"__metadata__": {"format": "pt"},
        "z.weight": {"dtype": "F32", "shape": [1, 1, 3, 3], "data_offsets": [18, 54]},
        "a.weight": {"dtype": "BF16", "shape": [1, 1, 3, 3], "data_offsets": [0, 18]}}"#;
    let file = file(header, 54);
    assert!(Safetensors.sniff(file.bytes()));
    let model = Safetensors.read(&file).unwrap();
    assert_eq!(model.producer.as_deref(), Some("safetensors (pt)"));
    // The header's order, not that of the bytes.
    let names: Vec<_> = model.convolutions.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["z.weight", "a.weight"]);
    let weights = model.convolutions[0].weights.as_ref().unwrap();
    assert_eq!(weights[[0, 0, 0, 1]], f32::from_le_bytes([22, 23, 24, 25]));
    let weights = model.convolutions[1].weights.as_ref().unwrap();
    assert_eq!(weights[[0, 0, 2, 2]], f32::from_le_bytes([0, 0, 16, 17]));
}

#[test]
fn header_lengths() {
    refused(&raw(b"\x01\x02"), &["8 bytes", "found 2"]);
    refused(&raw(b"\xff\xff\xff\xff\xff\xff\xff\xff{}"), &["18446744073709551615"]);
    let mut long = 100_000_001u64.to_le_bytes().to_vec();
    long.extend(b"{}");
    refused(&raw(&long), &["100000001"]);
    refused(&raw(b"\x03\0\0\0\0\0\0\0{}"), &["2 bytes are left"]);
    refused(&raw(b"\x03\0\0\0\0\0\0\0{\xff}"), &["UTF-8"]);
    refused(&file("{} x", 0), &["header"]);
    refused(&file(&format!("{{\"a\": {}", "[".repeat(100_000)), 0), &["header"]);
}

#[test]
fn spans_cover_the_file_once() {
    let entry = |name: &str, shape: &str, begin: u64, end: u64| {
        format!(r#""{name}": {{"dtype": "F32", "shape": {shape}, "data_offsets": [{begin}, {end}]}}"#)
    };
    let two = |a: String, b: String| format!("{{{a}, {b}}}");
    refused(&file(&two(entry("a", "[1]", 0, 4), entry("a", "[1]", 0, 4)), 4), &["a", "overlaps"]);
    refused(&file(&two(entry("a", "[0]", 0, 0), entry("a", "[0]", 0, 0)), 0), &["a", "two tensors"]);
    refused(&file(&two(entry("a", "[2]", 0, 8), entry("b", "[2]", 4, 12)), 12), &["b", "overlaps"]);
    refused(&file(&two(entry("a", "[1]", 0, 4), entry("b", "[1]", 8, 12)), 12), &["b", "gap"]);
    refused(&file(&format!("{{{}}}", entry("a", "[1]", 0, 4)), 5), &["end at byte 4", "5 bytes"]);
    refused(&file(&format!("{{{}}}", entry("a", "[2]", 0, 8)), 4), &["4 bytes"]);
    refused(&file(&format!("{{{}}}", entry("a", "[3]", 0, 8)), 8), &["'a'", "12 bytes", "span of 8"]);
    refused(&file(&format!("{{{}}}", entry("a", "[1]", 4, 0)), 4), &["'a'", "ends before"]);
    let huge = "[4294967296, 4294967296, 4294967296]";
    refused(&file(&format!("{{{}}}", entry("a", huge, 0, 4)), 4), &["'a'", "overflows"]);
    refused(&file(r#"{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}"#, 4), &["'a'"]);
    refused(&file(r#"{"a": {"dtype": "F32", "shape": [1]}}"#, 4), &["'a'", "data_offsets"]);
}

#[test]
fn element_types() {
    let entry = |dtype: &str, shape: &str, bytes: usize| {
        file(
            &format!(r#"{{"c.weight": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": [0, {bytes}]}}}}"#),
            bytes,
        )
    };
    refused(&entry("F128", "[1]", 16), &["c.weight", "F128"]);
    refused(&entry("F8_E4M3", "[1,1,3,3]", 9), &["c.weight", "F8_E4M3", "bfloat16"]);
    refused(&entry("F4", "[2,1,3,3]", 9), &["c.weight", "F4"]);
    refused(&entry("F32", "[0,1,3,3]", 0), &["c.weight", "no values"]);
    assert!(Safetensors.read(&entry("F8_E5M2", "[3,3]", 9)).is_ok_and(|model| model.convolutions.is_empty()));
    assert!(Safetensors.read(&entry("I64", "[1,1,3,3]", 72)).is_ok_and(|model| model.skipped.len() == 1));
}

#[test]
fn a_file_that_is_also_a_zip_is_refused() {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("x", zip::write::SimpleFileOptions::default()).unwrap();
    let zip = zip.finish().unwrap().into_inner();
    let length = zip.len();
    let header = format!(r#"{{"a": {{"dtype": "U8", "shape": [{length}], "data_offsets": [0, {length}]}}}}"#);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend(zip);
    refused(&raw(&bytes), &["zip"]);
}

#[test]
fn many_tensors() {
    let mut header = String::from("{");
    for i in 0..100_000 {
        let comma = if i == 0 { "" } else { "," };
        header.push_str(&format!(r#"{comma}"t{i}":{{"dtype":"U8","shape":[1],"data_offsets":[{i},{}]}}"#, i + 1));
    }
    header.push('}');
    assert!(Safetensors.read(&file(&header, 100_000)).unwrap().convolutions.is_empty());
}

#[test]
fn every_truncation_is_refused() {
    let header = r#"{"a.weight": {"dtype": "F32", "shape": [1, 1, 3, 3], "data_offsets": [0, 36]}}"#;
    let whole = file(header, 36).bytes().clone();
    for length in 0..whole.len() {
        assert!(Safetensors.read(&ModelFile::from_bytes("m", whole.slice(..length))).is_err(), "{length}");
    }
}
