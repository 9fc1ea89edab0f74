//! `kill -9` under load, and what it takes until everything acknowledged is in an answer again.
//!
//! The cells are made by events; in the first half of the rounds they are in deltas, in the second in a batch view. A
//! round: events come in flat out for a few seconds; `kill -9`; start; a look-up of the newest acknowledged event's cell
//! that includes its position; the first event that is acknowledged again (ids are read back for that). Then, outside
//! the clock: what was not acknowledged is sent again, and count and sum over all cells must be those that were sent.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use bytes::Bytes;
use clap::Args;
use schemas::PositionToken;
use serde_json::{Value, json};

use crate::events::hash;
use crate::measure::{at_most, median, report_value};
use crate::server::{Place, Server, join, number};

/// Events in one body.
const BODY: u64 = 20_000;
/// What the goal allows, seconds.
const SECONDS_MAX: f64 = 2.0;
/// Of one query, bytes: the check merges all cells at once.
const MEMORY: (&str, u64) = ("BIFOLD__LIMITS__QUERY_MEMORY_BYTES", 4 << 30);

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    place: Place,
    /// Cells of the view.
    #[arg(long, default_value_t = 10_000_000)]
    cells: u64,
    /// Kills: half of them with the cells in deltas, half in a batch view.
    #[arg(long, default_value_t = 6)]
    rounds: u64,
    /// Seconds of load before each kill.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
}

/// Events numbered from 0.
struct Load {
    cells: u64,
    /// Acknowledged are all below it.
    next: u64,
    position: Option<PositionToken>,
}

impl Load {
    fn cell(&self, number: u64) -> u64 {
        // every cell once, then again in another order
        if number < self.cells { number } else { hash(1, number) % self.cells }
    }

    fn body(&self) -> Bytes {
        use std::io::Write as _;
        let mut lines = Vec::with_capacity(BODY as usize * 80);
        for n in self.next..self.next + BODY {
            let key = hash(2, self.cell(n));
            let written = writeln!(lines, r#"{{"id":"{n}","key":"{key:016x}","n":{n},"at":1767225600000}}"#);
            debug_assert!(written.is_ok(), "memory takes what is written");
        }
        lines.into()
    }

    fn acknowledge(&mut self, told: &Value) -> anyhow::Result<()> {
        ensure!(number(&told["accepted"]) + number(&told["duplicates"]) == BODY, "{told}");
        self.next += BODY;
        join(&mut self.position, told)
    }

    /// Sends the next body, however often it takes.
    async fn send(&mut self, server: &Server) -> anyhow::Result<()> {
        let told = server.ingest("events", self.body()).await?;
        self.acknowledge(&told)
    }
}

/// What one kill has cost, seconds.
struct Recovery {
    ready: f64,
    answered: f64,
    acknowledged: f64,
}

async fn start(options: &Options) -> anyhow::Result<Server> {
    let (name, bytes) = MEMORY;
    Server::start(&options.place, &[(name, bytes.to_string())]).await
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    options.place.empty()?;
    let mut server = start(&options).await?;
    server
        .sql(
            "CREATE STREAM events (id TEXT NOT NULL, key TEXT NOT NULL, n BIGINT, at TIMESTAMPTZ NOT NULL, \
             PRIMARY KEY (id), WATERMARK FOR at AS at) WITH (partitions = 2)",
        )
        .await?;
    server
        .sql("CREATE MATERIALIZED VIEW cells AS SELECT key, count(*) AS c, sum(n) AS s FROM events GROUP BY key")
        .await?;
    let mut load = Load { cells: options.cells, next: 0, position: None };
    while load.next < options.cells {
        load.send(&server).await?;
    }
    let mut recoveries = vec![];
    for round in 0..options.rounds {
        if round == options.rounds / 2 {
            server.sql("REFRESH MATERIALIZED VIEW cells").await?;
        }
        let where_cells_are = if round < options.rounds / 2 { "deltas" } else { "batch view" };
        let (restarted, recovery) = one_round(server, &mut load, &options).await?;
        server = restarted;
        check(&server, &load).await?;
        report_value(&json!({
            "w": "recovery", "peer": format!("bifold round={round} cells={where_cells_are}"), "events": load.next,
            "ready_s": recovery.ready, "answered_s": recovery.answered,
            "acknowledged_s": recovery.acknowledged,
        }));
        recoveries.push(recovery);
    }
    let largest = |of: fn(&Recovery) -> f64| recoveries.iter().map(of).fold(0.0, f64::max);
    let middle = |of: fn(&Recovery) -> f64| median(recoveries.iter().map(of).collect());
    report_value(&json!({
        "w": "recovery", "peer": format!("bifold all rounds, {} cells", options.cells),
        "ready_s": middle(|r| r.ready), "answered_s": middle(|r| r.answered),
        "acknowledged_s": middle(|r| r.acknowledged), "peak_mb": server.peak_mb(),
        "goals": [at_most(
            "largest time from kill -9 to an answer with everything acknowledged, s", largest(|r| r.answered), SECONDS_MAX,
        )],
    }));
    server.kill()?;
    std::fs::remove_dir_all(&options.place.data_dir)?;
    Ok(())
}

async fn one_round(server: Server, load: &mut Load, options: &Options) -> anyhow::Result<(Server, Recovery)> {
    let until = Instant::now() + Duration::from_secs_f64(options.seconds);
    while Instant::now() < until {
        load.send(&server).await?;
    }
    // one more is under way when the process ends: nobody knows whether it is there
    let under_way = tokio::time::timeout(Duration::from_millis(3), server.ingest("events", load.body())).await;
    if let Ok(told) = under_way {
        load.acknowledge(&told?)?;
    }
    let newest = hash(2, load.cell(load.next - 1));
    let Some(position) = load.position.clone() else { bail!("nothing was acknowledged") };
    server.kill()?;
    let begun = Instant::now();
    let server = start(options).await?;
    let answer = server.get(&format!("/v1/views/cells?key=eq.{newest:016x}&at_least={position}")).await?;
    let answered = begun.elapsed().as_secs_f64();
    ensure!(number(&answer["rows"][0][1]) >= 1, "the newest acknowledged event is not in the answer: {answer}");
    load.send(&server).await?;
    let acknowledged = begun.elapsed().as_secs_f64();
    let ready = server.ready_in.as_secs_f64();
    Ok((server, Recovery { ready, answered, acknowledged }))
}

/// Every event once: the count and the sum of all numbers.
async fn check(server: &Server, load: &Load) -> anyhow::Result<()> {
    let Some(position) = &load.position else { bail!("nothing was acknowledged") };
    let sql = "SELECT CAST(sum(c) AS BIGINT), CAST(sum(s) AS BIGINT), count(*) FROM cells";
    let answer = server.sql_at(sql, position).await?;
    let found = [0, 1, 2].map(|column| number(&answer["rows"][0][column]));
    let expected = [load.next, load.next * (load.next - 1) / 2, load.cells];
    if found != expected {
        bail!("count, sum and cells are {found:?}, not {expected:?}");
    }
    Ok(())
}
