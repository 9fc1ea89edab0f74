//! `CREATE STREAM`, `CREATE TABLE`, `CREATE MATERIALIZED VIEW`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use batch::BatchView;
use operators::{StaticTable, View, ViewSource};
use schemas::documents::run::{RunKind, RunTrigger};
use schemas::problem::did_you_mean;
use schemas::statement::{CreateStream, CreateTable, CreateView};
use schemas::{Catalog, Code, Problem, StreamDef, TableDef, ViewDef};
use serving::parts::StatementAnswer;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};
use storage::layers::Runs;
use uuid::Uuid;

use super::super::static_tables;
use super::{StatementService, message};

fn taken(name: &str) -> Problem {
    Problem::new(Code::AlreadyExists, format!("{name} exists already"))
        .with_hint("choose another name, or DROP it first")
}

impl StatementService {
    pub(super) async fn create_stream(&self, create: &CreateStream, dry_run: bool) -> Result<StatementAnswer, Problem> {
        let parts = &self.registry.parts;
        if parts.catalog.current().is_taken(&create.name) {
            let same_kind = parts.catalog.current().stream(&create.name).is_some();
            return if create.if_not_exists && same_kind {
                Ok(message(format!("stream {} exists already", create.name)))
            } else {
                Err(taken(&create.name))
            };
        }
        if dry_run {
            return Ok(message(format!("would create stream {}", create.name)));
        }
        let stream = StreamDef {
            id: Uuid::now_v7(),
            incarnation: Uuid::new_v4(),
            name: create.name.clone(),
            columns: create.columns.clone(),
            primary_key: create.primary_key.clone(),
            time_column: create.time_column.clone(),
            watermark_delay_us: create.watermark_delay_us,
            partitions: create.partitions,
            dedup_horizon_us: create.dedup_horizon_us,
            late: create.late,
            on_bad_data: create.on_bad_data,
            created_at_us: parts.clock.now_us(),
        };
        let open = self.registry.prepare_stream(&stream).await.map_err(|error| {
            tracing::error!(stream = %stream.name, error = format!("{error:#}"), "a stream could not be created");
            Problem::new(Code::StorageUnavailable, format!("stream {}: its log could not be opened", stream.name))
        })?;
        let added = stream.clone();
        parts.catalog.update(|catalog| insert_stream(catalog, added)).await?;
        parts.speed.open(stream, Arc::clone(&open.log), &[]).await?;
        self.registry.start_stream(open);
        Ok(message(format!("created stream {}", create.name)))
    }

    pub(super) async fn create_table(
        &self,
        create: &CreateTable,
        files: &BTreeMap<String, String>,
        dry_run: bool,
    ) -> Result<StatementAnswer, Problem> {
        let parts = &self.registry.parts;
        if parts.catalog.current().is_taken(&create.name) {
            let same_kind = parts.catalog.current().table(&create.name).is_some();
            return if create.if_not_exists && same_kind {
                Ok(message(format!("table {} exists already", create.name)))
            } else {
                Err(taken(&create.name))
            };
        }
        let Some(text) = files.get(&create.file) else {
            return Err(Problem::new(Code::BadRequest, format!("the content of {} was not sent", create.file)).with_hint(
                "run the script with `bifold apply` or `bifold sql -f`, which send the file, or put it into \"files\"",
            ));
        };
        let rows = static_tables::parse_csv(&create.name, &create.columns, text)?;
        if dry_run {
            return Ok(message(format!("would create table {} with {} rows", create.name, rows.num_rows())));
        }
        let def = TableDef {
            id: Uuid::now_v7(),
            name: create.name.clone(),
            columns: create.columns.clone(),
            source: create.file.clone(),
            version: 1,
            rows: rows.num_rows() as u64,
            created_at_us: parts.clock.now_us(),
        };
        static_tables::save(&parts.store, &def, &rows).await?;
        let added = def.clone();
        parts
            .catalog
            .update(|catalog| {
                catalog.tables.push(added);
                catalog.tables.sort_by(|a, b| a.name.cmp(&b.name));
                Ok(())
            })
            .await?;
        let count = rows.num_rows();
        self.registry.add_table(&def, static_tables::table(&def, vec![rows]));
        Ok(message(format!("created table {} with {count} rows", create.name)))
    }

    pub(super) async fn create_view(
        &self,
        create: &CreateView,
        text: &str,
        dry_run: bool,
    ) -> Result<StatementAnswer, Problem> {
        let catalog = self.registry.parts.catalog.current();
        if let Some(existing) = catalog.view(&create.name) {
            if create.if_not_exists {
                return Ok(message(format!("view {} exists already", create.name)));
            }
            if create.or_replace && existing.sql == create.sql && existing.refresh == create.refresh {
                return Ok(message(format!("view {} is unchanged", create.name)));
            }
            if create.or_replace {
                return Err(Problem::new(
                    Code::Unsupported,
                    "CREATE OR REPLACE of a changed view is not supported yet",
                )
                .with_hint("DROP the view and create it again: its history is recomputed"));
            }
        }
        if catalog.is_taken(&create.name) {
            return Err(taken(&create.name));
        }
        batch::schedule::validate(&create.refresh)?;
        let compiled = self.compile(create, text, &catalog)?;
        if dry_run {
            return Ok(message(format!("would create view {}", create.name)));
        }
        self.add_view(create, compiled).await
    }

    async fn add_view(&self, create: &CreateView, compiled: Compiled) -> Result<StatementAnswer, Problem> {
        let parts = &self.registry.parts;
        let Compiled { stream, view, tables, pinned } = compiled;
        let missing = || Problem::new(Code::NotFound, format!("stream {} is not open", stream.name));
        let speed = parts.speed.stream(stream.id).ok_or_else(missing)?;
        let id = Uuid::now_v7();
        let from = speed.add_view(id, &view)?;
        let def = ViewDef {
            id,
            name: create.name.clone(),
            version: 1,
            stream: stream.id,
            sql: create.sql.clone(),
            refresh: create.refresh.clone(),
            late: create.late,
            tables: pinned,
            semantic_hash: view.semantic_hash().to_owned(),
            from: from.clone(),
            with_no_data: create.with_no_data,
            created_at_us: parts.clock.now_us(),
        };
        let added = def.clone();
        let updated = parts.catalog.update(|catalog| {
            catalog.views.push(added);
            catalog.views.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(())
        });
        if let Err(problem) = updated.await {
            speed.remove_view(id);
            return Err(problem);
        }
        self.registry.add_view(BatchView { def, stream: Arc::new(stream), view, tables });
        let mut text = format!("created view {}", create.name);
        if from.total() > 0 && !create.with_no_data {
            let run = self.runs.start(&create.name, RunKind::Full, RunTrigger::History).await?;
            text = format!("{text}; run {} computes its history of {} records", run.id, from.total());
        }
        Ok(message(text))
    }

    /// Finds the stream that a view reads and compiles the view over it.
    fn compile(&self, create: &CreateView, text: &str, catalog: &Catalog) -> Result<Compiled, Problem> {
        let words = words_of(&create.sql);
        let tables: Vec<&TableDef> = catalog.tables.iter().filter(|table| words.contains(&table.name)).collect();
        let rows: Vec<StaticTable> = tables
            .iter()
            .filter_map(|def| self.registry.table_version(def).map(|table| StaticTable::clone(&table)))
            .collect();
        let candidates: Vec<&StreamDef> =
            catalog.streams.iter().filter(|stream| words.contains(&stream.name)).collect();
        let mut problems = vec![];
        for stream in &candidates {
            let source = ViewSource {
                sql: &create.sql,
                position: create.sql_position,
                stream,
                tables: &rows,
                late: create.late.unwrap_or(stream.late),
            };
            match View::compile(&source) {
                Ok(view) => {
                    let pinned = tables.iter().map(|table| (table.id, table.version)).collect();
                    return Ok(Compiled { stream: StreamDef::clone(stream), view, tables: rows, pinned });
                }
                Err(problem) => problems.push(problem),
            }
        }
        Err(which_problem(problems, &candidates, catalog, &words).in_text(text))
    }
}

struct Compiled {
    stream: StreamDef,
    view: Arc<View>,
    tables: Vec<StaticTable>,
    pinned: Vec<(Uuid, u32)>,
}

/// A problem, before the line and the caret are taken from the whole statement.
struct Unplaced(Problem);

impl Unplaced {
    fn in_text(self, text: &str) -> Problem {
        match self.0.position {
            Some(position) if !self.0.detail.contains('^') => self.0.at(text, position),
            _ => self.0,
        }
    }
}

fn which_problem(
    problems: Vec<Problem>,
    candidates: &[&StreamDef],
    catalog: &Catalog,
    words: &BTreeSet<String>,
) -> Unplaced {
    if candidates.len() > 1 && problems.iter().all(|problem| problem.code == Code::NotFound) {
        let names: Vec<&str> = candidates.iter().map(|stream| stream.name.as_str()).collect();
        let detail = format!(
            "a view over the streams {} at once cannot be merged: a record may meet its partner on the other side of a cut",
            names.join(" and ")
        );
        return Unplaced(
            Problem::new(Code::NotMergeable, detail)
                .with_hint("make a view of each stream and join the views in the query"),
        );
    }
    let better = problems.iter().position(|problem| problem.code != Code::NotFound).unwrap_or(0);
    if let Some(problem) = problems.into_iter().nth(better) {
        return Unplaced(problem);
    }
    if let Some(view) = catalog.views.iter().find(|view| words.contains(&view.name)) {
        return Unplaced(
            Problem::new(Code::NotMergeable, format!("a view over the view {} is not supported", view.name))
                .with_hint("create the view over the stream, or aggregate over the view in the query"),
        );
    }
    let known: Vec<&str> = catalog.streams.iter().map(|stream| stream.name.as_str()).collect();
    let close = words.iter().find_map(|word| did_you_mean(word, known.iter().copied()));
    let hint = match close {
        Some(name) => format!("did you mean {name}?"),
        None if known.is_empty() => "create a stream first: CREATE STREAM …".to_owned(),
        None => format!("there are: {}", known.join(", ")),
    };
    Unplaced(Problem::new(Code::NotFound, super::NO_STREAM).with_hint(hint))
}

fn words_of(sql: &str) -> BTreeSet<String> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize().unwrap_or_default();
    let word = |token| match token {
        Token::Word(word) if word.quote_style.is_some() => Some(word.value),
        Token::Word(word) => Some(word.value.to_lowercase()),
        _ => None,
    };
    tokens.into_iter().filter_map(word).collect()
}

fn insert_stream(catalog: &mut Catalog, stream: StreamDef) -> Result<(), Problem> {
    if catalog.is_taken(&stream.name) {
        return Err(taken(&stream.name));
    }
    catalog.streams.push(stream);
    catalog.streams.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(())
}
