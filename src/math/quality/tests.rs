use ndarray::{Array, Array4, s};

use super::*;
use crate::math::testing::{assert_close, lcg};

/// ```python
/// W = lcg(m * c * 9, seed).astype(np.float32).reshape(m, c, 3, 3)
/// ```
fn layer(m: usize, c: usize, seed: u32) -> Array4<f32> {
    let weights = lcg(m * c * 9, seed).into_iter().map(|x| x as f32).collect();
    Array::from_shape_vec((m, c, 3, 3), weights).unwrap()
}

#[test]
fn agrees_with_numpy() {
    // W[1, 2] *= np.float32(.001); W[3, 0] = 0; f = W.reshape(-1, 9).astype(float)
    let mut weights = layer(5, 4, 11);
    weights.slice_mut(s![1, 2, .., ..]).mapv_inplace(|w| w * 0.001);
    weights.slice_mut(s![3, 0, .., ..]).fill(0.0);
    let found = quality(weights.view());
    // (np.abs(f) < .01 * np.abs(f).max()).all(1).mean()
    assert_eq!(found.sparsity, 0.1);
    // e = np.linalg.svd(f - f.mean(0), compute_uv=0)**2; p = e / e.sum(); -(p * np.log10(p)).sum()
    assert_close(&[found.variance_entropy], &[0.8691959301681211], 1e-14);
    assert_close(&[found.variance_entropy_norm.unwrap()], &[1.1274903024578136], 1e-14);
    // r = W.reshape(5, -1).astype(float); r /= np.linalg.norm(r, axis=1, keepdims=True)
    // 1 - np.abs(r @ r.T - np.eye(5)).sum() / 20
    assert_close(&[found.orthogonality.unwrap()], &[0.8696470346675327], 1e-14);
    // (f.max(1) - f.min(1)).mean(), np.abs(f).sum(), np.sqrt((f**2).sum())
    assert_close(&[found.scale_mean], &[1.3702953902073205], 1e-15);
    assert_close(&[found.l1, found.l2], &[78.33701634639874, 7.137741973007494], 1e-15);
}

#[test]
fn more_channels_than_a_block() {
    // layer(150, 2, 13), as above
    let found = quality(layer(150, 2, 13).view());
    assert_close(&[found.orthogonality.unwrap()], &[0.8105691964434416], 1e-14);
}

#[test]
fn thresholds() {
    let found: Vec<f64> = [3, 20, 64, 4096].into_iter().filter_map(random_threshold).collect();
    assert_close(&found, &[0.12552614331048328, 0.7709121118588451, 0.9055617473792277, 0.9510656192297127], 1e-15);
    assert_eq!([0, 1, 2].map(random_threshold), [None; 3]);
    assert!(random_threshold(u64::MAX).is_some_and(|t| t < 0.9513));
}

#[test]
fn zero_layer() {
    let found = quality(Array4::zeros((4, 3, 3, 3)).view());
    let expected = Quality {
        sparsity: 0.0,
        variance_entropy: 0.0,
        variance_entropy_norm: Some(0.0),
        // |0 - 1| on the diagonal of four rows.
        orthogonality: Some(1.0 - 4.0 / 12.0),
        scale_mean: 0.0,
        l1: 0.0,
        l2: 0.0,
    };
    assert_eq!(found, expected);
}

#[test]
fn equal_filters_have_no_entropy() {
    let filter = layer(1, 1, 4);
    let found = quality(filter.broadcast((6, 1, 3, 3)).unwrap());
    assert_eq!((found.variance_entropy, found.variance_entropy_norm), (0.0, Some(0.0)));
    // All pairs are parallel.
    assert!(found.orthogonality.unwrap().abs() < 1e-15);
}

#[test]
fn one_direction_of_variance_has_entropy_zero_not_minus_zero() {
    let mut weights = Array4::<f32>::zeros((4, 1, 3, 3));
    (0..4).for_each(|i| weights[[i, 0, 1, 1]] = i as f32);
    assert_eq!(quality(weights.view()).variance_entropy.to_bits(), 0);
}

#[test]
fn one_filter_and_one_channel() {
    let found = quality(layer(1, 1, 4).view());
    assert_eq!((found.variance_entropy, found.variance_entropy_norm, found.orthogonality), (0.0, None, None));
    assert!(found.scale_mean > 0.0);
    let channel = quality(layer(1, 8, 4).view());
    assert!(channel.orthogonality.is_none() && channel.variance_entropy_norm.is_some());
}

#[test]
fn filters_that_are_not_finite_take_no_part() {
    let good = layer(6, 1, 9);
    let mut weights = layer(8, 1, 9);
    weights[[6, 0, 0, 0]] = f32::NAN;
    weights[[7, 0, 2, 2]] = f32::INFINITY;
    let (found, expected) = (quality(weights.view()), quality(good.view()));
    let orthogonality = found.orthogonality;
    assert_eq!(Quality { orthogonality: None, ..found }, Quality { orthogonality: None, ..expected });
    // Two zero rows: each adds 1 to the sum over pairs.
    let sum = (1.0 - expected.orthogonality.unwrap()) * 30.0 + 2.0;
    assert_close(&[orthogonality.unwrap()], &[1.0 - sum / 56.0], 1e-14);

    let none = quality(Array4::from_elem((2, 1, 3, 3), f32::NAN).view());
    assert!(none.sparsity.is_nan() && none.variance_entropy.is_nan() && none.scale_mean.is_nan());
    assert_eq!((none.l1, none.l2, none.variance_entropy_norm), (0.0, 0.0, None));
}

#[test]
fn layout_does_not_matter() {
    let weights = layer(4, 5, 6);
    let mut turned = Array4::<f32>::zeros((3, 3, 5, 4));
    turned.assign(&weights.view().permuted_axes([2, 3, 1, 0]));
    assert_eq!(quality(turned.view().permuted_axes([3, 2, 0, 1])), quality(weights.view()));
}

#[test]
fn other_kernels_and_empty_layers() {
    let pointwise = quality(Array4::from_shape_fn((5, 3, 1, 1), |(i, j, ..)| (i + 2 * j) as f32).view());
    assert_eq!((pointwise.variance_entropy, pointwise.scale_mean), (0.0, 0.0));
    assert!(quality(Array4::zeros((2, 1, 70, 70)).view()).variance_entropy.is_nan());
    for shape in [(0, 3, 3, 3), (3, 0, 3, 3), (3, 3, 0, 3)] {
        assert!(quality(Array4::zeros(shape).view()).sparsity.is_nan());
    }
}
