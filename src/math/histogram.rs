//! Range and histograms of coefficients: mergeable states.

use super::rows;
use crate::error::{Error, Result};

/// The most bins of one component.
pub const MOST_BINS: usize = 1_000_000;

/// The most counts of one histogram (components x bins): 128 MiB.
const MOST_COUNTS: usize = 1 << 24;

/// Smallest and largest entry over all components of all rows. The empty range has `lo` above `hi`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Smallest entry; infinity while nothing was met.
    pub lo: f64,
    /// Largest entry; negative infinity while nothing was met.
    pub hi: f64,
    /// Rows that entered.
    pub n: u64,
    /// Rows that were left out.
    pub n_skipped: u64,
}

impl Default for Range {
    fn default() -> Self {
        Range { lo: f64::INFINITY, hi: f64::NEG_INFINITY, n: 0, n_skipped: 0 }
    }
}

impl Range {
    /// Smallest and largest entry, or `None` if no row entered.
    pub fn bounds(&self) -> Option<(f64, f64)> {
        // Adding zero makes -0 a 0: which of them came first must not show.
        (self.lo <= self.hi).then_some((self.lo + 0.0, self.hi + 0.0))
    }

    /// Adds `coefs` (n x `d`, row-major). A row with a NaN or infinite entry is left out and counted.
    ///
    /// Errors if `coefs` does not hold whole rows.
    pub fn update<T: Copy + Into<f64>>(&mut self, coefs: &[T], d: usize) -> Result<()> {
        const BLOCK: usize = 64;
        rows::check(coefs, d)?;
        for block in coefs.chunks(BLOCK * d) {
            if let Some((lo, hi)) = bounds(block) {
                self.enter(lo, hi, (block.len() / d) as u64);
                continue;
            }
            for row in block.chunks_exact(d) {
                match bounds(row) {
                    Some((lo, hi)) => self.enter(lo, hi, 1),
                    None => self.skip(1),
                }
            }
        }
        Ok(())
    }

    /// Counts `n` rows as left out.
    pub fn skip(&mut self, n: u64) {
        self.n_skipped = self.n_skipped.saturating_add(n);
    }

    /// Adds what `other` has seen.
    pub fn merge(&mut self, other: &Range) {
        self.enter(other.lo, other.hi, other.n);
        self.skip(other.n_skipped);
    }

    fn enter(&mut self, lo: f64, hi: f64, n: u64) {
        self.lo = self.lo.min(lo);
        self.hi = self.hi.max(hi);
        self.n = self.n.saturating_add(n);
    }
}

/// Smallest and largest of `values`; `None` if one is not finite.
#[inline(always)]
fn bounds<T: Copy + Into<f64>>(values: &[T]) -> Option<(f64, f64)> {
    const LANES: usize = 8;
    let (mut lo, mut hi) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES]);
    // Zero times a number that is not finite is NaN, and NaN stays in a sum.
    let mut trace = [0.0; LANES];
    for chunk in values.chunks(LANES) {
        for (((&x, lo), hi), trace) in chunk.iter().zip(&mut lo).zip(&mut hi).zip(&mut trace) {
            let x = x.into();
            *lo = if x < *lo { x } else { *lo };
            *hi = if x > *hi { x } else { *hi };
            *trace += x * 0.0;
        }
    }
    let finite = trace.iter().all(|x| *x == 0.0);
    finite.then(|| (lo.into_iter().fold(f64::INFINITY, f64::min), hi.into_iter().fold(f64::NEG_INFINITY, f64::max)))
}

/// Counts of every component's entries in `bins` uniform bins over [`lo`, `hi`].
///
/// The counts are those of `numpy.histogram(x, bins, range=(lo, hi))` for float64, to the last one: bins are half-open,
/// the last one closed, and an entry belongs to the bin whose *rounded* edges, `lo + i * ((hi - lo) / bins)`, enclose
/// it.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    lo: f64,
    hi: f64,
    bins: usize,
    d: usize,
    n: u64,
    n_skipped: u64,
    below: u64,
    above: u64,
    counts: Vec<u64>,
}

impl Histogram {
    /// An empty histogram of `d` components.
    ///
    /// Errors unless `lo` < `hi`, both finite, with room for `bins` distinct bins between them (numpy widens an empty
    /// range by a half on either side; here that is refused), and 0 < `bins` <= [`MOST_BINS`].
    pub fn new(lo: f64, hi: f64, bins: usize, d: usize) -> Result<Self> {
        rows::check_length(d)?;
        if bins == 0 || bins > MOST_BINS {
            return Err(Error::Math(format!("expected 1 to {MOST_BINS} bins, found {bins}")));
        }
        let counts = bins
            .checked_mul(d)
            .filter(|counts| *counts <= MOST_COUNTS)
            .ok_or_else(|| Error::Math(format!("expected at most {MOST_COUNTS} counts, found {d} x {bins}")))?;
        check_range(lo, hi, bins)?;
        // A range that ends at -0 is the range that ends at 0.
        let (lo, hi) = (lo + 0.0, hi + 0.0);
        Ok(Histogram { lo, hi, bins, d, n: 0, n_skipped: 0, below: 0, above: 0, counts: vec![0; counts] })
    }

    /// A histogram from its encoded parts; `counts` is d x `bins`, row-major.
    ///
    /// Errors as [`Histogram::new`], and if the counts do not add up: every row that entered has `d` entries, inside,
    /// below or above.
    pub fn from_parts(header: Header, counts: Vec<u64>) -> Result<Self> {
        let Header { lo, hi, bins, d, n, n_skipped, below, above } = header;
        let expected = bins.checked_mul(d);
        if expected != Some(counts.len()) {
            return Err(Error::Math(format!("expected {d} x {bins} counts, found {}", counts.len())));
        }
        let empty = Histogram::new(lo, hi, bins, d)?;
        let entries: u128 = counts.iter().chain([&below, &above]).map(|&c| u128::from(c)).sum();
        if entries != u128::from(n) * d as u128 || entries > u128::from(rows::MOST) {
            return Err(Error::Math(format!("expected a histogram of {n} x {d} entries, found {entries}")));
        }
        Ok(Histogram { n, n_skipped, below, above, counts, ..empty })
    }

    /// Everything but the counts.
    pub fn header(&self) -> Header {
        let &Histogram { lo, hi, bins, d, n, n_skipped, below, above, .. } = self;
        Header { lo, hi, bins, d, n, n_skipped, below, above }
    }

    /// Left edge of the first bin.
    pub fn lo(&self) -> f64 {
        self.lo
    }

    /// Right edge of the last bin.
    pub fn hi(&self) -> f64 {
        self.hi
    }

    /// Bins of one component.
    pub fn bins(&self) -> usize {
        self.bins
    }

    /// Components.
    pub fn d(&self) -> usize {
        self.d
    }

    /// Rows that entered.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// Rows that were left out: not finite, or reported by [`Histogram::skip`].
    pub fn n_skipped(&self) -> u64 {
        self.n_skipped
    }

    /// Entries smaller than `lo`, over all components of the rows that entered.
    pub fn below(&self) -> u64 {
        self.below
    }

    /// Entries larger than `hi`, over all components of the rows that entered.
    pub fn above(&self) -> u64 {
        self.above
    }

    /// Counts, d x bins, row-major.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Counts of one component, or nothing if there is no such component.
    pub fn component(&self, i: usize) -> &[u64] {
        self.counts.chunks_exact(self.bins).nth(i).unwrap_or_default()
    }

    /// Width of a bin.
    pub fn width(&self) -> f64 {
        (self.hi - self.lo) / self.bins as f64
    }

    /// Counts `n` rows as left out.
    pub fn skip(&mut self, n: u64) {
        self.n_skipped = self.n_skipped.saturating_add(n);
    }

    /// Adds `coefs` (n x `d`, row-major). A row with a NaN or infinite entry is left out and counted.
    ///
    /// Errors if `d` is not the histogram's, or `coefs` does not hold whole rows.
    pub fn update<T: Copy + Into<f64>>(&mut self, coefs: &[T], d: usize) -> Result<()> {
        if d != self.d {
            return Err(Error::Math(format!("expected lists of {} numbers, found a list of {d}", self.d)));
        }
        rows::check(coefs, d)?;
        let binning = Binning::new(self.lo, self.hi, self.bins);
        fill::fill(self, &binning, coefs);
        Ok(())
    }

    /// Adds what `other` has seen. Errors if range, bins or components differ.
    pub fn merge(&mut self, other: &Histogram) -> Result<()> {
        self.check_same(other)?;
        self.n = rows::add_counts(self.n, other.n)?;
        self.below = rows::add_counts(self.below, other.below)?;
        self.above = rows::add_counts(self.above, other.above)?;
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = rows::add_counts(*count, *more)?;
        }
        self.skip(other.n_skipped);
        Ok(())
    }

    /// Errors, saying both, if range, bins or components of two histograms differ.
    pub(super) fn check_same(&self, other: &Histogram) -> Result<()> {
        let shape = |h: &Histogram| (h.lo, h.hi, h.bins, h.d);
        if shape(self) == shape(other) {
            return Ok(());
        }
        let say = |h: &Histogram| format!("{} components in {} bins over {}", h.d, h.bins, interval(h.lo, h.hi));
        Err(Error::Math(format!("expected a histogram of {}, found one of {}", say(self), say(other))))
    }
}

/// What a [`Histogram`] is encoded as beside its counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Header {
    /// Left edge of the first bin.
    pub lo: f64,
    /// Right edge of the last bin.
    pub hi: f64,
    /// Bins of one component.
    pub bins: usize,
    /// Components.
    pub d: usize,
    /// Rows that entered.
    pub n: u64,
    /// Rows that were left out.
    pub n_skipped: u64,
    /// Entries smaller than `lo`.
    pub below: u64,
    /// Entries larger than `hi`.
    pub above: u64,
}

fn check_range(lo: f64, hi: f64, bins: usize) -> Result<()> {
    let width = (hi - lo) / bins as f64;
    if !(lo < hi && lo.is_finite() && hi.is_finite() && (hi - lo).is_finite()) {
        return Err(Error::Math(format!("expected a range lo < hi of finite numbers, found {}", interval(lo, hi))));
    }
    let binning = Binning::new(lo, hi, bins);
    let distinct = (0..bins).all(|i| binning.edge(i) < binning.edge(i + 1));
    // Below the smallest normal number one over the width is not a number any more.
    if width < f64::MIN_POSITIVE || !distinct {
        return Err(Error::Math(format!("expected a range wide enough for {bins} bins, found {}", interval(lo, hi))));
    }
    Ok(())
}

/// A range as it is written: numbers that would take a line of digits get an exponent.
fn interval(lo: f64, hi: f64) -> String {
    let number = |x: f64| if x.abs() >= 1e16 && x.is_finite() { format!("{x:e}") } else { x.to_string() };
    format!("[{}, {}]", number(lo), number(hi))
}

/// Where an entry falls.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Below,
    Above,
    Bin(usize),
}

/// Uniform bins over [lo, hi], with the edges of numpy.linspace.
struct Binning {
    lo: f64,
    hi: f64,
    bins: usize,
    step: f64,
    per_unit: f64,
    /// How far from an edge, in bins, a computed position must lie for its whole part to be the bin beyond doubt.
    doubt: f64,
}

impl Binning {
    fn new(lo: f64, hi: f64, bins: usize) -> Self {
        let step = (hi - lo) / bins as f64;
        // Positions carry three roundings; edges two, of numbers as large as the larger end.
        let doubt = 8.0 * f64::EPSILON * (bins as f64 + lo.abs().max(hi.abs()) / step);
        Binning { lo, hi, bins, step, per_unit: bins as f64 / (hi - lo), doubt }
    }

    fn edge(&self, i: usize) -> f64 {
        if i == self.bins { self.hi } else { i as f64 * self.step + self.lo }
    }

    /// The place of a finite entry: the computed bin, corrected by one where the rounded edges say otherwise.
    fn place(&self, x: f64) -> Place {
        if x < self.lo {
            return Place::Below;
        }
        if x > self.hi {
            return Place::Above;
        }
        let mut bin = (((x - self.lo) * self.per_unit) as usize).min(self.bins - 1);
        if x < self.edge(bin) {
            bin -= 1;
        } else if bin + 1 < self.bins && x >= self.edge(bin + 1) {
            bin += 1;
        }
        Place::Bin(bin)
    }
}

mod fill;

#[cfg(test)]
mod tests;
