//! What is read, and as what.

use rstest::rstest;

use super::super::{CopyFormat, CopyFrom, CreateStream, ObjectKind, Statement};
use super::{VALID, all, one};
use crate::column::{ColumnDef, ItemType, SqlType};
use crate::limits::{COLUMNS_MAX, NAME_BYTES_MAX};
use crate::problem::SqlPosition;
use crate::stream::{LatePolicy, OnBadData};
use crate::table::{PostgresRead, TableSource};
use crate::transport::{LogKind, RecordFormat, TopicSource, Transport};
use crate::view::{Refresh, TableJoin};

const HOUR: i64 = 3_600_000_000;

fn stream(sql: &str) -> CreateStream {
    match one(sql) {
        Statement::CreateStream(stream) => stream,
        other => panic!("{other:?}"),
    }
}

fn column(name: &str, sql_type: SqlType, nullable: bool) -> ColumnDef {
    ColumnDef { name: name.into(), sql_type, nullable }
}

#[test]
fn stream_with_everything() {
    let found = stream(
        "CREATE SOURCE IF NOT EXISTS Commits (Id TEXT, \"Repo\" VARCHAR(20), files INT NULL, event_time TIMESTAMPTZ,
           PRIMARY KEY (ID, \"Repo\"), WATERMARK FOR event_time AS Event_Time - INTERVAL '15' MINUTE)
         WITH (partitions = 7, DEDUP_HORIZON = '1 day 02:00', late = 'drop', on_bad_data = 'reject');",
    );
    let expected = CreateStream {
        name: "commits".into(),
        if_not_exists: true,
        columns: vec![
            column("id", SqlType::Text, false),
            column("Repo", SqlType::Text, false),
            column("files", SqlType::Int, true),
            column("event_time", SqlType::TimestampTz, false),
        ],
        primary_key: vec!["id".into(), "Repo".into()],
        time_column: Some("event_time".into()),
        watermark_delay_us: HOUR / 4,
        partitions: 7,
        partitions_given: true,
        dedup_horizon_us: 26 * HOUR,
        late: LatePolicy::Drop,
        on_bad_data: OnBadData::Reject,
        transport: Transport::default(),
    };
    assert_eq!(found, expected);
}

#[test]
fn stream_of_a_topic_and_stream_with_its_log_in_kafka() {
    let found = stream(
        "CREATE STREAM s (a INT) WITH (connector = 'kafka', topic = 'Clicks.v1', brokers = 'a:9092, b:1', format = json)",
    );
    let source = Some(TopicSource { topic: "Clicks.v1".into(), format: RecordFormat::Json });
    let brokers = Some("a:9092,b:1".to_owned());
    assert_eq!(found.transport, Transport { source, log: LogKind::Embedded, brokers, frozen: None });
    let found = stream("CREATE STREAM s (a INT) WITH (log = 'kafka')");
    assert_eq!(found.transport, Transport { log: LogKind::Kafka, ..Transport::default() });
}

#[test]
fn stream_with_defaults() {
    let found = stream("create stream s (a int primary key)");
    assert_eq!(found.primary_key, ["a"]);
    assert!(!found.columns[0].nullable && !found.if_not_exists);
    assert_eq!((found.partitions, found.dedup_horizon_us, found.time_column), (4, 24 * HOUR, None));
    assert_eq!((found.late, found.on_bad_data), (LatePolicy::Include, OnBadData::Quarantine));
}

#[test]
fn watermark_without_delay_is_zero() {
    let found = stream("CREATE STREAM s (\"T\" TIMESTAMPTZ, WATERMARK FOR \"T\" AS \"T\")");
    assert_eq!((found.time_column.as_deref(), found.watermark_delay_us), (Some("T"), 0));
}

#[test]
fn columns_may_be_called_like_keywords() {
    let found = stream("CREATE STREAM s (watermark TEXT, \"primary\" TEXT, unique INT, type TEXT, name TEXT)");
    let names: Vec<&str> = found.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["watermark", "primary", "unique", "type", "name"]);
}

#[rstest]
#[case("BOOLEAN", SqlType::Boolean)]
#[case("bool", SqlType::Boolean)]
#[case("SMALLINT", SqlType::SmallInt)]
#[case("INT2", SqlType::SmallInt)]
#[case("INT", SqlType::Int)]
#[case("INTEGER", SqlType::Int)]
#[case("INT4", SqlType::Int)]
#[case("BIGINT", SqlType::BigInt)]
#[case("INT8", SqlType::BigInt)]
#[case("REAL", SqlType::Real)]
#[case("FLOAT4", SqlType::Real)]
#[case("FLOAT(24)", SqlType::Real)]
#[case("DOUBLE PRECISION", SqlType::Double)]
#[case("DOUBLE", SqlType::Double)]
#[case("FLOAT8", SqlType::Double)]
#[case("FLOAT", SqlType::Double)]
#[case("NUMERIC(10, 2)", SqlType::Numeric { precision: 10, scale: 2 })]
#[case("DECIMAL(38)", SqlType::Numeric { precision: 38, scale: 0 })]
#[case("TEXT", SqlType::Text)]
#[case("TEXT[]", SqlType::Array(ItemType::Text))]
#[case("varchar(20) array", SqlType::Array(ItemType::Text))]
#[case("DOUBLE PRECISION []", SqlType::Array(ItemType::Double))]
#[case("NUMERIC(9, 2)[]", SqlType::Array(ItemType::Numeric { precision: 9, scale: 2 }))]
#[case("TIMESTAMP WITH TIME ZONE[]", SqlType::Array(ItemType::TimestampTz))]
#[case("STRING", SqlType::Text)]
#[case("VARCHAR", SqlType::Text)]
#[case("VARCHAR(12)", SqlType::Text)]
#[case("CHARACTER VARYING(12)", SqlType::Text)]
#[case("CHAR(2)", SqlType::Text)]
#[case("DATE", SqlType::Date)]
#[case("TIMESTAMPTZ", SqlType::TimestampTz)]
#[case("TIMESTAMP WITH TIME ZONE", SqlType::TimestampTz)]
#[case("TIMESTAMP(6) WITH TIME ZONE", SqlType::TimestampTz)]
#[case("JSON", SqlType::Json)]
#[case("JSONB", SqlType::Json)]
fn types(#[case] text: &str, #[case] sql_type: SqlType) {
    let found = stream(&format!("CREATE STREAM s (a {text} NOT NULL, b {text})"));
    assert_eq!(found.columns, [column("a", sql_type, false), column("b", sql_type, true)]);
}

#[rstest]
#[case::none("", Refresh::Manual, None)]
#[case::manual("REFRESH MANUAL", Refresh::Manual, None)]
#[case::never("REFRESH NEVER", Refresh::Never, None)]
#[case::every("REFRESH EVERY INTERVAL '1 hour'", Refresh::Every { interval_us: HOUR }, None)]
#[case::every_text("REFRESH EVERY '90m'", Refresh::Every { interval_us: HOUR * 3 / 2 }, None)]
#[case::every_number("REFRESH EVERY 1 DAY", Refresh::Every { interval_us: 24 * HOUR }, None)]
#[case::every_short("REFRESH EVERY 2h", Refresh::Every { interval_us: 2 * HOUR }, None)]
#[case::late("WITH (late = 'drop')", Refresh::Manual, Some(LatePolicy::Drop))]
#[case::side("WITH (late = 'side')", Refresh::Manual, Some(LatePolicy::Side))]
#[case::only("WITH (late = only)", Refresh::Manual, Some(LatePolicy::Only))]
#[case::both("REFRESH NEVER WITH (late = include)", Refresh::Never, Some(LatePolicy::Include))]
#[case::turned("WITH (late = 'include') REFRESH NEVER", Refresh::Never, Some(LatePolicy::Include))]
#[case::cron("REFRESH CRON '*/5 1-3 * * MON#1'", cron("*/5 1-3 * * MON#1", "UTC"), None)]
#[case::zone("REFRESH CRON '0 3 * * *' TIME ZONE 'Europe/Berlin'", cron("0 3 * * *", "Europe/Berlin"), None)]
fn view_clauses(#[case] clauses: &str, #[case] refresh: Refresh, #[case] late: Option<LatePolicy>) {
    let Statement::CreateView(view) = one(&format!("CREATE MATERIALIZED VIEW v {clauses} AS SELECT 1")) else {
        panic!("not a view")
    };
    assert_eq!((view.refresh, view.late, view.sql.as_str()), (refresh, late, "SELECT 1"));
}

fn cron(expression: &str, time_zone: &str) -> Refresh {
    Refresh::Cron { expression: expression.into(), time_zone: time_zone.into() }
}

#[rstest]
#[case::plain("SELECT  a -- why\n , 'x;y'  FROM t", "", false)]
#[case::no_data("SELECT a FROM t", " with no\ndata ", true)]
#[case::with_data("SELECT a FROM t", " WITH DATA", false)]
#[case::cte("WITH x AS (SELECT 1) SELECT * FROM x", " WITH NO DATA", true)]
#[case::umlaut("SELECT 'ä' AS \"ö\" FROM \"ü\"", "", false)]
fn view_keeps_its_select_as_written(#[case] select: &str, #[case] suffix: &str, #[case] no_data: bool) {
    let script = format!("SELECT 'é';\n\n -- a view\n CREATE MATERIALIZED VIEW v\n  AS {select}{suffix} ; ");
    let placed = all(&script);
    let Statement::CreateView(view) = &placed[1].statement else { panic!("not a view") };
    assert_eq!((view.sql.as_str(), view.with_no_data), (select, no_data));
    assert_eq!(placed[1].position, SqlPosition { line: 4, column: 2 });
    assert_eq!(view.sql_position, SqlPosition { line: 2, column: 6 });
    assert_eq!(view.sql_position.within(placed[1].position), SqlPosition { line: 5, column: 6 });
    assert!(placed[1].text.starts_with("CREATE") && placed[1].text.ends_with(suffix.trim()));
}

#[test]
fn position_moves_in_and_out_on_the_same_line() {
    let placed = all("SHOW TABLES; CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT 1");
    let Statement::CreateView(view) = &placed[1].statement else { panic!("not a view") };
    assert!(view.or_replace && !view.if_not_exists);
    assert_eq!(view.sql_position, SqlPosition { line: 1, column: 42 });
    assert_eq!(view.sql_position.within(placed[1].position), SqlPosition { line: 1, column: 55 });
}

#[rstest]
#[case("DROP STREAM s", ObjectKind::Stream, "s", false)]
#[case("DROP SOURCE IF EXISTS public.s", ObjectKind::Stream, "s", true)]
#[case("drop materialized view \"V\"", ObjectKind::View, "V", false)]
#[case("DROP TABLE IF EXISTS \"a\"\"b\"", ObjectKind::Table, "a\"b", true)]
fn drops(#[case] sql: &str, #[case] kind: ObjectKind, #[case] name: &str, #[case] if_exists: bool) {
    assert_eq!(one(sql), Statement::Drop { kind, name: name.into(), if_exists });
}

#[rstest]
#[case("SHOW STREAMS", Statement::Show(ObjectKind::Stream))]
#[case("SHOW sources", Statement::Show(ObjectKind::Stream))]
#[case("SHOW TABLES", Statement::Show(ObjectKind::Table))]
#[case("SHOW MATERIALIZED VIEWS", Statement::Show(ObjectKind::View))]
#[case("SHOW CREATE SOURCE s", Statement::ShowCreate { kind: ObjectKind::Stream, name: "s".into() })]
#[case("SHOW CREATE TABLE t", Statement::ShowCreate { kind: ObjectKind::Table, name: "t".into() })]
#[case("SHOW CREATE MATERIALIZED VIEW v", Statement::ShowCreate { kind: ObjectKind::View, name: "v".into() })]
#[case("REFRESH MATERIALIZED VIEW v", Statement::Refresh { name: "v".into(), incremental: false })]
#[case("REFRESH TABLE t", Statement::RefreshTable { name: "t".into() })]
#[case("REFRESH MATERIALIZED VIEW v FULL", Statement::Refresh { name: "v".into(), incremental: false })]
#[case("REFRESH MATERIALIZED VIEW v INCREMENTAL", Statement::Refresh { name: "v".into(), incremental: true })]
#[case("COPY s FROM 'a.csv'", Statement::Copy(CopyFrom { stream: "s".into(), file: "a.csv".into(), format: None }))]
#[case(
    "copy s from 'a' with (format = 'parquet')",
    Statement::Copy(CopyFrom { stream: "s".into(), file: "a".into(), format: Some(CopyFormat::Parquet) })
)]
#[case("ROLLBACK MATERIALIZED VIEW v TO RUN 41", Statement::Rollback { name: "v".into(), run: 41 })]
#[case("EXPLAIN LAYERS SELECT  1", Statement::ExplainLayers { sql: "SELECT  1".into() })]
fn commands(#[case] sql: &str, #[case] expected: Statement) {
    assert_eq!(one(sql), expected);
}

#[rstest]
#[case("SELECT 1")]
#[case("(SELECT 1) UNION ALL (SELECT 2) ORDER BY 1")]
#[case("WITH a AS (SELECT 1), b AS (SELECT * FROM a) SELECT * FROM b")]
#[case("VALUES (1, 'a'), (2, 'b')")]
#[case("TABLE commits")]
#[case("EXPLAIN SELECT 1")]
#[case("EXPLAIN ANALYZE VERBOSE SELECT 1")]
#[case("EXPLAIN FORMAT TREE SELECT 1")]
#[case("DESCRIBE commits")]
#[case("DESC batch.\"Odd\"")]
#[case("SHOW ALL")]
#[case("SHOW COLUMNS FROM commits")]
#[case("SHOW datafusion.execution.batch_size")]
#[case("SELECT * FROM TUMBLE(commits, event_time, INTERVAL '1 day')")]
#[case("SELECT * FROM batch.v WHERE a = $1 AND \"B\" ~ 'x' LIMIT 3 OFFSET 1")]
#[case("SELECT a::numeric(10,2), b AT TIME ZONE 'UTC', extract(hour FROM t), x -> 'k' ->> 'l' FROM v")]
#[case("SELECT date_trunc('day', t), count(*) FILTER (WHERE a) FROM s GROUP BY 1 HAVING count(*) > 1")]
#[case("SELECT sum(x) OVER (PARTITION BY a ORDER BY b ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM v")]
#[case("SELECT replace(a, 'x', 'y'), left(b, 1), \"update\" FROM v AS \"insert\"")]
fn queries_are_handed_on_as_written(#[case] sql: &str) {
    assert_eq!(one(&format!(" /* hi */ {sql} -- bye")), Statement::Query { sql: sql.into() });
}

#[test]
fn script_is_split_outside_of_strings_and_comments() {
    let placed = all("SELECT ';' ; ; -- a; b\n/* ; /* nested ; */ */ SELECT \";\" FROM t;\nSELECT $$;$$, $x$;'$x$ ;;");
    let texts: Vec<&str> = placed.iter().map(|p| p.text.as_str()).collect();
    assert_eq!(texts, ["SELECT ';'", "SELECT \";\" FROM t", "SELECT $$;$$, $x$;'$x$"]);
    let lines: Vec<(u64, u64)> = placed.iter().map(|p| (p.position.line, p.position.column)).collect();
    assert_eq!(lines, [(1, 1), (2, 24), (3, 1)]);
}

#[rstest]
#[case("")]
#[case(" \n\t")]
#[case("; ;; -- nothing\n")]
#[case("/* nothing */")]
fn empty_scripts_have_no_statements(#[case] sql: &str) {
    assert_eq!(all(sql), []);
}

#[test]
fn string_literals_in_every_quoting() {
    for file in ["'it''s.csv'", "E'it\\'s.csv'", "$$it's.csv$$", "$q$it's.csv$q$"] {
        let Statement::CreateTable(table) = one(&format!("CREATE TABLE t (a INT) FROM FILE {file}")) else {
            panic!("not a table")
        };
        assert_eq!(table.source, TableSource::File("it's.csv".into()));
    }
}

#[rstest]
#[case("URL 'https://host/d.csv'", TableSource::Url { url: "https://host/d.csv".into() }, None, TableJoin::Late)]
#[case(
    "POSTGRES 'postgres://me@host' TABLE 'public.d' WITH (join = 'pinned')",
    TableSource::Postgres { postgres: "postgres://me@host".into(), read: PostgresRead::Table("public.d".into()) },
    None,
    TableJoin::Pinned
)]
#[case(
    "POSTGRES 'postgres://me@host' QUERY $$SELECT ';'$$ WITH (join = late) REFRESH EVERY INTERVAL '1 hour'",
    TableSource::Postgres { postgres: "postgres://me@host".into(), read: PostgresRead::Query("SELECT ';'".into()) },
    Some(HOUR),
    TableJoin::Late
)]
#[case("FILE 'd.csv' REFRESH MANUAL", TableSource::File("d.csv".into()), None, TableJoin::Late)]
fn sources_of_tables(
    #[case] text: &str,
    #[case] source: TableSource,
    #[case] refresh_us: Option<i64>,
    #[case] join: TableJoin,
) {
    let Statement::CreateTable(table) = one(&format!("CREATE TABLE t (a INT) FROM {text}")) else {
        panic!("not a table")
    };
    assert_eq!((table.source, table.refresh_us, table.join), (source, refresh_us, join));
}

#[test]
fn limits_themselves_are_accepted() {
    let name = "n".repeat(NAME_BYTES_MAX);
    let columns: Vec<String> = (0..COLUMNS_MAX).map(|i| format!("c{i} INT")).collect();
    let found = stream(&format!("CREATE STREAM {name} ({}) WITH (partitions = 1024)", columns.join(",")));
    assert_eq!((found.name, found.columns.len(), found.partitions), (name, COLUMNS_MAX, 1024));
}

#[test]
fn valid_statements_are_valid() {
    for sql in VALID {
        one(sql);
    }
    assert_eq!(all(&VALID.join(";\n")).len(), VALID.len());
}
