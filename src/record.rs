//! A model as the data set holds it: what extraction hands to the writer.

use ndarray::Array4;

use crate::math::{Moments, Quality};

/// A model with its keys, its metadata and its 3x3 layers.
#[derive(Debug, Clone)]
pub struct ModelRecord {
    /// Name of the model; unique in a data set.
    pub model: String,
    /// The task, or [`crate::schema::UNKNOWN`].
    pub task: String,
    /// The type of training data, or [`crate::schema::UNKNOWN`].
    pub data_type: String,
    /// Free metadata: column and text; empty cells are left out.
    pub metadata: Vec<(String, String)>,
    /// The source file, as it was given.
    pub file: String,
    /// SHA-256 of the source (external data included), lower-case hex.
    pub sha256: String,
    /// Name of the file format.
    pub format: &'static str,
    /// What wrote the file.
    pub producer: Option<String>,
    /// All 2-D convolutions of the model, whatever their kernel.
    pub n_convolutions: usize,
    /// The 3x3 layers, by depth.
    pub layers: Vec<LayerRecord>,
}

/// A 3x3 layer.
#[derive(Debug, Clone)]
pub struct LayerRecord {
    /// Name in the file.
    pub name: String,
    /// Index within the model's 3x3 layers, by depth.
    pub layer: usize,
    /// Rank of the layer's depth among the model's 2-D convolutions.
    pub conv_depth: usize,
    /// `conv_depth` over the largest of the model; 0 where there is one rank.
    pub conv_depth_norm: f64,
    /// 0 to 9, right-closed.
    pub depth_decile: u8,
    /// `"graph"` or `"order"`.
    pub depth_source: &'static str,
    /// Output channels.
    pub out_channels: usize,
    /// Input channels, of all groups where these are known.
    pub in_channels: usize,
    /// Groups, where the file tells.
    pub groups: Option<usize>,
    /// Nodes that use the weight.
    pub uses: usize,
    /// (out, in / groups, 3, 3), contiguous.
    pub weights: Array4<f32>,
    /// Quality of the raw weights.
    pub quality: Quality,
    /// Moments of the raw filters.
    pub moments: Moments,
    /// Moments of the scaled filters.
    pub moments_scaled: Moments,
}

impl LayerRecord {
    /// out x in / groups.
    pub fn n_filters(&self) -> usize {
        self.weights.dim().0 * self.weights.dim().1
    }
}

impl ModelRecord {
    /// Filters of all layers.
    pub fn n_filters(&self) -> usize {
        self.layers.iter().map(LayerRecord::n_filters).sum()
    }

    /// Filters with a NaN or infinite weight.
    pub fn n_nonfinite(&self) -> u64 {
        self.layers.iter().map(|layer| layer.moments.n_skipped()).sum()
    }
}
