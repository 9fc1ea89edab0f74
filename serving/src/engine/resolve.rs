//! Names in a query → things in the catalogue, with "did you mean" and the place of the name.

use datafusion::common::TableReference;
use schemas::problem::{SqlPosition, did_you_mean};
use schemas::view::TableDef;
use schemas::{Catalog, Code, Problem, StreamDef, ViewDef};

use crate::source::Layer;
use crate::system;

/// A view as a query names it.
#[derive(Debug, Clone)]
pub(crate) struct NamedView {
    /// The name.
    pub(crate) name: String,
    /// The views whose states it has together: itself, or the parts of a union.
    pub(crate) parts: Vec<ViewDef>,
}

impl NamedView {
    /// The view or the union of that name.
    pub(crate) fn of(catalog: &Catalog, name: &str) -> Option<Self> {
        let parts = catalog.parts(name)?.into_iter().cloned().collect();
        Some(Self { name: name.to_owned(), parts })
    }
}

/// What a table reference stands for.
#[derive(Debug, Clone)]
pub(crate) enum Referenced {
    /// A view, or one side of it.
    View(NamedView, Layer),
    /// A static table.
    Table(TableDef),
    /// `recon.<view>`
    Reconciliation(NamedView),
    /// `dlq.<stream>`
    DeadLetters(StreamDef),
    /// `system.<name>`
    System(String),
}

/// The schemas that a query sees.
pub(crate) const SCHEMAS: [&str; 6] = ["public", "batch", "speed", "recon", "dlq", "system"];

/// The schema of a reference: `public` when none is written.
pub(crate) fn schema_of(reference: &TableReference) -> &str {
    reference.schema().unwrap_or("public")
}

/// Looks a name up.
///
/// # Errors
/// `not_found` with a hint and the place of the name in `sql`.
pub(crate) fn resolve(catalog: &Catalog, reference: &TableReference, sql: &str) -> Result<Referenced, Problem> {
    let (schema, name) = (schema_of(reference), reference.table());
    let found = match schema {
        "public" => NamedView::of(catalog, name)
            .map(|view| Referenced::View(view, Layer::Merged))
            .or_else(|| catalog.table(name).map(|table| Referenced::Table(table.clone()))),
        "batch" => NamedView::of(catalog, name).map(|view| Referenced::View(view, Layer::Batch)),
        "speed" => NamedView::of(catalog, name).map(|view| Referenced::View(view, Layer::Speed)),
        "recon" => NamedView::of(catalog, name).map(Referenced::Reconciliation),
        "dlq" => catalog.stream(name).map(|stream| Referenced::DeadLetters(stream.clone())),
        "system" => system::TABLES.contains(&name).then(|| Referenced::System(name.to_owned())),
        _ => None,
    };
    let wrong_catalog = reference.catalog().is_some_and(|catalog| catalog != "bifold");
    match found {
        Some(found) if !wrong_catalog => Ok(found),
        _ => Err(not_found(catalog, reference, sql)),
    }
}

fn not_found(catalog: &Catalog, reference: &TableReference, sql: &str) -> Problem {
    let (schema, name) = (schema_of(reference), reference.table());
    let (what, known): (&str, Vec<&str>) = match schema {
        "public" => {
            let tables = catalog.tables.iter().map(|table| table.name.as_str());
            ("view or table", catalog.view_names().chain(tables).collect())
        }
        "batch" | "speed" | "recon" => ("view", catalog.view_names().collect()),
        "dlq" => ("stream", catalog.streams.iter().map(|stream| stream.name.as_str()).collect()),
        "system" => ("system table", system::TABLES.to_vec()),
        _ => ("schema", SCHEMAS.to_vec()),
    };
    let missing = if what == "schema" { schema } else { name };
    let problem = if schema == "public" && catalog.stream(name).is_some() {
        Problem::new(Code::InvalidSql, format!("{name} is a stream: a query reads views"))
            .with_hint(format!("CREATE MATERIALIZED VIEW … AS SELECT … FROM {name} …; then SELECT from the view"))
    } else {
        let problem = Problem::new(Code::NotFound, format!("there is no {what} {missing}"));
        match did_you_mean(missing, known.iter().copied()) {
            Some(close) => problem.with_hint(format!("did you mean {close}?")),
            None if known.is_empty() => problem,
            None => problem.with_hint(format!("there are: {}", known[..known.len().min(20)].join(", "))),
        }
    };
    match locate(sql, missing) {
        Some(position) => problem.at(sql, position),
        None => problem,
    }
}

/// Where a name first stands in an SQL text, as a whole word.
pub(crate) fn locate(sql: &str, name: &str) -> Option<SqlPosition> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    for (index, line) in (1u64..).zip(sql.lines()) {
        let lower = line.to_lowercase();
        let wanted = name.to_lowercase();
        for (at, _) in lower.match_indices(&wanted) {
            let before = lower[..at].chars().next_back().is_some_and(is_word);
            let after = lower[at + wanted.len()..].chars().next().is_some_and(is_word);
            if !before && !after {
                return Some(SqlPosition { line: index, column: 1 + lower[..at].chars().count() as u64 });
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_located_as_a_word() {
        let sql = "SELECT carts\nFROM cart c";
        assert_eq!(locate(sql, "cart"), Some(SqlPosition { line: 2, column: 6 }));
        assert_eq!(locate(sql, "art"), None);
    }
}
