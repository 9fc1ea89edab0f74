//! Event, ingestion and processing time: all of them columns that views and their windows can use, recorded once, so
//! that both layers read the same.

use serde_json::Value;

use crate::harness::{Client, Server, one, rows};

const STREAM: &str = "CREATE STREAM s (id TEXT NOT NULL, at TIMESTAMPTZ NOT NULL, PRIMARY KEY (id), \
    WATERMARK FOR at AS at - INTERVAL '1 minute') WITH (partitions = 3, time_correction = 'on')";

fn events(numbers: std::ops::Range<u32>) -> String {
    let lines = numbers.map(|n| format!("{{\"id\":\"e{n}\",\"at\":\"2024-01-01T10:{:02}:00Z\"}}", n % 60));
    lines.collect::<Vec<_>>().join("\n")
}

async fn answer(client: &Client, layer: &str, view: &str) -> Vec<Value> {
    rows(&client.sql(&format!("SELECT * FROM {layer}{view} ORDER BY 1, 2")).await).clone()
}

/// Windows over each of the times, folded by the speed layer alone, and by a run alone: the same rows.
#[tokio::test(flavor = "multi_thread")]
async fn windows_over_every_time_are_the_same_in_both_layers() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(STREAM).await;
    let times = ["at", "_append_time", "_processing_time", "_received_time", "_created_time"];
    for (number, time) in times.iter().enumerate() {
        for (name, window) in [
            ("t", format!("TUMBLE(s, {time}, INTERVAL '1 second')")),
            ("h", format!("TABLE(HOP(TABLE s, DESCRIPTOR({time}), INTERVAL '1' SECOND, INTERVAL '2' SECOND))")),
        ] {
            let select = format!(
                "SELECT window_start, window_end, count(*) AS n, max({time}) AS latest FROM {window} \
                 GROUP BY window_start, window_end"
            );
            client.sql(&format!("CREATE MATERIALIZED VIEW {name}{number} WITH (late = 'drop') AS {select}")).await;
        }
        let session = format!(
            "CREATE MATERIALIZED VIEW g{number} AS SELECT window_start, window_end, count(*) AS n \
             FROM SESSION(s, {time}, INTERVAL '1 hour') GROUP BY window_start, window_end"
        );
        client.sql(&session).await;
    }
    let age = "CREATE MATERIALIZED VIEW ages AS SELECT _time_method AS method, count(*) AS n, \
        max(_time_uncertainty_ms) AS uncertainty, bool_and(_processing_time = _append_time) AS same, \
        bool_and(_received_time <= _append_time) AS after FROM s GROUP BY _time_method";
    client.sql(age).await;
    for part in [0..40, 40..100, 100..120] {
        client.ingest("s", events(part)).await;
    }
    for (number, time) in times.iter().enumerate() {
        for name in ["t", "h", "g"] {
            let view = format!("{name}{number}");
            let speed = answer(client, "", &view).await;
            assert!(!speed.is_empty(), "{view}");
            let run = client.run(&view).await;
            assert_eq!(run["state"], "succeeded", "{view}: {run}");
            assert_eq!(answer(client, "batch.", &view).await, speed, "{view}: {time}");
        }
        // the log's own time is never late, whatever the event time is
        if *time == "_append_time" || *time == "_processing_time" {
            let total = client.sql(&format!("SELECT sum(n) FROM t{number}")).await;
            assert_eq!(*one(&total), 120, "{time}");
        }
    }
    let all = answer(client, "", "ages").await;
    assert_eq!(all, [serde_json::json!(["client", 120, null, true, true])]);
    client.exact_run("ages").await;
    for number in [1, 2, 3] {
        client.exact_run(&format!("g{number}")).await;
    }
    let same =
        client.sql("SELECT count(*) FROM t1 AS a JOIN t2 AS b USING (window_start, window_end, n, latest)").await;
    let of_one = client.sql("SELECT count(*) FROM t1").await;
    assert_eq!(one(&same), one(&of_one), "processing time is the append time, recorded once");
    server.stop().await;
}
