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

# the story in the terminal
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# a benchmark: ingest | recompute | lookup | operators | freshness | build
bench WORK *ARGS:
    benches/run.sh {{WORK}} {{ARGS}}

# accept changed snapshots
bless:
    INSTA_UPDATE=always cargo test --workspace

# a real Kafka broker on loopback: start | stop | kill | wipe | status | env
kafka WHAT:
    infra/components/kafka.sh {{WHAT}}

# a real S3 server on loopback, likewise
s3 WHAT:
    infra/components/s3.sh {{WHAT}}

# a real schema registry on loopback, likewise
schema-registry WHAT:
    infra/components/schema-registry.sh {{WHAT}}
