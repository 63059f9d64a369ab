//! Aggregates through their states: update, encode, merge, evaluate, at several batch sizes and partition counts, grouped
//! and not, against one update of each group's rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::EmitTo;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::{col, lit};
use filterdb::functions::{Function, all};
use serde_json::Value;

use crate::support::{all_numbers, assert_close, to_json};

const ROWS: usize = 600;
const GROUPS: usize = 5;

/// Filters of nine weights, among them zero, NULL-free and non-finite ones; and the group of each.
fn filters() -> (RecordBatch, Vec<usize>) {
    let mut state = 42u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let mut weights: Vec<f32> = (0..ROWS * 9).map(|_| random()).collect();
    weights[9 * 10..9 * 11].fill(0.0);
    weights[9 * 20 + 3] = f32::NAN;
    weights[9 * 333] = f32::INFINITY;
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let lists = FixedSizeListArray::new(item, 9, Arc::new(Float32Array::from(weights)), None);
    let schema = Schema::new(vec![Field::new("weights", lists.data_type().clone(), false)]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(lists)]).unwrap();
    // Runs of a group, then groups in disorder.
    let groups = (0..ROWS).map(|row| if row < ROWS / 2 { row * GROUPS * 2 / ROWS } else { row * 7 % GROUPS });
    (batch, groups.map(|group| group.min(GROUPS - 1)).collect())
}

fn call(name: &str, batch: &RecordBatch) -> AggregateFunctionExpr {
    let function = all().into_iter().find_map(|function| match function {
        Function::Aggregate(function) if function.name() == name => Some(function),
        _ => None,
    });
    let weights = col("weights", &batch.schema()).unwrap();
    let mut arguments: Vec<Arc<dyn PhysicalExpr>> = vec![weights];
    if name == "coef_hist" {
        arguments.extend([lit(-0.4), lit(0.45), lit(ScalarValue::Int64(Some(13)))]);
    }
    AggregateExprBuilder::new(Arc::new(function.expect("a known function")), arguments)
        .schema(batch.schema())
        .alias(name)
        .build()
        .unwrap()
}

fn arguments(call: &AggregateFunctionExpr, batch: &RecordBatch) -> Vec<ArrayRef> {
    let evaluate = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(batch).unwrap().into_array(batch.num_rows()).unwrap();
    call.expressions().iter().map(evaluate).collect()
}

fn json(array: ArrayRef) -> Vec<Value> {
    let schema = Schema::new(vec![Field::new("x", array.data_type().clone(), true)]);
    to_json(&[RecordBatch::try_new(Arc::new(schema), vec![array]).unwrap()])
}

/// One update of all rows of a group, no groups, no state.
fn reference(call: &AggregateFunctionExpr, batch: &RecordBatch, groups: &[usize]) -> Vec<Value> {
    (0..GROUPS)
        .flat_map(|group| {
            let rows: UInt32Array =
                (0..ROWS as u32).filter(|&row| groups[row as usize] == group).collect::<Vec<_>>().into();
            let rows = take_record_batch(batch, &rows).unwrap();
            let mut accumulator = call.create_accumulator().unwrap();
            accumulator.update_batch(&arguments(call, &rows)).unwrap();
            json(accumulator.evaluate().unwrap().to_array().unwrap())
        })
        .collect()
}

/// Batches dealt out to partitions, whose states travel to one that merges them.
fn through_states(
    call: &AggregateFunctionExpr,
    batch: &RecordBatch,
    groups: &[usize],
    size: usize,
    partitions: usize,
) -> Vec<Value> {
    let mut partial: Vec<_> = (0..partitions).map(|_| call.create_groups_accumulator().unwrap()).collect();
    for (i, start) in (0..ROWS).step_by(size).enumerate() {
        let n = size.min(ROWS - start);
        let rows = batch.slice(start, n);
        let accumulator = &mut partial[i % partitions];
        accumulator.update_batch(&arguments(call, &rows), &groups[start..start + n], None, GROUPS).unwrap();
    }
    let mut last = call.create_groups_accumulator().unwrap();
    for mut accumulator in partial {
        let states = accumulator.state(EmitTo::All).unwrap();
        let known: Vec<usize> = (0..states[0].len()).collect();
        last.merge_batch(&states, &known, GROUPS).unwrap();
    }
    // In two parts, as a query with sorted groups takes them.
    let mut values = json(last.evaluate(EmitTo::First(2)).unwrap());
    values.extend(json(last.evaluate(EmitTo::All).unwrap()));
    values
}

/// Batches to accumulators without groups, their states merged.
fn ungrouped(call: &AggregateFunctionExpr, batch: &RecordBatch, size: usize) -> Value {
    let mut last = call.create_accumulator().unwrap();
    for start in (0..ROWS).step_by(size) {
        let mut accumulator = call.create_accumulator().unwrap();
        accumulator.update_batch(&arguments(call, &batch.slice(start, size.min(ROWS - start)))).unwrap();
        let state: Vec<ArrayRef> = accumulator.state().unwrap().iter().map(|state| state.to_array().unwrap()).collect();
        last.merge_batch(&state).unwrap();
    }
    json(last.evaluate().unwrap().to_array().unwrap()).remove(0)
}

#[test]
fn states_merge_to_the_same_answer_however_rows_are_cut() {
    let (batch, groups) = filters();
    for name in ["pca_fit", "coef_range", "coef_hist"] {
        let call = call(name, &batch);
        let expected = reference(&call, &batch, &groups);
        for size in [1, 3, 64, 8192] {
            for partitions in [1, 2, 7] {
                let found = through_states(&call, &batch, &groups, size, partitions);
                for (group, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let what = format!("{name} of group {group}, batches of {size}, {partitions} partitions");
                    assert_close(&what, &all_numbers(found), &all_numbers(expected), 1e-12 * ROWS as f64);
                }
                assert_eq!(found.len(), expected.len());
            }
        }
        let whole = ungrouped(&call, &batch, ROWS);
        for size in [1, 7, 100] {
            let found = ungrouped(&call, &batch, size);
            assert_close(
                &format!("{name}, batches of {size}"),
                &all_numbers(&found),
                &all_numbers(&whole),
                1e-12 * ROWS as f64,
            );
        }
    }
}

#[test]
fn rows_become_states_one_by_one() {
    let (batch, groups) = filters();
    for name in ["pca_fit", "coef_range", "coef_hist"] {
        let call = call(name, &batch);
        let expected = reference(&call, &batch, &groups);
        let states =
            call.create_groups_accumulator().unwrap().convert_to_state(&arguments(&call, &batch), None).unwrap();
        let mut last = call.create_groups_accumulator().unwrap();
        last.merge_batch(&states, &groups, GROUPS).unwrap();
        let found = json(last.evaluate(EmitTo::All).unwrap());
        for (found, expected) in found.iter().zip(&expected) {
            assert_close(name, &all_numbers(found), &all_numbers(expected), 1e-12 * ROWS as f64);
        }
    }
}
