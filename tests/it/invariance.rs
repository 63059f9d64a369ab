//! The same answer however the rows are cut: partitions, batches, states that travel, and stored states.

use serde_json::Value;

use crate::support::{all_numbers, assert_close, heatmap_sql, rows, session};

/// Largest difference relative to the largest number of its kind.
fn assert_same(what: &str, found: &[Value], expected: &[Value]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        let (found, expected) = (all_numbers(found), all_numbers(expected));
        let largest = expected.iter().fold(0f64, |largest, x| largest.max(x.abs()));
        assert_close(what, &found, &expected, 1e-12 * largest.max(1e-300));
    }
}

const FIT: &str = "SELECT task, pca_fit(filter_scale(weights)) AS fit FROM filters GROUP BY task ORDER BY task";
const ALL: &str = "SELECT pca_fit(filter_scale(weights)) AS fit FROM filters";

#[test]
fn partitions_and_batch_sizes_do_not_change_the_answer() {
    let reference = session(1, 8192);
    let heatmap = format!(
        "SELECT pair['a'] AS a, pair['b'] AS b, pair['shift'] AS shift FROM ({}) ORDER BY a, b",
        heatmap_sql("task")
    );
    for sql in [ALL, FIT, &heatmap] {
        let expected = rows(&reference, sql);
        for (partitions, batch_size) in [(2, 8192), (7, 8192), (2, 1000)] {
            let found = rows(&session(partitions, batch_size), sql);
            assert_same(&format!("{partitions} partitions, batches of {batch_size}"), &found, &expected);
        }
    }
}

#[test]
fn batches_of_one_and_three_rows_do_not_change_the_answer() {
    // One model: a batch of one row costs the engine microseconds.
    let only = "FROM filters WHERE model IN ('ppocr-v4-det', 'mtcnn-onet')";
    let fit = format!("SELECT model, pca_fit(filter_scale(weights)) AS fit {only} GROUP BY model ORDER BY model");
    let all = format!(
        "SELECT pca_fit(filter_scale(weights)) AS fit, coef_range(weights) AS range, coef_hist(weights, -2, 2) AS hist {only}"
    );
    let decile =
        format!("SELECT depth_decile, coef_hist(weights, -2, 2, 10) AS hist {only} GROUP BY depth_decile ORDER BY 1");
    let reference = session(1, 8192);
    for sql in [fit, all, decile] {
        let expected = rows(&reference, &sql);
        for partitions in [1, 2, 7] {
            for batch_size in [1, 3] {
                let found = rows(&session(partitions, batch_size), &sql);
                assert_same(&format!("{partitions} partitions, batches of {batch_size}"), &found, &expected);
            }
        }
    }
}

#[test]
fn stored_moments_give_what_a_scan_gives() {
    let session = session(2, 8192);
    for (stored, scaled) in [("moments", "weights"), ("moments_scaled", "filter_scale(weights)")] {
        for key in ["task", "data_type", "depth_decile", "family", "model"] {
            let merged =
                rows(&session, &format!("SELECT {key}, pca_merge({stored}) AS fit FROM layers GROUP BY 1 ORDER BY 1"));
            let scanned =
                rows(&session, &format!("SELECT {key}, pca_fit({scaled}) AS fit FROM filters GROUP BY 1 ORDER BY 1"));
            let variances =
                |rows: &[Value]| rows.iter().map(|row| row["fit"]["explained_variance"].clone()).collect::<Vec<_>>();
            assert_same(&format!("{stored} by {key}"), &variances(&merged), &variances(&scanned));
        }
    }
}

#[test]
fn added_histograms_are_the_histogram_of_all() {
    let session = session(2, 8192);
    let merged = rows(
        &session,
        "WITH h AS (SELECT model, task, coef_hist(weights, -1, 1, 50) AS hist FROM filters GROUP BY model, task)
         SELECT task, coef_hist_merge(hist) AS hist FROM h GROUP BY task ORDER BY task",
    );
    let scanned =
        rows(&session, "SELECT task, coef_hist(weights, -1, 1, 50) AS hist FROM filters GROUP BY task ORDER BY task");
    assert_eq!(merged, scanned);
}
