//! The SQL contract: every file of `tests/slt`, on the real data set, at several batch sizes.

use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use filterdb::error::Error;
use filterdb::session::Session;
use futures::TryStreamExt;
use sqllogictest::{DBOutput, DefaultColumnType};

use crate::support::{block_on, root, session};

struct Database {
    session: Session,
}

#[async_trait]
impl sqllogictest::AsyncDB for Database {
    type Error = Error;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Error> {
        let mut statements = self.session.parse(sql)?;
        let stream = self.session.run(statements.remove(0)).await?;
        let schema = stream.schema();
        let batches: Vec<RecordBatch> = stream.try_collect().await?;
        if schema.fields().is_empty() {
            return Ok(DBOutput::StatementComplete(0));
        }
        let types = vec![DefaultColumnType::Any; schema.fields().len()];
        let options = FormatOptions::default().with_null("NULL");
        let mut rows = Vec::new();
        for batch in &batches {
            let columns: Vec<ArrayFormatter> = batch
                .columns()
                .iter()
                .map(|column| ArrayFormatter::try_new(column, &options).expect("a column"))
                .collect();
            for row in 0..batch.num_rows() {
                let cell = |column: &ArrayFormatter| match column.value(row).to_string() {
                    empty if empty.is_empty() => "(empty)".to_owned(),
                    text => text,
                };
                rows.push(columns.iter().map(cell).collect());
            }
        }
        Ok(DBOutput::Rows { types, rows })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "filterdb"
    }
}

fn files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(root().join("tests/slt")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_file_holds_at_several_batch_sizes() {
    let files = files();
    assert!(files.len() >= 10);
    for (partitions, batch_size) in [(2, 8192), (1, 2), (7, 1000)] {
        for file in &files {
            // A scan of all real filters two rows at a time takes minutes.
            if batch_size < 100 && std::fs::read_to_string(file).unwrap().contains("FROM filters") {
                continue;
            }
            let session = session(partitions, batch_size);
            let mut runner = sqllogictest::Runner::new(|| {
                let session = session.clone();
                async move { Ok(Database { session }) }
            });
            let done = block_on(runner.run_file_async(file));
            done.unwrap_or_else(|e| {
                panic!("{}, {partitions} partitions, batches of {batch_size}: {e}", file.display())
            });
        }
    }
}
