//! The prompt of `filterdb query`: history, several lines, completion of names; Ctrl-C stops the query, not the prompt.

use std::borrow::Cow;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use arrow::array::AsArray;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Context, Editor, Helper};

use super::output::Output;
use super::query::interruptible;
use super::{count, report, stdout_error};
use crate::error::{Error, Result};
use crate::functions;
use crate::session::Session;

const HELP: &str = "\
A statement ends with a semicolon and may span lines. Tab completes names, Ctrl-C stops a query, Ctrl-D leaves.
  \\d        tables and columns
  \\f        functions
  \\q        leave";

const TABLES: &str = "SELECT table_name, column_name, data_type FROM information_schema.columns \
    WHERE table_schema = 'public' ORDER BY table_name, ordinal_position";

/// Our own functions; the engine's are in its manual.
fn functions() -> String {
    let all = functions::all();
    let documented = all.iter().filter_map(|function| function.documentation());
    let lines = documented.map(|function| format!("{}\n    {}", function.syntax_example, function.description));
    lines.collect::<Vec<_>>().join("\n")
}

pub(super) async fn run(session: &Session, output: &Output) -> Result<()> {
    let failed = |e: ReadlineError| Error::io("the prompt", std::io::Error::other(e.to_string()));
    let config = Config::builder().auto_add_history(true).max_history_size(10_000).map_err(failed)?.build();
    let mut editor: Editor<Sql, DefaultHistory> = Editor::with_config(config).map_err(failed)?;
    editor.set_helper(Some(Sql { names: names(session).await? }));
    let history = history_file();
    if let Some(path) = &history {
        // None yet, at the first start.
        let _ = editor.load_history(path);
    }
    say(&format!("{}; \\? for help", count(session.version(), "commit")))?;
    loop {
        let line = tokio::task::block_in_place(|| editor.readline("filterdb> "));
        match line {
            Ok(line) => {
                if let Some(path) = &history {
                    let _ = editor.append_history(path);
                }
                if !handle(session, output, line.trim()).await? {
                    return Ok(());
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Runs a line; `false` ends the prompt.
async fn handle(session: &Session, output: &Output, line: &str) -> Result<bool> {
    let sql = match line {
        "" => return Ok(true),
        "\\q" | "exit" | "quit" | "exit;" | "quit;" => return Ok(false),
        "\\?" | "\\h" | "help" | "help;" => {
            say(HELP)?;
            return Ok(true);
        }
        "\\d" => TABLES,
        "\\f" => {
            say(&functions())?;
            return Ok(true);
        }
        sql => sql,
    };
    let start = Instant::now();
    match interruptible(session, sql, output).await {
        Ok(()) => say(&format!("{:.3} s", start.elapsed().as_secs_f64()))?,
        Err(Error::Interrupted) => say("stopped")?,
        Err(error) => report(&error),
    }
    Ok(true)
}

fn say(text: &str) -> Result<()> {
    writeln!(std::io::stderr(), "{text}").map_err(stdout_error)
}

/// `$XDG_STATE_HOME/filterdb/history`, or below `~/.local/state`.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.filter(|path| path.is_absolute()).or_else(|| Some(std::env::home_dir()?.join(".local/state")))?;
    let folder = state.join("filterdb");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}

/// What Tab completes: tables, columns, functions.
async fn names(session: &Session) -> Result<Vec<String>> {
    let sql = "SELECT CAST(column_name AS VARCHAR) FROM information_schema.columns WHERE table_schema = 'public' \
        UNION SELECT CAST(table_name AS VARCHAR) FROM information_schema.tables WHERE table_schema = 'public' \
        UNION SELECT CAST(routine_name AS VARCHAR) FROM information_schema.routines ORDER BY 1";
    let mut names: Vec<String> = functions::all().iter().map(|function| function.name().to_owned()).collect();
    for batch in session.query(sql).await? {
        let column = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8)
            .map_err(datafusion::error::DataFusionError::from)?;
        names.extend(column.as_string::<i32>().iter().flatten().map(str::to_owned));
    }
    Ok(names)
}

/// The editor's knowledge of SQL.
struct Sql {
    names: Vec<String>,
}

impl Completer for Sql {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let start = line[..pos].rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |i| i + 1);
        let word = line[start..pos].to_lowercase();
        if word.is_empty() {
            return Ok((pos, Vec::new()));
        }
        Ok((start, self.names.iter().filter(|name| name.to_lowercase().starts_with(&word)).cloned().collect()))
    }
}

impl Validator for Sql {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let line = context.input().trim();
        let command = line.is_empty() || line.starts_with('\\') || ["exit", "quit", "help"].contains(&line);
        Ok(if command || line.ends_with(';') { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Hinter for Sql {
    type Hint = String;
}

impl Highlighter for Sql {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _default: bool) -> Cow<'b, str> {
        Cow::Borrowed(prompt)
    }
}

impl Helper for Sql {}
