//! A data set: three Delta tables in one place.
//!
//! | file | what |
//! |---|---|
//! | [`tables`] | the tables' logs: create, open, which files a version holds |
//! | [`encode`] | records to Parquet |
//! | [`rows`] | rows of `models` and `layers` |
//! | [`commit`] | an ingest: files first, then the logs, `filters` last |
//! | [`snapshot`] | what a reader sees |
//! | [`scan`] | files to rows: the tables as the engine sees them |

mod commit;
mod encode;
mod interleave;
mod rows;
mod scan;
mod snapshot;
mod tables;

pub use commit::{Ingest, Outcome};
pub use encode::{Encoded, encode};
pub use scan::{FileTable, FilterTable};
pub use snapshot::Snapshot;
pub use tables::Dataset;
