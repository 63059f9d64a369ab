//! `pca_transform(weights, fit)`: the coefficients of a filter in a basis of principal components.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

use super::arguments::{failed, number_list, structure};
use super::filter_scale::relist;
use super::rows::{Rows, Values};
use super::udf::{Described, RowFunction};
use crate::convert::ArrowValue;
use crate::math::Pca;
use crate::schema;

/// c = (w - mean) V^T in Float64, a list of the argument's kind (fixed or variable).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PcaTransform;

impl Described for PcaTransform {
    const USAGE: &'static str = "pca_transform(weights LIST of numbers, fit STRUCT of pca_fit)";
    const SECTION: &'static str = "Principal components";
    const DESCRIPTION: &'static str = "The coefficients of a filter in a fitted basis: (weights - mean) times the transposed \
        components. NULL where filter or fit is NULL; not finite for a filter that is not.";
    const ARGUMENTS: &'static [(&'static str, &'static str)] = &[
        ("weights", "The filter, scaled as those that the basis was fitted to."),
        ("fit", "What pca_fit or pca_merge returned for filters of the same length."),
    ];
    const EXAMPLE: &'static str = "SELECT pca_transform(filter_scale(weights), (SELECT pca_fit(filter_scale(weights)) FROM filters)) FROM filters LIMIT 1";

    fn coerce(&self, found: &[DataType]) -> Option<Vec<DataType>> {
        let [weights, fit] = found else { return None };
        Some(vec![number_list(weights)?, structure(fit, schema::pca_fit())?])
    }
}

impl RowFunction for PcaTransform {
    fn return_type(&self, arguments: &[DataType]) -> DataType {
        match &arguments[0] {
            DataType::FixedSizeList(_, d) => {
                DataType::FixedSizeList(Arc::new(Field::new_list_field(DataType::Float64, true)), *d)
            }
            _ => schema::doubles(),
        }
    }

    fn invoke(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let column = args.args[0].to_array(args.number_rows)?;
        let mut rows = Rows::new(&column)?;
        let mut out = vec![f64::NAN; rows.len * rows.d];
        match &args.args[1] {
            ColumnarValue::Scalar(fit) => match Pca::from_scalar(fit)? {
                Some(pca) => transform(&pca, &rows, 0..rows.len, &mut out)?,
                None => rows.nulls = Some(NullBuffer::new_null(rows.len)),
            },
            ColumnarValue::Array(fits) => {
                let fitted = by_row(fits, &rows, &mut out)?;
                rows.nulls = NullBuffer::union(rows.nulls.as_ref(), Some(&fitted));
            }
        }
        let items: ArrayRef = Arc::new(Float64Array::from(out));
        Ok(ColumnarValue::Array(relist(args.return_type(), items, &rows)?))
    }
}

/// Each row in its own basis: what a join with several fits asks for.
fn by_row(fits: &ArrayRef, rows: &Rows<'_>, out: &mut [f64]) -> Result<NullBuffer> {
    let mut fitted = Vec::with_capacity(rows.len);
    for row in 0..rows.len {
        let pca = Pca::decode(fits, row)?;
        if let Some(pca) = &pca {
            transform(pca, rows, row..row + 1, &mut out[row * rows.d..(row + 1) * rows.d])?;
        }
        fitted.push(pca.is_some());
    }
    Ok(fitted.into())
}

fn transform(pca: &Pca, rows: &Rows<'_>, span: Range<usize>, out: &mut [f64]) -> Result<()> {
    let d = rows.d;
    let all_null = rows.nulls.as_ref().is_some_and(|nulls| nulls.null_count() == rows.len);
    if rows.len == 0 || all_null {
        return Ok(());
    }
    if pca.mean.len() != d {
        return exec_err!("pca_transform: expected filters of the fit's length {}, found length {d}", pca.mean.len());
    }
    let span = span.start * d..span.end * d;
    match &rows.values {
        Values::F32(values) => pca.transform(&values[span], d, out),
        Values::F64(values) => pca.transform(&values[span], d, out),
    }
    .map_err(failed("pca_transform"))
}
