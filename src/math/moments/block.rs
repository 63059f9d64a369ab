//! The hot loop of moments: up to 256 rows, transposed and summed in two passes.
//!
//! First the means of the columns, then the products of the centred columns, corrected by what the rounded means left
//! over. Loops run over fixed numbers of lanes without a branch, so that they vectorise without `unsafe`.

use super::{Sums, packed};
use crate::math::compensated;

/// Rows of one block: its columns (18 KiB for `d` = 9) stay in the first-level cache.
pub(super) const BLOCK: usize = 256;

/// Independent partial sums of a column; also what its length is padded to.
const LANES: usize = 8;

/// One block of rows as columns, and its sums. Made once for an update and filled again and again.
pub(super) struct Block {
    /// Columns, zero from `n` to the next multiple of [`LANES`].
    columns: Vec<[f64; BLOCK]>,
    n: usize,
    mean: Vec<f64>,
    mean_low: Vec<f64>,
    comoment: Vec<f64>,
    comoment_low: Vec<f64>,
}

impl Block {
    pub(super) fn new(d: usize) -> Self {
        Block {
            columns: vec![[0.0; BLOCK]; d],
            n: 0,
            mean: vec![0.0; d],
            mean_low: vec![0.0; d],
            comoment: vec![0.0; packed(d)],
            comoment_low: vec![0.0; packed(d)],
        }
    }

    /// Takes 1 to [`BLOCK`] rows and sums them. False, with sums that mean nothing, if a column's sum is not finite:
    /// then an entry may not be.
    pub(super) fn load<T: Copy + Into<f64>>(&mut self, rows: &[T]) -> bool {
        let d = self.columns.len();
        self.n = (rows.len() / d).min(BLOCK);
        match <&mut [[f64; BLOCK]; 9]>::try_from(self.columns.as_mut_slice()) {
            Ok(columns) => transpose_fixed(rows, columns),
            Err(_) => transpose(rows, &mut self.columns),
        }
        let padded = self.n.next_multiple_of(LANES);
        let over = self.n as f64;
        let centred = self.columns.iter_mut().zip(self.mean.iter_mut().zip(&mut self.mean_low));
        for (column, (mean, left)) in centred {
            column[self.n..padded].fill(0.0);
            *mean = sum(&column[..padded]) / over;
            if !mean.is_finite() {
                return false;
            }
            *left = centre(&mut column[..self.n], *mean);
        }
        self.products(padded);
        for (mean, left) in self.mean.iter_mut().zip(&mut self.mean_low) {
            let correction = *left / over;
            *left = 0.0;
            compensated::add(mean, left, correction);
        }
        true
    }

    /// Sums of products of the centred columns, less what is due to the rounding of their means.
    fn products(&mut self, padded: usize) {
        let over = self.n as f64;
        let mut comoment = self.comoment.iter_mut();
        for (i, (a, left_a)) in self.columns.iter().zip(&self.mean_low).enumerate() {
            let others = self.columns.iter().zip(&self.mean_low).skip(i);
            for ((b, left_b), out) in others.zip(comoment.by_ref()) {
                *out = dot(&a[..padded], &b[..padded]) - left_a * left_b / over;
            }
        }
    }

    pub(super) fn sums(&self) -> Sums<'_> {
        Sums {
            n: self.n as u64,
            mean: &self.mean,
            mean_low: &self.mean_low,
            comoment: &self.comoment,
            comoment_low: &self.comoment_low,
        }
    }
}

/// Rows to columns, for a length known when compiling.
fn transpose_fixed<T: Copy + Into<f64>, const D: usize>(rows: &[T], columns: &mut [[f64; BLOCK]; D]) {
    let rows = rows.as_chunks::<D>().0;
    for (j, column) in columns.iter_mut().enumerate() {
        for (out, row) in column.iter_mut().zip(rows) {
            *out = row[j].into();
        }
    }
}

/// Rows to columns.
fn transpose<T: Copy + Into<f64>>(rows: &[T], columns: &mut [[f64; BLOCK]]) {
    for (r, row) in rows.chunks_exact(columns.len()).enumerate().take(BLOCK) {
        for (column, &x) in columns.iter_mut().zip(row) {
            column[r] = x.into();
        }
    }
}

/// Sum of a column, a multiple of [`LANES`] long.
fn sum(column: &[f64]) -> f64 {
    let mut lanes = [0.0; LANES];
    for chunk in column.as_chunks::<LANES>().0 {
        for l in 0..LANES {
            lanes[l] += chunk[l];
        }
    }
    fold(lanes)
}

/// Takes `mean` off a column and returns the sum of what is left: what the rounded mean was short of.
fn centre(column: &mut [f64], mean: f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = column.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for l in 0..LANES {
            chunk[l] -= mean;
            lanes[l] += chunk[l];
        }
    }
    for (x, lane) in rest.iter_mut().zip(&mut lanes) {
        *x -= mean;
        *lane += *x;
    }
    fold(lanes)
}

/// Sum of products of two columns, a multiple of [`LANES`] long.
#[inline(always)]
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0; LANES];
    for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
        for l in 0..LANES {
            lanes[l] += a[l] * b[l];
        }
    }
    fold(lanes)
}

/// Pairwise sum, by halves: adding neighbours first would make the compiler shuffle lanes in the loops above.
#[inline(always)]
fn fold(lanes: [f64; LANES]) -> f64 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}
