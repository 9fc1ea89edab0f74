//! The edges of ingest: dead letters and their replay, the ledger, identity.

use std::path::Path;

use clap::Parser;
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{Client, Server, config, one, rows};

const STREAM: &str = "CREATE STREAM s (id TEXT NOT NULL, kind TEXT, files INT NOT NULL, event_time TIMESTAMPTZ NOT NULL, \
    PRIMARY KEY (id), WATERMARK FOR event_time AS event_time - INTERVAL '15 minutes') WITH (partitions = 2)";

fn event(id: &str, files: &str) -> String {
    format!("{{\"id\":\"{id}\",\"kind\":\"k\",\"files\":{files},\"event_time\":\"2024-01-01T10:30:00Z\"}}\n")
}

async fn get(client: &Client, path: &str) -> (u16, Value) {
    let answer = client.request("GET", path).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn replay(client: &Client, body: Value) -> (u16, Value) {
    let request = client.request("POST", "/v1/streams/s/dead_letters/replay").json(&body);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// Sums over `system.ledger` of what came in.
async fn intake(client: &Client) -> Value {
    let sums = "received) AS BIGINT), CAST(sum(replayed) AS BIGINT), CAST(sum(accepted) AS BIGINT), CAST(sum(duplicates) \
        AS BIGINT), CAST(sum(conflicts) AS BIGINT), CAST(sum(quarantined) AS BIGINT), CAST(sum(abs(balance)) AS BIGINT";
    let sql = format!("SELECT CAST(sum({sums}) FROM system.ledger WHERE layer = 'ingest' AND stream = 's'");
    rows(&client.sql(&sql).await)[0].clone()
}

/// Counts by name, in the order of [`ReplayAnswer`].
fn counts(answer: &Value) -> Vec<u64> {
    let names = ["selected", "replayed", "accepted", "duplicates", "still_bad", "already_replayed"];
    names.iter().map(|name| answer[name].as_u64().unwrap_or_else(|| panic!("{name} in {answer}"))).collect()
}

/// kept to the byte, corrected, replayed once however often it is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_kept_to_the_byte_and_replayed_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(STREAM).await;
    client
        .sql("CREATE MATERIALIZED VIEW v AS SELECT kind, sum(files) AS files, count(*) AS n FROM s GROUP BY kind")
        .await;
    let long = format!("{{\"id\":\"long\",\"files\":\"{}\"}}", "x".repeat(200_000));
    let mut body = event("good", "1").into_bytes();
    body.extend_from_slice(b"\xff\xfe not text\n");
    body.extend_from_slice(event("a", "\"many\"").as_bytes());
    body.extend_from_slice(long.as_bytes());
    body.push(b'\n');
    body.extend_from_slice(event("b", "\"few\"").as_bytes());
    let answer = client.ingest("s", body).await;
    assert_eq!((&answer["accepted"], &answer["quarantined"]), (&json!(1), &json!(4)));

    let (_, list) = get(client, "/v1/streams/s/dead_letters?limit=3").await;
    let letters = list["dead_letters"].as_array().unwrap();
    assert_eq!((letters.len(), &list["next"]), (3, &json!(3)));
    assert_eq!((&letters[0]["raw"], &letters[0]["code"]), (&Value::Null, &json!("bad_json")));
    assert_eq!((&letters[1]["column"], &letters[1]["index"]), (&json!("files"), &json!(2)));
    let raw = |offset: u32| client.request("GET", &format!("/v1/streams/s/dead_letters/{offset}/raw")).send();
    assert_eq!(raw(0).await.unwrap().bytes().await.unwrap(), &b"\xff\xfe not text"[..]);
    assert_eq!(raw(2).await.unwrap().bytes().await.unwrap(), long);
    assert_eq!(get(client, "/v1/streams/s/dead_letters/4").await.0, 404);

    let (status, answer) = replay(client, json!({})).await;
    assert_eq!((status, counts(&answer)), (200, vec![4, 0, 0, 0, 4, 0]), "{answer}");
    assert_eq!(answer["errors"][1]["offset"], 1);
    let fix = json!({ "offsets": [1, 3], "set": { "files": "7" } });
    let (status, answer) = replay(client, fix.clone()).await;
    assert_eq!((status, counts(&answer)), (200, vec![2, 2, 2, 0, 0, 0]), "{answer}");
    let (_, again) = replay(client, fix.clone()).await;
    assert_eq!(counts(&again), [2, 0, 0, 0, 0, 2]);
    let answer = json!({ "sql": "SELECT files, n FROM v", "at_least": answer["position"] });
    assert_eq!(rows(&client.try_sql(answer).await.unwrap())[0], json!([15, 3]));
    // a whole new text that is an event already known: a duplicate like any other
    let (_, answer) = replay(client, json!({ "offsets": [0], "raw": event("a", "7") })).await;
    assert_eq!(counts(&answer), [1, 1, 0, 1, 0, 0]);
    assert_eq!(intake(client).await, json!([5, 3, 3, 1, 0, 4, 0]));

    let marks = "SELECT count(*), count(replayed_at) FROM dlq.s";
    assert_eq!(rows(&client.sql(marks).await)[0], json!([4, 3]));
    server.stop().await;
    let server = Server::start(folder.path()).await;
    assert_eq!(rows(&server.client.sql(marks).await)[0], json!([4, 3]));
    let (_, again) = replay(&server.client, fix).await;
    assert_eq!(counts(&again), [2, 0, 0, 0, 0, 2]);
    assert_eq!(intake(&server.client).await, json!([5, 3, 3, 1, 0, 4, 0]));
    assert_eq!(rows(&server.client.sql("SELECT files, n FROM v").await)[0], json!([15, 3]));
    server.stop().await;
}

#[rstest]
#[case::no_such_column(json!({ "set": { "flies": 1 } }), 404, "did you mean files?")]
#[case::no_such_letter(json!({ "offsets": [7] }), 404, "")]
#[case::raw_for_many(json!({ "raw": "{}" }), 400, "")]
#[case::unknown_field(json!({ "ofsets": [1] }), 400, "")]
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_makes_no_sense_is_refused(#[case] body: Value, #[case] status: u16, #[case] hint: &str) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.client.sql(STREAM).await;
    server.client.ingest("s", "{}").await;
    let (found, problem) = replay(&server.client, body).await;
    assert_eq!(found, status, "{problem}");
    assert_eq!(problem["hint"].as_str().unwrap_or_default(), hint);
    assert_eq!(intake(&server.client).await, json!([1, 0, 0, 0, 0, 1, 0]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_replays() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.client.sql(STREAM).await;
    server.client.ingest("s", event("a", "\"x\"") + &event("b", "\"y\"")).await;
    let run = |words: &[&str]| {
        let all = ["bifold", "--url", server.platform.url(), "--token", server.platform.token(), "dlq"];
        let arguments = bifold::arguments::Arguments::try_parse_from(all.iter().chain(words).copied()).unwrap();
        bifold::commands::dispatch(arguments)
    };
    run(&["ls"]).await.unwrap();
    run(&["show", "s", "--offset", "0", "--raw"]).await.unwrap();
    let failure = run(&["replay", "s"]).await.unwrap_err();
    assert!(failure.to_string().contains("2 dead letters of s do not fit yet"), "{failure}");
    run(&["replay", "s", "--offset", "1", "--set", "files=4"]).await.unwrap();
    run(&["replay", "s", "--set", "files=5", "--set", "kind=fixed"]).await.unwrap();
    run(&["replay", "s", "--set", "files=6"]).await.unwrap();
    assert_eq!(intake(&server.client).await, json!([2, 2, 2, 0, 0, 2, 0]));
    server.stop().await;
}

async fn where_is(client: &Client, id: &str) -> Value {
    let (status, answer) = get(client, &format!("/v1/events/s/{id}")).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

/// I11: each class is counted, durably; the certificate has it; every event can be asked for.
#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_balances_and_knows_every_event() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(STREAM).await;
    client.sql("CREATE MATERIALIZED VIEW v AS SELECT kind, count(*) AS n FROM s WHERE files > 0 GROUP BY kind").await;
    let hourly =
        "SELECT window_start, count(*) AS n FROM TUMBLE(s, event_time, INTERVAL '1 hour') GROUP BY window_start";
    client.sql(&format!("CREATE MATERIALIZED VIEW strict WITH (late = 'drop') AS {hourly}")).await;
    for body in [event("a", "1"), event("b", "0") + &event("a", "1"), event("b", "9") + "{\"id\":\"c\"}\n"] {
        client.ingest("s", body).await;
    }
    let expected = json!([5, 0, 2, 2, 1, 1, 0]);
    assert_eq!(intake(client).await, expected);
    let run = client.run("v").await;
    assert_eq!(run["verdict"], "exact", "{run}");
    let certificate = client.certificate("v", &run).await;
    let intake_check = &certificate["ledger"]["intake"];
    for (name, count) in [("received", 5), ("accepted", 2), ("duplicates", 2), ("conflicts", 1), ("quarantined", 1)] {
        assert_eq!(intake_check[name], count, "{name}: {certificate}");
    }
    assert_eq!((&intake_check["balance"], &intake_check["landed"]), (&json!(0), &json!(2)));
    assert_eq!(one(&client.sql("SELECT ok FROM recon.v WHERE \"check\" = 'intake'").await), &json!(true));

    let a = where_is(client, "a").await;
    assert_eq!(
        (&a["state"], &a["landed"], &a["is_within_dedup_horizon"]),
        (&json!("kept"), &json!(true), &json!(true))
    );
    assert!(a["landed_file"].as_str().unwrap().ends_with(".parquet"), "{a}");
    let strict = json!({ "view": "strict", "status": "counted", "layer": "speed", "run": null,
        "cells": [{ "window_start": "2024-01-01T10:00:00Z" }] });
    let v = json!({ "view": "v", "status": "counted", "layer": "batch", "run": run["id"], "cells": [{ "kind": "k" }] });
    assert_eq!(a["views"], json!([strict, v]));
    let b = where_is(client, "b").await;
    assert_eq!((&b["views"][1]["status"], &b["views"][1]["cells"]), (&json!("filtered"), &json!([])));
    let c = where_is(client, "c").await;
    assert_eq!((&c["state"], &c["dead_letters"][0]["code"]), (&json!("quarantined"), &json!("missing_value")));
    assert_eq!(where_is(client, "d").await["state"], "unknown");
    assert_eq!(get(client, "/v1/events/t/a").await.0, 404);
    server.stop().await;
    let server = Server::start(folder.path()).await;
    assert_eq!(intake(&server.client).await, expected);
    assert_eq!(where_is(&server.client, "a").await["position"], a["position"]);
    server.stop().await;
}

fn files_in(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

/// Ids that memory has no room for are on disk, and found there, before and after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn duplicates_are_found_on_disk_too() {
    let folder = tempfile::tempdir().unwrap();
    let small = || {
        let mut config = config(folder.path());
        config.limits.dedup_ids_in_memory_max = 2_000;
        config
    };
    let server = Server::start_with(small()).await;
    server.client.sql(STREAM).await;
    let id = one(&server.client.sql("SELECT id FROM system.streams").await).as_str().unwrap().to_owned();
    let body = |part: usize| (0..500).map(|n| event(&format!("e{}", part * 500 + n), "1")).collect::<String>();
    for part in 0..20 {
        assert_eq!(offer(&server.client, body(part)).await["accepted"], 500);
    }
    for part in 0..20 {
        assert_eq!(offer(&server.client, body(part)).await["duplicates"], 500, "{part}");
    }
    server.stop().await;
    assert!(files_in(&folder.path().join("log").join(id).join("ids")) > 0);
    let server = Server::start_with(small()).await;
    for part in (0..20).rev() {
        let answer = offer(&server.client, body(part)).await;
        assert_eq!((&answer["duplicates"], &answer["conflicts"]), (&json!(500), &json!(0)), "{part}");
    }
    assert_eq!(intake(&server.client).await, json!([30_000, 0, 10_000, 20_000, 0, 0, 0]));
    server.stop().await;
}

/// Sends again while the server says that it is full: the ids are on their way to disk.
async fn offer(client: &Client, body: String) -> Value {
    loop {
        match client.try_ingest("s", body.clone()).await {
            Ok(answer) => return answer,
            Err((429, _)) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            Err(problem) => panic!("{problem:?}"),
        }
    }
}

/// whatever a client's clock says, the event is counted where it happened.
#[tokio::test(flavor = "multi_thread")]
async fn event_times_are_corrected_and_say_how() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(&STREAM.replace("partitions = 2", "partitions = 1, time_correction = 'on'")).await;
    client
        .sql(
            "CREATE MATERIALIZED VIEW v AS SELECT id, max(event_time) AS at, max(_created_time) AS created, \
        max(_received_time) AS received, max(_time_method) AS method, max(_time_uncertainty_ms) AS wrong_ms \
        FROM s GROUP BY id",
        )
        .await;
    let (_, time) = get(client, "/v1/time").await;
    let now_us = time["sent_us"].as_i64().unwrap();
    // three hours ahead, as a sync has found; an event of ten minutes ago
    let (skew_ms, age_ms) = (3 * 3_600_000, 600_000);
    let sent_ms = now_us / 1_000 + skew_ms;
    let line =
        |id: &str, extra: &str| format!("{{\"id\":\"{id}\",\"files\":1,\"event_time\":{}{extra}}}\n", sent_ms - age_ms);
    let send = |headers: Vec<(&'static str, String)>, body: String| {
        let request = client.request("POST", "/v1/streams/s/events?wait=visible").body(body);
        headers.into_iter().fold(request, |request, (name, value)| request.header(name, value)).send()
    };
    let clock = || vec![("bifold-clock-offset-ms", (-skew_ms).to_string()), ("bifold-clock-round-trip-ms", "7".into())];
    let sent = || vec![("bifold-sent-at", sent_ms.to_string())];
    let age = format!(",\"_age_ms\":{age_ms}");
    send(clock(), line("sync", "")).await.unwrap().error_for_status().unwrap();
    send([clock(), sent()].concat(), line("sync_age", &age)).await.unwrap().error_for_status().unwrap();
    send(sent(), line("sent", "")).await.unwrap().error_for_status().unwrap();
    send(vec![], line("age", &age)).await.unwrap().error_for_status().unwrap();
    send(vec![], line("client", "")).await.unwrap().error_for_status().unwrap();
    let bad = send(vec![("bifold-clock-offset-ms", "1".into())], line("x", "")).await.unwrap();
    assert_eq!(bad.status(), 400);
    // a dead letter is corrected as it would have been when it came
    let broken = line("replayed", "").replace("\"files\":1", "\"files\":\"x\"");
    send(sent(), broken).await.unwrap().error_for_status().unwrap();
    let (_, answer) = replay(client, json!({ "set": { "files": "1" } })).await;
    let sql =
        "SELECT id, method, wrong_ms, to_unixtime(at), to_unixtime(created), to_unixtime(received) FROM v ORDER BY id";
    let answer = client.try_sql(json!({ "sql": sql, "at_least": answer["position"] })).await.unwrap();
    let expected = [
        ("age", "age"),
        ("client", "client_clamped"),
        ("replayed", "sent"),
        ("sent", "sent"),
        ("sync", "sync"),
        ("sync_age", "sync"),
    ];
    assert_eq!(rows(&answer).len(), expected.len(), "{answer}");
    for (row, (id, method)) in rows(&answer).iter().zip(expected) {
        assert_eq!((&row[0], &row[1]), (&json!(id), &json!(method)), "{answer}");
        assert_eq!(row[2], if method == "sync" { json!(4) } else { Value::Null }, "{id}");
        let at_s = row[3].as_i64().unwrap();
        let due_s = now_us / 1_000_000 - if id == "client" { 0 } else { age_ms / 1_000 };
        assert!((at_s - due_s).abs() <= 60, "{id}: {at_s} where about {due_s} is due");
        assert_eq!(row[4].as_i64().unwrap(), (sent_ms - age_ms) / 1_000, "{id}");
        assert!((row[5].as_i64().unwrap() - now_us / 1_000_000).abs() <= 60, "{id}");
    }
    // an event that is sent again is a duplicate, and no conflict for its other arrival
    let again = send(sent(), line("sent", "")).await.unwrap().json::<Value>().await.unwrap();
    assert_eq!((&again["duplicates"], &again["conflicts"]), (&json!(1), &json!(0)));
    let made = client.sql("SHOW CREATE STREAM s").await;
    assert!(made.to_string().contains("time_correction = 'on'") && !made.to_string().contains("_created"), "{made}");
    let run = client.run("v").await;
    assert_eq!(run["verdict"], "exact", "{run}");
    server.stop().await;
}

#[rstest]
#[case::no_event_time("CREATE STREAM t (id TEXT, PRIMARY KEY (id)) WITH (time_correction = 'on')")]
#[case::time_in_the_key(
    "CREATE STREAM t (id TEXT, at TIMESTAMPTZ, PRIMARY KEY (id, at), WATERMARK FOR at AS at) \
    WITH (time_correction = 'on')"
)]
#[case::no_switch("CREATE STREAM t (id TEXT, at TIMESTAMPTZ, WATERMARK FOR at AS at) WITH (time_correction = 'maybe')")]
#[tokio::test(flavor = "multi_thread")]
async fn a_correction_that_cannot_be_is_refused(#[case] sql: &str) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    assert_eq!(server.client.refused(sql).await["code"], "invalid_sql");
    server.stop().await;
}
