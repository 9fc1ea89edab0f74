//! A real broker (`infra/components/kafka.sh`) and what a test does to it. A broker that does not start is a failure
//! that says why, never a test that is skipped.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::Offset;
use serde_json::{Value, json};

use crate::harness::{Client, PATIENCE, one};

const SCRIPT: &str = "../infra/components/kafka.sh";

/// A broker.
#[derive(Clone)]
pub(crate) struct Broker {
    pub(crate) address: String,
    port: Option<u16>,
}

/// The broker that the tests of this process share: the one of the environment, or one that lives as long as they do.
pub(crate) fn shared() -> Broker {
    static SHARED: OnceLock<Broker> = OnceLock::new();
    let start = || match std::env::var("KAFKA_BOOTSTRAP") {
        Ok(address) => Broker { address, port: None },
        Err(_) => Broker::start_new(""),
    };
    SHARED.get_or_init(start).clone()
}

impl Broker {
    /// A broker of the test's own, with lines for its configuration; it ends with this process at the latest.
    pub(crate) fn start_new(extra: &str) -> Self {
        Self::start_with(|_| extra.to_owned())
    }

    /// [`Broker::start_new`] with lines that depend on its port; the two ports after it are free, too.
    pub(crate) fn start_with(extra: impl Fn(u16) -> String) -> Self {
        let port = three_free_ports();
        let broker = Self { address: format!("127.0.0.1:{port}"), port: Some(port) };
        broker.script("start", &extra(port));
        broker
    }

    /// A broker that somebody else takes care of.
    pub(crate) fn at(address: String) -> Self {
        Self { address, port: None }
    }

    /// Its port; the ones after it are its controller's, and for listeners of the test's own.
    pub(crate) fn port(&self) -> u16 {
        self.port.unwrap()
    }

    /// Sends the broker's process a signal: STOP makes it infinitely slow, CONT lets it go on.
    pub(crate) fn signal(&self, name: &str) {
        let port = self.port().to_string();
        let told = Command::new(SCRIPT).arg("status").env("KAFKA_PORT", port).output().unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        let pid = told.split_whitespace().find_map(|word| word.parse::<u32>().ok());
        let pid = pid.unwrap_or_else(|| panic!("no broker is running: {told}")).to_string();
        assert!(Command::new("kill").args([format!("-{name}"), pid]).status().unwrap().success());
    }

    pub(crate) fn script(&self, what: &str, extra: &str) {
        self.script_with(what, extra, &std::process::id().to_string());
    }

    /// `kill -9`, and up again: who watches that it ends with this process does so already.
    pub(crate) fn kill_and_start(&self) {
        self.script_with("kill", "", "");
        self.script_with("start", "", "");
    }

    fn script_with(&self, what: &str, extra: &str, watch: &str) {
        let port = self.port.expect("the shared broker is left alone").to_string();
        let environment = [("KAFKA_PORT", port.as_str()), ("KAFKA_WATCH", watch), ("KAFKA_HEAP", "256m")];
        let done = Command::new(SCRIPT).arg(what).envs(environment).env("KAFKA_EXTRA", extra).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{SCRIPT} {what} failed: {said}");
    }

    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    pub(crate) async fn create_topic(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let made = self.admin().create_topics([&new], &AdminOptions::new()).await.unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
    }

    pub(crate) async fn delete_topic(&self, topic: &str) {
        let gone = self.admin().delete_topics(&[topic], &AdminOptions::new()).await.unwrap();
        assert!(gone.iter().all(Result::is_ok), "{gone:?}");
    }

    pub(crate) async fn add_partitions(&self, topic: &str, partitions: usize) {
        let wanted = NewPartitions::new(topic, partitions);
        let made = self.admin().create_partitions([&wanted], &AdminOptions::new()).await.unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
    }

    /// What retention does, at once.
    pub(crate) async fn delete_records(&self, topic: &str, partition: i32, below: i64) {
        let mut places = TopicPartitionList::new();
        places.add_partition_offset(topic, partition, Offset::Offset(below)).unwrap();
        self.admin().delete_records(&places, &AdminOptions::new()).await.unwrap();
    }

    pub(crate) fn producer(&self) -> Sender {
        let producer = self.client().set("enable.idempotence", "true").set("linger.ms", "5").create().unwrap();
        Sender(producer)
    }
}

/// A producer that is not ours.
pub(crate) struct Sender(pub(crate) ThreadedProducer<DefaultProducerContext>);

impl Sender {
    pub(crate) fn send(&self, topic: &str, partition: i32, value: &[u8]) {
        let mut record = BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(value);
        while let Err((_, again)) = self.0.send(record) {
            record = again;
            std::thread::yield_now();
        }
    }

    pub(crate) fn flush(&self) {
        self.0.flush(PATIENCE).unwrap();
    }
}

/// The port for the broker, the one after it for its controller, and one for another listener.
fn three_free_ports() -> u16 {
    // below the ports that connections get: while a broker is down, none of its own is taken
    const PORTS: std::ops::Range<u16> = 20_000..32_000;
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    loop {
        let port = rand::random_range(PORTS);
        if (port..port + 3).all(is_free) {
            return port;
        }
    }
}

/// A name that no other test has.
pub(crate) fn topic_name(of: &str) -> String {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("{of}-{}-{number}", std::process::id())
}

/// An event as a producer writes it.
pub(crate) fn event(id: u64) -> Vec<u8> {
    let (minute, second) = (id / 60 % 60, id % 60);
    format!(r#"{{"id":"e{id}","k":{},"n":{id},"at":"2024-01-01T00:{minute:02}:{second:02}Z"}}"#, id % 7).into_bytes()
}

/// `CREATE STREAM s` over a topic, and a view that counts and adds up.
pub(crate) async fn create(client: &Client, broker: &Broker, topic: &str, key: &str) {
    let sql = format!(
        "CREATE STREAM s (id TEXT NOT NULL, k INT, n BIGINT, at TIMESTAMPTZ NOT NULL{key}, WATERMARK FOR at AS at)
         WITH (connector = 'kafka', topic = '{topic}', brokers = '{}', format = 'json')",
        broker.address
    );
    client.sql(&sql).await;
    client.sql("CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS c, sum(n) AS s FROM s GROUP BY k").await;
}

pub(crate) const KEY: &str = ", PRIMARY KEY (id)";

/// Waits until a condition holds; panics with what was found last.
pub(crate) async fn until(client: &Client, sql: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let found = client.try_sql(json!({ "sql": sql })).await;
        if let Ok(answer) = &found
            && holds(answer)
        {
            return answer.clone();
        }
        assert!(begun.elapsed() < PATIENCE, "{sql}: last found {found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until so many records are counted, and not one more.
pub(crate) async fn until_counted(client: &Client, records: u64) -> Value {
    until(client, "SELECT coalesce(sum(c), 0) FROM v", |answer| {
        let found = number(one(answer));
        assert!(found <= records, "{found} records are counted, {records} were sent: {answer}");
        found == records
    })
    .await
}

/// A number, which an answer may hold as text.
pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_else(|| panic!("not a number: {value}"))
}
