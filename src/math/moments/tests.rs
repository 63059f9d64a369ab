use proptest::prelude::*;

use super::*;
use crate::math::testing::{assert_close, filters, lcg, three_columns};

fn of<T: Copy + Into<f64>>(rows: &[T], d: usize) -> Moments {
    let mut moments = Moments::default();
    moments.update(rows, d).unwrap();
    moments
}

fn batched<T: Copy + Into<f64>>(rows: &[T], d: usize, batch: usize, partitions: usize) -> Moments {
    let mut all = Moments::default();
    for part in rows.chunks((rows.len() / d).div_ceil(partitions).max(1) * d) {
        let mut moments = Moments::default();
        part.chunks(batch * d).for_each(|rows| moments.update(rows, d).unwrap());
        // Through the encoded form, as between partitions.
        let (mean, comoment) = (moments.mean().to_vec(), moments.comoment().to_vec());
        all.merge(&Moments::from_parts(moments.n(), moments.n_skipped(), mean, comoment).unwrap()).unwrap();
    }
    all
}

#[track_caller]
fn assert_same(found: &Moments, expected: &Moments, tolerance: f64) {
    assert_eq!((found.n(), found.n_skipped(), found.d()), (expected.n(), expected.n_skipped(), expected.d()));
    // A mean near zero of large numbers is as exact as the numbers are large, not as it is small.
    let d = expected.d();
    let variances =
        (0..d).map(|i| expected.comoment()[i * d - i * i.saturating_sub(1) / 2] / expected.n().max(1) as f64);
    let size = variances.fold(0.0, |a: f64, variance| a.max(variance.sqrt()));
    let size = expected.mean().iter().fold(size, |a, x| a.max(x.abs()));
    for (i, (f, e)) in found.mean().iter().zip(expected.mean()).enumerate() {
        assert!((f - e).abs() <= tolerance * size, "mean {i}: expected {e:e}, found {f:e}");
    }
    assert_close(found.comoment(), expected.comoment(), tolerance);
}

fn message(result: Result<impl Sized>) -> String {
    result.map(|_| ()).unwrap_err().to_string()
}

#[test]
fn agrees_with_numpy() {
    // x.mean(0), np.cov(x.T)[np.triu_indices(3)]
    let moments = of(&three_columns(), 3);
    assert_eq!((moments.n(), moments.n_skipped(), moments.d()), (40, 0, 3));
    assert_close(moments.mean(), &[0.020102643966674806, 1.1575019538402558, -0.023801888525485992], 1e-15);
    let c = moments.covariance().unwrap();
    let upper = [c[[0, 0]], c[[0, 1]], c[[0, 2]], c[[1, 1]], c[[1, 2]], c[[2, 2]]];
    let expected = [
        0.3544749756932608,
        0.12701381593493913,
        0.16793910438659093,
        1.3162707375015785,
        0.09500945734382411,
        0.1656767897594762,
    ];
    assert_close(&upper, &expected, 1e-15);
    assert_eq!(c, c.t());
}

#[test]
fn any_batch_size_and_partitioning_gives_the_same_last_digits() {
    let rows = filters(100_003, 5);
    let expected = batched(&rows, 9, 8192, 1);
    for batch in [1, 3, 11, 12, 255, 257, 1000] {
        for partitions in [1, 2, 7] {
            let found = batched(&rows, 9, batch, partitions);
            assert_close(found.mean(), expected.mean(), 5e-15);
            let (found, expected) = (found.covariance().unwrap(), expected.covariance().unwrap());
            for ((i, j), e) in expected.indexed_iter() {
                let size = (expected[[i, i]] * expected[[j, j]]).sqrt();
                assert!((found[[i, j]] - e).abs() <= 1e-15 * size, "batch {batch}, {partitions}: {i} {j}");
            }
        }
    }
}

#[test]
fn columns_of_any_number_are_summed_alike() {
    let rows = filters(700, 3);
    let padded: Vec<f32> = rows.chunks(9).flat_map(|row| row.iter().copied().chain([0.5, 0.25])).collect();
    let (nine, eleven) = (of(&rows, 9), of(&padded, 11));
    assert_eq!(nine.mean(), &eleven.mean()[..9]);
    assert_eq!(nine.comoment()[..9], eleven.comoment()[..9]);
    assert_eq!(eleven.mean()[9..], [0.5, 0.25]);
    let one: Vec<f32> = rows.chunks(9).map(|row| row[4]).collect();
    assert_eq!(of(&one, 1).mean()[0], nine.mean()[4]);
}

#[test]
fn an_offset_costs_nothing() {
    let rows = lcg(3 * 20_000, 9);
    let offset: Vec<f64> = rows.iter().map(|x| x + 1e6).collect();
    // What the offset rows really are, without the offset.
    let exact: Vec<f64> = offset.iter().map(|x| x - 1e6).collect();
    for batch in [1, 256, 8192] {
        let (found, expected) = (batched(&offset, 3, batch, 2), batched(&exact, 3, batch, 2));
        assert_close(found.comoment(), expected.comoment(), 1e-12);
    }
}

#[test]
fn equal_rows_have_no_spread_at_all() {
    for value in [0.1f64, -1e-300, 1e100, 0.7, 1.0 / 3.0, 12345.678] {
        for n in [2, 11, 12, 100, 255, 256, 1000, 5001] {
            for batch in [1, 7, 8192] {
                let moments = batched(&vec![value; n * 3], 3, batch, 3);
                assert_eq!(moments.comoment(), [0.0; 6], "{n} rows of {value}");
                assert_eq!(moments.mean(), [value; 3], "{n} rows of {value}");
            }
        }
    }
}

#[test]
fn rows_that_are_not_finite_are_left_out_and_counted() {
    let good = filters(600, 2);
    let mut rows = Vec::new();
    for (i, row) in good.chunks(9).enumerate() {
        rows.extend_from_slice(row);
        if i % 5 == 0 {
            let mut bad = row.to_vec();
            bad[i % 9] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][i % 3];
            rows.extend(bad);
        }
    }
    for batch in [1, 8, 100, 8192] {
        let found = batched(&rows, 9, batch, 1);
        assert_eq!((found.n(), found.n_skipped()), (600, 120));
        assert_close(found.comoment(), of(&good, 9).comoment(), 1e-14);
    }
    let none = of(&[f64::NAN; 40], 2);
    assert_eq!((none.n(), none.n_skipped(), none.d()), (0, 20, 2));
    assert!(none.covariance().is_none());
}

#[test]
fn finite_rows_whose_sum_overflows_are_kept() {
    let mut rows = vec![1.0; 600];
    rows.extend([f64::MAX; 40]);
    let moments = of(&rows[600..], 2);
    assert_eq!((moments.n(), moments.n_skipped(), moments.mean()), (20, 0, [f64::MAX; 2].as_slice()));
    assert_eq!(moments.comoment(), [0.0; 3]);
    assert_eq!(of(&rows, 2).n(), 320);
}

#[test]
fn few_rows() {
    let none = Moments::default();
    assert!(none.covariance().is_none());
    let one = of(&[1.5f32, -2.0], 2);
    assert_eq!((one.n(), one.mean(), one.comoment()), (1, [1.5, -2.0].as_slice(), [0.0; 3].as_slice()));
    assert!(one.covariance().is_none());
    let two = of(&[1.0f32, 0.0, 3.0, 1.0], 2);
    assert_eq!(two.covariance().unwrap(), ndarray::arr2(&[[2.0, 1.0], [1.0, 0.5]]));
}

#[test]
fn says_what_does_not_fit() {
    let mut moments = of(&[1.0f64, 2.0, 3.0], 3);
    assert_eq!(message(moments.update(&[1.0f32; 4], 2)), "expected lists of 3 numbers, found a list of 2");
    assert_eq!(message(moments.update(&[1.0f32; 4], 3)), "expected whole lists of 3 numbers, found 4 numbers");
    assert!(message(moments.update(&[0.0f32; 0], 0)).contains("found a list of 0"));
    assert!(message(Moments::default().update(&[0.0f32; 5000], 5000)).contains("found a list of 5000"));
    assert_eq!(message(moments.merge(&of(&[1.0f64; 4], 2))), "expected lists of 3 numbers, found a list of 2");
    assert_eq!(moments.n(), 1);
    moments.merge(&Moments::default()).unwrap();
    let mut empty = Moments::default();
    empty.merge(&moments).unwrap();
    assert_same(&empty, &moments, 0.0);
}

#[test]
fn decoded_states_are_checked() {
    let parts = |n, mean: usize, comoment: usize| Moments::from_parts(n, 3, vec![1.0; mean], vec![1.0; comoment]);
    assert_eq!(message(parts(5, 9, 44)), "expected 45 co-moments for a mean of 9 numbers, found 44");
    assert!(parts(5, 0, 0).is_err());
    assert!(parts(5, 0, 1).is_err());
    assert!(parts(u64::MAX, 1, 1).is_err());
    assert!(parts(1, 4097, 4097 * 4098 / 2).is_err());
    let empty = parts(0, 2, 3).unwrap();
    assert_eq!((empty.n_skipped(), empty.mean(), empty.comoment()), (3, [0.0; 2].as_slice(), [0.0; 3].as_slice()));
    assert_eq!(parts(0, 0, 0).unwrap().d(), 0);
    let mut full = parts(1 << 62, 1, 1).unwrap();
    assert!(full.merge(&parts(1, 1, 1).unwrap()).is_err());
    assert!(full.update(&[1.0], 1).is_err());
    assert_eq!(
        message(full.clone().with_low(vec![0.0], vec![])),
        "expected what rounding dropped from 1 means and 1 co-moments, found 1 and 0"
    );
    full.skip(u64::MAX);
    assert_eq!(full.n_skipped(), u64::MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn order_and_cuts_do_not_matter(
        d in 1usize..12,
        cells in prop::collection::vec(-1.0e3..1.0e3f64, 0..3000),
        cuts in prop::collection::vec(0usize..300, 0..6),
        bad in prop::option::of(0usize..3000),
    ) {
        let mut cells = cells;
        cells.truncate(cells.len() / d * d);
        if let Some(cell) = bad.and_then(|i| cells.get_mut(i)) {
            *cell = f64::NAN;
        }
        let whole = of(&cells, d);
        let mut cuts: Vec<usize> = cuts.iter().map(|c| (c * d).min(cells.len())).chain([0, cells.len()]).collect();
        cuts.sort();
        let parts: Vec<Moments> = cuts.windows(2).map(|w| of(&cells[w[0]..w[1]], d)).collect();
        let (mut forward, mut backward) = (Moments::default(), Moments::default());
        parts.iter().for_each(|p| forward.merge(p).unwrap());
        parts.iter().rev().for_each(|p| backward.merge(p).unwrap());
        assert_same(&forward, &whole, 1e-13);
        assert_same(&backward, &whole, 1e-13);
        let m = whole.clone();
        let decoded = Moments::from_parts(m.n(), m.n_skipped(), m.mean().into(), m.comoment().into()).unwrap();
        assert_same(&decoded, &whole, 0.0);
    }
}
