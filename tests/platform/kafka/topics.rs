//! A topic of others as a stream: what is read, what is not, what is refused.

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rstest::rstest;
use serde_json::Value;

use super::broker::{KEY, create, event, number, shared, topic_name, until, until_counted};
use crate::harness::{PATIENCE, Server, one, rows};

#[tokio::test(flavor = "multi_thread")]
async fn existing_topic_is_a_stream_with_its_bad_records_in_the_dead_letters() {
    let (broker, topic) = (shared(), topic_name("existing"));
    broker.create_topic(&topic, 3, &[]).await;
    let sender = broker.producer();
    for id in 0..3_000 {
        sender.send(&topic, (id % 3) as i32, &event(id));
    }
    sender.send(&topic, 1, b"{\"id\":\"bad\"");
    sender.send(&topic, 2, br#"{"id":"typed","k":"x","at":"2024-01-01T00:00:00Z"}"#);
    sender.send(&topic, 2, &event(5));
    sender.flush();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    create(client, &broker, &topic, KEY).await;
    for id in 3_000..3_300 {
        sender.send(&topic, (id % 3) as i32, &event(id));
    }
    sender.flush();
    let answer = until_counted(client, 3_300).await;
    assert_eq!(answer["freshness"]["complete"], true, "{answer}");
    let total = client.sql("SELECT sum(s) FROM v").await;
    assert_eq!(number(one(&total)), (0..3_300).sum::<u64>());
    let letters = client.sql("SELECT topic, topic_partition, topic_offset, code, raw FROM dlq.s ORDER BY 2, 3").await;
    let expected = serde_json::json!([
        [topic, 1, 1_000, "bad_json", "{\"id\":\"bad\""],
        [topic, 2, 1_000, "bad_value", r#"{"id":"typed","k":"x","at":"2024-01-01T00:00:00Z"}"#],
    ]);
    assert_eq!(letters["rows"], expected, "{letters}");
    let sql = "SELECT topic, topic_lag, partitions, holes, problem, topic_id FROM system.streams";
    let stream = until(client, sql, |answer| rows(answer)[0][1] == 0).await;
    assert_eq!(
        rows(&stream)[0].as_array().unwrap()[..5],
        serde_json::json!([topic, 0, 3, 0, null]).as_array().unwrap()[..]
    );
    let run = client.run("v").await;
    assert_eq!(run["verdict"], "exact", "{run}");
    let metrics = client.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("bifold_source_lag_records{stream=\"s\"} 0"), "{metrics}");
    let refused = client.try_ingest("s", event(1)).await.unwrap_err();
    assert_eq!((refused.0, refused.1["code"].as_str()), (501, Some("unsupported")), "{refused:?}");
    server.stop().await;
}

/// `read_committed`: what a transaction took back was never there.
#[tokio::test(flavor = "multi_thread")]
async fn aborted_transaction_is_not_read() {
    let (broker, topic) = (shared(), topic_name("transactions"));
    broker.create_topic(&topic, 1, &[]).await;
    let topic_of_producer = topic.clone();
    let config = broker.client();
    let produce = move || {
        let producer: BaseProducer = config.clone().set("transactional.id", &topic_of_producer).create().unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        for (ids, commits) in [(0..60, true), (60..110, false), (110..160, true), (160..200, false)] {
            producer.begin_transaction().unwrap();
            for id in ids {
                let value = event(id);
                producer.send(BaseRecord::<(), [u8]>::to(&topic_of_producer).payload(&value)).unwrap();
            }
            // an aborted record that never left the producer would prove nothing
            producer.flush(PATIENCE).unwrap();
            if commits {
                producer.commit_transaction(PATIENCE).unwrap();
            } else {
                producer.abort_transaction(PATIENCE).unwrap();
            }
        }
    };
    tokio::task::spawn_blocking(produce).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    create(&server.client, &broker, &topic, "").await;
    until_counted(&server.client, 110).await;
    let caught_up = "SELECT topic_lag FROM system.streams";
    until(&server.client, caught_up, |answer| one(answer) == 0).await;
    let answer = until_counted(&server.client, 110).await;
    assert_eq!(answer["freshness"]["complete"], true, "gaps of a transaction are no holes: {answer}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn added_partitions_are_read_too() {
    let (broker, topic) = (shared(), topic_name("added"));
    broker.create_topic(&topic, 1, &[]).await;
    let sender = broker.producer();
    (0..100).for_each(|id| sender.send(&topic, 0, &event(id)));
    sender.flush();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    create(&server.client, &broker, &topic, KEY).await;
    until_counted(&server.client, 100).await;
    broker.add_partitions(&topic, 4).await;
    until(&server.client, "SELECT partitions FROM system.streams", |answer| one(answer) == 4).await;
    let sender = broker.producer();
    (100..500).for_each(|id| sender.send(&topic, (id % 4) as i32, &event(id)));
    sender.flush();
    until_counted(&server.client, 500).await;
    assert_eq!(server.client.run("v").await["verdict"], "exact");
    server.stop().await;
    let server = Server::start(folder.path()).await;
    (500..600).for_each(|id| sender.send(&topic, (id % 4) as i32, &event(id)));
    sender.flush();
    let answer = until_counted(&server.client, 600).await;
    assert_eq!(answer["freshness"]["complete"], true, "{answer}");
    assert_eq!(server.client.run("v").await["verdict"], "exact");
    server.stop().await;
}

#[rstest]
#[case::unknown_topic("topic = 'no-such-topic'", 404, "not_found", "topic no-such-topic: not found")]
#[case::compacted("topic = 'TOPIC'", 501, "unsupported", "is compacted")]
#[case::unreachable("topic = 'TOPIC', brokers = '127.0.0.1:1'", 503, "storage_unavailable", "kafka at 127.0.0.1:1")]
#[case::other_partitions("topic = 'PLAIN', partitions = 5", 400, "invalid_sql", "has 2 partitions, not 5")]
#[tokio::test(flavor = "multi_thread")]
async fn topic_that_cannot_be_read_is_refused(
    #[case] options: &str,
    #[case] status: u16,
    #[case] code: &str,
    #[case] says: &str,
) {
    let (broker, compacted, plain) = (shared(), topic_name("compacted"), topic_name("plain"));
    broker.create_topic(&compacted, 1, &[("cleanup.policy", "compact")]).await;
    broker.create_topic(&plain, 2, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let mut options = options.replace("TOPIC", &compacted).replace("PLAIN", &plain);
    if !options.contains("brokers") {
        options = format!("{options}, brokers = '{}'", broker.address);
    }
    let sql = format!("CREATE STREAM s (a INT) WITH (connector = 'kafka', {options})");
    let (found, problem): (u16, Value) =
        server.client.try_sql(serde_json::json!({ "sql": sql })).await.expect_err("it is refused");
    assert_eq!((found, problem["code"].as_str()), (status, Some(code)), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
    assert_eq!(rows(&server.client.sql("SELECT name FROM system.streams").await).len(), 0);
    server.stop().await;
}
