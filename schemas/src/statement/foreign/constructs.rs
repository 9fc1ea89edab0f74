//! Clauses of other systems. Only what works nowhere here: what works in a query and not in a view is refused
//! by the view's compiler.

use super::Construct;

const NEWEST: &str = "a view is asked, and answers with everything until now";
const OVER: &str = "a view answers before its windows are over too";
const WINDOWS: &str = "windows are a relation: the stream's columns, window_start and window_end";
const LAYOUT: &str = "a view lays out and indexes its files by its key";
const HISTORY: &str = "the history of a new view is computed at once";
const BY_ITSELF: &str = "a view keeps itself up to date, and its schedule is a clause of it";
const ARRIVAL: &str = "which row comes first depends on the order of arrival";
const PATTERNS: &str = "a pattern over rows needs all rows of a key in order, on both sides of a cut";
const WITHIN: &str =
    "a join of a stream with a stream cannot be merged: a record may meet its partner on the other side of a cut";
const TOPIC: &str = "a topic is read by a stream with few options";
const PERCENTILES: &str = "a share is an argument like any other";
const OUTPUT: &str = "the form of an answer is chosen by the request";
const GROUPS: &str = "sets of groups are written in GROUP BY";

pub(super) const CONSTRUCTS: &[Construct] = &[
    // ksqlDB, Flink, RisingWave, Materialize
    ("EMIT CHANGES", NEWEST, "leave EMIT CHANGES out, and SELECT from the view"),
    ("EMIT FINAL", OVER, "leave EMIT FINAL out, and ask for WHERE window_end <= now() in the query"),
    (
        "EMIT ON WINDOW CLOSE",
        OVER,
        "leave EMIT ON WINDOW CLOSE out, and ask for WHERE window_end <= now() in the query",
    ),
    ("WINDOW TUMBLING (", WINDOWS, "write FROM TUMBLE(s, at, INTERVAL '1 hour') and GROUP BY window_start"),
    (
        "WINDOW HOPPING (",
        WINDOWS,
        "write FROM HOP(s, at, INTERVAL '10 seconds', INTERVAL '1 minute'), the slide first, and GROUP BY window_start",
    ),
    (
        "WINDOW SESSION (",
        WINDOWS,
        "write FROM SESSION(s, user_id, at, INTERVAL '5 minutes') and GROUP BY user_id, window_start, window_end",
    ),
    (
        "MATCH_RECOGNIZE (",
        PATTERNS,
        "make SESSION windows with array_agg(x ORDER BY at), and look for the pattern in the query",
    ),
    ("WITHIN #", WITHIN, "make a view of each stream, and join the views in the query"),
    ("NOT ENFORCED", "a key is enforced: an event with a key that was there is a duplicate", "leave NOT ENFORCED out"),
    (
        "AS PROCTIME (",
        "a clock gives another result at another time, so that the two layers would differ",
        "leave it out: when a record came in is stored beside it",
    ),
    (
        "METADATA FROM",
        "columns are fields of the event",
        "leave it out: position and times of a record are stored beside it",
    ),
    (
        "METADATA VIRTUAL",
        "columns are fields of the event",
        "leave it out: position and times of a record are stored beside it",
    ),
    (
        "VARCHAR KEY",
        "keys are declared as in PostgreSQL",
        "write id TEXT PRIMARY KEY, or PRIMARY KEY (id) behind the columns",
    ),
    (
        "STRING KEY",
        "keys are declared as in PostgreSQL",
        "write id TEXT PRIMARY KEY, or PRIMARY KEY (id) behind the columns",
    ),
    ("FORMAT PLAIN", TOPIC, "leave FORMAT and ENCODE out, and write format = 'json' in WITH (…)"),
    ("PROPERTIES . BOOTSTRAP . SERVER", TOPIC, "write brokers = 'host:9092'"),
    ("PROPERTIES . BOOTSTRAP . SERVERS", TOPIC, "write brokers = 'host:9092'"),
    (
        "INCLUDE TIMESTAMP",
        "columns are fields of the event",
        "leave it out: position and times of a record are stored beside it",
    ),
    ("INCLUDE KEY", "columns are fields of the event", "leave it out, and declare the field as a column"),
    (
        "MUTUALLY RECURSIVE",
        "a recursive query cannot be merged",
        "make a view of the inner query, and compute the recursion over it in the query",
    ),
    (
        "INSERT INTO * SELECT",
        "the result of a query is kept by a view",
        "write CREATE MATERIALIZED VIEW name AS SELECT …",
    ),
    // Timescale, PostgreSQL
    ("TIMESCALEDB . CONTINUOUS", BY_ITSELF, "leave WITH (…) out"),
    ("TIMESCALEDB . MATERIALIZED_ONLY", BY_ITSELF, "leave WITH (…) out"),
    ("VIEW CONCURRENTLY", "a run never stands in the way of queries", "leave CONCURRENTLY out"),
    (
        "FETCH FIRST",
        "the number of rows is written LIMIT",
        "write LIMIT 10; rank() OVER (ORDER BY …) <= 10 in the query has ties",
    ),
    (
        "FETCH NEXT",
        "the number of rows is written LIMIT",
        "write LIMIT 10; rank() OVER (ORDER BY …) <= 10 in the query has ties",
    ),
    // ClickHouse
    ("ENGINE =", LAYOUT, "leave ENGINE and the clauses behind it out; what grows is a CREATE STREAM"),
    ("POPULATE AS", HISTORY, "leave POPULATE out; WITH NO DATA behind the SELECT leaves the history to the schedule"),
    ("CREATE MATERIALIZED VIEW * TO", "a view stores its own cells", "leave TO … out, and SELECT from the view"),
    ("PREWHERE", "which columns are read first is not for the statement to say", "write WHERE"),
    (
        "LIMIT # BY",
        "a view has one row for each group",
        "write row_number() OVER (PARTITION BY k ORDER BY x) over the view in the query, and WHERE on it",
    ),
    (
        "TTL * +",
        "a view keeps all of its history",
        "leave TTL out, and write WHERE at > now() - INTERVAL '30 days' in the query",
    ),
    ("quantile (", PERCENTILES, "write approx_percentile_cont(x, 0.5)"),
    ("quantiles (", PERCENTILES, "write approx_percentile_cont(x, 0.5) once for each share"),
    ("quantileTDigest (", PERCENTILES, "write approx_percentile_cont(x, 0.5)"),
    ("quantileTiming (", PERCENTILES, "write approx_percentile_cont(x, 0.5)"),
    (
        "quantileExact (",
        PERCENTILES,
        "write percentile_cont(0.5) WITHIN GROUP (ORDER BY x), or approx_percentile_cont(x, 0.5)",
    ),
    ("quantileIf (", PERCENTILES, "write approx_percentile_cont(x, 0.5) FILTER (WHERE …)"),
    ("topK (", "the most frequent values are counted exactly, up to a cap", "write approx_top_k(x, 10)"),
    ("groupArray ( # ) (", "a list has an order in a view, and a cap of its own", "write array_agg(x ORDER BY at)"),
    ("FORMAT JSON", OUTPUT, "leave FORMAT out: JSON is what there is without ?format="),
    ("FORMAT JSONEachRow", OUTPUT, "leave FORMAT out: POST /v1/sql?format=ndjson"),
    ("FORMAT CSV", OUTPUT, "leave FORMAT out: POST /v1/sql?format=csv"),
    ("SETTINGS * =", "settings come from flags, the environment and bifold.toml", "leave SETTINGS out"),
    ("WITH TOTALS", GROUPS, "write GROUP BY ROLLUP (k)"),
    ("WITH ROLLUP", GROUPS, "write GROUP BY ROLLUP (k)"),
    ("WITH CUBE", GROUPS, "write GROUP BY CUBE (k)"),
    ("ANY LEFT JOIN", ARRIVAL, "write LEFT JOIN with a table that has one row for each key"),
    ("ANY JOIN", ARRIVAL, "write JOIN with a table that has one row for each key"),
    (
        "ASOF JOIN",
        "which row is the last before depends on what has come until then",
        "join views in the query, with arg_max(x, at)",
    ),
    // Druid and others
    ("TO SECOND )", "a time is rounded down by a function", "write date_trunc('second', at)"),
    ("TO MINUTE )", "a time is rounded down by a function", "write date_trunc('minute', at)"),
    ("TO HOUR )", "a time is rounded down by a function", "write date_trunc('hour', at)"),
    ("TO DAY )", "a time is rounded down by a function", "write date_trunc('day', at)"),
    ("SELECT TOP #", "the number of rows is written LIMIT", "write ORDER BY … LIMIT 10"),
];
