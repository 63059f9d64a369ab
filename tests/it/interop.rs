//! Other tools read the same numbers: DuckDB through Hive paths, delta-rs's Python package through the logs.

use serde_json::Value;

use crate::support::{FILTERS, LAYERS, MODELS, assert_close, dataset, judge, number, rows, session};

#[test]
fn duckdb_and_deltalake_see_what_we_see() {
    let seen: Value = serde_json::from_str(&judge("interop.py", [dataset()])).expect("JSON");
    let session = session(2, 8192);
    let ours = &rows(
        &session,
        "SELECT count(*) AS n, sum(CAST(weights[1] AS DOUBLE)) AS w0, sum(CAST(weights[9] AS DOUBLE)) AS w8 FROM filters",
    )[0];
    assert_eq!(ours["n"], FILTERS);
    for (tool, theirs) in [("DuckDB", &seen["duckdb"]), ("deltalake", &seen["deltalake"]["filters"])] {
        assert_eq!(theirs["n"], ours["n"], "{tool}");
        for column in ["w0", "w8"] {
            let (found, expected) = (number(&ours[column]), number(&theirs[column]));
            assert_close(&format!("{tool}: sum of {column}"), &[found], &[expected], 1e-9 * expected.abs());
        }
    }
    for row in rows(&session, "SELECT task, count(*) AS n FROM filters GROUP BY task") {
        assert_eq!(seen["duckdb"]["tasks"][row["task"].as_str().unwrap()], row["n"], "{row}");
    }
    let models = rows(&session, "SELECT model, data_type, n_filters, n_layers - 1 AS last FROM models ORDER BY model");
    let ours: Vec<Value> =
        models.iter().map(|m| serde_json::json!([m["model"], m["data_type"], m["n_filters"], m["last"]])).collect();
    assert_eq!(seen["duckdb"]["models"], Value::from(ours));
    let (layers, models) = (&seen["deltalake"]["layers"], &seen["deltalake"]["models"]);
    assert_eq!([&layers["n"], &layers["n_filters"], &layers["moments_n"]], [LAYERS, FILTERS, FILTERS]);
    assert_eq!(models["n"], MODELS);
    for column in ["model", "task", "data_type", "family", "licence", "training_set", "sha256"] {
        assert!(models["columns"].as_array().unwrap().iter().any(|name| name == column), "{column} in {models}");
    }
}
