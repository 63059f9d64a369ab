//! What a reader sees: the files of `filters`, and the rows of `models` and `layers` that belong to them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::tables::{DataFile, Dataset, failed};
use crate::error::{Error, Result};
use crate::record::ModelRecord;
use crate::schema::{self, DATA_ID};

/// Small files that are read at once.
const CONCURRENT: usize = 16;

/// By which rules records are made; a change of them makes the same file a different ingest.
pub(super) const EXTRACTOR: &str = concat!("filterdb ", env!("CARGO_PKG_VERSION"));

/// One version of a data set.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Version of `filters`.
    pub version: u64,
    pub(crate) filters: Vec<DataFile>,
    pub(crate) layers: Vec<DataFile>,
    /// The visible rows of `models`, free metadata included.
    pub(crate) models: RecordBatch,
    pub(crate) dataset: String,
}

/// What the data set knows of a model by name.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// Its files in `filters`.
    pub files: Vec<DataFile>,
    /// The columns by which a repeated ingest is told from a changed one.
    columns: HashMap<String, Option<String>>,
}

impl Known {
    /// How a record differs from the known model, in words; `None` where it is the same ingest.
    pub fn difference(&self, record: &ModelRecord) -> Option<String> {
        let is = |name: &str| self.columns.get(name).cloned().flatten();
        let same = |name: &str, value: &str| is(name).as_deref() == Some(value);
        if !same("sha256", &record.sha256) {
            return Some(format!("from other contents ({})", is("file").unwrap_or_default()));
        }
        if !same("extractor", EXTRACTOR) {
            return Some(format!("extracted by {}", is("extractor").unwrap_or_default()));
        }
        let mut wanted: HashMap<String, &str> =
            record.metadata.iter().map(|(name, value)| (name.to_lowercase(), value.as_str())).collect();
        wanted.insert("task".into(), &record.task);
        wanted.insert("data_type".into(), &record.data_type);
        let own = schema::models();
        let free = |name: &str| own.field_with_name(name).is_err() || wanted.contains_key(name);
        let differing = self
            .columns
            .iter()
            .find(|(name, value)| free(name) && value.as_deref() != wanted.get(&name.to_lowercase()).copied());
        let missing = wanted.keys().find(|name| !self.columns.keys().any(|known| known.eq_ignore_ascii_case(name)));
        differing.map(|(name, _)| name).or(missing).map(|name| format!("with another '{name}'"))
    }
}

impl Snapshot {
    /// Reads what the data set holds at the version at which it is open.
    ///
    /// # Errors
    /// [`Error::Dataset`].
    pub async fn read(dataset: &Dataset) -> Result<Self> {
        let filters = dataset.files("filters")?;
        let columns = dataset.columns("models")?;
        let files = dataset.files("models")?;
        let batches: Vec<RecordBatch> = futures::stream::iter(files)
            .map(|file| read_file(dataset, file, &columns))
            .buffered(CONCURRENT)
            .try_collect()
            .await?;
        let all = concat_batches(&columns, &batches).map_err(|e| failed(&dataset.store, "models", e))?;
        let committed: HashSet<&str> = filters.iter().map(|file| data_id(&file.path)).collect();
        let ids = all.column_by_name(DATA_ID).and_then(|ids| ids.as_string_opt::<i32>());
        let Some(ids) = ids else {
            return Err(Error::dataset(dataset.store.name(), "the table 'models' has no column 'data_id'"));
        };
        let visible: BooleanArray = ids.iter().map(|id| id.map(|id| committed.contains(id))).collect();
        let models = filter_record_batch(&all, &visible).map_err(|e| failed(&dataset.store, "models", e))?;
        Ok(Snapshot {
            version: dataset.version(),
            layers: dataset.files("layers")?,
            filters,
            models,
            dataset: dataset.store.name().to_owned(),
        })
    }

    /// Names of the free metadata columns.
    pub fn metadata_columns(&self) -> Vec<String> {
        let own = schema::models();
        let fields = self.models.schema_ref().fields().iter();
        fields.map(|field| field.name().clone()).filter(|name| own.field_with_name(name).is_err()).collect()
    }

    /// Whether `filters` holds files of this model.
    pub(super) fn holds(&self, id: &str) -> bool {
        self.filters.iter().any(|file| data_id(&file.path) == id)
    }

    /// The row of `models` of each file in `filters`.
    pub(super) fn rows_by_data_id(&self) -> HashMap<&str, usize> {
        let ids = self.models.column_by_name(DATA_ID).and_then(|ids| ids.as_string_opt::<i32>());
        ids.into_iter().flat_map(|ids| ids.iter().enumerate()).filter_map(|(row, id)| Some((id?, row))).collect()
    }

    /// A text column of `models` in one row.
    pub(super) fn text(&self, column: &str, row: usize) -> Option<&str> {
        let column = self.models.column_by_name(column)?.as_string_opt::<i32>()?;
        column.is_valid(row).then(|| column.value(row))
    }

    /// The models by name.
    pub(super) fn known(&self) -> Result<HashMap<String, Known>> {
        let mut known: HashMap<String, Known> = HashMap::new();
        for (id, row) in self.rows_by_data_id() {
            let name = self.text("model", row).unwrap_or_default().to_owned();
            let files = self.filters.iter().filter(|file| data_id(&file.path) == id).cloned();
            let text_columns = self.models.schema_ref().fields().iter().filter(|f| *f.data_type() == DataType::Utf8);
            let columns = text_columns
                .map(|field| (field.name().clone(), self.text(field.name(), row).map(str::to_owned)))
                .collect();
            known.entry(name).or_insert(Known { files: Vec::new(), columns }).files.extend(files);
        }
        Ok(known)
    }
}

/// The model behind a file of `filters`: its name up to the first dot.
pub(super) fn data_id(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split('.').next().unwrap_or(name)
}

/// A file of a small table, brought to the table's columns of today: older files lack later metadata.
async fn read_file(dataset: &Dataset, file: DataFile, columns: &SchemaRef) -> Result<RecordBatch> {
    let what = format!("{} cannot be read", file.location);
    let got = dataset.store.root().get(&file.location).await.map_err(|e| failed(&dataset.store, &what, e))?;
    let bytes = got.bytes().await.map_err(|e| failed(&dataset.store, &what, e))?;
    let fault = |e: parquet::errors::ParquetError| failed(&dataset.store, &what, e);
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(fault)?.build().map_err(fault)?;
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().map_err(|e| failed(&dataset.store, &what, e))?;
    let rows = batches.iter().map(RecordBatch::num_rows).sum::<usize>();
    if rows != file.rows {
        return Err(Error::dataset(
            dataset.store.name(),
            format!("{}: expected {} rows as in the log, found {rows}", file.location, file.rows),
        ));
    }
    let aligned: Vec<RecordBatch> = batches
        .iter()
        .map(|batch| align(batch, columns))
        .collect::<std::result::Result<_, _>>()
        .map_err(|e| failed(&dataset.store, &what, e))?;
    concat_batches(columns, &aligned).map_err(|e| failed(&dataset.store, "models", e))
}

fn align(batch: &RecordBatch, columns: &SchemaRef) -> std::result::Result<RecordBatch, arrow::error::ArrowError> {
    let column = |name: &str, data_type: &DataType| -> std::result::Result<ArrayRef, arrow::error::ArrowError> {
        match batch.column_by_name(name) {
            Some(column) => arrow::compute::cast(column, data_type),
            None => Ok(new_null_array(data_type, batch.num_rows())),
        }
    };
    let arrays = columns.fields().iter().map(|field| column(field.name(), field.data_type()));
    RecordBatch::try_new(Arc::clone(columns), arrays.collect::<std::result::Result<_, _>>()?)
}
