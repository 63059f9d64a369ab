//! `coef_range(coefs)`: one range for all components.

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::function::AccumulatorArgs;

use super::aggregate::Aggregate;
use super::arguments::{failed, number_list};
use super::rows::{Rows, Values};
use super::udf::{Described, GroupFunction};
use crate::convert::ArrowValue;
use crate::math::Range;
use crate::schema;

/// Returns [`schema::coef_range`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CoefRange;

impl Described for CoefRange {
    const USAGE: &'static str = "coef_range(coefs LIST of numbers)";
    const SECTION: &'static str = "Histograms and shift";
    const DESCRIPTION: &'static str = "The smallest and the largest coefficient over all components of all filters: STRUCT lo, hi. NULL without a finite filter.";
    const ARGUMENTS: &'static [(&'static str, &'static str)] =
        &[("coefs", "Coefficients, as pca_transform returns them. NULL and non-finite filters are left out.")];
    const EXAMPLE: &'static str = "SELECT coef_range(weights) FROM filters";

    fn coerce(&self, found: &[DataType]) -> Option<Vec<DataType>> {
        let [coefs] = found else { return None };
        Some(vec![number_list(coefs)?])
    }
}

impl GroupFunction for CoefRange {
    type Aggregate = Bounds;

    fn return_type(&self, _arguments: &[DataType]) -> DataType {
        schema::coef_range()
    }

    fn state_type(&self, _arguments: &[FieldRef]) -> DataType {
        schema::coef_range()
    }

    fn aggregate(&self, _arguments: &AccumulatorArgs) -> Result<Bounds> {
        Ok(Bounds)
    }
}

/// The range so far; empty until a finite row comes.
#[derive(Debug)]
pub(crate) struct Bounds;

impl Aggregate for Bounds {
    type State = Range;

    fn update(&self, state: &mut Range, arguments: &[ArrayRef]) -> Result<()> {
        let rows = Rows::new(&arguments[0])?;
        if rows.d > 0 {
            match &rows.values {
                Values::F32(values) => state.update(values, rows.d),
                Values::F64(values) => state.update(values, rows.d),
            }
            .map_err(failed("coef_range"))?;
        }
        Ok(())
    }

    fn merge(&self, state: &mut Range, other: Range) -> Result<()> {
        state.merge(&other);
        Ok(())
    }

    fn encode(&self, states: Vec<Range>) -> Result<ArrayRef> {
        self.evaluate(states)
    }

    fn decode(&self, column: &ArrayRef, row: usize) -> Result<Range> {
        Ok(Range::decode(column, row)?.unwrap_or_default())
    }

    fn evaluate(&self, states: Vec<Range>) -> Result<ArrayRef> {
        Range::encode(
            &states
                .into_iter()
                .map(|range| range.bounds().map(|(lo, hi)| Range { lo, hi, ..range }))
                .collect::<Vec<_>>(),
        )
    }

    fn heap_size(&self, _state: &Range) -> usize {
        0
    }
}
