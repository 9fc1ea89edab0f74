#!/usr/bin/env bash
# Runs every installed peer and prints one table. benches/setup.sh first.
#   peers.sh [w1] [w2] [w3]          default: all three
# ROUNDS (3)  BENCH_ROOT (/tmp/bench)  PEERS (a pattern of the names below, default all)
# KAFKA_SH (a kafka.sh; without it the Kafka rows are left out)  SPARK_ROUNDS (ROUNDS)
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export BENCH_ROOT=${BENCH_ROOT:-/tmp/bench} BENCH_OUT=${BENCH_OUT:-${BENCH_ROOT:-/tmp/bench}/out}
rounds=${ROUNDS:-3}
work=" ${*:-w1 w2 w3} "
. "$BENCH_ROOT/venv/bin/activate"
mkdir -p "$BENCH_OUT"
data=$BENCH_ROOT/data

one() { # label, seconds allowed, command…
  [[ "$*" =~ ${PEERS:-.} ]] || return 0
  python "$here/run.py" --label "$1" --timeout "$2" -- "${@:3}" | cut -c1-400 >&2 || echo "FAILED: $*" >&2
}
have() { python -c "import $1" 2>/dev/null; }
flink=; [ -d "${FLINK_HOME:-$BENCH_ROOT/flink/pyflink}/lib" ] && flink=1
kafka=; [ -n "$flink" ] && [ -n "${KAFKA_SH:-}" ] && kafka=1

w1() {
  have chdb && for v in "--block 0" "--block 0 --fsync 1 --order none" "--block 0 --types text" "--block 0 --raw null" \
    "--block 100000 --fsync 1 --order none" "--block 10000 --fsync 1 --order none" "--block 10000 --fsync 1" "--block 10000"; do
    one w1 200 python "$here/w1_clickhouse.py" $v
  done
  have duckdb && for v in "--mode query" "--mode full" "--mode log" "--mode log --block 10000"; do
    one w1 120 python "$here/w1_duckdb.py" $v
  done
  [ -n "$flink" ] && for v in "query=tumble sink=csv" "query=group sink=map" "query=tumble sink=csv decode=all"; do
    one w1 240 "$here/w1_flink.sh" $v
  done
  [ -n "$kafka" ] && for v in "--flush 1 query=tumble sink=csv" "query=tumble sink=csv"; do
    one w1 300 python "$here/w1_flink_kafka.py" $v
  done
  have pyspark && { one w1 300 python "$here/w1_spark.py"; one w1 300 python "$here/w1_spark.py" --batch 1; }
}

w1_start() { # the same on 0.1 M events: what start-up, planning and warming of a JVM cost
  export BENCH_NDJSON=$data/ndjson-100k
  [ -n "$flink" ] && for v in "query=tumble sink=csv" "query=group sink=map" "query=tumble sink=csv decode=all"; do one w1-start 100 "$here/w1_flink.sh" $v; done
  [ -n "$kafka" ] && for v in "--flush 1 query=tumble sink=csv" "query=tumble sink=csv"; do one w1-start 100 python "$here/w1_flink_kafka.py" $v; done
  have pyspark && { one w1-start 100 python "$here/w1_spark.py"; one w1-start 100 python "$here/w1_spark.py" --batch 1; }
  unset BENCH_NDJSON
}

w2() {
  for q in a1 a2 b1 b2; do
    have duckdb && one w2 120 python "$here/w2_duckdb.py" --query $q
    have chdb && one w2 120 python "$here/w2_clickhouse.py" --query $q
    have datafusion && one w2 120 python "$here/w2_datafusion.py" --query $q
    have polars && one w2 120 python "$here/w2_polars.py" --query $q
    have pyspark && [ "$1" -le "${SPARK_ROUNDS:-$rounds}" ] && one w2 240 python "$here/w2_spark.py" --query $q
  done
}

w3() {
  for cells in cells1m cells10m; do
    for p in clickhouse postgres duckdb; do
      [[ $p =~ ${PEERS:-.} ]] || continue
      timeout 400 python "$here/w3_lookup.py" --peer $p --cells "$data/$cells" --rounds "$rounds" | cut -c1-300 >&2 || echo "FAILED: w3 $p $cells" >&2
    done
  done
}

cat "$data"/ndjson/* "$data"/parquet/* >/dev/null # warm page cache
for ((i = 1; i <= rounds; i++)); do
  [[ $work == *" w1 "* ]] && { w1; [ "$i" -gt 2 ] || w1_start; }
done
rm -rf "${BENCH_PIECES:-/dev/shm/bench-pieces}"
for ((i = 1; i <= rounds; i++)); do
  [[ $work == *" w2 "* ]] && w2 "$i"
done
if [[ $work == *" w2 "* ]]; then
  [ -e "$BENCH_OUT/w2-duckdb-exact.parquet" ] || python "$here/w2_duckdb.py" --query exact >/dev/null
  python "$here/w2_check.py" "$BENCH_OUT"/w2-*.parquet | tee "$BENCH_OUT/w2-check.txt"
fi
[[ $work == *" w3 "* ]] && w3
python "$here/table.py"
