//! From what differs between functions to DataFusion's traits, which ask for a lot that does not.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, not_impl_err};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, DocSection, Documentation, DocumentationBuilder, Expr,
    GroupsAccumulator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::aggregate::{Aggregate, Grouped, Ungrouped};
use super::arguments::{mismatch, signature};

/// What every function says of itself.
pub(crate) trait Described: Debug + Clone + Eq + Hash + Send + Sync + 'static {
    /// The call as it should be written, e.g. `"filter_scale(weights LIST of numbers)"`; the name before the
    /// parenthesis is the function's.
    const USAGE: &'static str;

    /// The section of the documentation.
    const SECTION: &'static str;

    /// What it does, in a sentence or three.
    const DESCRIPTION: &'static str;

    /// Arguments and what they mean.
    const ARGUMENTS: &'static [(&'static str, &'static str)];

    /// A query that shows it.
    const EXAMPLE: &'static str;

    /// The types that arguments of these types are cast to, or `None` where the call does not fit.
    fn coerce(&self, found: &[DataType]) -> Option<Vec<DataType>>;

    /// The name in SQL.
    fn name() -> &'static str {
        Self::USAGE.split('(').next().unwrap_or(Self::USAGE)
    }
}

/// A function of one row.
pub(crate) trait RowFunction: Described {
    fn return_type(&self, arguments: &[DataType]) -> DataType;
    fn invoke(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue>;
}

/// A function of many rows.
pub(crate) trait GroupFunction: Described {
    /// What the rows of one group are given to.
    type Aggregate: Aggregate;

    fn return_type(&self, arguments: &[DataType]) -> DataType;
    /// The type of [`Aggregate::encode`]'s column.
    fn state_type(&self, arguments: &[FieldRef]) -> DataType;
    fn aggregate(&self, arguments: &AccumulatorArgs) -> Result<Self::Aggregate>;

    /// The function with its literal parameters taken in, and how many arguments are left; `None` where there is
    /// nothing to take in. A literal that stays an argument becomes a column of copies for every batch.
    ///
    /// # Errors
    /// Parameters that no row can mend.
    fn bind(&self, _arguments: &[Expr]) -> Result<Option<(Self, usize)>>
    where
        Self: Sized,
    {
        Ok(None)
    }
}

/// A [`RowFunction`] as DataFusion wants it.
pub(crate) fn scalar<F: RowFunction>(function: F) -> ScalarUDF {
    ScalarUDF::new_from_impl(Udf::new(function))
}

/// A [`GroupFunction`] as DataFusion wants it.
pub(crate) fn aggregate<F: GroupFunction>(function: F) -> AggregateUDF {
    AggregateUDF::new_from_impl(Udf::new(function))
}

#[derive(Debug)]
struct Udf<F> {
    function: F,
    signature: Signature,
    documentation: Documentation,
}

impl<F: Described> Udf<F> {
    fn new(function: F) -> Self {
        let section = DocSection { include: true, label: F::SECTION, description: None };
        let builder: DocumentationBuilder = Documentation::builder(section, F::DESCRIPTION, F::USAGE);
        let documentation = F::ARGUMENTS
            .iter()
            .fold(builder, |builder, (name, text)| builder.with_argument(*name, *text))
            .with_sql_example(F::EXAMPLE)
            .build();
        Udf { function, signature: signature(), documentation }
    }
}

impl<F: Described> PartialEq for Udf<F> {
    fn eq(&self, other: &Self) -> bool {
        self.function == other.function
    }
}

impl<F: Described> Eq for Udf<F> {}

impl<F: Described> Hash for Udf<F> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        F::USAGE.hash(state);
        self.function.hash(state);
    }
}

impl<F: RowFunction> ScalarUDFImpl for Udf<F> {
    fn name(&self) -> &str {
        F::name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce(found).ok_or_else(|| mismatch(F::USAGE, found))
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(self.function.return_type(arguments))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.function.invoke(arguments)
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

impl<F: GroupFunction> AggregateUDFImpl for Udf<F> {
    fn name(&self) -> &str {
        F::name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce(found).ok_or_else(|| mismatch(F::USAGE, found))
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(self.function.return_type(arguments))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let data_type = self.function.state_type(args.input_fields);
        Ok(vec![Arc::new(Field::new(format_state_name(args.name, "state"), data_type, true))])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        refuse_distinct::<F>(&args)?;
        Ok(Box::new(Ungrouped::new(self.function.aggregate(&args)?)))
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        refuse_distinct::<F>(&args)?;
        Ok(Box::new(Grouped::new(self.function.aggregate(&args)?)))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        let function = self.function.clone();
        Some(Box::new(move |mut call: AggregateFunction, _: &SimplifyContext| {
            if let Some((bound, left)) = function.bind(&call.params.args)? {
                call.func = Arc::new(aggregate(bound));
                call.params.args.truncate(left);
            }
            Ok(Expr::AggregateFunction(call))
        }))
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

/// The engine rewrites a lone DISTINCT itself; what comes here would be overlooked.
fn refuse_distinct<F: Described>(args: &AccumulatorArgs) -> Result<()> {
    if args.is_distinct {
        not_impl_err!("{}: DISTINCT is not supported here; use a subquery", F::name())
    } else {
        Ok(())
    }
}
