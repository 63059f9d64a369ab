//! The Delta tables of a data set: created, opened, and what files their logs hold.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Field, Schema, SchemaRef};
use deltalake_core::DeltaTable;
use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake_core::kernel::schema::StructType;
use deltalake_core::logstore::{StorageConfig, default_logstore};
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::SaveMode;
use object_store::path::Path;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::schema::{self, PARTITION_KEYS};
use crate::store::Store;

/// The property of each table that says by which version of the stored format it is written.
const FORMAT_PROPERTY: &str = "filterdb.format";

/// A data set at the newest version that was there when it was opened.
#[derive(Debug, Clone)]
pub struct Dataset {
    pub(super) store: Store,
    /// The commit point: what this table's log does not hold is not there.
    pub(super) filters: DeltaTable,
    pub(super) models: DeltaTable,
    pub(super) layers: DeltaTable,
}

/// A data file of a table, as its log has it.
#[derive(Debug, Clone)]
pub(crate) struct DataFile {
    /// Place in the whole store.
    pub location: Path,
    /// Place in the table.
    pub path: String,
    pub size: u64,
    pub modified_ms: i64,
    pub rows: usize,
    pub keys: HashMap<String, Option<String>>,
}

impl Dataset {
    /// Opens the data set in a folder or at a URL.
    ///
    /// # Errors
    /// [`Error::Dataset`] where there is none, or one of a newer format; [`Error::Usage`] for an unknown scheme.
    pub async fn open(location: &str) -> Result<Self> {
        Self::open_in(Store::new(location)?).await
    }

    /// Opens the data set in `store`, or `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Dataset`], also where the place holds something else.
    pub(super) async fn find(store: Store) -> Result<Option<Self>> {
        if exists(&store, "filters").await? {
            return Self::open_in(store).await.map(Some);
        }
        match store.foreign_entry(&TABLES).await? {
            Some(entry) => Err(Error::dataset(
                store.name(),
                format!("is not a data set: expected an empty or new place, found '{entry}' in it"),
            )),
            None => Ok(None),
        }
    }

    async fn open_in(store: Store) -> Result<Self> {
        let mut tables = Vec::with_capacity(TABLES.len());
        for table in TABLES {
            let mut delta = handle(&store, table)?;
            if !exists(&store, table).await? {
                return Err(Error::dataset(
                    store.name(),
                    format!(
                        "is not a data set: expected the Delta table '{table}' in it, found none (filterdb ingest makes one)"
                    ),
                ));
            }
            delta.load().await.map_err(|e| failed(&store, &format!("the log of '{table}' cannot be read"), e))?;
            check_format(&store, table, &delta)?;
            tables.push(delta);
        }
        Self::assemble(store, tables)
    }

    /// Makes an empty data set in `store`; what another process has made meanwhile is taken as it is.
    ///
    /// # Errors
    /// [`Error::Dataset`].
    pub(super) async fn create(store: Store) -> Result<Self> {
        let mut tables = Vec::with_capacity(TABLES.len());
        // `filters` last: a data set exists from the moment at which its commit point does.
        for table in TABLES.iter().rev() {
            tables.insert(0, create_or_open(&store, table).await?);
        }
        Self::assemble(store, tables)
    }

    fn assemble(store: Store, tables: Vec<DeltaTable>) -> Result<Self> {
        match <[DeltaTable; 3]>::try_from(tables) {
            Ok([filters, models, layers]) => Ok(Dataset { store, filters, models, layers }),
            Err(_) => Err(Error::dataset(store.name(), "expected three tables")),
        }
    }

    /// Where the data set is.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The version of `filters`, which counts the data set's commits.
    pub fn version(&self) -> u64 {
        self.filters.version().unwrap_or(0)
    }

    /// Reads the logs' newest entries.
    ///
    /// # Errors
    /// [`Error::Dataset`].
    pub async fn refresh(&mut self) -> Result<()> {
        for table in [&mut self.filters, &mut self.models, &mut self.layers] {
            table.update_state().await.map_err(|e| failed(&self.store, "the log cannot be read", e))?;
        }
        Ok(())
    }

    /// The files of a table.
    pub(super) fn files(&self, table: &str) -> Result<Vec<DataFile>> {
        let prefix = self.store.table_prefix(table)?;
        let delta = self.table(table);
        let state = delta.snapshot().map_err(|e| failed(&self.store, "the log is not loaded", e))?;
        state
            .log_data()
            .iter()
            .map(|file| {
                let path = file.path().into_owned();
                let location = Path::parse(format!("{prefix}/{path}"))
                    .map_err(|e| Error::dataset(self.store.name(), format!("{table}: {e}")))?;
                let rows = file.num_records().ok_or_else(|| {
                    Error::dataset(self.store.name(), format!("{table}: the log does not say how many rows {path} has"))
                })?;
                Ok(DataFile {
                    location,
                    size: u64::try_from(file.size()).unwrap_or(0),
                    modified_ms: file.modification_time(),
                    rows,
                    keys: file.partition_values_map(),
                    path,
                })
            })
            .collect()
    }

    /// The columns of a table, as its log has them.
    pub(super) fn columns(&self, table: &str) -> Result<SchemaRef> {
        let state = self.table(table).snapshot().map_err(|e| failed(&self.store, "the log is not loaded", e))?;
        Ok(state.snapshot().arrow_schema())
    }

    fn table(&self, table: &str) -> &DeltaTable {
        match table {
            "models" => &self.models,
            "layers" => &self.layers,
            _ => &self.filters,
        }
    }
}

/// How often the creation of a table is tried: a store that refuses it for good should say so soon.
const CREATE_ATTEMPTS: u32 = 6;

/// The tables, the commit point first.
const TABLES: [&str; 3] = ["filters", "models", "layers"];

async fn exists(store: &Store, table: &str) -> Result<bool> {
    let found = handle(store, table)?.verify_deltatable_existence().await;
    found.map_err(|e| failed(store, "cannot be read", e))
}

/// A table that is not loaded yet.
fn handle(store: &Store, table: &str) -> Result<DeltaTable> {
    let log = default_logstore(
        store.table_store(table)?,
        Arc::clone(store.root()),
        &store.table_url(table)?,
        &StorageConfig::default(),
    );
    Ok(DeltaTable::new(log))
}

/// Creates a table. Where another process does so at the same moment, one of the two fails somewhere in between, and
/// finds the table there a moment later.
async fn create_or_open(store: &Store, table: &str) -> Result<DeltaTable> {
    let mut attempt = 1;
    loop {
        match create(store, table).await {
            Err(_) if attempt < CREATE_ATTEMPTS => pause(attempt).await,
            created => return created,
        }
        attempt += 1;
    }
}

async fn create(store: &Store, table: &str) -> Result<DeltaTable> {
    let partition_keys: &[&str] = if table == "filters" { &PARTITION_KEYS } else { &[] };
    let schema = match table {
        "models" => schema::models(),
        "layers" => schema::layers(),
        _ => schema::filters_file(),
    };
    let keys = partition_keys.iter().map(|key| Arc::new(Field::new(*key, arrow::datatypes::DataType::Utf8, false)));
    let fields: Vec<_> = schema.fields().iter().cloned().chain(keys).collect();
    let columns = delta_schema(store, &Schema::new(fields))?;
    CreateBuilder::new()
        .with_log_store(handle(store, table)?.log_store())
        .with_table_name(table)
        .with_columns(columns.fields().cloned())
        .with_partition_columns(partition_keys.iter().copied())
        // Another process may create it at the same moment.
        .with_save_mode(SaveMode::Ignore)
        .with_raise_if_key_not_exists(false)
        .with_configuration([(FORMAT_PROPERTY.to_owned(), Some(schema::FORMAT_VERSION.to_string()))])
        .await
        .map_err(|e| failed(store, &format!("the table '{table}' cannot be created"), e))
}

/// Arrow fields as Delta's.
pub(super) fn delta_schema(store: &Store, schema: &Schema) -> Result<StructType> {
    schema.try_into_kernel().map_err(|e| failed(store, "the schema does not fit Delta", e))
}

fn check_format(store: &Store, table: &str, delta: &DeltaTable) -> Result<()> {
    let state = delta.snapshot().map_err(|e| failed(store, "the log is not loaded", e))?;
    let found = state.metadata().configuration().get(FORMAT_PROPERTY).cloned();
    match found.as_deref().map(str::parse::<u32>) {
        Some(Ok(version)) if version <= schema::FORMAT_VERSION => Ok(()),
        _ => Err(Error::dataset(
            store.name(),
            format!(
                "the table '{table}' has the format {}, this filterdb reads formats up to {}",
                found.as_deref().unwrap_or("none"),
                schema::FORMAT_VERSION
            ),
        )),
    }
}

/// An error of the store or of the log.
pub(super) fn failed<E>(store: &Store, what: &str, source: E) -> Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    Error::Dataset { dataset: store.name().into(), reason: format!("{what}: {source}"), source: Some(Box::new(source)) }
}

/// Waits before another attempt, longer each time and not in step with others.
pub(super) async fn pause(attempt: u32) {
    let jitter = u64::from(Uuid::new_v4().as_bytes()[0]);
    tokio::time::sleep(Duration::from_millis((u64::from(attempt) * 20 + jitter).min(1000))).await;
}
