//! One step of iterative refinement of a symmetric eigendecomposition (Ogita and Aishima, 2018).
//!
//! A backward stable solver answers for a matrix a few roundings away. Where two eigenvalues lie close, as the last
//! ones of trained filters do, that moves components in the twelfth digit, and two partitionings whose moments differ
//! in the last bit would show it. Products of the vectors with the matrix in twice the precision say what is left to
//! correct.

use ndarray::Array2;

use crate::math::compensated::Sum;

/// Longer lists are left to the solver: the step costs d^3 products in twice the precision.
const LONGEST: usize = 64;

/// Errors above this share are not the solver's rounding.
const FAR_OFF: f64 = 1e-6;

/// Corrects `values` and `vectors` (as rows) of `matrix` + `low`, where `low` is what rounding dropped from `matrix`.
///
/// Left alone if they are too far off for a correction of first order.
pub(super) fn refine(matrix: &Array2<f64>, low: &Array2<f64>, values: &mut [f64], vectors: &mut Array2<f64>) {
    let d = values.len();
    if d > LONGEST {
        return;
    }
    let (overlap, action) = (overlap(vectors), action(matrix, low, vectors));
    let refined: Vec<f64> = (0..d).map(|i| action[[i, i]] / (1.0 - overlap[[i, i]])).collect();
    let size = refined.iter().fold(0.0f64, |a, x| a.max(x.abs()));
    let largest = |m: &Array2<f64>, diagonal: bool| {
        let entries = m.indexed_iter().filter(|((i, j), _)| diagonal || i != j);
        entries.fold(0.0f64, |a, (_, x)| a.max(x.abs()))
    };
    // Closer eigenvalues than this are one eigenvalue to working precision: only the angle between them is mended.
    let close = 2.0 * d as f64 * (largest(&action, false) + size * largest(&overlap, true));
    if close > FAR_OFF * size {
        return;
    }
    let correction = Array2::from_shape_fn((d, d), |(i, j)| {
        let gap = refined[j] - refined[i];
        if i == j || gap.abs() <= close {
            overlap[[i, j]] / 2.0
        } else {
            (action[[i, j]] + refined[j] * overlap[[i, j]]) / gap
        }
    });
    if !correction.iter().all(|x| x.abs() < FAR_OFF) {
        return;
    }
    let change = correction.t().dot(&*vectors);
    *vectors += &change;
    values.copy_from_slice(&refined);
}

/// I - V V^T for vectors as rows.
fn overlap(vectors: &Array2<f64>) -> Array2<f64> {
    Array2::from_shape_fn(vectors.dim(), |(i, j)| {
        let mut sum = Sum::default();
        sum.add(if i == j { 1.0 } else { 0.0 });
        for (a, b) in vectors.row(i).iter().zip(vectors.row(j)) {
            sum.add_product(-a, *b);
        }
        sum.value()
    })
}

/// V (matrix + low) V^T for vectors as rows.
fn action(matrix: &Array2<f64>, low: &Array2<f64>, vectors: &Array2<f64>) -> Array2<f64> {
    let (mut high, mut rest) = (Array2::zeros(vectors.dim()), Array2::zeros(vectors.dim()));
    for ((i, j), high) in high.indexed_iter_mut() {
        let mut sum = Sum::default();
        for ((v, a), low) in vectors.row(i).iter().zip(matrix.row(j)).zip(low.row(j)) {
            sum.add_product(*v, *a);
            sum.add(v * low);
        }
        (*high, rest[[i, j]]) = sum.pair();
    }
    Array2::from_shape_fn(vectors.dim(), |(i, j)| {
        let mut sum = Sum::default();
        for ((image, rest), v) in high.row(i).iter().zip(rest.row(i)).zip(vectors.row(j)) {
            sum.add_product(*image, *v);
            sum.add(rest * v);
        }
        sum.value()
    })
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;

    #[test]
    fn mends_what_a_solver_got_wrong() {
        let matrix = arr2(&[[2.0, 1.0], [1.0, 2.0]]);
        let root = 0.5f64.sqrt();
        // Turned by 1e-8 and a little too long.
        let (c, s) = (root * (1.0 + 1e-9), root * 1e-8);
        let mut vectors = arr2(&[[c + s, c - s], [c - s, -c - s]]);
        let mut values = [3.1, 0.9];
        refine(&matrix, &Array2::zeros((2, 2)), &mut values, &mut vectors);
        for (found, expected) in vectors.iter().zip([root, root, root, -root]) {
            assert!((found - expected).abs() < 3e-16, "{vectors}");
        }
        assert!((values[0] - 3.0).abs() < 1e-15 && (values[1] - 1.0).abs() < 1e-15, "{values:?}");
    }

    #[test]
    fn leaves_what_it_cannot_mend() {
        let start = arr2(&[[1.0, 0.0], [0.0, 1.0]]);
        for low in [0.0, f64::NAN] {
            let (mut vectors, mut values) = (start.clone(), [3.0, 1.0]);
            refine(&arr2(&[[2.0, 1.0], [1.0, 2.5]]), &arr2(&[[low; 2]; 2]), &mut values, &mut vectors);
            assert_eq!((&vectors, values), (&start, [3.0, 1.0]));
        }
    }
}
