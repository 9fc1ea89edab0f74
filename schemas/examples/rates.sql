-- Turnover in one currency, each sale at the rate of its own moment; and sales by the grade that their currency had on that day,
-- where grades of the past may be corrected: replace the table with CREATE OR REPLACE TABLE.

CREATE STREAM sales (
  id TEXT NOT NULL,
  currency TEXT NOT NULL,
  cents BIGINT NOT NULL,
  event_time TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (id),
  WATERMARK FOR event_time AS event_time - INTERVAL '1 minute'
) WITH (partitions = 4, dedup_horizon = '24 hours');

-- Each row is valid until the next one of its currency begins. Rates do not change once they are known.
CREATE TABLE rates (currency TEXT, rate DOUBLE PRECISION, since TIMESTAMPTZ, PRIMARY KEY (currency, since))
  FROM FILE 'rates.csv' WITH (valid_from = 'since', join = 'pinned');

CREATE TABLE grades (currency TEXT, grade TEXT, since TIMESTAMPTZ, until TIMESTAMPTZ)
  FROM FILE 'grades.csv' WITH (valid_from = 'since', valid_to = 'until');

CREATE MATERIALIZED VIEW turnover_per_day
  REFRESH MANUAL
AS SELECT window_start, count(*) AS sales, sum(cents * rate) AS turnover
   FROM TUMBLE(sales, event_time, INTERVAL '1 day') AS s
   JOIN rates FOR SYSTEM_TIME AS OF s.event_time AS r ON s.currency = r.currency
   GROUP BY window_start;

CREATE MATERIALIZED VIEW sales_by_grade
  REFRESH MANUAL
AS SELECT grade, window_start, count(*) AS sales, sum(cents) AS cents
   FROM TUMBLE(sales, event_time, INTERVAL '1 day') AS s
   LEFT JOIN grades FOR SYSTEM_TIME AS OF s.window_start AS g ON s.currency = g.currency
   GROUP BY grade, window_start;
