//! Which side of the join an expression belongs to.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, JoinType, Result, internal_err};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Join, LogicalPlan, Operator};

use schemas::column::VALID_TO;

use super::{PINNED, stored_column, unsupported};
use crate::view::StaticTable;

/// Whose columns an expression reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Stream,
    Table,
    Both,
}

/// What is compared: stored keys with expressions over the table.
type Equalities = Vec<(usize, Expr)>;

/// A join as stream and table, whatever side they stand on.
pub(super) struct Sides {
    pub(super) stream: Arc<LogicalPlan>,
    pub(super) right: Arc<LogicalPlan>,
    pub(super) join_type: JoinType,
    /// Of a table that is joined as of a time: the column that says from when on its rows are valid.
    pub(super) valid_from: Option<String>,
}

impl Sides {
    pub(super) fn of(join: &Join, table: &StaticTable) -> Result<Self> {
        let is_table = |plan: &LogicalPlan| match plan {
            LogicalPlan::TableScan(scan) => scan.table_name.table() == table.name,
            LogicalPlan::SubqueryAlias(alias) => {
                matches!(alias.input.as_ref(), LogicalPlan::TableScan(scan) if scan.table_name.table() == table.name)
            }
            _ => false,
        };
        let (stream, right, swapped) = match (is_table(&join.left), is_table(&join.right)) {
            (false, true) => (&join.left, &join.right, false),
            (true, false) => (&join.right, &join.left, true),
            _ => {
                let detail = format!(
                    "table {} is joined when the view is read: it must stand in the last join, as it is",
                    table.name
                );
                return Err(unsupported(detail, "join it by its name, behind tables that are pinned"));
            }
        };
        let join_type = match (join.join_type, swapped) {
            (JoinType::Inner, _) => JoinType::Inner,
            (JoinType::Left, false) | (JoinType::Right, true) => JoinType::Left,
            (other, _) => return internal_err!("a {other} join of a stream with a table"),
        };
        let valid_from = table.valid_from.clone();
        Ok(Self { stream: Arc::clone(stream), right: Arc::clone(right), join_type, valid_from })
    }

    pub(super) fn owner(&self, expression: &Expr) -> Owner {
        let is_of = |schema: &DFSchema| expression.column_refs().into_iter().all(|column| schema.has_column(column));
        match (is_of(self.stream.schema()), is_of(self.right.schema())) {
            (true, _) => Owner::Stream,
            (false, true) => Owner::Table,
            (false, false) => Owner::Both,
        }
    }
}

/// The parts of an aggregate, taken apart by side.
pub(super) struct Splitter<'a> {
    pub(super) sides: &'a Sides,
    pub(super) name: &'a str,
    /// What cells are grouped by.
    pub(super) stored: Vec<Expr>,
}

impl Splitter<'_> {
    pub(super) fn mixed(&self, what: &str) -> DataFusionError {
        let detail = format!(
            "{what} computes with columns of the stream and of table {} together: the table is joined after the aggregate",
            self.name
        );
        unsupported(detail, PINNED)
    }

    pub(super) fn check_stream_only(&self, expression: &Expr, what: &str) -> Result<()> {
        if self.sides.owner(expression) == Owner::Stream {
            return Ok(());
        }
        let detail = format!(
            "{what} reads a column of table {}, which is joined after the aggregate: {}",
            self.name,
            expression.human_display()
        );
        Err(unsupported(detail, PINNED))
    }

    /// The stored key that an expression of the stream is.
    fn stored(&mut self, expression: &Expr) -> usize {
        let plain = expression.clone().unalias();
        self.stored.iter().position(|known| *known == plain).unwrap_or_else(|| {
            self.stored.push(plain);
            self.stored.len() - 1
        })
    }

    /// A key of the view over stored keys and the table's columns.
    pub(super) fn key(&mut self, key: &Expr) -> Result<Expr> {
        if matches!(key, Expr::GroupingSet(_)) {
            let detail =
                format!("ROLLUP, CUBE or GROUPING SETS over table {}, which is joined after the aggregate", self.name);
            return Err(unsupported(detail, PINNED));
        }
        match self.sides.owner(key) {
            Owner::Stream => Ok(stored_column(self.stored(key))),
            Owner::Table => Ok(key.clone().unalias()),
            Owner::Both => Err(self.mixed("a key")),
        }
    }

    /// True for what `FOR SYSTEM_TIME AS OF` was written as: a row begins before a time of the stream, or ends after it.
    fn is_as_of(&self, part: &Expr) -> bool {
        let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Lt | Operator::LtEq, right }) = part else {
            return false;
        };
        let is_of_table = |expression: &Expr| {
            let named =
                |column: &&Column| column.name == VALID_TO || Some(&column.name) == self.sides.valid_from.as_ref();
            self.sides.owner(expression) == Owner::Table && expression.column_refs().iter().any(named)
        };
        is_of_table(left) || is_of_table(right)
    }

    /// A condition with stored keys in place of what is the stream's.
    fn over_stored(&mut self, condition: Expr) -> Result<Expr> {
        let sides = self.sides;
        let written = condition.transform_down(|part| {
            if part.column_refs().is_empty() || sides.owner(&part) != Owner::Stream {
                return Ok(Transformed::no(part));
            }
            Ok(Transformed::new(stored_column(self.stored(&part)), true, TreeNodeRecursion::Jump))
        })?;
        Ok(written.data)
    }

    /// The equalities of the join, and its other conditions: on the table alone, or on its rows and a time that is stored.
    pub(super) fn on(&mut self, join: &Join) -> Result<(Equalities, Vec<Expr>)> {
        let (mut on, mut conditions) = (vec![], vec![]);
        let equal = |(a, b): &(Expr, Expr)| {
            Expr::BinaryExpr(BinaryExpr::new(Box::new(a.clone()), Operator::Eq, Box::new(b.clone())))
        };
        let mut parts: Vec<Expr> = join.on.iter().map(equal).collect();
        parts.extend(join.filter.iter().flat_map(split_conjunction).cloned());
        for part in parts {
            if self.sides.owner(&part) == Owner::Table {
                conditions.push(part);
                continue;
            }
            if self.is_as_of(&part) {
                conditions.push(self.over_stored(part)?);
                continue;
            }
            let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = &part else {
                return Err(self.mixed("the condition of the join"));
            };
            match (self.sides.owner(left), self.sides.owner(right)) {
                (Owner::Stream, Owner::Table) => on.push((self.stored(left), right.as_ref().clone())),
                (Owner::Table, Owner::Stream) => on.push((self.stored(right), left.as_ref().clone())),
                _ => return Err(self.mixed("the condition of the join")),
            }
        }
        if on.is_empty() {
            return Err(unsupported(
                format!("table {} is joined without an equality of columns", self.name),
                "join on the equality of columns",
            ));
        }
        Ok((on, conditions))
    }
}
