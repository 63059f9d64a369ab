//! The way between the values of [`crate::math`] and Arrow structs: results, stored states and the states
//! that an aggregate sends from one partition to another are all written and read here.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Float64Builder, Int64Array, Int64Builder, ListBuilder,
    StructArray,
};
use arrow::buffer::NullBuffer;
use arrow::compute::nullif;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, exec_err};
use ndarray::Array2;

use crate::math::histogram::Header;
use crate::math::{Histogram, Moments, Pca, Range};
use crate::schema;

/// A value that is a struct in Arrow.
pub(crate) trait ArrowValue: Sized {
    /// The struct's type.
    fn data_type() -> DataType;

    /// The struct's columns, one row per value.
    fn columns(values: &[&Self]) -> Vec<ArrayRef>;

    /// The value in one row.
    fn from_row(row: Row<'_>) -> Result<Self>;

    /// What stands under a NULL.
    fn empty() -> Result<Self>;

    /// A struct array; `None` is NULL.
    fn encode(values: &[Option<Self>]) -> Result<ArrayRef> {
        let empty = Self::empty()?;
        let filled: Vec<&Self> = values.iter().map(|value| value.as_ref().unwrap_or(&empty)).collect();
        let nulls: NullBuffer = values.iter().map(Option::is_some).collect::<Vec<bool>>().into();
        let DataType::Struct(fields) = Self::data_type() else {
            return exec_err!("{} is no struct", Self::data_type());
        };
        // The fields of a NULL struct are NULL too: the engine takes a field of a group's result without a look at
        // the struct's own validity.
        let missing = BooleanArray::from(values.iter().map(Option::is_none).collect::<Vec<bool>>());
        let columns = Self::columns(&filled)
            .into_iter()
            .map(|column| nullif(&column, &missing))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Arc::new(StructArray::try_new(fields, columns, Some(nulls))?))
    }

    /// The value in `row` of a struct array; `None` for NULL.
    fn decode(array: &ArrayRef, row: usize) -> Result<Option<Self>> {
        let Some(structs) = array.as_struct_opt() else {
            return exec_err!("expected {}, found {}", Self::data_type(), array.data_type());
        };
        if structs.is_null(row) { Ok(None) } else { Self::from_row(Row { structs, row }).map(Some) }
    }

    /// The value of a scalar; `None` for NULL.
    fn from_scalar(scalar: &ScalarValue) -> Result<Option<Self>> {
        match scalar {
            ScalarValue::Null => Ok(None),
            ScalarValue::Struct(array) => Self::decode(&(Arc::clone(array) as ArrayRef), 0),
            other => exec_err!("expected {}, found {}", Self::data_type(), other.data_type()),
        }
    }
}

/// One row of a struct array, read by field name.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    structs: &'a StructArray,
    row: usize,
}

impl<'a> Row<'a> {
    fn column(&self, name: &str, data_type: &DataType) -> Result<&'a ArrayRef> {
        match self.structs.column_by_name(name) {
            Some(column) if column.is_null(self.row) => exec_err!("the field '{name}' is NULL"),
            Some(column) if column.data_type().equals_datatype(data_type) => Ok(column),
            Some(column) => exec_err!("the field '{name}' must be {data_type}, found {}", column.data_type()),
            None => exec_err!("the field '{name}' is missing"),
        }
    }

    fn double(&self, name: &str) -> Result<f64> {
        Ok(self.column(name, &DataType::Float64)?.as_primitive::<Float64Type>().value(self.row))
    }

    fn count(&self, name: &str) -> Result<u64> {
        let value = self.column(name, &DataType::Int64)?.as_primitive::<Int64Type>().value(self.row);
        u64::try_from(value).map_err(|_| exec_datafusion_err!("the field '{name}' must not be negative, found {value}"))
    }

    fn list(&self, name: &str, item: DataType) -> Result<ArrayRef> {
        Ok(self.column(name, &schema::list(item))?.as_list::<i32>().value(self.row))
    }

    fn doubles(&self, name: &str) -> Result<Vec<f64>> {
        no_nulls(name, self.list(name, DataType::Float64)?)
            .map(|items| items.as_primitive::<Float64Type>().values().to_vec())
    }

    /// A list of lists, all of one length: (values row by row, rows, columns).
    fn matrix(&self, name: &str, item: DataType) -> Result<(ArrayRef, usize, usize)> {
        let outer = no_nulls(name, self.list(name, schema::list(item))?)?;
        let lists = outer.as_list::<i32>();
        let columns = if lists.is_empty() { 0 } else { lists.value_length(0) as usize };
        if (0..lists.len()).any(|i| lists.value_length(i) as usize != columns) {
            return exec_err!("the lists of the field '{name}' must have one length");
        }
        let first = lists.value_offsets()[0] as usize;
        let items = no_nulls(name, lists.values().slice(first, lists.len() * columns))?;
        Ok((items, lists.len(), columns))
    }
}

fn no_nulls(name: &str, items: ArrayRef) -> Result<ArrayRef> {
    if items.null_count() > 0 { exec_err!("the field '{name}' holds a NULL") } else { Ok(items) }
}

fn counts(values: impl Iterator<Item = u64>) -> ArrayRef {
    // Counts of rows fit i64: there are no 2^63 of anything here.
    Arc::new(values.map(|n| i64::try_from(n).unwrap_or(i64::MAX)).collect::<Int64Array>())
}

/// A list array of doubles, without NULLs.
pub(crate) fn double_lists<'a>(lists: impl Iterator<Item = &'a [f64]>) -> ArrayRef {
    let mut builder = ListBuilder::new(Float64Builder::new());
    for list in lists {
        builder.values().append_slice(list);
        builder.append(true);
    }
    Arc::new(builder.finish())
}

impl ArrowValue for Moments {
    fn empty() -> Result<Self> {
        Ok(Moments::default())
    }

    fn data_type() -> DataType {
        schema::moments()
    }

    fn columns(values: &[&Self]) -> Vec<ArrayRef> {
        vec![
            counts(values.iter().map(|m| m.n())),
            counts(values.iter().map(|m| m.n_skipped())),
            double_lists(values.iter().map(|m| m.mean())),
            double_lists(values.iter().map(|m| m.comoment())),
        ]
    }

    fn from_row(row: Row<'_>) -> Result<Self> {
        let (n, n_skipped) = (row.count("n")?, row.count("n_skipped")?);
        Moments::from_parts(n, n_skipped, row.doubles("mean")?, row.doubles("comoment")?)
            .map_err(|e| exec_datafusion_err!("{e}"))
    }
}

impl ArrowValue for Pca {
    fn empty() -> Result<Self> {
        Ok(Pca {
            n: 0,
            n_skipped: 0,
            mean: Vec::new(),
            components: Array2::zeros((0, 0)),
            explained_variance: Vec::new(),
            explained_variance_ratio: Vec::new(),
        })
    }

    fn data_type() -> DataType {
        schema::pca_fit()
    }

    fn columns(values: &[&Self]) -> Vec<ArrayRef> {
        let mut components = ListBuilder::new(ListBuilder::new(Float64Builder::new()));
        for pca in values {
            for component in pca.components.rows() {
                component.iter().for_each(|&w| components.values().values().append_value(w));
                components.values().append(true);
            }
            components.append(true);
        }
        vec![
            counts(values.iter().map(|pca| pca.n)),
            counts(values.iter().map(|pca| pca.n_skipped)),
            double_lists(values.iter().map(|pca| pca.mean.as_slice())),
            Arc::new(components.finish()),
            double_lists(values.iter().map(|pca| pca.explained_variance.as_slice())),
            double_lists(values.iter().map(|pca| pca.explained_variance_ratio.as_slice())),
        ]
    }

    fn from_row(row: Row<'_>) -> Result<Self> {
        let (items, rows, columns) = row.matrix("components", DataType::Float64)?;
        let components = Array2::from_shape_vec((rows, columns), items.as_primitive::<Float64Type>().values().to_vec())
            .map_err(|e| exec_datafusion_err!("components: {e}"))?;
        let pca = Pca {
            n: row.count("n")?,
            n_skipped: row.count("n_skipped")?,
            mean: row.doubles("mean")?,
            components,
            explained_variance: row.doubles("explained_variance")?,
            explained_variance_ratio: row.doubles("explained_variance_ratio")?,
        };
        if pca.mean.len() != columns || rows != columns {
            return exec_err!(
                "a fit of {} numbers must have as many components, found {rows} x {columns}",
                pca.mean.len()
            );
        }
        Ok(pca)
    }
}

impl ArrowValue for Range {
    fn empty() -> Result<Self> {
        Ok(Range::default())
    }

    fn data_type() -> DataType {
        schema::coef_range()
    }

    fn columns(values: &[&Self]) -> Vec<ArrayRef> {
        let bound = |of: fn(&Range) -> f64| Arc::new(values.iter().map(|r| Some(of(r))).collect::<Float64Array>());
        vec![bound(|range| range.lo), bound(|range| range.hi)]
    }

    fn from_row(row: Row<'_>) -> Result<Self> {
        Ok(Range { lo: row.double("lo")?, hi: row.double("hi")?, ..Range::default() })
    }
}

impl ArrowValue for Histogram {
    fn empty() -> Result<Self> {
        Histogram::new(0.0, 1.0, 1, 1).map_err(|e| exec_datafusion_err!("{e}"))
    }

    fn data_type() -> DataType {
        schema::coef_hist()
    }

    fn columns(values: &[&Self]) -> Vec<ArrayRef> {
        let mut builder = ListBuilder::new(ListBuilder::new(Int64Builder::new()));
        for histogram in values {
            for component in histogram.counts().chunks_exact(histogram.bins().max(1)) {
                for &count in component {
                    builder.values().values().append_value(i64::try_from(count).unwrap_or(i64::MAX));
                }
                builder.values().append(true);
            }
            builder.append(true);
        }
        let bound = |of: fn(&Histogram) -> f64| Arc::new(values.iter().map(|h| Some(of(h))).collect::<Float64Array>());
        vec![
            bound(Histogram::lo),
            bound(Histogram::hi),
            counts(values.iter().map(|h| h.n())),
            counts(values.iter().map(|h| h.n_skipped())),
            counts(values.iter().map(|h| h.below())),
            counts(values.iter().map(|h| h.above())),
            Arc::new(builder.finish()),
        ]
    }

    fn from_row(row: Row<'_>) -> Result<Self> {
        let (items, d, bins) = row.matrix("counts", DataType::Int64)?;
        let counts: Vec<u64> = items
            .as_primitive::<Int64Type>()
            .values()
            .iter()
            .map(|&count| {
                u64::try_from(count).map_err(|_| exec_datafusion_err!("a count must not be negative, found {count}"))
            })
            .collect::<Result<_>>()?;
        let header = Header {
            lo: row.double("lo")?,
            hi: row.double("hi")?,
            bins,
            d,
            n: row.count("n")?,
            n_skipped: row.count("n_skipped")?,
            below: row.count("below")?,
            above: row.count("above")?,
        };
        Histogram::from_parts(header, counts).map_err(|e| exec_datafusion_err!("{e}"))
    }
}
