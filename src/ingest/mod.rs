//! Model files in, convolution layers out.
//!
//! A format is one file with a [`ModelReader`] and one line in [`FORMATS`]. A reader gets the whole
//! file as bytes, never executes anything in it, checks every size against the bytes that are there
//! before it allocates, and returns the model's 2-D convolutions; [`extract`] runs readers in parallel.

mod extract;
mod file;
mod graph;
mod keras;
mod metadata;
mod onnx;
mod pytorch;
mod safetensors;
mod state_dict;
mod tensor;
mod walk;
mod zip_archive;

use ndarray::Array4;

use crate::error::Result;

pub use extract::{Extracted, Options, extract, extract_one, names, read, sniff};
pub use file::ModelFile;
pub use metadata::Metadata;
pub use walk::walk;

/// Every format, in the order in which contents are probed: the most specific signature first.
pub static FORMATS: &[&dyn ModelReader] = &[&keras::Keras, &pytorch::PyTorch, &safetensors::Safetensors, &onnx::Onnx];

/// A model file format.
pub trait ModelReader: Sync {
    /// The name in `models.format`, e.g. `"onnx"`.
    fn name(&self) -> &'static str;

    /// Usual file name endings, lower case, without the dot. Only for walking a folder (which files
    /// to look at) and for messages; contents decide which reader is used.
    fn extensions(&self) -> &'static [&'static str];

    /// Whether these contents are of this format. Cheap: looks at signatures, not at the whole file.
    fn sniff(&self, bytes: &[u8]) -> bool;

    /// The model's 2-D convolutions.
    ///
    /// # Errors
    /// [`Error::Model`](crate::error::Error::Model) names file, tensor or layer, and what was expected and found.
    fn read(&self, file: &ModelFile) -> Result<Model>;
}

/// What a reader found in a file.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// What wrote the file, as far as it says (`"pytorch 1.13.1"`, `"tf2onnx 1.9.3"`).
    pub producer: Option<String>,
    /// Every 2-D convolution whose weight was found, whatever its kernel, in the file's own order.
    pub convolutions: Vec<Convolution>,
    /// What looked like a 2-D convolution and is not taken, with the reason.
    pub skipped: Vec<Skipped>,
}

/// One 2-D convolution: a weight of (out, in / groups, kh, kw).
#[derive(Debug, Clone)]
pub struct Convolution {
    /// The weight's (or layer's) name in the file.
    pub name: String,
    /// Output channels.
    pub out_channels: usize,
    /// Input channels of the layer, all groups together; where the file does not tell `groups`, those
    /// of the weight (its second dimension).
    pub in_channels: usize,
    /// Groups, where the file tells.
    pub groups: Option<usize>,
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Depth in the file's own measure: the node's depth in the graph (longest path from a graph input), or the
    /// position in the file. Ranked over the whole model by `graph.rs`.
    pub depth: usize,
    /// Where `depth` comes from.
    pub depth_source: DepthSource,
    /// How many nodes use this weight; it is stored once, at its shallowest use.
    pub uses: usize,
    /// Weights (out, in / groups, 3, 3), cross-correlation orientation; `None` unless the kernel is 3x3.
    pub weights: Option<Array4<f32>>,
}

/// Where a layer's depth comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DepthSource {
    /// The computation graph.
    Graph,
    /// The order of the file.
    Order,
}

impl DepthSource {
    /// The value in `layers.depth_source`.
    pub fn as_str(self) -> &'static str {
        match self {
            DepthSource::Graph => "graph",
            DepthSource::Order => "order",
        }
    }
}

/// A layer, or a whole model, that was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Name of the layer or tensor in the file.
    pub name: String,
    /// Why.
    pub reason: String,
}
