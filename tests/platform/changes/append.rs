//! Mode `append`: each row once, when its window is final; what late records change is a correction.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rstest::rstest;
use serde_json::{Value, json};

use super::Follower;
use crate::harness::{Client, Server};

const DELAY_S: u64 = 20;

async fn create(client: &Client, view: &str) {
    let stream = "CREATE STREAM e (id BIGINT NOT NULL, k TEXT, at TIMESTAMPTZ NOT NULL, PRIMARY KEY (id), \
                  WATERMARK FOR at AS at - INTERVAL '20 seconds') WITH (partitions = 2)";
    client.sql(&format!("{stream}; CREATE MATERIALIZED VIEW v AS {view}")).await;
}

fn event(id: u64, key: u64, second: u64) -> String {
    let at = format!("2024-01-01T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60);
    format!("{}\n", json!({ "id": id, "k": format!("k{key}"), "at": at }))
}

/// When a window is final, from its row: brute force over the seconds.
fn final_from(shape: &str, row: &Value) -> u64 {
    let seconds = |name: &str| {
        let text = row[name].as_str().unwrap();
        let part = |from: usize| text[from..from + 2].parse::<u64>().unwrap();
        part(11) * 3_600 + part(14) * 60 + part(17)
    };
    match shape {
        "tumble" => seconds("window_end"),
        // the last window of the window's last second
        "hop" => (seconds("window_end") - 1) / 10 * 10 + 30,
        // what joins a session is at most 5 s after its last event, and late when the watermark is more than 5 s behind it
        _ => seconds("window_end") + 11,
    }
}

const VIEWS: [(&str, &str); 3] = [
    (
        "tumble",
        "SELECT k, window_start, window_end, count(*) AS n FROM TUMBLE(e, at, INTERVAL '30 seconds') GROUP BY k, window_start, \
         window_end",
    ),
    (
        "hop",
        "SELECT k, window_start, window_end, count(*) AS n FROM HOP(e, at, INTERVAL '10 seconds', INTERVAL '30 seconds') \
         GROUP BY window_start, window_end, k",
    ),
    (
        "session",
        "SELECT k, window_start, window_end, count(*) AS n FROM SESSION(e, k, at, INTERVAL '5 seconds') GROUP BY k, \
         window_start, window_end",
    ),
];

/// Rows come once, none before it is final, and rows with their corrections are the final part of the view: over
/// hang-ups, runs and restarts.
#[rstest]
#[case::tumble(0, 1)]
#[case::tumble_again(0, 2)]
#[case::hop(1, 3)]
#[case::session(2, 4)]
#[tokio::test(flavor = "multi_thread")]
async fn each_row_comes_once_when_it_is_final(#[case] view: usize, #[case] seed: u64) {
    let (shape, sql) = VIEWS[view];
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path()).await;
    create(&server.client, sql).await;
    let mut follower = Follower::of("v", "append");
    let (mut finals, mut corrected): (BTreeMap<String, Value>, u64) = (BTreeMap::new(), 0);
    let (mut sent, mut now) = (0_u64, 100_u64);
    for round in 0..14 {
        let mut events = String::new();
        for _ in 0..rng.random_range(5..40) {
            now += rng.random_range(0..4);
            // one in eight is late
            let late = if rng.random_range(0..8) == 0 { rng.random_range(0..90) } else { 0 };
            events.push_str(&event(sent, rng.random_range(0..4), now.saturating_sub(late)));
            sent += 1;
        }
        server.client.ingest("e", events).await;
        if rng.random_range(0..5) == 0 {
            assert_eq!(server.client.run("v").await["verdict"], "exact");
        }
        if round % 6 == 5 && shape != "session" {
            server.stop().await;
            server = Server::start(folder.path()).await;
        }
        follower.follow(&server.client, sent).await;
        take(&mut follower, &mut finals, &mut corrected);
    }
    // the smallest watermark of both partitions: found from the coverage
    let answer = server.client.sql("SELECT * FROM v").await;
    let watermark = answer["freshness"]["views"][0]["speed"]["watermark"].as_str().unwrap();
    let watermark = final_from("tumble", &json!({ "window_end": watermark }));
    let names: Vec<&str> = answer["columns"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    let mut expected: BTreeMap<String, Value> = BTreeMap::new();
    let mut open = 0;
    for row in answer["rows"].as_array().unwrap() {
        let row: serde_json::Map<String, Value> =
            names.iter().zip(row.as_array().unwrap()).map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
        let row = Value::Object(row);
        if final_from(shape, &row) <= watermark {
            expected.insert(key(&row), row);
        } else {
            open += 1;
        }
    }
    assert!(open > 0 && !expected.is_empty(), "{open} open, {} final", expected.len());
    assert_eq!(finals, expected);
    if shape != "session" {
        assert_eq!(follower.again, 0, "a row came twice: {:?}", follower.seen);
        assert!(corrected > 0, "no late record hit a final window: {:?}", follower.seen);
    }
    server.stop().await;
}

fn key(row: &Value) -> String {
    format!("{} {} {}", row["k"], row["window_start"], row["window_end"])
}

/// What the follower has been told: its rows, then the corrections of them.
fn take(follower: &mut Follower, finals: &mut BTreeMap<String, Value>, corrected: &mut u64) {
    for correction in follower.corrections.drain(..) {
        for row in correction["upserts"].as_array().unwrap() {
            follower
                .rows
                .insert(follower.key.iter().map(|n| row[n].to_string()).collect::<Vec<_>>().join(","), row.clone());
            *corrected += 1;
        }
        for gone in correction["deletes"].as_array().unwrap() {
            follower.rows.remove(&follower.key.iter().map(|n| gone[n].to_string()).collect::<Vec<_>>().join(","));
        }
    }
    *finals = follower.rows.values().map(|row| (key(row), row.clone())).collect();
}

/// Where nothing is late nothing is corrected, whoever hangs up when; and who stays gets each row once, too.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_corrected_where_nothing_is_late() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    create(client, VIEWS[0].1).await;
    let (mut comes_back, mut stays) = (Follower::of("v", "append"), Follower::of("v", "append"));
    let mut open = stays.connect(client).await;
    let mut sent = 0;
    for round in 0..20_u64 {
        let events: String = (0..30).map(|i| event(round * 30 + i, i % 3, round * 10 + i / 3)).collect();
        client.ingest("e", events).await;
        sent += 30;
        comes_back.follow(client, sent).await;
        stays.follow_on(&mut open, sent).await;
        if round % 7 == 6 {
            client.run("v").await;
        }
    }
    for follower in [&comes_back, &stays] {
        assert_eq!((follower.corrections.len(), follower.again), (0, 0), "{:?}", follower.seen);
        assert!(follower.rows.len() >= 12, "{:?}", follower.rows);
    }
    assert_eq!(comes_back.rows, stays.rows);
    drop(open);
    server.stop().await;
}

/// A row that is not final is not there, and a moment later it is.
#[tokio::test(flavor = "multi_thread")]
async fn row_waits_for_the_watermark_of_every_partition() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    create(client, VIEWS[0].1).await;
    let mut sent = 0;
    let mut send = async |seconds: std::ops::Range<u64>| {
        let events: String = seconds.map(|second| event(second, 1, second)).collect();
        sent += events.lines().count() as u64;
        client.ingest("e", events).await;
        sent
    };
    let mut follower = Follower::of("v", "append");
    let records = send(0..30 + DELAY_S).await;
    follower.follow(client, records).await;
    assert_eq!(follower.rows.len(), 0, "the watermark is at most 29 s: {:?}", follower.rows);
    let records = send(30 + DELAY_S..30 + DELAY_S + 20).await;
    follower.follow(client, records).await;
    let rows: Vec<&Value> = follower.rows.values().collect();
    assert_eq!(
        rows,
        [&json!({ "k": "k1", "window_start": "2024-01-01T00:00:00.000000Z",
                               "window_end": "2024-01-01T00:00:30.000000Z", "n": 30 })]
    );
    server.stop().await;
}

#[rstest]
#[case::no_window("SELECT k, count(*) AS n FROM e GROUP BY k")]
#[case::one_row("SELECT count(*) AS n FROM e")]
#[tokio::test(flavor = "multi_thread")]
async fn view_whose_rows_are_never_final_is_refused(#[case] sql: &str) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    create(&server.client, sql).await;
    let answer = server.client.request("GET", "/v1/views/v/changes?mode=append").send().await.unwrap();
    assert_eq!(answer.status(), 501);
    let problem: Value = answer.json().await.unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("its rows never are"), "{problem}");
    let refused = server.client.refused("CREATE SINK s FROM v WITH (type = 'stdout', mode = 'append')").await;
    assert_eq!(refused["code"], "unsupported", "{refused}");
    server.stop().await;
}
