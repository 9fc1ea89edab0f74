//! Late events: the window's end against the watermark of the partition's prefix, what becomes of them, and when a
//! window is final.

use serde_json::{Value, json};

use crate::harness::{Client, Server, lines, one, rows};

const STREAM: &str = "CREATE STREAM s (id TEXT NOT NULL, event_time TIMESTAMPTZ NOT NULL, PRIMARY KEY (id), \
    WATERMARK FOR event_time AS event_time - INTERVAL '15 minutes') WITH (partitions = 1)";
const SELECT: &str =
    "SELECT window_start, count(*) AS n FROM TUMBLE(s, event_time, INTERVAL '1 hour') GROUP BY window_start";

/// 14:59 late is still in its window, 15:01 late is not.
const EVENTS: [(&str, &str); 5] =
    [("a", "10:30:00"), ("b", "11:14:59"), ("in time", "10:59:00"), ("c", "11:15:00"), ("too late", "10:59:30")];

fn event(id: &str, time: &str) -> String {
    format!("{{\"id\":\"{id}\",\"event_time\":\"2024-01-01T{time}Z\"}}\n")
}

async fn send(client: &Client, events: &[(&str, &str)]) {
    for (id, time) in events {
        client.ingest("s", event(id, time)).await;
    }
}

async fn asked(client: &Client, sql: &str) -> Vec<String> {
    lines(&client.sql(sql).await)
}

/// 14:59 late is still in its window, 15:01 late is not.
#[tokio::test(flavor = "multi_thread")]
async fn fifteen_minutes_decide() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.client.sql(STREAM).await;
    server.client.sql(&format!("CREATE MATERIALIZED VIEW kept AS {SELECT}")).await;
    server.client.sql(&format!("CREATE MATERIALIZED VIEW strict WITH (late = 'drop') AS {SELECT}")).await;
    let truncated = "CREATE MATERIALIZED VIEW truncated WITH (late = 'drop') AS \
        SELECT date_trunc('hour', event_time) AS hour, count(*) AS n FROM s GROUP BY date_trunc('hour', event_time)";
    server.client.sql(truncated).await;
    send(&server.client, &EVENTS).await;
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

/// Late events are counted in their cells also where the view's subquery does not select the time.
#[tokio::test(flavor = "multi_thread")]
async fn late_events_are_counted_behind_a_subquery_without_the_time() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.client.sql(STREAM).await;
    server.client.sql("CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM (SELECT id FROM s) AS q").await;
    send(&server.client, &EVENTS).await;
    let answer = server.client.sql("SELECT n FROM v").await;
    assert_eq!(*one(&answer), 5);
    // without a window an event is late behind the watermark: also the one that is in time for its hour
    assert_eq!(answer["freshness"]["views"][0]["speed"]["late_since_cut"], 2, "{answer}");
    server.stop().await;
}

/// `late = 'side'`: the view does not count them, the view beside it has them, both layers agree on which.
#[tokio::test(flavor = "multi_thread")]
async fn late_events_are_diverted_to_a_view_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path()).await;
    server.client.sql(STREAM).await;
    let created = server.client.sql(&format!("CREATE MATERIALIZED VIEW v WITH (late = 'side') AS {SELECT}")).await;
    assert!(created.to_string().contains("created view v; created view v_late"), "{created}");
    send(&server.client, &EVENTS).await;
    let counted = "SELECT n FROM v ORDER BY window_start";
    let diverted = "SELECT id, _partition, _offset FROM v_late ORDER BY id";
    assert_eq!(asked(&server.client, counted).await, ["2", "2"]);
    assert_eq!(asked(&server.client, diverted).await, ["too late 0 4"]);
    let classes = "SELECT view, records, counted, filtered, late, balance FROM system.ledger \
        WHERE view IS NOT NULL AND layer = 'speed' ORDER BY view";
    assert_eq!(asked(&server.client, classes).await, ["v 5 4 0 1 0", "v_late 5 1 4 0 0"]);
    let run = server.client.run("v").await;
    assert_eq!(run["verdict"], "explained", "{run}");
    let certificate = server.client.certificate("v", &run).await;
    assert_eq!(certificate["explanations"][0]["events"], 1, "{certificate}");
    assert_eq!(server.client.run("v_late").await["verdict"], "exact");
    assert_eq!(asked(&server.client, "SELECT id FROM batch.v_late").await, ["too late"]);
    // one in the batch view, one in the tail; and a restart
    send(&server.client, &[("d", "12:30:00"), ("later", "10:00:01")]).await;
    server.stop().await;
    server = Server::start(folder.path()).await;
    assert_eq!(asked(&server.client, counted).await, ["2", "2", "1"]);
    assert_eq!(asked(&server.client, diverted).await, ["later 0 6", "too late 0 4"]);
    assert_eq!(asked(&server.client, "SELECT id FROM speed.v_late").await, ["later"]);
    let shown = server.client.sql("SHOW CREATE MATERIALIZED VIEW v_late").await;
    assert!(shown.to_string().contains("late = 'only'"), "{shown}");
    let refused = server.client.refused("DROP MATERIALIZED VIEW v_late").await;
    assert_eq!(refused["code"], "in_use", "{refused}");
    server.client.sql("DROP MATERIALIZED VIEW v").await;
    assert_eq!(server.client.refused("SELECT * FROM v_late").await["code"], "not_found");
    server.stop().await;
}

/// A stream's policy is its views'; names that are taken and streams without a watermark are refused.
#[tokio::test(flavor = "multi_thread")]
async fn diverting_late_events_is_refused_where_it_has_no_place() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(&STREAM.replace("partitions = 1", "partitions = 1, late = 'side'")).await;
    client.sql(&format!("CREATE MATERIALIZED VIEW w_late WITH (late = 'include') AS {SELECT}")).await;
    let refused = client.refused(&format!("CREATE MATERIALIZED VIEW w AS {SELECT}")).await;
    assert_eq!(refused["code"], "already_exists", "{refused}");
    assert_eq!(client.refused("SELECT * FROM w").await["code"], "not_found", "nothing of it was made");
    client.sql(&format!("CREATE MATERIALIZED VIEW v AS {SELECT}")).await;
    send(client, &EVENTS).await;
    assert_eq!(asked(client, "SELECT id FROM v_late").await, ["too late"]);
    client.sql("CREATE STREAM timeless (id TEXT NOT NULL, PRIMARY KEY (id))").await;
    let refused =
        client.refused("CREATE MATERIALIZED VIEW t WITH (late = 'side') AS SELECT count(*) AS n FROM timeless").await;
    assert!(refused["detail"].as_str().unwrap().contains("watermark"), "{refused}");
    server.stop().await;
}

/// A window is final when all partitions' watermarks have passed everything that is in time for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_window_is_final_when_all_partitions_have_passed_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(STREAM).await;
    client.sql(&format!("CREATE MATERIALIZED VIEW v AS {SELECT}")).await;
    let hop = "CREATE MATERIALIZED VIEW h AS SELECT window_start, count(*) AS n \
        FROM HOP(s, event_time, INTERVAL '30 minutes', INTERVAL '1 hour') GROUP BY window_start";
    client.sql(hop).await;
    client.sql("CREATE MATERIALIZED VIEW plain AS SELECT count(*) AS n FROM s").await;
    let finals = "SELECT n, window_final FROM v ORDER BY window_start";
    send(client, &[("a", "10:30:00"), ("b", "11:14:59")]).await;
    assert_eq!(asked(client, finals).await, ["1 false", "1 false"], "the watermark is at 10:59:59");
    send(client, &[("c", "11:15:00")]).await;
    assert_eq!(asked(client, finals).await, ["1 true", "2 false"]);
    // the part that is in the batch view and the part that is not are one window, at one position
    client.run("v").await;
    send(client, &[("late", "10:59:30")]).await;
    assert_eq!(asked(client, finals).await, ["2 true", "2 false"], "late = 'include' counts what comes late");
    // [10:00, 11:00) shares instants with [10:30, 11:30), and what is in time for that one counts in both
    let of_hop = "SELECT window_final FROM h ORDER BY window_start";
    assert_eq!(asked(client, of_hop).await, ["false"; 3]);
    send(client, &[("d", "11:45:00")]).await;
    assert_eq!(asked(client, of_hop).await, ["true", "false", "false", "false"]);
    // as a system column: not in *, in conditions, in look-ups, through subqueries
    assert_eq!(client.sql("SELECT * FROM v").await["columns"].as_array().unwrap().len(), 2);
    let starred = client.sql("SELECT *, window_final FROM v AS q ORDER BY 1 LIMIT 1").await;
    assert_eq!(starred["columns"].as_array().unwrap().len(), 3, "{starred}");
    assert_eq!(asked(client, "SELECT q.n FROM v AS q WHERE q.window_final").await, ["2"]);
    assert_eq!(asked(client, "SELECT count(*) FROM (SELECT n, window_final AS f FROM v) AS q WHERE f").await, ["1"]);
    let path = "/v1/views/v?select=n,window_final&window_final=eq.true";
    let found: Value = client.request("GET", path).send().await.unwrap().json().await.unwrap();
    assert_eq!(found["rows"], json!([[2, true]]), "{found}");
    for sql in
        ["SELECT window_final FROM plain", "SELECT window_final FROM batch.v", "SELECT window_final FROM speed.v"]
    {
        let refused = client.refused(sql).await;
        let text = refused.to_string();
        assert!(text.contains("window_final is of a view"), "{sql}: {text}");
    }
    server.stop().await;
}

/// The partition of two that an id is in, by the stored contract: the high half of a hash of kind, length and bytes.
fn partition_of(id: &str) -> u32 {
    let bytes = [&[5][..], &(id.len() as u32).to_le_bytes(), id.as_bytes()].concat();
    ((xxhash_rust::xxh3::xxh3_128(&bytes) >> 64) as u64 % 2) as u32
}

/// A partition without an event may bring any time: no clock declares it idle.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_final_while_a_partition_is_empty() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(&STREAM.replace("partitions = 1", "partitions = 2")).await;
    client.sql(&format!("CREATE MATERIALIZED VIEW v AS {SELECT}")).await;
    let ids = |partition: u32| (0..).map(|n| format!("n{n}")).filter(move |id| partition_of(id) == partition);
    let (first, second): (Vec<String>, String) = (ids(0).take(2).collect(), ids(1).next().unwrap());
    let finals = "SELECT window_final FROM v ORDER BY window_start LIMIT 1";
    send(client, &[(&first[0], "10:00:00"), (&first[1], "12:00:00")]).await;
    let answer = client.sql(finals).await;
    assert_eq!(answer["freshness"]["views"][0]["speed"]["to"], json!({ "0": 2, "1": 0 }), "{answer}");
    assert_eq!(*one(&answer), false);
    send(client, &[(&second, "12:00:00")]).await;
    assert_eq!(*one(&client.sql(finals).await), true);
    server.stop().await;
}
