-- Every 10 seconds the mean temperature of the last minute: windows that overlap.
-- A reading is stored once, in its pane of 10 seconds, and answered in the six windows that it lies in.

CREATE STREAM readings (
  id TEXT NOT NULL,
  sensor TEXT NOT NULL,
  celsius DOUBLE PRECISION,
  event_time TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (id),
  WATERMARK FOR event_time AS event_time - INTERVAL '10 seconds'
) WITH (partitions = 4, dedup_horizon = '1 hour');

CREATE MATERIALIZED VIEW mean_temperature
  REFRESH MANUAL
AS SELECT sensor, window_start, window_end, avg(celsius) AS mean, count(*) AS readings
   FROM HOP(readings, event_time, INTERVAL '10 seconds', INTERVAL '1 minute')
   GROUP BY sensor, window_start, window_end;

-- The hottest reading of the hour so far, every ten minutes, and then from the start again.
CREATE MATERIALIZED VIEW hottest_of_the_hour
  REFRESH MANUAL
AS SELECT sensor, window_start, window_end, max(celsius) AS hottest
   FROM CUMULATE(readings, event_time, INTERVAL '10 minutes', INTERVAL '1 hour')
   GROUP BY sensor, window_start, window_end;

-- Days as they are on the wall: 23 hours long when the clock is put forward, 25 when it is put back.
CREATE MATERIALIZED VIEW readings_per_day
  REFRESH MANUAL
AS SELECT window_start, window_end, count(*) AS readings
   FROM TUMBLE(readings, event_time, INTERVAL '1 day', 'Europe/Berlin')
   GROUP BY window_start, window_end;
