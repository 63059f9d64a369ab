//! ONNX: the convolutions of a computation graph.
//!
//! `wire` looks at the file before prost decodes it into the messages of `proto`; `flat` makes one graph of
//! it, functions expanded; `layers` finds the convolutions and `weights` the constants behind them, which
//! `tensor` reads and `steps` converts.

mod flat;
mod layers;
mod proto;
mod steps;
mod tensor;
#[cfg(test)]
mod tests;
mod weights;
mod wire;

use prost::Message;

use self::flat::Flat;
use self::proto::ModelProto;
use self::tensor::Tensors;
use super::{Model, ModelFile, ModelReader};
use crate::error::Result;

/// ONNX models, of any opset.
pub struct Onnx;

impl ModelReader for Onnx {
    fn name(&self) -> &'static str {
        "onnx"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["onnx"]
    }

    fn sniff(&self, bytes: &[u8]) -> bool {
        wire::is_model(bytes)
    }

    fn read(&self, file: &ModelFile) -> Result<Model> {
        wire::check(file.bytes()).map_err(|reason| file.invalid("", reason))?;
        // Decoding from shared bytes makes the tensors slices of them.
        let model = ModelProto::decode(file.bytes().clone()).map_err(|e| file.invalid("", e.to_string()))?;
        if model.graph.is_none() {
            return Err(file.invalid("", "expected a graph, found none"));
        }
        let tensors = Tensors::new(file);
        let flat = Flat::new(file, &model, &tensors)?;
        let depths = flat.depths(file)?;
        let (convolutions, skipped) = layers::layers(file, &flat, &tensors, &depths)?;
        Ok(Model { producer: producer(&model), convolutions, skipped })
    }
}

/// `"pytorch 2.3.1"`, as far as the file says.
fn producer(model: &ModelProto) -> Option<String> {
    let producer = format!("{} {}", model.producer_name.trim(), model.producer_version.trim());
    Some(producer.trim().to_owned()).filter(|producer| !producer.is_empty())
}
