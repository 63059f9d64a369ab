//! Rows of `models` and `layers` for the models of an ingest.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use chrono::Utc;

use super::encode::Encoded;
use super::snapshot::EXTRACTOR;
use crate::convert::ArrowValue;
use crate::math::Moments;
use crate::record::LayerRecord;
use crate::schema;

/// One row per model, in the columns that `models` has by now.
pub(super) fn models_batch(rows: &[Encoded], columns: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let now = Utc::now().timestamp_micros();
    let text = |of: fn(&Encoded) -> &str| Arc::new(StringArray::from_iter_values(rows.iter().map(of))) as ArrayRef;
    let int = |of: fn(&Encoded) -> usize| {
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| of(row) as i32))) as ArrayRef
    };
    let long = |of: fn(&Encoded) -> i64| Arc::new(Int64Array::from_iter_values(rows.iter().map(of))) as ArrayRef;
    let arrays = columns.fields().iter().map(|field| match field.name().as_str() {
        schema::DATA_ID => text(|row| &row.data_id),
        "model" => text(|row| &row.record.model),
        "task" => text(|row| &row.record.task),
        "data_type" => text(|row| &row.record.data_type),
        "file" => text(|row| &row.record.file),
        "sha256" => text(|row| &row.record.sha256),
        "format" => text(|row| row.record.format),
        "producer" => Arc::new(rows.iter().map(|row| row.record.producer.as_deref()).collect::<StringArray>()),
        "n_convolutions" => int(|row| row.record.n_convolutions),
        "n_layers" => int(|row| row.record.layers.len()),
        "n_filters" => long(|row| row.rows as i64),
        "n_nonfinite" => long(|row| row.record.n_nonfinite() as i64),
        "extractor" => text(|_| EXTRACTOR),
        "ingested_at" => Arc::new(TimestampMicrosecondArray::from_value(now, rows.len()).with_timezone("UTC")),
        name => Arc::new(rows.iter().map(|row| metadata(row, name)).collect::<StringArray>()),
    });
    RecordBatch::try_new(Arc::clone(columns), arrays.collect())
}

fn metadata<'a>(row: &'a Encoded, name: &str) -> Option<&'a str> {
    let cell = row.record.metadata.iter().find(|(column, _)| column.eq_ignore_ascii_case(name));
    cell.map(|(_, value)| value.as_str())
}

/// A layer with its model.
#[derive(Clone, Copy)]
struct Row<'a> {
    model: &'a Encoded,
    layer: &'a LayerRecord,
    filters: usize,
}

/// One row per layer.
pub(super) fn layers_batch(models: &[Encoded]) -> Result<RecordBatch, ArrowError> {
    let rows: Vec<Row<'_>> = models
        .iter()
        .flat_map(|model| {
            let layers = model.record.layers.iter().zip(&model.layer_rows);
            layers.map(move |(layer, &filters)| Row { model, layer, filters })
        })
        .collect();
    let text =
        |of: for<'r> fn(&Row<'r>) -> &'r str| Arc::new(StringArray::from_iter_values(rows.iter().map(of))) as ArrayRef;
    let int = |of: fn(&LayerRecord) -> Option<usize>| {
        Arc::new(rows.iter().map(|row| of(row.layer).map(|n| n as i32)).collect::<Int32Array>()) as ArrayRef
    };
    // A layer without a finite filter has no quality: NULL rather than NaN.
    let double = |of: fn(&LayerRecord) -> Option<f64>| {
        Arc::new(rows.iter().map(|row| of(row.layer).filter(|x| !x.is_nan())).collect::<Float64Array>()) as ArrayRef
    };
    let moments = |of: fn(&LayerRecord) -> &Moments| {
        let values: Vec<Option<Moments>> = rows.iter().map(|row| Some(of(row.layer).clone())).collect();
        Moments::encode(&values).map_err(|e| ArrowError::ExternalError(Box::new(e)))
    };
    let arrays: Vec<ArrayRef> = vec![
        text(|row| &row.model.data_id),
        text(|row| &row.model.record.model),
        text(|row| &row.model.record.task),
        text(|row| &row.model.record.data_type),
        int(|layer| Some(layer.layer)),
        int(|layer| Some(layer.conv_depth)),
        double(|layer| Some(layer.conv_depth_norm)),
        int(|layer| Some(layer.depth_decile.into())),
        text(|row| &row.layer.name),
        int(|layer| Some(layer.out_channels)),
        int(|layer| Some(layer.in_channels)),
        int(|layer| layer.groups),
        text(|row| row.layer.depth_source),
        int(|layer| Some(layer.uses)),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.filters as i64))),
        double(|layer| Some(layer.quality.sparsity)),
        double(|layer| Some(layer.quality.variance_entropy)),
        double(|layer| layer.quality.variance_entropy_norm),
        double(|layer| layer.quality.orthogonality),
        double(|layer| Some(layer.quality.scale_mean)),
        double(|layer| Some(layer.quality.l1)),
        double(|layer| Some(layer.quality.l2)),
        moments(|layer| &layer.moments)?,
        moments(|layer| &layer.moments_scaled)?,
    ];
    RecordBatch::try_new(schema::layers(), arrays)
}
