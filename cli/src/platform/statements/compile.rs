//! Which stream a view reads, and the view compiled over it.

use std::collections::BTreeSet;
use std::sync::Arc;

use operators::{StaticTable, View, ViewSource};
use schemas::problem::did_you_mean;
use schemas::statement::{CreateView, place_of};
use schemas::{Catalog, Code, Problem, StreamDef, TableDef};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};
use uuid::Uuid;

/// What is said of a view that names no stream of the catalogue.
const NO_STREAM: &str = "the view reads no stream that exists";

/// True if a view could not be compiled only because the stream that it reads is not there.
pub(super) fn lacks_its_stream(problem: &Problem) -> bool {
    problem.code == Code::NotFound && problem.detail.starts_with(NO_STREAM)
}

/// Finds the stream that a view reads and compiles the view over it; `rows_of` are a table's rows.
pub(super) fn compile(
    create: &CreateView,
    text: &str,
    catalog: &Catalog,
    rows_of: &dyn Fn(&TableDef) -> Option<StaticTable>,
) -> Result<Compiled, Problem> {
    let OverStream { stream, made, tables, pinned } =
        over_its_stream(create, text, catalog, rows_of, &|source| View::compile(source))?;
    Ok(Compiled { stream, view: made, tables, pinned })
}

/// Finds the stream that a `SELECT` reads, and what is made of the `SELECT` over it.
pub(super) fn over_its_stream<T>(
    create: &CreateView,
    text: &str,
    catalog: &Catalog,
    rows_of: &dyn Fn(&TableDef) -> Option<StaticTable>,
    make: &dyn Fn(&ViewSource<'_>) -> Result<T, Problem>,
) -> Result<OverStream<T>, Problem> {
    let words = words_of(&create.sql);
    let tables: Vec<&TableDef> = catalog.tables.iter().filter(|table| words.contains(&table.name)).collect();
    let rows: Vec<StaticTable> = tables.iter().filter_map(|def| rows_of(def)).collect();
    let candidates: Vec<&StreamDef> = catalog.streams.iter().filter(|stream| words.contains(&stream.name)).collect();
    let mut problems = vec![];
    for stream in &candidates {
        let source = ViewSource {
            sql: &create.sql,
            position: create.sql_position,
            stream,
            tables: &rows,
            late: create.late.unwrap_or(stream.late),
        };
        match make(&source) {
            Ok(made) => {
                let pinned = tables.iter().map(|table| (table.id, table.version)).collect();
                return Ok(OverStream { stream: StreamDef::clone(stream), made, tables: rows, pinned });
            }
            Err(problem) => problems.push(problem),
        }
    }
    Err(which_problem(problems, &candidates, catalog, (create, &words)).in_text(text))
}

/// What was made of a `SELECT`, with what it reads.
pub(super) struct OverStream<T> {
    pub(super) stream: StreamDef,
    pub(super) made: T,
    pub(super) tables: Vec<StaticTable>,
    /// Id and version of each table.
    pub(super) pinned: Vec<(Uuid, u32)>,
}

/// A view that may be created.
pub(super) struct Compiled {
    pub(super) stream: StreamDef,
    pub(super) view: Arc<View>,
    pub(super) tables: Vec<StaticTable>,
    /// Id and version of each table.
    pub(super) pinned: Vec<(Uuid, u32)>,
}

/// A problem, before the line and the caret are taken from the whole statement.
struct Unplaced(Problem);

impl Unplaced {
    /// A problem of the view's `SELECT`, where a name stands in it.
    fn at_name(mut problem: Problem, create: &CreateView, name: &str) -> Self {
        let place = [name, "JOIN", "FROM"].into_iter().find_map(|construct| place_of(&create.sql, construct));
        problem.position = place.map(|place| place.within(create.sql_position));
        Self(problem)
    }

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
    (create, words): (&CreateView, &BTreeSet<String>),
) -> Unplaced {
    if candidates.len() > 1 && problems.iter().all(|problem| problem.code == Code::NotFound) {
        let names: Vec<&str> = candidates.iter().map(|stream| stream.name.as_str()).collect();
        let detail = format!(
            "a join of the streams {} cannot be merged: a record may meet its partner on the other side of a cut",
            names.join(" and ")
        );
        let problem = Problem::new(Code::NotMergeable, detail)
            .with_hint("make a view of each stream and join the views in the query");
        return Unplaced::at_name(problem, create, &format!("JOIN {}", names[names.len() - 1]));
    }
    let better = problems.iter().position(|problem| problem.code != Code::NotFound).unwrap_or(0);
    if let Some(problem) = problems.into_iter().nth(better) {
        return Unplaced(problem);
    }
    if let Some(view) = catalog.view_names().find(|view| words.contains(*view)) {
        let problem = Problem::new(Code::NotMergeable, format!("a view over the view {view} is not supported"))
            .with_hint("create the view over the stream, or aggregate over the view in the query");
        return Unplaced::at_name(problem, create, view);
    }
    let known: Vec<&str> = catalog.streams.iter().map(|stream| stream.name.as_str()).collect();
    let close = words.iter().find_map(|word| did_you_mean(word, known.iter().copied()));
    let hint = match close {
        Some(name) => format!("did you mean {name}?"),
        None if known.is_empty() => "create a stream first: CREATE STREAM …".to_owned(),
        None => format!("there are: {}", known.join(", ")),
    };
    Unplaced::at_name(Problem::new(Code::NotFound, NO_STREAM).with_hint(hint), create, "FROM")
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
