-- The Yahoo streaming benchmark: advertisement events, counted per campaign and ten seconds.

CREATE STREAM events (
  user_id TEXT,
  page_id TEXT,
  ad_id TEXT,
  ad_type TEXT,
  event_type TEXT,
  event_time TIMESTAMPTZ NOT NULL,
  ip_address TEXT,
  WATERMARK FOR event_time AS event_time - INTERVAL '10 seconds'
) WITH (partitions = 4);

CREATE TABLE ads (ad_id TEXT NOT NULL, campaign_id TEXT NOT NULL) FROM FILE 'ads.csv'
  WITH (join = 'pinned');  -- an ad never changes its campaign

CREATE MATERIALIZED VIEW campaign_views
  REFRESH MANUAL
AS SELECT ads.campaign_id, date_bin(INTERVAL '10 seconds', events.event_time) AS window_start, count(*) AS views
   FROM events JOIN ads ON events.ad_id = ads.ad_id
   WHERE events.event_type = 'view'
   GROUP BY ads.campaign_id, date_bin(INTERVAL '10 seconds', events.event_time);
