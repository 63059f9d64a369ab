//! Quality of one layer's filters (CVPR 2022, "CNN Filter DB"; the measures of torchconvquality).

use ndarray::{Array2, ArrayView1, ArrayView4, Axis, Slice};

use super::{compensated::Sum, eigen, moments::Moments, rows};

/// Share of the layer's largest weight below which a weight counts as zero.
const SPARSE: f64 = 0.01;

/// Rows of the products that are held at once for the orthogonality.
const BLOCK: usize = 64;

/// Measures of one layer. Filters with a NaN or infinite weight take no part in any of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// Share of filters all of whose weights are smaller than 1 % of the layer's largest, 0..1. NaN if no filter is
    /// finite.
    pub sparsity: f64,
    /// Entropy of the shares of variance along the principal axes, in decimal digits: 0..log10(d). NaN if no filter is
    /// finite.
    pub variance_entropy: f64,
    /// `variance_entropy` over [`random_threshold`]; above 1 the filters cannot be told from random ones. `None` for
    /// fewer than three filters.
    pub variance_entropy_norm: Option<f64>,
    /// 1 minus the mean size of the cosines between output channels; `None` for one channel.
    pub orthogonality: Option<f64>,
    /// Mean over filters of largest minus smallest weight. NaN if no filter is finite.
    pub scale_mean: f64,
    /// Sum of the sizes of all weights.
    pub l1: f64,
    /// Root of the sum of squares of all weights.
    pub l2: f64,
}

/// Quality of a layer of `weights` (out, in / groups, height, width), unscaled.
pub fn quality(weights: ArrayView4<f32>) -> Quality {
    let (m, channels, height, width) = weights.dim();
    let d = height * width;
    let contiguous = weights.as_standard_layout();
    let flat = contiguous.as_slice().unwrap_or_default();
    let filters: Vec<&[f32]> = flat.chunks_exact(d.max(1)).filter(|w| rows::is_finite(w)).collect();

    let variance_entropy = variance_entropy(flat, filters.len(), d);
    let norms = Norms::of(&filters);
    Quality {
        sparsity: sparsity(&filters),
        variance_entropy,
        variance_entropy_norm: random_threshold(filters.len() as u64).map(|threshold| variance_entropy / threshold),
        orthogonality: orthogonality(flat, m, channels * d),
        scale_mean: norms.ranges.value() / filters.len() as f64,
        l1: norms.sizes.value(),
        l2: norms.squares.value().sqrt(),
    }
}

/// T_H(n): the variance entropy that `n` random filters of 3x3 reach; `None` for n <= 2, where it is not positive.
pub fn random_threshold(n: u64) -> Option<f64> {
    (n > 2).then(|| 1.2618047 / (1.0 + (-0.88767525 * ((n as f64).log2() - 2.30436435)).exp()) - 0.31050834)
}

/// Share of filters all of whose weights are smaller than [`SPARSE`] of the largest of all; NaN for no filters.
fn sparsity(filters: &[&[f32]]) -> f64 {
    let size = |filter: &[f32]| f64::from(filter.iter().fold(0.0f32, |a, w| a.max(w.abs())));
    let largest = filters.iter().map(|filter| size(filter)).fold(0.0, f64::max);
    let sparse = filters.iter().filter(|filter| size(filter) < SPARSE * largest).count();
    sparse as f64 / filters.len() as f64
}

/// Entropy of the shares of variance along the principal axes, in decimal digits. 0 for filters that are all equal, NaN
/// for none, or for filters longer than a covariance is computed for.
fn variance_entropy(flat: &[f32], finite: usize, d: usize) -> f64 {
    let mut moments = Moments::default();
    if finite == 0 || moments.update(flat, d).is_err() {
        return f64::NAN;
    }
    if finite == 1 {
        return 0.0;
    }
    let Some(variances) = eigen::variances(&moments) else { return f64::NAN };
    let total: f64 = variances.iter().sum();
    let shares = variances.iter().filter(|v| **v > 0.0).map(|v| v / total);
    // Not -sum: that makes -0 of a single share of 1.
    shares.map(|p| p * (1.0 / p).log10()).sum()
}

/// 1 - sum |W W^T - I| / (m (m - 1)) for the `m` rows of `flat` (m x `k`), each divided by its length. A zero row stays
/// zero, and a row with a NaN or infinite weight counts as one. `None` for m < 2.
///
/// W W^T is never held: blocks of it are made, from the diagonal on as it is symmetric, summed and dropped.
fn orthogonality(flat: &[f32], m: usize, k: usize) -> Option<f64> {
    if m < 2 {
        return None;
    }
    let mut unit = Array2::from_shape_vec((m, k), flat.iter().map(|&w| f64::from(w)).collect()).ok()?;
    for mut row in unit.rows_mut() {
        let length = row.fold(0.0, |sum, w| sum + w * w).sqrt();
        let divisor = if length > 0.0 { length } else { 1.0 };
        row.mapv_inplace(|w| if length.is_finite() { w / divisor } else { 0.0 });
    }
    let mut sum = Sum::default();
    for start in (0..m).step_by(BLOCK) {
        let end = (start + BLOCK).min(m);
        let block = unit.slice_axis(Axis(0), Slice::from(start..end));
        let onwards = unit.slice_axis(Axis(0), Slice::from(start..m));
        let products = block.dot(&onwards.t());
        for (i, row) in products.rows().into_iter().enumerate() {
            sum.add(from_diagonal(row, i));
        }
    }
    Some(1.0 - sum.value() / (m as f64 * (m - 1) as f64))
}

/// What row `i` of a block adds: its distance from 1 on the diagonal, and twice (for the other triangle) its size right
/// of it.
fn from_diagonal(row: ArrayView1<f64>, i: usize) -> f64 {
    let mut right = row.iter().skip(i);
    let diagonal = right.next().map_or(0.0, |x| (x - 1.0).abs());
    diagonal + 2.0 * right.map(|x| x.abs()).sum::<f64>()
}

/// Sums over all weights.
#[derive(Default)]
struct Norms {
    ranges: Sum,
    sizes: Sum,
    squares: Sum,
}

impl Norms {
    fn of(filters: &[&[f32]]) -> Self {
        let mut norms = Norms::default();
        for filter in filters {
            let (mut lo, mut hi, mut sizes, mut squares) = (f32::INFINITY, f32::NEG_INFINITY, 0.0, 0.0);
            for &w in *filter {
                lo = lo.min(w);
                hi = hi.max(w);
                sizes += f64::from(w.abs());
                squares += f64::from(w) * f64::from(w);
            }
            norms.ranges.add(f64::from(hi) - f64::from(lo));
            norms.sizes.add(sizes);
            norms.squares.add(squares);
        }
        norms
    }
}

#[cfg(test)]
mod tests;
