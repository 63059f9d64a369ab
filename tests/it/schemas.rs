//! The stored format and the functions' results are contracts, held in files: `schemas/v1/`.
//!
//! `FILTERDB_BLESS=1 cargo test` writes the files anew; the change then shows in the review.

use std::fmt::Write;
use std::path::Path;

use arrow::datatypes::{DataType, Field, Fields, Schema};
use filterdb::schema;

use crate::support::{block_on, dataset, root, rows, session};

/// A type as a reader of the files wants it: one line a field, nested ones indented.
fn describe(fields: &Fields) -> String {
    let mut text = String::new();
    fields.iter().for_each(|field| line(&mut text, field, 0));
    text
}

fn line(text: &mut String, field: &Field, depth: usize) {
    let null = if field.is_nullable() { "" } else { " NOT NULL" };
    let (name, children) = parts(field.data_type());
    writeln!(text, "{:indent$}{}: {name}{null}", "", field.name(), indent = 2 * depth).unwrap();
    children.iter().for_each(|child| line(text, child, depth + 1));
}

fn parts(data_type: &DataType) -> (String, Fields) {
    match data_type {
        DataType::Struct(fields) => ("Struct".into(), fields.clone()),
        DataType::List(item) => nested("List", item),
        DataType::FixedSizeList(item, d) => nested(&format!("FixedSizeList[{d}]"), item),
        other => (other.to_string(), Fields::empty()),
    }
}

fn nested(list: &str, item: &Field) -> (String, Fields) {
    let (name, children) = parts(item.data_type());
    (format!("{list}<{name}>"), children)
}

fn check(file: &str, found: &str) {
    let path = root().join("schemas/v1").join(file);
    if std::env::var_os("FILTERDB_BLESS").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(found, expected, "{} no longer says what the code does", path.display());
}

#[test]
fn the_stored_tables_are_as_written_down() {
    for (file, schema) in
        [("filters.txt", schema::filters_file()), ("models.txt", schema::models()), ("layers.txt", schema::layers())]
    {
        check(file, &describe(schema.fields()));
    }
}

#[test]
fn the_files_on_disk_have_the_stored_schema() {
    for (table, schema) in [("filters", schema::filters_file()), ("layers", schema::layers())] {
        for path in parquet_files(&Path::new(dataset()).join(table)) {
            let file = std::fs::File::open(&path).unwrap();
            let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
            let found: &Schema = reader.schema();
            assert_eq!(describe(found.fields()), describe(schema.fields()), "{}", path.display());
        }
    }
}

fn parquet_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = walk(folder);
    assert!(!entries.is_empty());
    entries
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "_delta_log") {
            found.extend(walk(&path));
        } else if path.extension().is_some_and(|ending| ending == "parquet") {
            found.push(path);
        }
    }
    found
}

#[test]
fn the_tables_in_sql_are_as_written_down() {
    let session = session(1, 8192);
    for table in ["filters", "layers", "models"] {
        let frame = block_on(session.context().table(table)).unwrap();
        check(&format!("sql-{table}.txt"), &describe(frame.schema().fields()));
    }
}

#[test]
fn every_function_returns_what_is_written_down() {
    let session = session(1, 8192);
    for function in filterdb::functions::all() {
        let documentation = function.documentation().unwrap_or_else(|| panic!("{}: no documentation", function.name()));
        let example = documentation.sql_example.as_ref().unwrap_or_else(|| panic!("{}: no example", function.name()));
        assert!(!rows(&session, example).is_empty(), "{example}");
        let sql = format!("SELECT {} AS result", call(function.name()));
        let statement = session.parse(&sql).unwrap().remove(0);
        let plan = block_on(session.plan(statement)).unwrap_or_else(|e| panic!("{sql}: {e}"));
        check(&format!("{}.txt", function.name()), &describe(plan.schema().fields()));
    }
}

/// A call of each function; FROM comes with the aggregates.
fn call(name: &str) -> String {
    let fit = "(SELECT pca_fit(weights) FROM filters WHERE layer = 0)";
    let hist = "(SELECT coef_hist(weights, -1, 1) FROM filters WHERE layer = 0)";
    match name {
        "filter_scale" | "filter_range" => format!("{name}(weights) FROM filters"),
        "pca_transform" => format!("pca_transform(weights, {fit}) FROM filters"),
        "pca_fit" | "coef_range" => format!("{name}(weights) FROM filters"),
        "coef_hist" => "coef_hist(weights, -1, 1) FROM filters".into(),
        "kl_shift" => format!("kl_shift({hist}, {hist}, [1.0])"),
        "sym_kl_shift" => format!("sym_kl_shift('a', {hist}, [1.0])"),
        "pca_merge" => "pca_merge(moments) FROM layers".into(),
        "coef_hist_merge" => format!("coef_hist_merge({hist})"),
        other => panic!("no call of {other} here: add one"),
    }
}
