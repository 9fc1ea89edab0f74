//! Mode `append` into PostgreSQL, files and a webhook: rows once each, also when the server is killed, and alerts.
//!

use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::cases::until_delivered;
use super::lines;
use super::postgres::Database;
use super::receiver::Receiver;
use crate::crash::{Running, setting};
use crate::harness::{Client, Server};

const STREAM: &str = "CREATE STREAM e (id BIGINT NOT NULL, k TEXT, at TIMESTAMPTZ NOT NULL, PRIMARY KEY (id), WATERMARK FOR \
                      at AS at - INTERVAL '5 seconds') WITH (partitions = 2)";
const VIEW: &str = "CREATE MATERIALIZED VIEW v AS SELECT k, window_start, count(*) AS n FROM TUMBLE(e, at, INTERVAL '10 \
                    seconds') GROUP BY k, window_start";

/// Ten events a second, in order: none is late.
fn body(from: u64, count: u64) -> String {
    let event = |id: u64| {
        let (second, key) = (id / 10, id % 3);
        let at = format!("2024-01-01T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60);
        format!("{}\n", json!({ "id": id, "k": format!("k{key}"), "at": at }))
    };
    (from..from + count).map(event).collect()
}

/// `kill -9` again and again: every final row is in the table and in the files once. The table has no unique index, so a
/// repeated row would be there twice.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_delivers_every_final_row_is_there_once() {
    let (kills, seed) = (setting("BIFOLD_SINK_KILLS", 12), setting("BIFOLD_TEST_SEED", 21));
    eprintln!("seed {seed}, {kills} kills");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let database = Database::new();
    // whatever is written is counted, whether it was there or not
    database.sql(
        "CREATE TABLE v (k TEXT, window_start TIMESTAMPTZ, n BIGINT, PRIMARY KEY (k, window_start)); \
         CREATE TABLE written (k TEXT, window_start TIMESTAMPTZ, n BIGINT); \
         CREATE FUNCTION note() RETURNS trigger AS 'BEGIN INSERT INTO written VALUES (NEW.*); RETURN NEW; END' LANGUAGE plpgsql; \
         CREATE TRIGGER note BEFORE INSERT OR UPDATE ON v FOR EACH ROW EXECUTE FUNCTION note()",
    );
    let folder = tempfile::tempdir().unwrap();
    let mut running = Running::start(folder.path()).await;
    running.client.sql(&format!("{STREAM}; {VIEW}")).await;
    // the deltas of the time before the first batch view are not kept
    running.client.ingest("e", body(0, 20)).await;
    running.client.run("v").await;
    let sinks = format!(
        "CREATE SINK pg FROM v WITH (type = 'postgres', url = '{}', table = 'v', mode = 'append', every = '10 ms'); \
         CREATE SINK files FROM v WITH (type = 'file', mode = 'append', every = '10 ms')",
        database.url
    );
    running.client.sql(&sinks).await;
    let mut sent = 0;
    for _ in 0..kills {
        let client = running.client.clone();
        let first = sent;
        let sending = tokio::spawn(async move {
            let mut next = first;
            while next < first + 600 {
                match client.try_ingest("e", body(next, 20)).await {
                    Ok(_) => next += 20,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(rng.random_range(20..200))).await;
        if rng.random_range(0..3) == 0 {
            let _ = running.client.request("POST", "/v1/views/v/runs").send().await;
        }
        sending.abort();
        let _ = sending.await;
        running.kill();
        running = Running::start(folder.path()).await;
        // in order: what was not sent before is not late now
        for from in (first..first + 600).step_by(20) {
            running.client.ingest("e", body(from, 20)).await;
        }
        sent = first + 600;
    }
    for sink in ["pg", "files"] {
        until_delivered(&running.client, sink).await;
    }
    let final_rows = final_rows(&running.client, sent).await;
    assert!(final_rows > 100);
    assert_eq!(database.sql("SELECT count(*) FROM written"), final_rows.to_string(), "written once each");
    assert_eq!(database.sql("SELECT count(*), min(n), max(n) FROM v"), format!("{final_rows}|33|34"));
    let files = lines(&folder.path().join("exports/files"));
    let rows = files.iter().filter(|line| line["op"] == "upsert").count() as u64;
    let distinct: std::collections::BTreeSet<String> =
        files.iter().filter(|line| line["op"] == "upsert").map(|line| line["row"].to_string()).collect();
    assert_eq!((rows, distinct.len() as u64), (final_rows, final_rows), "in the files once each");
    running.kill();
}

/// How many rows are final when the last event is so far: all windows that end five seconds before it, in both partitions.
async fn final_rows(client: &Client, sent: u64) -> u64 {
    let answer = client.sql("SELECT * FROM v").await;
    let watermark = answer["freshness"]["views"][0]["speed"]["watermark"].as_str().unwrap();
    let part = |from: usize| watermark[from..from + 2].parse::<u64>().unwrap();
    let second = part(11) * 3_600 + part(14) * 60 + part(17);
    assert!(second <= sent / 10);
    second / 10 * 3
}

/// a rule is a view with HAVING; what fulfils it is sent once, at most a second after it is final.
#[tokio::test(flavor = "multi_thread")]
async fn alert_is_sent_once_within_a_second() {
    let receiver = Receiver::start().await;
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(STREAM).await;
    let rule = "CREATE MATERIALIZED VIEW hot AS SELECT k, window_start, count(*) AS n FROM TUMBLE(e, at, INTERVAL '10 seconds') \
                GROUP BY k, window_start HAVING count(*) > 33";
    client.sql(rule).await;
    let sink =
        format!("CREATE SINK alerts FROM hot WITH (type = 'webhook', url = '{}', mode = 'append')", receiver.url);
    client.sql(&sink).await;
    client.ingest("e", body(0, 150)).await;
    until_delivered(client, "alerts").await;
    assert_eq!(alerts(&receiver).len(), 0, "the watermark is at 9.9 s");
    receiver.book.lock().refuse = 1;
    let begun = Instant::now();
    client.ingest("e", body(150, 50)).await;
    while alerts(&receiver).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(5), "no alert");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    until_delivered(client, "alerts").await;
    assert_eq!(alerts(&receiver), [json!({ "k": "k0", "window_start": "2024-01-01T00:00:00.000000Z", "n": 34 })]);
    server.stop().await;
}

fn alerts(receiver: &Receiver) -> Vec<serde_json::Value> {
    let book = receiver.book.lock();
    book.parcels.iter().flat_map(|(_, parcel)| parcel["upserts"].as_array().unwrap().clone()).collect()
}
