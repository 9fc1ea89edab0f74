-- The commits of open-source projects: 137,512 real events, late and out of order.
-- Load them with: bifold apply commits.sql, then bifold ingest commits FILE

CREATE STREAM commits (
  id TEXT NOT NULL,
  repo TEXT,
  author TEXT,
  files INT,
  area TEXT,
  event_time TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (id),                            -- identity of an event: the de-duplication key
  WATERMARK FOR event_time AS event_time - INTERVAL '15 minutes'
) WITH (partitions = 4, dedup_horizon = '24 hours', late = 'include', on_bad_data = 'quarantine');

-- MANUAL: recomputed when you say so (bifold run commits_per_day --wait).
-- Every night instead: REFRESH CRON '0 3 * * *' TIME ZONE 'Europe/Berlin'
CREATE MATERIALIZED VIEW commits_per_day
  REFRESH MANUAL
AS SELECT repo, window_start, count(*) AS commits, sum(files) AS files, approx_distinct(author) AS authors
   FROM TUMBLE(commits, event_time, INTERVAL '1 day')
   GROUP BY repo, window_start;

CREATE MATERIALIZED VIEW commits_per_hour
  REFRESH MANUAL
AS SELECT repo, window_start, count(*) AS commits, sum(files) AS files, approx_distinct(author) AS authors
   FROM TUMBLE(commits, event_time, INTERVAL '1 hour')
   GROUP BY repo, window_start;

CREATE MATERIALIZED VIEW commits_per_week
  REFRESH MANUAL
AS SELECT repo, window_start, count(*) AS commits, sum(files) AS files, approx_distinct(author) AS authors
   FROM TUMBLE(commits, event_time, INTERVAL '7 days')
   GROUP BY repo, window_start;
