//! `schemas/examples/page_views.sql` with a real PostgreSQL.

use std::collections::BTreeMap;

use serde_json::json;

use super::cases::until_delivered;
use super::postgres::Database;
use super::receiver::Receiver;
use crate::harness::Server;

const EXAMPLE: &str = include_str!("../../../schemas/examples/page_views.sql");

/// Page views per page and minute, in the table every five seconds: what SQL over the events says, late ones and
/// repeated ones included.
#[tokio::test(flavor = "multi_thread")]
async fn page_views_per_minute_are_in_the_table() {
    let (database, receiver) = (Database::new(), Receiver::start().await);
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    let place = "postgres://bifold:bifoldtest@127.0.0.1:5432/bifold";
    assert!(EXAMPLE.contains(place) && EXAMPLE.contains("every = '5 seconds'"));
    // five seconds are the example's; the test does not wait for them
    client
        .sql(
            &EXAMPLE
                .replace("http://127.0.0.1:8080/alerts", &receiver.url)
                .replace(place, &database.url)
                .replace("every = '5 seconds'", "every = '50 ms'"),
        )
        .await;
    database.sql("CREATE TABLE raw (id TEXT PRIMARY KEY, page TEXT, at TIMESTAMPTZ)");
    let mut counted: BTreeMap<(String, u64), u64> = BTreeMap::new();
    for batch in 0..5_u64 {
        let (mut events, mut raw) = (String::new(), vec![]);
        for event in 0..60_u64 {
            // every tenth event is late by ten minutes
            let second = batch * 40 + event % 50 + if event % 10 == 0 { 0 } else { 600 };
            let page = ["/", "/buy", "/help"][(event % 3) as usize];
            let (id, at) =
                (format!("{batch}-{event}"), format!("2026-01-01T12:{:02}:{:02}Z", second / 60, second % 60));
            let line = json!({ "id": id, "page": page, "visitor": format!("v{}", event % 7), "event_time": at });
            events.push_str(&line.to_string());
            events.push('\n');
            raw.push(format!("('{id}', '{page}', '{at}')"));
            *counted.entry((page.to_owned(), second / 60)).or_default() += 1;
        }
        client.ingest("page_views", events.clone()).await;
        client.ingest("page_views", events).await;
        database.sql(&format!("INSERT INTO raw VALUES {}", raw.join(",")));
        until_delivered(client, "page_views_table").await;
        let same = "SELECT count(*), count(*) FILTER (WHERE t.views = r.n) FROM page_views_per_minute t FULL JOIN (SELECT \
                    page, date_trunc('minute', at) AS m, count(*) AS n FROM raw GROUP BY 1, 2) r \
                    ON t.page = r.page AND t.window_start = r.m";
        let rows = counted.len();
        assert_eq!(database.sql(same), format!("{rows}|{rows}"), "batch {batch}");
    }
    server.stop().await;
}
