//! From SQL to a [`View`]: plan, check, split at the aggregate, lower.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::{MemorySchemaProvider, SchemaProvider};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError, Result, TableReference, internal_err};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::SessionState;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::{
    Aggregate, Expr, ExprSchemable, GroupingSet, LogicalPlan, LogicalPlanBuilder, cast, lit,
};
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Optimizer, OptimizerRule, extract_equijoin_predicate::ExtractEquijoinPredicate};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use futures::executor::block_on;
use schemas::column::{OFFSET, PARTITION};
use schemas::limits::MICRO_BATCH_ROWS;
use schemas::{Code, LatePolicy, Problem};

use super::as_of;
use super::branch::merge_hash;
use super::feed::{bind_to_feed, feed_table, readable_schema};
use super::finality::{self, Finality};
use super::grouping::distinct_as_groups;
use super::hidden::{LATE_ROW, hidden};
use super::parsed::{Parsed, parse};
use super::rows::{ORDINAL, is_of_rows};
use super::windowed::{Keys, LAST_EVENT};
use super::{CELLS, CellPlan, Dimension, RowsOfRecord, View, ViewSource, refuse};
use crate::aggregates::{Lowered, lower as lower_call, within_cap};
use crate::lateral::without_lateral;
use crate::windows::{TIME_ZONE_DATA, WindowPlanner, Windows};
use crate::{error, evidence, session};

/// Grows when the meaning of states changes in a way that no other part of the hash shows.
const STATE_VERSION: u32 = 1;

pub(super) fn compile(source: &ViewSource<'_>) -> Result<View, Problem> {
    let to_problem = |e: DataFusionError| error::problem(&e, source.sql, source.position);
    let planner = planning_state(source).map_err(to_problem)?;
    let logical = block_on(as_of::plan(&planner, source.sql, source.tables)).map_err(to_problem)?;
    check_statement(&logical)?;
    check_policy(source)?;
    let logical = without_lateral(logical).and_then(distinct_as_groups).map_err(to_problem)?;
    refuse::check(&logical, &source.stream.name)
        .map_err(|refusal| error::at_construct(refusal.problem, &refusal.constructs, source.sql, source.position))?;
    let analyzed =
        planner.analyzer().execute_and_check(logical, planner.config_options(), |_, _| {}).map_err(to_problem)?;
    build(source, planner, &analyzed).map_err(to_problem)
}

fn check_policy(source: &ViewSource<'_>) -> Result<(), Problem> {
    if source.stream.time_column.is_some() || !matches!(source.late, LatePolicy::Side | LatePolicy::Only) {
        return Ok(());
    }
    let (policy, stream) = (source.late.as_str(), &source.stream.name);
    let detail = format!("late = '{policy}': stream {stream} has no watermark: nothing says which events are late");
    Err(Problem::new(Code::InvalidSql, detail)
        .with_hint("declare it with WATERMARK FOR event_time AS event_time - INTERVAL '15 minutes'"))
}

fn check_statement(plan: &LogicalPlan) -> Result<(), Problem> {
    let names: Vec<&String> = plan.schema().fields().iter().map(|field| field.name()).collect();
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            return Err(Problem::new(Code::InvalidSql, format!("two columns of the view are called {name}"))
                .with_hint("give one of them another name with AS"));
        }
    }
    match plan {
        LogicalPlan::Ddl(_) | LogicalPlan::Dml(_) | LogicalPlan::Statement(_) | LogicalPlan::Copy(_) => {
            Err(Problem::new(Code::InvalidSql, "a view is made from a SELECT"))
        }
        _ => Ok(()),
    }
}

pub(super) fn planning_state(source: &ViewSource<'_>) -> Result<SessionState> {
    let mut config = session::config().with_target_partitions(1).with_batch_size(MICRO_BATCH_ROWS);
    config.options_mut().optimizer.repartition_joins = false;
    let mut state = session::state(config, Arc::new(RuntimeEnv::default()));
    let schema = MemorySchemaProvider::new();
    let stream = feed_table(readable_schema(source.stream), vec![])?;
    schema.register_table(source.stream.name.clone(), Arc::clone(&stream))?;
    state.register_relation_planner(Arc::new(WindowPlanner::for_view(vec![(source.stream.name.clone(), stream)])))?;
    for table in source.tables {
        let Some(first) = table.rows.first() else { continue };
        let rows = MemTable::try_new(first.schema(), vec![table.rows.clone()])?;
        schema.register_table(table.name.clone(), Arc::new(rows))?;
    }
    let Some(catalog) = state.catalog_list().catalog("bifold") else {
        return internal_err!("the default catalog is missing");
    };
    catalog.register_schema("public", Arc::new(schema))?;
    Ok(state)
}

fn build(source: &ViewSource<'_>, planner: SessionState, analyzed: &LogicalPlan) -> Result<View> {
    let is_of_rows = is_of_rows(analyzed);
    let Parsed { plan: analyzed, aggregate: original, input, keys, split } = parse(source, analyzed)?;
    // a new version of a table changes the rows of windows that are closed
    let finality = if split.is_some() { None } else { Finality::of(&original, &keys, source)? };
    let (core, calls) = add_evidence(&original, input, &keys)?;
    let rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![
        Arc::new(SimplifyExpressions::new()),
        Arc::new(ExtractEquijoinPredicate::new()),
        Arc::new(PushDownFilter::new()),
        Arc::new(OptimizeProjections::new()),
    ];
    let optimized = Optimizer::with_rules(rules).optimize(core, &planner, |_, _| {})?;
    let LogicalPlan::Aggregate(aggregate) = &optimized else {
        return internal_err!("the optimizer replaced the aggregate by {}", optimized.display());
    };
    refuse::check_joins(&aggregate.input)?;
    let (input_columns, feed_schema, program) = bind_to_feed(aggregate.input.as_ref(), source)?;
    let bound =
        Aggregate::try_new(Arc::new(program.clone()), aggregate.group_expr.clone(), aggregate.aggr_expr.clone())?;
    let cells = CellPlan { is_of_rows, ..lower(&bound, &planner, keys.windows.clone())? };
    let dimension = split.map(|split| split.dimension(&cells)).transpose()?;
    let finish = match &dimension {
        Some(dimension) => {
            let own_keys = Keys::of(&original)?;
            finish(&analyzed, &original, (&dimension.answered, &own_keys), (&calls, &planner))?
        }
        None => finish(&analyzed, &original, (&cells, &keys), (&calls, &planner))?,
    };
    let semantic_hash = semantic_hash(source, &optimized, (&cells, dimension.as_ref()), &finish);
    let rows_of_record = if program.exists(|node| Ok(matches!(node, LogicalPlan::Unnest(_))))? {
        RowsOfRecord::Items
    } else if program.exists(|node| Ok(matches!(node, LogicalPlan::Join(_))))? {
        RowsOfRecord::Several
    } else {
        RowsOfRecord::One
    };
    Ok(View {
        merge_hash: merge_hash(&cells, &finish),
        semantic_hash,
        late: source.late,
        input_columns,
        feed_schema,
        program,
        rows_of_record,
        planner,
        cells,
        dimension,
        finality: finality.filter(|_| finality::reaches_the_top(&finish)),
        finish,
        is_global: original.group_expr.is_empty(),
        beyond_plain_sql: calls.iter().any(|call| call.beyond_plain_sql),
    })
}

/// The aggregate with canonical keys, over an input with the hidden columns, and the evidence first, then
/// the user's calls as a view keeps them.
fn add_evidence(aggregate: &Aggregate, input: LogicalPlan, keys: &Keys) -> Result<(LogicalPlan, Vec<Lowered>)> {
    let (Some(partition), Some(offset), Some(late)) =
        (hidden(&input, PARTITION), hidden(&input, OFFSET), hidden(&input, LATE_ROW))
    else {
        return internal_err!("a hidden column does not reach the aggregate");
    };
    let mut keys = keys.stored.iter().map(|key| canonical_key(key, &input)).collect::<Result<Vec<_>>>()?;
    if keys.is_empty() {
        keys.push(lit(0_i32));
    }
    let calls = aggregate.aggr_expr.iter().map(|call| lower_call(call, input.schema(), [&partition, &offset]));
    let calls = calls.collect::<Result<Vec<_>>>()?;
    let mut aggregates = vec![evidence::evidence().call(vec![partition, offset, late])];
    for (index, call) in calls.iter().enumerate() {
        // two calls may be kept the same way: `max(x)`, `max(DISTINCT x)`
        let again = aggregates.contains(&call.expression);
        let expression = call.expression.clone();
        aggregates.push(if again { expression.alias(format!("call {index}")) } else { expression });
    }
    Ok((LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), keys, aggregates)?), calls))
}

/// One string type at the fold's boundary, because the two hash differently; floats with one NaN and one zero.
fn canonical_key(key: &Expr, input: &LogicalPlan) -> Result<Expr> {
    // the bounds of a session are the same expression twice, under two names
    if matches!(key, Expr::Alias(alias) if alias.name == LAST_EVENT) {
        return Ok(key.clone());
    }
    let key = key.clone().unalias();
    if let Expr::GroupingSet(sets) = key {
        let canonical = |keys: Vec<Expr>| keys.iter().map(|key| canonical_key(key, input)).collect::<Result<Vec<_>>>();
        return Ok(Expr::GroupingSet(match sets {
            GroupingSet::Rollup(keys) => GroupingSet::Rollup(canonical(keys)?),
            GroupingSet::Cube(keys) => GroupingSet::Cube(canonical(keys)?),
            GroupingSet::GroupingSets(sets) => {
                GroupingSet::GroupingSets(sets.into_iter().map(canonical).collect::<Result<_>>()?)
            }
        }));
    }
    Ok(match key.get_type(input.schema())? {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Dictionary(_, _) => cast(key, DataType::Utf8View),
        DataType::Float32 | DataType::Float64 | DataType::Float16 => crate::canonical::float(key),
        _ => key,
    })
}

/// Lowers the aggregate alone; without physical rules it is always Final over Partial over the input.
fn lower(aggregate: &Aggregate, planner: &SessionState, windows: Option<Windows>) -> Result<CellPlan> {
    let plain = SessionStateBuilder::new_from_existing(planner.clone()).with_physical_optimizer_rules(vec![]).build();
    let plan = LogicalPlan::Aggregate(aggregate.clone());
    let physical = block_on(plain.query_planner().create_physical_plan(&plan, &plain))?;
    let mut node = &physical;
    let partial = loop {
        match node.downcast_ref::<AggregateExec>() {
            Some(exec) if *exec.mode() == AggregateMode::Partial => break exec,
            Some(exec) => node = exec.input(),
            None => return internal_err!("the aggregate was lowered to {}", node.name()),
        }
    };
    let row_schema = partial.input_schema();
    let keys = partial.group_expr().num_group_exprs();
    let answer = physical.schema();
    let rename = |schema: &Schema, state: bool| -> SchemaRef {
        let fields = schema.fields().iter().enumerate();
        Arc::new(Schema::new(fields.map(|(i, f)| column(i, f, keys, state)).collect::<Vec<_>>()))
    };
    Ok(CellPlan {
        offset_column: row_schema.index_of(OFFSET)?,
        late_column: row_schema.index_of(LATE_ROW).ok(),
        ordinal_column: row_schema.index_of(ORDINAL).ok(),
        is_of_rows: false,
        state_schema: rename(&partial.schema(), true),
        answer_schema: rename(&answer, false),
        group_by: Arc::new(partial.group_expr().clone()),
        aggregates: partial.aggr_expr().to_vec(),
        filters: partial.filter_expr().to_vec(),
        row_schema,
        keys,
        windows,
    })
}

/// Unique positional names: natural state names repeat and contain punctuation.
fn column(index: usize, field: &Field, keys: usize, state: bool) -> Field {
    let hidden = if state { evidence::COLUMNS.len() } else { 1 };
    let name = if index < keys {
        format!("g{index}")
    } else if index < keys + hidden {
        evidence::COLUMNS[index - keys].to_owned()
    } else {
        format!("{}{}", if state { 's' } else { 'a' }, index - keys - hidden)
    };
    Field::new(name, field.data_type().clone(), true)
}

/// Everything above the aggregate, reading the answered cells. Simplified, because look-ups evaluate its
/// expressions as they are and some functions (`coalesce`) are only a way to write another expression.
fn finish(
    analyzed: &LogicalPlan,
    original: &Aggregate,
    (cells, keys): (&CellPlan, &Keys),
    (calls, planner): (&[Lowered], &SessionState),
) -> Result<LogicalPlan> {
    let empty = MemTable::try_new(Arc::clone(&cells.answer_schema), vec![vec![]])?;
    let scan = LogicalPlanBuilder::scan(CELLS, provider_as_source(Arc::new(empty)), None)?;
    let first_aggregate = cells.keys + 1;
    // with grouping sets, their number is the last key
    let grouped = original.schema.fields().len() - original.aggr_expr.len();
    let column = |cell: usize| {
        Expr::Column(Column::new(Some(TableReference::bare(CELLS)), cells.answer_schema.field(cell).name()))
    };
    let named_keys =
        || (0..grouped).map(|key| (original.schema.field(key).name().clone(), keys.answered(key, column))).collect();
    let answer = |(index, (qualifier, field)): (usize, (Option<&TableReference>, &FieldRef))| -> Result<Expr> {
        let mut answer = match index.checked_sub(grouped) {
            None => keys.answered(index, column),
            Some(call) => column(first_aggregate + call),
        };
        if let Some(words) = index.checked_sub(grouped).and_then(|call| calls.get(call)?.words.clone()) {
            answer = within_cap(answer, words, named_keys());
        }
        if answer.get_type(scan.schema())? != *field.data_type() {
            answer = cast(answer, field.data_type().clone());
        }
        Ok(answer.alias_qualified(qualifier.cloned(), field.name()))
    };
    let columns = original.schema.iter().enumerate().map(answer).collect::<Result<Vec<_>>>()?;
    let answered = scan.clone().project(columns)?.build()?;
    let finish = analyzed.clone().transform_down(|node| match node {
        LogicalPlan::Aggregate(_) => Ok(Transformed::new(answered.clone(), true, TreeNodeRecursion::Jump)),
        other => Ok(Transformed::no(other)),
    })?;
    let simplify = Optimizer::with_rules(vec![Arc::new(SimplifyExpressions::new())]);
    simplify.optimize(finish.data.recompute_schema()?, planner, |_, _| {})
}

/// Covers the optimised plan (the optimizer changes state schemas), the finish, the state's types, the
/// static tables' versions, the late policy and our own version.
fn semantic_hash(
    source: &ViewSource<'_>,
    core: &LogicalPlan,
    (cells, dimension): (&CellPlan, Option<&Dimension>),
    finish: &LogicalPlan,
) -> String {
    use std::fmt::Write as _;
    let mut text = format!("{STATE_VERSION}\n{:?}\n{}\n", source.late, core.display_indent_schema());
    for field in cells.state_schema.fields() {
        let _ = writeln!(text, "{} {}", field.name(), field.data_type());
    }
    for table in source.tables {
        let _ = writeln!(text, "{} {}", table.name, table.identity);
    }
    let delay_us = if source.late == LatePolicy::Include { -1 } else { source.stream.watermark_delay_us };
    let _ = writeln!(text, "{}\n{delay_us}\n{}", source.stream.id, finish.display_indent_schema());
    if let Some(windows) = &cells.windows {
        let _ = writeln!(text, "{windows:?}");
    }
    if let Some(dimension) = dimension {
        let _ = writeln!(text, "{}", dimension.meaning());
    }
    if reads_clocks(core) {
        let _ = writeln!(text, "time zones {TIME_ZONE_DATA}");
    }
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(text.as_bytes()))
}

/// True if what is folded depends on the time-zone data.
fn reads_clocks(core: &LogicalPlan) -> bool {
    let in_zone = |data_type: &DataType| matches!(data_type, DataType::Timestamp(_, Some(zone)) if !matches!(&**zone, "UTC" | "+00:00"));
    let of_expression = |expression: &Expr| match expression {
        Expr::ScalarFunction(call) => call.func.name() == "date_trunc" && call.args.len() == 3,
        Expr::Cast(cast) => in_zone(cast.field.data_type()),
        Expr::TryCast(cast) => in_zone(cast.field.data_type()),
        _ => false,
    };
    core.exists(|node| {
        let mut found = false;
        for expression in node.expressions() {
            found |= expression.exists(|part| Ok(of_expression(part)))?;
        }
        Ok(found)
    })
    .unwrap_or(true)
}
