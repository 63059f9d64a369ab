//! Each of the five keys decides what is read: row groups and bytes, counted by the engine.

use std::sync::Arc;

use datafusion::physical_plan::metrics::MetricValue;
use datafusion::physical_plan::{ExecutionPlan, collect};
use filterdb::session::Session;

use crate::support::{block_on, rows, session};

/// What a query read.
#[derive(Debug, Default)]
struct Read {
    bytes: usize,
    row_groups: usize,
    rows: usize,
}

fn read(session: &Session, sql: &str) -> Read {
    block_on(async {
        let statement = session.parse(sql).expect(sql).remove(0);
        let plan = session.plan(statement).await.expect(sql);
        let plan = session.context().state().create_physical_plan(&plan).await.expect(sql);
        let batches = collect(Arc::clone(&plan), session.context().task_ctx()).await.expect(sql);
        let mut read = Read { rows: batches.iter().map(|batch| batch.num_rows()).sum(), ..Read::default() };
        count(&plan, &mut read);
        read
    })
}

fn count(plan: &Arc<dyn ExecutionPlan>, read: &mut Read) {
    for metric in plan.metrics().iter().flat_map(|metrics| metrics.iter()) {
        match metric.value() {
            MetricValue::Count { name, count } if name == "bytes_scanned" => read.bytes += count.value(),
            MetricValue::PruningMetrics { name, pruning_metrics } if name == "row_groups_pruned_statistics" => {
                read.row_groups += pruning_metrics.matched();
            }
            _ => {}
        }
    }
    plan.children().into_iter().for_each(|child| count(child, read));
}

#[test]
fn each_key_reads_its_row_groups_and_no_others() {
    let session = session(2, 8192);
    for (key, value) in [
        ("model", "'nudenet-320n'"),
        ("task", "'style transfer'"),
        ("data_type", "'medical mri'"),
        ("layer", "7"),
        ("depth_decile", "9"),
        ("family", "'vgg'"),
    ] {
        let condition = format!("{key} = {value}");
        let expected = &rows(
            &session,
            &format!("SELECT count(*) AS layers, sum(n_filters) AS filters FROM layers WHERE {condition}"),
        )[0];
        let (layers, filters) =
            (expected["layers"].as_u64().unwrap() as usize, expected["filters"].as_u64().unwrap() as usize);
        assert!(layers > 0, "{condition}");
        // The first scan fills the cache of footers.
        let _ = read(&session, &format!("SELECT weights FROM filters WHERE {condition}"));
        let read = read(&session, &format!("SELECT weights FROM filters WHERE {condition}"));
        assert_eq!(read.row_groups, layers, "{condition}: {read:?}");
        assert_eq!(read.rows, filters, "{condition}");
        // Page headers and the key's own column: some hundred bytes a layer.
        let limit = filters * 36 * 11 / 10 + layers * 1024;
        assert!(read.bytes <= limit, "{condition}: at most {limit} bytes for {filters} filters, found {read:?}");
    }
}

#[test]
fn a_query_of_one_layer_reads_little_more_than_the_layer() {
    let session = session(2, 8192);
    let layers =
        rows(&session, "SELECT model, layer, n_filters FROM layers WHERE n_filters >= 500 ORDER BY model, layer");
    assert!(layers.len() > 80);
    for layer in layers {
        let sql = format!(
            "SELECT weights FROM filters WHERE model = {} AND layer = {}",
            layer["model"].to_string().replace('"', "'"),
            layer["layer"]
        );
        let _ = read(&session, &sql);
        let read = read(&session, &sql);
        let bytes = layer["n_filters"].as_u64().unwrap() as usize * 36;
        assert_eq!(read.row_groups, 1, "{sql}");
        assert!(read.bytes <= bytes * 11 / 10, "{sql}: at most 1.1 x {bytes} bytes, found {read:?}");
    }
}

#[test]
fn counting_rows_opens_no_file() {
    let session = session(2, 8192);
    let read = read(&session, "SELECT count(*) FROM filters");
    assert_eq!((read.bytes, read.rows), (0, 1));
}
