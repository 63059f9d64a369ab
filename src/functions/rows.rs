//! A column of number lists as one contiguous row-major slice.

use std::borrow::Cow;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::{Result, exec_err};

/// The rows of a list column: `len` rows of `d` numbers. Rows that are NULL or hold a NULL are filled with
/// NaN, which every statistic skips and counts; `nulls` tells them apart where it matters.
#[derive(Debug)]
pub(crate) struct Rows<'a> {
    pub values: Values<'a>,
    /// Length of the lists; 0 where no row tells it.
    pub d: usize,
    pub len: usize,
    pub nulls: Option<NullBuffer>,
}

/// The numbers, in the precision in which they came.
#[derive(Debug)]
pub(crate) enum Values<'a> {
    F32(Cow<'a, [f32]>),
    F64(Cow<'a, [f64]>),
}

impl<'a> Rows<'a> {
    /// The rows of `array`, a list of Float32 or Float64 (what [`super::arguments::number_list`] coerces to).
    pub fn new(array: &'a ArrayRef) -> Result<Self> {
        let (items, spans, d) = match array.data_type() {
            DataType::FixedSizeList(_, d) => (array.as_fixed_size_list().values(), None, *d as usize),
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                (list.values(), Some(list.value_offsets()), common_length(array)?)
            }
            other => return exec_err!("expected a list of numbers, found {other}"),
        };
        let layout = Layout { array, spans, d };
        let (values, nulls) = match items.data_type() {
            DataType::Float32 => {
                let (values, nulls) = layout.values::<Float32Type>(items.as_primitive(), f32::NAN);
                (Values::F32(values), nulls)
            }
            DataType::Float64 => {
                let (values, nulls) = layout.values::<Float64Type>(items.as_primitive(), f64::NAN);
                (Values::F64(values), nulls)
            }
            other => return exec_err!("expected a list of Float32 or Float64, found a list of {other}"),
        };
        Ok(Rows { values, d, len: array.len(), nulls })
    }
}

/// The one length of all lists that are not NULL.
fn common_length(array: &ArrayRef) -> Result<usize> {
    let list = array.as_list::<i32>();
    let mut length = None;
    for row in (0..list.len()).filter(|&row| list.is_valid(row)) {
        let found = list.value_length(row) as usize;
        match length {
            None => length = Some(found),
            Some(expected) if expected != found => {
                return exec_err!("expected lists of one length, found lengths {expected} and {found}");
            }
            Some(_) => {}
        }
    }
    Ok(length.unwrap_or(0))
}

/// Where each row's numbers are among the items.
struct Layout<'a> {
    array: &'a ArrayRef,
    /// Offsets of a variable list; a fixed one needs none.
    spans: Option<&'a [i32]>,
    d: usize,
}

impl<'a> Layout<'a> {
    fn values<T: ArrowPrimitiveType>(
        &self,
        items: &'a PrimitiveArray<T>,
        nan: T::Native,
    ) -> (Cow<'a, [T::Native]>, Option<NullBuffer>) {
        let start = |row: usize| self.spans.map_or(row * self.d, |spans| spans[row] as usize);
        if self.array.null_count() == 0 && items.null_count() == 0 {
            let first = start(0);
            return (Cow::Borrowed(&items.values()[first..first + self.array.len() * self.d]), None);
        }
        let mut values = Vec::with_capacity(self.array.len() * self.d);
        let valid = |row: usize| {
            self.array.is_valid(row) && (items.null_count() == 0 || items.slice(start(row), self.d).null_count() == 0)
        };
        let nulls: NullBuffer = (0..self.array.len())
            .map(|row| {
                let valid = valid(row);
                if valid {
                    values.extend_from_slice(&items.values()[start(row)..start(row) + self.d]);
                } else {
                    values.extend(std::iter::repeat_n(nan, self.d));
                }
                valid
            })
            .collect::<Vec<bool>>()
            .into();
        (Cow::Owned(values), Some(nulls))
    }
}
