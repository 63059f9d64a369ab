//! Distribution shift between histograms: the symmetric Kullback-Leibler divergence of their densities.

use super::histogram::Histogram;
use crate::error::{Error, Result};

/// What a density of zero is taken as: the machine epsilon of float32, as the authors' notebook does.
pub const EMPTY_BIN: f64 = f32::EPSILON as f64;

/// The shift between two histograms.
#[derive(Clone, Debug, PartialEq)]
pub struct Shift {
    /// D: the sum of the contributions.
    pub shift: f64,
    /// Each component's share (d): explained_variance_ratio * (KL(p||q) + KL(q||p)).
    pub contributions: Vec<f64>,
}

/// The density of a component's `counts` in bins of `width`, normalised to sum 1.
///
/// counts / (sum of counts * width), where zeros become [`EMPTY_BIN`]; `None` if all counts are zero.
pub fn density(counts: &[u64], width: f64) -> Option<Vec<f64>> {
    // A sum of counts beyond 2^53 is rounded, as every count then is.
    let entries: f64 = counts.iter().map(|&c| c as f64).sum();
    if entries == 0.0 {
        return None;
    }
    let over = entries * width;
    let mut density: Vec<f64> = counts.iter().map(|&c| if c == 0 { EMPTY_BIN } else { c as f64 / over }).collect();
    let total: f64 = density.iter().sum();
    density.iter_mut().for_each(|p| *p /= total);
    Some(density)
}

/// KL(p||q) = sum p ln(p / q) of two densities without zeros, over as many entries as both hold.
pub fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum()
}

/// The shift D(a, b) = sum over components of `explained_variance_ratio` * (KL(p||q) + KL(q||p)).
///
/// `None` if a component of either has no entry inside the range (so above all if n is 0). D(a, b) and D(b, a) are the
/// same number, and D(a, a) is 0. Errors if range, bins or components differ, or if there is not one ratio for each
/// component.
pub fn shift(a: &Histogram, b: &Histogram, explained_variance_ratio: &[f64]) -> Result<Option<Shift>> {
    a.check_same(b)?;
    check_ratios(a, explained_variance_ratio)?;
    let (Some(a), Some(b)) = (Prepared::new(a), Prepared::new(b)) else { return Ok(None) };
    let mut contributions = vec![0.0; explained_variance_ratio.len()];
    let shift = a.shift(&b, explained_variance_ratio, &mut contributions);
    Ok(Some(Shift { shift, contributions }))
}

/// The shifts between all pairs of `hists`; every pair as [`shift`] gives it.
///
/// Densities and their logarithms are computed once for each histogram, so a pair costs one pass over the bins. Errors
/// as [`shift`].
pub fn all_pairs(hists: &[&Histogram], explained_variance_ratio: &[f64]) -> Result<Pairs> {
    if let Some((first, others)) = hists.split_first() {
        check_ratios(first, explained_variance_ratio)?;
        others.iter().try_for_each(|other| first.check_same(other))?;
    }
    let d = explained_variance_ratio.len();
    let prepared: Vec<Option<Prepared>> = hists.iter().map(|h| Prepared::new(h)).collect();
    let pairs = prepared.len() * (prepared.len() + 1) / 2;
    let mut shifts = Vec::with_capacity(pairs);
    let mut contributions = vec![0.0; pairs * d];
    let mut parts = contributions.chunks_exact_mut(d.max(1));
    for (i, a) in prepared.iter().enumerate() {
        for b in prepared.iter().take(i + 1) {
            let part = parts.next().unwrap_or_default();
            shifts.push(match (a, b) {
                (Some(a), Some(b)) => Some(a.shift(b, explained_variance_ratio, part)),
                _ => None,
            });
        }
    }
    Ok(Pairs { d, shifts, contributions })
}

/// The shifts between all pairs of a list of histograms. Symmetric, so each unordered pair is kept once.
#[derive(Clone, Debug, PartialEq)]
pub struct Pairs {
    d: usize,
    /// Lower triangle with its diagonal, row by row.
    shifts: Vec<Option<f64>>,
    contributions: Vec<f64>,
}

impl Pairs {
    /// D and the contributions (d) of the histograms `a` and `b`, by their places in the list.
    ///
    /// `None` where the shift is undefined, see [`shift`], or there is no such pair.
    pub fn get(&self, a: usize, b: usize) -> Option<(f64, &[f64])> {
        let (row, column) = (a.max(b), a.min(b));
        let at = row.checked_mul(row.checked_add(1)?)? / 2 + column;
        let shift = (*self.shifts.get(at)?)?;
        Some((shift, self.contributions.get(at * self.d..(at + 1) * self.d)?))
    }
}

/// A histogram's densities with their logarithms: what every pair that it is part of needs.
#[derive(Clone, Debug)]
pub struct Prepared {
    bins: usize,
    density: Vec<f64>,
    log: Vec<f64>,
}

impl Prepared {
    /// `None` if a component has no entry inside the range.
    pub fn new(histogram: &Histogram) -> Option<Self> {
        let (bins, width) = (histogram.bins(), histogram.width());
        let mut all = Vec::with_capacity(histogram.counts().len());
        for counts in histogram.counts().chunks_exact(bins) {
            all.extend(density(counts, width)?);
        }
        let log = all.iter().map(|p| p.ln()).collect();
        Some(Prepared { bins, density: all, log })
    }

    /// D between two histograms of the same range, bins and components; `contributions` (d) receives each component's
    /// share.
    pub fn shift(&self, other: &Prepared, explained_variance_ratio: &[f64], contributions: &mut [f64]) -> f64 {
        let mut shift = 0.0;
        let pairs = self.components().zip(other.components());
        for ((((p, ln_p), (q, ln_q)), ratio), out) in pairs.zip(explained_variance_ratio).zip(contributions) {
            *out = ratio * symmetric(p, ln_p, q, ln_q);
            shift += *out;
        }
        shift
    }

    /// Density and logarithm of each component.
    fn components(&self) -> impl Iterator<Item = (&[f64], &[f64])> {
        self.density.chunks_exact(self.bins).zip(self.log.chunks_exact(self.bins))
    }
}

/// KL(p||q) + KL(q||p) = sum (p - q) (ln p - ln q): no term is negative, none changes when p and q change places, and
/// all are 0 for equal densities.
fn symmetric(p: &[f64], ln_p: &[f64], q: &[f64], ln_q: &[f64]) -> f64 {
    const LANES: usize = 8;
    let lanes = |x| <[f64]>::as_chunks::<LANES>(x);
    let ((p, p_rest), (ln_p, ln_p_rest), (q, q_rest), (ln_q, ln_q_rest)) =
        (lanes(p), lanes(ln_p), lanes(q), lanes(ln_q));
    let mut sums = [0.0; LANES];
    for (((p, ln_p), q), ln_q) in p.iter().zip(ln_p).zip(q).zip(ln_q) {
        for l in 0..LANES {
            sums[l] += (p[l] - q[l]) * (ln_p[l] - ln_q[l]);
        }
    }
    for ((((p, ln_p), q), ln_q), sum) in p_rest.iter().zip(ln_p_rest).zip(q_rest).zip(ln_q_rest).zip(&mut sums) {
        *sum += (p - q) * (ln_p - ln_q);
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

fn check_ratios(histogram: &Histogram, explained_variance_ratio: &[f64]) -> Result<()> {
    if explained_variance_ratio.len() != histogram.d() {
        return Err(Error::Math(format!(
            "expected one explained variance ratio for each of {} components, found {}",
            histogram.d(),
            explained_variance_ratio.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
