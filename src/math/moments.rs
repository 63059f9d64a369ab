//! Count, mean and co-moments of filters: the mergeable state behind every PCA.
//!
//! Rows are taken in blocks of 256. A block is transposed to columns of `f64` and summed in two passes, first the means,
//! then the products of the centred columns, corrected by what the rounded means left over. A block or another state
//! is merged by the update of Chan, Golub and LeVeque (1979), and the running values are kept as compensated pairs
//! (see `compensated`), so the error grows neither with the number of blocks nor with the number of batches.
//! Raw squares are never summed: an offset much larger than the spread costs nothing.

use ndarray::Array2;

use super::{compensated, rows};
use crate::error::{Error, Result};

/// Rows of one block: its columns (18 KiB for `d` = 9) stay in the first-level cache.
const BLOCK: usize = 256;

/// Below this many rows a block costs more to set up than one update per row.
const FEW: usize = 12;

/// Independent partial sums of a column; also what its length is padded to.
const LANES: usize = 8;

/// Count, mean and co-moments of rows of `d` numbers, mergeable in any order.
///
/// The empty state (`Default`) has `d` = 0 and takes the first `d` that it meets.
#[derive(Clone, Debug, Default)]
pub struct Moments {
    n: u64,
    n_skipped: u64,
    mean: Vec<f64>,
    comoment: Vec<f64>,
    // What rounding dropped from `mean` and `comoment`: not part of the encoded state.
    mean_low: Vec<f64>,
    comoment_low: Vec<f64>,
}

impl Moments {
    /// A state from its encoded parts: `mean` of length d, `comoment` of length d (d + 1) / 2 as returned by
    /// [`Moments::comoment`].
    ///
    /// Both may be empty if `n` is 0. Errors if the lengths do not fit.
    pub fn from_parts(n: u64, n_skipped: u64, mean: Vec<f64>, comoment: Vec<f64>) -> Result<Self> {
        if mean.is_empty() && comoment.is_empty() && n == 0 {
            return Ok(Moments { n_skipped, ..Moments::default() });
        }
        let d = mean.len();
        rows::check_length(d)?;
        if comoment.len() != packed(d) {
            return Err(Error::Math(format!(
                "expected {} co-moments for a mean of {d} numbers, found {}",
                packed(d),
                comoment.len()
            )));
        }
        let mut state = Moments { n_skipped, ..Moments::default() };
        state.adopt(d)?;
        if n > 0 {
            (state.n, state.mean, state.comoment) = (n, mean, comoment);
        }
        Ok(state)
    }

    /// Rows that entered.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// Rows that were left out: not finite, or reported by [`Moments::skip`].
    pub fn n_skipped(&self) -> u64 {
        self.n_skipped
    }

    /// Length of a row; 0 if none was met.
    pub fn d(&self) -> usize {
        self.mean.len()
    }

    /// Mean of every column (d); zeros while `n` is 0.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Sums of products of centred columns: the upper triangle with its diagonal, row by row (d (d + 1) / 2).
    pub fn comoment(&self) -> &[f64] {
        &self.comoment
    }

    /// Covariance (d x d) over n - 1; `None` for fewer than two rows.
    pub fn covariance(&self) -> Option<Array2<f64>> {
        if self.n < 2 {
            return None;
        }
        let d = self.d();
        let over = (self.n - 1) as f64;
        let mut covariance = Array2::zeros((d, d));
        let mut packed = self.comoment.iter();
        for i in 0..d {
            for (j, &sum) in (i..d).zip(packed.by_ref()) {
                covariance[[i, j]] = sum / over;
                covariance[[j, i]] = sum / over;
            }
        }
        Some(covariance)
    }

    /// Counts `n` rows as left out.
    pub fn skip(&mut self, n: u64) {
        self.n_skipped = self.n_skipped.saturating_add(n);
    }

    /// Adds `rows` (n x `d`, row-major). A row with a NaN or infinite entry is left out and counted.
    ///
    /// Errors if `d` is not the state's, or `rows` does not hold whole rows.
    pub fn update<T: Copy + Into<f64>>(&mut self, rows: &[T], d: usize) -> Result<()> {
        rows::check(rows, d)?;
        self.adopt(d)?;
        if rows.len() < FEW * d {
            return rows.chunks_exact(d).try_for_each(|row| self.update_row(row));
        }
        let mut block = Block::new(d);
        for part in rows.chunks(BLOCK * d) {
            if block.load(part) {
                self.absorb(block.sums())?;
                continue;
            }
            let finite: Vec<T> = part.chunks_exact(d).filter(|row| rows::is_finite(row)).flatten().copied().collect();
            self.skip(((part.len() - finite.len()) / d) as u64);
            if !finite.is_empty() {
                block.load(&finite);
                self.absorb(block.sums())?;
            }
        }
        Ok(())
    }

    /// Adds what `other` has seen. Errors if both have met rows, of different length.
    pub fn merge(&mut self, other: &Moments) -> Result<()> {
        if other.d() > 0 {
            self.adopt(other.d())?;
        }
        self.absorb(Sums {
            n: other.n,
            mean: &other.mean,
            mean_low: &other.mean_low,
            comoment: &other.comoment,
            comoment_low: &other.comoment_low,
        })?;
        self.skip(other.n_skipped);
        Ok(())
    }

    /// Takes `d` as the length of a row, or checks that it is the one taken before.
    fn adopt(&mut self, d: usize) -> Result<()> {
        if self.d() == d {
            return Ok(());
        }
        if self.d() != 0 {
            return Err(Error::Math(format!("expected lists of {} numbers, found a list of {d}", self.d())));
        }
        rows::check_length(d)?;
        self.mean = vec![0.0; d];
        self.mean_low = vec![0.0; d];
        self.comoment = vec![0.0; packed(d)];
        self.comoment_low = vec![0.0; packed(d)];
        Ok(())
    }

    /// Adds one row of the state's length.
    fn update_row<T: Copy + Into<f64>>(&mut self, row: &[T]) -> Result<()> {
        if !rows::is_finite(row) {
            self.skip(1);
            return Ok(());
        }
        with_buffer(row.len(), |delta| {
            for (((delta, &x), high), low) in delta.iter_mut().zip(row).zip(&self.mean).zip(&self.mean_low) {
                *delta = (x.into() - high) - low;
            }
            self.shift(1, delta)
        })
    }

    /// Adds the sums of rows of the state's length.
    fn absorb(&mut self, other: Sums) -> Result<()> {
        if other.n == 0 {
            return Ok(());
        }
        if self.n == 0 {
            self.n = other.n;
            self.mean.copy_from_slice(other.mean);
            self.mean_low.copy_from_slice(other.mean_low);
            self.comoment.copy_from_slice(other.comoment);
            self.comoment_low.copy_from_slice(other.comoment_low);
            return Ok(());
        }
        with_buffer(self.d(), |delta| {
            let here = self.mean.iter().zip(&self.mean_low);
            let there = other.mean.iter().zip(other.mean_low);
            for ((delta, (high, low)), (other_high, other_low)) in delta.iter_mut().zip(here).zip(there) {
                *delta = (other_high - high) + (other_low - low);
            }
            self.shift(other.n, delta)
        })?;
        let here = self.comoment.iter_mut().zip(&mut self.comoment_low);
        for ((high, low), (other_high, other_low)) in here.zip(other.comoment.iter().zip(other.comoment_low)) {
            compensated::add(high, low, *other_high);
            *low += other_low;
        }
        Ok(())
    }

    /// Accounts for `n` more rows whose mean lies `delta` from the present one; their own co-moments are yet to be added.
    fn shift(&mut self, n: u64, delta: &[f64]) -> Result<()> {
        let total = rows::add_counts(self.n, n)?;
        let share = n as f64 / total as f64;
        let weight = self.n as f64 * share;
        self.n = total;
        for ((high, low), delta) in self.mean.iter_mut().zip(&mut self.mean_low).zip(delta) {
            compensated::add(high, low, delta * share);
        }
        let (mut high, mut low) = (self.comoment.as_mut_slice(), self.comoment_low.as_mut_slice());
        for (i, delta_i) in delta.iter().enumerate() {
            let row = delta.get(i..).unwrap_or_default();
            let Some((high_i, high_rest)) = high.split_at_mut_checked(row.len()) else { break };
            let Some((low_i, low_rest)) = low.split_at_mut_checked(row.len()) else { break };
            let scaled = delta_i * weight;
            for ((high, low), delta_j) in high_i.iter_mut().zip(low_i).zip(row) {
                compensated::add(high, low, scaled * delta_j);
            }
            (high, low) = (high_rest, low_rest);
        }
        Ok(())
    }
}

/// Borrowed sums of `n` rows, laid out as in [`Moments`].
struct Sums<'a> {
    n: u64,
    mean: &'a [f64],
    mean_low: &'a [f64],
    comoment: &'a [f64],
    comoment_low: &'a [f64],
}

/// One block of rows as columns, and its sums. Made once for an update and filled again and again.
struct Block {
    /// Columns, zero from `n` to the next multiple of [`LANES`].
    columns: Vec<[f64; BLOCK]>,
    n: usize,
    mean: Vec<f64>,
    mean_low: Vec<f64>,
    comoment: Vec<f64>,
    comoment_low: Vec<f64>,
}

impl Block {
    fn new(d: usize) -> Self {
        Block {
            columns: vec![[0.0; BLOCK]; d],
            n: 0,
            mean: vec![0.0; d],
            mean_low: vec![0.0; d],
            comoment: vec![0.0; packed(d)],
            comoment_low: vec![0.0; packed(d)],
        }
    }

    /// Takes 1 to [`BLOCK`] rows and sums them. False, with sums that mean nothing, if a column's sum is not finite: then
    /// an entry may not be.
    fn load<T: Copy + Into<f64>>(&mut self, rows: &[T]) -> bool {
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
        let mut comoment = self.comoment.as_mut_slice();
        for (i, (a, left_a)) in self.columns.iter().zip(&self.mean_low).enumerate() {
            let others = self.columns.get(i..).unwrap_or_default();
            let Some((row, rest)) = std::mem::take(&mut comoment).split_at_mut_checked(others.len()) else { break };
            comoment = rest;
            let (threes, ones) = others.as_chunks::<3>();
            let (out_threes, out_ones) = row.as_chunks_mut::<3>();
            for (b, out) in threes.iter().zip(out_threes) {
                *out = dots(&a[..padded], b.each_ref().map(|b| &b[..padded]));
            }
            for (b, out) in ones.iter().zip(out_ones) {
                [*out] = dots(&a[..padded], [&b[..padded]]);
            }
            for (out, left_b) in row.iter_mut().zip(self.mean_low.iter().skip(i)) {
                *out -= left_a * left_b / over;
            }
        }
    }

    fn sums(&self) -> Sums<'_> {
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
    for (r, row) in rows.as_chunks::<D>().0.iter().enumerate().take(BLOCK) {
        for j in 0..D {
            columns[j][r] = row[j].into();
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

/// Sums of products of column `a` with each of `b`, all a multiple of [`LANES`] long: three at a time read `a` once.
#[inline(always)]
fn dots<const K: usize>(a: &[f64], b: [&[f64]; K]) -> [f64; K] {
    const NARROW: usize = 4;
    let a = a.as_chunks::<NARROW>().0;
    let b = b.map(|b| &b.as_chunks::<NARROW>().0[..a.len()]);
    let mut lanes = [[0.0; NARROW]; K];
    for (r, a) in a.iter().enumerate() {
        for k in 0..K {
            for l in 0..NARROW {
                lanes[k][l] += a[l] * b[k][r][l];
            }
        }
    }
    lanes.map(|[a, b, c, d]| (a + b) + (c + d))
}

/// Pairwise sum.
fn fold(lanes: [f64; LANES]) -> f64 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

/// Calls `work` with `d` zeros that live on the stack for short rows: an update of one row must not allocate.
fn with_buffer<R>(d: usize, work: impl FnOnce(&mut [f64]) -> R) -> R {
    let mut short = [0.0; 16];
    match short.get_mut(..d) {
        Some(buffer) => work(buffer),
        None => work(&mut vec![0.0; d]),
    }
}

/// Number of entries of an upper triangle with its diagonal. `d` is at most `rows::LONGEST`.
fn packed(d: usize) -> usize {
    d * (d + 1) / 2
}

#[cfg(test)]
mod tests;
