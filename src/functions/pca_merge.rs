//! `pca_merge(moments)`: principal components from stored moments, without a scan of filters.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::function::AccumulatorArgs;

use super::arguments::{failed, structure};
use super::pca_fit::{Fit, state_type};
use super::udf::{Described, GroupFunction};
use crate::convert::ArrowValue;
use crate::math::Moments;
use crate::schema;

/// Returns [`schema::pca_fit`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PcaMerge;

impl Described for PcaMerge {
    const USAGE: &'static str = "pca_merge(moments STRUCT<n, n_skipped, mean, comoment>)";
    const SECTION: &'static str = "Stored states";
    const DESCRIPTION: &'static str = "Merges the exact moments that `layers` holds and returns what pca_fit returns over the \
        filters behind them, without reading one.";
    const ARGUMENTS: &'static [(&'static str, &'static str)] =
        &[("moments", "`moments` (raw weights) or `moments_scaled` of `layers`; NULL is passed over.")];
    const EXAMPLE: &'static str = "SELECT task, pca_merge(moments_scaled) FROM layers GROUP BY task";

    fn coerce(&self, found: &[DataType]) -> Option<Vec<DataType>> {
        let [moments] = found else { return None };
        Some(vec![structure(moments, schema::moments())?])
    }
}

impl GroupFunction for PcaMerge {
    type Aggregate = Fit;

    fn return_type(&self, _arguments: &[DataType]) -> DataType {
        schema::pca_fit()
    }

    fn state_type(&self, _arguments: &[FieldRef]) -> DataType {
        state_type()
    }

    fn aggregate(&self, _arguments: &AccumulatorArgs) -> Result<Fit> {
        Ok(Fit { add: add_moments })
    }
}

fn add_moments(state: &mut Moments, column: &ArrayRef) -> Result<()> {
    for row in 0..column.len() {
        if let Some(moments) = Moments::decode(column, row)? {
            state.merge(&moments).map_err(failed("pca_merge"))?;
        }
    }
    Ok(())
}
