//! Which tensors of a state dict are the weights of 2-D convolutions.
//!
//! A state dict has names and shapes and no layer types. A 4-D floating-point tensor is taken for a
//! convolution's weight unless its name, its bias or its module says that it is something else;
//! whatever is passed over is named with the reason. What neither name nor shape tells (a transposed
//! convolution without a bias and with an innocent name) cannot be told here.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use ndarray::Array4;

use super::tensor::Dtype;
use super::{Convolution, DepthSource, Model, ModelFile, Skipped};
use crate::error::Result;

/// A tensor of a state dict. `place` says where its values are: equal places are one weight.
#[derive(Debug)]
pub(crate) struct Named<P> {
    /// Name, its parts joined by dots.
    pub(crate) name: String,
    /// Element type.
    pub(crate) dtype: Dtype,
    /// Length of each dimension.
    pub(crate) shape: Vec<usize>,
    /// What the file tells about the module that owns the tensor.
    pub(crate) owner: Owner,
    /// Identity of the values.
    pub(crate) place: P,
}

/// The module that owns a tensor, as far as the file tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Owner {
    /// A bare state dict: nothing is known.
    #[default]
    Unknown,
    /// A module that is a 2-D convolution, with its groups.
    Convolution { groups: Option<usize> },
    /// A module that is a transposed convolution.
    Transposed,
}

/// The 2-D convolutions among `tensors`, in their order; `values` reads one tensor's values.
///
/// # Errors
/// Names the tensor whose values cannot be read or whose shape is impossible.
pub(crate) fn convolutions<P: Eq + Hash>(
    file: &ModelFile,
    tensors: &[Named<P>],
    mut values: impl FnMut(&Named<P>) -> Result<Vec<f32>>,
) -> Result<Model> {
    let prefix = data_parallel_prefix(tensors);
    let biases: HashMap<&str, usize> = tensors
        .iter()
        .filter_map(|tensor| match tensor.shape[..] {
            [length] => Some((tensor.name.strip_suffix("bias")?, length)),
            _ => None,
        })
        .collect();
    let mut model = Model::default();
    let mut known: HashMap<&P, usize> = HashMap::new();
    for tensor in tensors {
        let [out, input, height, width] = tensor.shape[..] else { continue };
        let name = tensor.name.get(prefix..).unwrap_or(&tensor.name);
        let bias = tensor.name.strip_suffix("weight").and_then(|stem| biases.get(stem)).copied();
        if let Err(reason) = judge(name, tensor, [out, input], bias) {
            model.skipped.push(Skipped { name: name.to_owned(), reason });
            continue;
        }
        if tensor.shape.contains(&0) {
            return Err(file.invalid(name, format!("a convolution of shape {:?} has no values", tensor.shape)));
        }
        let entry = match known.entry(&tensor.place) {
            Entry::Occupied(first) => {
                model.convolutions[*first.get()].uses += 1;
                continue;
            }
            Entry::Vacant(entry) => entry,
        };
        let weights = if (height, width) == (3, 3) {
            if let Dtype::UnreadableFloat(dtype) = &tensor.dtype {
                let expected = "expected float16, bfloat16, float32 or float64";
                return Err(file.invalid(name, format!("{expected}, found {dtype}")));
            }
            let weights = Array4::from_shape_vec((out, input, 3, 3), values(tensor)?);
            Some(weights.map_err(|e| file.invalid(name, format!("shape {:?}: {e}", tensor.shape)))?)
        } else {
            None
        };
        let groups = if let Owner::Convolution { groups } = tensor.owner { groups } else { None };
        let depth = model.convolutions.len();
        entry.insert(depth);
        model.convolutions.push(Convolution {
            name: name.to_owned(),
            out_channels: out,
            in_channels: input.saturating_mul(groups.unwrap_or(1)),
            groups,
            kernel: [height, width],
            depth,
            depth_source: DepthSource::Order,
            uses: 1,
            weights,
        });
    }
    Ok(model)
}

/// Length of the prefix that `DataParallel` gives to every name, or 0.
fn data_parallel_prefix<P>(tensors: &[Named<P>]) -> usize {
    const PREFIX: &str = "module.";
    if !tensors.is_empty() && tensors.iter().all(|tensor| tensor.name.starts_with(PREFIX)) { PREFIX.len() } else { 0 }
}

/// Why a 4-D tensor is no 2-D convolution's weight.
fn judge<P>(name: &str, tensor: &Named<P>, [rows, columns]: [usize; 2], bias: Option<usize>) -> Result<(), String> {
    if let Dtype::Other(dtype) = &tensor.dtype {
        return Err(format!("4-D, but of type {dtype}, not floating-point"));
    }
    if let Dtype::Readable(element) = tensor.dtype
        && !element.is_float()
    {
        return Err("4-D, but of integers without a scale".to_owned());
    }
    let leaf = name.rsplit('.').next().unwrap_or(name);
    match tensor.owner {
        Owner::Convolution { .. } if leaf == "weight" => return Ok(()),
        Owner::Transposed if leaf == "weight" => return Err("a transposed convolution by its module".to_owned()),
        _ => {}
    }
    if let Some(reason) = other_meaning(name, leaf) {
        return Err(reason);
    }
    // A convolution's bias has one value per row of its weight (out, in / groups, kh, kw); a transposed
    // convolution's weight is (in, out / groups, kh, kw), so its bias has a multiple of the columns.
    match bias {
        Some(bias) if bias != rows && columns != 0 && bias % columns == 0 => {
            return Err(format!("a transposed convolution: shape {:?} with a bias of {bias}", tensor.shape));
        }
        // Only grouped transposed convolutions look like this, and of those only depthwise ones are in use.
        Some(bias) if bias == rows && rows != columns && columns != 1 => return Ok(()),
        _ => {}
    }
    if says_transposed(name) { Err("a transposed convolution by its name".to_owned()) } else { Ok(()) }
}

/// What a name's last part says when it is not the weight of a layer.
fn other_meaning(name: &str, leaf: &str) -> Option<String> {
    // PyTorch's weight and spectral normalisation and pruning: the weight is computed from these.
    if matches!(leaf, "weight_g" | "weight_v" | "weight_orig" | "weight_mask") || name.contains("parametrizations.") {
        return Some("the weight is computed from this tensor, not stored".to_owned());
    }
    const OTHER: &[&str] = &[
        "embed",
        "embedding",
        "embeddings",
        "pos",
        "position",
        "token",
        "mask",
        "anchor",
        "anchors",
        "grid",
        "bias",
        "gamma",
        "beta",
        "alpha",
        "scale",
        "shift",
        "mean",
        "var",
        "std",
        "running",
        "momentum",
        "exp",
        "buffer",
        "table",
        "index",
        "grad",
    ];
    let word = words(leaf).find(|word| OTHER.contains(&word.as_str()))?;
    Some(format!("4-D, but named as something else ('{word}')"))
}

/// Whether a name has a word for transposed convolutions. `up_conv` has none: it is mostly an upsampling
/// followed by an ordinary convolution.
fn says_transposed(name: &str) -> bool {
    let words: Vec<String> = words(name).collect();
    let single = |word: &String| {
        word.contains("transpose")
            || word.contains("deconv")
            || word.starts_with("convtran")
            || matches!(word.as_str(), "convt" | "tconv" | "upconv" | "upconvs" | "transconv" | "transconvs")
    };
    let pair = |pair: &[String]| matches!([pair[0].as_str(), pair[1].as_str()], ["trans", "conv"] | ["conv", "trans"]);
    words.iter().any(single) || words.windows(2).any(pair)
}

/// The words of a name in lower case: letters between punctuation and digits.
fn words(name: &str) -> impl Iterator<Item = String> {
    name.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::super::tensor::Element;
    use super::*;

    fn tensor(name: &str, shape: &[usize], place: usize) -> Named<usize> {
        let dtype = Dtype::Readable(Element::F32);
        Named { name: name.to_owned(), dtype, shape: shape.to_vec(), owner: Owner::Unknown, place }
    }

    fn read(tensors: &[Named<usize>]) -> Model {
        let file = ModelFile::from_bytes("m", Vec::new());
        convolutions(&file, tensors, |tensor| Ok(vec![tensor.place as f32; tensor.shape.iter().product()])).unwrap()
    }

    #[test]
    fn kernels_of_every_size_count_and_only_3x3_have_weights() {
        let model = read(&[
            tensor("module.a.weight", &[4, 3, 7, 7], 0),
            tensor("module.a.bias", &[4], 1),
            tensor("module.fc.weight", &[4, 3], 2),
            tensor("module.b.weight", &[2, 4, 3, 3], 3),
        ]);
        let found: Vec<_> =
            model.convolutions.iter().map(|c| (c.name.as_str(), c.depth, c.weights.is_some(), c.in_channels)).collect();
        assert_eq!(found, [("a.weight", 0, false, 3), ("b.weight", 1, true, 4)]);
        assert_eq!(model.convolutions[1].weights.as_ref().map(|w| w[[1, 3, 2, 2]]), Some(3.0));
    }

    #[test]
    fn the_prefix_stays_unless_every_name_has_it() {
        let model = read(&[tensor("module.a.weight", &[1, 1, 3, 3], 0), tensor("b.weight", &[1, 1, 3, 3], 1)]);
        assert_eq!(model.convolutions[0].name, "module.a.weight");
    }

    #[test]
    fn transposed_convolutions_are_named_and_left_out() {
        let model = read(&[
            tensor("up.weight", &[8, 4, 3, 3], 0),
            tensor("up.bias", &[4], 1),
            tensor("deconv1.weight", &[8, 8, 3, 3], 2),
            tensor("decoder.conv_transpose.weight", &[8, 8, 3, 3], 3),
            tensor("ConvTranspose2d_0.weight", &[8, 8, 3, 3], 4),
            tensor("upconv4.weight", &[8, 8, 3, 3], 5),
            // The bias proves these two to be ordinary ones, whatever their names.
            tensor("upconv5.weight", &[4, 8, 3, 3], 6),
            tensor("upconv5.bias", &[4], 7),
            tensor("up_conv.weight", &[8, 8, 3, 3], 8),
            tensor("grouped_up.weight", &[8, 2, 3, 3], 9),
            tensor("grouped_up.bias", &[4], 10),
        ]);
        let taken: Vec<_> = model.convolutions.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(taken, ["upconv5.weight", "up_conv.weight"]);
        assert_eq!(model.skipped.len(), 6);
        assert!(model.skipped[0].reason.contains("bias of 4"), "{:?}", model.skipped[0]);
    }

    #[test]
    fn shared_weights_are_one_with_a_count() {
        let model = read(&[
            tensor("a.weight", &[1, 1, 3, 3], 7),
            tensor("b.weight", &[1, 1, 3, 3], 8),
            tensor("tied.weight", &[1, 1, 3, 3], 7),
        ]);
        let found: Vec<_> = model.convolutions.iter().map(|c| (c.name.as_str(), c.uses)).collect();
        assert_eq!(found, [("a.weight", 2), ("b.weight", 1)]);
    }

    #[test]
    fn what_is_named_as_something_else_is_passed_over() {
        let model = read(&[
            tensor("pos_embed", &[1, 8, 14, 14], 0),
            tensor("c.weight_v", &[8, 8, 3, 3], 1),
            tensor("c.parametrizations.weight.original1", &[8, 8, 3, 3], 2),
            tensor("kernel", &[8, 8, 3, 3], 3),
        ]);
        assert_eq!(model.skipped.len(), 3);
        assert_eq!(model.convolutions[0].name, "kernel");
    }

    #[test]
    fn unreadable_types_and_empty_shapes() {
        let file = ModelFile::from_bytes("m", Vec::new());
        let mut fp8 = tensor("a.weight", &[1, 1, 3, 3], 0);
        fp8.dtype = Dtype::UnreadableFloat("F8_E4M3".to_owned());
        let error = convolutions(&file, &[fp8], |_| Ok(vec![])).unwrap_err().to_string();
        assert!(error.contains("a.weight") && error.contains("F8_E4M3"), "{error}");
        let empty = tensor("a.weight", &[0, 1, 3, 3], 0);
        assert!(convolutions(&file, &[empty], |_| Ok(vec![])).unwrap_err().to_string().contains("a.weight"));
        let mut ints = tensor("a.weight", &[1, 1, 3, 3], 0);
        ints.dtype = Dtype::Other("I64".to_owned());
        assert_eq!(convolutions(&file, &[ints], |_| Ok(vec![])).unwrap().skipped.len(), 1);
    }
}
