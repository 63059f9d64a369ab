//! `filter_scale(weights)`: weights / max |weight|.

use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, Float64Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

use ndarray::NdFloat;

use super::arguments::number_list;
use super::rows::{Rows, Values};
use super::udf::{Described, RowFunction};
use crate::math;

/// The result has the type of the argument: scaling float32 weights is a float32 division, as in the paper.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FilterScale;

impl Described for FilterScale {
    const USAGE: &'static str = "filter_scale(weights LIST of numbers)";
    const SECTION: &'static str = "Filters";
    const DESCRIPTION: &'static str = "Divides a filter by its largest absolute weight; the zero filter stays zero. \
        A filter with a NULL weight gives NULL, one with NaN or infinity gives NaN throughout.";
    const ARGUMENTS: &'static [(&'static str, &'static str)] = &[("weights", "The filter's weights; any length.")];
    const EXAMPLE: &'static str = "SELECT filter_scale(weights) FROM filters LIMIT 1";

    fn coerce(&self, found: &[DataType]) -> Option<Vec<DataType>> {
        let [weights] = found else { return None };
        Some(vec![number_list(weights)?])
    }
}

impl RowFunction for FilterScale {
    fn return_type(&self, arguments: &[DataType]) -> DataType {
        arguments[0].clone()
    }

    fn invoke(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let column = args.args[0].to_array(args.number_rows)?;
        let rows = Rows::new(&column)?;
        let items: ArrayRef = match &rows.values {
            Values::F32(values) => Arc::new(Float32Array::from(scaled(values, rows.d))),
            Values::F64(values) => Arc::new(Float64Array::from(scaled(values, rows.d))),
        };
        Ok(ColumnarValue::Array(relist(args.return_type(), items, &rows)?))
    }
}

fn scaled<T: NdFloat>(values: &[T], d: usize) -> Vec<T> {
    let mut out = vec![T::zero(); values.len()];
    if d > 0 {
        math::scale(values, d, &mut out);
    }
    out
}

/// `items` as lists of the shape of `rows`.
pub(super) fn relist(data_type: &DataType, items: ArrayRef, rows: &Rows<'_>) -> Result<ArrayRef> {
    let nulls = rows.nulls.clone();
    match data_type {
        DataType::FixedSizeList(field, d) => {
            Ok(Arc::new(FixedSizeListArray::try_new(FieldRef::clone(field), *d, items, nulls)?))
        }
        DataType::List(field) => {
            let offsets = OffsetBuffer::from_repeated_length(rows.d, rows.len);
            Ok(Arc::new(ListArray::try_new(FieldRef::clone(field), offsets, items, nulls)?))
        }
        other => exec_err!("expected a list of numbers, found {other}"),
    }
}
