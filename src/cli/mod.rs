//! The command line: parse, call, print. One file per subcommand.

mod ingest;
mod inspect;
mod models;
mod output;
mod prompt;
mod query;
mod table;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::{Error, Result};

/// What a thread may use of its stack: plans of nested expressions recurse deeply.
const STACK: usize = 32 << 20;

/// Threads beside one a core: a plan may keep every core busy for long without a pause, and Ctrl-C must be heard.
const SPARE: usize = 2;

/// A columnar database of trained convolution filters.
///
/// Model files go in, partitioned Parquet comes out, and any comparison of meta-groups is one SQL query.
#[derive(Debug, Parser)]
#[command(name = "filterdb", version, max_term_width = 100, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ingest(ingest::Arguments),
    Query(query::Arguments),
    Models(models::Arguments),
    Inspect(inspect::Arguments),
}

/// Runs the command line of this process: 0 for success, 1 for an error, 2 for wrong usage, 130 for Ctrl-C.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK)
        .worker_threads(cores + SPARE)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => return fail(&Error::io("tokio runtime", e)),
    };
    // On a worker, whose stack is of our size; the main thread's is the shell's affair.
    let result = runtime.block_on(async { tokio::spawn(run(arguments.command)).await });
    // A query that was stopped may still compute: nobody waits for it.
    runtime.shutdown_background();
    match result {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => fail(&error),
        // The panic has printed its own message.
        Err(_) => ExitCode::from(1),
    }
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Ingest(arguments) => ingest::run(arguments).await,
        Command::Query(arguments) => query::run(arguments).await.map(|()| ExitCode::SUCCESS),
        Command::Models(arguments) => models::run(arguments).await.map(|()| ExitCode::SUCCESS),
        Command::Inspect(arguments) => inspect::run(arguments).map(|()| ExitCode::SUCCESS),
    }
}

fn fail(error: &Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    if matches!(error, Error::Interrupted) {
        return ExitCode::from(130);
    }
    report(error);
    ExitCode::from(if error.is_usage() { 2 } else { 1 })
}

/// Prints an error on stderr: one line, whatever its sources wrote.
fn report(error: &Error) {
    let text = error.to_string();
    let line: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // Nobody is left to tell where stderr is closed.
    let _ = writeln!(std::io::stderr(), "error: {}", line.join(" "));
}

/// `filterdb query ... | head` is no error.
fn is_broken_pipe(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Whether a person reads what we print.
fn on_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// An error of writing to stdout.
fn stdout_error(source: std::io::Error) -> Error {
    Error::io("standard output", source)
}

/// `n` with a comma between thousands.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 model`, `2 models`.
fn count(n: u64, what: &str) -> String {
    format!("{} {what}{}", thousands(n), if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_fit_together() {
        super::Arguments::command().debug_assert();
    }

    #[test]
    fn thousands_are_grouped() {
        let grouped = [0, 999, 1000, 3_682_986].map(super::thousands);
        assert_eq!(grouped, ["0", "999", "1,000", "3,682,986"]);
    }
}
