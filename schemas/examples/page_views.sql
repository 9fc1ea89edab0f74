-- Page views per page and minute, every five seconds into a table of PostgreSQL; and an alert for a page that
-- everybody looks at. docs/sinks.md explains it.
--
-- From a topic of Kafka instead of HTTP: add connector = 'kafka', topic = 'page_views', brokers = 'host:9092' to the
-- options of the stream, and leave partitions out. Nothing else changes.

CREATE STREAM page_views (
  id TEXT NOT NULL,
  page TEXT NOT NULL,
  visitor TEXT,
  event_time TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (id),
  WATERMARK FOR event_time AS event_time - INTERVAL '10 seconds'
) WITH (partitions = 4);

CREATE MATERIALIZED VIEW page_views_per_minute
  REFRESH EVERY INTERVAL '1 hour'
AS SELECT page, window_start, count(*) AS views, approx_distinct(visitor) AS visitors
   FROM TUMBLE(page_views, event_time, INTERVAL '1 minute')
   GROUP BY page, window_start;

-- each row once, and again when its counts have changed: the table is the view, never more than five seconds old
CREATE SINK page_views_table FROM page_views_per_minute WITH (
  type = 'postgres',
  url = 'postgres://bifold:bifoldtest@127.0.0.1:5432/bifold',
  table = 'page_views_per_minute',
  every = '5 seconds'
);

-- an alert is a view with HAVING and a webhook in mode append: sent once, when the minute is over for events that come
-- in time
CREATE MATERIALIZED VIEW busy_pages
AS SELECT page, window_start, count(*) AS views
   FROM TUMBLE(page_views, event_time, INTERVAL '1 minute')
   GROUP BY page, window_start
   HAVING count(*) >= 100;

CREATE SINK busy_page_alerts FROM busy_pages WITH (
  type = 'webhook',
  url = 'http://127.0.0.1:8080/alerts',
  mode = 'append'
);
