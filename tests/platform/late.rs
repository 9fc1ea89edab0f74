//! Late events: the window's end against the watermark of the partition's prefix.

use serde_json::Value;

use crate::harness::{Server, one, rows};

const STREAM: &str = "CREATE STREAM s (id TEXT NOT NULL, event_time TIMESTAMPTZ NOT NULL, PRIMARY KEY (id), \
    WATERMARK FOR event_time AS event_time - INTERVAL '15 minutes') WITH (partitions = 1)";

fn event(id: &str, time: &str) -> String {
    format!("{{\"id\":\"{id}\",\"event_time\":\"2024-01-01T{time}Z\"}}\n")
}

/// 14:59 late is still in its window, 15:01 late is not.
#[tokio::test(flavor = "multi_thread")]
async fn fifteen_minutes_decide() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.client.sql(STREAM).await;
    let select =
        "AS SELECT window_start, count(*) AS n FROM TUMBLE(s, event_time, INTERVAL '1 hour') GROUP BY window_start";
    server.client.sql(&format!("CREATE MATERIALIZED VIEW kept {select}")).await;
    server.client.sql(&format!("CREATE MATERIALIZED VIEW strict WITH (late = 'drop') {select}")).await;
    let truncated = "CREATE MATERIALIZED VIEW truncated WITH (late = 'drop') AS \
        SELECT date_trunc('hour', event_time) AS hour, count(*) AS n FROM s GROUP BY date_trunc('hour', event_time)";
    server.client.sql(truncated).await;
    let events = [
        event("a", "10:30:00"),
        event("b", "11:14:59"),
        event("in time", "10:59:00"),
        event("c", "11:15:00"),
        event("too late", "10:59:30"),
    ];
    for one_event in events {
        server.client.ingest("s", one_event).await;
    }
    let count = |answer: &Value| rows(answer).iter().map(|row| row[0].as_i64().unwrap()).collect::<Vec<_>>();
    assert_eq!(count(&server.client.sql("SELECT n FROM kept ORDER BY window_start").await), [3, 2]);
    assert_eq!(count(&server.client.sql("SELECT n FROM strict ORDER BY window_start").await), [2, 2]);
    assert_eq!(count(&server.client.sql("SELECT n FROM truncated ORDER BY hour").await), [2, 2]);
    for (view, verdict) in [("kept", "exact"), ("strict", "explained"), ("truncated", "explained")] {
        let run = server.client.run(view).await;
        assert_eq!(run["verdict"], verdict, "{view}: {run}");
        let total = server.client.sql(&format!("SELECT sum(n) FROM {view}")).await;
        assert_eq!(*one(&total), if verdict == "exact" { 5 } else { 4 }, "{view}");
    }
    server.stop().await;
}
