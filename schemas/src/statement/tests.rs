//! Statements as users write them.

mod accepted;
mod examples;
mod refused;
mod robust;

use super::{Placed, Statement, parse_script};
use crate::problem::Problem;

/// The only statement of a script.
pub(super) fn one(sql: &str) -> Statement {
    let mut placed = parse_script(sql).unwrap_or_else(|problem| panic!("{sql}\n{}", problem.text()));
    assert_eq!(placed.len(), 1, "{sql}");
    placed.remove(0).statement
}

/// All statements of a script.
pub(super) fn all(sql: &str) -> Vec<Placed> {
    parse_script(sql).unwrap_or_else(|problem| panic!("{sql}\n{}", problem.text()))
}

/// Why a script is refused.
pub(super) fn refusal(sql: &str) -> Problem {
    match parse_script(sql) {
        Ok(placed) => panic!("accepted: {placed:?}"),
        Err(problem) => problem,
    }
}

/// The statements that other tests bend.
pub(super) const VALID: [&str; 14] = [
    "CREATE STREAM s (id TEXT, v DOUBLE PRECISION, t TIMESTAMPTZ, PRIMARY KEY (id), \
     WATERMARK FOR t AS t - INTERVAL '15 minutes') WITH (partitions = 4, dedup_horizon = '24 hours', late = 'drop')",
    "CREATE MATERIALIZED VIEW v REFRESH CRON '0 3 * * *' TIME ZONE 'Europe/Berlin' WITH (late = 'drop') AS \
     SELECT repo, window_start, count(*) FROM TUMBLE(s, t, INTERVAL '1 day') GROUP BY 1, 2 WITH NO DATA",
    "CREATE OR REPLACE MATERIALIZED VIEW v REFRESH EVERY '1 hour' AS SELECT sum(x) FILTER (WHERE y > 1) FROM s",
    "CREATE TABLE IF NOT EXISTS ads (ad_id TEXT NOT NULL, price NUMERIC(10, 2)) FROM FILE 'ads.csv'",
    "DROP MATERIALIZED VIEW IF EXISTS \"Odd name\"",
    "SHOW MATERIALIZED VIEWS",
    "SHOW CREATE STREAM s",
    "REFRESH MATERIALIZED VIEW v INCREMENTAL",
    "ROLLBACK MATERIALIZED VIEW v TO RUN 41",
    "EXPLAIN LAYERS SELECT * FROM v",
    "EXPLAIN ANALYZE VERBOSE SELECT a, $1 FROM v WHERE b IN (1, 2, 3) ORDER BY a DESC LIMIT 3",
    "WITH x AS (SELECT 'it''s' AS a, $$dollar;$$ AS b) SELECT x.a || b, CASE WHEN a IS NULL THEN 1 ELSE 2 END FROM x",
    "DESCRIBE public.commits",
    "VALUES (1, -2.5e3, E'a\\n'), (2, NULL, '; -- no comment')",
];
