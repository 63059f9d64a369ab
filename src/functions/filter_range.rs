//! `filter_range(weights)`: the largest weight minus the smallest.

use std::sync::Arc;

use arrow::array::Float64Array;
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

use ndarray::NdFloat;

use super::arguments::number_list;
use super::rows::{Rows, Values};
use super::udf::{Described, RowFunction};
use crate::math;

/// The paper's scale of a filter (Fig. 6), a Float64.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FilterRange;

impl Described for FilterRange {
    const USAGE: &'static str = "filter_range(weights LIST of numbers)";
    const SECTION: &'static str = "Filters";
    const DESCRIPTION: &'static str = "The largest weight of a filter minus its smallest: the paper's scale of a filter. \
        NULL for a filter with a NULL weight, NaN for one with NaN or infinity.";
    const ARGUMENTS: &'static [(&'static str, &'static str)] =
        &[("weights", "The filter's weights, not scaled; any length.")];
    const EXAMPLE: &'static str =
        "SELECT depth_decile, avg(filter_range(weights)) FROM filters GROUP BY depth_decile ORDER BY depth_decile";

    fn coerce(&self, found: &[DataType]) -> Option<Vec<DataType>> {
        let [weights] = found else { return None };
        Some(vec![number_list(weights)?])
    }
}

impl RowFunction for FilterRange {
    fn return_type(&self, _arguments: &[DataType]) -> DataType {
        DataType::Float64
    }

    fn invoke(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let column = args.args[0].to_array(args.number_rows)?;
        let rows = Rows::new(&column)?;
        let ranges = match &rows.values {
            Values::F32(values) => ranges(values, &rows),
            Values::F64(values) => ranges(values, &rows),
        };
        // No weight, no range.
        let nulls = if rows.d == 0 { Some(NullBuffer::new_null(rows.len)) } else { rows.nulls.clone() };
        Ok(ColumnarValue::Array(Arc::new(Float64Array::new(ranges.into(), nulls))))
    }
}

fn ranges<T: NdFloat + Into<f64>>(values: &[T], rows: &Rows<'_>) -> Vec<f64> {
    let mut out = vec![T::zero(); rows.len];
    if rows.d > 0 {
        math::range(values, rows.d, &mut out);
    }
    out.into_iter().map(Into::into).collect()
}
