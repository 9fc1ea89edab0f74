//! Functions of other systems. Names that mean exactly what one of ours does are aliases of it, and not here.

use super::Functions;

const OTHER_NAME: &str = "the function is called otherwise here";
const CONDITION: &str = "the condition of an aggregate stands behind it";
const STATES: &str = "states are kept and merged by the view itself";
const ORDERED: &str = "what is kept in order needs the order, or it would be that of arrival";
const SETS: &str = "different values are kept exactly up to a cap, or counted by a sketch";
const SHARES: &str = "a share of the values is asked for by name";
const WINDOWS: &str = "windows are a relation: the stream's columns, window_start and window_end";
const CLOCK: &str = "a clock gives another result at another time, so that the two layers would differ";
const IN_ORDER: &str = "it needs all events of a key in order, on both sides of a cut";
const GAPS: &str = "a view has rows for what came in, and none for what did not";
const BY_ITSELF: &str = "a view keeps itself up to date, and its schedule is a clause of it";
const BUCKETS: &str = "a bucket of time has one of two names here";

pub(super) const FUNCTIONS: &[Functions] = &[
    // how many different values
    (
        &[
            "uniq",
            "uniqCombined",
            "uniqCombined64",
            "uniqHLL12",
            "uniqTheta",
            "APPROX_COUNT_DISTINCT_DS_HLL",
            "APPROX_COUNT_DISTINCT_DS_THETA",
            "hyperloglog",
            "NDV",
        ],
        SETS,
        "write approx_distinct(x)",
    ),
    (&["uniqExact", "COUNT_DISTINCT", "countDistinct"], SETS, "write count(DISTINCT x), or approx_distinct(x)"),
    // conditions
    (&["countIf", "COUNT_IF"], CONDITION, "write count(*) FILTER (WHERE x > 2)"),
    (&["sumIf", "SUM_IF"], CONDITION, "write sum(x) FILTER (WHERE x > 2)"),
    (
        &["avgIf", "minIf", "maxIf", "anyIf", "uniqIf", "uniqExactIf", "argMinIf", "argMaxIf", "groupArrayIf"],
        CONDITION,
        "write the aggregate with FILTER (WHERE …) behind it: avg(x) FILTER (WHERE x > 2)",
    ),
    // states of aggregates
    (
        &["countState", "sumState", "avgState", "minState", "maxState", "uniqState", "uniqExactState", "quantileState"],
        STATES,
        "write the aggregate alone: sum(x)",
    ),
    (
        &["countMerge", "sumMerge", "avgMerge", "minMerge", "maxMerge", "uniqMerge", "uniqExactMerge", "quantileMerge"],
        STATES,
        "write the aggregate alone: sum(x)",
    ),
    (
        &["finalizeAggregation", "stats_agg", "percentile_agg", "counter_agg"],
        STATES,
        "write the aggregate alone: avg(x)",
    ),
    // values in order
    (
        &["groupArray", "COLLECT_LIST", "COLLECT", "LIST", "json_agg", "jsonb_agg", "JSON_ARRAYAGG"],
        ORDERED,
        "write array_agg(x ORDER BY at)",
    ),
    (&["groupUniqArray", "COLLECT_SET"], OTHER_NAME, "write array_agg(DISTINCT x)"),
    (&["groupConcat", "GROUP_CONCAT", "LISTAGG"], ORDERED, "write string_agg(k, ', ' ORDER BY at)"),
    (
        &["first", "EARLIEST", "EARLIEST_BY", "EARLIEST_BY_OFFSET"],
        ORDERED,
        "write first_value(x ORDER BY at), or arg_min(x, at)",
    ),
    (
        &["last", "anyLast", "LATEST", "LATEST_BY", "LATEST_BY_OFFSET"],
        ORDERED,
        "write last_value(x ORDER BY at), or arg_max(x, at)",
    ),
    (&["any"], OTHER_NAME, "write any_value(x)"),
    (
        &["arrayJoin", "explode"],
        "a row of each item is made by UNNEST",
        "write FROM s CROSS JOIN UNNEST(s.tags) AS t(tag)",
    ),
    // shares
    (
        &[
            "APPROX_QUANTILE",
            "APPROX_QUANTILE_DS",
            "APPROX_QUANTILES",
            "APPROX_PERCENTILE",
            "percentile_approx",
            "PERCENTILE",
        ],
        SHARES,
        "write approx_percentile_cont(x, 0.5)",
    ),
    (
        &["percentile_disc"],
        SHARES,
        "write percentile_cont(0.5) WITHIN GROUP (ORDER BY x), or approx_percentile_cont(x, 0.5)",
    ),
    (&["mode", "anyHeavy"], "the most frequent value needs the count of each", "write approx_top_k(k, 1)"),
    (
        &["HISTOGRAM", "AS_MAP", "sumMap"],
        "a map is not a column of a view",
        "GROUP BY the key of the map, or write approx_top_k(k, 10)",
    ),
    // statistics
    (&["stddevPop"], OTHER_NAME, "write stddev_pop(x)"),
    (&["stddevSamp"], OTHER_NAME, "write stddev_samp(x)"),
    (&["varPop"], OTHER_NAME, "write var_pop(x)"),
    (&["varSamp"], OTHER_NAME, "write var_samp(x)"),
    (&["covarPop"], OTHER_NAME, "write covar_pop(x, y)"),
    (&["covarSamp"], OTHER_NAME, "write covar_samp(x, y)"),
    (&["avgWeighted"], OTHER_NAME, "write sum(x * n) / sum(n)"),
    (&["groupBitAnd"], OTHER_NAME, "write bit_and(n)"),
    (&["groupBitOr"], OTHER_NAME, "write bit_or(n)"),
    (&["groupBitXor"], OTHER_NAME, "write bit_xor(n)"),
    (
        &["skewPop", "skewSamp", "kurtPop", "kurtSamp", "SKEWNESS", "KURTOSIS"],
        "sums of third and fourth powers are not kept",
        "write sum(x), sum(x * x) and sum(x * x * x), and compute it in the query",
    ),
    // buckets of time
    (
        &["time_bucket"],
        "its weeks begin on Mondays; date_bin counts from 1970-01-01, a Thursday",
        "write date_bin(INTERVAL '1 hour', at), date_trunc('week', at), or FROM TUMBLE(s, at, INTERVAL '1 hour')",
    ),
    (
        &["TIME_FLOOR", "toStartOfInterval", "toStartOfFiveMinutes", "toStartOfTenMinutes", "toStartOfFifteenMinutes"],
        BUCKETS,
        "write date_bin(INTERVAL '5 minutes', at), or date_trunc('hour', at)",
    ),
    (
        &[
            "toStartOfSecond",
            "toStartOfMinute",
            "toStartOfHour",
            "toStartOfDay",
            "toStartOfWeek",
            "toMonday",
            "toStartOfMonth",
            "toStartOfQuarter",
            "toStartOfYear",
            "TIMESTAMP_TRUNC",
        ],
        BUCKETS,
        "write date_trunc('hour', at), with the name of the unit",
    ),
    (&["toDate", "toYYYYMMDD"], OTHER_NAME, "write date_trunc('day', at), or CAST(at AS DATE)"),
    (
        &["toYear", "toMonth", "toDayOfMonth", "toDayOfWeek", "toHour", "toMinute", "TIME_EXTRACT"],
        OTHER_NAME,
        "write extract(hour FROM at)",
    ),
    (&["toString", "toInt64", "toUInt64", "toFloat64"], OTHER_NAME, "write CAST(n AS TEXT)"),
    (&["if", "IFF", "multiIf"], OTHER_NAME, "write CASE WHEN x > 2 THEN 'much' ELSE 'little' END"),
    // windows
    (
        &["TUMBLE", "HOP", "CUMULATE", "SESSION"],
        WINDOWS,
        "write FROM TUMBLE(s, at, INTERVAL '1 hour') and GROUP BY window_start",
    ),
    (
        &[
            "TUMBLE_START",
            "TUMBLE_END",
            "TUMBLE_ROWTIME",
            "HOP_START",
            "HOP_END",
            "HOP_ROWTIME",
            "SESSION_START",
            "SESSION_END",
            "SESSION_ROWTIME",
        ],
        WINDOWS,
        "write window_start or window_end, FROM TUMBLE(s, at, INTERVAL '1 hour')",
    ),
    (
        &["time_bucket_gapfill", "locf", "interpolate"],
        GAPS,
        "write date_bin(INTERVAL '1 hour', at), and fill the gaps from generate_series(…) in the query",
    ),
    // clocks
    (
        &["PROCTIME", "TUMBLE_PROCTIME", "CURRENT_WATERMARK", "SOURCE_WATERMARK", "mz_now"],
        CLOCK,
        "use a time of the event: WATERMARK FOR at AS at in CREATE STREAM",
    ),
    // all events in order
    (
        &["windowFunnel", "sequenceMatch", "sequenceCount", "retention", "deltaSum", "runningDifference", "neighbor"],
        IN_ORDER,
        "write array_agg(x ORDER BY at), and go through the list in the query",
    ),
    // what is a statement elsewhere
    (
        &[
            "create_hypertable",
            "add_continuous_aggregate_policy",
            "add_retention_policy",
            "add_compression_policy",
            "refresh_continuous_aggregate",
        ],
        BY_ITSELF,
        "leave it out; a schedule is CREATE MATERIALIZED VIEW v REFRESH EVERY '1 hour' AS …",
    ),
];
