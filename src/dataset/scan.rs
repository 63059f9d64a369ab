//! Files to rows: the tables as the engine sees them.
//!
//! The list of files comes from a snapshot, never from a folder. What all rows of a file share (its keys and the
//! model's free metadata) is a constant of the file: it costs nothing per row, and a condition on it alone decides
//! which files are opened at all. Conditions on `layer` and depth choose row groups by their statistics.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use chrono::DateTime;
use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, DFSchema, DataFusionError, Result, ScalarValue, Statistics, exec_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::datasource::{TableProvider, TableType};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::expressions::{Column, cast};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use object_store::ObjectMeta;

use super::interleave::interleave;
use super::snapshot::{Snapshot, data_id};
use super::tables::DataFile;
use crate::schema::{self, PARTITION_KEYS, WEIGHT_COLUMNS, WEIGHTS};
use crate::store::Store;

/// What a reader fetches of a file's end in its first request: most footers, whole.
const FOOTER_HINT: usize = 1 << 16;

/// A table of Parquet files with columns that are constants of a file.
#[derive(Debug)]
pub struct FileTable {
    store: ObjectStoreUrl,
    /// Columns in the files, then the constants.
    schema: SchemaRef,
    table_schema: TableSchema,
    files: Vec<PartitionedFile>,
}

impl FileTable {
    fn new(
        store: &Store,
        file_schema: &SchemaRef,
        constants: Vec<FieldRef>,
        files: Vec<PartitionedFile>,
    ) -> Result<Self> {
        let table_schema = TableSchema::builder(Arc::clone(file_schema)).with_table_partition_cols(constants).build();
        Ok(FileTable {
            store: ObjectStoreUrl::parse(store.root_url())?,
            schema: Arc::clone(table_schema.table_schema()),
            table_schema,
            files,
        })
    }

    /// The stored rows of `layers`, those of uncommitted ingests included.
    ///
    /// # Errors
    /// A store whose URL the engine does not take.
    pub fn layers(snapshot: &Snapshot, store: &Store) -> Result<Self> {
        let files = snapshot.layers.iter().map(|file| partitioned_file(file, Vec::new(), &schema::layers()));
        Self::new(store, &schema::layers(), Vec::new(), files.collect())
    }

    fn is_constant(&self, column: &str) -> bool {
        self.table_schema.table_partition_cols().iter().any(|field| field.name() == column)
    }

    fn pushdown(&self, filter: &Expr) -> TableProviderFilterPushDown {
        let columns = filter.column_refs();
        if !columns.is_empty() && columns.iter().all(|column| self.is_constant(&column.name)) {
            TableProviderFilterPushDown::Exact
        } else {
            TableProviderFilterPushDown::Inexact
        }
    }

    /// The files for which no condition on constants is false or NULL.
    fn matching(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<PartitionedFile>> {
        let constant =
            filters.iter().filter(|filter| matches!(self.pushdown(filter), TableProviderFilterPushDown::Exact));
        let Some(condition) = conjunction(constant.cloned()) else { return Ok(self.files.clone()) };
        if self.files.is_empty() {
            return Ok(Vec::new());
        }
        let constants = self.table_schema.table_partition_cols();
        let columns = (0..constants.len())
            .map(|i| ScalarValue::iter_to_array(self.files.iter().map(|file| file.partition_values[i].clone())))
            .collect::<Result<Vec<ArrayRef>>>()?;
        let schema = Arc::new(Schema::new(constants.clone()));
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        let condition = state.create_physical_expr(condition, &DFSchema::try_from(schema)?)?;
        let matches = condition.evaluate(&batch)?.into_array(batch.num_rows())?;
        let matches: &BooleanArray = matches
            .as_boolean_opt()
            .ok_or_else(|| DataFusionError::Internal(format!("a condition of type {}", matches.data_type())))?;
        let chosen = self.files.iter().zip(matches).filter(|(_, matches)| *matches == Some(true));
        Ok(chosen.map(|(file, _)| file.clone()).collect())
    }

    /// A scan of the columns at `indices` of [`FileTable::schema`], in that order.
    async fn plan(
        &self,
        state: &dyn Session,
        indices: Vec<usize>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let files = self.matching(state, filters)?;
        let object_store = state.runtime_env().object_store(&self.store)?;
        let cache = state.runtime_env().cache_manager.get_file_metadata_cache();
        let mut source = ParquetSource::new(self.table_schema.clone())
            .with_table_parquet_options(state.default_table_options().parquet)
            .with_metadata_size_hint(FOOTER_HINT)
            .with_enable_page_index(false)
            .with_parquet_file_reader_factory(Arc::new(CachedParquetFileReaderFactory::new(object_store, cache)));
        let pruning =
            filters.iter().filter(|filter| matches!(self.pushdown(filter), TableProviderFilterPushDown::Inexact));
        if let Some(condition) = conjunction(pruning.cloned()) {
            let schema = DFSchema::try_from(Arc::clone(&self.schema))?;
            source = source.with_predicate(state.create_physical_expr(condition, &schema)?);
        }
        let rows = files.iter().filter_map(|file| file.statistics.as_ref()?.num_rows.get_value().copied()).sum();
        let statistics = Statistics { num_rows: Precision::Exact(rows), ..Statistics::new_unknown(&self.schema) };
        let groups = spread(files, state.config().target_partitions());
        // A limit may stop a scan early only where every row that it reads counts.
        let limit = if filters.is_empty() { limit } else { None };
        let config = FileScanConfigBuilder::new(self.store.clone(), Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(Some(indices))?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// Files spread over partitions so that these hold about as many bytes each: the largest first, each to the
/// partition that holds least. The engine cuts what is still uneven by ranges of row groups.
fn spread(mut files: Vec<PartitionedFile>, partitions: usize) -> Vec<FileGroup> {
    files.sort_by_key(|file| std::cmp::Reverse(file.object_meta.size));
    let mut groups: Vec<(u64, Vec<PartitionedFile>)> = vec![(0, Vec::new()); partitions.clamp(1, files.len().max(1))];
    for file in files {
        if let Some((bytes, group)) = groups.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            *bytes += file.object_meta.size;
            group.push(file);
        }
    }
    groups.into_iter().map(|(_, group)| FileGroup::new(group)).collect()
}

fn partitioned_file(file: &DataFile, constants: Vec<ScalarValue>, file_schema: &Schema) -> PartitionedFile {
    let mut partitioned = PartitionedFile::new_from_meta(ObjectMeta {
        location: file.location.clone(),
        last_modified: DateTime::from_timestamp_millis(file.modified_ms).unwrap_or_default(),
        size: file.size,
        e_tag: None,
        version: None,
    });
    let mut statistics = Statistics { num_rows: Precision::Exact(file.rows), ..Statistics::new_unknown(file_schema) };
    // Written out here: the engine's own helper takes it that no constant is NULL.
    statistics.column_statistics.extend(constants.iter().map(|value| {
        if value.is_null() {
            ColumnStatistics { null_count: Precision::Exact(file.rows), ..ColumnStatistics::new_unknown() }
        } else {
            ColumnStatistics {
                null_count: Precision::Exact(0),
                min_value: Precision::Exact(value.clone()),
                max_value: Precision::Exact(value.clone()),
                ..ColumnStatistics::new_unknown()
            }
        }
    }));
    partitioned.partition_values = constants;
    partitioned.statistics = Some(Arc::new(statistics));
    partitioned
}

#[async_trait]
impl TableProvider for FileTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(filters.iter().map(|filter| self.pushdown(filter)).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let indices = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        self.plan(state, indices, filters, limit).await
    }
}

/// The table `filters`: the stored files with `weights` assembled from nine columns.
#[derive(Debug)]
pub struct FilterTable {
    files: FileTable,
    schema: SchemaRef,
    /// Scans so far: what a query costs is how often it reads the filters.
    scans: Arc<AtomicUsize>,
}

impl FilterTable {
    /// The filters of a snapshot.
    ///
    /// # Errors
    /// A file without a model, which no commit of ours makes.
    pub fn new(snapshot: &Snapshot, store: &Store) -> Result<Self> {
        let metadata = snapshot.metadata_columns();
        let constants: Vec<FieldRef> = PARTITION_KEYS
            .iter()
            .map(|key| Arc::new(Field::new(*key, DataType::Utf8View, false)))
            .chain(metadata.iter().map(|name| Arc::new(Field::new(name, DataType::Utf8View, true))))
            .collect();
        let file_schema = schema::filters_file();
        let rows = snapshot.rows_by_data_id();
        let mut files = Vec::with_capacity(snapshot.filters.len());
        for file in &snapshot.filters {
            let Some(&row) = rows.get(data_id(&file.path)) else {
                return exec_err!("{}: no row of 'models' belongs to {}", snapshot.dataset, file.path);
            };
            let keys = PARTITION_KEYS.iter().map(|key| file.keys.get(*key).cloned().flatten());
            let free = metadata.iter().map(|name| snapshot.text(name, row).map(str::to_owned));
            files.push(partitioned_file(file, keys.chain(free).map(ScalarValue::Utf8View).collect(), &file_schema));
        }
        let files = FileTable::new(store, &file_schema, constants, files)?;
        let schema = Arc::new(Schema::new(Self::columns(&files)));
        Ok(FilterTable { files, schema, scans: Arc::default() })
    }

    /// The same table, its scans counted in `scans`.
    pub fn counting(self, scans: Arc<AtomicUsize>) -> Self {
        FilterTable { scans, ..self }
    }

    /// `weights`, the keys, the free metadata.
    fn columns(files: &FileTable) -> Vec<FieldRef> {
        let constants = files.table_schema.table_partition_cols();
        let place = files
            .schema
            .fields()
            .iter()
            .filter(|field| !WEIGHT_COLUMNS.contains(&field.name().as_str()) && !files.is_constant(field.name()));
        let of_key = |key: &str| constants.iter().find(|field| field.name() == key).cloned();
        let free = constants.iter().filter(|field| !PARTITION_KEYS.contains(&field.name().as_str()));
        let weights = Arc::new(Field::new(WEIGHTS, schema::weights_type(), false));
        std::iter::once(weights)
            .chain(of_key("model"))
            .chain(place.cloned())
            .chain(of_key("task"))
            .chain(of_key("data_type"))
            .chain(free.cloned())
            .collect()
    }

    /// The expression of a column of this table over the scanned columns.
    fn expression(&self, field: &Field, scanned: &Schema, state: &dyn Session) -> Result<ProjectionExpr> {
        let column =
            |name: &str| -> Result<Arc<dyn PhysicalExpr>> { Ok(Arc::new(Column::new_with_schema(name, scanned)?)) };
        let expr = if field.name() == WEIGHTS {
            let columns = WEIGHT_COLUMNS.iter().map(|name| column(name)).collect::<Result<Vec<_>>>()?;
            let options = Arc::clone(state.config().options());
            let call =
                ScalarFunctionExpr::new(WEIGHTS, Arc::new(interleave()), columns, Arc::new(field.clone()), options);
            Arc::new(call.with_nullable(false)) as Arc<dyn PhysicalExpr>
        } else {
            cast(column(field.name())?, scanned, field.data_type().clone())?
        };
        Ok(ProjectionExpr { expr, alias: field.name().clone() })
    }
}

#[async_trait]
impl TableProvider for FilterTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let on_weights = |filter: &Expr| filter.column_refs().iter().any(|column| column.name == WEIGHTS);
        Ok(filters
            .iter()
            .map(|filter| {
                if on_weights(filter) { TableProviderFilterPushDown::Unsupported } else { self.files.pushdown(filter) }
            })
            .collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = match projection {
            Some(indices) => self.schema.project(indices)?,
            None => self.schema.as_ref().clone(),
        };
        let mut indices: Vec<usize> = Vec::new();
        for field in wanted.fields() {
            let names: &[&str] = if field.name() == WEIGHTS { &WEIGHT_COLUMNS } else { &[field.name()] };
            for name in names {
                indices.push(self.files.schema.index_of(name)?);
            }
        }
        self.scans.fetch_add(1, Ordering::Relaxed);
        let scan = self.files.plan(state, indices, filters, limit).await?;
        if wanted.index_of(WEIGHTS).is_err() {
            return Ok(scan);
        }
        let scanned = scan.schema();
        let expressions =
            wanted.fields().iter().map(|field| self.expression(field, &scanned, state)).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(ProjectionExec::try_new(expressions, scan)?))
    }
}
