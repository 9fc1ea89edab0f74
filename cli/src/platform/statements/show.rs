//! `SHOW …` and `SHOW CREATE …`.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use schemas::problem::did_you_mean;
use schemas::show_create;
use schemas::statement::ObjectKind;
use schemas::{Code, Problem, ViewDef};
use serving::parts::StatementAnswer;

use super::StatementService;
use super::drop::word;

impl StatementService {
    pub(super) fn show(&self, kind: ObjectKind) -> Result<StatementAnswer, Problem> {
        let catalog = self.registry.parts.catalog.current();
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
                .map(|view| {
                    let stream = catalog.stream_by_id(view.stream).map(|stream| stream.name.clone());
                    [view.name.clone(), format!("over {}", stream.unwrap_or_default())]
                })
                .collect(),
        };
        table(&["name", "about"], &rows)
    }

    pub(super) fn show_create(&self, kind: ObjectKind, name: &str) -> Result<StatementAnswer, Problem> {
        let catalog = self.registry.parts.catalog.current();
        let sql = match kind {
            ObjectKind::Stream => catalog.stream(name).map(show_create::stream_sql),
            ObjectKind::Table => catalog.table(name).map(show_create::table_sql),
            ObjectKind::View => catalog.view(name).map(show_create::view_sql),
        };
        let sql = sql.ok_or_else(|| self.unknown(kind, name))?;
        table(&["name", "sql"], &[[name.to_owned(), sql]])
    }

    /// The view of that name.
    pub(super) fn known_view(&self, name: &str) -> Result<ViewDef, Problem> {
        let catalog = self.registry.parts.catalog.current();
        catalog.view(name).cloned().ok_or_else(|| self.unknown(ObjectKind::View, name))
    }

    pub(super) fn unknown(&self, kind: ObjectKind, name: &str) -> Problem {
        let catalog = self.registry.parts.catalog.current();
        let known: Vec<&str> = match kind {
            ObjectKind::Stream => catalog.streams.iter().map(|stream| stream.name.as_str()).collect(),
            ObjectKind::Table => catalog.tables.iter().map(|table| table.name.as_str()).collect(),
            ObjectKind::View => catalog.views.iter().map(|view| view.name.as_str()).collect(),
        };
        let problem = Problem::new(Code::NotFound, format!("there is no {} {name}", word(kind)));
        match did_you_mean(name, known.iter().copied()) {
            Some(close) => problem.with_hint(format!("did you mean {close}?")),
            None => problem,
        }
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
