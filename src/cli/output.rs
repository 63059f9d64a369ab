//! Rows to a terminal, a pipe or a file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::writer::{FileWriter, StreamWriter};
use arrow::json::writer::{EncoderOptions, JsonArray, WriterBuilder, make_encoder};
use arrow::util::display::FormatOptions;
use arrow::util::pretty::pretty_format_batches_with_options;
use clap::ValueEnum;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use parquet::arrow::ArrowWriter;

use super::{on_terminal, stdout_error};
use crate::error::{Error, Result};

/// Rows that a terminal is shown; nobody scrolls through a million.
const SHOWN: usize = 500;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Csv,
    Json,
    Parquet,
    Arrow,
}

impl Format {
    /// The format that a file's ending names.
    pub fn of_ending(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "csv" => Some(Format::Csv),
            "json" => Some(Format::Json),
            "parquet" => Some(Format::Parquet),
            "arrow" | "feather" => Some(Format::Arrow),
            "txt" => Some(Format::Table),
            _ => None,
        }
    }
}

/// Where rows go, and how.
#[derive(Debug, Clone)]
pub(super) struct Output {
    format: Format,
    file: Option<PathBuf>,
}

impl Output {
    /// Refuses bytes that a terminal cannot show.
    pub fn new(format: Format, file: Option<PathBuf>) -> Result<Self> {
        if file.is_none() && on_terminal() && matches!(format, Format::Parquet | Format::Arrow) {
            return Err(Error::Usage(
                "Parquet and Arrow are not for a terminal: name a file with --output, or use a pipe".into(),
            ));
        }
        Ok(Output { format, file })
    }

    /// Whether a second result would overwrite the first or could not be told from it.
    pub fn holds_one_result(&self) -> bool {
        self.file.is_some() || matches!(self.format, Format::Parquet | Format::Arrow)
    }

    /// Writes all rows; a file appears only when it is whole.
    pub async fn write(&self, rows: SendableRecordBatchStream) -> Result<()> {
        let Some(path) = &self.file else {
            let out = BufWriter::new(std::io::stdout());
            return self.write_to(rows, out, on_terminal()).await;
        };
        let mut partial = path.clone().into_os_string();
        partial.push(format!(".partial-{}", std::process::id()));
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).map_err(|e| Error::io(path, e))?;
        let written = self.write_to(rows, BufWriter::new(file), false).await;
        let renamed = written.and_then(|()| std::fs::rename(&partial, path).map_err(|e| Error::io(path, e)));
        if renamed.is_err() {
            let _ = std::fs::remove_file(&partial);
        }
        renamed
    }

    async fn write_to(
        &self,
        mut rows: SendableRecordBatchStream,
        out: impl Write + Send,
        terminal: bool,
    ) -> Result<()> {
        let mut sink = Sink::new(self.format, self.file.is_some(), rows.schema(), out, terminal)?;
        while let Some(batch) = rows.next().await {
            sink.write(&batch?)?;
        }
        sink.finish()
    }
}

/// A writer of one format.
enum Sink<W: Write + Send> {
    Table { out: W, batches: Vec<RecordBatch>, schema: SchemaRef, terminal: bool },
    Csv { writer: Box<arrow::csv::Writer<W>>, schema: SchemaRef },
    Json(arrow::json::Writer<W, JsonArray>),
    Parquet(Box<ArrowWriter<W>>),
    ArrowFile(Box<FileWriter<W>>),
    ArrowStream(Box<StreamWriter<W>>),
}

impl<W: Write + Send> Sink<W> {
    fn new(format: Format, to_file: bool, schema: SchemaRef, out: W, terminal: bool) -> Result<Self> {
        Ok(match format {
            Format::Table => Sink::Table { out, batches: Vec::new(), schema, terminal },
            Format::Csv => {
                let schema = flat_schema(&schema);
                let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(out);
                // Without a row there would be no header either.
                writer.write(&RecordBatch::new_empty(Arc::clone(&schema))).map_err(written)?;
                Sink::Csv { writer: Box::new(writer), schema }
            }
            Format::Json => Sink::Json(WriterBuilder::new().with_explicit_nulls(true).build(out)),
            Format::Parquet => Sink::Parquet(Box::new(ArrowWriter::try_new(out, schema, None).map_err(written)?)),
            // A file can be read at any place; a pipe only from its beginning.
            Format::Arrow if to_file => Sink::ArrowFile(Box::new(FileWriter::try_new(out, &schema).map_err(written)?)),
            Format::Arrow => Sink::ArrowStream(Box::new(StreamWriter::try_new(out, &schema).map_err(written)?)),
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Sink::Table { batches, .. } => {
                batches.push(batch.clone());
                Ok(())
            }
            Sink::Csv { writer, schema } => writer.write(&flatten(batch, schema).map_err(written)?).map_err(written),
            Sink::Json(writer) => writer.write(batch).map_err(written),
            Sink::Parquet(writer) => writer.write(batch).map_err(written),
            Sink::ArrowFile(writer) => writer.write(batch).map_err(written),
            Sink::ArrowStream(writer) => writer.write(batch).map_err(written),
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Sink::Table { mut out, batches, schema, terminal } => {
                let text = as_table(&batches, &schema, terminal)?;
                writeln!(out, "{text}").and_then(|()| out.flush()).map_err(stdout_error)
            }
            Sink::Csv { writer, .. } => writer.into_inner().flush().map_err(stdout_error),
            Sink::Json(mut writer) => {
                writer.finish().map_err(written)?;
                let mut out = writer.into_inner();
                writeln!(out).and_then(|()| out.flush()).map_err(stdout_error)
            }
            Sink::Parquet(writer) => writer.into_inner().map_err(written)?.flush().map_err(stdout_error),
            Sink::ArrowFile(mut writer) => writer.finish().map_err(written),
            Sink::ArrowStream(mut writer) => writer.finish().map_err(written),
        }
    }
}

fn as_table(batches: &[RecordBatch], schema: &SchemaRef, terminal: bool) -> Result<String> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let mut left = if terminal { SHOWN } else { usize::MAX };
    let mut shown = Vec::with_capacity(batches.len() + 1);
    for batch in batches {
        let n = batch.num_rows().min(left);
        shown.push(batch.slice(0, n));
        left -= n;
    }
    shown.push(RecordBatch::new_empty(Arc::clone(schema)));
    let options = FormatOptions::default().with_null("NULL");
    let text = printable_lines(&pretty_format_batches_with_options(&shown, &options).map_err(written)?.to_string());
    if rows > SHOWN && terminal {
        return Ok(format!("{text}\n{SHOWN} of {rows} rows; --format csv or json gives all"));
    }
    Ok(text)
}

/// Control characters escaped: names and cells come from files of strangers.
fn printable_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// The schema of a CSV file: nested columns become text.
fn flat_schema(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        if field.data_type().is_nested() {
            Arc::new(Field::new(field.name(), DataType::Utf8, true))
        } else {
            Arc::clone(field)
        }
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Nested columns as JSON text: CSV has no lists of its own.
fn flatten(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, arrow::error::ArrowError> {
    let options = EncoderOptions::default();
    let columns = batch.schema_ref().fields().iter().zip(batch.columns()).map(|(field, column)| {
        if !field.data_type().is_nested() {
            return Ok(Arc::clone(column));
        }
        let mut encoder = make_encoder(field, column, &options)?;
        let mut text = StringBuilder::new();
        for row in 0..batch.num_rows() {
            if encoder.is_null(row) {
                text.append_null();
                continue;
            }
            let mut json = Vec::new();
            encoder.encode(row, &mut json);
            text.append_value(String::from_utf8_lossy(&json));
        }
        Ok(Arc::new(text.finish()) as ArrayRef)
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, arrow::error::ArrowError>>()?)
}

/// An error of a writer; that of a closed pipe keeps its kind.
fn written<E: std::error::Error + Send + Sync + 'static>(error: E) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return stdout_error(std::io::Error::new(io.kind(), io.to_string()));
        }
        cause = error.source();
    }
    Error::Query { reason: format!("the result cannot be written: {error}"), source: Some(Box::new(error)) }
}
