//! The parts of the benchmarks that run inside a Bifold process; `run.sh` puts peers beside them.
//!
//! Each prints one line `RESULT {…}` as the peers' scripts do: wall and CPU seconds of the work itself.

mod aggregates;
mod decode;
mod lookup;
mod measure;
mod recompute;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    /// Only the JSON decode of the bytes that `ingest` takes, with plain `arrow-json`: its baseline.
    Decode {
        /// Folder of `*.ndjson`.
        #[arg(long)]
        ndjson: PathBuf,
        /// Events in one body.
        #[arg(long, default_value_t = 100_000)]
        block: usize,
    },
    /// W2: the rows of a Parquet folder, landed as the master of a stream, recomputed into an indexed batch view.
    Recompute(recompute::Options),
    /// The aggregates alone, beside DataFusion's own.
    Operators(aggregates::Options),
    /// W3: one cell by key, in process and over HTTP, with deltas present.
    Lookup(lookup::Options),
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match Arguments::parse().work {
        Work::Decode { ndjson, block } => decode::run(&ndjson, block),
        Work::Recompute(options) => runtime.block_on(recompute::run(options)),
        Work::Operators(options) => runtime.block_on(aggregates::run(options)),
        Work::Lookup(options) => runtime.block_on(lookup::run(options)),
    }
}
