-- The click stream of a shop.

CREATE STREAM clicks (
  id TEXT NOT NULL,
  user_id TEXT NOT NULL,
  session_id TEXT,
  page TEXT,
  product TEXT,
  action TEXT NOT NULL,                        -- view, cart, buy
  price DOUBLE PRECISION,
  country TEXT,
  event_time TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (id),
  WATERMARK FOR event_time AS event_time - INTERVAL '30 seconds'
) WITH (partitions = 4, dedup_horizon = '1 hour');

-- What was sold, minute by minute. Late events are counted: batch and speed agree exactly.
CREATE MATERIALIZED VIEW revenue_per_minute
  REFRESH MANUAL
AS SELECT country, window_start, count(*) AS orders, sum(price) AS revenue, avg(price) AS average_price
   FROM TUMBLE(clicks, event_time, INTERVAL '1 minute')
   WHERE action = 'buy'
   GROUP BY country, window_start;

-- The same without late events: its certificate lists every event that is missing.
CREATE MATERIALIZED VIEW revenue_per_minute_strict
  REFRESH MANUAL
  WITH (late = 'drop')
AS SELECT country, window_start, count(*) AS orders, sum(price) AS revenue, avg(price) AS average_price
   FROM TUMBLE(clicks, event_time, INTERVAL '1 minute')
   WHERE action = 'buy'
   GROUP BY country, window_start;

-- All time, no window.
CREATE MATERIALIZED VIEW clicks_per_product
  REFRESH EVERY INTERVAL '10 minutes'
AS SELECT product, count(*) AS clicks, approx_distinct(user_id) AS users, max(event_time) AS last_seen
   FROM clicks
   GROUP BY product;

-- How many who looked put something into the cart, and how many of those bought.
CREATE MATERIALIZED VIEW funnel_per_hour
  REFRESH CRON '5 * * * *' TIME ZONE 'Europe/Berlin'
AS SELECT window_start,
          count(*) FILTER (WHERE action = 'view') AS views,
          count(*) FILTER (WHERE action = 'cart') AS carts,
          count(*) FILTER (WHERE action = 'buy') AS orders,
          approx_distinct(session_id) AS sessions
   FROM TUMBLE(clicks, event_time, INTERVAL '1 hour')
   GROUP BY window_start;
