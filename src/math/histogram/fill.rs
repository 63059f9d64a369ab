//! Counting a batch: the hot loop of a histogram.

use super::{Binning, Histogram, Place};
use crate::math::rows;

/// Rows that are placed together; one doubtful entry sends all of them the careful way.
const BLOCK: usize = 16;

/// Adding this, 1.5 * 2^52, to a number of at most 31 bits leaves it in the lowest bits, rounded to an integer.
const TO_INTEGER: f64 = 6_755_399_441_055_744.0;

/// Counts `coefs`, whole rows of the histogram's length.
pub(super) fn fill<T: Copy + Into<f64>>(histogram: &mut Histogram, binning: &Binning, coefs: &[T]) {
    match histogram.d {
        9 => blocks::<T, 9, { 9 * BLOCK }>(histogram, binning, coefs),
        1 => blocks::<T, 1, BLOCK>(histogram, binning, coefs),
        _ => carefully(histogram, binning, coefs),
    }
}

/// [`fill`] for a length known when compiling; `ENTRIES` is `D` * [`BLOCK`].
///
/// Almost no entry lies so close to an edge that its bin is in doubt, and almost none outside the range. So positions
/// are computed for a block at once, without a branch, and the edges are looked at only where that is not enough.
fn blocks<T: Copy + Into<f64>, const D: usize, const ENTRIES: usize>(
    histogram: &mut Histogram,
    binning: &Binning,
    coefs: &[T],
) {
    let (chunks, rest) = coefs.as_chunks::<ENTRIES>();
    let mut bins = [0u32; ENTRIES];
    for chunk in chunks {
        if !place_all(binning, chunk, &mut bins) {
            carefully(histogram, binning, chunk);
            continue;
        }
        histogram.n += BLOCK as u64;
        for row in bins.as_chunks::<D>().0 {
            for (counts, &bin) in histogram.counts.chunks_exact_mut(binning.bins).zip(row) {
                if let Some(count) = counts.get_mut(bin as usize) {
                    *count += 1;
                }
            }
        }
    }
    carefully(histogram, binning, rest);
}

/// The bin of every entry; false, with bins that mean nothing, if one of them is in doubt or outside.
#[inline(always)]
fn place_all<T: Copy + Into<f64>, const N: usize>(binning: &Binning, entries: &[T; N], bins: &mut [u32; N]) -> bool {
    let surely = 0.5 - binning.doubt;
    let (first, last) = (-surely, binning.bins as f64 - 1.0 + surely);
    let mut sure = true;
    for (bin, &x) in bins.iter_mut().zip(entries) {
        let middle = (x.into() - binning.lo) * binning.per_unit - 0.5;
        let shifted = middle + TO_INTEGER;
        let off = middle - (shifted - TO_INTEGER);
        // False for NaN too.
        sure &= (off.abs() < surely) & (middle > first) & (middle < last);
        *bin = shifted.to_bits() as u32;
    }
    sure
}

/// Counts whole rows one by one.
fn carefully<T: Copy + Into<f64>>(histogram: &mut Histogram, binning: &Binning, coefs: &[T]) {
    for row in coefs.chunks_exact(histogram.d) {
        if !rows::is_finite(row) {
            histogram.skip(1);
            continue;
        }
        histogram.n += 1;
        for (counts, &x) in histogram.counts.chunks_exact_mut(binning.bins).zip(row) {
            match binning.place(x.into()) {
                Place::Below => histogram.below += 1,
                Place::Above => histogram.above += 1,
                Place::Bin(bin) => {
                    if let Some(count) = counts.get_mut(bin) {
                        *count += 1;
                    }
                }
            }
        }
    }
}
