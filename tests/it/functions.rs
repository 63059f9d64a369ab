//! A function is documented, and its contract is an .slt file; and the promises that need more than one line of SQL.

use filterdb::functions::all;
use filterdb::session::{Options, Session};

use crate::support::{block_on, number, numbers, root, rows};

#[test]
fn every_function_is_documented_and_has_its_slt_file() {
    for function in all() {
        let documentation = function.documentation();
        let documentation = documentation.unwrap_or_else(|| panic!("{} is not documented", function.name()));
        assert!(documentation.description.len() > 40, "{}", function.name());
        assert!(documentation.syntax_example.starts_with(function.name()));
        assert!(documentation.arguments.as_ref().is_some_and(|arguments| !arguments.is_empty()), "{}", function.name());
        let file = root().join("tests/slt").join(format!("{}.slt", function.name()));
        let slt = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert!(slt.contains("statement error"), "{} has no bad call", file.display());
    }
}

fn session() -> Session {
    Session::empty(&Options::default()).unwrap()
}

/// A standard normal from two counters, by Box and Muller's formula: the same numbers at every run.
const NORMAL: &str =
    "sqrt(-2 * ln((k * 7919 % 99991 + 1) / 99992.0)) * cos(2 * pi() * ((k * 104729 % 99989) / 99989.0))";

#[test]
fn a_mean_far_from_zero_costs_no_digits() {
    let session = session();
    let fit = |offset: &str| {
        let sql = format!(
            "WITH s AS (SELECT k FROM generate_series(1, 50000) AS s(k)), t AS (SELECT k, {NORMAL} AS z FROM s)
             SELECT pca_fit([{offset} + z, {offset} + 0.5 * z + sin(k)]) AS fit FROM t"
        );
        rows(&session, &sql)[0]["fit"].clone()
    };
    let (near, far) = (fit("0.0"), fit("1e6"));
    assert!((numbers(&far["mean"])[0] - 1e6).abs() < 0.1);
    for (near, far) in numbers(&near["explained_variance"]).iter().zip(numbers(&far["explained_variance"])) {
        // The data itself is rounded to 1e-10 at 1e6.
        assert!((near - far).abs() <= 1e-9 * near, "{near} {far}");
    }
}

#[test]
fn what_is_not_a_number_is_left_out_and_counted() {
    let session = session();
    let fit = rows(
        &session,
        "SELECT pca_fit(w) AS fit FROM (VALUES ([1.0, 2.0]), ([3.0, 1.0]), (NULL), ([NULL, 1.0]), (['NaN'::double, 1.0]), (['-inf'::double, 0.0]), ([2.0, 2.0])) AS t(w)",
    );
    let clean =
        rows(&session, "SELECT pca_fit(w) AS fit FROM (VALUES ([1.0, 2.0]), ([3.0, 1.0]), ([2.0, 2.0])) AS t(w)");
    assert_eq!([&fit[0]["fit"]["n"], &fit[0]["fit"]["n_skipped"]], [3, 4]);
    assert_eq!(fit[0]["fit"]["components"], clean[0]["fit"]["components"]);
    assert_eq!(fit[0]["fit"]["explained_variance"], clean[0]["fit"]["explained_variance"]);
}

#[test]
fn few_or_constant_filters_are_no_error() {
    let session = session();
    for (sql, n) in [("VALUES ([1.0, 2.0]) LIMIT 0", 0), ("VALUES ([1.0, 2.0])", 1)] {
        let found = rows(&session, &format!("SELECT pca_fit(w) AS fit FROM ({sql}) AS t(w)"));
        assert!(found[0]["fit"].is_null(), "n = {n}: {}", found[0]);
    }
    let constant =
        rows(&session, "SELECT pca_fit(w) AS fit FROM (VALUES ([1.0, 5.0]), ([2.0, 5.0]), ([4.0, 5.0])) AS t(w)");
    let fit = &constant[0]["fit"];
    assert_eq!(numbers(&fit["explained_variance_ratio"]), [1.0, 0.0]);
    assert_eq!(numbers(&fit["components"][1]), [0.0, 1.0]);
    assert!((number(&fit["explained_variance"][0]) - 7.0 / 3.0).abs() < 1e-14);
}

#[test]
fn filter_and_distinct_groups_give_what_their_rows_give() {
    let session = block_on(Session::open(crate::support::dataset(), &Options::default())).unwrap();
    let by_filter = rows(
        &session,
        "SELECT pca_fit(weights) FILTER (WHERE layer = 0)['explained_variance'] AS v FROM filters WHERE model = 'mtcnn-onet'",
    );
    let by_where = rows(
        &session,
        "SELECT pca_fit(weights)['explained_variance'] AS v FROM filters WHERE model = 'mtcnn-onet' AND layer = 0",
    );
    assert_eq!(numbers(&by_filter[0]["v"]), numbers(&by_where[0]["v"]));
}
