//! Parity: random events, random partitions, random moments of run and query. Merged, batch alone and
//! speed alone say what the oracle says, and every certificate is exact.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rstest::rstest;
use serde_json::Value;

use crate::harness::{Client, Server, config, rows};
use crate::oracle::{Cell, Event, cells, civil, float, same_float};

const HOURLY: &str = "SELECT shop, window_start, count(*) AS events, sum(n) AS n, sum(price) AS price, \
    min(n) AS least, max(n) AS most, count(*) FILTER (WHERE kind = 'buy') AS buys, approx_distinct(kind) AS kinds, \
    avg(price) AS average, bool_or(n > 0) AS positive FROM TUMBLE(events, event_time, INTERVAL '1 hour') \
    GROUP BY shop, window_start";
const KINDS: &str =
    "SELECT kind, count(n) AS events, sum(n) * 2 AS n FROM events WHERE n > 0 GROUP BY kind HAVING count(*) > 1";
const TOTAL: &str = "SELECT count(*) AS events, sum(price) AS price FROM events";

fn stream(partitions: u32) -> String {
    format!(
        "CREATE STREAM events (id TEXT NOT NULL, shop TEXT, kind TEXT NOT NULL, n BIGINT, price DOUBLE PRECISION, \
         event_time TIMESTAMPTZ NOT NULL, PRIMARY KEY (id), \
         WATERMARK FOR event_time AS event_time - INTERVAL '5 minutes') WITH (partitions = {partitions})"
    )
}

async fn create(client: &Client, partitions: u32) {
    client.sql(&stream(partitions)).await;
    for (name, sql) in [("hourly", HOURLY), ("kinds", KINDS), ("total", TOTAL)] {
        client.sql(&format!("CREATE MATERIALIZED VIEW {name} REFRESH MANUAL AS {sql}")).await;
    }
}

fn body(events: &[Event]) -> String {
    events.iter().map(|event| event.json() + "\n").collect()
}

async fn check_hourly(client: &Client, events: &[Event], layer: &str) {
    let wanted = cells(events, |e| Some((e.shop.clone(), e.time_us.div_euclid(3_600_000_000))));
    let answer = client.sql(&format!("SELECT * FROM {layer}hourly")).await;
    let mut found: BTreeMap<(Option<String>, String), &Vec<Value>> = BTreeMap::new();
    for row in rows(&answer) {
        let row = row.as_array().unwrap();
        let key = (row[0].as_str().map(str::to_owned), row[1].as_str().unwrap()[..19].to_owned());
        assert!(found.insert(key, row).is_none(), "a cell twice: {row:?}");
    }
    assert_eq!(found.len(), wanted.len(), "cells of {layer}hourly");
    for ((shop, hour), cell) in &wanted {
        let row = found.get(&(shop.clone(), civil(hour * 3_600))).unwrap_or_else(|| panic!("no cell {shop:?} {hour}"));
        check_cell(row, cell);
    }
}

fn check_cell(row: &[Value], cell: &Cell) {
    assert_eq!(row[2], Value::from(cell.count), "{row:?}");
    assert_eq!(row[3].as_i64().map(i128::from), cell.sum_n, "{row:?}");
    assert!(same_float(&row[4], cell.sum_price()), "{row:?} is not {:?}", cell.sum_price());
    assert_eq!((row[5].as_i64(), row[6].as_i64()), (cell.min_n, cell.max_n), "{row:?}");
    assert_eq!(row[7], Value::from(cell.buys), "{row:?}");
    assert_eq!(row[8], Value::from(cell.kinds.len()), "{row:?}");
    let average = cell.sum_price().map(|sum| sum / cell.price_count() as f64);
    let close = match (float(&row[9]), average) {
        (None, None) => true,
        (Some(a), Some(b)) => (a - b).abs() <= b.abs() * 1e-15,
        _ => false,
    };
    assert!(close, "{row:?} average {average:?}");
    assert_eq!(row[10].as_bool(), cell.max_n.map(|most| most > 0), "{row:?}");
}

async fn check_others(client: &Client, events: &[Event], layer: &str) {
    let positive: Vec<Event> = events.iter().filter(|e| e.n.is_some_and(|n| n > 0)).cloned().collect();
    let wanted: Vec<(String, i64, i128)> = cells(&positive, |e| Some(e.kind.clone()))
        .into_iter()
        .filter(|(_, cell)| cell.count > 1)
        .map(|(kind, cell)| (kind, cell.count, 2 * cell.sum_n.unwrap()))
        .collect();
    let answer = client.sql(&format!("SELECT kind, events, n FROM {layer}kinds ORDER BY kind")).await;
    let found: Vec<(String, i64, i128)> = rows(&answer)
        .iter()
        .map(|row| {
            (row[0].as_str().unwrap().to_owned(), row[1].as_i64().unwrap(), i128::from(row[2].as_i64().unwrap()))
        })
        .collect();
    assert_eq!(found, wanted, "{layer}kinds");
    let total = cells(events, |_| Some(())).remove(&()).unwrap_or_default();
    let answer = client.sql(&format!("SELECT * FROM {layer}total")).await;
    assert_eq!(rows(&answer)[0][0], Value::from(total.count), "{layer}total");
    assert!(same_float(&rows(&answer)[0][1], total.sum_price()), "{layer}total {answer}");
}

async fn check_all(client: &Client, events: &[Event], layer: &str) {
    check_hourly(client, events, layer).await;
    check_others(client, events, layer).await;
}

#[rstest]
#[case::one_partition(1, 1)]
#[case::four_partitions(2, 4)]
#[case::seven_partitions(3, 7)]
#[tokio::test(flavor = "multi_thread")]
async fn merged_batch_and_speed_equal_the_oracle(#[case] seed: u64, #[case] partitions: u32) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let events: Vec<Event> = (0..3_000).map(|number| Event::random(&mut rng, number)).collect();
    let (with_runs, without) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut settings = config(with_runs.path());
    settings.limits.checkpoint_interval_ms = 50;
    let server = Server::start_with(settings).await;
    let speed_only = Server::start(without.path()).await;
    create(&server.client, partitions).await;
    create(&speed_only.client, partitions).await;
    let mut sent = 0;
    while sent < events.len() {
        let chunk = rng.random_range(1..700).min(events.len() - sent);
        let answer = server.client.ingest("events", body(&events[sent..sent + chunk])).await;
        assert_eq!((&answer["accepted"], &answer["duplicates"]), (&Value::from(chunk), &Value::from(0)));
        speed_only.client.ingest("events", body(&events[sent..sent + chunk])).await;
        // a part of it again: duplicates change nothing
        let again = server.client.ingest("events", body(&events[sent..sent + chunk / 3])).await;
        assert_eq!(again["duplicates"], Value::from(chunk / 3));
        sent += chunk;
        if rng.random_bool(0.5) {
            check_all(&server.client, &events[..sent], "").await;
        }
        if rng.random_bool(0.6) {
            let view = ["hourly", "kinds", "total"][rng.random_range(0..3)];
            let run = server.client.run(view).await;
            assert_eq!((&run["state"], &run["verdict"]), (&"succeeded".into(), &"exact".into()), "{run}");
            check_all(&server.client, &events[..sent], "").await;
        }
    }
    for view in ["hourly", "kinds", "total"] {
        let run = server.client.run(view).await;
        assert_eq!(run["verdict"], "exact", "{run}");
        assert_eq!(run["rows"], Value::from(events.len()), "{run}");
    }
    check_all(&server.client, &events, "batch.").await;
    check_all(&server.client, &events, "").await;
    check_all(&speed_only.client, &events, "speed.").await;
    check_all(&speed_only.client, &events, "").await;
    server.stop().await;
    speed_only.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_freshness_block_names_the_real_coverage() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    create(&server.client, 2).await;
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let events: Vec<Event> = (0..200).map(|number| Event::random(&mut rng, number)).collect();
    server.client.ingest("events", body(&events[..150])).await;
    let run = server.client.run("total").await;
    let ingested = server.client.ingest("events", body(&events[150..])).await;
    let asked = serde_json::json!({ "sql": "SELECT * FROM total", "at_least": ingested["position"] });
    let answer = server.client.try_sql(asked).await.unwrap();
    let view = &answer["freshness"]["views"][0];
    assert_eq!(view["view"], "total");
    assert_eq!(view["batch"]["run"], run["id"]);
    assert_eq!(view["batch"]["certificate"], "exact");
    let sum = |cut: &Value| cut.as_object().unwrap().values().map(|offset| offset.as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum(&view["batch"]["cut"]), 150, "{view}");
    assert_eq!(sum(&view["speed"]["to"]), 200, "{view}");
    assert_eq!(answer["freshness"]["complete"], true);
    assert_eq!(rows(&answer)[0][0], 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_over_history_answers_right_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.client.sql(&stream(3)).await;
    let mut rng = ChaCha8Rng::seed_from_u64(10);
    let events: Vec<Event> = (0..2_000).map(|number| Event::random(&mut rng, number)).collect();
    server.client.ingest("events", body(&events[..1_200])).await;
    for (name, sql) in [("hourly", HOURLY), ("kinds", KINDS), ("total", TOTAL)] {
        server.client.sql(&format!("CREATE MATERIALIZED VIEW {name} AS {sql}")).await;
    }
    server.client.ingest("events", body(&events[1_200..])).await;
    for view in ["hourly", "kinds", "total"] {
        server.client.wait_ready(view).await;
    }
    check_all(&server.client, &events, "").await;
    let run = server.client.run("hourly").await;
    assert_eq!(run["verdict"], "exact", "{run}");
    check_all(&server.client, &events, "").await;
    server.stop().await;
}
