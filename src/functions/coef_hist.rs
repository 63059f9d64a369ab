//! `coef_hist(coefs, range [, bins])`: a histogram of each component over one range.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err, plan_datafusion_err, plan_err};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::function::AccumulatorArgs;

use super::aggregate::Aggregate;
use super::arguments::{constant, failed, literal, number, number_list, structure};
use super::rows::{Rows, Values};
use super::udf::{Described, GroupFunction};
use crate::convert::ArrowValue;
use crate::math::histogram::MOST_BINS;
use crate::math::{Histogram, Range};
use crate::schema;

/// The paper's number of bins.
const BINS: usize = 70;

/// Returns [`schema::coef_hist`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct CoefHist {
    /// Range and bins, once the optimizer has taken them in from literals.
    binning: Option<Binning>,
}

/// A range, by the bits of its ends (functions are compared and hashed), and a number of bins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Binning {
    lo: u64,
    hi: u64,
    bins: usize,
}

impl Described for CoefHist {
    const USAGE: &'static str =
        "coef_hist(coefs LIST of numbers, range STRUCT<lo, hi> [, bins INTEGER]) or coef_hist(coefs, lo, hi [, bins])";
    const SECTION: &'static str = "Histograms and shift";
    const DESCRIPTION: &'static str = "Uniform histograms of the components over one range, by numpy.histogram's rule: half-open \
        bins, the last one closed. STRUCT lo, hi, n and n_skipped (filters), below and above (coefficients outside the range), \
        counts[d][bins]. NULL where the range is NULL.";
    const ARGUMENTS: &'static [(&'static str, &'static str)] = &[
        ("coefs", "Coefficients, as pca_transform returns them. NULL and non-finite filters are left out and counted."),
        ("range", "What coef_range returned, the same for all groups; or two numbers, lo < hi."),
        ("bins", "Number of bins, a literal; 70 as in the paper by default."),
    ];
    const EXAMPLE: &'static str = "SELECT task, coef_hist(filter_scale(weights), -1, 1, 10) FROM filters GROUP BY task";

    fn coerce(&self, found: &[DataType]) -> Option<Vec<DataType>> {
        if let (Some(_), [coefs]) = (self.binning, found) {
            return Some(vec![number_list(coefs)?]);
        }
        let [coefs, first, rest @ ..] = found else { return None };
        let coefs = number_list(coefs)?;
        let by_range = |bins: &[DataType]| Some(([structure(first, schema::coef_range())?].to_vec(), bins.to_vec()));
        let (mut bounds, bins) = match (first, rest) {
            (DataType::Struct(_), [] | [_]) | (DataType::Null, []) => by_range(rest)?,
            // NULL may stand for a range or for lo: what follows it is a number of bins or hi.
            (DataType::Null, [bins]) if bins.is_integer() => by_range(rest)?,
            (_, [hi, bins @ ..]) => (vec![number(first)?, number(hi)?], bins.to_vec()),
            _ => return None,
        };
        match bins.as_slice() {
            [] => {}
            [DataType::UInt64] => bounds.push(DataType::UInt64),
            [bins] if bins.is_integer() || *bins == DataType::Null => bounds.push(DataType::Int64),
            _ => return None,
        }
        bounds.insert(0, coefs);
        Some(bounds)
    }
}

impl GroupFunction for CoefHist {
    type Aggregate = Count;

    fn return_type(&self, _arguments: &[DataType]) -> DataType {
        schema::coef_hist()
    }

    fn state_type(&self, _arguments: &[FieldRef]) -> DataType {
        state_type()
    }

    fn aggregate(&self, arguments: &AccumulatorArgs) -> Result<Count> {
        if let Some(Binning { lo, hi, bins }) = self.binning {
            let range = Range { lo: f64::from_bits(lo), hi: f64::from_bits(hi), ..Range::default() };
            return Ok(Count { range: Bounds::Literal(Some(range)), bins });
        }
        let n_bounds = bounds(arguments.expr_fields[1].data_type());
        let literals: Vec<Option<ScalarValue>> = arguments.exprs[1..].iter().map(literal).collect();
        let bins = bins(literals.get(n_bounds))?;
        let range = match literals[..n_bounds].iter().cloned().collect::<Option<Vec<ScalarValue>>>() {
            Some(ends) => Bounds::Literal(to_range(&ends)?),
            None => Bounds::Columns(n_bounds),
        };
        if let Bounds::Literal(Some(range)) = range {
            check(range, bins)?;
        }
        Ok(Count { range, bins })
    }

    fn bind(&self, arguments: &[Expr]) -> Result<Option<(Self, usize)>> {
        let literals: Option<Vec<&ScalarValue>> = arguments.iter().skip(1).map(Expr::as_literal).collect();
        let Some(literals) = literals.filter(|literals| !literals.is_empty()) else { return Ok(None) };
        let n_bounds = bounds(&literals[0].data_type());
        let ends: Vec<ScalarValue> = literals.iter().take(n_bounds).map(|&end| end.clone()).collect();
        let bins = bins(literals.get(n_bounds).map(|&bins| Some(bins.clone())).as_ref())?;
        let Some(range) = to_range(&ends)? else { return Ok(None) };
        check(range, bins)?;
        Ok(Some((CoefHist { binning: Some(Binning { lo: range.lo.to_bits(), hi: range.hi.to_bits(), bins }) }, 1)))
    }
}

/// How many arguments give the range: one struct, or two numbers.
fn bounds(first: &DataType) -> usize {
    if matches!(first, DataType::Struct(_)) { 1 } else { 2 }
}

/// The number of bins: the default where there is no such argument, an error where it is no literal.
fn bins(argument: Option<&Option<ScalarValue>>) -> Result<usize> {
    match argument {
        None => Ok(BINS),
        Some(Some(ScalarValue::Int64(Some(bins)))) => usize::try_from(*bins)
            .map_err(|_| plan_datafusion_err!("coef_hist: expected 1 to {MOST_BINS} bins, found {bins}")),
        Some(Some(ScalarValue::UInt64(Some(bins)))) => Ok(usize::try_from(*bins).unwrap_or(usize::MAX)),
        Some(Some(other)) if other.is_null() => plan_err!("coef_hist: expected a number of bins, found NULL"),
        Some(Some(other)) => plan_err!("coef_hist: expected a number of bins, found {other}"),
        Some(None) => plan_err!("coef_hist: bins must be a literal, found a column or an expression"),
    }
}

/// Planning is the time to refuse what no batch can mend.
fn check(range: Range, bins: usize) -> Result<()> {
    Histogram::new(range.lo, range.hi, bins, 1).map(drop).map_err(failed("coef_hist"))
}

/// Counts coefficients.
#[derive(Debug)]
pub(crate) struct Count {
    range: Bounds,
    bins: usize,
}

/// Where the range comes from.
#[derive(Debug)]
enum Bounds {
    /// From the plan; `None`: it is NULL, as that of no filters is.
    Literal(Option<Range>),
    /// From that many columns, which must be constant.
    Columns(usize),
}

fn to_range(bounds: &[ScalarValue]) -> Result<Option<Range>> {
    match bounds {
        [range @ ScalarValue::Struct(_)] => Range::from_scalar(range),
        [ScalarValue::Float64(Some(lo)), ScalarValue::Float64(Some(hi))] => {
            Ok(Some(Range { lo: *lo, hi: *hi, ..Range::default() }))
        }
        bounds if bounds.iter().any(ScalarValue::is_null) => Ok(None),
        other => exec_err!("coef_hist: expected a range, found {other:?}"),
    }
}

impl Count {
    fn range(&self, arguments: &[ArrayRef]) -> Result<Option<Range>> {
        match self.range {
            Bounds::Literal(range) => Ok(range),
            Bounds::Columns(n) => {
                let bounds: Vec<ScalarValue> = arguments[1..=n]
                    .iter()
                    .map(|column| constant("coef_hist", "range", column))
                    .collect::<Result<_>>()?;
                to_range(&bounds)
            }
        }
    }
}

/// The histogram, and the rows that were skipped before a list told its length.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    histogram: Option<Histogram>,
    n_skipped: u64,
}

impl Counts {
    pub(super) fn merge(&mut self, other: Counts, function: &str) -> Result<()> {
        self.n_skipped += other.n_skipped;
        match (&mut self.histogram, other.histogram) {
            (Some(mine), Some(theirs)) => mine.merge(&theirs).map_err(failed(function))?,
            (mine @ None, theirs) => *mine = theirs,
            (Some(_), None) => {}
        }
        Ok(())
    }
}

impl Aggregate for Count {
    type State = Counts;

    fn update(&self, state: &mut Counts, arguments: &[ArrayRef]) -> Result<()> {
        let rows = Rows::new(&arguments[0])?;
        let Some(range) = self.range(arguments)? else { return Ok(()) };
        if rows.d == 0 {
            state.n_skipped += rows.len as u64;
            return Ok(());
        }
        let histogram = match &mut state.histogram {
            Some(histogram) => histogram,
            none => none.insert(Histogram::new(range.lo, range.hi, self.bins, rows.d).map_err(failed("coef_hist"))?),
        };
        if (histogram.lo(), histogram.hi()) != (range.lo, range.hi) {
            return exec_err!(
                "coef_hist: expected one range for all rows, found [{}, {}] and [{}, {}]",
                histogram.lo(),
                histogram.hi(),
                range.lo,
                range.hi
            );
        }
        match &rows.values {
            Values::F32(values) => histogram.update(values, rows.d),
            Values::F64(values) => histogram.update(values, rows.d),
        }
        .map_err(failed("coef_hist"))
    }

    fn merge(&self, state: &mut Counts, other: Counts) -> Result<()> {
        state.merge(other, "coef_hist")
    }

    fn encode(&self, states: Vec<Counts>) -> Result<ArrayRef> {
        encode(states)
    }

    fn decode(&self, column: &ArrayRef, row: usize) -> Result<Counts> {
        decode(column, row)
    }

    fn evaluate(&self, states: Vec<Counts>) -> Result<ArrayRef> {
        evaluate(states)
    }

    fn heap_size(&self, state: &Counts) -> usize {
        heap_size(state)
    }
}

pub(super) fn state_type() -> DataType {
    DataType::Struct(state_fields())
}

fn state_fields() -> Fields {
    Fields::from(vec![Field::new("hist", schema::coef_hist(), true), Field::new("n_skipped", DataType::Int64, false)])
}

pub(super) fn encode(states: Vec<Counts>) -> Result<ArrayRef> {
    let skipped: Int64Array = states.iter().map(|state| Some(state.n_skipped as i64)).collect();
    let histograms: Vec<Option<Histogram>> = states.into_iter().map(|state| state.histogram).collect();
    let columns = vec![Histogram::encode(&histograms)?, Arc::new(skipped) as ArrayRef];
    Ok(Arc::new(StructArray::try_new(state_fields(), columns, None)?))
}

pub(super) fn decode(column: &ArrayRef, row: usize) -> Result<Counts> {
    let Some(state) = column.as_struct_opt().filter(|state| state.fields() == &state_fields()) else {
        return exec_err!("expected {} as the state of an aggregate, found {}", state_type(), column.data_type());
    };
    let n_skipped = state.column(1).as_primitive::<Int64Type>().value(row);
    Ok(Counts { histogram: Histogram::decode(state.column(0), row)?, n_skipped: n_skipped.try_into().unwrap_or(0) })
}

pub(super) fn evaluate(states: Vec<Counts>) -> Result<ArrayRef> {
    let histograms: Vec<Option<Histogram>> = states
        .into_iter()
        .map(|state| {
            let mut histogram = state.histogram?;
            histogram.skip(state.n_skipped);
            Some(histogram)
        })
        .collect();
    Histogram::encode(&histograms)
}

pub(super) fn heap_size(state: &Counts) -> usize {
    state.histogram.as_ref().map_or(0, |histogram| size_of_val(histogram.counts()))
}

/// A state of one histogram, as `coef_hist_merge` starts from.
impl From<Histogram> for Counts {
    fn from(histogram: Histogram) -> Self {
        Counts { histogram: Some(histogram), n_skipped: 0 }
    }
}
