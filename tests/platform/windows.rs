//! Windows in the whole platform: the worked examples, in the speed layer alone, after a run, and with one part of a
//! window in each layer.

use serde_json::{Value, json};

use crate::harness::{Server, lines_with, one, rows};

const SENSORS: &str = include_str!("../../schemas/examples/sensors.sql");
const HASHTAGS: &str = include_str!("../../schemas/examples/hashtags.sql");
const SESSIONS: &str = include_str!("../../schemas/examples/sessions.sql");
const WATERMARK: &str = include_str!("../../schemas/examples/watermark.sql");

/// A second of the test's hour.
fn time(second: u32) -> String {
    format!("2024-01-01T10:{:02}:{:02}Z", second / 60, second % 60)
}

fn visits(events: &[(&str, u32)]) -> String {
    let line = |(visitor, second): &(&str, u32)| {
        json!({ "id": format!("{visitor}{second}"), "visitor": visitor, "page": "p", "event_time": time(*second) })
            .to_string()
            + "\n"
    };
    events.iter().map(line).collect()
}

/// Columns of the rows, times as seconds of the hour.
fn table(answer: &Value) -> Vec<String> {
    let cell = |cell: &Value| match cell.as_str().and_then(|text| text.strip_prefix("2024-01-01T10:")) {
        Some(rest) => (rest[..2].parse::<u32>().unwrap() * 60 + rest[3..5].parse::<u32>().unwrap()).to_string(),
        None => cell.as_str().map_or_else(|| cell.to_string(), str::to_owned),
    };
    lines_with(answer, cell)
}

/// [0, 10] and [17, 17]; a late event bridges two sessions, one in the batch view and one in the tail.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_event_bridges_sessions_across_the_layers() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(SESSIONS).await;
    let all = "SELECT visitor, window_start, window_end, pages FROM sessions ORDER BY 1, 2";
    client.ingest("visits", visits(&[("ann", 0), ("ann", 4), ("bob", 3), ("ann", 7), ("ann", 10)])).await;
    assert_eq!(table(&client.sql(all).await), ["ann 0 10 4", "bob 3 3 1"]);
    client.exact_run("sessions").await;
    client.ingest("visits", visits(&[("ann", 17)])).await;
    assert_eq!(table(&client.sql(all).await), ["ann 0 10 4", "ann 17 17 1", "bob 3 3 1"]);
    let speed = client.sql(&all.replace("sessions", "speed.sessions")).await;
    assert_eq!(table(&speed), ["ann 17 17 1"]);
    // late: bridges what the batch view has and what only the tail has
    client.ingest("visits", visits(&[("ann", 14)])).await;
    assert_eq!(table(&client.sql(all).await), ["ann 0 17 6", "bob 3 3 1"]);
    let found = client.look_up("/v1/views/sessions?visitor=eq.ann&select=window_start,window_end,pages").await;
    assert_eq!(table(&found), ["0 17 6"]);
    let found = client.look_up(&format!("/v1/views/sessions?visitor=eq.ann&window_start=eq.{}", time(14))).await;
    assert_eq!(rows(&found).len(), 0, "no session begins there, although a part of one is stored: {found}");
    let statistics = client.sql("SELECT count(*), max(pages), avg(pages) FROM sessions").await;
    assert_eq!(table(&statistics), ["2 6 3.5"], "of whole sessions");
    client.exact_run("sessions").await;
    assert_eq!(table(&client.sql(&all.replace("sessions", "batch.sessions")).await), ["ann 0 17 6", "bob 3 3 1"]);
    let filtered =
        format!("SELECT pages FROM sessions WHERE visitor = 'ann' AND window_end = TIMESTAMPTZ '{}'", time(17));
    assert_eq!(*one(&client.sql(&filtered).await), 6);
    server.stop().await;
}

fn readings(seconds: std::ops::Range<u32>) -> String {
    let line = |second: u32| {
        let (id, celsius) = (format!("r{second}"), f64::from(second) / 10.0);
        json!({ "id": id, "sensor": "roof", "celsius": celsius, "event_time": time(second) }).to_string() + "\n"
    };
    seconds.map(line).collect()
}

/// every 10 seconds the mean temperature of the last minute; panes in both layers make one window.
#[tokio::test(flavor = "multi_thread")]
async fn the_mean_of_the_last_minute_every_ten_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(SENSORS).await;
    client.ingest("readings", readings(0..95)).await;
    for view in ["mean_temperature", "hottest_of_the_hour", "readings_per_day"] {
        client.exact_run(view).await;
    }
    client.ingest("readings", readings(95..300)).await;
    let of = |second: u32| {
        format!(
            "SELECT window_end, mean, readings FROM mean_temperature WHERE window_start = TIMESTAMPTZ '{}'",
            time(second)
        )
    };
    // seconds 60 to 119, of which the batch view has those before 95: the mean of 6.0 to 11.9
    assert_eq!(table(&client.sql(&of(60)).await), ["120 8.95 60"]);
    let path = |second: u32| {
        format!(
            "/v1/views/mean_temperature?sensor=eq.roof&window_start=eq.{}&select=window_end,mean,readings",
            time(second)
        )
    };
    let found = client.look_up(&path(60)).await;
    assert_eq!(table(&found), ["120 8.95 60"]);
    assert_eq!(rows(&client.look_up(&path(65)).await).len(), 0, "no window begins there");
    let total = client.sql("SELECT sum(readings), count(*) FROM mean_temperature").await;
    assert_eq!(table(&total), ["1800 35"], "each reading is in six windows");
    let hottest = "SELECT window_end, hottest FROM hottest_of_the_hour ORDER BY 1";
    assert_eq!(table(&client.sql(hottest).await)[..2], ["600 29.9", "1200 29.9"]);
    let days = client.sql("SELECT CAST(window_start AS TEXT), readings FROM readings_per_day").await;
    assert!(table(&days)[0].starts_with("2023-12-31T23:00:00"), "midnight in Berlin: {days}");
    for view in ["mean_temperature", "hottest_of_the_hour", "readings_per_day"] {
        client.exact_run(view).await;
    }
    assert_eq!(table(&client.sql(&of(60)).await), ["120 8.95 60"]);
    server.stop().await;
}

/// hashtags over one minute, every second. A filter on a window reads its panes and no others.
#[tokio::test(flavor = "multi_thread")]
async fn hashtags_of_the_last_minute_every_second() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(HASHTAGS).await;
    let line = |number: u32| {
        let tag = format!("tag{}", number % 5);
        json!({ "id": number.to_string(), "tag": tag, "event_time": time(number / 10) }).to_string() + "\n"
    };
    client.ingest("hashtags", (0..20_000).map(line).collect::<String>()).await;
    client.exact_run("tags_of_the_minute").await;
    let of = |second: u32| {
        let end = time(second);
        format!(
            "SELECT tag, uses FROM tags_of_the_minute WHERE window_end = TIMESTAMPTZ '{end}' ORDER BY uses DESC, tag LIMIT 2"
        )
    };
    let trending = client.sql(&of(600)).await;
    assert_eq!(table(&trending), ["tag0 120", "tag1 120"]);
    let read = trending["statistics"]["cells_read"].as_u64().unwrap();
    assert!((300..5_000).contains(&read), "60 panes of 5 tags, and the rest of their pages: {read} of 10,000");
    client
        .ingest(
            "hashtags",
            (0..7).map(|number| line(5_999).replace("5999", &format!("late{number}"))).collect::<String>(),
        )
        .await;
    assert_eq!(table(&client.sql(&of(600)).await), ["tag4 127", "tag0 120"], "late ones count in all their windows");
    assert_eq!(table(&client.sql(&of(659)).await), ["tag4 127", "tag0 120"]);
    assert_eq!(table(&client.sql(&of(660)).await)[0], "tag0 120");
    server.stop().await;
}

/// within 15 minutes of lateness an hour takes events; after that it is final.
#[tokio::test(flavor = "multi_thread")]
async fn a_watermark_of_fifteen_minutes() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(&WATERMARK.replace("partitions = 4", "partitions = 1")).await;
    let order =
        |id: &str, time: &str| json!({ "id": id, "event_time": format!("2024-01-01T{time}Z") }).to_string() + "\n";
    for (id, time) in
        [("a", "10:30:00"), ("b", "11:14:59"), ("in time", "10:59:59"), ("c", "11:15:00"), ("late", "10:59:59")]
    {
        client.ingest("orders", order(id, time)).await;
    }
    for (view, orders) in [("orders_per_hour", [3, 2]), ("orders_per_hour_final", [2, 2])] {
        for layer in ["", "speed."] {
            let answer = client.sql(&format!("SELECT orders FROM {layer}{view} ORDER BY window_start")).await;
            assert_eq!(table(&answer), orders.map(|orders| orders.to_string()), "{layer}{view}");
        }
        let run = client.run(view).await;
        assert_eq!(run["state"], "succeeded", "{run}");
        let answer = client.sql(&format!("SELECT orders FROM batch.{view} ORDER BY window_start")).await;
        assert_eq!(table(&answer), orders.map(|orders| orders.to_string()), "batch.{view}");
    }
    server.stop().await;
}

/// windows of so many records of each partition, half of one in the batch view and half in the tail.
#[tokio::test(flavor = "multi_thread")]
async fn windows_of_records_across_the_layers() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(&WATERMARK.replace("partitions = 4", "partitions = 2")).await;
    let views = [
        ("tens", "COUNT_WINDOW(orders, 10)"),
        ("last_twenty", "GLOBAL_WINDOW(orders, TRIGGER(count, 5), EVICTOR(count, 20))"),
    ];
    for (view, relation) in views {
        client
            .sql(&format!(
                "CREATE MATERIALIZED VIEW {view} WITH (late = 'drop') AS SELECT _partition AS p, window_end, \
                 count(*) AS n, min(id) AS a FROM {relation} GROUP BY _partition, window_end"
            ))
            .await;
    }
    let order = |number: u32| {
        json!({ "id": format!("o{number:03}"), "event_time": time(number * 7_919 % 3_000) }).to_string() + "\n"
    };
    client.ingest("orders", (0..60).map(order).collect::<String>()).await;
    for (view, _) in views {
        let run = client.run(view).await;
        assert_eq!(run["verdict"], "exact", "no record is late for a window of records: {run}");
    }
    client.ingest("orders", (60..100).map(order).collect::<String>()).await;
    let answer = client.sql("SELECT p, window_end, n, window_final FROM tens ORDER BY p, window_end").await;
    let to = answer["freshness"]["views"][0]["speed"]["to"].clone();
    let mut expected = vec![];
    for partition in 0..2_u64 {
        let records = to[partition.to_string()].as_u64().unwrap();
        for end in (10..=records.div_ceil(10) * 10).step_by(10) {
            let is_full = end <= records;
            expected.push(format!("{partition} {end} {} {is_full}", if is_full { 10 } else { records % 10 }));
        }
    }
    assert_eq!(table(&answer), expected);
    let fired =
        client.sql("SELECT min(n), max(n), count(*) FROM last_twenty WHERE window_final AND window_end >= 20").await;
    let results: u64 = (0..2_u64).map(|p| to[p.to_string()].as_u64().unwrap() / 5 - 3).sum();
    assert_eq!(table(&fired), [format!("20 20 {results}")]);
    let merged = client.sql("SELECT * FROM last_twenty ORDER BY 1, 2").await;
    let run = client.run("last_twenty").await;
    assert_eq!(run["verdict"], "exact", "{run}");
    assert_eq!(table(&client.sql("SELECT * FROM batch.last_twenty ORDER BY 1, 2").await), table(&merged));
    server.stop().await;
}
