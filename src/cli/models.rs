//! `filterdb models`.

use clap::Args;

use super::query::{OutputArguments, execute};
use crate::error::Result;
use crate::session::{Options, Session};

/// List the models of a data set, with keys, metadata and counts.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Folder or URL (s3://bucket/prefix) of the data set
    dataset: String,
    #[command(flatten)]
    output: OutputArguments,
}

/// Checksums and times are a query away; here they would push what matters off the screen.
const SQL: &str = "SELECT * EXCEPT (file, sha256, producer, n_convolutions, n_nonfinite, extractor, ingested_at) \
    FROM models ORDER BY model";

pub(super) async fn run(arguments: Arguments) -> Result<()> {
    let output = arguments.output.output()?;
    let session = Session::open(&arguments.dataset, &Options::default()).await?;
    execute(&session, SQL, &output).await
}
