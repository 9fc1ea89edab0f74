//! Which columns of a query are written out in it: in its own select list, or in one that a `*` of it stands for.

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Cte, Expr, Ident, Query, Select, SelectItem, SetExpr, Statement as Ast, TableAlias, TableFactor, TableWithJoins,
};
use schemas::problem::SqlPosition;

use super::as_of::{folded, is_star};

/// The first column of a query that is written out and has one of the names that are looked for, and where it stands.
pub(super) fn written(statement: &Statement, is_wanted: &dyn Fn(&str) -> bool) -> Option<(String, SqlPosition)> {
    let Statement::Statement(ast) = statement else { return None };
    let Ast::Query(query) = ast.as_ref() else { return None };
    let found = Search { is_wanted }.query(query, &[])?;
    let start = found.span.start;
    Some((folded(found), SqlPosition { line: start.line, column: start.column }))
}

struct Search<'s> {
    is_wanted: &'s dyn Fn(&str) -> bool,
}

impl Search<'_> {
    /// `before` are the queries that have names where this one stands.
    fn query<'a>(&self, query: &'a Query, before: &[&'a Cte]) -> Option<&'a Ident> {
        let own = query.with.iter().flat_map(|with| &with.cte_tables);
        let named: Vec<&Cte> = before.iter().copied().chain(own).collect();
        self.body(&query.body, &named)
    }

    fn body<'a>(&self, body: &'a SetExpr, named: &[&'a Cte]) -> Option<&'a Ident> {
        match body {
            SetExpr::Select(select) => self.select(select, named),
            SetExpr::Query(query) => self.query(query, named),
            SetExpr::SetOperation { left, right, .. } => self.body(left, named).or_else(|| self.body(right, named)),
            _ => None,
        }
    }

    fn select<'a>(&self, select: &'a Select, named: &[&'a Cte]) -> Option<&'a Ident> {
        let mut names = select.projection.iter().filter_map(name_of);
        let own = names.find(|name| (self.is_wanted)(&folded(name)));
        if own.is_some() || !select.projection.iter().any(is_star) {
            return own;
        }
        select.from.iter().find_map(|from| self.joins(from, named))
    }

    fn joins<'a>(&self, from: &'a TableWithJoins, named: &[&'a Cte]) -> Option<&'a Ident> {
        let joined = from.joins.iter().map(|join| &join.relation);
        std::iter::once(&from.relation).chain(joined).find_map(|relation| self.relation(relation, named))
    }

    fn relation<'a>(&self, relation: &'a TableFactor, named: &[&'a Cte]) -> Option<&'a Ident> {
        match relation {
            TableFactor::Derived { subquery, alias, .. } if !renames(alias.as_ref()) => self.query(subquery, named),
            TableFactor::NestedJoin { table_with_joins, .. } => self.joins(table_with_joins, named),
            TableFactor::Table { name, alias, .. } if !renames(alias.as_ref()) => {
                let [part] = name.0.as_slice() else { return None };
                let table = folded(part.as_ident()?);
                let at = named.iter().rposition(|cte| folded(&cte.alias.name) == table)?;
                // it sees those before it, and never itself
                let (before, cte) = (&named[..at], named[at]);
                if renames(Some(&cte.alias)) { None } else { self.query(&cte.query, before) }
            }
            _ => None,
        }
    }
}

/// True where the columns get other names: `AS t (a, b)`.
fn renames(alias: Option<&TableAlias>) -> bool {
    alias.is_some_and(|alias| !alias.columns.is_empty())
}

/// The name that an item of a select list has been given, or that of the column that it is.
fn name_of(item: &SelectItem) -> Option<&Ident> {
    match item {
        SelectItem::UnnamedExpr(expression) => column_of(expression),
        SelectItem::ExprWithAlias { alias, .. } => Some(alias),
        _ => None,
    }
}

fn column_of(expression: &Expr) -> Option<&Ident> {
    match expression {
        Expr::Identifier(name) => Some(name),
        Expr::CompoundIdentifier(parts) => parts.last(),
        Expr::Nested(inner) => column_of(inner),
        _ => None,
    }
}
