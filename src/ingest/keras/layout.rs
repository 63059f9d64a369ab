//! Where the layers' arrays are: Keras 2 lists them in attributes, Keras 3 numbers them in groups `vars`.

use std::collections::{HashMap, HashSet};

use hdf5_reader::Dataset;
use hdf5_reader::group::Group;

use super::super::ModelFile;
use super::config::{self, Layer};
use super::hdf5;
use super::kernel::{Kind, by_class, by_name};
use crate::error::Result;

/// Deepest nesting of groups. A nested model takes three.
const DEEPEST: usize = 64;

/// An array of a layer.
pub(super) struct Array {
    /// Path in the file without the parts that all have.
    pub(super) name: String,
    pub(super) dataset: Dataset,
    pub(super) kind: Kind,
    /// Whether the layer's class says that there must be a kernel here.
    pub(super) certain: bool,
    pub(super) uses: usize,
}

/// The arrays of a file whose group `weights` has the attribute `layer_names`: those of each layer in turn.
///
/// # Errors
/// Attributes that are no lists of names, or name what is not there.
pub(super) fn listed(file: &ModelFile, weights: &Group, names: &[String], model: Option<&Layer>) -> Result<Vec<Array>> {
    let known = model.map(config::by_name).unwrap_or_default();
    let mut arrays = Vec::new();
    for layer in names {
        let group = hdf5::group(file, weights, layer)?;
        let paths = hdf5::texts(file, &group, "weight_names")?
            .ok_or_else(|| file.invalid(layer, "a layer without the attribute weight_names"))?;
        for path in paths {
            // TensorFlow 1 numbers a variable's outputs: `kernel:0`.
            let plain = path.rsplit_once(':').map_or(path.as_str(), |(plain, _)| plain);
            let (folder, leaf) = plain.rsplit_once('/').unwrap_or(("", plain));
            if !matches!(leaf, "kernel" | "depthwise_kernel" | "pointwise_kernel" | "recurrent_kernel") {
                continue;
            }
            let dataset = hdf5::dataset(file, &group, &path)?;
            let found = class_of(&known, layer, folder);
            let by_config = found.and_then(|found| by_class(&found.class, leaf, found.groups));
            let name = if folder.is_empty() { layer.clone() } else { inner_name(layer, folder) };
            arrays.push(Array {
                kind: by_config.unwrap_or_else(|| by_name(&format!("{layer}/{folder}"), leaf)),
                certain: by_config.is_some(),
                uses: found.map_or(1, |found| found.uses),
                name: format!("{name}/{leaf}"),
                dataset,
            });
        }
    }
    Ok(arrays)
}

/// The layer's name, and what `folder` adds to it (a nested model's layers). Keras repeats the layer's own
/// name there, at times with a number.
fn inner_name(layer: &str, folder: &str) -> String {
    let repeated = |part: &str| {
        part.strip_prefix(layer).is_some_and(|rest| {
            rest.is_empty() || rest.strip_prefix('_').is_some_and(|n| n.bytes().all(|byte| byte.is_ascii_digit()))
        })
    };
    let inner: Vec<&str> = folder.split('/').filter(|part| !repeated(part)).collect();
    if inner.is_empty() { layer.to_owned() } else { format!("{layer}/{}", inner.join("/")) }
}

/// The layer's configuration: its own, or that of a nested model's layer in the array's path.
fn class_of<'c>(known: &HashMap<&str, &'c Layer>, layer: &str, folder: &str) -> Option<&'c Layer> {
    let outer = known.get(layer).copied();
    match outer {
        Some(outer) if outer.layers.is_empty() => Some(outer),
        _ => folder.split('/').rev().find_map(|part| known.get(part).copied()).or(outer),
    }
}

/// The arrays in groups `vars`, found by walking the groups in their order.
///
/// # Errors
/// Groups that cannot be read, hold themselves, or are nested too deeply.
pub(super) fn numbered(file: &ModelFile, root: &Group, model: Option<&Layer>) -> Result<Option<Vec<Array>>> {
    let known = model.map(config::by_name).unwrap_or_default();
    let mut walk = Walk { file, known, seen: HashSet::new(), active: Vec::new(), arrays: Vec::new(), layers: 0 };
    walk.visit(root, "", model)?;
    Ok((walk.layers > 0).then_some(walk.arrays))
}

struct Walk<'f, 'c> {
    file: &'f ModelFile,
    known: HashMap<&'c str, &'c Layer>,
    seen: HashSet<u64>,
    active: Vec<u64>,
    arrays: Vec<Array>,
    layers: usize,
}

impl<'c> Walk<'_, 'c> {
    fn visit(&mut self, group: &Group, path: &str, config: Option<&'c Layer>) -> Result<()> {
        if self.active.contains(&group.address()) {
            return Err(self.file.invalid(path, "a group that holds itself"));
        }
        if self.active.len() >= DEEPEST {
            return Err(self.file.invalid(path, format!("groups nested deeper than {DEEPEST}")));
        }
        // A second hard link to a group: its arrays are there already.
        if !self.seen.insert(group.address()) {
            return Ok(());
        }
        self.active.push(group.address());
        let (mut names, _) = hdf5::members(self.file, group)?;
        let holds_layers = path.rsplit('/').next() == Some("layers");
        let saved = config.filter(|_| holds_layers).map(|config| by_saved_name(&config.layers)).unwrap_or_default();
        names.sort_by_key(|name| saved.get(name).map_or(usize::MAX, |(position, _)| *position));
        for name in names {
            // The optimizer's variables have the shapes of the weights.
            if path.is_empty() && matches!(name.as_str(), "optimizer" | "optimizer_weights") {
                continue;
            }
            let child = hdf5::group(self.file, group, &name)?;
            if name == "vars" {
                self.layer(&child, path, config)?;
                continue;
            }
            let inner = if holds_layers { saved.get(&name).map(|(_, layer)| *layer) } else { config };
            let inner_path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            self.visit(&child, &inner_path, inner)?;
        }
        self.active.pop();
        Ok(())
    }

    /// The arrays of the layer whose variables are in `vars`.
    fn layer(&mut self, vars: &Group, path: &str, config: Option<&'c Layer>) -> Result<()> {
        self.layers += 1;
        let own_name = hdf5::text(self.file, vars, "name")?.unwrap_or_default();
        let config = self.known.get(own_name.as_str()).copied().or(config);
        let (_, variables) = hdf5::members(self.file, vars)?;
        for variable in variables {
            let at = format!("{path}/vars/{variable}");
            let dataset = vars.dataset(&variable).map_err(|e| self.file.invalid(&at, format!("HDF5: {e}")))?;
            if dataset.ndim() != 4 {
                continue;
            }
            let by_config = config.and_then(|config| by_class(&config.class, &variable, config.groups));
            // The group is named after the class, the layer by its author.
            let saved = path.rsplit('/').next().unwrap_or(path);
            let kind = by_config.unwrap_or_else(|| by_name(&format!("{saved} {own_name}"), &variable));
            let name = readable(path, &own_name);
            let uses = config.map_or(1, |config| config.uses);
            self.arrays.push(Array { name: format!("{name}/vars/{variable}"), dataset, kind, certain: false, uses });
        }
        Ok(())
    }
}

/// A layer's path without the groups `layers`.
fn readable(path: &str, own_name: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| *part != "layers" && !part.is_empty()).collect();
    if parts.is_empty() { own_name.to_owned() } else { parts.join("/") }
}

/// The names of the groups under which Keras 3 saves `layers`: the class in snake case, numbered from the
/// second on.
fn by_saved_name(layers: &[Layer]) -> HashMap<String, (usize, &Layer)> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut names = HashMap::new();
    for (position, layer) in layers.iter().enumerate() {
        let base = snake_case(&layer.class);
        let count = counts.entry(base.clone()).or_default();
        let name = if *count == 0 { base } else { format!("{base}_{count}") };
        *count += 1;
        names.insert(name, (position, layer));
    }
    names
}

/// `DepthwiseConv2D` becomes `depthwise_conv2d`, `Conv2DTranspose` becomes `conv2d_transpose`.
fn snake_case(class: &str) -> String {
    let mut out = String::with_capacity(class.len() + 4);
    let characters: Vec<char> = class.chars().filter(|c| c.is_alphanumeric() || *c == '_').collect();
    for (i, &c) in characters.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|i| characters.get(i));
        let next_is_lower = characters.get(i + 1).is_some_and(|next| next.is_lowercase());
        let starts_word = before.is_some_and(|before| *before != '_')
            && c.is_uppercase()
            && (next_is_lower || before.is_some_and(|before| before.is_lowercase()));
        if starts_word {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_in_snake_case() {
        for (class, expected) in [
            ("Conv2D", "conv2d"),
            ("DepthwiseConv2D", "depthwise_conv2d"),
            ("Conv2DTranspose", "conv2d_transpose"),
            ("SeparableConv2D", "separable_conv2d"),
            ("InputLayer", "input_layer"),
            ("Dense", "dense"),
        ] {
            assert_eq!(snake_case(class), expected);
        }
    }

    #[test]
    fn names_of_nested_layers() {
        assert_eq!(inner_name("conv2d_1", "conv2d_1_1"), "conv2d_1");
        assert_eq!(inner_name("vgg", "vgg/block1_conv1"), "vgg/block1_conv1");
        assert_eq!(inner_name("model", "conv1"), "model/conv1");
    }
}
