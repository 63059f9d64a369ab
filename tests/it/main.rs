//! One test binary: linking DataFusion takes longer than running the tests.

mod architecture;
mod cli;
mod documentation;
mod formats;
mod functions;
mod heatmap;
mod interop;
mod invariance;
mod pruning;
mod schemas;
mod slt;
mod states;
mod study;
mod support;
