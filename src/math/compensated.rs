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

    /// Adds a * b without rounding the product.
    pub(super) fn add_product(&mut self, a: f64, b: f64) {
        let product = a * b;
        self.add(product);
        self.add(a.mul_add(b, -product));
    }

    /// The rounded sum and what rounding dropped from it.
    pub(super) fn pair(self) -> (f64, f64) {
        (self.high, self.low)
    }

    /// The rounded sum.
    pub(super) fn value(self) -> f64 {
        self.high
    }
}
