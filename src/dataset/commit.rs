//! An ingest: all of it becomes visible, or nothing.
//!
//! Order: the models' Parquet files, then rows of `models` and `layers`, then the commit to `filters`. Only the
//! last step makes anything visible, since readers pass over rows whose files `filters` does not hold.

use std::collections::{BTreeMap, HashMap};

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema};
use chrono::Utc;
use deltalake_core::kernel::schema::StructField;
use deltalake_core::kernel::transaction::CommitBuilder;
use deltalake_core::kernel::transaction::TransactionError;
use deltalake_core::kernel::{Action, Add, Remove};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::{DeltaTable, DeltaTableError};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutOptions};
use uuid::Uuid;

use super::encode::{Encoded, table_file};
use super::rows::{layers_batch, models_batch};
use super::snapshot::{Known, Snapshot};
use super::tables::{DataFile, Dataset, delta_schema, failed, pause};
use crate::error::{Error, Result};
use crate::schema::{self, PARTITION_KEYS};
use crate::store::Store;

/// How often a commit that others overtook is tried again.
const ATTEMPTS: u32 = 50;

/// How often anything else that failed is tried again: what fails for good should say so soon.
const TABLE_ATTEMPTS: u32 = 6;

/// As [`ATTEMPTS`], for commits that do not look at what others did: delta-rs tries these again by itself.
const RETRIES: usize = 50;

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
    /// Whether a commit was tried whose outcome is not known: nothing that it names may be deleted then.
    attempted: bool,
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
        Ok(Ingest { store, dataset, replace, known, uploaded: Vec::new(), attempted: false })
    }

    /// Stores a model's filters, unless the data set has them. Nothing is visible before [`Ingest::commit`].
    ///
    /// # Errors
    /// [`Error::Model`] for another model of the same name, [`Error::Dataset`].
    pub async fn add(&mut self, mut encoded: Encoded) -> Result<Outcome> {
        let outcome = self.outcome(&encoded, &self.known)?;
        if outcome == Outcome::Unchanged {
            return Ok(outcome);
        }
        let bytes = std::mem::take(&mut encoded.bytes);
        self.put("filters", &encoded.path, bytes).await?;
        self.uploaded.push(encoded);
        Ok(outcome)
    }

    /// What the data set's `known` models make of a model.
    fn outcome(&self, encoded: &Encoded, known: &HashMap<String, Known>) -> Result<Outcome> {
        let record = &encoded.record;
        let Some(known) = known.get(&record.model) else { return Ok(Outcome::Added) };
        match known.difference(record) {
            None => Ok(Outcome::Unchanged),
            Some(_) if self.replace => Ok(Outcome::Replaced),
            Some(difference) => {
                let reason = format!(
                    "the data set has a model '{}' already, {difference}; --replace replaces it, a column 'model' in --metadata names this one otherwise",
                    record.model
                );
                Err(Error::model(&record.file, "", reason))
            }
        }
    }

    /// Makes everything that was added visible at once. The version is the new one, or `None` where nothing
    /// was to be done.
    ///
    /// # Errors
    /// [`Error::Dataset`]; nothing is visible then, unless the message says that this is not known.
    pub async fn commit(mut self) -> Result<Option<u64>> {
        if self.uploaded.is_empty() {
            return Ok(None);
        }
        let committed = self.write_logs().await;
        if committed.is_err() && !self.attempted {
            self.abort().await;
        }
        committed
    }

    /// Gives up: removes what was stored, as far as that is possible. What stays is garbage, never visible.
    pub async fn abort(self) {
        self.discard().await;
    }

    async fn discard(&self) {
        for encoded in &self.uploaded {
            if let Ok(store) = self.store.table_store("filters")
                && let Ok(path) = Path::parse(&encoded.path)
            {
                let _ = store.delete(&path).await;
            }
        }
    }

    async fn write_logs(&mut self) -> Result<Option<u64>> {
        let mut dataset = match self.dataset.take() {
            Some(dataset) => dataset,
            None => Dataset::create(self.store.clone()).await?,
        };
        self.write_table(&mut dataset, "models").await?;
        self.write_table(&mut dataset, "layers").await?;
        self.commit_filters(&mut dataset).await
    }

    /// Rows of `models` or `layers`. After an error the log is read again: it may hold our file all the same, or another
    /// ingest may have added metadata columns at the same moment, and the rows are written once more on top of them.
    async fn write_table(&self, dataset: &mut Dataset, table: &str) -> Result<()> {
        let mut attempt = 1;
        loop {
            let mut path = None;
            let Err(error) = self.try_write_table(dataset, table, &mut path).await else { return Ok(()) };
            if attempt >= TABLE_ATTEMPTS {
                return Err(error);
            }
            pause(attempt).await;
            attempt += 1;
            let refreshed = dataset.refresh().await.is_ok();
            if refreshed && dataset.files(table)?.iter().any(|file| Some(&file.path) == path.as_ref()) {
                return Ok(());
            }
        }
    }

    /// One attempt; `path` is the file that it tried to commit.
    async fn try_write_table(&self, dataset: &mut Dataset, table: &str, path: &mut Option<String>) -> Result<()> {
        let batch = if table == "models" {
            self.add_metadata_columns(dataset).await?;
            models_batch(&self.uploaded, &dataset.columns("models")?)
        } else {
            layers_batch(&self.uploaded)
        };
        let batch = batch.map_err(|e| failed(&self.store, &format!("'{table}' cannot be written"), e))?;
        let add = self.put_table_file(table, &batch).await?;
        *path = Some(add.path.clone());
        let handle = if table == "models" { &dataset.models } else { &dataset.layers };
        let appended = append(handle, vec![Action::Add(add)], &[], RETRIES).await;
        appended.map(drop).map_err(|e| failed(&self.store, &format!("the commit to '{table}' failed"), e))
    }

    /// The commit that counts. It stands on exactly the version whose models were compared with ours; where another
    /// ingest was faster, they are compared again: one that took in the same model leaves nothing to do for it. After any
    /// other error the log is read again, which tells whether the commit is in it.
    async fn commit_filters(&mut self, dataset: &mut Dataset) -> Result<Option<u64>> {
        let mut attempt = 1;
        loop {
            match self.try_commit_filters(dataset).await {
                Err((_, again)) if attempt < again => pause(attempt).await,
                Err((error, _)) => return Err(error),
                Ok(version) => return Ok(version),
            }
            attempt += 1;
        }
    }

    /// One attempt; an error comes with the number of attempts that it is worth.
    async fn try_commit_filters(&mut self, dataset: &mut Dataset) -> Result<Option<u64>, (Error, u32)> {
        dataset.refresh().await.map_err(|e| (e, TABLE_ATTEMPTS))?;
        let snapshot = Snapshot::read(dataset).await.map_err(|e| (e, TABLE_ATTEMPTS))?;
        if self.attempted && self.uploaded.iter().any(|encoded| snapshot.holds(&encoded.data_id)) {
            return Ok(Some(snapshot.version));
        }
        let known = snapshot.known().map_err(|e| (e, 0))?;
        let actions = self.actions(&known).map_err(|e| (e, 0))?;
        if actions.is_empty() {
            if !self.attempted {
                self.discard().await;
            }
            return Ok(None);
        }
        let before = std::mem::replace(&mut self.attempted, true);
        match append(&dataset.filters, actions, &PARTITION_KEYS, 0).await {
            Ok(version) => Ok(Some(version)),
            Err(error) if is_overtaken(&error) => {
                self.attempted = before;
                Err((failed(&self.store, "the commit was overtaken by others too often", error), ATTEMPTS))
            }
            Err(error) => {
                let what = "the commit failed, and whether it is in the log is not known (it is safe to run again)";
                Err((failed(&self.store, what, error), TABLE_ATTEMPTS))
            }
        }
    }

    /// Adds of our models, removes of those whose place they take.
    fn actions(&self, known: &HashMap<String, Known>) -> Result<Vec<Action>> {
        let now = Utc::now().timestamp_millis();
        let mut actions = Vec::new();
        for encoded in &self.uploaded {
            match self.outcome(encoded, known)? {
                Outcome::Unchanged => continue,
                Outcome::Added => {}
                Outcome::Replaced => {
                    let files = known.get(&encoded.record.model).map(|known| known.files.as_slice());
                    actions.extend(files.unwrap_or_default().iter().map(|file| Action::Remove(remove(file, now))));
                }
            }
            let keys = encoded.keys();
            actions.push(Action::Add(add(&encoded.path, encoded.size, now, keys, encoded.stats.clone())));
        }
        Ok(actions)
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

/// Commits to a table's log; its version. No hooks: what fails after the commit (a checkpoint, say) must not look as if the
/// commit had failed.
async fn append(
    table: &DeltaTable,
    actions: Vec<Action>,
    partition_by: &[&str],
    retries: usize,
) -> deltalake_core::DeltaResult<u64> {
    let operation = DeltaOperation::Write {
        mode: SaveMode::Append,
        partition_by: (!partition_by.is_empty()).then(|| partition_by.iter().map(|key| key.to_string()).collect()),
        predicate: None,
    };
    let state = table.snapshot()?.snapshot().clone();
    let commit = CommitBuilder::default().with_actions(actions).with_max_retries(retries);
    let prepared = commit.build(Some(&state), table.log_store(), operation).into_prepared_commit_future().await?;
    Ok(prepared.await?.version)
}

/// Whether another commit came first: ours is not in the log.
fn is_overtaken(error: &DeltaTableError) -> bool {
    matches!(
        error,
        DeltaTableError::VersionAlreadyExists(_)
            | DeltaTableError::Transaction {
                source: TransactionError::VersionAlreadyExists(_)
                    | TransactionError::MaxCommitAttempts(_)
                    | TransactionError::CommitConflict(_)
            }
    )
}
