//! Plans the table functions of windows: a relation with the columns `window_start` and `window_end`.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::{Column, DFSchema, DataFusionError, Result, TableReference, plan_err};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, cast, lit};
use schemas::column::{OFFSET, timestamp_type};
use schemas::{Code, Problem};
use sqlparser::ast::{self, TableFactor, TableSampleKind};

use super::arguments::{self, Call};
use super::function::{Bound, Part, tumble_function, window_call};
use super::rows;
use super::spec::WindowSpec;

/// The column that a window starts with.
pub(crate) const WINDOW_START: &str = "window_start";
/// The column that a window ends with.
pub(crate) const WINDOW_END: &str = "window_end";

/// What a row of a window's relation is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Mode {
    /// A record in a window: one that lies in several windows is several rows.
    #[default]
    Rows,
    /// A record: what the fold of a view stores it under, from which its windows are made after ⊕.
    Cells,
}

/// Plans `TUMBLE`, `HOP`, `CUMULATE` and `SESSION`.
///
/// DataFusion looks up the tables of a statement before it plans it and does not look into the
/// arguments of a function: the planner has to know them itself.
#[derive(Debug, Default)]
pub struct WindowPlanner {
    tables: Vec<(String, Arc<dyn TableProvider>)>,
    mode: Mode,
}

impl WindowPlanner {
    /// A planner that knows tables by name. A record that lies in several windows becomes several rows.
    pub fn over(tables: Vec<(String, Arc<dyn TableProvider>)>) -> Self {
        Self { tables, mode: Mode::Rows }
    }

    /// The same for the fold of a view: a record stays one row.
    pub(crate) fn for_view(tables: Vec<(String, Arc<dyn TableProvider>)>) -> Self {
        Self { tables, mode: Mode::Cells }
    }

    /// The relation that windows are over.
    fn input(&self, call: &Call, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let name = match &call.table {
            ast::Expr::Identifier(name) => vec![name.clone()],
            ast::Expr::CompoundIdentifier(names) => names.clone(),
            ast::Expr::Subquery(query) => return context.plan(derived(query)),
            other => {
                let function = call.function.name();
                return plan_err!("{function}: the first argument must be the name of a stream, found {other}");
            }
        };
        match self.scan(&name)? {
            Some(scan) => Ok(scan),
            None => context.plan(named(name)),
        }
    }

    /// A scan of a table that is known; none for another one, or for more than a name.
    fn scan(&self, name: &[ast::Ident]) -> Result<Option<LogicalPlan>> {
        let [name] = name else { return Ok(None) };
        let name = if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() };
        let Some((_, table)) = self.tables.iter().find(|(known, _)| *known == name) else { return Ok(None) };
        let scan = LogicalPlanBuilder::scan(TableReference::bare(name), provider_as_source(Arc::clone(table)), None)?;
        scan.build().map(Some)
    }
}

impl RelationPlanner for WindowPlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        refuse_ignored(&relation)?;
        let Some(call) = arguments::call_of(&relation)? else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let input = self.input(&call, context)?;
        let schema = Arc::clone(input.schema());
        let mut expression = |expression: &ast::Expr| context.sql_to_expr(expression.clone(), &schema);
        let rest = call.rest.iter().map(&mut expression).collect::<Result<Vec<_>>>()?;
        let spec = arguments::spec(call.function, &rest)?;
        if spec.is_counted() && (self.mode == Mode::Rows || !schema.has_column_with_unqualified_name(OFFSET)) {
            return plan_err!(
                "{} counts the records of a stream's log: it stands in a view, over the stream itself; \
                 filter behind it, with WHERE or FILTER",
                call.function.name()
            );
        }
        let mut time = expression(&call.time)?;
        let keys = call.keys.iter().map(&mut expression).collect::<Result<Vec<_>>>()?;
        if keys.iter().any(|key| !matches!(key, Expr::Column(_))) {
            return plan_err!("SESSION: what a session has one value of must be a column");
        }
        if spec.is_shared() && !spec.is_counted() && time.get_type(&schema)? != timestamp_type() {
            time = cast(time, timestamp_type());
        }
        let qualifier = match &call.alias {
            Some(alias) => alias.name.value.clone(),
            None => qualifier(&schema).unwrap_or_else(|| call.function.name().to_lowercase()),
        };
        let plan = match (&spec, self.mode) {
            (WindowSpec::Session { gap_us }, Mode::Rows) => rows::of_sessions(input, &time, &keys, *gap_us)?,
            (_, Mode::Rows) if spec.is_shared() => rows::of_panes(input, &spec, time)?,
            _ => with_bounds(input, &spec, &time, &keys)?,
        };
        let plan = LogicalPlanBuilder::from(plan).alias(qualifier)?.build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
    }
}

/// A record stays one row.
fn with_bounds(input: LogicalPlan, spec: &WindowSpec, time: &Expr, keys: &[Expr]) -> Result<LogicalPlan> {
    let mut columns = columns_of(input.schema());
    for (bound, part, name) in [(Bound::Start, Part::Start, WINDOW_START), (Bound::End, Part::End, WINDOW_END)] {
        let call = match spec {
            WindowSpec::Tumble { size_us, offset_us: 0 } => {
                tumble_function(bound).call(vec![time.clone(), lit(*size_us)])
            }
            _ => window_call(spec, part, [std::slice::from_ref(time), keys].concat()),
        };
        columns.push(call.alias(name));
    }
    LogicalPlanBuilder::from(input).project(columns)?.build()
}

/// What the parser reads and DataFusion passes over without a word: the answer would be that to another question.
fn refuse_ignored(relation: &TableFactor) -> Result<()> {
    let (sample, hints, ordinality) = match relation {
        TableFactor::Table { sample, with_hints, with_ordinality, .. } => {
            (sample, with_hints.as_slice(), *with_ordinality)
        }
        TableFactor::Derived { sample, .. } => (sample, &[][..], false),
        _ => return Ok(()),
    };
    let (detail, hint) = if let Some(sample) = sample {
        let (TableSampleKind::BeforeTableAlias(sample) | TableSampleKind::AfterTableAlias(sample)) = sample;
        (
            format!("{}: a sample by chance would be another one in each layer and each query", sample.modifier),
            "write a condition that is the same for the same event: WHERE abs(n) % 100 = 0",
        )
    } else if !hints.is_empty() {
        ("WITH: hints behind a table are not understood".to_owned(), "leave them out")
    } else if ordinality {
        ("WITH ORDINALITY: rows have no numbers".to_owned(), "write row_number() OVER (ORDER BY …) in the query")
    } else {
        return Ok(());
    };
    Err(DataFusionError::External(Box::new(Problem::new(Code::Unsupported, detail).with_hint(hint))))
}

pub(super) fn columns_of(schema: &DFSchema) -> Vec<Expr> {
    schema.iter().map(|(qualifier, field)| Expr::Column(Column::new(qualifier.cloned(), field.name()))).collect()
}

fn qualifier(schema: &DFSchema) -> Option<String> {
    schema.iter().find_map(|(qualifier, _)| qualifier.map(|qualifier| qualifier.table().to_owned()))
}

fn named(name: Vec<ast::Ident>) -> TableFactor {
    TableFactor::Table {
        name: ast::ObjectName::from(name),
        alias: None,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    }
}

fn derived(query: &ast::Query) -> TableFactor {
    TableFactor::Derived { lateral: false, subquery: Box::new(query.clone()), alias: None, sample: None }
}
