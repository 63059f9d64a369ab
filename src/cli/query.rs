//! `filterdb query`.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use clap::Args;

use super::output::{Format, Output};
use super::{on_terminal, prompt};
use crate::error::{Error, Result};
use crate::session::{Options, Session};

/// Ask a data set in SQL.
///
/// Tables: `filters` (one row per filter: weights, keys, metadata), `layers`, `models`. Functions: filter_scale,
/// filter_range, pca_fit, pca_transform, coef_range, coef_hist, kl_shift, sym_kl_shift, pca_merge,
/// coef_hist_merge (the prompt's \f describes them). Without SQL: a prompt on a terminal, standard input otherwise.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Folder or URL (s3://bucket/prefix) of the data set
    dataset: String,
    /// One or more statements, separated by semicolons; `-` reads standard input
    #[arg(conflicts_with = "file")]
    sql: Option<String>,
    /// Read the statements from a file
    #[arg(short, long, value_name = "FILE.sql")]
    file: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArguments,
}

/// How rows are printed; the same for every command that prints rows.
#[derive(Debug, Args)]
pub(super) struct OutputArguments {
    /// table, csv (nested values as JSON), json (one array of row objects), parquet or arrow (IPC); by default a table
    /// on a terminal and JSON in a pipe
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write to a file instead of standard output; its ending tells the format where --format does not
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl OutputArguments {
    pub(super) fn output(&self) -> Result<Output> {
        let by_ending = || self.output.as_ref().and_then(|path| Format::of_ending(path));
        let default = if self.output.is_none() && on_terminal() { Format::Table } else { Format::Json };
        Output::new(self.format.or_else(by_ending).unwrap_or(default), self.output.clone())
    }
}

pub(super) async fn run(arguments: Arguments) -> Result<()> {
    let sql = match (&arguments.sql, &arguments.file) {
        (Some(sql), _) if sql != "-" => Some(sql.clone()),
        (None, Some(file)) => Some(std::fs::read_to_string(file).map_err(|e| Error::io(file, e))?),
        (None, None) if std::io::stdin().is_terminal() => None,
        _ => Some(standard_input()?),
    };
    let output = arguments.output.output()?;
    let session = Session::open(&arguments.dataset, &Options::default()).await?;
    match sql {
        Some(sql) => interruptible(&session, &sql, &output).await,
        None => prompt::run(&session, &output).await,
    }
}

fn standard_input() -> Result<String> {
    let mut sql = String::new();
    std::io::stdin().read_to_string(&mut sql).map_err(|e| Error::io("standard input", e))?;
    Ok(sql)
}

/// [`execute`] until Ctrl-C. On a task of its own: a plan that computes for long without a pause must not keep the
/// signal from being seen.
pub(super) async fn interruptible(session: &Session, sql: &str, output: &Output) -> Result<()> {
    let (session, sql, output) = (session.clone(), sql.to_owned(), output.clone());
    let mut task = tokio::spawn(async move { execute(&session, &sql, &output).await });
    tokio::select! {
        done = &mut task => done.unwrap_or_else(|e| Err(Error::Query { reason: e.to_string(), source: Some(Box::new(e)) })),
        _ = tokio::signal::ctrl_c() => {
            task.abort();
            Err(Error::Interrupted)
        }
    }
}

/// Runs the statements one after the other, and writes the rows of each that has any columns.
pub(super) async fn execute(session: &Session, sql: &str, output: &Output) -> Result<()> {
    let statements = session.parse(sql)?;
    if statements.is_empty() {
        return Err(Error::Usage("expected a SQL statement, found none".into()));
    }
    let mut written = false;
    for statement in statements {
        let rows = session.run(statement).await?;
        if rows.schema().fields().is_empty() {
            continue;
        }
        if written && output.holds_one_result() {
            return Err(Error::Usage(
                "expected one statement that returns rows: a file, or Parquet and Arrow, hold one result".into(),
            ));
        }
        output.write(rows).await?;
        written = true;
    }
    Ok(())
}
