//! `log = 'kafka'`: the log in topics of the stream's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{DefaultProducerContext, Producer, ThreadedProducer};
use serde_json::json;
use storage::StorageError;
use storage::kafka::KafkaConfig;
use storage::log::conformance::{self, PARTITIONS, Subject};
use storage::log::{KafkaLog, KafkaLogConfig, Log, Pending};
use uuid::Uuid;

use super::broker::{Broker, number, shared, topic_name, until, until_counted};
use crate::crash::Running;
use crate::harness::{Client, PATIENCE, Server, one};

const INCARNATION: Uuid = Uuid::from_u128(7);

struct Topics {
    config: KafkaLogConfig,
    made: AtomicU32,
}

impl Topics {
    fn of(broker: &Broker) -> Self {
        let cluster = KafkaConfig { brokers: broker.address.clone(), ..KafkaConfig::default() };
        // a tail of one byte: what is read comes from the topic
        let config = KafkaLogConfig {
            cluster,
            topic: topic_name("log"),
            topic_id: None,
            tail_bytes_max: 1,
            queue_bytes_max: 1 << 28,
            tails: None,
        };
        Self { config, made: AtomicU32::new(0) }
    }

    async fn open(&self, topic: String) -> Result<Arc<KafkaLog>, StorageError> {
        let config = KafkaLogConfig { topic, ..self.config.clone() };
        let open = move || KafkaLog::open(&config, conformance::schema(), INCARNATION, PARTITIONS);
        tokio::task::spawn_blocking(open).await.unwrap()
    }

    fn topic(&self, number: u32) -> String {
        format!("{}-{number}", self.config.topic)
    }
}

#[async_trait]
impl Subject for Topics {
    async fn create(&self) -> Result<Arc<dyn Log>, StorageError> {
        Ok(self.open(self.topic(self.made.fetch_add(1, Ordering::Relaxed))).await?)
    }

    /// Another producer under the log's transactional id: the next transaction of the log is refused.
    async fn fail(&self, log: &dyn Log, behind: usize) -> Result<Vec<Pending>, StorageError> {
        let topic = self.topic(self.made.load(Ordering::Relaxed) - 1);
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.config.cluster.brokers).set("transactional.id", &topic);
        let fence = move || {
            let rival: ThreadedProducer<DefaultProducerContext> = config.create().unwrap();
            rival.init_transactions(PATIENCE).unwrap();
        };
        tokio::task::spawn_blocking(fence).await.unwrap();
        let epoch = log.epoch();
        (0..=behind as i64).map(|step| log.append(epoch, vec![(0, conformance::rows(100 + step * 5, 5)?)])).collect()
    }

    async fn reopen(&self, log: Arc<dyn Log>) -> Result<Arc<dyn Log>, StorageError> {
        log.close().await;
        drop(log);
        Ok(self.open(self.topic(self.made.load(Ordering::Relaxed) - 1)).await?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_in_topics_conforms() {
    conformance::check(&Topics::of(&shared())).await.unwrap();
}

/// Two processes that write one log would give one offset to two records.
#[tokio::test(flavor = "multi_thread")]
async fn second_writer_takes_the_log_away_from_the_first() {
    let topics = Topics::of(&shared());
    let first = topics.open(topics.topic(0)).await.unwrap();
    let rows = |from| conformance::rows(from, 2).unwrap();
    first.append(first.epoch(), vec![(0, rows(0))]).unwrap().durable().await.unwrap();
    let second = topics.open(topics.topic(0)).await.unwrap();
    assert_eq!(second.head(), first.head());
    second.append(second.epoch(), vec![(0, rows(2))]).unwrap().durable().await.unwrap();
    let refused = first.append(first.epoch(), vec![(0, rows(100))]).unwrap().durable().await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(conformance::read_all(&*second, 0, 0).await.unwrap(), [0, 1, 2, 3]);
}

/// What the broker took is gone with the topic: nothing more is acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn log_whose_topic_was_made_again_takes_nothing() {
    let (broker, topics) = (shared(), Topics::of(&shared()));
    let topic = topics.topic(0);
    let log = topics.open(topic.clone()).await.unwrap();
    let rows = |from| conformance::rows(from, 2).unwrap();
    log.append(log.epoch(), vec![(1, rows(0))]).unwrap().durable().await.unwrap();
    let known = KafkaLogConfig { topic: topic.clone(), topic_id: Some(log.topic_id()), ..topics.config.clone() };
    broker.delete_topic(&topic).await;
    broker.create_topic(&topic, PARTITIONS as i32, &[]).await;
    let refused = log.append(log.epoch(), vec![(1, rows(2))]).unwrap().durable().await;
    assert!(refused.is_err(), "{refused:?}");
    let open = move || KafkaLog::open(&known, conformance::schema(), INCARNATION, PARTITIONS);
    let opened = tokio::task::spawn_blocking(open).await.unwrap();
    assert!(matches!(opened, Err(StorageError::Damaged { .. })), "{opened:?}");
}

pub(super) async fn create(client: &Client, broker: &Broker) {
    let sql = format!(
        "CREATE STREAM s (id TEXT NOT NULL, k INT, n BIGINT, at TIMESTAMPTZ NOT NULL, PRIMARY KEY (id),
         WATERMARK FOR at AS at) WITH (log = 'kafka', partitions = 3, brokers = '{}')",
        broker.address
    );
    client.sql(&sql).await;
    client.sql("CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS c, sum(n) AS s FROM s GROUP BY k").await;
}

pub(super) fn body(ids: std::ops::Range<u64>) -> Vec<u8> {
    let line = |id| [super::broker::event(id), b"\n".to_vec()].concat();
    ids.flat_map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_with_its_log_in_kafka_works_as_any_other() {
    let broker = shared();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    create(&server.client, &broker).await;
    let told = server.client.ingest("s", body(0..2_000)).await;
    assert_eq!((&told["accepted"], &told["duplicates"]), (&json!(2_000), &json!(0)), "{told}");
    let told = server.client.ingest("s", [body(1_990..2_100), b"{\n".to_vec()].concat()).await;
    let counts = ["accepted", "duplicates", "quarantined"].map(|name| told[name].as_u64());
    assert_eq!(counts, [Some(100), Some(10), Some(1)], "{told}");
    until_counted(&server.client, 2_100).await;
    assert_eq!(server.client.run("v").await["verdict"], "exact");
    server.stop().await;
    let server = Server::start(folder.path()).await;
    let told = server.client.ingest("s", body(2_050..2_200)).await;
    assert_eq!((&told["accepted"], &told["duplicates"]), (&json!(100), &json!(50)), "{told}");
    until_counted(&server.client, 2_200).await;
    let answer = server.client.sql("SELECT sum(s) FROM v").await;
    assert_eq!(number(one(&answer)), (0..2_200).sum::<u64>());
    assert_eq!(one(&server.client.sql("SELECT count(*) FROM dlq.s").await), 1);
    assert_eq!(server.client.run("v").await["verdict"], "exact");
    assert_eq!(one(&server.client.sql("SELECT log FROM system.streams").await), "kafka");
    server.client.sql("DROP MATERIALIZED VIEW v").await;
    server.client.sql("DROP STREAM s").await;
    server.stop().await;
}

/// a 200 is a promise, whoever is killed.
#[tokio::test(flavor = "multi_thread")]
async fn kill_of_bifold_or_of_its_broker_loses_and_doubles_nothing_acknowledged() {
    let broker = Broker::start_new("");
    let folder = tempfile::tempdir().unwrap();
    let mut running = Running::start(folder.path()).await;
    create(&running.client, &broker).await;
    let mut sent = 0;
    for round in 0..6 {
        let begun = Instant::now();
        let until_killed = Duration::from_millis(700);
        let client = running.client.clone();
        let acknowledged = Arc::new(AtomicU64::new(sent));
        let counting = Arc::clone(&acknowledged);
        let sending = tokio::spawn(async move {
            loop {
                let next = counting.load(Ordering::SeqCst);
                // a connection that is cut ends the task
                let Ok(told) = client.try_ingest("s", body(next..next + 50)).await else { break };
                assert_eq!(told["received"], 50, "{told}");
                counting.store(next + 50, Ordering::SeqCst);
                if begun.elapsed() > 20 * until_killed {
                    break;
                }
            }
        });
        tokio::time::sleep(until_killed).await;
        if round % 2 == 0 {
            running.kill();
            running = Running::start(folder.path()).await;
        } else {
            broker.script("kill", "");
            broker.script("start", "");
        }
        // ends with an error where Bifold was killed
        let _ = sending.await;
        sent = acknowledged.load(Ordering::SeqCst);
        // what was not acknowledged is sent again, as a client does
        let again = body(sent..sent + 50);
        let begun = Instant::now();
        while running.client.try_ingest("s", again.clone()).await.is_err() {
            assert!(begun.elapsed() < PATIENCE, "the log does not take records again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        sent += 50;
        let answer = until(&running.client, "SELECT coalesce(sum(c), 0) FROM v", |a| number(one(a)) >= sent).await;
        assert_eq!(number(one(&answer)), sent, "round {round}");
    }
    let answer = running.client.sql("SELECT sum(s) FROM v").await;
    assert_eq!(number(one(&answer)), (0..sent).sum::<u64>());
    assert_eq!(running.client.run("v").await["verdict"], "exact");
    running.kill();
    broker.script("wipe", "");
}
