-- Hashtags over one minute, every second. One event for each tag of a message.

CREATE STREAM hashtags (
  id TEXT NOT NULL,
  tag TEXT NOT NULL,
  event_time TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (id),
  WATERMARK FOR event_time AS event_time - INTERVAL '5 seconds'
) WITH (partitions = 4, dedup_horizon = '1 hour');

-- What is trending: SELECT tag, uses FROM tags_of_the_minute WHERE window_end = '…' ORDER BY uses DESC LIMIT 10
-- reads the 60 panes of that one minute.
CREATE MATERIALIZED VIEW tags_of_the_minute
  REFRESH MANUAL
AS SELECT window_start, window_end, tag, count(*) AS uses
   FROM TABLE(HOP(TABLE hashtags, DESCRIPTOR(event_time), INTERVAL '1' SECOND, INTERVAL '1' MINUTE))
   GROUP BY window_start, window_end, tag;
