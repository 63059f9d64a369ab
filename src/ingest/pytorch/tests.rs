//! Pickles are written by hand here: what Python would not write is the point.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::*;

/// `torch.FloatStorage` of `length` elements under the key "0", as a persistent id.
fn storage(length: &[u8]) -> Vec<u8> {
    [b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu", length, b"tQ"].concat()
}

/// A call of `_rebuild_tensor_v2` with offset, shape and strides as pickled.
fn tensor(length: &[u8], offset: &[u8], shape: &[u8], strides: &[u8]) -> Vec<u8> {
    [b"ctorch._utils\n_rebuild_tensor_v2\n(", &storage(length)[..], offset, shape, strides, b"\x89}tR"].concat()
}

/// 9 elements as (1, 1, 3, 3).
fn kernel() -> Vec<u8> {
    tensor(b"K\x09", b"K\x00", b"(K\x01K\x01K\x03K\x03t", b"(K\x09K\x09K\x03K\x01t")
}

/// {"c.weight": value}
fn dict(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02}X\x08\0\0\0c.weight", value, b"s."].concat()
}

fn floats() -> Vec<u8> {
    (0..9).flat_map(|i| (i as f32).to_le_bytes()).collect()
}

fn zipped(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(CompressionMethod::Stored)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn file(bytes: Vec<u8>) -> ModelFile {
    ModelFile::from_bytes("m.pt", bytes)
}

/// A checkpoint with this pickle and one storage of nine floats.
fn checkpoint(pickle: &[u8]) -> ModelFile {
    file(zipped(&[("m/data.pkl", pickle), ("m/data/0", &floats()), ("m/version", b"3\n")]))
}

fn refused(file: &ModelFile, words: &[&str]) {
    assert!(PyTorch.sniff(file.bytes()));
    let error = PyTorch.read(file).unwrap_err().to_string();
    assert!(words.iter().all(|word| error.contains(word)), "expected {words:?} in: {error}");
    assert!(error.len() < 600 && !error.contains('\n'), "{error}");
}

/// A stream with this pickle; `storages` follow the keys.
fn stream(pickle: &[u8], storages: &[u8]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    [magic, &b"\x80\x02M\xe9\x03."[..], b"\x80\x02}.", pickle, b"\x80\x02]X\x01\0\0\x000a.", storages].concat()
}

#[test]
fn reads_both_containers() {
    let legacy = stream(&dict(&kernel()), &[&9u64.to_le_bytes()[..], &floats()].concat());
    for file in [checkpoint(&dict(&kernel())), file(legacy)] {
        let model = PyTorch.read(&file).unwrap();
        assert_eq!(model.convolutions.len(), 1);
        assert_eq!(model.convolutions[0].name, "c.weight");
        let weights = model.convolutions[0].weights.as_ref().unwrap();
        assert_eq!(weights.iter().copied().collect::<Vec<_>>(), [0., 1., 2., 3., 4., 5., 6., 7., 8.]);
    }
}

#[test]
fn big_endian_archives_are_read_right() {
    let big: Vec<u8> = (0..9).flat_map(|i| (i as f32).to_be_bytes()).collect();
    let bytes = zipped(&[("m/data.pkl", &dict(&kernel())), ("m/byteorder", b"big"), ("m/data/0", &big)]);
    let model = PyTorch.read(&file(bytes)).unwrap();
    assert_eq!(model.convolutions[0].weights.as_ref().map(|w| w[[0, 0, 1, 2]]), Some(5.0));
    let bytes = zipped(&[("m/data.pkl", &dict(&kernel())), ("m/byteorder", b"middle"), ("m/data/0", &big)]);
    refused(&file(bytes), &["byteorder"]);
}

#[test]
fn nothing_is_called() {
    for (pickle, name) in [
        (&b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R."[..], "os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.", "os.system"),
        (b"(X\x02\0\0\0lsios\nsystem\n.", "os.system"),
        (b"(cposix\nsystem\nX\x02\0\0\0lso.", "posix.system"),
        (b"\x80\x02cbuiltins\neval\n)\x81.", "builtins.eval"),
        (b"\x80\x02csubprocess\nPopen\n)\x81.", "subprocess.Popen"),
        (b"\x80\x04\x8c\x05torch\x8c\x17serialization.os.system\x93)R.", "serialization.os.system"),
        (b"\x80\x02ctorch.hub\nload\n)R.", "torch.hub.load"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor\n)\x81.", "_rebuild_tensor"),
        (b"\x80\x02cmine\nrun\n)\x81.", "mine.run"),
        (b"\x80\x02cmine\nNet\n)\x81)R.", "no class"),
        (b"\x80\x02\x82\x01.", "extension"),
        (b"\x80\x02P1\n.", "persistent"),
        // BUILD with a __setstate__: the name is refused before it could be a state.
        (b"\x80\x02cmine\nNet\n)\x81}X\x0c\0\0\0__setstate__cos\nsystem\nsb.", "os.system"),
    ] {
        refused(&checkpoint(pickle), &[name]);
        if pickle.first() == Some(&0x80) {
            refused(&file(pickle.to_vec()), &[name]);
        }
    }
}

#[test]
fn states_of_unknown_classes_are_searched_and_nothing_more() {
    // mine.Net with _parameters, _modules; its relu is a function that is named, not called.
    let weight = kernel();
    let net = [
        b"\x80\x02cmine\nNet\n)\x81}(X\x0b\0\0\0_parameters}X\x06\0\0\0weight",
        &weight[..],
        b"sX\x08\0\0\0_modules}X\x03\0\0\0relctorch.nn.functional\nrelu\nsX\x0c\0\0\0__setstate__K\x01ub.",
    ]
    .concat();
    let model = PyTorch.read(&checkpoint(&net)).unwrap();
    assert_eq!(model.convolutions[0].name, "weight");
    let transposed = [
        b"\x80\x02ctorch.nn.modules.conv\nConvTranspose2d\n)\x81}X\x0b\0\0\0_parameters}X\x06\0\0\0weight",
        &weight[..],
        b"ssb.",
    ]
    .concat();
    let model = PyTorch.read(&checkpoint(&transposed)).unwrap();
    assert!(model.convolutions.is_empty() && model.skipped[0].reason.contains("transposed"));
}

#[test]
fn malformed_pickles() {
    for (pickle, word) in [
        (&b"\x80\x02K\x01K\x01K\x01s."[..], "expected a dict"),
        (b"\x80\x02](K\x01K\x01u.", "expected a dict"),
        (b"\x80\x02}(K\x01u.", "without a value"),
        (b"\x80\x02}K\x01a.", "expected a list"),
        (b"\x80\x02X\xff\xff\xff\xffabc", "expected 4294967295 bytes"),
        (b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "bytes"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f\x01.", "expected 2147483647 bytes"),
        (b"\x80\x02\x8b\xff\xff\xff\xff\x01.", "LONG4 of -1"),
        (b"\x80\x02\x8bK", "expected 4 bytes"),
        (b"\x80\x02}", "STOP"),
        (b"\x80\x02t.", "no mark"),
        (b"\x80\x02.", "empty"),
        (b"\x80\x02(0t.", "no mark"),
        (b"\x80\x02h\x07.", "memo at 7"),
        (b"\x80\x02K\x01(2.", "empty"),
        (b"\x80\x09.", "protocol 9"),
        (b"\x80\x02\xff.", "0xff"),
        (b"\x80\x04\x95\xff\xff\0\0\0\0\0\0N.", "frame"),
        (b"\x80\x02X\x01\0\0\0\xff.", "UTF-8"),
        (b"\x80\x02cos", "line"),
        (b"\x80\x02N}b.", "state"),
        (b"\x80\x02NQ.", "storage"),
        (b"\x80\x02N.NN", "2 bytes follow"),
        (b"\x80\x02]q\x01h\x01a.", "holds itself"),
        (b"\x80\x02}q\x01X\x01\0\0\0ah\x01s.", "holds itself"),
    ] {
        refused(&checkpoint(pickle), &[word]);
    }
}

#[test]
fn bombs_cost_nothing() {
    // Each list holds the one before twice: 2^40 paths through 40 values.
    let mut doubling = b"\x80\x02]q\x00".to_vec();
    for level in 0..40u8 {
        doubling.extend([b']', b'q', level + 1, b'h', level, b'a', b'h', level, b'a']);
    }
    doubling.push(b'.');
    refused(&checkpoint(&doubling), &["paths"]);
    let deep = [&b"\x80\x02"[..], &b"]".repeat(100_000), &b"a".repeat(99_999), b"."].concat();
    refused(&checkpoint(&deep), &["nested"]);
    for bomb in [&b"]"[..], b"2", b"(", b"N", b"]\x94"] {
        let many = [&b"\x80\x02K\x01"[..], &bomb.repeat(3_500_000), b"."].concat();
        refused(&checkpoint(&many), &["more than"]);
    }
}

#[test]
fn tensors_outside_their_storage() {
    let (shape, strides) = (&b"(K\x01K\x01K\x03K\x03t"[..], &b"(K\x09K\x09K\x03K\x01t"[..]);
    for (length, offset, shape, strides, word) in [
        (&b"K\x0a"[..], &b"K\x00"[..], shape, strides, "36 bytes"),
        (b"K\x08", b"K\x00", shape, strides, "36 bytes"),
        (b"J\xff\xff\xff\xff", b"K\x00", shape, strides, "length"),
        (b"K\x09", b"K\x01", shape, strides, "outside"),
        (b"K\x09", b"J\xff\xff\xff\xff", shape, strides, "negative"),
        (b"K\x09", b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", shape, strides, "outside"),
        (b"K\x09", b"K\x00", shape, b"(K\x09K\x09J\xff\xff\xff\xffK\x01t", "negative"),
        (b"K\x09", b"K\x00", shape, b"(K\x09K\x09\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7fK\x01t", "outside"),
        (b"K\x09", b"K\x00", shape, b"(K\x09K\x03K\x01t", "4 dimensions with 3 strides"),
        (b"K\x09", b"K\x00", b"(J\xff\xff\xff\x7fJ\xff\xff\xff\x7fK\x03K\x03t", b"(K\x00K\x00K\x00K\x00t", "overflows"),
        (b"K\x09", b"K\x00", b"(J\xff\xff\xff\x7fK\x01K\x03K\x03t", b"(K\x00K\x00K\x00K\x00t", "repeat"),
    ] {
        let file = checkpoint(&dict(&tensor(length, offset, shape, strides)));
        let names: &[&str] = if word == "length" { &[word] } else { &["c.weight", word] };
        refused(&file, names);
    }
    let missing = file(zipped(&[("m/data.pkl", &dict(&kernel())), ("m/data/1", &floats())]));
    refused(&missing, &["c.weight", "'0' is missing"]);
}

#[test]
fn streams_that_lie() {
    let object = dict(&kernel());
    refused(&file(stream(&object, &[&8u64.to_le_bytes()[..], &floats()].concat())), &["storage 0", "found 8"]);
    refused(&file(stream(&object, &[&9u64.to_le_bytes()[..], &floats()[..35]].concat())), &["storage 0", "35 bytes"]);
    refused(&file(stream(&object, b"")), &["storage 0", "ends"]);
    refused(&file(stream(&object, &[&9u64.to_le_bytes()[..], &floats(), b"x"].concat())), &["1 bytes follow"]);
    let whole = stream(&object, &[&9u64.to_le_bytes()[..], &floats()].concat());
    for length in 0..whole.len() {
        assert!(PyTorch.read(&file(whole[..length].to_vec())).is_err(), "{length}");
    }
}

#[test]
fn archives_that_lie() {
    let pickle = dict(&kernel());
    let good = zipped(&[("m/data.pkl", &pickle), ("m/data/0", &floats())]);
    let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|window| window == what).unwrap();
    let changed = |at: usize, to: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        file(bytes)
    };
    let central = find(&good, b"PK\x01\x02");
    // A storage's bytes do not match their checksum.
    refused(&changed(find(&good, &floats()) + 4, &[1]), &["m/data/0"]);
    // Local and central header name different files, sizes, methods.
    refused(&changed(30, b"n"), &["zip archive"]);
    refused(&changed(central + 20, &[1]), &["zip"]);
    refused(&changed(central + 8, &[1]), &["zip"]);
    refused(&changed(8, &[8]), &["zip archive"]);
    // The end record counts one entry, or 65,535 of a zip64 that is not there.
    let end = find(&good, b"PK\x05\x06");
    refused(&changed(end + 10, &[1, 0]), &["zip archive"]);
    refused(&changed(end + 10, &[0xff, 0xff]), &["zip archive"]);
    refused(&changed(end + 20, &[1]), &["without its end"]);
    // Both entries at one place.
    let second = central + 4 + find(&good[central + 4..], b"PK\x01\x02");
    refused(&changed(second + 42, &[0, 0, 0, 0]), &["zip archive"]);

    refused(&file(zipped(&[("m/data.pkl", &pickle), ("n/data.pkl", &pickle)])), &["twice"]);
    refused(&file(zipped(&[("m/x", b"")])), &["without data.pkl"]);
    refused(&file(zipped(&[("m/data.pkl", &pickle), ("m/../../data/0", &floats())])), &["leaves the archive"]);
    for length in 0..good.len() {
        let cut = file(good[..length].to_vec());
        assert!(PyTorch.read(&cut).is_err(), "{length}");
    }
}

#[test]
fn inflation_is_bounded() {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, bytes) in [("m/data/0", floats()), ("m/data.pkl", dict(&kernel()))] {
        zip.start_file(name, options).unwrap();
        zip.write_all(&bytes).unwrap();
    }
    let good = zip.finish().unwrap().into_inner();
    assert!(PyTorch.read(&file(good.clone())).is_ok());
    // Both headers of the first entry declare another size.
    let declaring = |size: u32| {
        let mut bytes = good.clone();
        let central = bytes.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
        for at in [22, central + 24] {
            bytes[at..at + 4].copy_from_slice(&size.to_le_bytes());
        }
        file(bytes)
    };
    refused(&declaring(257 << 20), &["m/data/0", "inflates to 269484032 bytes, too many"]);
    refused(&declaring(37), &["m/data/0", "other than its 37 bytes"]);
    refused(&declaring(35), &["m/data/0"]);
}

#[test]
fn other_containers() {
    let mut tar = vec![0u8; 1024];
    tar[257..262].copy_from_slice(b"ustar");
    refused(&file(tar), &["tar archive"]);
    assert!(!PyTorch.sniff(b"") && !PyTorch.sniff(b"P") && !PyTorch.sniff(b"\x89HDF\r\n\x1a\n"));
    // TorchScript: the class is one that no one knows, the attributes hold the tensors.
    let weight = kernel();
    let script = [
        b"\x80\x02c__torch__.torch.nn.modules.conv.___torch_mangle_0\nConv2d\n)\x81}(X\x08\0\0\0training\x89X\x06\0\0\0weight",
        &weight[..],
        b"ub.",
    ]
    .concat();
    let bytes = zipped(&[
        ("m/data.pkl", &script),
        ("m/constants.pkl", b"\x80\x02)."),
        ("m/code/x.py", b""),
        ("m/data/0", &floats()),
    ]);
    let model = PyTorch.read(&file(bytes)).unwrap();
    assert_eq!(model.producer.as_deref(), Some("torchscript"));
    assert_eq!(model.convolutions[0].name, "weight");
}

#[test]
fn random_changes_never_panic() {
    let good = zipped(&[("m/data.pkl", &dict(&kernel())), ("m/data/0", &floats())]);
    let legacy = stream(&dict(&kernel()), &[&9u64.to_le_bytes()[..], &floats()].concat());
    let mut state = 1u64;
    let mut random = |below: usize| {
        // Knuth's multiplier: any sequence does, as long as it is the same each time.
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    for whole in [good, legacy, dict(&kernel())] {
        for _ in 0..4000 {
            let mut bytes = whole.clone();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                bytes[at] = random(256) as u8;
            }
            let _ = PyTorch.read(&file(bytes));
        }
    }
}
