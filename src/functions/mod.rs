//! The SQL functions, one file each, named as in SQL. [`all`] is the list; tests loop over it.
//!
//! The mathematics is in [`crate::math`]; here are types, planning errors and the way between Arrow and
//! numbers. Every aggregate is one `Aggregate` (`aggregate.rs`), whose state serves grouped and ungrouped
//! queries alike, so both give the same digits.

mod aggregate;
mod arguments;
mod rows;
mod udf;

mod coef_hist;
mod coef_hist_merge;
mod coef_range;
mod filter_range;
mod filter_scale;
mod kl_shift;
mod pca_fit;
mod pca_merge;
mod pca_transform;
mod sym_kl_shift;

use datafusion::logical_expr::{AggregateUDF, Documentation, ScalarUDF};

/// A SQL function of this crate.
#[derive(Debug, Clone)]
pub enum Function {
    /// One result per row.
    Scalar(ScalarUDF),
    /// One result per group.
    Aggregate(AggregateUDF),
}

impl Function {
    /// The name in SQL.
    pub fn name(&self) -> &str {
        match self {
            Function::Scalar(function) => function.name(),
            Function::Aggregate(function) => function.name(),
        }
    }

    /// What it does, how it is called, an example.
    pub fn documentation(&self) -> Option<&Documentation> {
        match self {
            Function::Scalar(function) => function.documentation(),
            Function::Aggregate(function) => function.documentation(),
        }
    }
}

/// Every SQL function, in the order of the documentation.
pub fn all() -> Vec<Function> {
    use Function::{Aggregate, Scalar};
    vec![
        Scalar(udf::scalar(filter_scale::FilterScale)),
        Scalar(udf::scalar(filter_range::FilterRange)),
        Aggregate(udf::aggregate(pca_fit::PcaFit)),
        Scalar(udf::scalar(pca_transform::PcaTransform)),
        Aggregate(udf::aggregate(coef_range::CoefRange)),
        Aggregate(udf::aggregate(coef_hist::CoefHist::default())),
        Scalar(udf::scalar(kl_shift::KlShift)),
        Aggregate(udf::aggregate(sym_kl_shift::SymKlShift)),
        Aggregate(udf::aggregate(pca_merge::PcaMerge)),
        Aggregate(udf::aggregate(coef_hist_merge::CoefHistMerge)),
    ]
}
