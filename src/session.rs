//! The only constructor of a DataFusion session: the data set's tables, the views, the functions, the settings.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::{MemTable, MemorySchemaProvider, SchemaProvider};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::{DFParserBuilder, Statement};

use crate::dataset::{Dataset, FileTable, FilterTable, Snapshot};
use crate::error::{Error, Result};
use crate::functions::{self, Function};
use crate::subquery;

/// The views, by name: every file of `sql/views`, in the order in which they build on one another.
pub const VIEWS: [(&str, &str); 2] =
    [("models", include_str!("../sql/views/models.sql")), ("layers", include_str!("../sql/views/layers.sql"))];

/// How queries run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Partitions of a plan; the number of cores by default.
    pub target_partitions: Option<usize>,
    /// Rows of a batch; 8,192 by default.
    pub batch_size: Option<usize>,
    /// Bytes that sorts, joins and aggregates may hold; unlimited by default.
    pub memory_limit: Option<usize>,
}

/// A data set opened for queries, at one version.
#[derive(Clone)]
pub struct Session {
    context: SessionContext,
    version: u64,
    scans: Arc<AtomicUsize>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Session {
    /// Opens the data set at `location`.
    ///
    /// # Errors
    /// [`Error::Dataset`] where there is none or its log cannot be read.
    pub async fn open(location: &str, options: &Options) -> Result<Self> {
        let dataset = Dataset::open(location).await?;
        let snapshot = Snapshot::read(&dataset).await?;
        let session = Self::empty(options)?;
        let store = dataset.store();
        let context = &session.context;
        context.register_object_store(&store.root_url(), Arc::clone(store.root()));
        let filters = FilterTable::new(&snapshot, store)?.counting(Arc::clone(&session.scans));
        context.register_table("filters", Arc::new(filters))?;
        let stored = MemorySchemaProvider::new();
        let models = MemTable::try_new(snapshot.models.schema(), vec![vec![snapshot.models.clone()]])?;
        stored.register_table("models".into(), Arc::new(models))?;
        stored.register_table("layers".into(), Arc::new(FileTable::layers(&snapshot, store)?))?;
        let catalog = context.catalog("datafusion").ok_or_else(|| Error::dataset(location, "has no catalog"))?;
        catalog.register_schema("stored", Arc::new(stored))?;
        for (name, sql) in VIEWS {
            context.sql(&format!("CREATE VIEW {name} AS {sql}")).await?;
        }
        Ok(Session { version: snapshot.version, ..session })
    }

    /// A session with the functions and no data set.
    ///
    /// # Errors
    /// [`Error::Query`] for settings that the engine does not take.
    pub fn empty(options: &Options) -> Result<Self> {
        let mut config = SessionConfig::new().with_information_schema(true);
        if let Some(partitions) = options.target_partitions {
            config = config.with_target_partitions(partitions);
        }
        if let Some(rows) = options.batch_size {
            config = config.with_batch_size(rows);
        }
        // A model is a few megabytes and a layer a row group: worth spreading from the start.
        config.options_mut().optimizer.repartition_file_min_size = 1 << 20;
        // The rule refuses valid plans of two subqueries whose fields have one name, and structs are not what is stored here.
        config.options_mut().optimizer.enable_leaf_expression_pushdown = false;
        let mut runtime = RuntimeEnvBuilder::new();
        if let Some(bytes) = options.memory_limit {
            runtime = runtime.with_memory_limit(bytes, 1.0);
        }
        let context = SessionContext::new_with_config_rt(config, runtime.build_arc()?);
        // A user's own labels are a join away: FROM 'labels.csv'.
        let context = context.enable_url_table();
        for function in functions::all() {
            match function {
                Function::Scalar(function) => context.register_udf(function),
                Function::Aggregate(function) => context.register_udaf(function),
            }
        }
        Ok(Session { context, version: 0, scans: Arc::default() })
    }

    /// The version of the data set.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How often `filters` was scanned so far.
    pub fn filter_scans(&self) -> usize {
        self.scans.load(Ordering::Relaxed)
    }

    /// The engine's session, for what is not wrapped here. Scalar subqueries of queries run through it directly
    /// are not shared.
    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    /// The statements of an SQL text.
    ///
    /// # Errors
    /// [`Error::Query`].
    pub fn parse(&self, sql: &str) -> Result<Vec<Statement>> {
        let statements = DFParserBuilder::new(sql).build()?.parse_statements()?;
        Ok(statements.into())
    }

    /// The plan of a statement, scalar subqueries evaluated.
    ///
    /// # Errors
    /// [`Error::Query`].
    pub async fn plan(&self, statement: Statement) -> Result<LogicalPlan> {
        let plan = self.context.state().statement_to_plan(statement).await?;
        // What is kept to be run later has the values of then.
        let kept = matches!(
            plan,
            LogicalPlan::Ddl(DdlStatement::CreateView(_))
                | LogicalPlan::Statement(datafusion::logical_expr::Statement::Prepare(_))
        );
        if kept {
            return Ok(plan);
        }
        Ok(subquery::fold(&self.context, plan).await?)
    }

    /// Runs a statement; rows come as they are made.
    ///
    /// # Errors
    /// [`Error::Query`].
    pub async fn run(&self, statement: Statement) -> Result<SendableRecordBatchStream> {
        let plan = self.plan(statement).await?;
        Ok(self.context.execute_logical_plan(plan).await?.execute_stream().await?)
    }

    /// All rows of the last statement of `sql`; those before it are run too.
    ///
    /// # Errors
    /// [`Error::Query`].
    pub async fn query(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        for statement in self.parse(sql)? {
            let plan = self.plan(statement).await?;
            batches = self.context.execute_logical_plan(plan).await?.collect().await?;
        }
        Ok(batches)
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        let text = error.find_root().strip_backtrace();
        let line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
        Error::Query { reason: plain(&line).to_owned(), source: Some(Box::new(error)) }
    }
}

/// The message without the engine's words around it, which say where it noticed, not what is wrong.
fn plain(text: &str) -> &str {
    // A function's own planning error stands between two general ones.
    let text = text.split_once("coercion failed with: ").map_or(text, |(_, inner)| inner);
    let text = text.split_once(" No function matches the given name").map_or(text, |(own, _)| own);
    let mut text = text.trim_end_matches('.');
    for prefix in
        ["Execution error: ", "Error during planning: ", "Optimizer rule 'simplify_expressions' failed caused by "]
    {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    text
}
