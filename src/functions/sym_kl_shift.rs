//! `sym_kl_shift(label, hist, explained_variance_ratio)`: the shift of every ordered pair of groups.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray, StructArray, new_empty_array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::AccumulatorArgs;

use super::aggregate::Aggregate;
use super::arguments::{failed, number_list, structure};
use super::kl_shift::doubles;
use super::udf::{Described, GroupFunction};
use crate::convert::{ArrowValue, double_lists};
use crate::math::{self, Histogram};
use crate::schema;

/// Returns [`schema::sym_kl_shift`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SymKlShift;

impl Described for SymKlShift {
    const USAGE: &'static str =
        "sym_kl_shift(label, hist STRUCT of coef_hist, explained_variance_ratio LIST of numbers)";
    const SECTION: &'static str = "Histograms and shift";
    const DESCRIPTION: &'static str = "The distribution shift (see kl_shift) between all groups: a list of STRUCT a, b, shift, \
        n_a, n_b, contributions[d], one for every ordered pair of labels, in the order of the labels, (a, a) included. \
        Histograms of one label are added; NULL ones are passed over.";
    const ARGUMENTS: &'static [(&'static str, &'static str)] = &[
        ("label", "The group's name; any type."),
        ("hist", "The group's histogram; all over one range."),
        ("explained_variance_ratio", "That of the fit over all filters; one number per component."),
    ];
    const EXAMPLE: &'static str = "WITH h AS (SELECT task, coef_hist(weights, -1, 1) AS hist FROM filters GROUP BY task) \
        SELECT unnest(sym_kl_shift(task, hist, [1, 1, 1, 1, 1, 1, 1, 1, 1])) FROM h";

    fn coerce(&self, found: &[DataType]) -> Option<Vec<DataType>> {
        let [label, hist, ratio] = found else { return None };
        number_list(ratio)?;
        let label = match label {
            DataType::Dictionary(_, value) => value.as_ref().clone(),
            other => other.clone(),
        };
        Some(vec![label, structure(hist, schema::coef_hist())?, schema::doubles()])
    }
}

impl GroupFunction for SymKlShift {
    type Aggregate = Pairs;

    fn return_type(&self, arguments: &[DataType]) -> DataType {
        schema::sym_kl_shift(&arguments[0])
    }

    fn state_type(&self, arguments: &[FieldRef]) -> DataType {
        DataType::Struct(state_fields(arguments[0].data_type()))
    }

    fn aggregate(&self, arguments: &AccumulatorArgs) -> Result<Pairs> {
        Ok(Pairs { label: arguments.expr_fields[0].data_type().clone() })
    }
}

/// Gathers the groups' histograms; pairs them in the end.
#[derive(Debug)]
pub(crate) struct Pairs {
    /// Type of the labels.
    label: DataType,
}

/// The groups so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Groups {
    groups: Vec<(ScalarValue, Histogram)>,
    ratio: Option<Vec<f64>>,
}

impl Groups {
    fn add(&mut self, label: ScalarValue, histogram: Histogram) -> Result<()> {
        match self.groups.iter_mut().find(|(known, _)| *known == label) {
            Some((_, known)) => known.merge(&histogram).map_err(failed("sym_kl_shift")),
            None => {
                self.groups.push((label, histogram));
                Ok(())
            }
        }
    }

    fn set_ratio(&mut self, ratio: Vec<f64>) -> Result<()> {
        match &self.ratio {
            Some(known) if *known != ratio => {
                exec_err!(
                    "sym_kl_shift: expected one explained_variance_ratio for all rows, found {known:?} and {ratio:?}"
                )
            }
            _ => {
                self.ratio = Some(ratio);
                Ok(())
            }
        }
    }
}

impl Aggregate for Pairs {
    type State = Groups;

    fn update(&self, state: &mut Groups, arguments: &[ArrayRef]) -> Result<()> {
        for row in 0..arguments[0].len() {
            if let Some(ratio) = doubles(&arguments[2], row)? {
                state.set_ratio(ratio)?;
            }
            if let Some(histogram) = Histogram::decode(&arguments[1], row)? {
                state.add(ScalarValue::try_from_array(&arguments[0], row)?, histogram)?;
            }
        }
        Ok(())
    }

    fn merge(&self, state: &mut Groups, other: Groups) -> Result<()> {
        if let Some(ratio) = other.ratio {
            state.set_ratio(ratio)?;
        }
        other.groups.into_iter().try_for_each(|(label, histogram)| state.add(label, histogram))
    }

    fn encode(&self, states: Vec<Groups>) -> Result<ArrayRef> {
        let lengths: Vec<usize> = states.iter().map(|state| state.groups.len()).collect();
        let ratios: Vec<Vec<f64>> = states.iter().map(|state| state.ratio.clone().unwrap_or_default()).collect();
        let (labels, histograms): (Vec<_>, Vec<_>) = states.into_iter().flat_map(|state| state.groups).unzip();
        let histograms: Vec<Option<Histogram>> = histograms.into_iter().map(Some).collect();
        let columns = vec![
            lists(&lengths, self.labels(labels)?)?,
            lists(&lengths, Histogram::encode(&histograms)?)?,
            double_lists(ratios.iter().map(Vec::as_slice)),
        ];
        Ok(Arc::new(StructArray::try_new(state_fields(&self.label), columns, None)?))
    }

    fn decode(&self, column: &ArrayRef, row: usize) -> Result<Groups> {
        let Some(state) = column.as_struct_opt().filter(|state| state.fields() == &state_fields(&self.label)) else {
            return exec_err!("expected groups as the state of sym_kl_shift, found {}", column.data_type());
        };
        let (labels, histograms) =
            (state.column(0).as_list::<i32>().value(row), state.column(1).as_list::<i32>().value(row));
        let mut groups = Groups::default();
        if let Some(ratio) = doubles(state.column(2), row)?.filter(|ratio| !ratio.is_empty()) {
            groups.set_ratio(ratio)?;
        }
        for i in 0..labels.len().min(histograms.len()) {
            if let Some(histogram) = Histogram::decode(&histograms, i)? {
                groups.add(ScalarValue::try_from_array(&labels, i)?, histogram)?;
            }
        }
        Ok(groups)
    }

    fn evaluate(&self, states: Vec<Groups>) -> Result<ArrayRef> {
        let mut lengths = Vec::with_capacity(states.len());
        let mut pairs = PairColumns::default();
        for mut state in states {
            state.groups.sort_by(|(a, _), (b, _)| a.partial_cmp(b).unwrap_or(Ordering::Equal));
            lengths.push(state.groups.len() * state.groups.len());
            pairs.extend(&state)?;
        }
        let DataType::List(item) = schema::sym_kl_shift(&self.label) else { return exec_err!("no list type") };
        let DataType::Struct(fields) = item.data_type() else { return exec_err!("no struct type") };
        let columns = vec![
            self.labels(pairs.a)?,
            self.labels(pairs.b)?,
            Arc::new(Float64Array::from(pairs.shift)),
            Arc::new(Int64Array::from(pairs.n_a)),
            Arc::new(Int64Array::from(pairs.n_b)),
            double_lists(pairs.contributions.iter().map(Vec::as_slice)),
        ];
        lists(&lengths, Arc::new(StructArray::try_new(fields.clone(), columns, None)?))
    }

    fn heap_size(&self, state: &Groups) -> usize {
        state.groups.iter().map(|(label, histogram)| label.size() + size_of_val(histogram.counts())).sum()
    }
}

impl Pairs {
    fn labels(&self, labels: Vec<ScalarValue>) -> Result<ArrayRef> {
        if labels.is_empty() { Ok(new_empty_array(&self.label)) } else { ScalarValue::iter_to_array(labels) }
    }
}

/// The result's columns, all groups one after the other.
#[derive(Default)]
struct PairColumns {
    a: Vec<ScalarValue>,
    b: Vec<ScalarValue>,
    shift: Vec<Option<f64>>,
    n_a: Vec<i64>,
    n_b: Vec<i64>,
    contributions: Vec<Vec<f64>>,
}

impl PairColumns {
    fn extend(&mut self, state: &Groups) -> Result<()> {
        let histograms: Vec<&Histogram> = state.groups.iter().map(|(_, histogram)| histogram).collect();
        let ratio = state.ratio.as_deref().unwrap_or_default();
        if state.ratio.is_none() && !histograms.is_empty() {
            return exec_err!("sym_kl_shift: expected an explained_variance_ratio, found NULL");
        }
        let pairs = math::all_pairs(&histograms, ratio).map_err(failed("sym_kl_shift"))?;
        for (a, (label_a, hist_a)) in state.groups.iter().enumerate() {
            for (b, (label_b, hist_b)) in state.groups.iter().enumerate() {
                let (shift, contributions) = pairs.get(a, b).unzip();
                self.a.push(label_a.clone());
                self.b.push(label_b.clone());
                self.shift.push(shift);
                self.n_a.push(hist_a.n() as i64);
                self.n_b.push(hist_b.n() as i64);
                self.contributions.push(contributions.unwrap_or_default().to_vec());
            }
        }
        Ok(())
    }
}

fn state_fields(label: &DataType) -> Fields {
    Fields::from(vec![
        Field::new("labels", schema::list(label.clone()), false),
        Field::new("hists", schema::list(schema::coef_hist()), false),
        Field::new("explained_variance_ratio", schema::doubles(), false),
    ])
}

/// `items` cut into lists of these lengths.
fn lists(lengths: &[usize], items: ArrayRef) -> Result<ArrayRef> {
    let field = Arc::new(Field::new_list_field(items.data_type().clone(), true));
    Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::from_lengths(lengths.iter().copied()), items, None)?))
}
