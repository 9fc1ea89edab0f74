//! Far more than can be taken: memory stays bounded, every refusal says when to come back and is right about it, and
//! what was acknowledged is there once.
//!
//! Ten seconds in the suite; `just flood` is a minute.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemas::Limits;
use serde_json::Value;

use super::child::Running;
use crate::harness::{Client, PATIENCE, rows};

/// Seconds of the whole; `just flood` asks for more.
const SECONDS: &str = "BIFOLD_FLOOD_SECONDS";
/// Senders: together they hold many times what the server takes into memory.
const SENDERS: usize = 96;
const EVENTS_OF_A_BODY: u64 = 1_500;
/// MiB that the child may take at most, its code and what it needs for the first query included.
const MEMORY_MAX_MIB: u64 = 900;
/// Of the refused that come back when they were told to, so many in a hundred get in, as nobody else pushes.
const HONEST_PERCENT: u64 = 50;

fn limits() -> Limits {
    const MIB: usize = 1_048_576;
    Limits {
        ingest_bytes_in_flight_max: 6 * MIB,
        log_tail_bytes_max: 8 * MIB,
        log_segment_bytes: 16 * MIB,
        speed_state_bytes_max: 32 * MIB,
        dedup_ids_in_memory_max: 200_000,
        landing_bytes: 16 * MIB,
        landing_interval_ms: 1_000,
        checkpoint_interval_ms: 1_000,
        ..Limits::default()
    }
}

/// What became of the bodies.
#[derive(Default)]
struct Tally {
    next: AtomicU64,
    offered: AtomicU64,
    acknowledged: AtomicU64,
    /// Sum of the numbers of all acknowledged events.
    sum: AtomicU64,
    refused: AtomicU64,
    /// Sent again when the server said so: how many, and how many got in.
    came_back: AtomicU64,
    got_in: AtomicU64,
    waited_s: AtomicU64,
}

fn body(first: u64) -> String {
    let line = |n: u64| {
        let key = n % 1_000;
        let text = "some text that makes an event as long as most are, and a bit longer than that".repeat(2);
        format!("{{\"id\":\"{n}\",\"k\":{key},\"n\":{n},\"t\":\"{text}\",\"at\":\"2024-01-01T00:00:00Z\"}}\n")
    };
    (first..first + EVENTS_OF_A_BODY).map(line).collect()
}

/// The seconds of `Retry-After`, of a refusal that has to have them; none for an acknowledgement.
async fn send(client: &Client, body: &str) -> Option<u64> {
    let request = client.request("POST", "/v1/streams/s/events").header("content-type", "application/x-ndjson");
    let answer = request.body(body.to_owned()).send().await.unwrap();
    let status = answer.status().as_u16();
    let retry_after = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().parse::<u64>().unwrap());
    let told: Value = answer.json().await.unwrap();
    if status == 200 {
        assert_eq!(told["received"], EVENTS_OF_A_BODY, "{told}");
        return None;
    }
    assert!(matches!(status, 429 | 503), "{status}: {told}");
    assert_eq!(told["retryable"], true, "{told}");
    let seconds = retry_after.unwrap_or_else(|| panic!("a refusal without Retry-After: {told}"));
    assert!((1..=60).contains(&seconds), "{seconds}");
    Some(seconds)
}

/// Sends one body until it is acknowledged; waits as it is told, or not at all.
async fn deliver(client: &Client, tally: &Tally, polite: bool, rng: &mut ChaCha8Rng) {
    let first = tally.next.fetch_add(EVENTS_OF_A_BODY, Ordering::Relaxed);
    let body = body(first);
    let mut is_back = false;
    loop {
        tally.offered.fetch_add(1, Ordering::Relaxed);
        let refused = send(client, &body).await;
        if is_back {
            tally.came_back.fetch_add(1, Ordering::Relaxed);
            tally.got_in.fetch_add(u64::from(refused.is_none()), Ordering::Relaxed);
        }
        let Some(seconds) = refused else { break };
        tally.refused.fetch_add(1, Ordering::Relaxed);
        is_back = polite;
        if polite {
            tally.waited_s.fetch_add(seconds, Ordering::Relaxed);
            // as clients are advised: not all of them at once
            let spread = Duration::from_millis(rng.random_range(0..1_000 * seconds));
            tokio::time::sleep(Duration::from_secs(seconds) + spread).await;
        }
    }
    tally.acknowledged.fetch_add(EVENTS_OF_A_BODY, Ordering::Relaxed);
    tally.sum.fetch_add((first..first + EVENTS_OF_A_BODY).sum(), Ordering::Relaxed);
}

/// All senders at once, until so long; what has begun ends.
async fn send_all(client: &Client, tally: &Arc<Tally>, polite: bool, duration: Duration) {
    let until = Instant::now() + duration;
    let senders = (0..SENDERS as u64).map(|seed| {
        let (client, tally) = (client.clone(), Arc::clone(tally));
        tokio::spawn(async move {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            while Instant::now() < until {
                deliver(&client, &tally, polite, &mut rng).await;
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "`just flood` shows what was measured")]
async fn flood_is_refused_honestly_and_nothing_acknowledged_is_lost() {
    let seconds: u64 = std::env::var(SECONDS).ok().map_or(10, |seconds| seconds.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), &limits()).await;
    let client = &running.client;
    client
        .sql(
            "CREATE STREAM s (id TEXT NOT NULL, k INT, n BIGINT, t TEXT, at TIMESTAMPTZ NOT NULL, PRIMARY KEY (id),
             WATERMARK FOR at AS at) WITH (partitions = 4);
             CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS c, sum(n) AS s FROM s GROUP BY k",
        )
        .await;
    let (pushed, tally) = (Arc::new(Tally::default()), Arc::new(Tally::default()));
    send_all(client, &pushed, false, Duration::from_secs(seconds * 6 / 10)).await;
    let half = running.memory_mib();
    tally.next.store(pushed.next.load(Ordering::Relaxed), Ordering::Relaxed);
    send_all(client, &tally, true, Duration::from_secs(seconds * 4 / 10)).await;
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let acknowledged = of(&pushed.acknowledged) + of(&tally.acknowledged);
    let begun = Instant::now();
    while counted(client).await.0 < acknowledged {
        assert!(begun.elapsed() < PATIENCE, "{} of {acknowledged} events are counted", counted(client).await.0);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let drain = begun.elapsed();
    let memory = running.memory_mib();
    println!(
        "flood of {seconds} s: {} bodies offered, {} refused, {acknowledged} events acknowledged; memory {} MiB at most \
         ({} MiB after the first part); of {} that came back as told {} got in, told to wait {} s in all; drained in {drain:?}",
        of(&pushed.offered) + of(&tally.offered),
        of(&pushed.refused) + of(&tally.refused),
        memory.1,
        half.1,
        of(&tally.came_back),
        of(&tally.got_in),
        of(&tally.waited_s),
    );
    assert_eq!(counted(client).await, (acknowledged, of(&pushed.sum) + of(&tally.sum)), "counted, and their sum");
    assert!(of(&pushed.refused) > 10, "this was no overload: {} refusals", of(&pushed.refused));
    assert!(memory.1 < MEMORY_MAX_MIB, "{} MiB", memory.1);
    let came_back = of(&tally.came_back);
    assert!(came_back < 10 || 100 * of(&tally.got_in) >= HONEST_PERCENT * came_back, "Retry-After says too little");
    let run = client.run("v").await;
    assert_eq!((&run["verdict"], &run["rows"]), (&Value::from("exact"), &Value::from(acknowledged)), "{run}");
    running.kill();
    let again = Running::start(folder.path(), &limits()).await;
    assert_eq!(counted(&again.client).await.0, acknowledged, "after a kill");
    again.kill();
}

async fn counted(client: &Client) -> (u64, u64) {
    let answer = client.sql("SELECT coalesce(sum(c), 0), coalesce(sum(s), 0) FROM v").await;
    let number = |column: usize| super::number(&rows(&answer)[0][column]);
    (number(0), number(1))
}
