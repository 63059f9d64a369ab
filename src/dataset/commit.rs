//! An ingest: all of it becomes visible, or nothing.
//!
//! Order: the models' Parquet files, then rows of `models` and `layers`, then the commit to `filters`. Only the
//! last step makes anything visible, since readers pass over rows whose files `filters` does not hold.

use std::collections::{BTreeMap, HashMap};

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema};
use chrono::Utc;
use deltalake_core::DeltaTable;
use deltalake_core::kernel::schema::StructField;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake_core::kernel::{Action, Add, Remove};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutOptions};
use uuid::Uuid;

use super::encode::{Encoded, table_file};
use super::rows::{layers_batch, models_batch};
use super::snapshot::{Known, Snapshot};
use super::tables::{DataFile, Dataset, delta_schema, failed};
use crate::error::{Error, Result};
use crate::schema::{self, PARTITION_KEYS};
use crate::store::Store;

/// What an ingest does with a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is new.
    Added,
    /// It takes the place of a model of the same name.
    Replaced,
    /// The data set holds the same file with the same keys and metadata.
    Unchanged,
}

/// An ingest under way.
#[derive(Debug)]
pub struct Ingest {
    store: Store,
    /// `None` until the first commit where there is no data set yet: an ingest that fails makes none.
    dataset: Option<Dataset>,
    replace: bool,
    known: HashMap<String, Known>,
    uploaded: Vec<Encoded>,
    replaced: Vec<DataFile>,
}

impl Ingest {
    /// Starts an ingest into the data set at `location`, which may not be there yet. With `replace`, a model of a
    /// known name but other contents takes the old one's place; otherwise it is refused.
    ///
    /// # Errors
    /// [`Error::Dataset`], [`Error::Usage`] for an unknown scheme.
    pub async fn start(location: &str, replace: bool) -> Result<Self> {
        let store = Store::new(location)?;
        let dataset = Dataset::find(store.clone()).await?;
        let known = match &dataset {
            Some(dataset) => Snapshot::read(dataset).await?.known()?,
            None => HashMap::new(),
        };
        Ok(Ingest { store, dataset, replace, known, uploaded: Vec::new(), replaced: Vec::new() })
    }

    /// Stores a model's filters, unless the data set has them. Nothing is visible before [`Ingest::commit`].
    ///
    /// # Errors
    /// [`Error::Model`] for another model of the same name, [`Error::Dataset`].
    pub async fn add(&mut self, mut encoded: Encoded) -> Result<Outcome> {
        let record = &encoded.record;
        let mut outcome = Outcome::Added;
        if let Some(known) = self.known.get(&record.model) {
            match known.difference(record) {
                None => return Ok(Outcome::Unchanged),
                Some(difference) if !self.replace => {
                    let reason = format!(
                        "the data set has a model '{}' already, {difference}; --replace replaces it, a column 'model' in --metadata names this one otherwise",
                        record.model
                    );
                    return Err(Error::model(&record.file, "", reason));
                }
                Some(_) => {
                    outcome = Outcome::Replaced;
                    self.replaced.extend(known.files.iter().cloned());
                }
            }
        }
        let bytes = std::mem::take(&mut encoded.bytes);
        self.put("filters", &encoded.path, bytes).await?;
        self.uploaded.push(encoded);
        Ok(outcome)
    }

    /// Makes everything that was added visible at once. The version is the new one, or `None` where nothing
    /// was to be done.
    ///
    /// # Errors
    /// [`Error::Dataset`]; nothing is visible then.
    pub async fn commit(mut self) -> Result<Option<u64>> {
        if self.uploaded.is_empty() {
            return Ok(None);
        }
        match self.write_logs().await {
            Ok(version) => Ok(Some(version)),
            Err(error) => {
                self.abort().await;
                Err(error)
            }
        }
    }

    /// Gives up: removes what was stored, as far as that is possible. What stays is garbage, never visible.
    pub async fn abort(self) {
        for encoded in &self.uploaded {
            if let Ok(store) = self.store.table_store("filters")
                && let Ok(path) = Path::parse(&encoded.path)
            {
                let _ = store.delete(&path).await;
            }
        }
    }

    async fn write_logs(&mut self) -> Result<u64> {
        let mut dataset = match self.dataset.take() {
            Some(dataset) => dataset,
            None => Dataset::create(self.store.clone()).await?,
        };
        self.add_metadata_columns(&mut dataset).await?;
        let models = models_batch(&self.uploaded, &dataset.columns("models")?);
        let models = models.map_err(|e| failed(&self.store, "the models cannot be written", e))?;
        let layers =
            layers_batch(&self.uploaded).map_err(|e| failed(&self.store, "the layers cannot be written", e))?;
        for (table, batch) in [("models", models), ("layers", layers)] {
            let add = self.put_table_file(table, &batch).await?;
            let handle = if table == "models" { &mut dataset.models } else { &mut dataset.layers };
            let appended = append(handle, vec![Action::Add(add)], &[]).await;
            appended.map_err(|e| failed(&self.store, &format!("the commit to '{table}' failed"), e))?;
        }
        let now = Utc::now().timestamp_millis();
        let adds = self
            .uploaded
            .iter()
            .map(|encoded| Action::Add(add(&encoded.path, encoded.size, now, encoded.keys(), encoded.stats.clone())));
        let removes = self.replaced.iter().map(|file| Action::Remove(remove(file, now)));
        let actions = adds.chain(removes).collect();
        let appended = append(&mut dataset.filters, actions, &PARTITION_KEYS).await;
        appended.map_err(|e| failed(&self.store, "the commit failed", e))?;
        Ok(dataset.version())
    }

    async fn put(&self, table: &str, path: &str, bytes: bytes::Bytes) -> Result<()> {
        let store = self.store.table_store(table)?;
        let path = Path::parse(path).map_err(|e| Error::dataset(self.store.name(), e.to_string()))?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        store
            .put_opts(&path, bytes.into(), options)
            .await
            .map_err(|e| failed(&self.store, "a file cannot be written", e))?;
        Ok(())
    }

    async fn put_table_file(&self, table: &str, batch: &RecordBatch) -> Result<Add> {
        let bytes = table_file(batch).map_err(|e| failed(&self.store, "a table cannot be written", e))?;
        let path = format!("{}.parquet", Uuid::new_v4());
        let size = bytes.len();
        self.put(table, &path, bytes).await?;
        let stats = serde_json::json!({ "numRecords": batch.num_rows() }).to_string();
        Ok(add(&path, size, Utc::now().timestamp_millis(), HashMap::new(), stats))
    }

    /// Adds the new models' free metadata columns that `models` does not have yet.
    async fn add_metadata_columns(&self, dataset: &mut Dataset) -> Result<()> {
        let existing = dataset.columns("models")?;
        let known = |name: &str| existing.fields().iter().any(|field| field.name().eq_ignore_ascii_case(name));
        let mut fields: BTreeMap<String, FieldRef> = BTreeMap::new();
        for (name, _) in self.uploaded.iter().flat_map(|encoded| &encoded.record.metadata) {
            if !known(name) {
                fields.entry(name.to_lowercase()).or_insert_with(|| schema::metadata_field(name));
            }
        }
        if fields.is_empty() {
            return Ok(());
        }
        let schema = delta_schema(&self.store, &Schema::new(fields.into_values().collect::<Vec<_>>()))?;
        let fields: Vec<StructField> = schema.fields().cloned().collect();
        let added = dataset.models.clone().add_columns().with_fields(fields).await;
        dataset.models = added.map_err(|e| failed(&self.store, "the metadata columns cannot be added", e))?;
        Ok(())
    }
}

fn add(path: &str, size: usize, now: i64, keys: HashMap<String, Option<String>>, stats: String) -> Add {
    Add {
        path: path.to_owned(),
        partition_values: keys,
        size: size as i64,
        modification_time: now,
        data_change: true,
        stats: Some(stats),
        ..Add::default()
    }
}

fn remove(file: &DataFile, now: i64) -> Remove {
    Remove {
        path: file.path.clone(),
        data_change: true,
        deletion_timestamp: Some(now),
        extended_file_metadata: Some(true),
        partition_values: Some(file.keys.clone()),
        size: Some(file.size as i64),
        ..Remove::default()
    }
}

async fn append(
    table: &mut DeltaTable,
    actions: Vec<Action>,
    partition_by: &[&str],
) -> deltalake_core::DeltaResult<()> {
    let operation = DeltaOperation::Write {
        mode: SaveMode::Append,
        partition_by: (!partition_by.is_empty()).then(|| partition_by.iter().map(|key| key.to_string()).collect()),
        predicate: None,
    };
    let state = table.snapshot()?.snapshot().clone();
    CommitBuilder::from(CommitProperties::default())
        .with_actions(actions)
        .build(Some(&state), table.log_store(), operation)
        .await?;
    table.update_state().await
}
