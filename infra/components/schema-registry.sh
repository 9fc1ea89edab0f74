#!/usr/bin/env bash
# A real schema registry (Apicurio, with Confluent's API, in memory, loopback only) for tests.
#   schema-registry.sh install | start | stop | kill | wipe | status | env
# REGISTRY_PORT (19081; management takes the next port), REGISTRY_DIR (log and pid of this instance),
# REGISTRY_JAVA (a java of version 21 or newer; by default one beside the java on PATH).
set -euo pipefail

version=3.3.3
artifact=io.apicurio:apicurio-registry-app:$version:tar.gz:all
unpack=org.apache.maven.plugins:maven-dependency-plugin:3.8.1:unpack
root=$(realpath -m "${BIFOLD_COMPONENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/bifold/components}")
app=$root/apicurio-$version
port=${REGISTRY_PORT:-19081}
dir=$(realpath -m "${REGISTRY_DIR:-$root/run/registry-$port}")
log=$dir/server.log
url=http://127.0.0.1:$port/apis/ccompat/v7

pid() { # of the running registry of this instance, or fails
  local p
  p=$(cat "$dir/pid" 2>/dev/null) || return 1
  grep -qsF -- "-Dregistry.dir=$dir" "/proc/$p/cmdline" && echo "$p"
}

find_java() { # JDKs are installed side by side
  local j v
  for j in "${REGISTRY_JAVA:-}" "$(dirname "$(readlink -f "$(command -v java)")")"/../../*/bin/java; do
    v=$(sed -n 's/^JAVA_VERSION="\([0-9]*\).*/\1/p' "${j%/bin/java}/release" 2>/dev/null) || continue
    if [ "${v:-0}" -ge 21 ]; then echo "$j"; return; fi
  done
  echo "schema-registry.sh: no java 21 or newer; set REGISTRY_JAVA" >&2
  return 1
}

install() {
  [ -e "$app/.done" ] && return
  mkdir -p "$root"
  exec 9>"$root/registry.lock" && flock 9
  [ -e "$app/.done" ] && return
  mkdir -p "$app"
  (cd "$app" && mvn -B -q -Dstyle.color=never "$unpack" -Dartifact="$artifact" -DoutputDirectory="$app" >&2)
  rm -rf "$app/"'${project.basedir}' # the plugin's markers
  touch "$app/.done"
}

env_() { echo "SCHEMA_REGISTRY_URL=$url"; echo "SCHEMA_REGISTRY_LOG=$log"; }

start() {
  local java p i
  java=$(find_java)
  install
  if pid >/dev/null; then env_; return; fi
  mkdir -p "$dir"
  nohup setsid "$java" -Xmx384m -XX:TieredStopAtLevel=1 -Dregistry.dir="$dir" \
    -Dquarkus.http.host=127.0.0.1 -Dquarkus.http.port="$port" \
    -Dquarkus.management.host=127.0.0.1 -Dquarkus.management.port=$((port + 1)) \
    -jar "$app/quarkus-run.jar" >"$log" 2>&1 9>&- </dev/null &
  p=$!
  echo "$p" >"$dir/pid"
  for ((i = 0; i < 600; i++)); do # 60 s
    if curl -sf -m 5 -o /dev/null "$url/subjects"; then env_; return; fi
    kill -0 "$p" 2>/dev/null || break
    sleep 0.1
  done
  echo "schema-registry.sh: the registry did not start; see $log" >&2
  { grep ERROR "$log" || cat "$log"; } | tail -5 >&2
  stop KILL
  exit 1
}

stop() { # [SIGNAL]: ends the registry and waits until it is gone
  local p i
  p=$(pid) || return 0
  kill -"${1:-TERM}" "$p"
  for ((i = 0; i < 150; i++)); do # 15 s
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
  *) sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
