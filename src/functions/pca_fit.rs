//! `pca_fit(weights)`: principal components of the filters of a group.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::function::AccumulatorArgs;

use super::aggregate::Aggregate;
use super::arguments::{failed, number_list};
use super::kl_shift::doubles;
use super::rows::{Rows, Values};
use super::udf::{Described, GroupFunction};
use crate::convert::{ArrowValue, double_lists};
use crate::math::{self, Moments};
use crate::schema;

/// Returns [`schema::pca_fit`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PcaFit;

impl Described for PcaFit {
    const USAGE: &'static str = "pca_fit(weights LIST of numbers)";
    const SECTION: &'static str = "Principal components";
    const DESCRIPTION: &'static str = "Principal component analysis of the filters of a group, with scikit-learn's names: \
        n, n_skipped, mean[d], components[d][d] (rows), explained_variance[d], explained_variance_ratio[d]. Covariance over \
        n - 1; in each component the entry of largest absolute value is positive. NULL for fewer than two filters.";
    const ARGUMENTS: &'static [(&'static str, &'static str)] =
        &[("weights", "Filters of one length. NULL and non-finite ones are left out and counted in n_skipped.")];
    const EXAMPLE: &'static str = "SELECT task, pca_fit(filter_scale(weights)) FROM filters GROUP BY task";

    fn coerce(&self, found: &[DataType]) -> Option<Vec<DataType>> {
        let [weights] = found else { return None };
        Some(vec![number_list(weights)?])
    }
}

impl GroupFunction for PcaFit {
    type Aggregate = Fit;

    fn return_type(&self, _arguments: &[DataType]) -> DataType {
        schema::pca_fit()
    }

    fn state_type(&self, _arguments: &[FieldRef]) -> DataType {
        state_type()
    }

    fn aggregate(&self, _arguments: &AccumulatorArgs) -> Result<Fit> {
        Ok(Fit { add: add_rows })
    }
}

/// Moments of a group; their principal components in the end. `add` takes in a column: of filters here, of stored
/// moments in `pca_merge`.
#[derive(Debug)]
pub(crate) struct Fit {
    pub(super) add: fn(&mut Moments, &ArrayRef) -> Result<()>,
}

fn add_rows(state: &mut Moments, column: &ArrayRef) -> Result<()> {
    let rows = Rows::new(column)?;
    if rows.d == 0 {
        state.skip(rows.len as u64);
        return Ok(());
    }
    match &rows.values {
        Values::F32(values) => state.update(values, rows.d),
        Values::F64(values) => state.update(values, rows.d),
    }
    .map_err(failed("pca_fit"))
}

impl Aggregate for Fit {
    type State = Moments;

    fn update(&self, state: &mut Moments, arguments: &[ArrayRef]) -> Result<()> {
        (self.add)(state, &arguments[0])
    }

    fn merge(&self, state: &mut Moments, other: Moments) -> Result<()> {
        state.merge(&other).map_err(failed("pca_fit"))
    }

    fn encode(&self, states: Vec<Moments>) -> Result<ArrayRef> {
        let low = [
            double_lists(states.iter().map(Moments::mean_low)),
            double_lists(states.iter().map(Moments::comoment_low)),
        ];
        let moments = Moments::encode(&states.into_iter().map(Some).collect::<Vec<_>>())?;
        Ok(Arc::new(StructArray::try_new(state_fields(), [moments].into_iter().chain(low).collect(), None)?))
    }

    fn decode(&self, column: &ArrayRef, row: usize) -> Result<Moments> {
        let Some(state) = column.as_struct_opt().filter(|state| state.fields() == &state_fields()) else {
            return exec_err!("expected {} as the state of an aggregate, found {}", state_type(), column.data_type());
        };
        let low = (doubles(state.column(1), row)?, doubles(state.column(2), row)?);
        match (Moments::decode(state.column(0), row)?, low) {
            (Some(moments), (Some(mean), Some(comoment))) => {
                moments.with_low(mean, comoment).map_err(failed("pca_fit"))
            }
            _ => exec_err!("expected moments as the state of an aggregate, found NULL"),
        }
    }

    fn evaluate(&self, states: Vec<Moments>) -> Result<ArrayRef> {
        math::Pca::encode(&states.iter().map(math::pca).collect::<Vec<_>>())
    }

    fn heap_size(&self, state: &Moments) -> usize {
        // Each number is a pair.
        2 * (size_of_val(state.mean()) + size_of_val(state.comoment()))
    }
}

/// Moments to the last bit: the running values are pairs of doubles, and a state that dropped the lower ones would
/// let the cut into partitions show in the last digits.
pub(super) fn state_type() -> DataType {
    DataType::Struct(state_fields())
}

fn state_fields() -> Fields {
    Fields::from(vec![
        Field::new("moments", schema::moments(), true),
        Field::new("mean_low", schema::doubles(), true),
        Field::new("comoment_low", schema::doubles(), true),
    ])
}
