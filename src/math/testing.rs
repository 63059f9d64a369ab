//! Data for tests that numpy can make too.
//!
//! ```python
//! def lcg(n, seed):
//!     out, s = np.empty(n), seed
//!     for i in range(n):
//!         s = (s * 1664525 + 1013904223) % 2**32
//!         out[i] = (s >> 8) / 2**23 - 1
//!     return out
//! ```

/// `n` numbers in [-1, 1), exact in `f32`.
pub(super) fn lcg(n: usize, seed: u32) -> Vec<f64> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 23) - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Three correlated columns of 40 rows, off the origin.
///
/// ```python
/// x = lcg(120, 1).reshape(40, 3) * [1, 2, .5] + [0, 1, 0]
/// x[:, 2] += x[:, 0] * .5
/// ```
pub(super) fn three_columns() -> Vec<f64> {
    let mut rows = lcg(120, 1);
    for row in rows.chunks_exact_mut(3) {
        row[1] = row[1] * 2.0 + 1.0;
        row[2] = row[2] * 0.5 + row[0] * 0.5;
    }
    rows
}

/// Filters of 3x3 whose columns spread less and less.
///
/// ```python
/// w = (lcg(n * 9, seed).reshape(n, 9) / (1 + np.arange(9))).astype(np.float32)
/// ```
pub(super) fn filters(n: usize, seed: u32) -> Vec<f32> {
    let spread = |(i, x): (usize, f64)| (x * (1.0 / (1 + i % 9) as f64)) as f32;
    lcg(n * 9, seed).into_iter().enumerate().map(spread).collect()
}

/// Asserts that two lists agree to `tolerance` times the largest entry of the second.
#[track_caller]
pub(super) fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let size = expected.iter().fold(0.0f64, |a, x| a.max(x.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= tolerance * size, "entry {i}: expected {e:e}, found {f:e}");
    }
}
