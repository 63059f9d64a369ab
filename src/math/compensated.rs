//! Sums that keep what rounding drops.
//!
//! A value is a pair `high + low` with `low` at most half a unit in the last place of `high`, so `high` alone is the
//! rounded value. The error of such a sum does not grow with the number of terms, which is what makes a million
//! batches of one row agree with one batch of a million rows to the last digits.

/// Adds `term` to `high + low`: Knuth's two-sum, then renormalisation.
#[inline(always)]
pub(super) fn add(high: &mut f64, low: &mut f64, term: f64) {
    let sum = *high + term;
    let part = sum - *high;
    let lost = (*high - (sum - part)) + (term - part);
    let rest = *low + lost;
    *high = sum + rest;
    *low = rest - (*high - sum);
}

/// A running compensated sum.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    high: f64,
    low: f64,
}

impl Sum {
    /// Adds one term.
    #[inline(always)]
    pub(super) fn add(&mut self, term: f64) {
        add(&mut self.high, &mut self.low, term);
    }

    /// The rounded sum.
    pub(super) fn value(self) -> f64 {
        self.high
    }
}
