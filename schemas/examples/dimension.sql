-- Sales by category, where the table of products changes: a product that moves to another category takes its past
-- sales with it, without a recomputation. Replace the table with
--   CREATE OR REPLACE TABLE products (sku TEXT NOT NULL, category TEXT) FROM FILE 'products.csv';

CREATE STREAM sales (
  id TEXT NOT NULL,
  sku TEXT NOT NULL,
  cents BIGINT NOT NULL,
  event_time TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (id),
  WATERMARK FOR event_time AS event_time - INTERVAL '1 minute'
) WITH (partitions = 4, dedup_horizon = '24 hours');

CREATE TABLE products (sku TEXT NOT NULL, category TEXT) FROM FILE 'products.csv';

-- Stored by product and day; the category comes to a cell when the view is read.
CREATE MATERIALIZED VIEW sales_by_category
  REFRESH MANUAL
AS SELECT category, window_start, count(*) AS sales, sum(cents) AS cents, avg(cents) AS mean, approx_distinct(sales.sku) AS products
   FROM TUMBLE(sales, event_time, INTERVAL '1 day') JOIN products ON sales.sku = products.sku
   GROUP BY category, window_start;
