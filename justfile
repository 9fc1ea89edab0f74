# The menu. CI calls the same names, so a laptop and CI cannot differ.

# what there is
default:
    @just --list

# format, lints, documentation, licences: everything but the tests
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
    cargo deny check

# all tests
test:
    cargo test --workspace

# the tests of one crate. `tests` stands beside it, so that its dependencies are compiled with the features that the
# whole workspace needs of them, and not once more
test-of CRATE *FILTER:
    cargo test -p {{CRATE}} -p tests --lib {{FILTER}}

# the whole platform in a simulation: `just sim SEED=17 STEPS=200`; without a seed, the fixed ones and a fresh one
sim *ARGS:
    env {{ARGS}} sh -c 'BIFOLD_SIM_SEED="${SEED:-}" BIFOLD_SIM_STEPS="${STEPS:-}" \
        exec cargo test -p tests --test platform -- --exact sim::no_seed_breaks_an_invariant'

# the story in the terminal
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# kill -9 by the thousand, and what is counted then: embedded | kafka | topic | import | all
kills WHAT *NUMBER:
    infra/kills.sh {{WHAT}} {{NUMBER}}

# a benchmark: ingest | recompute | lookup | operators | freshness | landing | duplicates | recovery | kafka | build
bench WORK *ARGS:
    benches/run.sh {{WORK}} {{ARGS}}

# accept changed snapshots
bless:
    INSTA_UPDATE=always cargo test --workspace

# a real Kafka broker on loopback: start | stop | kill | wipe | status | env
kafka WHAT:
    infra/components/kafka.sh {{WHAT}}

# a real PostgreSQL server: start | stop | wipe | status
postgres WHAT:
    infra/components/postgres.sh {{WHAT}}

# a real S3 server on loopback, likewise
s3 WHAT:
    infra/components/s3.sh {{WHAT}}

# a real schema registry on loopback, likewise
schema-registry WHAT:
    infra/components/schema-registry.sh {{WHAT}}

# bytes of others, mutated for so long: json | bodies | files | log | documents | deltas | batch_views | ddl | http | folder
fuzz TARGET SECONDS="60":
    BIFOLD_FUZZ_ONLY={{TARGET}} BIFOLD_FUZZ_SECONDS={{SECONDS}} cargo test -p tests --test platform fuzz:: -- --nocapture

# far more events than can be taken, for so long: memory, refusals, drain time
flood SECONDS="60":
    BIFOLD_FLOOD_SECONDS={{SECONDS}} cargo test -p tests --test platform pressure::flood -- --nocapture
