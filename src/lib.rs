//! filterdb: a columnar database of trained convolution filters.
//!
//! Model files go in, partitioned Parquet comes out, and any comparison of meta-groups is one SQL query. The
//! command line is one face of this library; ARCHITECTURE.md says how the modules lie.
//!
//! ```no_run
//! # async fn example() -> filterdb::error::Result<()> {
//! use filterdb::session::{Options, Session};
//!
//! let session = Session::open("filters.db", &Options::default()).await?;
//! let rows = session.query("SELECT task, count(*) FROM filters GROUP BY task").await?;
//! # Ok(())
//! # }
//! ```

// What input can reach must not panic; tests may.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod convert;
mod subquery;

pub mod cli;
pub mod dataset;
pub mod error;
pub mod functions;
pub mod ingest;
pub mod math;
pub mod record;
pub mod schema;
pub mod session;
pub mod store;
