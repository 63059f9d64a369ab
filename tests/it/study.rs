//! Every file of `sql/study` runs by itself and returns the columns that its head names.

use crate::support::{root, rows, session};

#[test]
fn every_figure_runs_and_returns_its_columns() {
    let session = session(2, 8192);
    let mut files = 0;
    for entry in std::fs::read_dir(root().join("sql/study")).unwrap() {
        let path = entry.unwrap().path();
        let sql = std::fs::read_to_string(&path).unwrap();
        let before = session.filter_scans();
        let rows = rows(&session, &sql);
        assert!(!rows.is_empty(), "{}", path.display());
        assert!(session.filter_scans() - before <= 3, "{}: at most three scans", path.display());
        let head: Vec<&str> = sql.lines().take_while(|line| line.starts_with("--")).collect();
        for column in rows[0].as_object().unwrap().keys() {
            let name = if column.starts_with('w') { "w0 .. w8" } else { column };
            assert!(head.iter().any(|line| line.contains(name)), "{}: the head does not name {column}", path.display());
        }
        files += 1;
    }
    assert!(files >= 4);
}

#[test]
fn the_shift_matrices_are_symmetric_with_a_zero_diagonal() {
    let session = session(2, 8192);
    let sql = std::fs::read_to_string(root().join("sql/study/fig3-shift-data_type.sql")).unwrap();
    let rows = rows(&session, &sql);
    for row in &rows {
        let mirrored = rows.iter().find(|other| other["a"] == row["b"] && other["b"] == row["a"]).unwrap();
        assert_eq!(row["shift"], mirrored["shift"]);
        assert_eq!(row["a"] == row["b"], row["shift"] == 0.0, "{row}");
    }
}
