//! Kills by chance: of Bifold, and of the broker and the S3 server that it works on.
//!
//! ```text
//!  life:  sends ──► acknowledged? ──► oracle     runs, without pause     kill -9 at a random moment
//!  then:  start again ─► what is open is sent again ─► every cell is compared ─► known events are duplicates
//! ```
//! `BIFOLD_KILLS` and `BIFOLD_TEST_SEED` say how many and which; `infra/kills.sh` runs a thousand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::oracle::{CELLS, Oracle, VIEW, body};
use super::{Running, setting};
use crate::harness::{Client, PATIENCE};
use crate::kafka::broker::Broker;
use crate::s3;

/// Kills of Bifold in the suite.
const KILLS: usize = 200;
/// Kills in the suite where a broker takes seconds to come back.
const KILLS_OF_ALL: usize = 12;
/// Kills on one data folder: what a run reads grows with every landing.
const KILLS_PER_FOLDER: usize = 200;
/// Events of one life, at most.
const EVENTS_PER_LIFE: u64 = 10_000;
/// Old events that are sent again after each kill.
const EVENTS_AGAIN: u64 = 100;

/// What a `kill -9` hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Bifold,
    Broker,
    Store,
}

/// What Bifold works on.
struct World {
    name: &'static str,
    broker: Option<Broker>,
    store: Option<s3::Server>,
}

impl World {
    fn local() -> Self {
        Self { name: "embedded log, local store", broker: None, store: None }
    }

    fn remote() -> Self {
        let (broker, store) = (Some(Broker::start_new("")), Some(s3::Server::start()));
        Self { name: "log in Kafka, store on S3", broker, store }
    }

    /// Ids go to disk early; everything but the log goes to a place of its own in the store.
    fn variables(&self, folder: usize) -> Vec<(String, String)> {
        let mut variables = vec![("BIFOLD__LIMITS__DEDUP_IDS_IN_MEMORY_MAX".to_owned(), "30000".to_owned())];
        if let Some(store) = &self.store {
            variables.push(("BIFOLD__STORE_URL".to_owned(), store.url(&format!("kills/{folder}"))));
            variables.extend(store.variables.clone());
        }
        variables
    }

    fn stream(&self) -> String {
        let log = match &self.broker {
            Some(broker) => format!(", log = 'kafka', brokers = '{}'", broker.address),
            None => String::new(),
        };
        format!(
            "CREATE STREAM s (id TEXT NOT NULL, k INT, n BIGINT, at TIMESTAMPTZ NOT NULL, PRIMARY KEY (id), \
             WATERMARK FOR at AS at) WITH (partitions = 3{log})"
        )
    }

    /// A broker takes seconds to come back: it is hit less often.
    fn choose(&self, rng: &mut ChaCha8Rng) -> Vec<Victim> {
        if self.broker.is_none() {
            return vec![Victim::Bifold];
        }
        match rng.random_range(0..100) {
            0..62 => vec![Victim::Bifold],
            62..94 => vec![Victim::Store],
            94..96 => vec![Victim::Broker],
            96..99 => vec![Victim::Bifold, Victim::Store],
            _ => vec![Victim::Bifold, Victim::Broker, Victim::Store],
        }
    }

    fn strike(&self, victims: &[Victim], kill_bifold: impl FnOnce()) {
        let (broker, store) = (self.broker.as_ref(), self.store.as_ref());
        if victims.contains(&Victim::Bifold) {
            kill_bifold();
        }
        if let Some(store) = store.filter(|_| victims.contains(&Victim::Store)) {
            store.kill();
            store.start_again();
        }
        if let Some(broker) = broker.filter(|_| victims.contains(&Victim::Broker)) {
            broker.kill_and_start();
        }
    }
}

/// What is told at the end, also at an early one.
struct Report {
    world: &'static str,
    seed: u64,
    begun: Instant,
    kills: BTreeMap<Victim, usize>,
    /// Of folders that are done with.
    acknowledged: u64,
    lost: u64,
    doubled: u64,
    sent_again: u64,
    verdicts: BTreeMap<String, u64>,
    restarts: Vec<Duration>,
    /// Where the time goes.
    phases: BTreeMap<&'static str, Duration>,
}

impl Report {
    fn new(world: &World, seed: u64) -> Self {
        Self {
            world: world.name,
            seed,
            begun: Instant::now(),
            kills: BTreeMap::new(),
            acknowledged: 0,
            lost: 0,
            doubled: 0,
            sent_again: 0,
            verdicts: BTreeMap::new(),
            restarts: vec![],
            phases: BTreeMap::new(),
        }
    }

    fn note(&mut self, phase: &'static str, since: Instant) -> Instant {
        *self.phases.entry(phase).or_default() += since.elapsed();
        Instant::now()
    }

    fn kills(&self) -> usize {
        self.kills.values().sum()
    }
}

impl Drop for Report {
    #[expect(clippy::print_stdout, reason = "what infra/kills.sh is run for")]
    fn drop(&mut self) {
        self.restarts.sort_unstable();
        let restart = |share: f64| {
            let index = (self.restarts.len() as f64 * share) as usize;
            self.restarts.get(index).or(self.restarts.last()).copied().unwrap_or_default()
        };
        let of_each: Vec<String> = self.kills.iter().map(|(victim, kills)| format!("{victim:?} {kills}")).collect();
        let verdicts: Vec<String> = self.verdicts.iter().map(|(verdict, runs)| format!("{verdict} {runs}")).collect();
        println!("\n{}: seed {}", self.world, self.seed);
        println!("  kills                    {} ({})", self.kills(), of_each.join(", "));
        println!("  acknowledged events      {}", self.acknowledged);
        println!("  acknowledged and lost    {}", self.lost);
        println!("  counted twice            {}", self.doubled);
        println!("  sent again, duplicates   {}", self.sent_again);
        println!("  runs with a certificate  {} ({})", self.verdicts.values().sum::<u64>(), verdicts.join(", "));
        println!("  Bifold ready again       p50 {:?}, p99 {:?}", restart(0.5), restart(0.99));
        let phases: Vec<String> =
            self.phases.iter().map(|(name, time)| format!("{name} {} s", time.as_secs())).collect();
        let minutes = self.begun.elapsed().as_secs_f64() / 60.0;
        println!("  minutes                  {minutes:.1} ({})", phases.join(", "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_kill_loses_or_doubles_an_acknowledged_event() {
    campaign(World::local(), setting("BIFOLD_KILLS", KILLS)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_kill_of_bifold_its_broker_or_its_store_loses_or_doubles_an_acknowledged_event() {
    campaign(World::remote(), setting("BIFOLD_KILLS", KILLS_OF_ALL)).await;
}

#[expect(clippy::print_stdout, reason = "a thousand kills take an hour")]
async fn campaign(world: World, kills: usize) {
    let seed = setting("BIFOLD_TEST_SEED", 20_260_101);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let world = Arc::new(world);
    let mut report = Report::new(&world, seed);
    for folder in 0.. {
        let wanted = kills.saturating_sub(report.kills()).min(KILLS_PER_FOLDER);
        if wanted == 0 {
            return;
        }
        on_one_folder(&world, folder, report.kills() + wanted, &mut rng, &mut report).await;
        let (done, minutes) = (report.kills(), report.begun.elapsed().as_secs() / 60);
        println!("  {done} of {kills} kills, {} acknowledged, {minutes} min", report.acknowledged);
    }
}

/// Kills until the report has so many.
async fn on_one_folder(world: &Arc<World>, number: usize, kills: usize, rng: &mut ChaCha8Rng, report: &mut Report) {
    let folder = tempfile::tempdir().unwrap();
    let variables = world.variables(number);
    let mut oracle = Oracle::default();
    let mut verdicts = BTreeMap::new();
    let mut running = Running::start_with(folder.path(), &variables).await;
    running.client.sql(&world.stream()).await;
    running.client.sql(VIEW).await;
    while report.kills() < kills {
        let (victims, begun) = (world.choose(rng), Instant::now());
        one_life(world, &running, &victims, &mut oracle, rng).await;
        for victim in &victims {
            *report.kills.entry(*victim).or_default() += 1;
        }
        let begun = report.note("lives", begun);
        if victims.contains(&Victim::Bifold) {
            running = Running::start_with(folder.path(), &variables).await;
            report.restarts.push(running.started_in);
        }
        let begun = report.note("restarts", begun);
        assert!(!running.has_ended(), "Bifold has ended without being killed:\n{}", super::messages(folder.path()));
        while oracle.open.is_some() {
            assert!(send(&running.client, &mut oracle, 0).await != Sent::Cut, "{}", super::messages(folder.path()));
        }
        report.sent_again += send_again(&running.client, &oracle, rng).await;
        let begun = report.note("sent again", begun);
        check(&running.client, &oracle, report).await;
        note_verdicts(&running.client, &mut verdicts).await;
        report.note("checks", begun);
    }
    let begun = Instant::now();
    running.kill();
    // nothing else runs on it: a last run over everything, from the master alone
    let running = Running::start_with(folder.path(), &variables).await;
    let run = running.client.run("v").await;
    assert_eq!((&run["state"], &run["verdict"]), (&json!("succeeded"), &json!("exact")), "{run}");
    assert_eq!(run["rows"], json!(oracle.acknowledged()), "each record is in the master once: {run}");
    check(&running.client, &oracle, report).await;
    note_verdicts(&running.client, &mut verdicts).await;
    let ledger = "SELECT CAST(sum(accepted) AS BIGINT), CAST(sum(abs(balance)) AS BIGINT) FROM system.ledger \
        WHERE layer = 'ingest'";
    let ledger = running.client.sql(ledger).await;
    assert_eq!(ledger["rows"], json!([[oracle.acknowledged(), 0]]), "the ledger balances");
    running.kill();
    report.note("last runs", begun);
    report.acknowledged += oracle.acknowledged();
    for verdict in verdicts.into_values() {
        *report.verdicts.entry(verdict).or_default() += 1;
    }
}

/// Events come in and runs go on until the strike, and until what was hit is up again (but for Bifold).
async fn one_life(
    world: &Arc<World>,
    running: &Running,
    victims: &[Victim],
    oracle: &mut Oracle,
    rng: &mut ChaCha8Rng,
) {
    let client = running.client.clone();
    let runs = tokio::spawn(async move {
        while client.request("POST", "/v1/views/v/runs").send().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    });
    let is_over = Arc::new(AtomicBool::new(false));
    let delay = Duration::from_millis(rng.random_range(10..400));
    let strike = {
        let (world, victims, is_over) = (Arc::clone(world), victims.to_vec(), Arc::clone(&is_over));
        let kill_bifold = running.killer();
        tokio::task::spawn_blocking(move || {
            std::thread::sleep(delay);
            world.strike(&victims, kill_bifold);
            is_over.store(true, Ordering::SeqCst);
        })
    };
    let enough = oracle.acknowledged() + EVENTS_PER_LIFE;
    while !is_over.load(Ordering::SeqCst) {
        if oracle.open.is_none() && oracle.acknowledged() > enough {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        if send(&running.client, oracle, rng.random_range(1..120)).await == Sent::Cut {
            break;
        }
    }
    strike.await.unwrap();
    runs.abort();
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Acknowledged,
    /// By a status that says "again".
    Refused,
    /// Without an answer.
    Cut,
}

/// Sends what is open, or else so many new events.
async fn send(client: &Client, oracle: &mut Oracle, events: u64) -> Sent {
    let is_new = oracle.open.is_none();
    let range = oracle.offer(events);
    let request = client.request("POST", "/v1/streams/s/events").header("content-type", "application/x-ndjson");
    let Ok(answer) = request.body(body(range.clone())).send().await else { return Sent::Cut };
    let status = answer.status().as_u16();
    let Ok(told) = answer.json::<Value>().await else { return Sent::Cut };
    match status {
        200 => {}
        429 | 503 => {
            tokio::time::sleep(Duration::from_millis(10)).await;
            return Sent::Refused;
        }
        _ => panic!("{status}: {told}"),
    }
    let count = |name: &str| told[name].as_u64().unwrap();
    let events = range.end - range.start;
    assert_eq!(count("accepted") + count("duplicates"), events, "{told}");
    assert!(!is_new || count("accepted") == events, "new events are no duplicates: {told}");
    assert_eq!(count("conflicts"), 0, "{told}");
    oracle.acknowledge(&told);
    Sent::Acknowledged
}

/// Events that were acknowledged long ago are known.
async fn send_again(client: &Client, oracle: &Oracle, rng: &mut ChaCha8Rng) -> u64 {
    let all = oracle.acknowledged();
    if all == 0 {
        return 0;
    }
    let from = rng.random_range(0..all);
    let range = from..(from + EVENTS_AGAIN).min(all);
    let text = body(range.clone());
    let told = patiently(async || client.try_ingest("s", text.clone()).await).await;
    assert_eq!(told["duplicates"], json!(range.end - range.start), "{told}");
    range.end - range.start
}

async fn check(client: &Client, oracle: &Oracle, report: &mut Report) {
    let position = oracle.position.as_ref().map(ToString::to_string);
    let query = json!({ "sql": CELLS, "row_limit": 1_000_000, "at_least": position });
    let answer = patiently(async || client.try_sql(query.clone()).await).await;
    let difference = oracle.compare(&answer);
    report.lost += difference.lost + difference.garbled;
    report.doubled += difference.doubled + difference.garbled;
    let (seed, kills) = (report.seed, report.kills());
    assert_eq!(difference, super::oracle::Difference::default(), "seed {seed}, after kill {kills}");
    assert_ne!(answer["freshness"]["complete"], json!(false), "seed {seed}, after kill {kills}: {answer}");
}

/// Asks again while the answer is "not now".
async fn patiently(ask: impl AsyncFn() -> Result<Value, (u16, Value)>) -> Value {
    let begun = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err((429 | 503, _)) if begun.elapsed() < PATIENCE => tokio::time::sleep(Duration::from_millis(10)).await,
            Err((status, problem)) => panic!("{status}: {problem}"),
        }
    }
}

/// The list is of the newest hundred.
async fn note_verdicts(client: &Client, known: &mut BTreeMap<u64, String>) {
    let answer = client.request("GET", "/v1/views/v/certificates").send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    for certificate in answer["certificates"].as_array().into_iter().flatten() {
        let verdict = certificate["verdict"].as_str().unwrap().to_owned();
        assert_eq!(verdict, "exact", "a run disagreed: {certificate}");
        known.insert(certificate["run"].as_u64().unwrap(), verdict);
    }
}
