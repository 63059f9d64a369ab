//! Records to Parquet: nine plain Float32 columns a filter, one row group per layer.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Float64Array, Int32Array, RecordBatch};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::errors::ParquetError;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use uuid::Uuid;

use crate::error::{Error, Result, printable};
use crate::record::{LayerRecord, ModelRecord};
use crate::schema::{self, FILTER_LEN, PARTITION_KEYS, WEIGHT_COLUMNS};

/// The most rows of a row group; a larger layer is cut.
const MAX_ROWS: usize = 1 << 20;

/// The longest name of a folder that file systems take.
const MAX_NAME: usize = 255;

/// A model ready to be stored: its Parquet file, and what the other tables say of it.
#[derive(Debug)]
pub struct Encoded {
    /// The model and its layers; the weights are in `bytes` and no longer here.
    pub record: ModelRecord,
    pub(super) data_id: String,
    /// Place in the table `filters`.
    pub(super) path: String,
    pub(super) bytes: Bytes,
    /// Bytes of the file.
    pub(super) size: usize,
    /// Rows, counted before the weights were dropped.
    pub(super) rows: usize,
    /// Delta's statistics of the file, JSON.
    pub(super) stats: String,
    /// Filters per layer.
    pub(super) layer_rows: Vec<usize>,
}

impl Encoded {
    /// Filters of the model.
    pub fn n_filters(&self) -> usize {
        self.rows
    }

    pub(super) fn keys(&self) -> HashMap<String, Option<String>> {
        PARTITION_KEYS.iter().map(|key| (key.to_string(), Some(key_value(&self.record, key).to_owned()))).collect()
    }
}

/// Encodes a model's filters, and drops its weights.
///
/// # Errors
/// [`Error::Model`] for a name too long for a folder, and where the Parquet writer refuses.
pub fn encode(mut record: ModelRecord) -> Result<Encoded> {
    let folder = folder(&record)?;
    let data_id = Uuid::new_v4().to_string();
    let layer_rows: Vec<usize> = record.layers.iter().map(LayerRecord::n_filters).collect();
    let stats = stats(&record);
    let bytes = parquet(&mut record).map_err(|e| Error::model(&record.file, "", format!("cannot be written: {e}")))?;
    Ok(Encoded {
        path: format!("{folder}/{data_id}.parquet"),
        rows: layer_rows.iter().sum(),
        size: bytes.len(),
        bytes: bytes.into(),
        data_id,
        stats,
        layer_rows,
        record,
    })
}

fn key_value<'a>(record: &'a ModelRecord, key: &str) -> &'a str {
    match key {
        "task" => &record.task,
        "data_type" => &record.data_type,
        _ => &record.model,
    }
}

/// `task=.../data_type=.../model=...`, values percent-encoded: a name cannot steer the path.
fn folder(record: &ModelRecord) -> Result<String> {
    let parts = PARTITION_KEYS.iter().map(|key| {
        let part = format!("{key}={}", percent_encode(key_value(record, key)));
        if part.len() <= MAX_NAME {
            return Ok(part);
        }
        let name = printable(key_value(record, key));
        let reason = format!("expected a name of at most {MAX_NAME} bytes in a path, found {}", part.len());
        Err(Error::model(&record.file, format!("{key} '{name}'"), reason))
    });
    Ok(parts.collect::<Result<Vec<_>>>()?.join("/"))
}

fn percent_encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for (i, byte) in value.bytes().enumerate() {
        // A dot may stand inside a name, but no folder is called '.' or '..'.
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) || (byte == b'.' && i > 0) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn parquet(record: &mut ModelRecord) -> Result<Vec<u8>, ParquetError> {
    let mut writer = ArrowWriter::try_new(Vec::new(), schema::filters_file(), Some(filter_properties()))?;
    for layer in &mut record.layers {
        // Taken out: a model's weights are in memory as numbers or as Parquet, not twice.
        let weights = std::mem::take(&mut layer.weights);
        let rows = weights.as_slice().unwrap_or_default().as_chunks::<FILTER_LEN>().0;
        for rows in rows.chunks(MAX_ROWS) {
            writer.write(&batch(layer, rows)?)?;
            writer.flush()?;
        }
    }
    writer.into_inner()
}

fn batch(layer: &LayerRecord, rows: &[[f32; FILTER_LEN]]) -> Result<RecordBatch, ParquetError> {
    let n = rows.len();
    let int = |value: usize| Arc::new(Int32Array::from_value(i32::try_from(value).unwrap_or(i32::MAX), n)) as ArrayRef;
    let mut columns = vec![
        int(layer.layer),
        int(layer.conv_depth),
        Arc::new(Float64Array::from_value(layer.conv_depth_norm, n)),
        int(layer.depth_decile.into()),
    ];
    for i in 0..FILTER_LEN {
        columns.push(Arc::new(Float32Array::from_iter_values(rows.iter().map(|row| row[i]))));
    }
    Ok(RecordBatch::try_new(schema::filters_file(), columns)?)
}

/// What all files have in common: no page index (a row group is one layer, whose keys are constant) and pages as
/// large as a row group (the default's 20,000 rows cost up to half of the reading speed).
fn properties() -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_created_by(concat!("filterdb ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::UNCOMPRESSED)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_max_row_group_row_count(Some(MAX_ROWS))
        .set_data_page_row_count_limit(MAX_ROWS)
        .set_data_page_size_limit(MAX_ROWS * size_of::<f64>())
        .set_write_batch_size(1 << 13)
}

fn filter_properties() -> WriterProperties {
    // Weights hardly repeat: a dictionary is larger than the data. Byte-stream split reads faster than plain and
    // is what a general compressor, if one is wanted, gains most from.
    let builder = WEIGHT_COLUMNS.iter().fold(properties(), |builder, name| {
        let column = ColumnPath::from(*name);
        builder
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::BYTE_STREAM_SPLIT)
    });
    builder
        .set_sorting_columns(Some(vec![SortingColumn { column_idx: 0, descending: false, nulls_first: false }]))
        .build()
}

/// A batch of `models` or `layers` as a Parquet file.
pub(super) fn table_file(batch: &RecordBatch) -> Result<Bytes, ParquetError> {
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties().build()))?;
    writer.write(batch)?;
    Ok(writer.into_inner()?.into())
}

/// Delta's statistics: rows, and the ranges of the keys that other engines prune by.
fn stats(record: &ModelRecord) -> String {
    let range = |of: &dyn Fn(&LayerRecord) -> f64| {
        let values = record.layers.iter().map(of);
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), x| (lo.min(x), hi.max(x)))
    };
    let whole = |of: &dyn Fn(&LayerRecord) -> usize| {
        let (lo, hi) = range(&|layer| of(layer) as f64);
        (lo as i64, hi as i64)
    };
    let layer = whole(&|layer| layer.layer);
    let depth = whole(&|layer| layer.conv_depth);
    let decile = whole(&|layer| layer.depth_decile.into());
    let norm = range(&|layer| layer.conv_depth_norm);
    let keys = |layer: i64, depth: i64, norm: f64, decile: i64| serde_json::json!({ "layer": layer, "conv_depth": depth, "conv_depth_norm": norm, "depth_decile": decile });
    serde_json::json!({
        "numRecords": record.n_filters(),
        "minValues": keys(layer.0, depth.0, norm.0, decile.0),
        "maxValues": keys(layer.1, depth.1, norm.1, decile.1),
        "nullCount": { "layer": 0, "conv_depth": 0, "conv_depth_norm": 0, "depth_decile": 0 },
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::percent_encode;

    #[test]
    fn a_name_cannot_steer_the_path() {
        assert_eq!(percent_encode("face detection"), "face%20detection");
        assert_eq!(percent_encode("../a=b/%"), "%2E.%2Fa%3Db%2F%25");
        assert_eq!(percent_encode("ResNet-18_v1.5"), "ResNet-18_v1.5");
        assert_eq!(percent_encode("é"), "%C3%A9");
    }
}
