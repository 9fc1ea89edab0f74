//! A dry run: each statement of a script is checked against the catalogue that the ones before it would
//! have left.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use operators::StaticTable;
use schemas::statement::{CreateSink, CreateStream, CreateTable, CreateView, ObjectKind, Placed, Statement};
use schemas::{Catalog, Code, Cut, Problem, TableDef, TableSource};
use serving::parts::{Rehearsal, StatementAnswer};
use uuid::Uuid;

use super::super::static_tables;
use super::super::table_sources::sent;
use super::compile::lacks_its_stream;
use super::create::{Checked, NewView, NewViews, check_stream, check_view, view_def};
use super::drop::{check_drop, with_sides, word};
use super::show::{known_view, show, show_create, unknown};
use super::sinks::check_sink;
use super::tables::{check_refresh, check_table};
use super::union::{is_main, union_def};
use super::{StatementService, message};

/// The catalogue as the script would have made it so far, and the rows of the tables that it made.
pub(super) struct Rehearsed<'a> {
    service: &'a StatementService,
    catalog: Catalog,
    tables: BTreeMap<Uuid, StaticTable>,
}

impl<'a> Rehearsed<'a> {
    pub(super) fn new(service: &'a StatementService) -> Self {
        let catalog = Catalog::clone(&service.registry.parts.catalog.current());
        Self { service, catalog, tables: BTreeMap::new() }
    }

    fn now_us(&self) -> i64 {
        self.service.registry.parts.clock.now_us()
    }

    fn create_stream(&mut self, create: &CreateStream) -> Result<StatementAnswer, Problem> {
        match check_stream(create, &self.catalog, self.now_us())? {
            Checked::Done(answer) => Ok(answer),
            Checked::New(stream) => {
                self.catalog.streams.push(stream);
                Ok(message(format!("would create stream {}", create.name)))
            }
        }
    }

    fn create_table(
        &mut self,
        create: &CreateTable,
        files: &BTreeMap<String, String>,
    ) -> Result<StatementAnswer, Problem> {
        let def = match check_table(create, &self.catalog)? {
            Checked::Done(answer) => return Ok(answer),
            Checked::New(def) => def,
        };
        let verb = if def.version > 1 { "replace" } else { "create" };
        let (rows, words) = if let TableSource::File(name) = &def.source {
            let rows = static_tables::parse_csv(&def, sent(files, name)?)?;
            let words = format!("with {} rows", rows.num_rows());
            (rows, words)
        } else {
            // views are compiled over its columns; its rows are not asked for
            let rows = RecordBatch::new_empty(static_tables::schema_of(&def.columns));
            (rows, format!("(nothing is read from {} yet)", def.source.place()))
        };
        self.tables.insert(def.id, static_tables::table(&def, vec![rows])?);
        self.catalog.tables.retain(|table| table.id != def.id);
        self.catalog.tables.push(def);
        Ok(message(format!("would {verb} table {} {words}", create.name)))
    }

    fn create_view(&mut self, create: &CreateView, text: &str) -> Result<StatementAnswer, Problem> {
        let registry = &self.service.registry;
        let rows_of = |def: &TableDef| {
            let made = self.tables.get(&def.id).cloned();
            made.or_else(|| registry.table_version(def).map(|table| StaticTable::clone(&table)))
        };
        match check_view(create, text, &self.catalog, &rows_of) {
            Ok(Checked::Done(answer)) => Ok(answer),
            Ok(Checked::New(NewViews { views, union })) => {
                let (mut texts, mut parts) = (vec![], vec![]);
                texts.extend(union.iter().map(|create| format!("would create view {}", create.name)));
                for NewView { create, compiled } in &views {
                    let def = view_def(create, compiled, Uuid::now_v7(), Cut::default(), self.now_us());
                    texts.push(format!("would create view {}", def.name));
                    parts.extend(is_main(&compiled.view).then_some(def.id));
                    self.catalog.views.push(def);
                }
                let now_us = self.now_us();
                self.catalog.unions.extend(union.map(|create| union_def(&create, parts, now_us)));
                Ok(message(texts.join("; ")))
            }
            // another script of the same folder may be the one that creates it
            Err(problem) if lacks_its_stream(&problem) => {
                Ok(message(format!("would create view {} (its stream is not there yet: not checked)", create.name)))
            }
            Err(problem) => Err(problem),
        }
    }

    fn create_sink(&mut self, create: &CreateSink, text: &str) -> Result<StatementAnswer, Problem> {
        let registry = &self.service.registry;
        let compiled = |id| serving::parts::Views::view(registry.as_ref(), id);
        match check_sink(create, text, &self.catalog, compiled, self.now_us())? {
            Checked::Done(answer) => Ok(answer),
            Checked::New(sink) => {
                self.catalog.sinks.push(sink);
                Ok(message(format!("would create sink {}", create.name)))
            }
        }
    }

    fn drop(&mut self, kind: ObjectKind, name: &str, if_exists: bool) -> Result<StatementAnswer, Problem> {
        if let Some(answer) = check_drop(&self.catalog, kind, name, if_exists)? {
            return Ok(answer);
        }
        match kind {
            ObjectKind::Stream => self.catalog.streams.retain(|stream| stream.name != name),
            ObjectKind::Table => self.catalog.tables.retain(|table| table.name != name),
            ObjectKind::View => {
                let dropped = with_sides(&self.catalog, name);
                self.catalog.views.retain(|view| !dropped.contains(&view.id));
                self.catalog.unions.retain(|union| union.name != name);
            }
            ObjectKind::Sink => self.catalog.sinks.retain(|sink| sink.name != name),
        }
        Ok(message(format!("would drop {} {name}", word(kind))))
    }
}

impl Rehearsal for Rehearsed<'_> {
    fn check(&mut self, placed: &Placed, files: &BTreeMap<String, String>) -> Result<StatementAnswer, Problem> {
        match &placed.statement {
            Statement::CreateStream(create) => self.create_stream(create),
            Statement::CreateTable(create) => self.create_table(create, files),
            Statement::CreateView(create) => self.create_view(create, &placed.text),
            Statement::CreateSink(create) => self.create_sink(create, &placed.text),
            Statement::Drop { kind, name, if_exists } => self.drop(*kind, name, *if_exists),
            Statement::Refresh { name, .. } | Statement::Rollback { name, .. } => {
                known_view(&self.catalog, name)?;
                Ok(message("ok"))
            }
            Statement::RefreshTable { name } => {
                let next = check_refresh(name, &self.catalog)?;
                Ok(message(format!("would read table {name} from {}", next.source.place())))
            }
            Statement::Copy(copy) => {
                let known = self.catalog.stream(&copy.stream);
                known.ok_or_else(|| unknown(&self.catalog, ObjectKind::Stream, &copy.stream))?;
                Ok(message(format!("would copy {} into {}", copy.file, copy.stream)))
            }
            Statement::Show(kind) => show(&self.catalog, *kind),
            Statement::ShowCreate { kind, name } => show_create(&self.catalog, *kind, name),
            other => Err(Problem::new(Code::Internal, format!("not a statement for the catalogue: {other:?}"))),
        }
    }
}
