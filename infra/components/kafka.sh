#!/usr/bin/env bash
# A real Apache Kafka broker (KRaft, one node, loopback only) for tests.
#   kafka.sh install | start | stop | kill | wipe | status | env | run CLASS [ARG...]
# KAFKA_PORT (19092; the controller takes the next port), KAFKA_HEAP (512m),
# KAFKA_DIR (data, config, log and pid of this instance), KAFKA_EXTRA (server.properties lines),
# KAFKA_WATCH (a process: when it has ended, this instance is wiped).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(realpath -m "${BIFOLD_COMPONENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/bifold/components}")
version=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$here/pom.xml")
copy=org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies
lib=$root/kafka-$version/lib
port=${KAFKA_PORT:-19092}
dir=$(realpath -m "${KAFKA_DIR:-$root/run/kafka-$port}")
log=$dir/broker.log
cluster=MkU3OEVBNTcwNTJENDM2Qg # any 16 bytes, base64url

pid() { # of the running broker of this instance, or fails
  local p
  p=$(cat "$dir/pid" 2>/dev/null) || return 1
  grep -qsF "$dir/server.properties" "/proc/$p/cmdline" && echo "$p"
}

java_() { java -cp "$lib/*" -Dlog4j2.configurationFile="$dir/log4j2.properties" "$@"; }

install() {
  local tool
  [ -e "$lib/.done" ] && return
  for tool in java mvn flock; do
    command -v "$tool" >/dev/null || { echo "kafka.sh: $tool is missing (needed: Java 17 or newer, Maven, util-linux)" >&2; exit 1; }
  done
  mkdir -p "$root"
  exec 9>"$root/kafka.lock" && flock 9
  [ -e "$lib/.done" ] && return
  mvn -B -q -Dstyle.color=never -f "$here/pom.xml" "$copy" -DincludeScope=runtime -DoutputDirectory="$lib" >&2
  touch "$lib/.done"
}

configure() {
  mkdir -p "$dir/data"
  cat >"$dir/log4j2.properties" <<-EOF
	appender.out.type = Console
	appender.out.name = OUT
	appender.out.layout.type = PatternLayout
	appender.out.layout.pattern = %d %p %m (%c)%n
	rootLogger.level = \${sys:bifold.kafka.level:-WARN}
	rootLogger.appenderRef.out.ref = OUT
	EOF
  cat >"$dir/server.properties" <<-EOF
	process.roles=broker,controller
	node.id=1
	controller.quorum.voters=1@127.0.0.1:$((port + 1))
	listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
	advertised.listeners=PLAINTEXT://127.0.0.1:$port
	controller.listener.names=CONTROLLER
	log.dirs=$dir/data
	auto.create.topics.enable=false
	group.initial.rebalance.delay.ms=0
	broker.session.timeout.ms=3000
	broker.heartbeat.interval.ms=500
	offsets.topic.replication.factor=1
	offsets.topic.num.partitions=4
	transaction.state.log.replication.factor=1
	transaction.state.log.min.isr=1
	transaction.state.log.num.partitions=4
	share.coordinator.state.topic.replication.factor=1
	share.coordinator.state.topic.min.isr=1
	share.coordinator.state.topic.num.partitions=4
	${KAFKA_EXTRA:-}
	EOF
}

env_() { echo "KAFKA_BOOTSTRAP=127.0.0.1:$port"; echo "KAFKA_LOG=$log"; }

watch() { # nobody has to remember what a test left running
  [ -n "${KAFKA_WATCH:-}" ] || return 0
  nohup setsid bash -c 'while kill -0 "$1" 2>/dev/null; do sleep 1; done; KAFKA_WATCH= KAFKA_DIR="$3" "$2" wipe' \
    watch "$KAFKA_WATCH" "$here/kafka.sh" "$dir" >/dev/null 2>&1 8>&- 9>&- </dev/null &
}

start() {
  local p i
  install
  mkdir -p "$dir"
  exec 8>"$dir/start.lock" && flock 8 # two that start it at once start one broker
  if pid >/dev/null; then env_; return; fi
  configure
  [ -e "$dir/data/meta.properties" ] ||
    java_ -Xshare:auto -XX:TieredStopAtLevel=1 kafka.tools.StorageTool format \
      -t "$cluster" -c "$dir/server.properties" >"$dir/format.log" 2>&1 || { cat "$dir/format.log" >&2; exit 1; }
  : >"$log"
  nohup setsid java -cp "$lib/*" -Xms"${KAFKA_HEAP:-512m}" -Xmx"${KAFKA_HEAP:-512m}" -XX:+UseG1GC -XX:+ExitOnOutOfMemoryError \
    -Djava.awt.headless=true -Dbifold.kafka.level=INFO -Dlog4j2.configurationFile="$dir/log4j2.properties" \
    kafka.Kafka "$dir/server.properties" >>"$log" 2>&1 8>&- 9>&- </dev/null &
  p=$!
  echo "$p" >"$dir/pid"
  for ((i = 0; i < 600; i++)); do # 60 s
    if grep -q 'Kafka Server started' "$log"; then watch; env_; return; fi
    kill -0 "$p" 2>/dev/null || break
    sleep 0.1
  done
  echo "kafka.sh: the broker did not start; see $log" >&2
  { grep -E ' (ERROR|FATAL) ' "$log" || cat "$log"; } | tail -5 >&2
  stop KILL
  exit 1
}

stop() { # [SIGNAL]: ends the broker and waits until it is gone
  local p i
  p=$(pid) || return 0
  kill -"${1:-TERM}" "$p"
  for ((i = 0; i < 300; i++)); do # 30 s
    if ! pid >/dev/null; then rm -f "$dir/pid"; return; fi
    sleep 0.1
  done
  kill -KILL "$p"
  rm -f "$dir/pid"
}

case "${1:-}" in
  install) install ;;
  start) start ;;
  stop) stop ;;
  kill) stop KILL ;;
  wipe) stop KILL && rm -rf "$dir" ;;
  status) if p=$(pid); then echo "running, pid $p"; env_; else echo stopped; exit 3; fi ;;
  env) env_ ;;
  run) install && configure && java_ "${@:2}" ;;
  *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
