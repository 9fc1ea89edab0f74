-- Posts with their tags: an array that a view takes apart, and a view whose rows are the posts themselves.

CREATE STREAM posts (
  id TEXT NOT NULL,
  author TEXT NOT NULL,
  tags TEXT[],
  likes INT,
  event_time TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (id),
  WATERMARK FOR event_time AS event_time - INTERVAL '1 minute'
) WITH (partitions = 4, dedup_horizon = '24 hours');

-- How often each tag was used, by the hour: a post counts once for each of its tags.
CREATE MATERIALIZED VIEW tags_per_hour
  REFRESH MANUAL
AS SELECT tag, window_start, count(*) AS uses, count(DISTINCT author) AS authors
   FROM TUMBLE(posts, event_time, INTERVAL '1 hour') CROSS JOIN UNNEST(posts.tags) AS t(tag)
   GROUP BY tag, window_start;

-- A row for each tag of a post that somebody liked. No aggregate: the batch view is these rows as Parquet.
CREATE MATERIALIZED VIEW liked_tags
  REFRESH MANUAL
AS SELECT id, lower(author) AS author, tag, likes, event_time
   FROM posts CROSS JOIN UNNEST(posts.tags) AS t(tag)
   WHERE likes > 0;
