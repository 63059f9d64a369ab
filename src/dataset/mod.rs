//! A data set: three Delta tables in one place.
//!
//! | file | what |
//! |---|---|
//! | `tables.rs` | the tables' logs: create, open, which files a version holds |
//! | `encode.rs` | records to Parquet |
//! | `rows.rs` | rows of `models` and `layers` |
//! | `commit.rs` | an ingest: files first, then the logs, `filters` last |
//! | `snapshot.rs` | what a reader sees |
//! | `scan.rs` | files to rows: the tables as the engine sees them |

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
