//! A process that is killed and a broker that is killed: every record is counted once all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::broker::{Broker, Sender, create, event, number, shared, topic_name, until_counted};
use crate::crash::{Running, setting};
use crate::harness::{Server, one};

/// Records and kills of the suite.
const RECORDS: u64 = 300_000;
const KILLS: u64 = 6;
/// One record of so many does not parse.
const BAD_EVERY: u64 = 1_000;

/// Records of others while Bifold is killed again and again. Without a key: a record that is read twice would be
/// counted twice. How many of both: `BIFOLD_RECORDS`, `BIFOLD_KILLS` (`infra/kills.sh topic`).
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "what infra/kills.sh is run for")]
async fn kill_while_a_topic_is_read_counts_every_record_once() {
    let (records, kills) = (setting("BIFOLD_RECORDS", RECORDS), setting("BIFOLD_KILLS", KILLS));
    let begun = Instant::now();
    let mut rng = ChaCha8Rng::seed_from_u64(setting("BIFOLD_TEST_SEED", 20_260_101));
    let (broker, topic) = (shared(), topic_name("kill"));
    broker.create_topic(&topic, 3, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let mut running = Running::start(folder.path()).await;
    create(&running.client, &broker, &topic, "").await;
    // a share of the records for each life, so that all of the kills hit a topic that is being written and read
    let allowed = Arc::new(AtomicU64::new(0));
    let producing = produce(broker.producer(), topic, records, Arc::clone(&allowed));
    for kill in 1..=kills {
        let share = records * kill / (kills + 1);
        let before = allowed.swap(share, Ordering::SeqCst);
        let due = before - before / BAD_EVERY + rng.random_range(0..=(share - before) / 2);
        wait_for(&running, due).await;
        running.kill();
        running = Running::start(folder.path()).await;
    }
    allowed.store(records, Ordering::SeqCst);
    producing.join().unwrap();
    let bad = records / BAD_EVERY;
    let answer = until_counted(&running.client, records - bad).await;
    assert_eq!(answer["freshness"]["complete"], true, "{answer}");
    let sum = running.client.sql("SELECT sum(s) FROM v").await;
    assert_eq!(number(one(&sum)), (0..records).filter(|id| !is_bad(*id)).sum::<u64>());
    let letters = "SELECT count(*), count(DISTINCT topic_partition * 10000000 + topic_offset) FROM dlq.s";
    let letters = running.client.sql(letters).await;
    assert_eq!(letters["rows"][0], serde_json::json!([bad, bad]), "bad records are kept once");
    let ledger = "SELECT CAST(sum(received) AS BIGINT), CAST(sum(accepted) AS BIGINT), CAST(sum(quarantined) AS BIGINT), \
        CAST(sum(abs(balance)) AS BIGINT) FROM system.ledger WHERE layer = 'ingest'";
    let ledger = running.client.sql(ledger).await;
    assert_eq!(ledger["rows"][0], serde_json::json!([records, records - bad, bad, 0]), "the ledger has every record");
    let run = running.client.run("v").await;
    assert_eq!((&run["verdict"], number(&run["rows"])), (&"exact".into(), records - bad), "{run}");
    running.kill();
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    println!("\na topic of others: {records} records, {kills} kills of Bifold, {minutes:.1} minutes");
    println!("  counted {} once each, {bad} bad ones in the dead letters once each, run exact", records - bad);
}

fn is_bad(id: u64) -> bool {
    id % BAD_EVERY == BAD_EVERY - 1
}

/// A producer that is not ours: writes records as far as it is allowed to.
fn produce(sender: Sender, topic: String, records: u64, allowed: Arc<AtomicU64>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for id in 0..records {
            while id >= allowed.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            let value = if is_bad(id) { b"{".to_vec() } else { event(id) };
            sender.send(&topic, (id % 3) as i32, &value);
        }
        sender.flush();
    })
}

async fn wait_for(running: &Running, records: u64) {
    let begun = Instant::now();
    loop {
        let answer = running.client.sql("SELECT coalesce(sum(c), 0) FROM v").await;
        if number(one(&answer)) >= records {
            return;
        }
        assert!(begun.elapsed() < crate::harness::PATIENCE, "{records} records did not come: {answer}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// a broker that stops and comes back is survived without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn broker_that_is_killed_and_comes_back_is_read_on() {
    let (broker, topic) = (Broker::start_new(""), topic_name("broker"));
    broker.create_topic(&topic, 2, &[]).await;
    let sender = broker.producer();
    (0..1_000).for_each(|id| sender.send(&topic, (id % 2) as i32, &event(id)));
    sender.flush();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    create(&server.client, &broker, &topic, "").await;
    until_counted(&server.client, 1_000).await;
    broker.script("kill", "");
    let down = "SELECT problem FROM system.streams";
    super::broker::until(&server.client, down, |answer| one(answer).as_str().is_some()).await;
    let answer = until_counted(&server.client, 1_000).await;
    assert!(
        answer["freshness"]["sources"][0]["problem"].is_string(),
        "an answer says that its topic is not read: {answer}"
    );
    broker.script("start", "");
    (1_000..2_000).for_each(|id| sender.send(&topic, (id % 2) as i32, &event(id)));
    sender.flush();
    let answer = until_counted(&server.client, 2_000).await;
    assert_eq!(answer["freshness"]["complete"], true, "{answer}");
    super::broker::until(&server.client, down, |answer| one(answer).is_null()).await;
    server.stop().await;
    broker.script("wipe", "");
}

/// a platform whose broker is away starts, serves what it can, and goes on when the broker is back.
#[tokio::test(flavor = "multi_thread")]
async fn platform_starts_without_the_broker_of_a_log_and_goes_on_with_it() {
    let broker = Broker::start_new("");
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    super::log::create(&server.client, &broker).await;
    server.client.sql("CREATE STREAM local (id TEXT NOT NULL, PRIMARY KEY (id))").await;
    server.client.ingest("s", super::log::body(0..500)).await;
    until_counted(&server.client, 500).await;
    server.stop().await;
    broker.script("kill", "");
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    assert_eq!(client.ingest("local", "{\"id\":\"1\"}").await["accepted"], 1);
    let (status, problem) = client.try_ingest("s", super::log::body(500..600)).await.unwrap_err();
    assert_eq!((status, problem["code"].as_str()), (503, Some("storage_unavailable")), "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.starts_with("stream s: waits for the broker of its log: "), "{detail}");
    let (status, problem) = client.try_sql(serde_json::json!({ "sql": "SELECT * FROM v" })).await.unwrap_err();
    assert_eq!(status, 503, "{problem}");
    let ready: serde_json::Value = client.request("GET", "/readyz").send().await.unwrap().json().await.unwrap();
    assert_eq!((&ready["status"], ready["waiting"].as_array().map(Vec::len)), (&"ready".into(), Some(1)), "{ready}");
    broker.script("start", "");
    until_counted(client, 500).await;
    let told = client.ingest("s", super::log::body(450..600)).await;
    assert_eq!((&told["accepted"], &told["duplicates"]), (&100.into(), &50.into()), "{told}");
    until_counted(client, 600).await;
    assert_eq!(client.run("v").await["verdict"], "exact");
    server.stop().await;
    broker.script("wipe", "");
}

/// Retention passes a connector that is running, and behind: what it did not get is a hole from there on.
#[tokio::test(flavor = "multi_thread")]
async fn retention_that_passes_a_running_connector_is_a_hole() {
    let (broker, topic) = (shared(), topic_name("overtaken"));
    broker.create_topic(&topic, 1, &[]).await;
    let sender = broker.producer();
    (0..10).for_each(|id| sender.send(&topic, 0, &event(id)));
    sender.flush();
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path()).await;
    create(&running.client, &broker, &topic, "").await;
    until_counted(&running.client, 10).await;
    running.signal("STOP");
    // a fetch that is under way brings what comes first
    for ids in [10..20, 20..1_000] {
        ids.for_each(|id| sender.send(&topic, 0, &event(id)));
        sender.flush();
    }
    broker.delete_records(&topic, 0, 600).await;
    running.signal("CONT");
    (1_000..1_100).for_each(|id| sender.send(&topic, 0, &event(id)));
    sender.flush();
    let sql = "SELECT coalesce(sum(c), 0) FROM v";
    let answer = super::broker::until(&running.client, sql, |answer| {
        answer["freshness"]["complete"] == false && number(one(answer)) >= 510
    });
    let answer = answer.await;
    let hole = &answer["freshness"]["holes"][0];
    let (from, to) = (hole["from"].as_u64().unwrap(), hole["to"].as_u64().unwrap());
    assert!((10..600).contains(&from) && to == 600, "{answer}");
    assert_eq!((answer["freshness"]["holes"].as_array().unwrap().len(), &hole["reason"]), (1, &"retention".into()));
    let counted = until_counted(&running.client, from + 500).await;
    assert_eq!(counted["freshness"]["complete"], false, "{counted}");
    let sum = running.client.sql("SELECT sum(s) FROM v").await;
    assert_eq!(number(one(&sum)), (0..from).chain(600..1_100).sum::<u64>());
    assert_eq!(running.client.run("v").await["verdict"], "exact");
    running.kill();
}
