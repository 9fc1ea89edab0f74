//! `SHOW …` and `SHOW CREATE …`.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use schemas::problem::did_you_mean;
use schemas::show_create;
use schemas::statement::ObjectKind;
use schemas::{Catalog, Code, Problem, SinkDef, UnionDef, ViewDef};
use serving::parts::StatementAnswer;

use super::drop::word;

/// `SHOW …`
pub(in crate::platform) fn show(catalog: &Catalog, kind: ObjectKind) -> Result<StatementAnswer, Problem> {
    let rows: Vec<[String; 2]> = match kind {
        ObjectKind::Stream => catalog
            .streams
            .iter()
            .map(|stream| [stream.name.clone(), format!("{} partitions", stream.partitions)])
            .collect(),
        ObjectKind::Table => {
            catalog.tables.iter().map(|table| [table.name.clone(), format!("{} rows", table.rows)]).collect()
        }
        ObjectKind::View => catalog
            .views
            .iter()
            .map(|view| [view.name.clone(), about_view(catalog, view)])
            .chain(catalog.unions.iter().map(|union| [union.name.clone(), about_union(catalog, union)]))
            .collect(),
        ObjectKind::Sink => catalog
            .sinks
            .iter()
            .map(|sink| {
                let (view, place) = (view_of(catalog, sink), sink.target.place());
                [sink.name.clone(), format!("{} of {view} to {place}", sink.mode.as_str())]
            })
            .collect(),
    };
    table(&["name", "about"], &rows)
}

/// `SHOW CREATE …`
pub(in crate::platform) fn show_create(
    catalog: &Catalog,
    kind: ObjectKind,
    name: &str,
) -> Result<StatementAnswer, Problem> {
    let sql = match kind {
        ObjectKind::Stream => catalog.stream(name).map(show_create::stream_sql),
        ObjectKind::Table => catalog.table(name).map(show_create::table_sql),
        ObjectKind::View => {
            let union = || catalog.union(name).map(show_create::union_sql);
            catalog.view(name).map(show_create::view_sql).or_else(union)
        }
        ObjectKind::Sink => catalog.sink(name).map(|sink| show_create::sink_sql(sink, view_of(catalog, sink))),
    };
    let sql = sql.ok_or_else(|| unknown(catalog, kind, name))?;
    table(&["name", "sql"], &[[name.to_owned(), sql]])
}

fn about_view(catalog: &Catalog, view: &ViewDef) -> String {
    let stream = catalog.stream_by_id(view.stream).map(|stream| stream.name.as_str()).unwrap_or_default();
    match catalog.union_of(view.id) {
        Some(union) => format!("over {stream}, a part of {}", union.name),
        None => format!("over {stream}"),
    }
}

fn about_union(catalog: &Catalog, union: &UnionDef) -> String {
    let parts = catalog.parts(&union.name).unwrap_or_default();
    let parts: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    format!("the union of {}", parts.join(", "))
}

/// The name of a sink's view.
fn view_of<'a>(catalog: &'a Catalog, sink: &SinkDef) -> &'a str {
    catalog.view_by_id(sink.view).map(|view| view.name.as_str()).unwrap_or_default()
}

/// The view of that name, or the parts of the union.
pub(super) fn known_view<'a>(catalog: &'a Catalog, name: &str) -> Result<Vec<&'a ViewDef>, Problem> {
    catalog.parts(name).ok_or_else(|| unknown(catalog, ObjectKind::View, name))
}

/// Says that there is no such thing, and what else was meant.
pub(super) fn unknown(catalog: &Catalog, kind: ObjectKind, name: &str) -> Problem {
    let known: Vec<&str> = match kind {
        ObjectKind::Stream => catalog.streams.iter().map(|stream| stream.name.as_str()).collect(),
        ObjectKind::Table => catalog.tables.iter().map(|table| table.name.as_str()).collect(),
        ObjectKind::View => catalog.view_names().collect(),
        ObjectKind::Sink => catalog.sinks.iter().map(|sink| sink.name.as_str()).collect(),
    };
    let problem = Problem::new(Code::NotFound, format!("there is no {} {name}", word(kind)));
    match did_you_mean(name, known.iter().copied()) {
        Some(close) => problem.with_hint(format!("did you mean {close}?")),
        None => problem,
    }
}

fn table(names: &[&str; 2], rows: &[[String; 2]]) -> Result<StatementAnswer, Problem> {
    let column = |index: usize| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row[index].as_str())))
    };
    let rows = RecordBatch::try_from_iter([(names[0], column(0)), (names[1], column(1))])
        .map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
    Ok(StatementAnswer { message: String::new(), rows: Some(rows) })
}
