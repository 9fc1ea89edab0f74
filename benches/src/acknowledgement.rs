//! Acknowledgement: how many events a second, and how long until they are durable, over sizes of bodies and over how
//! long a client collects before it sends (its linger); on either log and either store.
//!
//! Flat out: clients send body after body, each as soon as the last one is acknowledged. Beside it, what durability alone
//! costs: for the embedded log the same bytes appended to a file with `fdatasync`, for Kafka a bare producer with
//! `acks=all` whose every batch of records is waited for.
//!
//! Paced: events come at a steady rate; a client collects them for its linger, then sends them, however many requests are
//! still under way. An acknowledgement is timed from when its body was due; an event has waited for the linger, too.
//!
//! In the end the view must have counted exactly what was acknowledged.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use schemas::PositionToken;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::events::{COLUMNS, VIEW, body, push_event};
use crate::measure::report_value;
use crate::server::{Place, Server, join, number, one};

/// Events of a body, and clients at the same time.
const FLAT_OUT: [(u64, usize); 4] = [(100, 16), (1_000, 8), (10_000, 2), (100_000, 2)];
/// Milliseconds that a client collects events.
const LINGERS_MS: [u64; 5] = [1, 5, 20, 100, 500];
/// Requests under way while events are paced.
const UNDER_WAY_MAX: usize = 256;
/// Different bodies of a size.
const BODIES: u64 = 4;
/// How long a broker may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Log {
    Embedded,
    Kafka,
}

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    place: Place,
    /// Where the log is.
    #[arg(long, value_enum, default_value = "embedded")]
    log: Log,
    /// Store of everything else, with its credentials in the environment [default: the data folder]
    #[arg(long, value_name = "URL")]
    store_url: Option<String>,
    /// The broker of `--log kafka`.
    #[arg(long, env = "KAFKA_BOOTSTRAP")]
    brokers: Option<String>,
    /// Seconds of each line of the table.
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// Events a second while they are paced [default: half of the best figure flat out]
    #[arg(long)]
    rate: Option<u64>,
}

impl Options {
    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    fn name(&self) -> String {
        let log = if self.log == Log::Kafka { "kafka" } else { "embedded" };
        let store = self.store_url.as_deref().and_then(|url| url.split(':').next()).unwrap_or("local");
        format!("log={log} store={store}")
    }

    fn bare_name(&self) -> &'static str {
        if self.log == Log::Kafka { "bare producer, acks=all" } else { "append + fdatasync" }
    }
}

/// What a line of the table says.
struct Line {
    events: u64,
    wall_s: f64,
    acks_us: Histogram<u64>,
}

impl Line {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { events: 0, wall_s: 0.0, acks_us: Histogram::new(3)? })
    }

    fn rate(&self) -> f64 {
        self.events as f64 / self.wall_s
    }

    fn ack_ms(&self, quantile: f64) -> f64 {
        self.acks_us.value_at_quantile(quantile) as f64 / 1_000.0
    }

    fn json(&self, peer: &str) -> Value {
        json!({
            "w": "ingest", "peer": peer, "events_per_s": self.rate().round(), "ack_p50_ms": self.ack_ms(0.5),
            "ack_p99_ms": self.ack_ms(0.99),
        })
    }
}

/// What was acknowledged over all lines.
#[derive(Default)]
struct Acknowledged {
    events: u64,
    position: Option<PositionToken>,
}

impl Acknowledged {
    fn add(&mut self, line: &mut Line, took: Duration, told: &Value) -> anyhow::Result<()> {
        let events = number(&told["accepted"]);
        ensure!(events == number(&told["received"]), "not all was accepted: {told}");
        line.events += events;
        self.events += events;
        line.acks_us.record(u64::try_from(took.as_micros())?.max(1))?;
        join(&mut self.position, told)
    }
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    options.place.empty()?;
    let server = Arc::new(start(&options).await?);
    let (mut acknowledged, mut best) = (Acknowledged::default(), 0.0_f64);
    for (block, clients) in FLAT_OUT {
        let bodies: Vec<Bytes> = (0..BODIES).map(|b| body(b * block..(b + 1) * block, push_event)).collect();
        let before = server.cpu_s();
        let line = flat_out(&server, &bodies, clients, options.time(), &mut acknowledged).await?;
        let cpu_s = server.cpu_s() - before;
        best = best.max(line.rate());
        let bare = bare(&options, bodies, block, clients).await?;
        let size = format!("{block} events a body, {clients} clients");
        report_value(&bare.json(&format!("{}, {size}", options.bare_name())));
        let mut result = line.json(&format!("bifold {}, {size}", options.name()));
        result["cpu_s_per_million"] = json!(1e6 * cpu_s / line.events as f64);
        result["beside"] = json!({ "peer": options.bare_name(), "events_per_s": line.rate() / bare.rate(),
            "ack_p99": line.ack_ms(0.99) / bare.ack_ms(0.99) });
        report_value(&result);
    }
    let rate = options.rate.unwrap_or((best / 2.0) as u64);
    for linger_ms in LINGERS_MS {
        let line = paced(&server, rate, linger_ms, options.time(), &mut acknowledged).await?;
        let peer = format!("bifold {}, linger {linger_ms} ms at {rate}/s", options.name());
        let mut result = line.json(&peer);
        result["event_p99_ms"] = json!(linger_ms as f64 + line.ack_ms(0.99));
        report_value(&result);
    }
    let position = acknowledged.position.context("nothing was acknowledged")?;
    let counted = one(&server.sql_at("SELECT CAST(sum(n) AS BIGINT) FROM total", &position).await?);
    if counted != acknowledged.events {
        bail!("{counted} events are counted, {} were acknowledged", acknowledged.events);
    }
    server.sql("DROP MATERIALIZED VIEW total").await?;
    server.sql("DROP STREAM events").await?;
    drop(server);
    Ok(std::fs::remove_dir_all(&options.place.data_dir)?)
}

async fn start(options: &Options) -> anyhow::Result<Server> {
    let variables: Vec<(&str, String)> =
        options.store_url.iter().map(|url| ("BIFOLD__STORE_URL", url.clone())).collect();
    let server = Server::start(&options.place, &variables).await?;
    let log = match options.log {
        Log::Embedded => String::new(),
        Log::Kafka => {
            let brokers = options.brokers.as_deref().context("--log kafka: --brokers")?;
            format!(", log = 'kafka', brokers = '{brokers}'")
        }
    };
    server.sql(&format!("CREATE STREAM events ({COLUMNS}) WITH (partitions = 2{log})")).await?;
    server.sql(VIEW).await?;
    Ok(server)
}

async fn flat_out(
    server: &Arc<Server>,
    bodies: &[Bytes],
    clients: usize,
    time: Duration,
    acknowledged: &mut Acknowledged,
) -> anyhow::Result<Line> {
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for client in 0..clients {
        let (server, bodies) = (Arc::clone(server), bodies.to_vec());
        running.spawn(async move {
            let mut answers = vec![];
            for body in bodies.iter().cycle().skip(client) {
                if begun.elapsed() >= time {
                    break;
                }
                let sent = Instant::now();
                let told = server.ingest("events", body.clone()).await?;
                answers.push((sent.elapsed(), told));
            }
            anyhow::Ok(answers)
        });
    }
    let mut line = Line::new()?;
    while let Some(answers) = running.join_next().await {
        for (took, told) in answers?? {
            acknowledged.add(&mut line, took, &told)?;
        }
    }
    line.wall_s = begun.elapsed().as_secs_f64();
    Ok(line)
}

async fn paced(
    server: &Arc<Server>,
    rate: u64,
    linger_ms: u64,
    time: Duration,
    acknowledged: &mut Acknowledged,
) -> anyhow::Result<Line> {
    let events = (rate * linger_ms / 1_000).max(1);
    let bodies: Vec<Bytes> = (0..BODIES).map(|b| body(b * events..(b + 1) * events, push_event)).collect();
    let (linger, under_way) = (Duration::from_millis(linger_ms), Arc::new(Semaphore::new(UNDER_WAY_MAX)));
    let begun = Instant::now();
    let (mut running, mut due) = (JoinSet::new(), begun + linger);
    for body in bodies.iter().cycle() {
        if due > begun + time {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        let permit = Arc::clone(&under_way).acquire_owned().await?;
        let (server, body) = (Arc::clone(server), body.clone());
        running.spawn(async move {
            let told = server.ingest("events", body).await?;
            drop(permit);
            anyhow::Ok((due.elapsed(), told))
        });
        due += linger;
    }
    let mut line = Line::new()?;
    while let Some(answer) = running.join_next().await {
        let (took, told) = answer??;
        acknowledged.add(&mut line, took, &told)?;
    }
    line.wall_s = begun.elapsed().as_secs_f64();
    Ok(line)
}

/// What making the same bytes durable costs without Bifold.
async fn bare(options: &Options, bodies: Vec<Bytes>, block: u64, clients: usize) -> anyhow::Result<Line> {
    let (time, folder) = (options.time() / 2, options.place.data_dir.clone());
    let brokers = options.brokers.clone();
    let log = options.log;
    let work = move || match (log, brokers) {
        (Log::Kafka, Some(brokers)) => produce(&brokers, &bodies, block, clients, time),
        _ => append(&folder.join("bare"), &bodies, block, time),
    };
    tokio::task::spawn_blocking(work).await?
}

fn append(file: &Path, bodies: &[Bytes], block: u64, time: Duration) -> anyhow::Result<Line> {
    let mut line = Line::new()?;
    let mut output = std::fs::File::create(file)?;
    let begun = Instant::now();
    for body in bodies.iter().cycle() {
        if begun.elapsed() >= time {
            break;
        }
        let sent = Instant::now();
        output.write_all(body)?;
        output.sync_data()?;
        line.acks_us.record(u64::try_from(sent.elapsed().as_micros())?.max(1))?;
        line.events += block;
    }
    line.wall_s = begun.elapsed().as_secs_f64();
    std::fs::remove_file(file)?;
    Ok(line)
}

/// Clients with a producer each, into a topic of theirs.
fn produce(brokers: &str, bodies: &[Bytes], block: u64, clients: usize, time: Duration) -> anyhow::Result<Line> {
    let topic = format!("bench-bare-{}", uuid::Uuid::now_v7());
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("enable.idempotence", "true").set("acks", "all");
    config.set("linger.ms", "0").set("queue.buffering.max.messages", "1000000");
    crate::kafka::make_topic(&config, &topic, 2)?;
    let begun = Instant::now();
    let lines: anyhow::Result<Vec<Line>> = std::thread::scope(|scope| {
        let clients = (0..clients).map(|_| scope.spawn(|| produce_until(&config, &topic, bodies, block, begun + time)));
        let clients: Vec<_> = clients.collect();
        clients.into_iter().map(|client| client.join().unwrap_or_else(|_| bail!("a producer panicked"))).collect()
    });
    let mut all = Line::new()?;
    for line in lines? {
        all.events += line.events;
        all.acks_us.add(&line.acks_us)?;
    }
    all.wall_s = begun.elapsed().as_secs_f64();
    crate::kafka::drop_topic(&config, &topic)?;
    Ok(all)
}

fn produce_until(
    config: &ClientConfig,
    topic: &str,
    bodies: &[Bytes],
    block: u64,
    until: Instant,
) -> anyhow::Result<Line> {
    let producer: BaseProducer = config.create()?;
    let mut line = Line::new()?;
    for body in bodies.iter().cycle() {
        if Instant::now() >= until {
            break;
        }
        let sent = Instant::now();
        for (index, record) in body.split(|byte| *byte == b'\n').filter(|record| !record.is_empty()).enumerate() {
            let record = BaseRecord::<(), [u8]>::to(topic).partition((index % 2) as i32).payload(record);
            producer.send(record).map_err(|(error, _)| error)?;
        }
        producer.flush(PATIENCE)?;
        line.acks_us.record(u64::try_from(sent.elapsed().as_micros())?.max(1))?;
        line.events += block;
    }
    Ok(line)
}
