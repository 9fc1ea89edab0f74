//! The parts of the benchmarks that run inside a Bifold process; `run.sh` puts peers beside them.
//!
//! Each prints one line `RESULT {…}` as the peers' scripts do: wall and CPU seconds of the work itself.

mod acknowledgement;
mod aggregates;
mod decode;
mod duplicates;
mod events;
mod kafka;
mod landing;
mod lookup;
mod measure;
mod recompute;
mod recovery;
mod server;

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
    /// Events a second and time to the acknowledgement, over sizes of bodies and the clients' linger.
    Ingest(acknowledgement::Options),
    /// Landing beside a plain Parquet writer.
    Landing(landing::Options),
    /// What finding duplicates costs with a full index, beside not looking for any.
    Duplicates(duplicates::Options),
    /// From `kill -9` under load to an answer with everything acknowledged.
    Recovery(recovery::Options),
    /// A topic to visible, beside a bare consumer that only counts.
    Kafka(kafka::Options),
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match Arguments::parse().work {
        Work::Decode { ndjson, block } => decode::run(&ndjson, block),
        Work::Recompute(options) => runtime.block_on(recompute::run(options)),
        Work::Operators(options) => runtime.block_on(aggregates::run(options)),
        Work::Lookup(options) => runtime.block_on(lookup::run(options)),
        Work::Ingest(options) => runtime.block_on(acknowledgement::run(options)),
        Work::Landing(options) => runtime.block_on(landing::run(options)),
        Work::Duplicates(options) => runtime.block_on(duplicates::run(options)),
        Work::Recovery(options) => runtime.block_on(recovery::run(options)),
        Work::Kafka(options) => runtime.block_on(kafka::run(options)),
    }
}
