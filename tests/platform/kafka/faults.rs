//! A process that is killed and a broker that is killed: every record is counted once all the same.

use std::time::{Duration, Instant};

use super::broker::{Broker, create, event, number, shared, topic_name, until_counted};
use crate::crash::Running;
use crate::harness::{Server, one};

/// Records of others while Bifold is killed again and again. Without a key: a record that is read twice would be
/// counted twice.
#[tokio::test(flavor = "multi_thread")]
async fn kill_while_a_topic_is_read_counts_every_record_once() {
    const RECORDS: u64 = 300_000;
    const KILLS: u32 = 6;
    let (broker, topic) = (shared(), topic_name("kill"));
    broker.create_topic(&topic, 3, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path()).await;
    create(&running.client, &broker, &topic, "").await;
    let (sender, topic_of_sender) = (broker.producer(), topic.clone());
    let producing = std::thread::spawn(move || {
        for id in 0..RECORDS {
            let value = if id % 1_000 == 999 { b"{".to_vec() } else { event(id) };
            sender.send(&topic_of_sender, (id % 3) as i32, &value);
            if id % 5_000 == 0 {
                std::thread::sleep(Duration::from_millis(30));
            }
        }
        sender.flush();
    });
    let mut running = running;
    for kill in 1..=KILLS {
        let due = RECORDS * u64::from(kill) / u64::from(KILLS + 2);
        wait_for(&running, due).await;
        running.kill();
        running = Running::start(folder.path()).await;
    }
    producing.join().unwrap();
    let answer = until_counted(&running.client, RECORDS - RECORDS / 1_000).await;
    assert_eq!(answer["freshness"]["complete"], true, "{answer}");
    let sum = running.client.sql("SELECT sum(s) FROM v").await;
    assert_eq!(number(one(&sum)), (0..RECORDS).filter(|id| id % 1_000 != 999).sum::<u64>());
    let letters = "SELECT count(*), count(DISTINCT topic_partition * 1000000 + topic_offset) FROM dlq.s";
    let letters = running.client.sql(letters).await;
    assert_eq!(letters["rows"][0], serde_json::json!([RECORDS / 1_000, RECORDS / 1_000]), "bad records are kept once");
    assert_eq!(running.client.run("v").await["verdict"], "exact");
    running.kill();
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
