//! The house of ARCHITECTURE.md: which module may know which, and how large a file may be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::root;

/// What each module may use of the others: faces -> session -> {functions, dataset} -> convert -> {math, schema}.
const MAY_USE: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("schema", &[]),
    ("math", &["error"]),
    ("record", &["math", "schema"]),
    ("convert", &["math", "schema"]),
    ("ingest", &["error", "math", "record", "schema"]),
    ("store", &["error"]),
    ("dataset", &["convert", "error", "math", "record", "schema", "store"]),
    ("functions", &["convert", "error", "math", "schema"]),
    ("subquery", &[]),
    ("session", &["dataset", "error", "functions", "subquery"]),
    ("cli", &["dataset", "error", "functions", "ingest", "record", "schema", "session"]),
];

/// Libraries that only some modules may know.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("arrow", &["schema", "convert", "dataset", "functions", "session", "subquery", "cli"]),
    ("datafusion", &["convert", "dataset", "functions", "session", "subquery", "cli"]),
    ("parquet", &["dataset", "cli"]),
    ("deltalake_core", &["dataset"]),
    ("object_store", &["store", "dataset"]),
    ("rayon", &["ingest"]),
];

fn sources() -> Vec<(String, PathBuf, String)> {
    let mut files = Vec::new();
    collect(&root().join("src"), &mut files);
    files
        .into_iter()
        .map(|path| {
            let inside = path.strip_prefix(root().join("src")).unwrap();
            let module = inside.components().next().unwrap().as_os_str().to_string_lossy().replace(".rs", "");
            let text = std::fs::read_to_string(&path).unwrap();
            (module, path, text)
        })
        .filter(|(module, _, _)| module != "lib" && module != "main")
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}

/// The words that follow `before` in code (not in comments).
fn words_after<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.match_indices(before).map(|(i, _)| &line[i + before.len()..]).collect::<Vec<_>>())
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(""))
        .collect()
}

#[test]
fn modules_know_only_what_is_below_them() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    for (module, path, text) in sources() {
        let may =
            allowed.get(module.as_str()).unwrap_or_else(|| panic!("{module} is not in MAY_USE: where is its room?"));
        for used in words_after(&text, "crate::") {
            assert!(used == module || may.contains(&used), "{}: {module} must not use {used}", path.display());
        }
    }
}

#[test]
fn libraries_stay_in_their_rooms() {
    for (library, rooms) in LIBRARIES {
        for (module, path, text) in sources() {
            let used = text.lines().any(|line| {
                let line = line.trim_start();
                !line.starts_with("//")
                    && (line.contains(&format!("use {library}::")) || line.contains(&format!(" {library}::")))
            });
            assert!(!used || rooms.contains(&module.as_str()), "{}: {module} must not use {library}", path.display());
        }
    }
}

#[test]
fn files_stay_short() {
    let mut files = Vec::new();
    collect(&root().join("src"), &mut files);
    collect(&root().join("tests"), &mut files);
    for path in files {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 420, "{} has {lines} lines: split it by what it does", path.display());
    }
}
