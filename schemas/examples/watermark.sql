-- A watermark of 15 minutes: an hour is complete 15 minutes after its end, by the clock of the events.

CREATE STREAM orders (
  id TEXT NOT NULL,
  event_time TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (id),
  WATERMARK FOR event_time AS event_time - INTERVAL '15 minutes'
) WITH (partitions = 4);

-- Late events are counted in their hour as they come, and counted as late.
CREATE MATERIALIZED VIEW orders_per_hour
  REFRESH MANUAL
AS SELECT window_start, count(*) AS orders
   FROM TUMBLE(orders, event_time, INTERVAL '1 hour')
   GROUP BY window_start;

-- Late events are left out: 14:59 minutes late is still in time, 15:01 is not. The certificate lists them.
CREATE MATERIALIZED VIEW orders_per_hour_final
  REFRESH MANUAL
  WITH (late = 'drop')
AS SELECT window_start, count(*) AS orders
   FROM TUMBLE(orders, event_time, INTERVAL '1 hour')
   GROUP BY window_start;
