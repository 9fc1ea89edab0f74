//! A topic that is another one under the same name, and records that were gone before they were read: both are on
//! record, and every answer shows what is missing.

use super::broker::{KEY, create, event, number, shared, topic_name, until, until_counted};
use crate::harness::{Server, one, rows};

/// The id of the stream's topic, once it is another one than `old`.
async fn topic_id(server: &Server, old: &str) -> String {
    let is_new = |id: &serde_json::Value| id.as_str().is_some_and(|id| id != old);
    let answer = until(&server.client, "SELECT topic_id FROM system.streams", |answer| is_new(one(answer))).await;
    one(&answer).as_str().unwrap().to_owned()
}

/// Kafka reads on silently at the old offset of the new topic: 100 of its records would be missing.
#[tokio::test(flavor = "multi_thread")]
async fn topic_made_again_is_read_from_its_beginning() {
    let (broker, topic) = (shared(), topic_name("again"));
    broker.create_topic(&topic, 1, &[]).await;
    let sender = broker.producer();
    (0..100).for_each(|id| sender.send(&topic, 0, &event(id)));
    sender.flush();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    create(&server.client, &broker, &topic, KEY).await;
    until_counted(&server.client, 100).await;
    let first = topic_id(&server, "").await;
    // read to its end, and known to be: what is deleted then is not missed
    until(&server.client, "SELECT topic_lag FROM system.streams", |answer| one(answer) == 0).await;
    broker.delete_topic(&topic).await;
    let gone = "SELECT problem FROM system.streams";
    until(&server.client, gone, |answer| one(answer).as_str().is_some_and(|p| p.contains("not found"))).await;
    broker.create_topic(&topic, 1, &[]).await;
    let sender = broker.producer();
    (1_000..1_150).for_each(|id| sender.send(&topic, 0, &event(id)));
    sender.flush();
    let answer = until_counted(&server.client, 250).await;
    assert_ne!(topic_id(&server, &first).await, first);
    assert_eq!(answer["freshness"]["complete"], true, "{answer}");
    assert_eq!(server.client.run("v").await["verdict"], "exact");
    server.stop().await;
}

/// The same while Bifold is down: nobody saw how far the old topic went.
#[tokio::test(flavor = "multi_thread")]
async fn topic_made_again_meanwhile_leaves_a_hole_of_unknown_size() {
    let (broker, topic) = (shared(), topic_name("meanwhile"));
    broker.create_topic(&topic, 1, &[]).await;
    let sender = broker.producer();
    (0..100).for_each(|id| sender.send(&topic, 0, &event(id)));
    sender.flush();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    create(&server.client, &broker, &topic, "").await;
    until_counted(&server.client, 100).await;
    let first = topic_id(&server, "").await;
    server.stop().await;
    (100..120).for_each(|id| sender.send(&topic, 0, &event(id)));
    sender.flush();
    broker.delete_topic(&topic).await;
    broker.create_topic(&topic, 1, &[]).await;
    let sender = broker.producer();
    (1_000..1_150).for_each(|id| sender.send(&topic, 0, &event(id)));
    sender.flush();
    let server = Server::start(folder.path()).await;
    let answer = until_counted(&server.client, 250).await;
    assert_ne!(topic_id(&server, "").await, first);
    assert_eq!(answer["freshness"]["complete"], false, "{answer}");
    let expected = serde_json::json!([{
        "stream": "s", "topic": topic, "topic_id": first, "partition": 0, "from": 100, "to": null, "reason": "recreated"
    }]);
    assert_eq!(answer["freshness"]["holes"], expected, "{answer}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_retention_took_are_a_hole_in_every_answer() {
    let (broker, topic) = (shared(), topic_name("retention"));
    broker.create_topic(&topic, 2, &[]).await;
    let sender = broker.producer();
    (0..1_000).for_each(|id| sender.send(&topic, 0, &event(id)));
    sender.flush();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    create(&server.client, &broker, &topic, KEY).await;
    until_counted(&server.client, 1_000).await;
    server.stop().await;
    (1_000..1_500).for_each(|id| sender.send(&topic, 0, &event(id)));
    (1_500..1_600).for_each(|id| sender.send(&topic, 1, &event(id)));
    sender.flush();
    broker.delete_records(&topic, 0, 1_200).await;
    let server = Server::start(folder.path()).await;
    until_counted(&server.client, 1_400).await;
    server.stop().await;
    // on record, not only in memory
    let server = Server::start(folder.path()).await;
    assert_eq!(server.client.run("v").await["verdict"], "exact");
    let answer = server.client.sql("SELECT sum(s) FROM v").await;
    assert_eq!(number(one(&answer)), (0..1_000).chain(1_200..1_600).sum::<u64>());
    assert_eq!(answer["freshness"]["complete"], false, "{answer}");
    let holes = answer["freshness"]["holes"].as_array().unwrap();
    assert_eq!(holes.len(), 1, "{answer}");
    let expected = serde_json::json!({
        "stream": "s", "topic": topic, "topic_id": holes[0]["topic_id"], "partition": 0, "from": 1_000, "to": 1_200,
        "reason": "retention"
    });
    assert_eq!(holes[0], expected);
    let answer = server.client.request("GET", "/v1/views/v").send().await.unwrap();
    assert_eq!(answer.headers()["bifold-complete"], "false");
    let streams = server.client.sql("SELECT holes FROM system.streams").await;
    assert_eq!(rows(&streams)[0][0], 1);
    server.stop().await;
}

/// Records that are given up while they are being read.
#[tokio::test(flavor = "multi_thread")]
async fn retention_that_passes_a_stopped_connector_is_a_hole_too() {
    let (broker, topic) = (shared(), topic_name("passing"));
    broker.create_topic(&topic, 1, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let sender = broker.producer();
    (0..10).for_each(|id| sender.send(&topic, 0, &event(id)));
    sender.flush();
    create(&server.client, &broker, &topic, KEY).await;
    until_counted(&server.client, 10).await;
    server.stop().await;
    (10..30).for_each(|id| sender.send(&topic, 0, &event(id)));
    sender.flush();
    broker.delete_records(&topic, 0, 30).await;
    let server = Server::start(folder.path()).await;
    (30..40).for_each(|id| sender.send(&topic, 0, &event(id)));
    sender.flush();
    let answer = until_counted(&server.client, 20).await;
    assert_eq!(answer["freshness"]["holes"][0]["from"], 10, "{answer}");
    assert_eq!(answer["freshness"]["holes"][0]["to"], 30, "{answer}");
    server.stop().await;
}
