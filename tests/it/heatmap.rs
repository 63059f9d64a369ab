//! The heatmap query against the notebook's recipe in numpy, scikit-learn and scipy, on real models.

use serde_json::Value;

use crate::support::{FILTERS, assert_close, dataset, heatmap_sql, judge, metadata, number, numbers, rows, session};

const KEYS: [&str; 5] = ["task", "data_type", "depth_decile", "model", "family"];

fn judged() -> Value {
    let metadata = metadata();
    let arguments = [dataset(), metadata.to_str().expect("UTF-8")].into_iter().chain(KEYS);
    serde_json::from_str(&judge("recipe.py", arguments)).expect("the judge writes JSON")
}

#[test]
fn every_heatmap_equals_the_notebooks_recipe_and_costs_three_scans() {
    let judged = judged();
    let session = session(2, 8192);
    let fit = &rows(&session, "SELECT pca_fit(filter_scale(weights)) AS fit FROM filters")[0]["fit"];
    assert_eq!(fit["n"], FILTERS);
    assert_eq!(judged["n"], FILTERS);
    let both = |name: &str| (numbers(&fit[name]), numbers(&judged[name]));
    let (found, expected) = both("explained_variance_ratio");
    assert_close("explained_variance_ratio", &found, &expected, 1e-9);
    let (found, expected) = both("mean");
    assert_close("mean", &found, &expected, 1e-7);
    let components = fit["components"].as_array().expect("a list");
    for (i, (found, expected)) in components.iter().zip(judged["components"].as_array().expect("a list")).enumerate() {
        assert_close(&format!("component {i}"), &numbers(found), &numbers(expected), 1e-6);
    }
    let range = &rows(
        &session,
        "SELECT coef_range(pca_transform(filter_scale(weights), (SELECT pca_fit(filter_scale(weights)) FROM filters))) AS range FROM filters",
    )[0]["range"];
    assert_close(
        "range",
        &[number(&range["lo"]), number(&range["hi"])],
        &[number(&judged["lo"]), number(&judged["hi"])],
        1e-6,
    );

    for key in KEYS {
        let before = session.filter_scans();
        let pairs = rows(&session, &heatmap_sql(key));
        assert_eq!(session.filter_scans() - before, 3, "scans of filters by {key}");
        check(key, &pairs, &judged["heatmaps"][key]);
    }
}

fn check(key: &str, pairs: &[Value], judged: &Value) {
    let groups: Vec<String> = judged["groups"].as_array().expect("groups").iter().map(text).collect();
    assert_eq!(pairs.len(), groups.len() * groups.len(), "{key}: one row for every ordered pair");
    for pair in pairs {
        let pair = &pair["pair"];
        let [a, b] = ["a", "b"].map(|side| {
            let label = text(&pair[side]);
            groups.iter().position(|group| *group == label).unwrap_or_else(|| panic!("{key}: no group {label}"))
        });
        assert_eq!([&pair["n_a"], &pair["n_b"]], [&judged["n"][a], &judged["n"][b]], "{key}: n of {pair}");
        let (found, expected) = (number(&pair["shift"]), number(&judged["shift"][a][b]));
        let close = (found - expected).abs() <= (1e-4 * expected.abs()).max(1e-7);
        assert!(close, "{key}: D({}, {}): expected {expected}, found {found}", groups[a], groups[b]);
        let contributions: f64 = numbers(&pair["contributions"]).iter().sum();
        assert_close("the contributions' sum", &[contributions], &[found], 1e-12);
    }
}

/// Labels are text or numbers; the judge has text.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
