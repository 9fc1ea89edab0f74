//! A topic of a real broker, read with a client of its own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;

use super::cases::{alike, body, create, until_delivered, view};
use crate::harness::{PATIENCE, Server};
use crate::kafka::broker::{shared, topic_name};

/// The last record of each key is the row, and an empty one says that it is gone.
#[tokio::test(flavor = "multi_thread")]
async fn topic_has_the_view_by_key() {
    let (broker, topic) = (shared(), topic_name("sink"));
    broker.create_topic(&topic, 3, &[("cleanup.policy", "compact")]).await;
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path()).await;
    create(&server.client).await;
    let address = &broker.address;
    let sql = format!(
        "CREATE SINK k FROM v WITH (type = 'kafka', topic = '{topic}', brokers = '{address}', every = '20 ms')"
    );
    server.client.sql(&sql).await;
    for round in 0..4 {
        server.client.ingest("e", body(round * 60, 60)).await;
        until_delivered(&server.client, "k").await;
        if round == 1 {
            server.client.run("v").await;
            server.stop().await;
            server = Server::start(folder.path()).await;
        }
    }
    let expected = view(&server.client).await;
    let consumer: BaseConsumer = broker.client().set("group.id", "t").create().unwrap();
    let read = tokio::task::spawn_blocking(move || read(&consumer, &topic));
    let rows = read.await.unwrap();
    assert_eq!(alike(&rows), alike(&expected));
    server.stop().await;
}

fn read(consumer: &BaseConsumer, topic: &str) -> Vec<String> {
    let mut rows: BTreeMap<String, Value> = BTreeMap::new();
    let mut versions: BTreeMap<String, u64> = BTreeMap::new();
    let begun = Instant::now();
    for partition in 0..3 {
        let mut place = TopicPartitionList::new();
        place.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        consumer.assign(&place).unwrap();
        let (_, end) = consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap();
        let mut next = 0;
        while next < end {
            assert!(begun.elapsed() < PATIENCE, "nothing comes: {next} of {end}");
            // it returns early for events that are no records
            let Some(record) = consumer.poll(Duration::from_millis(100)) else { continue };
            let record = record.unwrap();
            next = record.offset() + 1;
            let key = std::str::from_utf8(record.key().unwrap()).unwrap().to_owned();
            let header = record.headers().unwrap().iter().find(|header| header.key == "bifold-version").unwrap();
            let version: u64 = std::str::from_utf8(header.value.unwrap()).unwrap().parse().unwrap();
            assert!(versions.insert(key.clone(), version).is_none_or(|before| before <= version), "{key}");
            match record.payload() {
                Some(value) => drop(rows.insert(key, serde_json::from_slice(value).unwrap())),
                None => drop(rows.remove(&key)),
            }
        }
    }
    rows.values().map(ToString::to_string).collect()
}
