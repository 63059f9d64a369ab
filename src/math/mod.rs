//! The mathematics of the study: numbers in, numbers out. Nothing here knows Arrow, files or an engine.
//!
//! Batches are contiguous row-major slices of `n` filters of `d` weights each (`d` is 9 for 3x3 kernels), in `f32` or
//! `f64`; sums are always kept in `f64`. Types that summarise filters ([`Moments`], [`Range`], [`Histogram`]) are
//! mergeable states: the same filters give the same answer however they are cut into batches and partitions. A filter
//! with a NaN or infinite entry is left out of every statistic and counted.
//!
//! | module | what |
//! |---|---|
//! | [`mod@scale`] | one filter divided by its largest weight; range of one filter |
//! | [`moments`] | count, mean and co-moments |
//! | [`eigen`] | principal components of moments, coefficients of filters |
//! | [`histogram`] | range of coefficients, uniform bins by numpy's rule |
//! | [`kl`] | distribution shift between histograms |
//! | [`mod@quality`] | quality of one layer's filters |

mod compensated;
pub mod eigen;
pub mod histogram;
pub mod kl;
pub mod moments;
pub mod quality;
mod rows;
pub mod scale;
#[cfg(test)]
mod testing;

pub use eigen::{Pca, pca, transform};
pub use histogram::{Histogram, Range};
pub use kl::{Pairs, Prepared, Shift, all_pairs, shift};
pub use moments::Moments;
pub use quality::{Quality, quality, random_threshold};
pub use scale::{range, scale};
