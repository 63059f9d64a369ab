use proptest::prelude::*;

use super::*;
use crate::math::testing::lcg;

fn of(values: &[f64], d: usize, lo: f64, hi: f64, bins: usize) -> Histogram {
    let mut histogram = Histogram::new(lo, hi, bins, d).unwrap();
    histogram.update(values, d).unwrap();
    histogram
}

fn message(result: Result<impl Sized>) -> String {
    result.map(|_| ()).unwrap_err().to_string()
}

/// numpy.linspace(lo, hi, bins + 1)
fn edges(lo: f64, hi: f64, bins: usize) -> Vec<f64> {
    let step = (hi - lo) / bins as f64;
    (0..=bins).map(|i| if i == bins { hi } else { i as f64 * step + lo }).collect()
}

/// The rule itself: the last bin whose left edge is not beyond `x`.
fn by_search(x: f64, edges: &[f64]) -> usize {
    (edges.partition_point(|e| *e <= x) - 1).min(edges.len() - 2)
}

#[test]
fn agrees_with_numpy() {
    // v = lcg(60, 3): np.histogram(v, bins, range=(lo, hi))[0]
    let v = lcg(60, 3);
    let ten = of(&v, 1, -0.3, 0.7, 10);
    assert_eq!(ten.counts(), [5, 4, 3, 1, 4, 2, 3, 3, 6, 1]);
    let outside = |f: fn(&f64) -> bool| v.iter().filter(|x| f(x)).count() as u64;
    assert_eq!((ten.n(), ten.below(), ten.above()), (60, outside(|x| *x < -0.3), outside(|x| *x > 0.7)));
    assert_eq!(of(&v, 1, 0.0, 1.0, 7).counts(), [2, 5, 3, 7, 3, 6, 2]);
}

#[test]
fn components_are_counted_apart() {
    let rows = lcg(9 * 1003, 5);
    let together = of(&rows, 9, -0.9, 0.8, 70);
    assert_eq!(together.n(), 1003);
    for j in 0..9 {
        let column: Vec<f64> = rows.iter().copied().skip(j).step_by(9).collect();
        let mut counts = vec![0; 70];
        let edges = edges(-0.9, 0.8, 70);
        column.iter().filter(|x| (-0.9..=0.8).contains(*x)).for_each(|x| counts[by_search(*x, &edges)] += 1);
        assert_eq!(together.component(j), counts, "component {j}");
    }
    assert!(together.component(9).is_empty());
    assert_eq!(together.counts().iter().sum::<u64>() + together.below() + together.above(), 9 * 1003);
    assert!(together.below() > 0 && together.above() > 0);
}

#[test]
fn entries_at_an_edge_and_beside_it_fall_where_numpy_puts_them() {
    // xs = concatenate([e, nextafter(e, -inf), nextafter(e, inf)]) within [lo, hi]:
    // np.histogram gives 3 in every bin and 4 in the last one, where int((x - lo) / (hi - lo) * bins) is wrong for
    // 11, 65, 7, 1, 62 and 24 of these numbers.
    let ranges = [
        (0.0, 1.0, 70),
        (-3.3, 3.3, 70),
        (-0.3, 0.7, 10),
        (0.1, 0.8, 7),
        (-2.703717896184075, 2.5577837819611564, 70),
        (1e6, 1e6 + 1e-7, 50),
    ];
    for (lo, hi, bins) in ranges {
        let around = edges(lo, hi, bins).into_iter().flat_map(|e| [e.next_down(), e, e.next_up()]);
        let values: Vec<f64> = around.filter(|x| (lo..=hi).contains(x)).collect();
        let mut expected = vec![3; bins];
        expected[bins - 1] = 4;
        assert_eq!(of(&values, 1, lo, hi, bins).counts(), expected, "[{lo}, {hi}]");
        // Each among entries that are in no doubt, so that the fast path has to find it.
        let middle = (lo + hi) / 2.0;
        for &x in &values {
            let mut rows = vec![middle; 9 * 16];
            rows[40] = x;
            let histogram = of(&rows, 9, lo, hi, bins);
            let bin = by_search(x, &edges(lo, hi, bins));
            assert_eq!(
                histogram.component(4)[bin],
                if bin == by_search(middle, &edges(lo, hi, bins)) { 16 } else { 1 }
            );
        }
    }
    // Naive whole parts are off by one here.
    assert_eq!(of(&[0.6], 1, 0.1, 0.8, 7).counts(), [0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(of(&[0.10000000000000002], 1, -0.3, 0.7, 10).counts(), [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn rows_that_are_not_finite_are_left_out_and_counted() {
    let mut rows = vec![0.5; 9 * 40];
    rows[9 * 3 + 2] = f64::NAN;
    rows[9 * 20] = f64::INFINITY;
    rows[9 * 39 + 8] = f64::NEG_INFINITY;
    rows[9 * 5] = 7.0;
    rows[9 * 6] = -7.0;
    let mut histogram = of(&rows, 9, 0.0, 1.0, 4);
    histogram.skip(2);
    assert_eq!((histogram.n(), histogram.n_skipped(), histogram.below(), histogram.above()), (37, 5, 1, 1));
    assert_eq!(histogram.component(0), [0, 0, 35, 0]);
    assert_eq!(histogram.component(1), [0, 0, 37, 0]);
    let mut range = Range::default();
    range.update(&rows, 9).unwrap();
    assert_eq!((range.bounds(), range.n, range.n_skipped), (Some((-7.0, 7.0)), 37, 3));
}

#[test]
fn float32_entries_count_as_what_they_are() {
    let values: Vec<f32> = lcg(500, 8).into_iter().map(|x| x as f32).collect();
    let mut histogram = Histogram::new(-1.0, 1.0, 16, 1).unwrap();
    histogram.update(&values, 1).unwrap();
    assert_eq!(histogram, of(&lcg(500, 8), 1, -1.0, 1.0, 16));
}

#[test]
fn ranges_merge() {
    let mut range = Range::default();
    assert_eq!(range.bounds(), None);
    range.merge(&Range::default());
    assert_eq!(range, Range::default());
    range.update(&[3.0f32, -1.0, 2.0, 0.5], 2).unwrap();
    let mut other = Range::default();
    other.update(&[f64::NAN, 9.0], 2).unwrap();
    other.update(&[-0.0], 1).unwrap();
    assert_eq!(other.bounds().map(|(lo, hi)| (lo.to_bits(), hi.to_bits())), Some((0, 0)));
    range.merge(&other);
    assert_eq!((range.bounds(), range.n, range.n_skipped), (Some((-1.0, 3.0)), 3, 1));
    assert!(range.update(&[1.0f64], 0).is_err());
    assert!(range.update(&[1.0f64], 2).is_err());
}

#[test]
fn refuses_what_has_no_bins() {
    let new = |lo, hi, bins| message(Histogram::new(lo, hi, bins, 9));
    assert_eq!(new(1.0, 1.0, 70), "expected a range lo < hi of finite numbers, found [1, 1]");
    assert_eq!(new(2.0, 1.0, 70), "expected a range lo < hi of finite numbers, found [2, 1]");
    for (lo, hi) in [(f64::NAN, 1.0), (0.0, f64::NAN), (0.0, f64::INFINITY), (f64::MIN, f64::MAX)] {
        assert!(new(lo, hi, 70).contains("finite"));
    }
    assert_eq!(new(0.0, 1.0, 0), "expected 1 to 1000000 bins, found 0");
    assert_eq!(new(0.0, 1.0, 1_000_001), "expected 1 to 1000000 bins, found 1000001");
    assert_eq!(new(1.0, 1.0 + 1e-15, 70), "expected a range wide enough for 70 bins, found [1, 1.000000000000001]");
    assert!(new(0.0, 1e-310, 70).contains("wide enough"));
    assert!(message(Histogram::new(0.0, 1.0, 1_000_000, 4096)).contains("found 4096 x 1000000"));
    assert!(Histogram::new(0.0, 1.0, 70, 0).is_err());
    assert_eq!(Histogram::new(-1e-300, 1e-300, 1_000_000, 9).unwrap().counts().len(), 9_000_000);
}

#[test]
fn says_what_does_not_fit() {
    let mut a = of(&[0.5, 0.5], 2, 0.0, 1.0, 2);
    assert_eq!(message(a.update(&[1.0], 1)), "expected lists of 2 numbers, found a list of 1");
    assert_eq!(message(a.update(&[1.0], 2)), "expected whole lists of 2 numbers, found 1 numbers");
    let b = of(&[0.5], 1, 0.0, 2.0, 3);
    let expected =
        "expected a histogram of 2 components in 2 bins over [0, 1], found one of 1 components in 3 bins over [0, 2]";
    assert_eq!(message(a.merge(&b)), expected);
}

#[test]
fn decoded_states_are_checked() {
    let good = of(&lcg(90, 3), 9, -0.5, 0.5, 4);
    assert_eq!(Histogram::from_parts(good.header(), good.counts().to_vec()).unwrap(), good);
    let bad = |change: fn(&mut Header), counts: Vec<u64>| {
        let mut header = good.header();
        change(&mut header);
        message(Histogram::from_parts(header, counts))
    };
    assert!(bad(|_| {}, vec![0; 35]).contains("expected 9 x 4 counts, found 35"));
    assert!(bad(|_| {}, vec![0; 36]).contains("expected a histogram of 10 x 9 entries"));
    assert!(bad(|h| h.n = u64::MAX, vec![u64::MAX; 36]).contains("entries"));
    assert!(bad(|h| h.bins = usize::MAX, vec![0; 36]).contains("counts"));
    assert!(bad(|h| (h.bins, h.d) = (0, 0), vec![]).contains("found a list of 0"));
    assert!(bad(|h| h.lo = f64::NAN, vec![1; 36]).contains("finite"));
    let full = Header { n: 1 << 62, d: 1, bins: 1, below: 0, above: 0, ..good.header() };
    let mut full = Histogram::from_parts(full, vec![1 << 62]).unwrap();
    assert!(full.merge(&of(&[0.0], 1, -0.5, 0.5, 1)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_entry_lies_between_its_edges(
        lo in -1e3..1e3f64,
        log_width in -9.0..3.0f64,
        bins in 1usize..100,
        picks in prop::collection::vec((0.0..1.0f64, 0usize..100, -2i32..3), 144),
    ) {
        let hi = lo + 10f64.powf(log_width);
        prop_assume!(Histogram::new(lo, hi, bins, 9).is_ok());
        let edges = edges(lo, hi, bins);
        let values: Vec<f64> = picks
            .iter()
            .map(|&(at, edge, ulps)| match ulps {
                -2 => (lo + at * (hi - lo)).min(hi),
                -1 => edges[edge % bins + 1].next_down(),
                0 => edges[edge % bins],
                _ => edges[edge % bins].next_up(),
            })
            .collect();
        let histogram = of(&values, 9, lo, hi, bins);
        let mut expected = vec![0; 9 * bins];
        for (i, x) in values.iter().enumerate() {
            expected[(i % 9) * bins + by_search(*x, &edges)] += 1;
        }
        prop_assert_eq!(histogram.counts(), expected);
    }

    #[test]
    fn order_and_cuts_do_not_matter(values in prop::collection::vec(-2.0..2.0f64, 0..900), cut in 0usize..100) {
        let values = &values[..values.len() / 9 * 9];
        let whole = of(values, 9, -1.5, 1.5, 11);
        let (left, right) = values.split_at((cut * 9).min(values.len()));
        let (mut a, b) = (of(left, 9, -1.5, 1.5, 11), of(right, 9, -1.5, 1.5, 11));
        let mut backward = b.clone();
        backward.merge(&a).unwrap();
        a.merge(&b).unwrap();
        prop_assert_eq!(&a, &whole);
        prop_assert_eq!(&backward, &whole);
        let single = Histogram::from_parts(whole.header(), whole.counts().to_vec()).unwrap();
        prop_assert_eq!(&single, &whole);
    }
}
