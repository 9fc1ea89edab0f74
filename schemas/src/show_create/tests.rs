//! What `SHOW CREATE` prints makes the same thing again.

use proptest::prelude::*;
use rstest::rstest;
use uuid::Uuid;

use super::{quoted, sink_sql, stream_sql, table_sql, view_sql};
use crate::column::{ColumnDef, SqlType};
use crate::limits::NAME_BYTES_MAX;
use crate::position::Cut;
use crate::sink::SinkDef;
use crate::statement::{CreateStream, CreateTable, CreateView, SCHEMAS, Statement, parse_script};
use crate::stream::{LatePolicy, OnBadData, StreamDef};
use crate::table::{PostgresRead, TableSource};
use crate::transport::{LogKind, RecordFormat, TopicSource, Transport};
use crate::view::{Refresh, TableDef, TableJoin, ViewDef};

fn name() -> impl Strategy<Value = String> {
    let words = proptest::sample::select(vec!["select", "order", "primary", "watermark", "check", "if", "Big", "type"]);
    prop_oneof![4 => "[a-z][a-z0-9_]{0,10}".boxed(), 1 => "\\PC{1,12}".boxed(), 1 => words.prop_map_into().boxed()]
        .prop_filter("a name that may be declared", |name: &String| {
            !name.starts_with('_') && !SCHEMAS.contains(&name.as_str()) && name.len() <= NAME_BYTES_MAX
        })
}

fn sql_type() -> impl Strategy<Value = SqlType> {
    let plain = [
        SqlType::Boolean,
        SqlType::SmallInt,
        SqlType::Int,
        SqlType::BigInt,
        SqlType::Real,
        SqlType::Double,
        SqlType::Text,
        SqlType::Date,
        SqlType::TimestampTz,
        SqlType::Json,
    ];
    let numeric = (1u8..=38, 0i8..=38)
        .prop_map(|(precision, scale)| SqlType::Numeric { precision, scale: scale.min(precision as i8) });
    prop_oneof![9 => proptest::sample::select(plain.to_vec()), 1 => numeric]
}

fn columns() -> impl Strategy<Value = Vec<ColumnDef>> {
    let of_delta = |name: &String| !name.contains(|c| " ,;{}()\n\t=".contains(c));
    let column = (name().prop_filter("a name that Delta Lake allows", of_delta), sql_type(), any::<bool>());
    proptest::collection::vec(column, 1..8).prop_map(|columns| {
        let mut found: Vec<ColumnDef> = vec![];
        for (name, sql_type, nullable) in columns {
            if found.iter().all(|other| other.name.to_lowercase() != name.to_lowercase()) {
                found.push(ColumnDef { name, sql_type, nullable });
            }
        }
        found
    })
}

fn late() -> impl Strategy<Value = LatePolicy> {
    proptest::sample::select(vec![LatePolicy::Include, LatePolicy::Drop, LatePolicy::Side])
}

fn transports() -> Vec<Transport> {
    let source = TopicSource { topic: "a-topic".into(), format: RecordFormat::Json };
    let brokers = Some("host:9092,other:1".to_owned());
    vec![
        Transport::default(),
        Transport { log: LogKind::Kafka, ..Transport::default() },
        Transport { log: LogKind::Kafka, brokers: brokers.clone(), ..Transport::default() },
        Transport { source: Some(source.clone()), ..Transport::default() },
        Transport { source: Some(source), brokers, ..Transport::default() },
    ]
}

fn stream() -> impl Strategy<Value = StreamDef> {
    let on_bad_data = proptest::sample::select(vec![OnBadData::Quarantine, OnBadData::Reject]);
    let transport = proptest::sample::select(transports());
    let times = (0..i64::MAX, 0..100_000i64, 1..=1_024u32);
    (name(), columns(), any::<[bool; 8]>(), any::<bool>(), times, late(), (on_bad_data, transport)).prop_map(
        |(
            name,
            mut columns,
            in_key,
            timed,
            (dedup_horizon_us, seconds, partitions),
            late,
            (on_bad_data, transport),
        )| {
            let reads_topic = transport.source.is_some();
            let on_bad_data = if reads_topic { OnBadData::Quarantine } else { on_bad_data };
            let time = columns.iter().position(|c| timed && c.sql_type == SqlType::TimestampTz);
            let is_key: Vec<bool> = (0..columns.len()).map(|index| in_key[index]).collect();
            for (index, column) in columns.iter_mut().enumerate() {
                column.nullable &= !is_key[index] && time != Some(index);
            }
            StreamDef {
                id: Uuid::nil(),
                incarnation: Uuid::nil(),
                name,
                primary_key: columns.iter().zip(&is_key).filter(|(_, k)| **k).map(|(c, _)| c.name.clone()).collect(),
                time_column: time.map(|index| columns[index].name.clone()),
                watermark_delay_us: if time.is_some() { seconds * 1_000_000 } else { 0 },
                partitions,
                dedup_horizon_us,
                late: if time.is_some() { late } else { LatePolicy::Include },
                on_bad_data,
                transport,
                columns,
                created_at_us: 0,
            }
        },
    )
}

fn refresh() -> impl Strategy<Value = Refresh> {
    let cron = ("([0-9*/,-]{1,4} ){4}[A-Z0-9*]{1,3}", "[A-Z][a-z]{2,8}/[A-Z][a-z_]{2,8}");
    prop_oneof![
        Just(Refresh::Manual),
        Just(Refresh::Never),
        (1_000_000..i64::MAX).prop_map(|interval_us| Refresh::Every { interval_us }),
        cron.prop_map(|(expression, time_zone)| Refresh::Cron { expression, time_zone }),
    ]
}

fn view() -> impl Strategy<Value = ViewDef> {
    let sql = proptest::sample::select(vec![
        "SELECT 1",
        "SELECT a, count(*) AS \"Odd; name\"\n  FROM TUMBLE(s, t, INTERVAL '1 day') -- why\n GROUP BY a, window_start",
        "WITH x AS (SELECT ';', $$'$$) SELECT * FROM x",
    ]);
    (name(), sql, refresh(), proptest::option::of(late()), any::<bool>()).prop_map(
        |(name, sql, refresh, late, with_no_data)| ViewDef {
            id: Uuid::nil(),
            name,
            version: 1,
            stream: Uuid::nil(),
            sql: sql.into(),
            refresh,
            late,
            tables: vec![],
            semantic_hash: String::new(),
            from: Cut::default(),
            with_no_data,
            created_at_us: 0,
        },
    )
}

fn parsed(sql: &str) -> Statement {
    let mut placed = parse_script(sql).unwrap_or_else(|problem| panic!("{sql}\n{}", problem.text()));
    assert_eq!(placed.len(), 1, "{sql}");
    placed.remove(0).statement
}

/// Without a secret, which is not shown.
fn table_source() -> impl Strategy<Value = TableSource> {
    let text = || "[^\\x00]{0,20}x";
    let read = prop_oneof![text().prop_map(PostgresRead::Table), text().prop_map(PostgresRead::Query)];
    prop_oneof![
        text().prop_map(TableSource::File),
        "[a-z'/]{0,20}".prop_map(|path| TableSource::Url { url: format!("https://host/{path}") }),
        read.prop_map(|read| TableSource::Postgres { postgres: "postgres://me@host/db".into(), read }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn stream_round_trips(s in stream()) {
        prop_assert_eq!(parsed(&stream_sql(&s)), Statement::CreateStream(CreateStream {
            name: s.name, if_not_exists: false, columns: s.columns, primary_key: s.primary_key,
            time_column: s.time_column, watermark_delay_us: s.watermark_delay_us, partitions: s.partitions,
            partitions_given: true, dedup_horizon_us: s.dedup_horizon_us, late: s.late, on_bad_data: s.on_bad_data,
            transport: s.transport,
        }));
    }

    #[test]
    fn view_round_trips(v in view()) {
        let Statement::CreateView(found) = parsed(&view_sql(&v)) else { panic!("not a view") };
        let sql_position = found.sql_position;
        prop_assert_eq!(found, CreateView {
            name: v.name, if_not_exists: false, or_replace: false, refresh: v.refresh, late: v.late,
            with_no_data: v.with_no_data, sql: v.sql, sql_position,
        });
    }

    #[test]
    fn table_round_trips(
        name in name(), columns in columns(), source in table_source(), is_late in any::<bool>(),
        every in proptest::option::of(1_000_000..86_400_000_000_000_i64),
    ) {
        let join = if is_late { TableJoin::Late } else { TableJoin::Pinned };
        let refresh_us = every.filter(|_| is_late && source.is_read_by_the_server());
        let table = TableDef {
            id: Uuid::nil(), name, columns, source, refresh_us, version: 1, join, validity: None, rows: 0, created_at_us: 0,
        };
        prop_assert_eq!(parsed(&table_sql(&table)), Statement::CreateTable(CreateTable {
            name: table.name, if_not_exists: false, or_replace: false, join, validity: None, columns: table.columns, source: table.source, refresh_us,
        }));
    }
}

#[rstest]
#[case("commits", "commits")]
#[case("commits_2", "commits_2")]
#[case("Commits", "\"Commits\"")]
#[case("2nd", "\"2nd\"")]
#[case("a b", "\"a b\"")]
#[case("a\"b", "\"a\"\"b\"")]
#[case("größe", "\"größe\"")]
#[case("order", "\"order\"")]
#[case("watermark", "\"watermark\"")]
#[case("name", "name")]
#[case("event_time", "event_time")]
fn names_are_quoted_where_needed(#[case] name: &str, #[case] sql: &str) {
    assert_eq!(quoted(name), sql);
}

#[test]
fn printed_stream_reads_well() {
    let Statement::CreateStream(made) = parsed(
        "CREATE STREAM commits (id TEXT PRIMARY KEY, \"Repo\" TEXT, at TIMESTAMPTZ, WATERMARK FOR at AS at - INTERVAL '900 s')",
    ) else {
        panic!("not a stream")
    };
    let stream = StreamDef {
        id: Uuid::nil(),
        incarnation: Uuid::nil(),
        name: made.name,
        columns: made.columns,
        primary_key: made.primary_key,
        time_column: made.time_column,
        watermark_delay_us: made.watermark_delay_us,
        partitions: made.partitions,
        dedup_horizon_us: made.dedup_horizon_us,
        late: made.late,
        on_bad_data: made.on_bad_data,
        transport: made.transport,
        created_at_us: 0,
    };
    insta::assert_snapshot!(stream_sql(&stream), @r#"
    CREATE STREAM commits (
      id TEXT NOT NULL,
      "Repo" TEXT,
      at TIMESTAMPTZ NOT NULL,
      PRIMARY KEY (id),
      WATERMARK FOR at AS at - INTERVAL '15 minutes'
    ) WITH (partitions = 4, dedup_horizon = '24 hours', late = 'include', on_bad_data = 'quarantine')
    "#);
}

/// What `SHOW CREATE SINK` says makes the same sink.
#[rstest]
#[case("CREATE SINK a FROM v WITH (type = 'stdout')")]
#[case("CREATE SINK \"A b\" FROM \"V\" WITH (type = 'file', path = 'a-b', mode = append, every = '5 seconds')")]
#[case("CREATE SINK a FROM v WITH (type = 'webhook', url = 'https://host/it''s', mode = 'complete')")]
#[case("CREATE SINK a FROM v WITH (type = 'postgres', url = 'postgres://me@host/db', table = 's.t')")]
#[case("CREATE SINK a FROM v WITH (type = 'kafka', topic = 't', brokers = 'a:1,b:2', every = '100 ms')")]
fn sink_round_trips(#[case] sql: &str) {
    let Statement::CreateSink(made) = parsed(sql) else { panic!("not a sink") };
    let def = SinkDef {
        id: Uuid::nil(),
        name: made.name.clone(),
        view: Uuid::nil(),
        mode: made.mode,
        target: made.target.clone(),
        every_us: made.every_us,
        created_at_us: 0,
    };
    let Statement::CreateSink(mut again) = parsed(&sink_sql(&def, &made.view)) else { panic!("not a sink") };
    again.view_position = made.view_position;
    assert_eq!(again, made);
}
