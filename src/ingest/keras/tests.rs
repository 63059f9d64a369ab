//! HDF5 files are put together by hand here (superblock 0, object headers of version 1): what the HDF5
//! library would not write is the point. Ordinary files are made with h5py by `tests/judge`.

use super::*;

/// A file in the making. Addresses count from the superblock.
struct File {
    bytes: Vec<u8>,
}

const SUPERBLOCK: usize = 96;
const FLOAT: [u8; 20] = [0x11, 0x20, 31, 0, 4, 0, 0, 0, 0, 0, 32, 0, 23, 8, 0, 23, 127, 0, 0, 0];

impl File {
    fn new() -> Self {
        File { bytes: vec![0; SUPERBLOCK] }
    }

    fn next(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn data(&mut self, bytes: &[u8]) -> u64 {
        let at = self.next();
        self.bytes.extend(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        at
    }

    /// An object header of (type, contents) messages.
    fn object(&mut self, messages: &[(u16, Vec<u8>)]) -> u64 {
        let mut body = Vec::new();
        for (kind, contents) in messages {
            let size = contents.len().next_multiple_of(8);
            body.extend(kind.to_le_bytes());
            body.extend((size as u16).to_le_bytes());
            body.extend([0; 4]);
            body.extend(contents);
            body.resize(body.len() + size - contents.len(), 0);
        }
        let mut header = vec![1, 0];
        header.extend((messages.len() as u16).to_le_bytes());
        header.extend(1u32.to_le_bytes());
        header.extend((body.len() as u32).to_le_bytes());
        header.extend([0; 4]);
        header.extend(body);
        self.data(&header)
    }

    fn group(&mut self, mut messages: Vec<(u16, Vec<u8>)>) -> u64 {
        // Link info without an index: all links are messages.
        messages.push((2, [&[0u8, 0][..], &[0xff; 16]].concat()));
        self.object(&messages)
    }

    /// A contiguous array of float32 values 0, 1, 2, ...
    fn array(&mut self, shape: &[u64]) -> u64 {
        let values: Vec<u8> = (0..shape.iter().product::<u64>()).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let place = self.data(&values);
        self.object(&[dataspace(shape), (3, FLOAT.to_vec()), contiguous(place, values.len() as u64)])
    }

    fn finish(mut self, root: u64) -> Vec<u8> {
        let mut superblock = hdf5::SIGNATURE.to_vec();
        superblock.extend([0, 0, 0, 0, 0, 8, 8, 0, 4, 0, 16, 0, 0, 0, 0, 0]);
        for word in [0, u64::MAX, self.next(), u64::MAX, 0, root, 0, 0, 0] {
            superblock.extend(word.to_le_bytes());
        }
        assert_eq!(superblock.len(), SUPERBLOCK);
        self.bytes[..SUPERBLOCK].copy_from_slice(&superblock);
        self.bytes
    }
}

fn dataspace(shape: &[u64]) -> (u16, Vec<u8>) {
    let mut contents = vec![1, shape.len() as u8, 0, 0, 0, 0, 0, 0];
    contents.extend(shape.iter().flat_map(|length| length.to_le_bytes()));
    (1, contents)
}

fn contiguous(place: u64, size: u64) -> (u16, Vec<u8>) {
    (8, [&[3u8, 1][..], &place.to_le_bytes(), &size.to_le_bytes()].concat())
}

fn chunked(place: u64, chunk: &[u32]) -> (u16, Vec<u8>) {
    let mut contents = vec![3, 2, chunk.len() as u8 + 1];
    contents.extend(place.to_le_bytes());
    contents.extend(chunk.iter().chain(&[4]).flat_map(|length| length.to_le_bytes()));
    (8, contents)
}

fn link(name: &str, kind: u8, target: &[u8]) -> (u16, Vec<u8>) {
    (6, [&[1u8, 8, kind, name.len() as u8][..], name.as_bytes(), target].concat())
}

fn hard(name: &str, address: u64) -> (u16, Vec<u8>) {
    link(name, 0, &address.to_le_bytes())
}

fn soft(name: &str, path: &str) -> (u16, Vec<u8>) {
    link(name, 1, &[&(path.len() as u16).to_le_bytes()[..], path.as_bytes()].concat())
}

fn external(name: &str, file: &str, path: &str) -> (u16, Vec<u8>) {
    let target = [&[0u8][..], file.as_bytes(), b"\0", path.as_bytes(), b"\0"].concat();
    link(name, 64, &[&(target.len() as u16).to_le_bytes()[..], &target].concat())
}

/// An attribute of texts of one width; `scalar` for a single one.
fn texts(name: &str, values: &[&str], scalar: bool) -> (u16, Vec<u8>) {
    let width = values.iter().map(|value| value.len()).max().unwrap_or(0).max(1);
    let datatype = [&[0x13u8, 1, 0, 0][..], &(width as u32).to_le_bytes()].concat();
    let length = [values.len() as u64];
    let (_, space) = dataspace(if scalar { &[] } else { &length });
    let mut data = Vec::new();
    for value in values {
        data.extend(value.bytes());
        data.resize(data.len() + width - value.len(), 0);
    }
    attribute(name, &datatype, &space, &data)
}

fn attribute(name: &str, datatype: &[u8], space: &[u8], data: &[u8]) -> (u16, Vec<u8>) {
    let mut contents = vec![1, 0];
    for length in [name.len() + 1, datatype.len(), space.len()] {
        contents.extend((length as u16).to_le_bytes());
    }
    for part in [&[name.as_bytes(), b"\0"].concat()[..], datatype, space] {
        contents.extend(part);
        contents.resize(contents.len().next_multiple_of(8), 0);
    }
    contents.extend(data);
    (12, contents)
}

/// conv2d/vars/0 is the object at `dataset`.
fn keras3(mut file: File, dataset: u64) -> Vec<u8> {
    let vars = file.group(vec![hard("0", dataset)]);
    let layer = file.group(vec![hard("vars", vars)]);
    let root = file.group(vec![hard("conv2d", layer)]);
    file.finish(root)
}

/// One layer `a` with these attributes and members, and the root's attributes.
fn keras2(mut file: File, layer: Vec<(u16, Vec<u8>)>, mut root: Vec<(u16, Vec<u8>)>) -> Vec<u8> {
    let layer = file.group(layer);
    root.push(hard("a", layer));
    let root = file.group(root);
    file.finish(root)
}

fn read(bytes: Vec<u8>) -> Result<Model> {
    Keras.read(&ModelFile::from_bytes("m.h5", bytes))
}

fn refused(bytes: Vec<u8>, words: &[&str]) {
    assert!(Keras.sniff(&bytes));
    let error = read(bytes).unwrap_err().to_string();
    assert!(words.iter().all(|word| error.contains(word)), "expected {words:?} in: {error}");
    assert!(error.len() < 600 && !error.contains('\n'), "{error}");
}

#[test]
fn both_layouts_and_a_user_block() {
    let mut file = File::new();
    let kernel = file.array(&[3, 3, 2, 4]);
    let numbered = keras3(file, kernel);
    let mut file = File::new();
    let kernel = file.array(&[3, 3, 2, 4]);
    let layer = vec![texts("weight_names", &["kernel:0"], false), hard("kernel:0", kernel)];
    let listed =
        keras2(file, layer, vec![texts("layer_names", &["a"], false), texts("keras_version", &["2.9.0"], true)]);
    let user_block = [vec![b'#'; 512], numbered.clone()].concat();
    for (bytes, name, producer) in [
        (numbered, "conv2d/vars/0", "keras"),
        (listed, "a/kernel", "keras 2.9.0"),
        (user_block, "conv2d/vars/0", "keras"),
    ] {
        let model = read(bytes).unwrap();
        assert_eq!(model.producer.as_deref(), Some(producer));
        let convolution = &model.convolutions[0];
        assert_eq!((convolution.name.as_str(), convolution.out_channels, convolution.in_channels), (name, 4, 2));
        // (y, x, i, o) is at ((y * 3 + x) * 2 + i) * 4 + o.
        assert_eq!(convolution.weights.as_ref().map(|w| w[[3, 1, 2, 0]]), Some(55.0));
    }
}

#[test]
fn nothing_outside_the_file_is_read() {
    let mut file = File::new();
    let root = file.group(vec![external("layers", "/etc/passwd", "/x")]);
    refused(file.finish(root), &["refused", "/etc/passwd"]);

    // External raw data: the names are in a local heap.
    let mut file = File::new();
    let names = file.data(b"\0\0\0\0\0\0\0\0/etc/passwd\0");
    let heap: Vec<u8> =
        [&b"HEAP\0\0\0\0"[..], &24u64.to_le_bytes(), &1u64.to_le_bytes(), &names.to_le_bytes()].concat();
    let heap = file.data(&heap);
    let mut slots = vec![1, 0, 0, 0, 1, 0, 1, 0];
    for word in [heap, 8, 0, 36] {
        slots.extend(word.to_le_bytes());
    }
    let messages = [dataspace(&[3, 3, 1, 1]), (3, FLOAT.to_vec()), contiguous(u64::MAX, 36), (7, slots)];
    let dataset = file.object(&messages);
    refused(keras3(file, dataset), &["conv2d/vars/0", "refused", "/etc/passwd"]);

    let mut file = File::new();
    let dataset =
        file.object(&[dataspace(&[3, 3, 1, 1]), (3, FLOAT.to_vec()), (8, [&[4u8, 3][..], &[0; 12]].concat())]);
    refused(keras3(file, dataset), &["layout"]);
}

#[test]
fn loops_end() {
    let mut file = File::new();
    let itself = file.next();
    let root = file.group(vec![hard("again", itself)]);
    refused(file.finish(root), &["again", "holds itself"]);

    // A soft link to itself is no link to anything.
    let mut file = File::new();
    let kernel = file.array(&[3, 3, 1, 1]);
    let vars = file.group(vec![hard("0", kernel)]);
    let root = file.group(vec![soft("loop", "/loop"), soft("twin", "/loop/twin"), hard("vars", vars)]);
    assert_eq!(read(file.finish(root)).unwrap().convolutions.len(), 1);
    let file = File::new();
    let layer = vec![texts("weight_names", &["kernel"], false), soft("kernel", "/a/kernel")];
    refused(keras2(file, layer, vec![texts("layer_names", &["a"], false)]), &["kernel"]);

    let mut file = File::new();
    let mut inner = file.group(vec![]);
    for _ in 0..100 {
        inner = file.group(vec![hard("g", inner)]);
    }
    refused(file.finish(inner), &["nested deeper"]);
}

#[test]
fn declared_sizes_are_not_believed() {
    // 38 GB in a file of some hundred bytes: contiguous, chunked and never written, and overflowing.
    let wide = [3, 3, 32_768, 32_768];
    for (shape, layout, word) in [
        (wide, contiguous(SUPERBLOCK as u64, 36 << 30), "too many"),
        (wide, chunked(u64::MAX, &[3, 3, 64, 64]), "too many"),
        ([3, 3, 8, 8], contiguous(SUPERBLOCK as u64, 4 * 9 * 64), "HDF5"),
        ([3, 3, u64::MAX, 2], contiguous(SUPERBLOCK as u64, 36), "overflow"),
        ([3, 3, 0, 8], contiguous(SUPERBLOCK as u64, 0), "no values"),
    ] {
        let mut file = File::new();
        let dataset = file.object(&[dataspace(&shape), (3, FLOAT.to_vec()), layout]);
        refused(keras3(file, dataset), &[word]);
    }
    // Many arrays of the largest size that one may have.
    let mut file = File::new();
    let members = (0..20).map(|i| {
        let dataset =
            file.object(&[dataspace(&[3, 3, 1024, 1024]), (3, FLOAT.to_vec()), chunked(u64::MAX, &[3, 3, 64, 64])]);
        let vars = file.group(vec![hard("0", dataset)]);
        let layer = file.group(vec![hard("vars", vars)]);
        hard(&format!("conv2d_{i}"), layer)
    });
    let members = members.collect();
    let root = file.group(members);
    refused(file.finish(root), &["conv2d_1/vars/0", "too many"]);
}

#[test]
fn element_types_that_are_no_floats() {
    let mut vax = FLOAT;
    vax[1] |= 0x40;
    let mut odd = FLOAT;
    odd[16] = 126;
    let integer = [&[0x10u8, 8, 0, 0, 4, 0, 0, 0, 0, 0, 32, 0][..]].concat();
    let reference = vec![0x17, 0, 0, 0, 8, 0, 0, 0];
    let variable = [&[0x19u8, 0, 0, 0, 16, 0, 0, 0][..], &FLOAT].concat();
    let compound = [&[0x16u8, 1, 0, 0, 4, 0, 0, 0, b'x', 0, 0, 0, 0, 0, 0, 0][..], &[0; 32], &FLOAT].concat();
    for datatype in [vax.to_vec(), odd.to_vec(), integer, reference, variable, compound] {
        let mut file = File::new();
        let place = file.data(&[0; 160]);
        let dataset = file.object(&[dataspace(&[3, 3, 1, 1]), (3, datatype), contiguous(place, 36)]);
        refused(keras3(file, dataset), &["conv2d/vars/0", "expected floating-point"]);
    }
}

#[test]
fn filters_that_are_not_known() {
    let mut file = File::new();
    let place = file.data(&[0; 64]);
    // One chunk, found by a B-tree of one key, compressed by filter 32000.
    let mut tree = [&b"TREE\x01\0\x01\0"[..], &[0xff; 16]].concat();
    tree.extend([36, 0, 0, 0, 0, 0, 0, 0]);
    tree.extend([0; 40]);
    tree.extend(place.to_le_bytes());
    tree.extend([0; 48]);
    let tree = file.data(&tree);
    let pipeline = (11, [&[1u8, 1, 0, 0, 0, 0, 0, 0][..], &32_000u16.to_le_bytes(), &[0; 6]].concat());
    let dataset = file.object(&[dataspace(&[3, 3, 1, 1]), (3, FLOAT.to_vec()), chunked(tree, &[3, 3, 1, 1]), pipeline]);
    refused(keras3(file, dataset), &["conv2d/vars/0", "32000"]);
}

#[test]
fn malformed_attributes() {
    let names = |value: &[&str]| texts("layer_names", value, false);
    let weights = |value: &[&str]| texts("weight_names", value, false);
    let (_, two) = dataspace(&[2]);
    let kernel = |file: &mut File| hard("kernel", file.array(&[3, 3, 1, 1]));
    for (layer, root, words) in [
        (vec![weights(&["kernel"])], vec![names(&["b"])], &["b"][..]),
        (vec![], vec![names(&["a"])], &["a", "weight_names"]),
        (vec![weights(&["x/kernel"])], vec![names(&["a"])], &["x"]),
        (vec![weights(&["kernel"])], vec![attribute("layer_names", &FLOAT, &two, &[0; 8])], &["layer_names"]),
        (vec![attribute("weight_names", &FLOAT, &two, &[0; 8])], vec![names(&["a"])], &["weight_names"]),
        (vec![weights(&["kernel"])], vec![names(&["a"]), texts("model_config", &["{"], true)], &["model_config"]),
    ] {
        let mut file = File::new();
        let layer = [layer, vec![kernel(&mut file)]].concat();
        refused(keras2(file, layer, root), words);
    }
    let mut file = File::new();
    let root = file.group(vec![]);
    refused(file.finish(root), &["without Keras layers"]);
}

#[test]
fn configurations_tell_classes() {
    let config = |class: &str| {
        format!(
            r#"{{"class_name":"Sequential","config":[{{"class_name":"{class}","config":{{"name":"a","groups":2,"function":"os.system"}}}}]}}"#
        )
    };
    for (class, taken) in [
        ("Conv2D", Some((4, Some(2)))),
        ("DepthwiseConv2D", Some((2, Some(2)))),
        ("Conv2DTranspose", None),
        ("Lambda", Some((2, None))),
    ] {
        let mut file = File::new();
        let kernel = file.array(&[3, 3, 2, 4]);
        let layer = vec![texts("weight_names", &["kernel"], false), hard("kernel", kernel)];
        let root = vec![texts("layer_names", &["a"], false), texts("model_config", &[&config(class)], true)];
        let model = read(keras2(file, layer, root)).unwrap();
        assert_eq!(model.convolutions.first().map(|c| (c.in_channels, c.groups)), taken, "{class}");
        assert_eq!(model.skipped.len(), usize::from(taken.is_none()), "{class}");
    }
}

#[test]
fn cut_and_changed_files_never_panic() {
    let mut file = File::new();
    let kernel = file.array(&[3, 3, 2, 4]);
    let layer = vec![texts("weight_names", &["kernel:0"], false), hard("kernel:0", kernel)];
    let whole = keras2(file, layer, vec![texts("layer_names", &["a"], false)]);
    for length in 0..whole.len() {
        assert!(read(whole[..length].to_vec()).is_err(), "{length}");
    }
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    for _ in 0..5000 {
        let mut bytes = whole.clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            bytes[at] = random(256) as u8;
        }
        let _ = read(bytes);
    }
}
