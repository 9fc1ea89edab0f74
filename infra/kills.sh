#!/usr/bin/env bash
# kill -9 again and again on a release build, with an oracle over every acknowledged event. Prints what it found;
# ends with an error if an event was lost or counted twice, or a run disagreed.
#   kills.sh embedded [KILLS]   Bifold, on its own log and the local disk (1000)
#   kills.sh kafka [KILLS]      Bifold, its broker and its S3 server: log = 'kafka', all else on S3 (1000)
#   kills.sh topic [RECORDS]    Bifold, while a producer of others fills a topic that it reads (1000000)
#   kills.sh import [KILLS]     `bifold ingest` and COPY of 137,512 commits, server and client (40)
#   kills.sh all
# SEED (a new one each time; it is printed), TOPIC_KILLS (60), BIFOLD_TEST_BINARY (a bifold that is built already),
# CARGO_TARGET_DIR (target).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$here/target}
seed=${SEED:-$(date +%s)}
what=${1:-}
number=${2:-}
case "$what" in embedded | kafka | topic | import | all) ;; *) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;; esac
case "$number" in *[!0-9]*) echo "kills.sh: not a number: $number" >&2; exit 2 ;; esac

if [ -z "${BIFOLD_TEST_BINARY:-}" ]; then
  (cd "$here" && cargo build --release --quiet -p cli)
  BIFOLD_TEST_BINARY=$target/release/bifold
fi
BIFOLD_TEST_BINARY=$(realpath "$BIFOLD_TEST_BINARY")
export BIFOLD_TEST_BINARY BIFOLD_TEST_SEED=$seed

run() { # NAME VARIABLE=VALUE...: one test of the platform, which must be there
  local said=$(mktemp)
  echo "$1, seed $seed" >&2
  (cd "$here" && env "${@:2}" cargo test --quiet -p tests --test platform -- --exact --nocapture "$1") | tee "$said"
  grep -q '1 passed' "$said" || { rm -f "$said"; echo "kills.sh: there is no test $1" >&2; exit 1; }
  rm -f "$said"
}
embedded() { run crash::kills::no_kill_loses_or_doubles_an_acknowledged_event "BIFOLD_KILLS=${1:-1000}"; }
kafka() {
  run crash::kills::no_kill_of_bifold_its_broker_or_its_store_loses_or_doubles_an_acknowledged_event "BIFOLD_KILLS=${1:-1000}"
}
topic() {
  run kafka::faults::kill_while_a_topic_is_read_counts_every_record_once \
    "BIFOLD_RECORDS=${1:-1000000}" "BIFOLD_KILLS=${TOPIC_KILLS:-60}"
}
import() {
  run crash::imports::import_by_the_client_that_is_killed_again_and_again_is_in_once "BIFOLD_KILLS=${1:-40}"
  run crash::imports::copy_that_is_killed_again_and_again_is_in_once "BIFOLD_KILLS=${1:-40}"
}

case "$what" in
  all) for each in embedded kafka topic import; do $each; done ;;
  *) "$what" "$number" ;;
esac
