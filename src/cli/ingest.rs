//! `filterdb ingest`.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc;

use super::table::table;
use super::{count, report, stdout_error, thousands};
use crate::dataset::{self, Encoded, Ingest, Outcome};
use crate::error::{Error, Result, printable};
use crate::ingest::{self, Extracted, Metadata, Options, Skipped};
use crate::schema::UNKNOWN;

/// Metadata rows without a file that are named; one CSV often describes more than one ingest takes in.
const UNMATCHED_SHOWN: usize = 3;

/// Models that are extracted and wait to be stored.
const WAITING: usize = 2;

/// Take model files into a data set, which is made if it is not there.
///
/// Formats (told by content): ONNX, PyTorch (.pt, .pth), safetensors, Keras HDF5. A folder is walked. All files
/// become visible at once, or none; a file that the data set holds already, with the same keys and metadata,
/// changes nothing.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Folder or URL (s3://bucket/prefix) of the data set
    dataset: String,
    /// Model files, and folders of them
    #[arg(required = true, value_name = "FILE|DIR")]
    inputs: Vec<PathBuf>,
    /// CSV that describes the files: a column `file` (path, matched from its end) or `model` names the row's file;
    /// `model`, `task` and `data_type` are keys; every other column becomes a column of `models` and `filters`
    #[arg(long, value_name = "CSV")]
    metadata: Option<PathBuf>,
    /// The task of files to which the CSV gives none
    #[arg(long)]
    task: Option<String>,
    /// The type of training data of files to which the CSV gives none
    #[arg(long)]
    data_type: Option<String>,
    /// Refuse NaN and infinite weights (they are stored, counted and left out of every statistic otherwise)
    #[arg(long)]
    strict: bool,
    /// Replace models of the same name whose file or metadata differ
    #[arg(long)]
    replace: bool,
    /// Take in the good files where some are bad; the exit code is 1 all the same
    #[arg(long)]
    keep_going: bool,
}

type Results = mpsc::Receiver<(usize, Result<Extracted<Encoded>>)>;

pub(super) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let metadata = arguments.metadata.as_deref().map(Metadata::open).transpose()?;
    let (files, links) = ingest::walk(&arguments.inputs)?;
    let options = Options { metadata, task: arguments.task, data_type: arguments.data_type, strict: arguments.strict };
    ingest::names(&files, &options)?;
    let mut summary = Summary::new(files.len(), links, &options, &files);
    let mut ingest = Ingest::start(&arguments.dataset, arguments.replace).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let expected = files.len();
    let mut results = extract(files, options, Arc::clone(&stop));
    let added = tokio::select! {
        added = add_all(&mut ingest, &mut results, &mut summary, arguments.keep_going) => added,
        _ = tokio::signal::ctrl_c() => Err(Error::Interrupted),
    };
    stop.store(true, Ordering::Relaxed);
    let added = added.and_then(|received| match received {
        received if received == expected => Ok(()),
        // A reader died; what it would have read must not be missing unseen.
        received => Err(Error::dataset(
            printable(&arguments.dataset),
            format!("nothing was stored: expected {expected} files to be read, {received} were"),
        )),
    });
    if let Err(error) = added {
        ingest.abort().await;
        return Err(error);
    }
    let version = ingest.commit().await?;
    summary.print(&arguments.dataset, version).map_err(stdout_error)?;
    Ok(ExitCode::from(u8::from(summary.failed > 0)))
}

/// Extracts on the cores' threads; results come through a short channel, so that a slow store holds the cores
/// back rather than filling the memory.
fn extract(files: Vec<PathBuf>, options: Options, stop: Arc<AtomicBool>) -> Results {
    let (sender, receiver) = mpsc::channel(WAITING);
    std::thread::spawn(move || {
        ingest::extract(&files, &options, &|| stop.load(Ordering::Relaxed), dataset::encode, |index, result| {
            // The receiver is gone when the ingest has failed or was stopped.
            let _ = sender.blocking_send((index, result));
        });
    });
    receiver
}

/// Adds what comes; the number of files that came.
async fn add_all(ingest: &mut Ingest, results: &mut Results, summary: &mut Summary, keep_going: bool) -> Result<usize> {
    let mut received = 0;
    while let Some((index, result)) = results.recv().await {
        received += 1;
        let added = match result {
            Ok(extracted) => add(ingest, extracted).await,
            Err(error) => Err(error),
        };
        match added {
            Ok(line) => summary.lines.insert(index, line),
            Err(error) if keep_going => {
                summary.progress.suspend(|| report(&error));
                summary.failed += 1;
                None
            }
            Err(error) => return Err(error),
        };
        summary.progress.inc(1);
    }
    Ok(received)
}

async fn add(ingest: &mut Ingest, extracted: Extracted<Encoded>) -> Result<Line> {
    let Extracted { format, model, record, skipped, .. } = extracted;
    let mut line =
        Line { model, format, layers: 0, filters: 0, nonfinite: 0, outcome: None, unknown: Vec::new(), skipped };
    if let Some(encoded) = record {
        line.layers = encoded.record.layers.len();
        line.filters = encoded.n_filters() as u64;
        line.nonfinite = encoded.record.n_nonfinite();
        for (key, value) in [("task", &encoded.record.task), ("data_type", &encoded.record.data_type)] {
            if value == UNKNOWN {
                line.unknown.push(key);
            }
        }
        line.outcome = Some(ingest.add(encoded).await?);
    }
    Ok(line)
}

/// A model in the summary.
struct Line {
    model: String,
    format: &'static str,
    layers: usize,
    filters: u64,
    nonfinite: u64,
    /// `None`: it has no 3x3 convolution.
    outcome: Option<Outcome>,
    unknown: Vec<&'static str>,
    skipped: Vec<Skipped>,
}

impl Line {
    fn remarks(&self) -> String {
        let mut remarks: Vec<String> = match self.outcome {
            None => vec!["no 3x3 convolution, not stored".into()],
            Some(Outcome::Added) => Vec::new(),
            Some(Outcome::Replaced) => vec!["replaced".into()],
            Some(Outcome::Unchanged) => vec!["unchanged".into()],
        };
        if self.nonfinite > 0 {
            remarks.push(format!("{} with NaN or infinity", count(self.nonfinite, "filter")));
        }
        // Many layers share one reason.
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for skipped in &self.skipped {
            reasons.entry(&skipped.reason).or_default().push(&skipped.name);
        }
        for (reason, names) in reasons {
            let more = names.len() - 1;
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            remarks.push(format!("skipped {}{more}: {}", printable(names[0]), printable(reason)));
        }
        remarks.join("; ")
    }
}

/// What happened, for the end.
struct Summary {
    progress: ProgressBar,
    lines: BTreeMap<usize, Line>,
    links: Vec<Skipped>,
    unmatched: Vec<(u64, String)>,
    failed: usize,
}

impl Summary {
    fn new(files: usize, links: Vec<Skipped>, options: &Options, paths: &[PathBuf]) -> Self {
        let target =
            if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} models  {elapsed} (about {eta} left)");
        let progress = ProgressBar::with_draw_target(Some(files as u64), target)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let unmatched = options.metadata.as_ref().map(|metadata| metadata.unmatched(paths)).unwrap_or_default();
        Summary { progress, lines: BTreeMap::new(), links, unmatched, failed: 0 }
    }

    fn print(&self, dataset: &str, version: Option<u64>) -> std::io::Result<()> {
        self.progress.finish_and_clear();
        let rows = self.lines.values().map(|line| {
            let remarks = line.remarks();
            vec![
                printable(&line.model),
                line.format.to_owned(),
                thousands(line.layers as u64),
                thousands(line.filters),
                remarks,
            ]
        });
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", table(&["model", "format", "layers", "filters", "remarks"], &[2, 3], rows))?;
        let stored = self.lines.values().filter(|line| line.outcome.is_some());
        let (models, layers, filters) = stored.fold((0, 0, 0), |(models, layers, filters), line| {
            (models + 1, layers + line.layers as u64, filters + line.filters)
        });
        let done = match version {
            Some(version) => format!("{} is at version {version}", printable(dataset)),
            None => format!("nothing to do: {} is unchanged", printable(dataset)),
        };
        writeln!(
            out,
            "\n{}, {}, {}; {done}",
            count(models, "model"),
            count(layers, "layer"),
            count(filters, "filter")
        )?;
        self.print_notes()
    }

    fn print_notes(&self) -> std::io::Result<()> {
        let mut out = std::io::stderr().lock();
        for key in ["task", "data_type"] {
            let unknown: Vec<String> = self
                .lines
                .values()
                .filter(|line| line.unknown.contains(&key))
                .map(|line| printable(&line.model))
                .collect();
            if !unknown.is_empty() {
                let option = key.replace('_', "-");
                writeln!(
                    out,
                    "note: {key} is '{UNKNOWN}' for {} (--{option} or --metadata tells it)",
                    unknown.join(", ")
                )?;
            }
        }
        for (line, name) in self.unmatched.iter().take(UNMATCHED_SHOWN) {
            writeln!(out, "note: line {line} of the metadata is about '{name}', which is not among the files")?;
        }
        if self.unmatched.len() > UNMATCHED_SHOWN {
            let more = self.unmatched.len() - UNMATCHED_SHOWN;
            writeln!(out, "note: and {more} more such lines")?;
        }
        for link in &self.links {
            writeln!(out, "note: {} was passed over: {}", printable(&link.name), link.reason)?;
        }
        Ok(())
    }
}
