#!/usr/bin/env bash
# A real PostgreSQL server (Debian's package, loopback only) for tests.
#   postgres.sh install | start | stop | kill | wipe | status | env
# POSTGRES_PORT (19432), POSTGRES_DIR (data, log and pid of this instance), POSTGRES_WATCH (a process:
# when it has ended, this instance is wiped). The password is for tests on loopback only.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(realpath -m "${BIFOLD_COMPONENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/bifold/components}")
port=${POSTGRES_PORT:-19432}
home=$root/run
[ "$(id -u)" != 0 ] || home=/var/tmp/bifold # where somebody who is not root can be
dir=$(realpath -m "${POSTGRES_DIR:-$home/postgres-$port}")
log=$dir/server.log
user=bifold password=bifoldtest database=bifold
runner=nobody # PostgreSQL does not run as root

bin() { # the newest one that is installed, 15 or later
  local found
  found=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -t/ -k5 -n | tail -1)
  [ -n "$found" ] && [ -x "$found/postgres" ] && echo "$found" && return
  found=$(command -v postgres 2>/dev/null) && dirname "$found"
}

pid() { # of the running server of this instance, or fails
  local p
  p=$(head -1 "$dir/data/postmaster.pid" 2>/dev/null) || return 1
  grep -qsF "$dir/data" "/proc/$p/cmdline" && echo "$p"
}

as_runner() { # COMMAND...: as somebody who is not root
  if [ "$(id -u)" != 0 ]; then "$@"; else setpriv --reuid="$runner" --regid="$(id -g "$runner")" --clear-groups "$@"; fi
}

install() {
  bin >/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    mkdir -p "$root"
    exec 9>"$root/postgres.lock" && flock 9
    bin >/dev/null && return
    # the package would start a server of its own
    mkdir -p /etc/postgresql-common && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q postgresql >&2 ||
      { apt-get update -q >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -y -q postgresql >&2; }
  fi
  bin >/dev/null || { echo "postgres.sh: PostgreSQL is missing (15 or newer): apt install postgresql" >&2; exit 1; }
}

env_() { echo "BIFOLD_POSTGRES=postgres://$user:$password@127.0.0.1:$port/$database"; echo "POSTGRES_LOG=$log"; }

watch() { # nobody has to remember what a test left running
  [ -n "${POSTGRES_WATCH:-}" ] || return 0
  nohup setsid bash -c 'while kill -0 "$1" 2>/dev/null; do sleep 1; done; POSTGRES_WATCH= POSTGRES_DIR="$3" "$2" wipe' \
    watch "$POSTGRES_WATCH" "$here/postgres.sh" "$dir" >/dev/null 2>&1 8>&- 9>&- </dev/null &
}

configure() {
  local secret
  [ -e "$dir/data/PG_VERSION" ] && return
  secret=$(mktemp) && echo "$password" >"$secret" && chmod 644 "$secret"
  mkdir -p "$dir/data" && chmod 700 "$dir/data"
  [ "$(id -u)" != 0 ] || chown -R "$runner" "$dir"
  as_runner "$(bin)/initdb" -D "$dir/data" -U "$user" --pwfile="$secret" --auth=scram-sha-256 --encoding=UTF8 \
    --locale=C --no-sync >"$log" 2>&1 || { cat "$log" >&2; rm -f "$secret"; exit 1; }
  rm -f "$secret"
}

ready() { # it answers, and the database is there
  PGPASSWORD=$password PGCONNECT_TIMEOUT=2 "$(bin)/psql" -h 127.0.0.1 -p "$port" -U "$user" -d postgres -qAtc 'SELECT 1' \
    >/dev/null 2>&1 || return 1
  PGPASSWORD=$password "$(bin)/psql" -h 127.0.0.1 -p "$port" -U "$user" -d postgres -qAtc \
    "SELECT 1 FROM pg_database WHERE datname = '$database'" | grep -q 1 ||
    PGPASSWORD=$password "$(bin)/createdb" -h 127.0.0.1 -p "$port" -U "$user" "$database" >/dev/null
}

reachable() { # the folders above: the server is somebody else
  local at=$dir
  while [ "$at" != / ]; do
    at=$(dirname "$at")
    as_runner test -x "$at" || { echo "postgres.sh: user $runner cannot enter $at: set POSTGRES_DIR" >&2; exit 1; }
  done
}

start() {
  local i
  install
  mkdir -p "$dir"
  exec 8>"$dir/start.lock" && flock 8 # two that start it at once start one server
  if pid >/dev/null; then env_; return; fi
  reachable
  configure
  : >"$log"
  [ "$(id -u)" != 0 ] || chown "$runner" "$log"
  # -F: no fsync. A killed server loses nothing by that, only a power cut would
  nohup setsid "${BASH_SOURCE[0]}" serve >>"$log" 2>&1 8>&- 9>&- </dev/null &
  for ((i = 0; i < 300; i++)); do # 30 s
    if ready; then watch; env_; return; fi
    sleep 0.1
  done
  echo "postgres.sh: the server did not start; see $log" >&2
  tail -5 "$log" >&2
  stop KILL
  exit 1
}

serve() {
  as_runner "$(bin)/postgres" -D "$dir/data" -p "$port" -F -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
    -c shared_buffers=32MB -c max_connections=50
}

stop() { # [SIGNAL]: ends the server and waits until it is gone
  local p i
  p=$(pid) || return 0
  if [ "${1:-INT}" = KILL ]; then # the processes of its connections, too
    pkill -KILL -P "$p" 2>/dev/null || true
  fi
  kill -"${1:-INT}" "$p"
  for ((i = 0; i < 300; i++)); do # 30 s
    if ! pid >/dev/null; then return; fi
    sleep 0.1
  done
  kill -KILL "$p"
}

case "${1:-}" in
  install) install ;;
  start) start ;;
  serve) serve ;;
  stop) stop ;;
  kill) stop KILL ;;
  wipe) stop KILL && rm -rf "$dir" ;;
  status) if p=$(pid); then echo "running, pid $p"; env_; else echo stopped; exit 3; fi ;;
  env) env_ ;;
  *) sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
