//! Scalar subqueries run once, before the query around them is planned.
//!
//! DataFusion inlines a CTE at each use: `(SELECT fit FROM pca)` in three places would fit three times. Here every
//! *distinct* uncorrelated scalar subquery runs once and its value goes into the plan as a literal; functions then
//! see a scalar, never a column of repeated structs. Two subqueries that differ may still share most of their
//! work (`fit` and `fit['explained_variance_ratio']` of one CTE), so within them every aggregate without GROUP BY,
//! which is one row, is shared in the same way.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchemaRef, Result, ScalarValue, exec_err};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{EmptyRelation, Expr, LogicalPlan, Projection, lit};
use datafusion::prelude::SessionContext;

/// `plan` with every uncorrelated scalar subquery replaced by its value.
///
/// # Errors
/// What running a subquery gives; a subquery of more than one row.
pub(crate) async fn fold(context: &SessionContext, plan: LogicalPlan) -> Result<LogicalPlan> {
    Folder { context, rows: HashMap::new() }.fold(plan).await
}

struct Folder<'a> {
    context: &'a SessionContext,
    /// The one row of each plan that has run.
    rows: HashMap<Key, Vec<ScalarValue>>,
}

/// What makes two plans the same: the engine compares scans by the table's name only, and all calls of a table function
/// (`generate_series`) have one name, so the tables themselves are compared too.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    plan: LogicalPlan,
    tables: Vec<usize>,
}

impl Key {
    fn new(plan: &LogicalPlan) -> Result<Self> {
        let mut tables = Vec::new();
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                tables.push(Arc::as_ptr(&source_as_provider(&scan.source)?).cast::<()>().addr());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(Key { plan: plan.clone(), tables })
    }
}

/// Values of subqueries: one for all places of a plan, or one for each place of a volatile one.
type Values = HashMap<Key, Vec<ScalarValue>>;

type Pinned<'f, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'f>>;

impl Folder<'_> {
    /// Runs the subqueries of `plan`, innermost first, and puts their values in.
    fn fold(&mut self, plan: LogicalPlan) -> Pinned<'_, LogicalPlan> {
        Box::pin(async move {
            let mut values = Values::new();
            for subquery in scalar_subqueries(&plan)? {
                // `(SELECT random())` has its own value each time that it is written.
                let key = Key::new(&subquery)?;
                if is_volatile(&subquery)? || !values.contains_key(&key) {
                    let value = self.scalar(subquery).await?;
                    values.entry(key).or_default().push(value);
                }
            }
            if values.is_empty() { Ok(plan) } else { substitute(plan, values) }
        })
    }

    /// The value of a scalar subquery.
    async fn scalar(&mut self, subquery: LogicalPlan) -> Result<ScalarValue> {
        let plan = self.fold(subquery).await?;
        let plan = self.share_aggregates(plan).await?;
        let mut row = self.row(plan).await?;
        if row.len() == 1 {
            Ok(row.remove(0))
        } else {
            exec_err!("a scalar subquery must have one column, found {}", row.len())
        }
    }

    /// Replaces each outermost aggregate without GROUP BY by its row.
    async fn share_aggregates(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let mut aggregates = Vec::new();
        plan.apply(|node| {
            if is_single_row(node) && !is_volatile(node)? {
                aggregates.push(node.clone());
                return Ok(TreeNodeRecursion::Jump);
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        let mut rows = HashMap::new();
        for aggregate in aggregates {
            let key = Key::new(&aggregate)?;
            rows.insert(key, self.row(aggregate).await?);
        }
        if rows.is_empty() {
            return Ok(plan);
        }
        let replaced = plan.transform_down(|node| match rows.get(&Key::new(&node)?) {
            Some(row) => Ok(Transformed::new(one_row(row, node.schema())?, true, TreeNodeRecursion::Jump)),
            None => Ok(Transformed::no(node)),
        })?;
        Ok(replaced.data)
    }

    /// The row of a plan that has at most one; NULLs where it has none. Equal plans run once.
    async fn row(&mut self, plan: LogicalPlan) -> Result<Vec<ScalarValue>> {
        let key = Key::new(&plan)?;
        if let Some(row) = self.rows.get(&key) {
            return Ok(row.clone());
        }
        let repeatable = !is_volatile(&plan)?;
        let batches = self.context.execute_logical_plan(plan).await?.collect().await?;
        let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
        let row = match batches.iter().find(|batch| batch.num_rows() > 0) {
            _ if rows > 1 => return exec_err!("a scalar subquery must have at most one row, found {rows}"),
            Some(batch) => {
                batch.columns().iter().map(|column| ScalarValue::try_from_array(column, 0)).collect::<Result<_>>()?
            }
            None => {
                let fields = key.plan.schema().fields().iter();
                fields.map(|field| ScalarValue::try_from(field.data_type())).collect::<Result<Vec<_>>>()?
            }
        };
        if repeatable {
            self.rows.insert(key, row.clone());
        }
        Ok(row)
    }
}

/// The uncorrelated scalar subqueries in the expressions of `plan` and of its other subqueries, as often as they stand there.
fn scalar_subqueries(plan: &LogicalPlan) -> Result<Vec<LogicalPlan>> {
    let mut found = Vec::new();
    plan.apply_with_subqueries(|node| {
        // The working table of a recursive query has no rows outside it.
        if matches!(node, LogicalPlan::RecursiveQuery(_)) {
            return Ok(TreeNodeRecursion::Jump);
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarSubquery(subquery) = expr
                    && subquery.outer_ref_columns.is_empty()
                {
                    found.push(subquery.subquery.as_ref().clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

/// Puts values in the place of subqueries; columns keep their names. From the outside in: a subquery is known by its
/// plan as it was found, before anything inside it was replaced.
fn substitute(plan: LogicalPlan, mut values: Values) -> Result<LogicalPlan> {
    let folded = plan.transform_down_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        let replaced = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let replaced = expr.transform_up(|expr| match &expr {
                Expr::ScalarSubquery(subquery) => Ok(match take(&mut values, &subquery.subquery)? {
                    Some(value) => Transformed::yes(lit(value)),
                    None => Transformed::no(expr),
                }),
                _ => Ok(Transformed::no(expr)),
            })?;
            Ok(replaced.update_data(|expr| name.restore(expr)))
        })?;
        replaced.map_data(LogicalPlan::recompute_schema)
    })?;
    Ok(folded.data)
}

/// The value for one place: the last one stays, for all places that share it.
fn take(values: &mut Values, subquery: &LogicalPlan) -> Result<Option<ScalarValue>> {
    let Some(values) = values.get_mut(&Key::new(subquery)?) else { return Ok(None) };
    Ok(if values.len() > 1 { values.pop() } else { values.first().cloned() })
}

fn is_single_row(node: &LogicalPlan) -> bool {
    matches!(node, LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty())
}

/// A relation of this one row.
fn one_row(row: &[ScalarValue], schema: &DFSchemaRef) -> Result<LogicalPlan> {
    let empty = EmptyRelation { produce_one_row: true, schema: Arc::new(datafusion::common::DFSchema::empty()) };
    let columns = row
        .iter()
        .zip(schema.iter())
        .map(|(value, (qualifier, field))| lit(value.clone()).alias_qualified(qualifier.cloned(), field.name()));
    Ok(LogicalPlan::Projection(Projection::try_new(columns.collect(), Arc::new(LogicalPlan::EmptyRelation(empty)))?))
}

fn is_volatile(plan: &LogicalPlan) -> Result<bool> {
    let mut volatile = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            volatile |= expr.is_volatile();
            Ok(if volatile { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    })?;
    Ok(volatile)
}
