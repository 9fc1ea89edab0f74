//! A topic → visible in a view, beside a bare `rdkafka` consumer of the same topic that only counts.
//!
//! Streams (one a round, each in a folder of its own) are made over the topic while it is empty; then it is filled; then
//! consumer and Bifold take turns. The consumer's clock runs from its making to its last record, Bifold's from the start
//! of its process to the first answer that has every record: decoded, durable in its log, folded.

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use futures::executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::json;

use crate::events::{COLUMNS, VIEW, push_event};
use crate::measure::{Clock, at_least, median, report_value};
use crate::server::{Place, Server, one};

/// What the goal asks for.
const RATIO_MIN: f64 = 0.5;
/// Between two looks at what is counted.
const LOOK: Duration = Duration::from_millis(20);
/// How long a broker may take.
const PATIENCE: Duration = Duration::from_mins(5);

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    place: Place,
    /// The broker: `infra/components/kafka.sh env`.
    #[arg(long, env = "KAFKA_BOOTSTRAP")]
    brokers: String,
    /// Records of the topic.
    #[arg(long, default_value_t = 5_000_000)]
    records: u64,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 2)]
    partitions: i32,
    /// How often each contestant reads it.
    #[arg(long, default_value_t = 3)]
    rounds: u64,
}

/// What reading the topic took.
struct Reading {
    wall_s: f64,
    cpu_s: f64,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    options.place.empty()?;
    let topic = format!("bench-{}", uuid::Uuid::now_v7());
    make_topic(&client(&options), &topic, options.partitions)?;
    for round in 0..options.rounds {
        create(&options, &topic, round).await?;
    }
    let (config, name) = (client(&options), topic.clone());
    let (records, partitions) = (options.records, options.partitions);
    tokio::task::spawn_blocking(move || fill(&config, &name, records, partitions)).await??;
    let (mut bare, mut bifold) = (vec![], vec![]);
    for round in 0..options.rounds {
        let (config, name) = (client(&options), topic.clone());
        bare.push(tokio::task::spawn_blocking(move || count(&config, &name, records, partitions)).await??);
        bifold.push(visible(&options, round).await?);
    }
    drop_topic(&client(&options), &topic)?;
    tell(&options, &bare, &bifold);
    std::fs::remove_dir_all(&options.place.data_dir)?;
    Ok(())
}

fn tell(options: &Options, bare: &[Reading], bifold: &[Reading]) {
    let records = options.records as f64;
    let rate = |readings: &[Reading]| records / median(readings.iter().map(|reading| reading.wall_s).collect());
    let cpu_s = |readings: &[Reading]| median(readings.iter().map(|reading| reading.cpu_s).collect());
    for (peer, readings) in [("rdkafka consumer that only counts", bare), ("bifold topic to visible", bifold)] {
        let mut result = json!({
            "w": "kafka", "peer": peer, "records": options.records, "records_per_s": rate(readings).round(),
            "wall_s": records / rate(readings), "cpu_s": cpu_s(readings), "rounds": readings.len(),
        });
        if peer.starts_with("bifold") {
            let ratio = rate(bifold) / rate(bare);
            result["goals"] = json!([at_least("records/s beside the bare consumer", ratio, RATIO_MIN)]);
        }
        report_value(&result);
    }
}

fn client(options: &Options) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &options.brokers);
    config
}

/// Makes a topic.
pub(crate) fn make_topic(config: &ClientConfig, topic: &str, partitions: i32) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let made = block_on(admin.create_topics([&new], &AdminOptions::new()))?;
    made.into_iter().try_for_each(|made| made.map(drop).map_err(refused))
}

/// Removes a topic.
pub(crate) fn drop_topic(config: &ClientConfig, topic: &str) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    let dropped = block_on(admin.delete_topics(&[topic], &AdminOptions::new()))?;
    dropped.into_iter().try_for_each(|dropped| dropped.map(drop).map_err(refused))
}

fn refused((topic, code): (String, rdkafka::error::RDKafkaErrorCode)) -> anyhow::Error {
    anyhow::anyhow!("{topic}: {code}")
}

fn place(options: &Options, round: u64) -> Place {
    options.place.at(&format!("round-{round}"))
}

/// A stream over the topic and a view, while there is nothing to read.
async fn create(options: &Options, topic: &str, round: u64) -> anyhow::Result<()> {
    let server = Server::start(&place(options, round), &[]).await?;
    let sql = format!(
        "CREATE STREAM events ({COLUMNS}) WITH (connector = 'kafka', topic = '{topic}', brokers = '{}', format = 'json')",
        options.brokers
    );
    server.sql(&sql).await?;
    server.sql(VIEW).await?;
    server.stop()
}

fn fill(config: &ClientConfig, topic: &str, records: u64, partitions: i32) -> anyhow::Result<()> {
    let mut config = config.clone();
    config.set("enable.idempotence", "true").set("linger.ms", "20").set("batch.size", "524288");
    let producer: ThreadedProducer<DefaultProducerContext> = config.create()?;
    let mut line = vec![];
    for number in 0..records {
        line.clear();
        push_event(&mut line, number);
        let partition = (number % partitions as u64) as i32;
        let mut record = BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(line.trim_ascii_end());
        while let Err((error, again)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(rdkafka::error::RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            record = again;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(producer.flush(PATIENCE)?)
}

/// Reads the topic as Bifold does (committed records, checksums verified), and only counts.
fn count(config: &ClientConfig, topic: &str, records: u64, partitions: i32) -> anyhow::Result<Reading> {
    let mut config = config.clone();
    config.set("group.id", "bench").set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
    config.set("isolation.level", "read_committed").set("check.crcs", "true");
    let clock = Clock::start();
    let consumer: BaseConsumer = config.create()?;
    let mut places = TopicPartitionList::new();
    for partition in 0..partitions {
        places.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&places)?;
    let (mut found, mut bytes, begun) = (0, 0, Instant::now());
    while found < records {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                found += 1;
                bytes += message.payload().map_or(0, <[u8]>::len);
            }
            Some(Err(KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(error)) => return Err(error.into()),
        }
        if begun.elapsed() > PATIENCE {
            bail!("the consumer found {found} of {records} records, {bytes} bytes");
        }
    }
    let (wall_s, cpu_s) = clock.read();
    Ok(Reading { wall_s, cpu_s })
}

/// From the start of the process until every record is in an answer.
async fn visible(options: &Options, round: u64) -> anyhow::Result<Reading> {
    let begun = Instant::now();
    let server = Server::start(&place(options, round), &[]).await?;
    loop {
        let found = one(&server.sql("SELECT CAST(coalesce(sum(n), 0) AS BIGINT) FROM total").await?);
        if found >= options.records {
            let reading = Reading { wall_s: begun.elapsed().as_secs_f64(), cpu_s: server.cpu_s() };
            if found > options.records {
                bail!("{found} records are counted, {} were sent", options.records);
            }
            let complete = server.sql("SELECT count(*) FROM total").await?["freshness"]["complete"].clone();
            if complete != json!(true) {
                bail!("the answer is not complete");
            }
            server.kill()?;
            return Ok(reading);
        }
        if begun.elapsed() > PATIENCE {
            bail!("{found} of {} records are counted", options.records);
        }
        tokio::time::sleep(LOOK).await;
    }
}
