//! Keras weights in HDF5: whole models and weights of Keras 2 (`.h5`, `.hdf5`) and of Keras 3
//! (`.weights.h5`), and the Keras 3 archive (`.keras`), a zip of a configuration and a `.weights.h5`.
//!
//! Kernels are (h, w, in, out) and come out as (out, in, h, w). Depth is the order of the layers: that of
//! `layer_names`, that of the configuration, or, where a file has neither, that of the groups' names.

mod archive;
mod config;
mod hdf5;
mod kernel;
mod layout;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::Bytes;

use super::{Model, ModelFile, ModelReader, Skipped};
use crate::error::{Result, printable};
use config::Layer;
use hdf5::Budget;
use kernel::Kind;
use layout::Array;

/// The reader of files that Keras wrote.
#[derive(Debug)]
pub struct Keras;

impl ModelReader for Keras {
    fn name(&self) -> &'static str {
        "keras"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["h5", "hdf5", "keras"]
    }

    fn sniff(&self, bytes: &[u8]) -> bool {
        // A user block in front has 512 bytes or a power of two times as many.
        let blocks = std::iter::successors(Some(512usize), |at| at.checked_mul(2)).take_while(|&at| at < bytes.len());
        let at_signature = |at: usize| bytes.get(at..).is_some_and(|rest| rest.starts_with(hdf5::SIGNATURE));
        std::iter::once(0).chain(blocks).any(at_signature) || archive::is_keras(bytes)
    }

    fn read(&self, file: &ModelFile) -> Result<Model> {
        if archive::is_keras(file.bytes()) {
            let parts = archive::open(file)?;
            let configuration = config::parse(&parts.config).map_err(|e| file.invalid("config.json", e))?;
            return model(file, parts.weights, Some(configuration), parts.version);
        }
        model(file, file.bytes().clone(), None, None)
    }
}

/// The model in the HDF5 file `bytes`.
fn model(file: &ModelFile, bytes: Bytes, configuration: Option<Layer>, version: Option<String>) -> Result<Model> {
    let (root, mut budget) = hdf5::open(file, bytes)?;
    let (groups, _) = hdf5::members(file, &root)?;
    // A whole model of Keras 2 keeps its weights in a group of their own, weights alone stand at the root.
    let weights = match groups.iter().any(|name| name == "model_weights") {
        true => hdf5::group(file, &root, "model_weights")?,
        false => root.clone(),
    };
    let mut version = version;
    for group in [&root, &weights] {
        version = version.map_or_else(|| hdf5::text(file, group, "keras_version"), |version| Ok(Some(version)))?;
    }
    let configuration = match configuration {
        Some(configuration) => Some(configuration),
        None => hdf5::text(file, &root, "model_config")?
            .map(|text| config::parse(&text).map_err(|e| file.invalid("model_config", e)))
            .transpose()?,
    };
    let arrays = match hdf5::texts(file, &weights, "layer_names")? {
        Some(names) => layout::listed(file, &weights, &names, configuration.as_ref())?,
        None => layout::numbered(file, &weights, configuration.as_ref())?
            .ok_or_else(|| file.invalid("", "an HDF5 file without Keras layers: neither layer_names nor vars"))?,
    };
    let mut model = convolutions(file, arrays, &mut budget)?;
    model.producer = Some(match version {
        Some(version) => format!("keras {}", printable(&version)),
        None => "keras".to_owned(),
    });
    Ok(model)
}

fn convolutions(file: &ModelFile, arrays: Vec<Array>, budget: &mut Budget) -> Result<Model> {
    let mut model = Model::default();
    let mut known: HashMap<u64, usize> = HashMap::new();
    for Array { name, dataset, kind, certain, uses } in arrays {
        let shape = hdf5::shape(file, &name, &dataset)?;
        let &[height, width, input, last] = &shape[..] else {
            if certain && !matches!(kind, Kind::Other(_)) {
                return Err(file.invalid(name, format!("expected a kernel of 4 dimensions, found shape {shape:?}")));
            }
            continue;
        };
        let (depthwise, groups) = match kind {
            Kind::Convolution { groups } => (false, groups),
            Kind::Depthwise => (true, None),
            Kind::Other(reason) => {
                model.skipped.push(Skipped { name, reason: reason.to_owned() });
                continue;
            }
        };
        let Some(float) = hdf5::float(file, &name, &dataset)? else {
            let expected = "expected floating-point weights";
            return Err(
                file.invalid(name, format!("{expected}, found {}", printable(&format!("{:?}", dataset.dtype()))))
            );
        };
        if shape.contains(&0) {
            return Err(file.invalid(name, format!("a kernel of shape {shape:?} has no values")));
        }
        let place = match known.entry(dataset.address()) {
            Entry::Occupied(first) => {
                model.convolutions[*first.get()].uses += uses;
                continue;
            }
            Entry::Vacant(place) => place,
        };
        let shape = [height, width, input, last];
        let mut convolution = kernel::convolution(name, shape, depthwise, groups);
        if convolution.kernel == [3, 3] {
            let values = hdf5::values(file, &convolution.name, &dataset, float, budget)?;
            let weights = kernel::weights(&values, shape, depthwise);
            convolution.weights = Some(weights.map_err(|e| file.invalid(&convolution.name, e))?);
        }
        convolution.depth = model.convolutions.len();
        convolution.uses = uses;
        place.insert(convolution.depth);
        model.convolutions.push(convolution);
    }
    Ok(model)
}

#[cfg(test)]
mod tests;
