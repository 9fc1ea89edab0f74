//! `JOIN rates FOR SYSTEM_TIME AS OF s.at ON c` is `JOIN rates ON rates.valid_from <= s.at AND s.at < rates._valid_to AND (c)`:
//! the rows that are valid at a time of the record's own. Nothing but the record and the table's rows decides which these are.

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, Join, JoinConstraint, JoinOperator, Query, Select, SelectItem, SetExpr,
    Statement as Ast, TableFactor, TableWithJoins, Value,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use schemas::column::VALID_TO;
use schemas::problem::SqlPosition;
use schemas::statement::{AsOf, plain_windows, without_as_of};
use schemas::{Code, Problem};

use super::StaticTable;

/// The plan of a view's `SELECT`. The tables of the session have the rows of `tables`.
///
/// # Errors
/// The text is wrong, or a table is joined as of a time where that means nothing.
pub async fn plan(state: &SessionState, sql: &str, tables: &[StaticTable]) -> Result<LogicalPlan> {
    let (mut statement, times) = read(state, sql)?;
    let mut rewrite = Rewrite { tables, times };
    if let Statement::Statement(ast) = &mut statement
        && let Ast::Query(query) = ast.as_mut()
    {
        rewrite.query(query)?;
    }
    if let Some(left) = rewrite.times.first() {
        return Err(refused(
            "it stands behind the name of a table that is joined",
            "write JOIN d FOR SYSTEM_TIME AS OF s.at ON s.k = d.k",
            left,
        ));
    }
    state.statement_to_plan(statement).await
}

/// The syntax of a view's `SELECT`, and the times that stand behind its tables.
pub(super) fn read(state: &SessionState, sql: &str) -> Result<(Statement, Vec<AsOf>)> {
    let (plain, times) = without_as_of(sql);
    let dialect = state.config().options().sql_parser.dialect;
    Ok((state.sql_to_statement(&plain_windows(&plain), &dialect)?, times))
}

fn refused(what: &str, hint: &str, at: &AsOf) -> DataFusionError {
    let mut problem = Problem::new(Code::Unsupported, format!("FOR SYSTEM_TIME AS OF: {what}")).with_hint(hint);
    problem.position = Some(at.position);
    DataFusionError::External(Box::new(problem))
}

/// What is left to be written as a condition.
struct Rewrite<'a> {
    tables: &'a [StaticTable],
    times: Vec<AsOf>,
}

impl Rewrite<'_> {
    fn query(&mut self, query: &mut Query) -> Result<()> {
        for cte in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
            self.query(&mut cte.query)?;
        }
        self.body(&mut query.body)
    }

    fn body(&mut self, body: &mut SetExpr) -> Result<()> {
        match body {
            SetExpr::Select(select) => self.select(select),
            SetExpr::Query(query) => self.query(query),
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left)?;
                self.body(right)
            }
            _ => Ok(()),
        }
    }

    fn select(&mut self, select: &mut Select) -> Result<()> {
        let has_star = select.projection.iter().any(is_star);
        for from in &mut select.from {
            self.joins(from, has_star)?;
        }
        Ok(())
    }

    /// The joins of a `SELECT`; `has_star` says whether all of their columns are selected.
    fn joins(&mut self, from: &mut TableWithJoins, has_star: bool) -> Result<()> {
        self.relation(&mut from.relation, has_star)?;
        for join in &mut from.joins {
            let Some((time, table)) = self.joined(join)? else {
                self.relation(&mut join.relation, has_star)?;
                continue;
            };
            let condition = valid_at(&time, &table)?;
            let Some(JoinConstraint::On(on)) = constraint(&mut join.join_operator) else {
                return Err(refused("the join has no ON", "join on the equality of columns: ON s.k = d.k", &time));
            };
            if has_star {
                return Err(refused("beside it, * would be the table's hidden columns too", "name the columns", &time));
            }
            let written = Expr::Nested(Box::new(std::mem::replace(on, Expr::value(Value::Boolean(true)))));
            *on = both(condition, written);
        }
        Ok(())
    }

    /// A relation that is joined as a whole: with its own joins, or a table that is valid at all times.
    fn relation(&mut self, relation: &mut TableFactor, has_star: bool) -> Result<()> {
        match relation {
            // what it selects is its own
            TableFactor::Derived { subquery, .. } => self.query(subquery),
            TableFactor::NestedJoin { table_with_joins, .. } => self.joins(table_with_joins, has_star),
            TableFactor::Table { name, .. } => {
                let named = name.0.last().and_then(|part| part.as_ident()).map(folded);
                let table = self.tables.iter().find(|table| Some(&table.name) == named.as_ref());
                let Some(table) = table.filter(|table| table.valid_from.is_some()) else { return Ok(()) };
                let name = &table.name;
                let detail = format!("table {name} has rows of many times: nothing says which of them are joined");
                let hint = format!("write JOIN {name} FOR SYSTEM_TIME AS OF s.at ON …, the stream in front of it");
                Err(DataFusionError::External(Box::new(Problem::new(Code::InvalidSql, detail).with_hint(hint))))
            }
            _ => Ok(()),
        }
    }

    /// The time that stands behind a table that is joined, and the table.
    fn joined(&mut self, join: &Join) -> Result<Option<(AsOf, Versioned)>> {
        let TableFactor::Table { name, alias, .. } = &join.relation else { return Ok(None) };
        let Some(named) = name.0.last().and_then(|part| part.as_ident()) else { return Ok(None) };
        let qualifier = alias.as_ref().map_or(named, |alias| &alias.name);
        let stands =
            |ident: &Ident, at: SqlPosition| (ident.span.start.line, ident.span.start.column) == (at.line, at.column);
        let found = self.times.iter().position(|time| stands(named, time.table) || stands(qualifier, time.table));
        let Some(found) = found else { return Ok(None) };
        let time = self.times.remove(found);
        let table = folded(named);
        let Some(valid_from) = self.tables.iter().find(|one| one.name == table).map(|one| one.valid_from.clone())
        else {
            return Err(refused(&format!("{table} is no table"), "a stream is not joined as of a time", &time));
        };
        let Some(valid_from) = valid_from else {
            let what = format!("table {table} does not say from when on its rows are valid");
            let hint = "create it with PRIMARY KEY (k, since) … WITH (valid_from = 'since'), since being a TIMESTAMPTZ";
            return Err(refused(&what, hint, &time));
        };
        Ok(Some((time, Versioned { qualifier: qualifier.clone(), valid_from })))
    }
}

/// True for `*` and `t.*`.
pub(super) fn is_star(item: &SelectItem) -> bool {
    matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
}

/// A name as the planner folds it.
pub(super) fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_ascii_lowercase() }
}

/// A table as the condition names it.
struct Versioned {
    qualifier: Ident,
    valid_from: String,
}

/// `valid_from <= time AND time < _valid_to`
fn valid_at(time: &AsOf, table: &Versioned) -> Result<Expr> {
    let wrong = |what: &str| refused(what, "write a time of the stream: FOR SYSTEM_TIME AS OF s.at", time);
    let parser = Parser::new(&PostgreSqlDialect {}).try_with_sql(&time.time);
    let mut parser = parser.map_err(|_| wrong("the time cannot be read"))?;
    let said = parser.parse_expr().map_err(|_| wrong("the time cannot be read"))?;
    if parser.peek_token().token != Token::EOF {
        return Err(wrong("more than a time stands here; an alias of the table is written with AS"));
    }
    let said = Expr::Nested(Box::new(said));
    let column = |name: &str| Expr::CompoundIdentifier(vec![table.qualifier.clone(), Ident::with_quote('"', name)]);
    let compare = |left: Expr, op: BinaryOperator, right: Expr| Expr::BinaryOp {
        left: Box::new(left),
        op,
        right: Box::new(right),
    };
    let begun = compare(column(&table.valid_from), BinaryOperator::LtEq, said.clone());
    Ok(both(begun, compare(said, BinaryOperator::Lt, column(VALID_TO))))
}

fn both(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::And, right: Box::new(right) }
}

fn constraint(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    use JoinOperator::{FullOuter, Inner, Join, Left, LeftOuter, Right, RightOuter};
    match operator {
        Join(on) | Inner(on) | Left(on) | LeftOuter(on) | Right(on) | RightOuter(on) | FullOuter(on) => Some(on),
        _ => None,
    }
}
