//! Nine columns to one list: how a scan assembles `weights`. Not a SQL function: plans are built with it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array};
use arrow::datatypes::{DataType, Float32Type};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::schema::{self, FILTER_LEN};

/// The function that a scan calls with w0 .. w8.
pub(super) fn interleave() -> ScalarUDF {
    let signature = Signature::exact(vec![DataType::Float32; FILTER_LEN], Volatility::Immutable);
    ScalarUDF::new_from_impl(Interleave { signature })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Interleave {
    signature: Signature,
}

impl ScalarUDFImpl for Interleave {
    fn name(&self) -> &str {
        schema::WEIGHTS
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(schema::weights_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns: Vec<ArrayRef> =
            args.args.iter().map(|argument| argument.to_array(args.number_rows)).collect::<Result<_>>()?;
        let mut slices = [&[] as &[f32]; FILTER_LEN];
        for (slice, column) in slices.iter_mut().zip(&columns) {
            match column.as_primitive_opt::<Float32Type>() {
                Some(values) if values.null_count() == 0 => *slice = values.values(),
                _ => {
                    return exec_err!(
                        "a stored weight column must be Float32 without NULLs, found {}",
                        column.data_type()
                    );
                }
            }
        }
        let mut items = vec![0f32; args.number_rows * FILTER_LEN];
        for (row, out) in items.as_chunks_mut::<FILTER_LEN>().0.iter_mut().enumerate() {
            for (value, slice) in out.iter_mut().zip(&slices) {
                *value = slice[row];
            }
        }
        let DataType::FixedSizeList(field, d) = schema::weights_type() else { return exec_err!("no list type") };
        let items = Arc::new(Float32Array::from(items));
        Ok(ColumnarValue::Array(Arc::new(FixedSizeListArray::try_new(field, d, items, None)?)))
    }
}
