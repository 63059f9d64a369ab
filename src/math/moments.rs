//! Count, mean and co-moments of filters: the mergeable state behind every PCA.
//!
//! Rows are taken in blocks of 256, each summed in two passes (see `block`). A block or another state is merged by the
//! update of Chan, Golub and LeVeque (1979), and the running values are kept as compensated pairs (see `compensated`):
//! the error grows neither with the number of blocks nor with the number of batches, so no tree of partial results is
//! needed. Raw squares are never summed: an offset much larger than the spread costs nothing.

use ndarray::Array2;

use self::block::{BLOCK, Block};
use super::{compensated, rows};
use crate::error::{Error, Result};

mod block;

/// Below this many rows a block costs more to set up than one update per row.
const FEW: usize = 12;

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
            rows::add_counts(n, 0)?;
            (state.n, state.mean, state.comoment) = (n, mean, comoment);
        }
        Ok(state)
    }

    /// The state with what rounding dropped from it, as returned by [`Moments::mean_low`] and
    /// [`Moments::comoment_low`]: then decoding loses nothing, and components whose variances are almost equal agree
    /// between partitionings to two more digits.
    ///
    /// Errors if the lengths do not fit.
    pub fn with_low(mut self, mean_low: Vec<f64>, comoment_low: Vec<f64>) -> Result<Self> {
        if (mean_low.len(), comoment_low.len()) != (self.mean.len(), self.comoment.len()) {
            return Err(Error::Math(format!(
                "expected what rounding dropped from {} means and {} co-moments, found {} and {}",
                self.mean.len(),
                self.comoment.len(),
                mean_low.len(),
                comoment_low.len()
            )));
        }
        if self.n > 0 {
            (self.mean_low, self.comoment_low) = (mean_low, comoment_low);
        }
        Ok(self)
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
        let over = (self.n - 1) as f64;
        Some(unpack(&self.comoment, self.d()).mapv_into(|sum| sum / over))
    }

    /// What rounding dropped from [`Moments::mean`], laid out as that.
    pub fn mean_low(&self) -> &[f64] {
        &self.mean_low
    }

    /// What rounding dropped from [`Moments::comoment`], laid out as that.
    pub fn comoment_low(&self) -> &[f64] {
        &self.comoment_low
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
            if !finite.is_empty() && block.load(&finite) {
                self.absorb(block.sums())?;
            } else {
                // Nothing, or numbers so large that only their sum overflows.
                finite.chunks_exact(d).try_for_each(|row| self.update_row(row))?;
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

    /// Accounts for `n` more rows whose mean lies `delta` from the present one; not for their own co-moments.
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

/// Calls `work` with `d` zeros that live on the stack for short rows: an update of one row must not allocate.
fn with_buffer<R>(d: usize, work: impl FnOnce(&mut [f64]) -> R) -> R {
    let mut short = [0.0; 16];
    match short.get_mut(..d) {
        Some(buffer) => work(buffer),
        None => work(&mut vec![0.0; d]),
    }
}

/// The symmetric matrix (d x d) whose upper triangle is `packed`.
pub(super) fn unpack(packed: &[f64], d: usize) -> Array2<f64> {
    let mut matrix = Array2::zeros((d, d));
    let mut packed = packed.iter();
    for i in 0..d {
        for (j, &x) in (i..d).zip(packed.by_ref()) {
            matrix[[i, j]] = x;
            matrix[[j, i]] = x;
        }
    }
    matrix
}

/// Number of entries of an upper triangle with its diagonal. `d` is at most `rows::LONGEST`.
fn packed(d: usize) -> usize {
    d * (d + 1) / 2
}

#[cfg(test)]
mod tests;
