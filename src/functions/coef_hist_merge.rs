//! `coef_hist_merge(hist)`: adds histograms of one range.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::function::AccumulatorArgs;

use super::aggregate::Aggregate;
use super::arguments::structure;
use super::coef_hist::{self, Counts};
use super::udf::{Described, GroupFunction};
use crate::convert::ArrowValue;
use crate::math::Histogram;
use crate::schema;

/// Returns [`schema::coef_hist`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CoefHistMerge;

impl Described for CoefHistMerge {
    const USAGE: &'static str = "coef_hist_merge(hist STRUCT of coef_hist)";
    const SECTION: &'static str = "Stored states";
    const DESCRIPTION: &'static str = "Adds histograms of the same range, bins and length: what coef_hist returns over the \
        filters behind them. Histograms that do not fit together are an error.";
    const ARGUMENTS: &'static [(&'static str, &'static str)] =
        &[("hist", "What coef_hist returned; NULL is passed over.")];
    const EXAMPLE: &'static str = "WITH h AS (SELECT model, task, coef_hist(weights, -1, 1) AS hist FROM filters \
        GROUP BY model, task) SELECT task, coef_hist_merge(hist) FROM h GROUP BY task";

    fn coerce(&self, found: &[DataType]) -> Option<Vec<DataType>> {
        let [hist] = found else { return None };
        Some(vec![structure(hist, schema::coef_hist())?])
    }
}

impl GroupFunction for CoefHistMerge {
    type Aggregate = Merge;

    fn return_type(&self, _arguments: &[DataType]) -> DataType {
        schema::coef_hist()
    }

    fn state_type(&self, _arguments: &[FieldRef]) -> DataType {
        coef_hist::state_type()
    }

    fn aggregate(&self, _arguments: &AccumulatorArgs) -> Result<Merge> {
        Ok(Merge)
    }
}

/// Adds up histograms.
#[derive(Debug)]
pub(crate) struct Merge;

impl Aggregate for Merge {
    type State = Counts;

    fn update(&self, state: &mut Counts, arguments: &[ArrayRef]) -> Result<()> {
        for row in 0..arguments[0].len() {
            if let Some(histogram) = Histogram::decode(&arguments[0], row)? {
                state.merge(histogram.into(), "coef_hist_merge")?;
            }
        }
        Ok(())
    }

    fn merge(&self, state: &mut Counts, other: Counts) -> Result<()> {
        state.merge(other, "coef_hist_merge")
    }

    fn encode(&self, states: Vec<Counts>) -> Result<ArrayRef> {
        coef_hist::encode(states)
    }

    fn decode(&self, column: &ArrayRef, row: usize) -> Result<Counts> {
        coef_hist::decode(column, row)
    }

    fn evaluate(&self, states: Vec<Counts>) -> Result<ArrayRef> {
        coef_hist::evaluate(states)
    }

    fn heap_size(&self, state: &Counts) -> usize {
        coef_hist::heap_size(state)
    }
}
