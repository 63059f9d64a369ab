//! Principal components of [`Moments`], and the coefficients of filters in them.

use nalgebra::{DMatrix, SymmetricEigen};
use ndarray::{Array2, ArrayView2};

use super::{
    moments::{Moments, unpack},
    rows,
};
use crate::error::{Error, Result};

mod refine;

/// Entries of a component whose sizes differ by less than this share count as equally large, so that rounding does not
/// choose the sign of a component that has a symmetry.
const TIE: f64 = 1e-9;

/// Principal components, under scikit-learn's names.
#[derive(Clone, Debug, PartialEq)]
pub struct Pca {
    /// Filters that entered.
    pub n: u64,
    /// Filters that were left out.
    pub n_skipped: u64,
    /// Mean filter (d).
    pub mean: Vec<f64>,
    /// Components as rows (d x d), orthonormal, by decreasing variance; the entry of largest size is positive.
    pub components: Array2<f64>,
    /// Variance along each component (d), over n - 1.
    pub explained_variance: Vec<f64>,
    /// Share of each component in the total variance (d).
    pub explained_variance_ratio: Vec<f64>,
}

impl Pca {
    /// Coefficients of filters; see [`transform`].
    pub fn transform<T: Copy + Into<f64>>(&self, rows: &[T], d: usize, out: &mut [f64]) -> Result<()> {
        transform(&self.mean, self.components.view(), rows, d, out)
    }
}

/// The principal components of the rows behind `moments`.
///
/// `None` for fewer than two rows, and where the co-moments are not finite (entries beyond 1e150 overflow). An
/// eigenvalue below d * epsilon * the largest is exactly 0, and the components that belong to such eigenvalues are the
/// unit vectors e_1, e_2, ... made orthonormal to the others in that order, so they do not depend on rounding. Rows
/// that are all equal have no variance to share out: the ratios are 0 (scikit-learn: NaN) and the components are the
/// identity.
pub fn pca(moments: &Moments) -> Option<Pca> {
    let (explained_variance, mut components) = decompose(moments)?;
    let rank = explained_variance.iter().take_while(|&&v| v > 0.0).count();
    complete(&mut components, rank);
    for row in components.rows_mut() {
        point_up(row);
    }
    let total: f64 = explained_variance.iter().sum();
    let ratio = |&variance: &f64| if total > 0.0 { variance / total } else { 0.0 };
    Some(Pca {
        n: moments.n(),
        n_skipped: moments.n_skipped(),
        mean: moments.mean().to_vec(),
        explained_variance_ratio: explained_variance.iter().map(ratio).collect(),
        explained_variance,
        components,
    })
}

/// Variances along the principal axes of the rows behind `moments`, decreasing: [`pca`] without its components.
pub(super) fn variances(moments: &Moments) -> Option<Vec<f64>> {
    decompose(moments).map(|(variances, _)| variances)
}

/// Variances in decreasing order, those that are rounding set to 0, and the directions they belong to as rows.
fn decompose(moments: &Moments) -> Option<(Vec<f64>, Array2<f64>)> {
    if moments.n() < 2 || !moments.mean().iter().chain(moments.comoment()).all(|x| x.is_finite()) {
        return None;
    }
    let d = moments.d();
    let largest = moments.comoment().iter().fold(0.0f64, |a, x| a.max(x.abs()));
    if largest == 0.0 {
        return Some((vec![0.0; d], Array2::eye(d)));
    }
    // Brought near 1 by a power of two, which is exact: squares of very small or large entries stay in range. In two
    // steps, as the power itself may be out of range.
    let power = largest.log2().round() as i32;
    let (down, down_again) = (2f64.powi(-(power / 2)), 2f64.powi(power / 2 - power));
    let scaled = |packed: &[f64]| unpack(packed, d).mapv_into(|x| x * down * down_again);
    let (matrix, low) = (scaled(moments.comoment()), scaled(moments.comoment_low()));
    let (mut values, mut vectors) = solve(&matrix)?;
    refine::refine(&matrix, &low, &mut values, &mut vectors);

    let noise = d as f64 * f64::EPSILON * values.iter().fold(0.0f64, |a, x| a.max(*x));
    let over = (moments.n() - 1) as f64;
    for value in &mut values {
        *value = if *value < noise { 0.0 } else { *value / down / down_again / over };
    }
    Some((values, vectors))
}

/// Eigenvalues in decreasing order, and eigenvectors as rows.
fn solve(matrix: &Array2<f64>) -> Option<(Vec<f64>, Array2<f64>)> {
    let d = matrix.nrows();
    let eigen = SymmetricEigen::try_new(DMatrix::from_fn(d, d, |i, j| matrix[[i, j]]), f64::EPSILON, 1000 * d.max(10))?;
    let mut order: Vec<usize> = (0..d).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    let values = order.iter().map(|&i| eigen.eigenvalues[i]).collect();
    Some((values, Array2::from_shape_fn((d, d), |(row, column)| eigen.eigenvectors[(column, order[row])])))
}

/// Replaces the rows from `rank` on: unit vectors in order, each made orthogonal to all rows before.
///
/// The parts of all unit vectors outside the present rows have squares that sum to the number of rows missing, so one
/// of them has at least 1/d: one pass with half of that as the threshold finds every row.
fn complete(components: &mut Array2<f64>, rank: usize) {
    let d = components.nrows();
    let mut next = rank;
    for unit in 0..d {
        if next == d {
            break;
        }
        let mut candidate = ndarray::Array1::zeros(d);
        candidate[unit] = 1.0;
        // Twice: once leaves what rounding put back.
        for _ in 0..2 {
            for row in components.rows().into_iter().take(next) {
                let along = row.dot(&candidate);
                candidate.scaled_add(-along, &row);
            }
        }
        let square = candidate.dot(&candidate);
        if square > 0.5 / d as f64 {
            candidate /= square.sqrt();
            components.row_mut(next).assign(&candidate);
            next += 1;
        }
    }
}

/// Turns a component so that its entry of largest size is positive; of several, the first.
fn point_up(mut component: ndarray::ArrayViewMut1<f64>) {
    let largest = component.iter().fold(0.0f64, |a, x| a.max(x.abs()));
    let first = component.iter().find(|x| x.abs() >= largest * (1.0 - TIE));
    if first.is_some_and(|x| *x < 0.0) {
        component.mapv_inplace(|x| -x);
    }
    // 0 - 0 and -0 print differently.
    component.mapv_inplace(|x| x + 0.0);
}

/// Coefficients c = (w - mean) V^T of `rows` (n x `d`, row-major) in `components` (k x d, as rows), into `out` (n x k).
///
/// A row's coefficients do not depend on the rows beside it. A row with a NaN or infinite entry gets coefficients that
/// are not finite. Errors if the lengths do not fit.
pub fn transform<T: Copy + Into<f64>>(
    mean: &[f64],
    components: ArrayView2<f64>,
    rows: &[T],
    d: usize,
    out: &mut [f64],
) -> Result<()> {
    rows::check(rows, d)?;
    let (k, width) = components.dim();
    if mean.len() != d || width != d {
        return Err(Error::Math(format!(
            "expected lists of the fit's {} numbers (components of {width}), found lists of {d}",
            mean.len()
        )));
    }
    let n = rows.len() / d;
    if n.checked_mul(k) != Some(out.len()) {
        return Err(Error::Math(format!("expected room for {n} x {k} coefficients, found {}", out.len())));
    }
    if k == 0 {
        return Ok(());
    }
    if d == 9 && k == 9 {
        transform_nine(mean, components, rows, out);
        return Ok(());
    }
    // Columns are contiguous: the inner loop adds one weight's share to every coefficient.
    let columns: Vec<f64> = components.t().iter().copied().collect();
    for (row, out) in rows.chunks_exact(d).zip(out.chunks_exact_mut(k)) {
        out.fill(0.0);
        for ((&w, mean), column) in row.iter().zip(mean).zip(columns.chunks_exact(k)) {
            let centred = w.into() - mean;
            for (out, v) in out.iter_mut().zip(column) {
                *out += centred * v;
            }
        }
    }
    Ok(())
}

/// [`transform`] for 9 weights and 9 components.
fn transform_nine<T: Copy + Into<f64>>(mean: &[f64], components: ArrayView2<f64>, rows: &[T], out: &mut [f64]) {
    // Ten wide: whole pairs of lanes.
    let mut columns = [[0.0; 10]; 9];
    let mut centre = [0.0; 9];
    for (j, column) in columns.iter_mut().enumerate() {
        for (v, to) in components.column(j).iter().zip(column) {
            *to = *v;
        }
    }
    centre.iter_mut().zip(mean).for_each(|(to, from)| *to = *from);
    for (row, out) in rows.as_chunks::<9>().0.iter().zip(out.as_chunks_mut::<9>().0) {
        let mut sums = [0.0; 10];
        for j in 0..9 {
            let centred = row[j].into() - centre[j];
            for i in 0..10 {
                sums[i] += centred * columns[j][i];
            }
        }
        out.copy_from_slice(&sums[..9]);
    }
}

#[cfg(test)]
mod tests;
