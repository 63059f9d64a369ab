use ndarray::{arr2, aview1};
use proptest::prelude::*;

use super::*;
use crate::math::testing::{assert_close, filters, lcg, three_columns};

fn fit<T: Copy + Into<f64>>(rows: &[T], d: usize) -> Pca {
    let mut moments = Moments::default();
    moments.update(rows, d).unwrap();
    pca(&moments).unwrap()
}

#[track_caller]
fn assert_orthonormal(pca: &Pca) {
    let product = pca.components.dot(&pca.components.t());
    let d = product.nrows();
    for ((i, j), x) in product.indexed_iter() {
        assert!((x - f64::from(u8::from(i == j))).abs() < 1e-13, "{d}: {i} {j} {x}");
    }
}

#[test]
fn agrees_with_scikit_learn() {
    // p = sklearn.decomposition.PCA().fit(x) (1.9.1), of `three_columns`.
    let x = three_columns();
    let pca = fit(&x, 3);
    let components = [
        [0.14326631976918383, 0.9846414703300977, 0.09977943939498155],
        [0.8543335599540365, -0.17393615102562543, 0.489755432540216],
        [-0.4995887608384092, -0.015079465261531366, 0.8661314448577474],
    ];
    assert_close(pca.components.as_slice().unwrap(), components.as_flattened(), 1e-14);
    assert_close(&pca.explained_variance, &[1.3443792350550572, 0.42488868441109134, 0.06715458348816657], 1e-14);
    assert_close(&pca.explained_variance_ratio, &[0.7320642351595609, 0.23136760942950685, 0.03656815541093224], 1e-14);
    // p.transform(x[:2])
    let mut coefs = [0.0; 6];
    pca.transform(&x[..6], 3, &mut coefs).unwrap();
    let expected = [
        -0.7718614720952897,
        -0.46447234481184857,
        0.07965667467398187,
        -1.859672190687411,
        0.7211006698087119,
        -0.08012926472420567,
    ];
    assert_close(&coefs, &expected, 1e-14);
}

#[test]
fn nine_weights_agree_with_scikit_learn() {
    // w = filters(500, 7).astype(float): np.linalg.eigh(np.cov(w.T))[0][::-1]
    let w = filters(500, 7);
    let pca = fit(&w, 9);
    let variances = [
        0.3201697775690976,
        0.0779243371655214,
        0.03597127850439341,
        0.020620624102268205,
        0.013879508713576027,
        0.008677140098346997,
        0.006896781615475833,
        0.0051755168024675766,
        0.00404526001058293,
    ];
    assert_close(&pca.explained_variance, &variances, 1e-14);
    // PCA().fit(w).components_[8], transform(w[:1])
    let last = [
        0.0036775625689704048,
        -0.0247459060025903,
        -0.015913558143424787,
        0.022497203329703393,
        0.016861111790709905,
        0.013061194858822593,
        0.039819509648409274,
        0.19649392428262022,
        0.9787565594409252,
    ];
    assert_close(pca.components.row(8).as_slice().unwrap(), &last, 1e-12);
    let mut coefs = [0.0; 9];
    pca.transform(&w[..9], 9, &mut coefs).unwrap();
    let expected = [
        -0.5807225720703397,
        0.37786071985361713,
        0.04772345708000799,
        0.24868300758905967,
        -0.20647584912373426,
        0.10535595786601007,
        -0.028816797490081727,
        -0.05944429281060861,
        -0.1256958214272299,
    ];
    assert_close(&coefs, &expected, 1e-12);
    assert_orthonormal(&pca);
}

#[test]
fn too_few_rows_and_overflow_have_no_components() {
    let mut moments = Moments::default();
    assert!(pca(&moments).is_none());
    moments.update(&[1.0f64, 2.0], 2).unwrap();
    assert!(pca(&moments).is_none());
    moments.update(&[1e200f64, -1e200], 2).unwrap();
    assert!(pca(&moments).is_none());
    let hostile = Moments::from_parts(5, 0, vec![0.0], vec![f64::NAN]).unwrap();
    assert!(pca(&hostile).is_none());
}

#[test]
fn equal_rows_have_the_identity() {
    let pca = fit(&[0.1f32; 9 * 300], 9);
    assert_eq!(pca.components, Array2::<f64>::eye(9));
    assert_eq!(pca.explained_variance, [0.0; 9]);
    assert_eq!(pca.explained_variance_ratio, [0.0; 9]);
}

#[test]
fn missing_directions_are_unit_vectors_in_order() {
    // Only column 1 varies: e_2 first, then e_1, e_3, e_4.
    let rows: Vec<f64> = lcg(50, 3).into_iter().flat_map(|x| [0.25, x, 0.5, 0.75]).collect();
    let pca = fit(&rows, 4);
    let expected = arr2(&[[0., 1., 0., 0.], [1., 0., 0., 0.], [0., 0., 1., 0.], [0., 0., 0., 1.]]);
    assert_eq!(pca.components, expected);
    assert_eq!(pca.explained_variance_ratio, [1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn the_completion_does_not_depend_on_rounding() {
    // Rank 2 in 9 dimensions: rounding differs between batch sizes, the components do not.
    let rows: Vec<f64> = lcg(4000, 4)
        .chunks(2)
        .flat_map(|c| (0..9).map(|j| c[0] * (j as f64 - 2.5) + c[1] * 0.3 * ((j * j) as f64)).collect::<Vec<_>>())
        .collect();
    let expected = fit(&rows, 9);
    assert_eq!(expected.explained_variance[2..], [0.0; 7]);
    assert_orthonormal(&expected);
    for batch in [1, 5, 13, 100] {
        let mut moments = Moments::default();
        rows.chunks(batch * 9).for_each(|rows| moments.update(rows, 9).unwrap());
        let found = pca(&moments).unwrap();
        assert_eq!(found.explained_variance[2..], [0.0; 7], "batches of {batch}");
        assert_close(found.components.as_slice().unwrap(), expected.components.as_slice().unwrap(), 1e-12);
    }
}

#[test]
fn close_variances_agree_between_batches_and_partitions() {
    // Nine independent columns of variance 1/3 each: eigenvalues 1e-3 apart, components as sensitive as they get.
    let rows: Vec<f32> = lcg(9 * 30_000, 21).into_iter().map(|x| x as f32).collect();
    let expected = fit(&rows, 9);
    for (batch, partitions) in [(1, 1), (3, 1), (8192, 2), (1, 7), (3, 7)] {
        let mut all = Moments::default();
        for part in rows.chunks(30_000usize.div_ceil(partitions) * 9) {
            let mut m = Moments::default();
            part.chunks(batch * 9).for_each(|rows| m.update(rows, 9).unwrap());
            let state = Moments::from_parts(m.n(), m.n_skipped(), m.mean().to_vec(), m.comoment().to_vec()).unwrap();
            all.merge(&state.with_low(m.mean_low().to_vec(), m.comoment_low().to_vec()).unwrap()).unwrap();
        }
        let found = pca(&all).unwrap();
        assert_close(&found.explained_variance, &expected.explained_variance, 1e-15);
        assert_close(found.components.as_slice().unwrap(), expected.components.as_slice().unwrap(), 1e-14);
    }
}

#[test]
fn signs_survive_ties() {
    for sign in [1.0, -1.0] {
        for noise in [1.0 - 1e-15, 1.0 + 1e-15] {
            let rows: Vec<f64> = lcg(50, 3).into_iter().flat_map(|x| [sign * x, -sign * x * noise]).collect();
            let first = fit(&rows, 2).components.row(0).to_owned();
            assert!(first[0] > 0.7 && first[1] < -0.7, "{first}");
        }
    }
}

#[test]
fn tiny_and_huge_entries() {
    let base = fit(&three_columns(), 3);
    for power in [-400, -130, 100, 400] {
        let factor = 2f64.powi(power);
        let rows: Vec<f64> = three_columns().iter().map(|x| x * factor).collect();
        let found = fit(&rows, 3);
        assert_close(found.components.as_slice().unwrap(), base.components.as_slice().unwrap(), 1e-12);
        let expected: Vec<f64> = base.explained_variance.iter().map(|v| v * factor * factor).collect();
        assert_close(&found.explained_variance, &expected, 1e-13);
    }
}

#[test]
fn coefficients_of_one_row_do_not_depend_on_the_others() {
    let w = filters(300, 8);
    let pca = fit(&w, 9);
    let (mut whole, mut single) = (vec![0.0; 2700], vec![0.0; 2700]);
    pca.transform(&w, 9, &mut whole).unwrap();
    for (row, out) in w.chunks(9).zip(single.chunks_mut(9)) {
        pca.transform(row, 9, out).unwrap();
    }
    assert_eq!(whole, single);
    // And the general path agrees with the one for nine.
    let mut eight = vec![0.0; 2400];
    transform(&pca.mean, pca.components.slice(ndarray::s![..8, ..]), &w, 9, &mut eight).unwrap();
    for (a, b) in eight.chunks(8).zip(whole.chunks(9)) {
        assert_eq!(a, &b[..8]);
    }
}

#[test]
fn rows_that_are_not_finite_stay_so() {
    let pca = fit(&filters(300, 8), 9);
    let mut row = [0.5f32; 9];
    let mut out = [0.0; 9];
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        row[4] = bad;
        pca.transform(&row, 9, &mut out).unwrap();
        assert!(out.iter().all(|x| !x.is_finite()));
    }
}

#[test]
fn says_what_does_not_fit() {
    let pca = fit(&three_columns(), 3);
    let message = |rows: &[f64], d, room| pca.transform(rows, d, &mut vec![0.0; room]).unwrap_err().to_string();
    assert_eq!(message(&[0.0; 4], 4, 4), "expected lists of the fit's 3 numbers (components of 3), found lists of 4");
    assert_eq!(message(&[0.0; 4], 3, 4), "expected whole lists of 3 numbers, found 4 numbers");
    assert_eq!(message(&[0.0; 6], 3, 5), "expected room for 2 x 3 coefficients, found 5");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn components_are_orthonormal_and_rebuild_the_covariance(
        d in 1usize..12,
        rank in 1usize..12,
        n in 2usize..60,
        seed in any::<u32>(),
    ) {
        let rank = rank.min(d);
        let (factors, mix) = (lcg(n * rank, seed), lcg(rank * d, seed ^ 77));
        let rows: Vec<f64> = factors
            .chunks(rank)
            .flat_map(|f| {
                let entry = |j: usize| f.iter().zip(mix.chunks(d)).map(|(x, m)| x * m[j]).sum();
                (0..d).map(entry).collect::<Vec<f64>>()
            })
            .collect();
        let mut moments = Moments::default();
        moments.update(&rows, d).unwrap();
        let pca = pca(&moments).unwrap();
        assert_orthonormal(&pca);
        prop_assert!(pca.explained_variance.is_sorted_by(|a, b| a >= b));
        let sum: f64 = pca.explained_variance_ratio.iter().sum();
        prop_assert!((sum - 1.0).abs() < 1e-14);
        for component in pca.components.rows() {
            let largest = component.iter().fold(0.0f64, |a, x| a.max(x.abs()));
            prop_assert!(component.iter().any(|x| *x >= largest * (1.0 - TIE)));
        }
        let scaled = &pca.components * &aview1(&pca.explained_variance).insert_axis(ndarray::Axis(1));
        let rebuilt = pca.components.t().dot(&scaled);
        let covariance = moments.covariance().unwrap();
        assert_close(&rebuilt.iter().copied().collect::<Vec<_>>(), covariance.as_slice().unwrap(), 1e-13);
    }
}
