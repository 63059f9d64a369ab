//! One filter at a time: scaled by its largest weight, and its range.

use ndarray::NdFloat;

/// `filter_scale`: every row of `rows` (n x `d`, row-major) divided by its largest absolute entry, into `out`.
///
/// The quotient is the correctly rounded one in `T` (a true division, not a product with the reciprocal, which would
/// overflow for subnormal maxima), so entries lie in [-1, 1]. A zero row stays as it is. A row with a NaN or infinite
/// entry becomes all NaN: it must stay recognisable as one to be left out. Whole rows only, as many as `rows` and `out`
/// both hold; `d = 0` does nothing.
pub fn scale<T: NdFloat>(rows: &[T], d: usize, out: &mut [T]) {
    match d {
        0 => {}
        9 => {
            for (row, out) in rows.as_chunks::<9>().0.iter().zip(out.as_chunks_mut::<9>().0) {
                let divisor = divisor(row);
                for i in 0..9 {
                    out[i] = row[i] / divisor;
                }
            }
        }
        _ => {
            for (row, out) in rows.chunks_exact(d).zip(out.chunks_exact_mut(d)) {
                let divisor = divisor(row);
                for (out, &w) in out.iter_mut().zip(row) {
                    *out = w / divisor;
                }
            }
        }
    }
}

/// What a row is divided by: NaN where it is not finite, 1 where it is zero.
#[inline(always)]
fn divisor<T: NdFloat>(row: &[T]) -> T {
    let mut largest = T::zero();
    let mut finite = true;
    for &w in row {
        let size = w.abs();
        finite &= size < T::infinity();
        largest = if size > largest { size } else { largest };
    }
    if !finite {
        T::nan()
    } else if largest == T::zero() {
        T::one()
    } else {
        largest
    }
}

/// `filter_range`: largest minus smallest entry of every row of `rows` (n x `d`, row-major), in `T`.
///
/// One number per row; NaN for a row with a NaN or infinite entry. As many rows as `rows` and `out` both hold; `d = 0`
/// does nothing.
pub fn range<T: NdFloat>(rows: &[T], d: usize, out: &mut [T]) {
    match d {
        0 => {}
        9 => rows.as_chunks::<9>().0.iter().zip(out).for_each(|(row, out)| *out = row_range(row)),
        _ => rows.chunks_exact(d).zip(out).for_each(|(row, out)| *out = row_range(row)),
    }
}

#[inline(always)]
fn row_range<T: NdFloat>(row: &[T]) -> T {
    let (mut lo, mut hi, mut finite) = (T::infinity(), T::neg_infinity(), true);
    for &w in row {
        finite &= w.abs() < T::infinity();
        lo = if w < lo { w } else { lo };
        hi = if w > hi { w } else { hi };
    }
    if finite { hi - lo } else { T::nan() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divides_each_row_by_its_largest_weight() {
        let rows = [1.0f32, -4.0, 2.0, 0.1, 0.2, 0.3];
        let mut out = [0.0; 6];
        scale(&rows, 3, &mut out);
        assert_eq!(out, [0.25, -1.0, 0.5, 0.1f32 / 0.3, 0.2f32 / 0.3, 1.0]);
    }

    #[test]
    fn nine_weights_take_the_same_path_as_any_other_number() {
        let rows: Vec<f32> = (0..90).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
        let (mut nine, mut padded, mut out) = (vec![0.0; 90], Vec::new(), vec![0.0; 100]);
        scale(&rows, 9, &mut nine);
        for row in rows.chunks(9) {
            padded.extend_from_slice(row);
            padded.push(0.0);
        }
        scale(&padded, 10, &mut out);
        for (a, b) in nine.chunks(9).zip(out.chunks(10)) {
            assert_eq!(a, &b[..9]);
        }
    }

    #[test]
    fn zero_subnormal_and_non_finite_rows() {
        let tiny = f32::from_bits(3);
        let rows = [0.0, 0.0, tiny, -f32::from_bits(1), 1.0, f32::NAN, f32::INFINITY, 1.0, f32::MAX, -f32::MAX];
        let mut out = [9.0; 10];
        scale(&rows, 2, &mut out);
        assert_eq!(out[..4], [0.0, 0.0, 1.0, -1.0f32 / 3.0]);
        assert!(out[4..8].iter().all(|x| x.is_nan()));
        assert_eq!(out[8..], [1.0, -1.0]);
        let mut smallest = [0.0f64; 9];
        scale(&[5e-324, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -5e-324], 9, &mut smallest);
        assert_eq!((smallest[0], smallest[8]), (1.0, -1.0));
    }

    #[test]
    fn ranges() {
        let mut out = [0.0f32; 3];
        range(&[1.0, -2.0, 0.5, 3.0, 3.0, 3.0, 0.0, f32::NAN, 1.0], 3, &mut out);
        assert_eq!(out[..2], [3.0, 0.0]);
        assert!(out[2].is_nan());
        let mut out = [0.0f64; 1];
        range(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, -9.0], 9, &mut out);
        assert_eq!(out, [17.0]);
    }
}
