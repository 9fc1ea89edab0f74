-- Visits: what one visitor does with at most 5 seconds from each page to the next.
-- Pages at 0 … 10 s and at 17 s are two visits, [0, 10] and [17, 17]; a page at 13 s that comes in late makes them one.

CREATE STREAM visits (
  id TEXT NOT NULL,
  visitor TEXT NOT NULL,
  page TEXT,
  event_time TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (id),
  WATERMARK FOR event_time AS event_time - INTERVAL '1 minute'
) WITH (partitions = 4, dedup_horizon = '1 hour');

CREATE MATERIALIZED VIEW sessions
  REFRESH MANUAL
AS SELECT visitor, window_start, window_end, count(*) AS pages, approx_distinct(page) AS different_pages
   FROM SESSION(visits, visitor, event_time, INTERVAL '5 seconds')
   GROUP BY visitor, window_start, window_end;

-- Statistics over sessions are computed of whole sessions, in the query:
-- SELECT count(*), avg(pages), max(window_end - window_start) FROM sessions
