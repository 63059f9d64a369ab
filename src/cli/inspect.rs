//! `filterdb inspect`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::table::table;
use super::{count, on_terminal, stdout_error, thousands};
use crate::error::{Error, Result, printable};
use crate::ingest::{self, Extracted, Options};
use crate::record::{LayerRecord, ModelRecord};

/// Look into one model file: layers, depth, filters, quality. Nothing is written.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The model file
    file: PathBuf,
    /// table or json (one object); by default a table on a terminal and JSON in a pipe
    #[arg(long, value_enum)]
    format: Option<Format>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

pub(super) fn run(arguments: Arguments) -> Result<()> {
    let extracted = tokio::task::block_in_place(|| ingest::extract_one(&arguments.file, &Options::default()))?;
    let default = if on_terminal() { Format::Table } else { Format::Json };
    let text = match arguments.format.unwrap_or(default) {
        Format::Table => as_table(&extracted),
        Format::Json => as_json(&extracted)?,
    };
    writeln!(std::io::stdout(), "{text}").map_err(stdout_error)
}

fn as_table(extracted: &Extracted) -> String {
    let mut lines = vec![printable(&extracted.file.to_string_lossy())];
    match &extracted.record {
        Some(record) => {
            lines.push(headline(record));
            lines.push(String::new());
            lines.push(table(
                &[
                    "layer",
                    "depth",
                    "decile",
                    "name",
                    "shape",
                    "filters",
                    "sparsity",
                    "entropy",
                    "H/T_H",
                    "orthogonality",
                ],
                &[0, 1, 2, 4, 5, 6, 7, 8, 9],
                record.layers.iter().map(row),
            ));
        }
        None => lines.push(format!("{}, no 3x3 convolution", extracted.format)),
    }
    for skipped in &extracted.skipped {
        lines.push(format!("skipped {}: {}", printable(&skipped.name), printable(&skipped.reason)));
    }
    lines.join("\n")
}

fn headline(record: &ModelRecord) -> String {
    // "pytorch (archive version 3)" says the format already.
    let format = match record.producer.as_deref() {
        Some(producer) if producer.starts_with(record.format) => producer.to_owned(),
        Some(producer) => format!("{} ({producer})", record.format),
        None => record.format.to_owned(),
    };
    let mut text = format!(
        "{format}, {}, {} of 3x3, {}",
        count(record.n_convolutions as u64, "2-D convolution"),
        thousands(record.layers.len() as u64),
        count(record.n_filters() as u64, "filter")
    );
    if record.n_nonfinite() > 0 {
        text.push_str(&format!(", {} with NaN or infinity", thousands(record.n_nonfinite())));
    }
    if record.layers.iter().any(|layer| layer.depth_source == "order") {
        text.push_str("; the file has no graph: depth is the order of its layers");
    }
    text
}

fn row(layer: &LayerRecord) -> Vec<String> {
    let (out, within, height, width) = layer.weights.dim();
    let groups = layer.groups.filter(|groups| *groups > 1).map(|groups| format!(" /{groups}")).unwrap_or_default();
    let number = |x: Option<f64>| x.filter(|x| x.is_finite()).map_or_else(|| "-".to_owned(), |x| format!("{x:.4}"));
    let quality = &layer.quality;
    vec![
        layer.layer.to_string(),
        layer.conv_depth.to_string(),
        layer.depth_decile.to_string(),
        layer.name.clone(),
        format!("{out}x{within}x{height}x{width}{groups}"),
        thousands(layer.n_filters() as u64),
        number(Some(quality.sparsity)),
        number(Some(quality.variance_entropy)),
        number(quality.variance_entropy_norm),
        number(quality.orthogonality),
    ]
}

fn as_json(extracted: &Extracted) -> Result<String> {
    let layers: Vec<serde_json::Value> =
        extracted.record.iter().flat_map(|record| &record.layers).map(layer_json).collect();
    let skipped: Vec<serde_json::Value> = extracted
        .skipped
        .iter()
        .map(|skipped| serde_json::json!({ "name": skipped.name, "reason": skipped.reason }))
        .collect();
    let record = extracted.record.as_ref();
    let value = serde_json::json!({
        "file": extracted.file.to_string_lossy(),
        "model": extracted.model,
        "format": extracted.format,
        "producer": record.and_then(|record| record.producer.as_ref()),
        "sha256": record.map(|record| &record.sha256),
        "n_convolutions": record.map(|record| record.n_convolutions),
        "n_layers": layers.len(),
        "n_filters": record.map_or(0, ModelRecord::n_filters),
        "n_nonfinite": record.map_or(0, ModelRecord::n_nonfinite),
        "layers": layers,
        "skipped": skipped,
    });
    serde_json::to_string_pretty(&value).map_err(|e| Error::model(&extracted.file, "", e.to_string()))
}

fn layer_json(layer: &LayerRecord) -> serde_json::Value {
    let quality = &layer.quality;
    serde_json::json!({
        "layer": layer.layer,
        "name": layer.name,
        "conv_depth": layer.conv_depth,
        "conv_depth_norm": layer.conv_depth_norm,
        "depth_decile": layer.depth_decile,
        "depth_source": layer.depth_source,
        "out_channels": layer.out_channels,
        "in_channels": layer.in_channels,
        "groups": layer.groups,
        "uses": layer.uses,
        "n_filters": layer.n_filters(),
        "sparsity": quality.sparsity,
        "variance_entropy": quality.variance_entropy,
        "variance_entropy_norm": quality.variance_entropy_norm,
        "orthogonality": quality.orthogonality,
        "scale_mean": quality.scale_mean,
        "l1": quality.l1,
        "l2": quality.l2,
    })
}
