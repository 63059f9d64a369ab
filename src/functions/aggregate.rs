//! From one state type to DataFusion's two accumulators.
//!
//! DataFusion asks for an accumulator with and one without groups. Writing them apart gives them different
//! numerics; here both hold the states of one [`Aggregate`] and only hand rows to them.

use std::fmt::Debug;
use std::mem::size_of;
use std::ops::Range;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array};
use arrow::compute::take;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

/// An aggregate function with its parameters fixed: what to do with the rows of one group.
pub(crate) trait Aggregate: Debug + Send + Sync + 'static {
    /// What is known of a group. Default: nothing seen yet.
    type State: Clone + Default + Debug + Send + Sync;

    /// Adds rows; `arguments` are the call's columns.
    fn update(&self, state: &mut Self::State, arguments: &[ArrayRef]) -> Result<()>;

    /// Adds another state's rows.
    fn merge(&self, state: &mut Self::State, other: Self::State) -> Result<()>;

    /// States as one column, to travel between partitions.
    fn encode(&self, states: Vec<Self::State>) -> Result<ArrayRef>;

    /// The state in a row of such a column.
    fn decode(&self, column: &ArrayRef, row: usize) -> Result<Self::State>;

    /// The groups' results.
    fn evaluate(&self, states: Vec<Self::State>) -> Result<ArrayRef>;

    /// Bytes on the heap of a state.
    fn heap_size(&self, state: &Self::State) -> usize;
}

/// The accumulator of a query without GROUP BY.
#[derive(Debug)]
pub(crate) struct Ungrouped<A: Aggregate> {
    aggregate: A,
    state: A::State,
}

impl<A: Aggregate> Ungrouped<A> {
    pub fn new(aggregate: A) -> Self {
        Ungrouped { aggregate, state: A::State::default() }
    }
}

impl<A: Aggregate> Accumulator for Ungrouped<A> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if values.first().is_none_or(|column| column.is_empty()) {
            return Ok(());
        }
        self.aggregate.update(&mut self.state, values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        // A running window asks for a result after every row.
        ScalarValue::try_from_array(&self.aggregate.evaluate(vec![self.state.clone()])?, 0)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.aggregate.heap_size(&self.state)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let state = std::mem::take(&mut self.state);
        Ok(vec![ScalarValue::try_from_array(&self.aggregate.encode(vec![state])?, 0)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for row in 0..states[0].len() {
            let other = self.aggregate.decode(&states[0], row)?;
            self.aggregate.merge(&mut self.state, other)?;
        }
        Ok(())
    }
}

/// The accumulator of a query with GROUP BY: one state per group.
#[derive(Debug)]
pub(crate) struct Grouped<A: Aggregate> {
    aggregate: A,
    states: Vec<A::State>,
    heap_size: usize,
}

impl<A: Aggregate> Grouped<A> {
    pub fn new(aggregate: A) -> Self {
        Grouped { aggregate, states: Vec::new(), heap_size: 0 }
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<A::State> {
        let taken: Vec<A::State> = match emit_to {
            EmitTo::All => std::mem::take(&mut self.states),
            EmitTo::First(n) => self.states.drain(..n).collect(),
        };
        let freed: usize = taken.iter().map(|state| self.aggregate.heap_size(state)).sum();
        self.heap_size = self.heap_size.saturating_sub(freed);
        taken
    }

    /// Changes the state of `group`, and keeps the account of memory.
    fn with_state(&mut self, group: usize, change: impl FnOnce(&A, &mut A::State) -> Result<()>) -> Result<()> {
        let state = &mut self.states[group];
        let before = self.aggregate.heap_size(state);
        let result = change(&self.aggregate, state);
        self.heap_size = self.heap_size.saturating_sub(before) + self.aggregate.heap_size(state);
        result
    }

    fn grow(&mut self, groups: usize) {
        if self.states.len() < groups {
            self.states.resize_with(groups, A::State::default);
        }
    }
}

impl<A: Aggregate> GroupsAccumulator for Grouped<A> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.grow(total_num_groups);
        let (order, runs) = by_group(group_indices, opt_filter);
        let values: Vec<ArrayRef> = match &order {
            Some(order) => values.iter().map(|column| take(column, order, None)).collect::<Result<_, _>>()?,
            None => values.to_vec(),
        };
        for (group, rows) in runs {
            let slices: Vec<ArrayRef> = values.iter().map(|column| column.slice(rows.start, rows.len())).collect();
            self.with_state(group, |aggregate, state| aggregate.update(state, &slices))?;
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let states = self.take(emit_to);
        self.aggregate.evaluate(states)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let states = self.take(emit_to);
        Ok(vec![self.aggregate.encode(states)?])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.grow(total_num_groups);
        for (row, &group) in group_indices.iter().enumerate() {
            let other = self.aggregate.decode(&values[0], row)?;
            self.with_state(group, |aggregate, state| aggregate.merge(state, other))?;
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, |column| column.len());
        let states = (0..rows)
            .map(|row| {
                let mut state = A::State::default();
                if passes(opt_filter, row) {
                    let slices: Vec<ArrayRef> = values.iter().map(|column| column.slice(row, 1)).collect();
                    self.aggregate.update(&mut state, &slices)?;
                }
                Ok(state)
            })
            .collect::<Result<_>>()?;
        Ok(vec![self.aggregate.encode(states)?])
    }

    fn size(&self) -> usize {
        self.states.capacity() * size_of::<A::State>() + self.heap_size
    }
}

fn passes(filter: Option<&BooleanArray>, row: usize) -> bool {
    filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
}

/// Rows of one group, one after the other.
type Runs = Vec<(usize, Range<usize>)>;

/// The batch as runs of rows of one group each. Rows of a file arrive group by group, so mostly they are in
/// order as they are (`None`); otherwise the row numbers that bring them into order come first.
fn by_group(group_indices: &[usize], filter: Option<&BooleanArray>) -> (Option<UInt32Array>, Runs) {
    /// Below this mean length of a run, gathering rows costs less than handing them over one by one.
    const SHORT: usize = 16;
    if filter.is_none() {
        let runs = runs(group_indices.iter().copied());
        if runs.len() * SHORT <= group_indices.len() || runs.len() == 1 {
            return (None, runs);
        }
    }
    let mut rows: Vec<u32> =
        (0..group_indices.len()).filter(|&row| passes(filter, row)).map(|row| row as u32).collect();
    rows.sort_by_key(|&row| group_indices[row as usize]);
    let runs = runs(rows.iter().map(|&row| group_indices[row as usize]));
    (Some(rows.into()), runs)
}

fn runs(groups: impl Iterator<Item = usize>) -> Runs {
    let mut runs = Runs::new();
    for (row, group) in groups.enumerate() {
        match runs.last_mut() {
            Some((last, rows)) if *last == group => rows.end = row + 1,
            _ => runs.push((group, row..row + 1)),
        }
    }
    runs
}
