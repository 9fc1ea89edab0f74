//! What finding duplicates costs when the index is full: a stream with a primary key whose index holds so many ids,
//! beside one without a primary key, which looks for none. The same events go into both, in turns, over HTTP; two
//! processes, so that each one's CPU is its own, whatever its index does in the background.
//!
//! ```text
//!  fill      ids − rounds × events, narrow lines (an id and a time), into the stream with a key
//!  rounds    the same 245-byte events into both, new ids; until both are idle
//!  check     ids of the whole range are sent again: every one is a duplicate
//! ```
//! Two figures. *At so many ids*: CPU of the rounds, one process over the other. *From the first id on*: CPU per id of the
//! fill, less that of the same lines without a key, on top of a 245-byte event without a key: what an event has paid by
//! then for all merges of the index. The larger one has to be small enough.

use anyhow::{Context, bail, ensure};
use clap::Args;
use futures::stream::{StreamExt, TryStreamExt, iter};
use serde_json::json;

use crate::events::{COLUMNS, body, hash, push_identified, push_narrow};
use crate::measure::{at_most, report_value};
use crate::server::{Place, Server, number};

/// Narrow lines in one body.
const NARROW_BODY: u64 = 100_000;
/// Bodies under way at the same time.
const IN_FLIGHT: usize = 3;
/// Ids that are sent again at the end, in bodies of so many: each has its record read, to compare the values.
const AGAIN: u64 = 2_000;
const AGAIN_BODY: u64 = 250;
/// What the goal allows.
const RATIO_MAX: f64 = 1.25;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    place: Place,
    /// Ids in the index at the end.
    #[arg(long, default_value_t = 100_000_000)]
    ids: u64,
    /// Rounds in which the same events go into both.
    #[arg(long, default_value_t = 8)]
    rounds: u64,
    /// Events of a round.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Events in one body.
    #[arg(long, default_value_t = 20_000)]
    block: u64,
}

/// CPU seconds for so many events.
#[derive(Clone, Copy, Default)]
struct Cost {
    cpu_s: f64,
    events: u64,
}

impl Cost {
    fn add(&mut self, other: Self) {
        self.cpu_s += other.cpu_s;
        self.events += other.events;
    }

    fn per_event_ns(self) -> f64 {
        1e9 * self.cpu_s / self.events as f64
    }
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let measured = options.rounds * options.events;
    let fill = options.ids.checked_sub(measured).context("--ids: more than rounds × events")?;
    options.place.empty()?;
    let with_key = start(&options.place.at("with-key"), ", PRIMARY KEY (event_id)").await?;
    let without = start(&options.place.at("without-key"), "").await?;
    let filled = send(&with_key, 0..fill, NARROW_BODY, push_narrow).await?;
    // a share of it: nothing that it costs grows
    let plain = send(&without, 0..fill.min(measured), NARROW_BODY, push_narrow).await?;
    let (mut on, mut off) = (Cost::default(), Cost::default());
    for round in 0..options.rounds {
        let from = fill + round * options.events;
        for (server, cost) in [(&without, &mut off), (&with_key, &mut on)] {
            cost.add(send(server, from..from + options.events, options.block, push_identified).await?);
        }
    }
    let peak_mb = with_key.peak_mb();
    check(&with_key, options.ids).await?;
    let at_end = on.per_event_ns() / off.per_event_ns();
    let index_ns = filled.per_event_ns() - plain.per_event_ns();
    let throughout = (off.per_event_ns() + index_ns) / off.per_event_ns();
    report_value(&json!({
        "w": "duplicates", "peer": format!("no primary key, {measured} events"), "cpu_s": off.cpu_s,
        "cpu_ns_per_event": off.per_event_ns(), "narrow_cpu_ns_per_event": plain.per_event_ns(),
    }));
    report_value(&json!({
        "w": "duplicates", "peer": format!("bifold, primary key, {} ids", options.ids), "cpu_s": on.cpu_s,
        "cpu_ns_per_event": on.per_event_ns(), "narrow_cpu_ns_per_event": filled.per_event_ns(), "peak_mb": peak_mb,
        "goals": [
            at_most(&format!("CPU with duplicate check / without, at {} ids", options.ids), at_end, RATIO_MAX),
            at_most("the same, from the first id on", throughout, RATIO_MAX),
        ],
    }));
    std::fs::remove_dir_all(&options.place.data_dir)?;
    Ok(())
}

/// Nothing but ingest: no view, no landing, no checkpoint.
async fn start(place: &Place, key: &str) -> anyhow::Result<Server> {
    let never = || "86400000".to_owned();
    let variables = [
        ("BIFOLD__LIMITS__LANDING_INTERVAL_MS", never()),
        ("BIFOLD__LIMITS__LANDING_BYTES", "1000000000000000".to_owned()),
        ("BIFOLD__LIMITS__CHECKPOINT_INTERVAL_MS", never()),
    ];
    let server = Server::start(place, &variables).await?;
    let sql = format!("CREATE STREAM events (event_id TEXT NOT NULL, {COLUMNS}{key}) WITH (partitions = 2)");
    server.sql(&sql).await?;
    Ok(server)
}

/// Sends new events; what the server used until it was idle again.
async fn send(
    server: &Server,
    numbers: std::ops::Range<u64>,
    block: u64,
    push: fn(&mut Vec<u8>, u64),
) -> anyhow::Result<Cost> {
    let events = numbers.end - numbers.start;
    let before = server.cpu_s();
    let blocks = numbers.clone().step_by(block as usize).map(|from| from..(from + block).min(numbers.end));
    let sends = iter(blocks).map(|numbers| async move {
        let events = numbers.end - numbers.start;
        let lines = tokio::task::spawn_blocking(move || body(numbers, push)).await?;
        let told = server.ingest("events", lines).await?;
        ensure!(number(&told["accepted"]) == events, "new events were not accepted: {told}");
        anyhow::Ok(())
    });
    sends.buffer_unordered(IN_FLIGHT).try_for_each(|()| async { Ok(()) }).await?;
    server.settle().await;
    Ok(Cost { cpu_s: server.cpu_s() - before, events })
}

/// Every id is known, wherever in the index it is.
async fn check(server: &Server, ids: u64) -> anyhow::Result<()> {
    for part in 0..AGAIN / AGAIN_BODY {
        let numbers = (0..AGAIN_BODY).map(|index| hash(15, part * AGAIN_BODY + index) % ids);
        let mut lines = vec![];
        numbers.for_each(|number| push_narrow(&mut lines, number));
        let told = server.ingest("events", lines.into()).await?;
        if number(&told["duplicates"]) != AGAIN_BODY {
            bail!("ids that were sent before are not all known: {told}");
        }
    }
    Ok(())
}
