use proptest::prelude::*;

use super::*;
use crate::math::histogram::Header;
use crate::math::testing::{assert_close, lcg};

const A: [u64; 4] = [3, 0, 5, 2];
const B: [u64; 4] = [1, 4, 0, 5];

/// Bins of width 1/2 over [-1, 1].
fn histogram(components: &[[u64; 4]]) -> Histogram {
    let n = components[0].iter().sum();
    let d = components.len();
    let header = Header { lo: -1.0, hi: 1.0, bins: 4, d, n, n_skipped: 0, below: 0, above: 0 };
    Histogram::from_parts(header, components.as_flattened().to_vec()).unwrap()
}

#[test]
fn densities_agree_with_numpy() {
    // p = c / (c.sum() * .5); p = np.where(p == 0, np.finfo(np.float32).eps, p); p / p.sum()
    let p = density(&A, 0.5).unwrap();
    assert_close(&p, &[0.2999999821186076, 5.960464122267716e-08, 0.4999999701976794, 0.19999998807907177], 1e-15);
    assert!((p[1] - 5.960464122267716e-08).abs() < 1e-22);
    // scipy.stats.entropy(p, q), entropy(q, p)
    let q = density(&B, 0.5).unwrap();
    assert_close(&[kl(&p, &q), kl(&q, &p)], &[8.117516695883463, 6.635979431920679], 1e-15);
    assert_eq!(density(&[0, 0], 0.5), None);
    assert_eq!(density(&[u64::MAX, 0], 1.0).map(|p| p[0] > 0.99), Some(true));
}

#[test]
fn shift_agrees_with_scipy() {
    let a = histogram(&[A, [1, 1, 4, 4]]);
    let b = histogram(&[B, [2, 3, 3, 2]]);
    let found = shift(&a, &b, &[0.7, 0.3]).unwrap().unwrap();
    assert_close(&[found.shift], &[10.464377735206932], 1e-15);
    assert_close(
        &found.contributions,
        &[0.7 * (8.117516695883463 + 6.635979431920679), 0.3 * 0.4564348191467835],
        1e-15,
    );
    let scaled = shift(&histogram(&[[1, 2, 3, 4]]), &histogram(&[[10, 20, 30, 40]]), &[1.0]).unwrap().unwrap();
    assert!(scaled.shift < 1e-30);
}

#[test]
fn nothing_inside_has_no_shift() {
    let a = histogram(&[A, A]);
    let empty = Histogram::new(-1.0, 1.0, 4, 2).unwrap();
    assert_eq!(shift(&a, &empty, &[0.7, 0.3]).unwrap(), None);
    let mut half = empty.clone();
    half.update(&[0.0, 9.0], 2).unwrap();
    assert_eq!(shift(&half, &a, &[0.7, 0.3]).unwrap(), None);
}

#[test]
fn says_what_does_not_fit() {
    let a = histogram(&[A, A]);
    let message = |b: &Histogram, evr: &[f64]| shift(&a, b, evr).unwrap_err().to_string();
    let expected = "expected a histogram of 2 components in 4 bins over [-1, 1], found one of ";
    let others = [(-1.0, 2.0, 4, 2), (-2.0, 1.0, 4, 2), (-1.0, 1.0, 5, 2), (-1.0, 1.0, 4, 3)];
    for (lo, hi, bins, d) in others {
        let other = Histogram::new(lo, hi, bins, d).unwrap();
        let found = format!("{expected}{d} components in {bins} bins over [{lo}, {hi}]");
        assert_eq!(message(&other, &[0.7, 0.3]), found);
        assert_eq!(all_pairs(&[&a, &a, &other], &[0.7, 0.3]).unwrap_err().to_string(), found);
    }
    let ratios = "expected one explained variance ratio for each of 2 components, found 1";
    assert_eq!(message(&a, &[0.7]), ratios);
    assert_eq!(all_pairs(&[&a], &[0.7]).unwrap_err().to_string(), ratios);
}

#[test]
fn pairs_of_none() {
    let pairs = all_pairs(&[], &[]).unwrap();
    assert_eq!(pairs.get(0, 0), None);
    assert_eq!(pairs.get(usize::MAX, 0), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn all_pairs_are_shifts(seeds in prop::collection::vec(any::<u32>(), 1..6), bins in 1usize..80, d in 1usize..10) {
        let hists: Vec<Histogram> = seeds
            .iter()
            .enumerate()
            .map(|(i, seed)| {
                let mut h = Histogram::new(-1.0, 1.0, bins, d).unwrap();
                h.update(&lcg(i * 40 * d, *seed), d).unwrap();
                h
            })
            .collect();
        let evr: Vec<f64> = (1..=d).map(|i| 1.0 / i as f64).collect();
        let refs: Vec<&Histogram> = hists.iter().collect();
        let pairs = all_pairs(&refs, &evr).unwrap();
        for (i, a) in hists.iter().enumerate() {
            for (j, b) in hists.iter().enumerate() {
                let single = shift(a, b, &evr).unwrap();
                let pair = pairs.get(i, j).map(|(shift, c)| Shift { shift, contributions: c.to_vec() });
                prop_assert_eq!(&pair, &single);
                // The first one is empty.
                prop_assert_eq!(single.is_none(), i == 0 || j == 0);
                let Some(single) = single else { continue };
                prop_assert!(single.shift >= 0.0 && single.contributions.iter().all(|c| *c >= 0.0));
                prop_assert!(i != j || single.shift == 0.0);
                // The sum of both divergences, as defined.
                let mut expected = 0.0;
                for (k, evr) in evr.iter().enumerate() {
                    let p = density(a.component(k), a.width()).unwrap();
                    let q = density(b.component(k), b.width()).unwrap();
                    expected += evr * (kl(&p, &q) + kl(&q, &p));
                }
                prop_assert!((single.shift - expected).abs() <= 1e-13 * expected.max(1.0));
            }
        }
        prop_assert_eq!(pairs.get(0, hists.len()), None);
    }
}
