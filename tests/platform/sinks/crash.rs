//! `kill -9` while sinks deliver: afterwards the table and the files are the view.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::cases::{KEY, alike, body, create, until_delivered, view};
use super::postgres::Database;
use super::replayed;
use crate::crash::{Running, setting};

/// Kills in the suite; `BIFOLD_SINK_KILLS` says otherwise.
const KILLS: usize = 15;
/// Events of one life.
const EVENTS: u64 = 200;

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_delivers_the_table_and_the_files_are_the_view() {
    let (kills, seed) = (setting("BIFOLD_SINK_KILLS", KILLS), setting("BIFOLD_TEST_SEED", 9));
    eprintln!("seed {seed}, {kills} kills");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let database = Database::new();
    let folder = tempfile::tempdir().unwrap();
    let mut running = Running::start(folder.path()).await;
    create(&running.client).await;
    let script = format!(
        "CREATE SINK pg FROM v WITH (type = 'postgres', url = '{}', table = 'v', every = '10 ms'); \
         CREATE SINK files FROM v WITH (type = 'file', every = '10 ms')",
        database.url
    );
    running.client.sql(&script).await;
    let mut sent = 0;
    let mut delivered = 0;
    for kill in 0..kills {
        let client = running.client.clone();
        let first = sent;
        let sending = tokio::spawn(async move {
            let mut next = first;
            while next < first + EVENTS {
                // what is not acknowledged is sent again: ids make it the same
                match client.try_ingest("e", body(next, 10)).await {
                    Ok(_) => next += 10,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(rng.random_range(20..250))).await;
        if rng.random_range(0..3) == 0 {
            let _ = running.client.request("POST", "/v1/views/v/runs").send().await;
        }
        sending.abort();
        let _ = sending.await;
        running.kill();
        running = Running::start(folder.path()).await;
        running.client.ingest("e", body(first, EVENTS)).await;
        sent = first + EVENTS;
        if kill % 3 == 2 {
            check(&running, &database, folder.path()).await;
            delivered += 1;
        }
    }
    check(&running, &database, folder.path()).await;
    assert!(delivered > 0);
    running.kill();
}

async fn check(running: &Running, database: &Database, folder: &std::path::Path) {
    for sink in ["pg", "files"] {
        until_delivered(&running.client, sink).await;
    }
    let expected = view(&running.client).await;
    assert_eq!(alike(&database.rows("v")), alike(&expected), "the table");
    let files: Vec<String> = replayed(&folder.join("exports/files"), &KEY).values().map(ToString::to_string).collect();
    assert_eq!(alike(&files), alike(&expected), "the files");
}
