//! The shape of a batch: contiguous rows of `d` numbers.

use crate::error::{Error, Result};

/// The longest filter that is accepted. Moments and components grow with the square of `d`: at this length they take
/// 128 MiB, and no convolution kernel comes near it.
pub(super) const LONGEST: usize = 4096;

/// Checks that `rows` holds whole rows of `d` numbers and that `d` is a length the states can hold.
pub(super) fn check<T>(rows: &[T], d: usize) -> Result<()> {
    check_length(d)?;
    if !rows.len().is_multiple_of(d) {
        return Err(Error::Math(format!("expected whole lists of {d} numbers, found {} numbers", rows.len())));
    }
    Ok(())
}

/// Checks that `d` is a length the states can hold.
pub(super) fn check_length(d: usize) -> Result<()> {
    if d == 0 || d > LONGEST {
        return Err(Error::Math(format!("expected lists of 1 to {LONGEST} numbers, found a list of {d}")));
    }
    Ok(())
}

/// Whether every number of `row` is finite.
#[inline]
pub(super) fn is_finite<T: Copy + Into<f64>>(row: &[T]) -> bool {
    row.iter().all(|&x| x.into().is_finite())
}

/// The largest count that a decoded or merged state may hold: far beyond any data, and far enough below 2^64 that
/// adding a batch cannot overflow.
pub(super) const MOST: u64 = 1 << 62;

/// The sum of two counts, or an error: counts of decoded states can be anything.
pub(super) fn add_counts(a: u64, b: u64) -> Result<u64> {
    a.checked_add(b)
        .filter(|sum| *sum <= MOST)
        .ok_or_else(|| Error::Math(format!("expected counts of at most {MOST}, found {a} + {b}")))
}
