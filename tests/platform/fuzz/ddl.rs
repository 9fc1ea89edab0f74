//! SQL: statements of the product's own, and views as they are compiled.
//!
//! What has to hold: a problem's place lies in the text; the text of a statement is read as the same statement; what
//! `SHOW CREATE` makes of an accepted one is read as the same one; a view compiles to the same meaning twice.

use operators::View;
use operators::view::ViewSource;
use schemas::problem::SqlPosition;
use schemas::show_create::{stream_sql, table_sql, view_sql};
use schemas::statement::{CreateStream, CreateTable, CreateView, Placed, Statement, parse_script};
use schemas::{Cut, Problem, StreamDef, TableDef, TableSource, ViewDef};
use uuid::Uuid;

use super::Target;

const WORDS: &[&str] = &[
    "CREATE",
    "STREAM",
    "MATERIALIZED",
    "VIEW",
    "TABLE",
    "AS",
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "HAVING",
    "ORDER BY",
    "LIMIT",
    "WITH",
    "PRIMARY KEY",
    "WATERMARK FOR",
    "INTERVAL",
    "'1 hour'",
    "REFRESH",
    "EVERY",
    "CRON",
    "MANUAL",
    "TUMBLE(s, at, INTERVAL '1 hour')",
    "HOP(s, at, INTERVAL '1 minute', INTERVAL '1 hour')",
    "window_start",
    "count(*)",
    "sum(n)",
    "avg(x)",
    "approx_distinct(id)",
    "approx_percentile_cont(x, 0.5)",
    "DISTINCT",
    "FILTER",
    "OVER",
    "PARTITION BY",
    "CASE WHEN",
    "THEN",
    "ELSE",
    "END",
    "CAST(",
    "::BIGINT",
    "NULL",
    "IS NULL",
    "BETWEEN",
    "LIKE",
    "IN (",
    "EXISTS (",
    "UNION ALL",
    "JOIN",
    "ON",
    "USING",
    "::NUMERIC(38,9)",
    "extract(hour FROM at)",
    "date_trunc('hour', at)",
    "||",
    "''",
    "$1",
    "--",
    "/*",
    "*/",
    ";",
    "s",
    "at",
    "NOT",
    "EXPLAIN LAYERS",
];

const SEEDS: &[&str] = &[
    "CREATE STREAM s (id TEXT NOT NULL, k INT, x DOUBLE PRECISION, m NUMERIC(10, 2), at TIMESTAMPTZ NOT NULL, \
     PRIMARY KEY (id), WATERMARK FOR at AS at - INTERVAL '5 minutes') WITH (partitions = 2, dedup_horizon = '1 hour')",
    "CREATE OR REPLACE MATERIALIZED VIEW v REFRESH EVERY INTERVAL '1 hour' WITH (late = 'drop') AS SELECT i, \
     window_start, count(*) AS c, sum(n) AS s FROM TUMBLE(s, at, INTERVAL '10 minutes') GROUP BY i, window_start",
    "CREATE MATERIALIZED VIEW v REFRESH CRON '0 3 * * *' TIME ZONE 'Europe/Berlin' AS SELECT count(*) FROM s WITH NO DATA",
    "CREATE TABLE t (id TEXT NOT NULL, n BIGINT) FROM FILE 'it''s.csv'",
    "CREATE TABLE t (id TEXT) FROM URL 'https://host/t.csv' REFRESH EVERY INTERVAL '1 hour'",
    "CREATE TABLE t (id TEXT) FROM POSTGRES 'postgres://me@host/db' QUERY 'SELECT 1' WITH (join = 'pinned')",
    "REFRESH TABLE t",
    "SELECT b, avg(x), min(m), max(d), count(DISTINCT id) FILTER (WHERE n > 5) FROM s WHERE r < 1.5 GROUP BY b \
     HAVING count(*) > 1 ORDER BY 2 DESC LIMIT 5",
    "SELECT date_trunc('day', at) AS day, upper(id) || 'x', CASE WHEN n IS NULL THEN 0 ELSE n % 7 END, sum(x) FROM s \
     GROUP BY 1, 2, 3",
    "COPY s FROM 'events.ndjson' WITH (format = 'json'); SHOW CREATE STREAM s; DROP MATERIALIZED VIEW IF EXISTS v",
    "EXPLAIN LAYERS SELECT * FROM v; REFRESH MATERIALIZED VIEW v FULL; ROLLBACK MATERIALIZED VIEW v TO RUN 7",
    "CREATE STREAM k (id TEXT, at TIMESTAMPTZ) WITH (connector = 'kafka', topic = 't', brokers = 'b:9092', format = 'json')",
];

pub(super) struct Statements {
    stream: StreamDef,
}

impl Statements {
    pub(super) fn new() -> Self {
        Self { stream: super::json::stream() }
    }

    fn compile(&self, sql: &str) -> Result<String, String> {
        let source = || ViewSource {
            sql,
            position: SqlPosition { line: 1, column: 1 },
            stream: &self.stream,
            tables: &[],
            late: self.stream.late,
        };
        match View::compile(&source()) {
            Ok(view) => {
                let again =
                    View::compile(&source()).map_err(|problem| format!("compiled, and not again: {problem}"))?;
                let is_same = again.semantic_hash() == view.semantic_hash();
                if is_same { Ok("compiled".into()) } else { Err("compiled twice, with two meanings".into()) }
            }
            Err(problem) => refused(sql, &problem),
        }
    }

    fn statement(&self, placed: &Placed) -> Result<String, String> {
        let again = parse_script(&placed.text).map_err(|problem| format!("not read again: {}", problem.text()))?;
        if again.first().map(|again| &again.statement) != Some(&placed.statement) {
            return Err(format!("read again as {again:?}"));
        }
        match &placed.statement {
            Statement::CreateStream(create) => shown(&stream_sql(&stream(create)), |found| match found {
                Statement::CreateStream(found) => {
                    let given = CreateStream {
                        if_not_exists: false,
                        partitions_given: found.partitions_given,
                        ..create.clone()
                    };
                    found == &given
                }
                _ => false,
            }),
            Statement::CreateView(create) => {
                shown(&view_sql(&view(create)), |found| match found {
                    Statement::CreateView(found) => {
                        let given = CreateView {
                            if_not_exists: false,
                            or_replace: false,
                            sql_position: found.sql_position,
                            ..create.clone()
                        };
                        found == &given
                    }
                    _ => false,
                })?;
                self.compile(&create.sql)
            }
            // what is shown of an address with a secret is not the whole of it
            Statement::CreateTable(create) if hides(&create.source) => Ok("CreateTable".to_owned()),
            Statement::CreateTable(create) => shown(&table_sql(&table(create)), |found| match found {
                Statement::CreateTable(found) => {
                    found == &CreateTable { if_not_exists: false, or_replace: false, ..create.clone() }
                }
                _ => false,
            }),
            Statement::Query { sql } => self.compile(sql),
            other => Ok(format!("{other:?}").split(['(', ' ']).next().unwrap_or_default().to_owned()),
        }
    }
}

/// A problem whose place lies in the text, and which is no bug of ours.
fn refused(sql: &str, problem: &Problem) -> Result<String, String> {
    if problem.status >= 500 && problem.status != 501 {
        return Err(format!("{:?}: {}", problem.code, problem.detail));
    }
    if let Some(position) = problem.position {
        let line = usize::try_from(position.line).ok().and_then(|line| sql.split('\n').nth(line.checked_sub(1)?));
        let Some(line) = line else { return Err(format!("a place beyond the text: {problem:?}")) };
        if position.column == 0 || position.column > line.chars().count() as u64 + 1 {
            return Err(format!("a place beyond the line: {problem:?}"));
        }
    }
    Ok(problem.detail.lines().next().unwrap_or_default().to_owned())
}

/// What `SHOW CREATE` has made is read as the same.
fn shown(sql: &str, is_same: impl Fn(&Statement) -> bool) -> Result<String, String> {
    match parse_script(sql) {
        Ok(found) if found.len() == 1 && is_same(&found[0].statement) => Ok("shown".into()),
        Ok(found) => Err(format!("shown as {sql}\nwhich is read as {found:?}")),
        Err(problem) => Err(format!("shown as {sql}\nwhich is not read: {}", problem.text())),
    }
}

fn stream(create: &CreateStream) -> StreamDef {
    StreamDef {
        id: Uuid::nil(),
        incarnation: Uuid::nil(),
        name: create.name.clone(),
        columns: create.columns.clone(),
        primary_key: create.primary_key.clone(),
        time_column: create.time_column.clone(),
        watermark_delay_us: create.watermark_delay_us,
        partitions: create.partitions,
        dedup_horizon_us: create.dedup_horizon_us,
        late: create.late,
        on_bad_data: create.on_bad_data,
        transport: create.transport.clone(),
        created_at_us: 0,
    }
}

fn view(create: &CreateView) -> ViewDef {
    ViewDef {
        id: Uuid::nil(),
        name: create.name.clone(),
        version: 1,
        stream: Uuid::nil(),
        sql: create.sql.clone(),
        refresh: create.refresh.clone(),
        late: create.late,
        tables: vec![],
        semantic_hash: String::new(),
        from: Cut::default(),
        with_no_data: create.with_no_data,
        created_at_us: 0,
    }
}

fn hides(source: &TableSource) -> bool {
    match source {
        TableSource::File(_) => false,
        TableSource::Url { url: whole } | TableSource::Postgres { postgres: whole, .. } => source.place() != *whole,
    }
}

fn table(create: &CreateTable) -> TableDef {
    TableDef {
        id: Uuid::nil(),
        name: create.name.clone(),
        columns: create.columns.clone(),
        source: create.source.clone(),
        refresh_us: create.refresh_us,
        version: 1,
        join: create.join,
        validity: create.validity.clone(),
        rows: 0,
        created_at_us: 0,
    }
}

impl Target for Statements {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let examples =
            ["ads", "commits", "shop"].map(|name| std::fs::read(format!("../schemas/examples/{name}.sql")).unwrap());
        SEEDS.iter().map(|seed| seed.as_bytes().to_vec()).chain(examples).collect()
    }

    fn words(&self) -> &'static [&'static str] {
        WORDS
    }

    fn mutate(&self, mutator: &mut super::Mutator, input: &[u8], other: &[u8]) -> Vec<u8> {
        if mutator.one_in(3) { mutator.tokens(input, other, WORDS) } else { mutator.bytes(input, other, WORDS) }
    }

    fn check(&mut self, input: &[u8]) -> Result<String, String> {
        let sql = String::from_utf8_lossy(input);
        let placed = match parse_script(&sql) {
            Ok(placed) => placed,
            Err(problem) => return refused(&sql, &problem),
        };
        let mut answers = vec![];
        for placed in placed.iter().take(5) {
            if !sql.contains(&placed.text) {
                return Err(format!("a text that is not in the script: {:?}", placed.text));
            }
            answers.push(self.statement(placed)?);
        }
        answers.sort();
        answers.dedup();
        Ok(answers.join("; "))
    }
}
