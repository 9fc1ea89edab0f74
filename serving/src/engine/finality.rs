//! `window_final` in queries: there where it is named and not in `*`, as PostgreSQL's system columns.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Ident, ObjectName, ObjectNamePart, Select, SelectItem, SelectItemQualifiedWildcardKind,
    TableFactor, VisitMut, VisitorMut, WildcardAdditionalOptions,
};
use operators::WINDOW_FINAL;
use schemas::Problem;

use super::Covered;
use super::resolve::locate;
use crate::source::Layer;

/// Whether a query names the column, and which of its tables have it.
#[derive(Debug, Default)]
pub(super) struct Finality {
    is_named: bool,
    views: BTreeSet<String>,
}

impl Finality {
    pub(super) fn of(sql: &str) -> Self {
        Self { is_named: locate(sql, WINDOW_FINAL).is_some(), views: BTreeSet::new() }
    }

    /// True if a view is to have the column. One side of a view alone has not: its cells are parts of windows.
    pub(super) fn is_asked_of(&self, one: &Covered) -> bool {
        self.is_named && one.layer == Layer::Merged && one.view.has_final_windows()
    }

    /// Notes a view that has it.
    pub(super) fn note(&mut self, view: &str) {
        self.views.insert(view.to_owned());
    }

    /// Says which views have the column, if that is what a query got wrong.
    pub(super) fn explain(&self, problem: Problem) -> Problem {
        if !self.is_named || !self.views.is_empty() || !problem.detail.contains(WINDOW_FINAL) {
            return problem;
        }
        problem.with_hint(
            "window_final is of a view that is grouped by windows over its stream's event time and joins no table that \
             may change, and of both sides of it together: not of batch.… or speed.…",
        )
    }

    /// The statement, with each `*` as if the column were not there.
    pub(super) fn without_in_stars(&self, mut statement: Statement) -> Statement {
        if !self.views.is_empty() {
            self.walk(&mut statement);
        }
        statement
    }

    fn walk(&self, statement: &mut Statement) {
        match statement {
            Statement::Statement(statement) => {
                // it never breaks off
                let _ = VisitMut::visit(statement.as_mut(), &mut Stars(&self.views));
            }
            Statement::Explain(explain) => self.walk(&mut explain.statement),
            _ => {}
        }
    }
}

struct Stars<'a>(&'a BTreeSet<String>);

impl VisitorMut for Stars<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let relations = || {
            select
                .from
                .iter()
                .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)))
        };
        let names: Vec<String> = relations().filter_map(|relation| self.name_of(relation)).collect();
        for item in &mut select.projection {
            match item {
                SelectItem::Wildcard(options) if !names.is_empty() => leave_out(options),
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(of), options)
                    if last_name(of).is_some_and(|name| names.contains(&name)) =>
                {
                    leave_out(options);
                }
                _ => {}
            }
        }
        ControlFlow::Continue(())
    }
}

impl Stars<'_> {
    /// What a relation is called in its query, if it is a view that has the column.
    fn name_of(&self, relation: &TableFactor) -> Option<String> {
        let TableFactor::Table { name, alias, args: None, .. } = relation else { return None };
        let view = last_name(name).filter(|view| self.0.contains(view))?;
        Some(alias.as_ref().map_or(view, |alias| folded(&alias.name)))
    }
}

/// As PostgreSQL reads a name.
fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

fn last_name(name: &ObjectName) -> Option<String> {
    name.0.last().and_then(ObjectNamePart::as_ident).map(folded)
}

fn leave_out(options: &mut WildcardAdditionalOptions) {
    if options.opt_exclude.is_none() && options.opt_except.is_none() {
        let name = ObjectName::from(vec![Ident::new(WINDOW_FINAL)]);
        options.opt_exclude = Some(ExcludeSelectItem::Single(name));
    }
}
