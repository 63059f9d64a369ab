//! `kl_shift(hist_a, hist_b, explained_variance_ratio)`: the paper's distribution shift of two groups.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

use super::arguments::{failed, number_list, structure};
use super::udf::{Described, RowFunction};
use crate::convert::ArrowValue;
use crate::math::{self, Histogram};
use crate::schema;

/// Returns a Float64.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct KlShift;

impl Described for KlShift {
    const USAGE: &'static str =
        "kl_shift(hist_a STRUCT of coef_hist, hist_b STRUCT of coef_hist, explained_variance_ratio LIST of numbers)";
    const SECTION: &'static str = "Histograms and shift";
    const DESCRIPTION: &'static str = "The distribution shift of two groups: the sum over components of the explained variance \
        ratio times KL(a || b) + KL(b || a), natural logarithm. Symmetric, 0 for identical histograms. NULL where a group has \
        no filter. Histograms of different range, bins or length are an error.";
    const ARGUMENTS: &'static [(&'static str, &'static str)] = &[
        ("hist_a", "Histogram of one group."),
        ("hist_b", "Histogram of the other, over the same range."),
        ("explained_variance_ratio", "That of the fit over all filters; one number per component."),
    ];
    const EXAMPLE: &'static str = "WITH h AS (SELECT coef_hist(weights, -1, 1) AS hist FROM filters) \
        SELECT kl_shift(hist, hist, [1, 1, 1, 1, 1, 1, 1, 1, 1]) FROM h";

    fn coerce(&self, found: &[DataType]) -> Option<Vec<DataType>> {
        let [a, b, ratio] = found else { return None };
        number_list(ratio)?;
        let hist = schema::coef_hist();
        Some(vec![structure(a, hist.clone())?, structure(b, hist)?, schema::doubles()])
    }
}

impl RowFunction for KlShift {
    fn return_type(&self, _arguments: &[DataType]) -> DataType {
        DataType::Float64
    }

    fn invoke(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns: Vec<ArrayRef> =
            args.args.iter().map(|argument| argument.to_array(args.number_rows)).collect::<Result<_>>()?;
        let shifts: Float64Array = (0..args.number_rows)
            .map(|row| {
                let a = Histogram::decode(&columns[0], row)?;
                let b = Histogram::decode(&columns[1], row)?;
                let (Some(a), Some(b), Some(ratio)) = (a, b, doubles(&columns[2], row)?) else { return Ok(None) };
                let shift = math::shift(&a, &b, &ratio).map_err(failed("kl_shift"))?;
                Ok(shift.map(|shift| shift.shift))
            })
            .collect::<Result<_>>()?;
        Ok(ColumnarValue::Array(Arc::new(shifts)))
    }
}

/// A row of a list of doubles; `None` for NULL.
pub(super) fn doubles(column: &ArrayRef, row: usize) -> Result<Option<Vec<f64>>> {
    let lists = column.as_list::<i32>();
    if lists.is_null(row) {
        return Ok(None);
    }
    let items = lists.value(row);
    if items.null_count() > 0 {
        return exec_err!("expected a list of numbers, found a NULL in it");
    }
    Ok(Some(items.as_primitive::<Float64Type>().values().to_vec()))
}
