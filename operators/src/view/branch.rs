//! Views whose states are added up: the parts of a view over `UNION ALL`, each of one branch (ADR 0019).
//!
//! A part is a view as any other: the `SELECT` over its branch alone. Parts that merge and answer by the same
//! aggregates have states of one meaning, and the answer of the union is the answer of all of their states together.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;
use futures::executor::block_on;
use schemas::column::is_reserved;
use schemas::{Code, Problem};

use super::as_of;
use super::compile::planning_state;
use super::feed::readable_schema;
use super::refuse::reads_stream;
use super::written::written;
use super::{CellPlan, View, ViewSource};
use crate::error;
use crate::windows::Windows;

/// A column that a branch gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchColumn {
    /// Its name in the branch.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
}

impl BranchColumn {
    /// True for a text: texts of all types are one type in SQL.
    pub fn is_text(&self) -> bool {
        matches!(self.data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
    }
}

/// The columns of a branch of `UNION ALL`, without the platform's own; `source.sql` is the branch alone.
///
/// # Errors
/// What is wrong with its SQL; `invalid_sql` for a branch that does not read the stream, or that has a column of the
/// platform's written out; `not_mergeable` for a branch that is more than rows of a stream: what is done to all of its
/// rows together would be done to those of the other branches, too.
pub fn branch_columns(source: &ViewSource<'_>) -> Result<Vec<BranchColumn>, Problem> {
    let to_problem = |e| error::problem(&e, source.sql, source.position);
    let planner = planning_state(source).map_err(to_problem)?;
    let readable = readable_schema(source.stream);
    let is_own = |name: &str| is_reserved(name) && readable.index_of(name).is_ok();
    let (syntax, _) = as_of::read(&planner, source.sql).map_err(to_problem)?;
    if let Some((name, at)) = written(&syntax, &is_own) {
        return Err(own_column(&name).at(source.sql, error::moved(at, source.position)));
    }
    let plan = block_on(as_of::plan(&planner, source.sql, source.tables)).map_err(to_problem)?;
    if let Some((what, constructs)) = whole_at_once(&plan) {
        let detail =
            format!("{what} in a branch of UNION ALL is over that branch alone, and a view has it over all of them");
        let problem = Problem::new(Code::NotMergeable, detail).with_hint(
            "aggregate, sort and limit around the UNION ALL; or make a view of each branch and UNION ALL them in the query",
        );
        let constructs: Vec<String> = constructs.iter().map(|construct| (*construct).to_owned()).collect();
        return Err(error::at_construct(problem, &constructs, source.sql, source.position));
    }
    if !reads_stream(&plan, &source.stream.name) {
        // a name of a stream in it may be a column's
        let detail = format!("a branch of UNION ALL does not read the stream {}", source.stream.name);
        return Err(Problem::new(Code::InvalidSql, detail)
            .with_hint("a table is joined with the stream in a branch, or in the query"));
    }
    // what is left of them comes with a `*`
    let columns = plan.schema().fields().iter().filter(|field| !is_own(field.name()));
    let column = |field: &arrow::datatypes::FieldRef| BranchColumn {
        name: field.name().clone(),
        data_type: field.data_type().clone(),
    };
    Ok(columns.map(column).collect())
}

/// Why a branch has no column under a name of the platform's: with `*` such a column is left out.
fn own_column(name: &str) -> Problem {
    let detail = format!("column {name} in a branch of UNION ALL: the name is the platform's");
    Problem::new(Code::InvalidSql, detail).with_hint(format!("give it another name with AS: {name} AS record{name}"))
}

/// The first node that needs all rows of a plan, in words, and how it is written.
fn whole_at_once(plan: &LogicalPlan) -> Option<(&'static str, &'static [&'static str])> {
    let mut found = None;
    let walked = plan.apply(|node| {
        found = match node {
            LogicalPlan::Aggregate(_) => Some(("an aggregate", &["GROUP BY", "HAVING", "SELECT"][..])),
            LogicalPlan::Distinct(_) => Some(("DISTINCT", &["DISTINCT"][..])),
            LogicalPlan::Sort(_) => Some(("ORDER BY", &["ORDER BY"][..])),
            LogicalPlan::Limit(_) => Some(("LIMIT", &["LIMIT", "OFFSET", "FETCH"][..])),
            LogicalPlan::Window(_) => Some(("a window function", &["OVER"][..])),
            _ => None,
        };
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walked.ok().and(found)
}

/// Covers what merges and answers states: their types, the aggregates with what they were made with, the windows that
/// cells make up, and the finish. What the states are folded from is not in it.
pub(super) fn merge_hash(cells: &CellPlan, finish: &LogicalPlan) -> String {
    use std::fmt::Write as _;
    let mut text = format!("{} {} {:?}\n", cells.keys, cells.is_of_rows, cells.windows);
    for field in cells.state_schema.fields().iter().chain(cells.answer_schema.fields()) {
        let _ = writeln!(text, "{} {}", field.name(), field.data_type());
    }
    for aggregate in &cells.aggregates {
        let _ = writeln!(text, "{:?}", aggregate.fun());
    }
    let _ = writeln!(text, "{}", finish.display_indent());
    for field in finish.schema().fields() {
        let _ = writeln!(text, "{} {}", field.name(), field.data_type());
    }
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(text.as_bytes()))
}

impl View {
    /// True if the states of another view can be merged with those of this one, and all of them be answered by
    /// either: both aggregate the same way, whatever their rows are.
    pub fn merges_with(&self, other: &Self) -> bool {
        self.merge_hash == other.merge_hash
    }

    /// Why this view cannot be a part of a union, if there is a reason.
    pub fn unfit_for_union(&self) -> Option<Problem> {
        let problem = if matches!(self.cells.windows, Some(Windows::Sessions { .. })) {
            Problem::new(
                Code::Unsupported,
                "SESSION in a view over UNION ALL: sessions of one branch would be joined with those of the others",
            )
            .with_hint("make a view of each branch, and UNION ALL them in the query")
        } else if let Some(table) = self.dimension_table() {
            let detail =
                format!("table {table} is joined when the view is read, which a view over UNION ALL cannot do");
            Problem::new(Code::Unsupported, detail)
                .with_hint(format!("create it WITH (join = 'pinned'), or join {table} in the query over the view"))
        } else {
            return None;
        };
        Some(problem)
    }
}
