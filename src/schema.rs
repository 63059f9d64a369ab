//! Column names, types and partition keys: of the stored tables, of the tables as SQL sees them, and of
//! what the functions return. The files in `schemas/v1/` say the same, and a test compares them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};

/// The version of the stored format, written to the tables' properties.
pub const FORMAT_VERSION: u32 = 1;

/// Coefficients of a stored filter: 3 x 3, row-major.
pub const FILTER_LEN: usize = 9;

/// The stored columns of a filter's coefficients: nine plain columns read faster than a list and are what
/// DuckDB, pandas and Polars read best.
pub const WEIGHT_COLUMNS: [&str; FILTER_LEN] = ["w0", "w1", "w2", "w3", "w4", "w5", "w6", "w7", "w8"];

/// The same coefficients as one list, assembled at scan.
pub const WEIGHTS: &str = "weights";

/// The keys by which `filters` is partitioned, outermost first.
pub const PARTITION_KEYS: [&str; 3] = ["task", "data_type", "model"];

/// The value of `task` and `data_type` where nobody said better.
pub const UNKNOWN: &str = "unknown";

/// Ties a row of `models` and `layers` to its files in `filters`: the stem of their names. A row whose files
/// the `filters` log does not hold is not there (an ingest that was never committed, or a replaced model).
pub const DATA_ID: &str = "data_id";

/// `weights`, as SQL sees it.
pub fn weights_type() -> DataType {
    DataType::FixedSizeList(Arc::new(Field::new("item", DataType::Float32, false)), FILTER_LEN as i32)
}

/// A list of doubles, as the functions return it.
pub fn doubles() -> DataType {
    list(DataType::Float64)
}

/// A list; items are nullable only because lists written in SQL are.
pub fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

fn required(name: &str, data_type: DataType) -> FieldRef {
    Arc::new(Field::new(name, data_type, false))
}

fn optional(name: &str, data_type: DataType) -> FieldRef {
    Arc::new(Field::new(name, data_type, true))
}

/// The layer's place within its model; in `filters` and `layers` alike.
fn place() -> Vec<FieldRef> {
    vec![
        required("layer", DataType::Int32),
        required("conv_depth", DataType::Int32),
        required("conv_depth_norm", DataType::Float64),
        required("depth_decile", DataType::Int32),
    ]
}

/// The columns of a Parquet file of `filters`; the partition keys are in its path and in the log.
pub fn filters_file() -> SchemaRef {
    let weights = WEIGHT_COLUMNS.iter().map(|name| required(name, DataType::Float32));
    Arc::new(Schema::new(place().into_iter().chain(weights).collect::<Vec<_>>()))
}

/// The keys of a model: what it is called and what it does.
fn keys() -> [FieldRef; 3] {
    ["model", "task", "data_type"].map(|name| required(name, DataType::Utf8))
}

/// The stored columns of `models`, before its free metadata (nullable text).
pub fn models() -> SchemaRef {
    let mut fields = vec![required(DATA_ID, DataType::Utf8)];
    fields.extend(keys());
    fields.extend([
        required("file", DataType::Utf8),
        required("sha256", DataType::Utf8),
        required("format", DataType::Utf8),
        optional("producer", DataType::Utf8),
        required("n_convolutions", DataType::Int32),
        required("n_layers", DataType::Int32),
        required("n_filters", DataType::Int64),
        required("n_nonfinite", DataType::Int64),
        required("extractor", DataType::Utf8),
        required("ingested_at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
    ]);
    Arc::new(Schema::new(fields))
}

/// A free metadata column of `models`.
pub fn metadata_field(name: &str) -> FieldRef {
    optional(name, DataType::Utf8)
}

/// Whether `name` is taken by a column of our own, so that no metadata column may have it.
pub fn is_reserved(name: &str) -> bool {
    name.eq_ignore_ascii_case(WEIGHTS)
        || [models(), layers(), filters_file()]
            .iter()
            .any(|schema| schema.fields().iter().any(|field| field.name().eq_ignore_ascii_case(name)))
}

/// The stored columns of `layers`.
pub fn layers() -> SchemaRef {
    let mut fields = vec![required(DATA_ID, DataType::Utf8)];
    fields.extend(keys());
    fields.extend(place());
    fields.extend([
        required("name", DataType::Utf8),
        required("out_channels", DataType::Int32),
        required("in_channels", DataType::Int32),
        optional("groups", DataType::Int32),
        required("depth_source", DataType::Utf8),
        required("uses", DataType::Int32),
        required("n_filters", DataType::Int64),
        optional("sparsity", DataType::Float64),
        optional("variance_entropy", DataType::Float64),
        optional("variance_entropy_norm", DataType::Float64),
        optional("orthogonality", DataType::Float64),
        optional("scale_mean", DataType::Float64),
        required("l1", DataType::Float64),
        required("l2", DataType::Float64),
        required("moments", moments()),
        required("moments_scaled", moments()),
    ]);
    Arc::new(Schema::new(fields))
}

/// Exact mergeable moments: `mean` \[d\], `comoment` the packed upper triangle \[d (d + 1) / 2\] of
/// sum (w - mean)(w - mean)^T, row by row.
pub fn moments() -> DataType {
    DataType::Struct(Fields::from(vec![
        optional("n", DataType::Int64),
        optional("n_skipped", DataType::Int64),
        optional("mean", doubles()),
        optional("comoment", doubles()),
    ]))
}

/// What `pca_fit` and `pca_merge` return; the names are scikit-learn's.
pub fn pca_fit() -> DataType {
    DataType::Struct(Fields::from(vec![
        optional("n", DataType::Int64),
        optional("n_skipped", DataType::Int64),
        optional("mean", doubles()),
        optional("components", list(doubles())),
        optional("explained_variance", doubles()),
        optional("explained_variance_ratio", doubles()),
    ]))
}

/// What `coef_range` returns.
pub fn coef_range() -> DataType {
    DataType::Struct(Fields::from(vec![optional("lo", DataType::Float64), optional("hi", DataType::Float64)]))
}

/// What `coef_hist` and `coef_hist_merge` return; `counts` is \[d\]\[bins\].
pub fn coef_hist() -> DataType {
    DataType::Struct(Fields::from(vec![
        optional("lo", DataType::Float64),
        optional("hi", DataType::Float64),
        optional("n", DataType::Int64),
        optional("n_skipped", DataType::Int64),
        optional("below", DataType::Int64),
        optional("above", DataType::Int64),
        optional("counts", list(list(DataType::Int64))),
    ]))
}

/// What `sym_kl_shift` returns for labels of type `label`: every ordered pair of groups.
pub fn sym_kl_shift(label: &DataType) -> DataType {
    list(DataType::Struct(Fields::from(vec![
        optional("a", label.clone()),
        optional("b", label.clone()),
        optional("shift", DataType::Float64),
        optional("n_a", DataType::Int64),
        optional("n_b", DataType::Int64),
        optional("contributions", doubles()),
    ])))
}
