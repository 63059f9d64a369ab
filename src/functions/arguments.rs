//! Types of arguments, checked when the query is planned. Every refusal shows the call that was expected.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_datafusion_err, plan_datafusion_err};
use datafusion::logical_expr::{Signature, TypeSignature, Volatility};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;

use crate::error::Error;

/// The signature of every function here: types are checked by its own `coerce_types`.
pub(crate) fn signature() -> Signature {
    Signature::new(TypeSignature::UserDefined, Volatility::Immutable)
}

/// The planning error for a call that does not fit: `usage` is the call as it should be.
pub(crate) fn mismatch(usage: &str, found: &[DataType]) -> DataFusionError {
    let name = usage.split('(').next().unwrap_or(usage);
    let found: Vec<String> = found.iter().map(describe).collect();
    plan_datafusion_err!("expected {usage}, found {name}({})", found.join(", "))
}

/// A type in few words: a struct of ten fields would hide the message.
fn describe(data_type: &DataType) -> String {
    match data_type {
        DataType::Struct(fields) => {
            let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
            format!("STRUCT<{}>", names.join(", "))
        }
        DataType::List(item) | DataType::LargeList(item) => format!("LIST<{}>", describe(item.data_type())),
        DataType::FixedSizeList(item, d) => format!("LIST<{}>[{d}]", describe(item.data_type())),
        other => other.to_string(),
    }
}

/// What a list of numbers is coerced to: Float32 stays, everything else becomes Float64.
pub(crate) fn number_list(found: &DataType) -> Option<DataType> {
    let item = |field: &FieldRef| {
        let data_type = match field.data_type() {
            DataType::Float32 | DataType::Float16 => DataType::Float32,
            DataType::Null => DataType::Float64,
            other if other.is_numeric() => DataType::Float64,
            _ => return None,
        };
        Some(Arc::new(Field::new(field.name(), data_type, field.is_nullable())))
    };
    match found {
        DataType::Null => Some(crate::schema::doubles()),
        DataType::FixedSizeList(field, d) if *d > 0 => Some(DataType::FixedSizeList(item(field)?, *d)),
        DataType::List(field) | DataType::LargeList(field) | DataType::ListView(field) => {
            Some(DataType::List(item(field)?))
        }
        _ => None,
    }
}

/// `expected` where `found` is a struct with the same fields, in other numeric types at most, or NULL.
pub(crate) fn structure(found: &DataType, expected: DataType) -> Option<DataType> {
    fits(found, &expected).then_some(expected)
}

/// Whether a cast from `found` to `expected` changes numbers' types only.
fn fits(found: &DataType, expected: &DataType) -> bool {
    use DataType::{FixedSizeList, LargeList, List, Null, Struct};
    match (found, expected) {
        (Null, _) => true,
        (Struct(found), Struct(expected)) => {
            found.len() == expected.len()
                && found.iter().zip(expected).all(|(found, expected)| {
                    found.name() == expected.name() && fits(found.data_type(), expected.data_type())
                })
        }
        (List(found) | LargeList(found) | FixedSizeList(found, _), List(expected)) => {
            fits(found.data_type(), expected.data_type())
        }
        (found, expected) => found.is_numeric() && expected.is_numeric(),
    }
}

/// A number, coerced to a double.
pub(crate) fn number(found: &DataType) -> Option<DataType> {
    (*found == DataType::Null || found.is_numeric()).then_some(DataType::Float64)
}

/// Puts the function's name before an error of the mathematics.
pub(crate) fn failed(function: &str) -> impl Fn(Error) -> DataFusionError + '_ {
    move |error| exec_datafusion_err!("{function}: {error}")
}

/// The value of an argument that is a literal in the physical plan.
pub(crate) fn literal(expr: &Arc<dyn PhysicalExpr>) -> Option<ScalarValue> {
    expr.downcast_ref::<Literal>().map(|literal| literal.value().clone())
}

/// The one value of a parameter that arrives as a column (a join with a one-row relation, say).
pub(crate) fn constant(function: &str, parameter: &str, column: &ArrayRef) -> Result<ScalarValue> {
    let first = ScalarValue::try_from_array(column, 0)?;
    for row in 1..column.len() {
        if !first.eq_array(column, row)? {
            return Err(exec_datafusion_err!(
                "{function}: expected one {parameter} for all rows, found {first} and {}",
                ScalarValue::try_from_array(column, row)?
            ));
        }
    }
    Ok(first)
}
