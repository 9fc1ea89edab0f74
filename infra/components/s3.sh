#!/usr/bin/env bash
# A real S3 server (built from its Go module, loopback only) for tests.
#   s3.sh install | start | stop | kill | wipe | status | env
# S3_SERVER (versitygw or minio), S3_PORT (19000), S3_BUCKET (bifold), S3_DIR (data, log and pid
# of this instance). The key and secret are for tests on loopback only.
set -euo pipefail

server=${S3_SERVER:-versitygw}
case $server in
  versitygw) package=github.com/versity/versitygw/cmd/versitygw version=v1.8.0 ;;
  minio) package=github.com/minio/minio version=v0.0.0-20260212201848-7aac2a2c5b7c ;;
  *) echo "s3.sh: no such S3_SERVER: $server" >&2; exit 2 ;;
esac
root=$(realpath -m "${BIFOLD_COMPONENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/bifold/components}")
bin=$root/$server-$version/$server
port=${S3_PORT:-19000}
bucket=${S3_BUCKET:-bifold}
dir=$(realpath -m "${S3_DIR:-$root/run/$server-$port}")
log=$dir/server.log
key=bifoldtest secret=bifoldtestsecret region=us-east-1
endpoint=http://127.0.0.1:$port

pid() { # of the running server of this instance, or fails
  local p
  p=$(cat "$dir/pid" 2>/dev/null) || return 1
  grep -qsF "$dir/data" "/proc/$p/cmdline" && echo "$p"
}

install() { # builds with Go caches of its own and removes them, which are 18 times the binary
  local tmp
  [ -x "$bin" ] && return
  mkdir -p "$root"
  exec 9>"$root/s3.lock" && flock 9
  [ -x "$bin" ] && return
  tmp=$(mktemp -d "$root/s3-build.XXXXXX")
  if [ -z "${S3_KEEP_GO_CACHE:-}" ]; then export GOMODCACHE=$tmp/mod GOCACHE=$tmp/cache; fi
  GOBIN=$tmp/bin GOFLAGS=-modcacherw CGO_ENABLED=0 go install -trimpath -ldflags '-s -w' "$package@$version" >&2
  mkdir -p "$(dirname "$bin")"
  mv "$tmp/bin/$server" "$bin"
  rm -rf "$tmp"
}

env_() {
  cat <<-EOF
	AWS_ENDPOINT_URL=$endpoint
	AWS_ALLOW_HTTP=true
	AWS_ACCESS_KEY_ID=$key
	AWS_SECRET_ACCESS_KEY=$secret
	AWS_REGION=$region
	S3_BUCKET=$bucket
	S3_LOG=$log
	EOF
}

make_bucket() { # curl 7.88 signs, but does not send the digest of the (empty) body by itself
  local code empty=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
  code=$(curl -s -m 5 -o "$dir/bucket.xml" -w '%{http_code}' -X PUT -H "x-amz-content-sha256: $empty" \
    --user "$key:$secret" --aws-sigv4 "aws:amz:$region:s3" "$endpoint/$bucket") || true
  [ "$code" = 200 ] || [ "$code" = 409 ] || { cat "$dir/bucket.xml" >&2 || true; return 1; }
}

start() {
  local p i args
  install
  case $server in
    versitygw)
      export ROOT_ACCESS_KEY=$key ROOT_SECRET_KEY=$secret
      args=(--quiet --keep-alive --region "$region" --port "127.0.0.1:$port" posix "$dir/data")
      ;;
    minio)
      export MINIO_ROOT_USER=$key MINIO_ROOT_PASSWORD=$secret MINIO_BROWSER=off MINIO_UPDATE=off
      args=(server --quiet --address "127.0.0.1:$port" --certs-dir "$dir/certs" "$dir/data")
      ;;
  esac
  if ! pid >/dev/null; then
    mkdir -p "$dir/data"
    nohup setsid "$bin" "${args[@]}" >"$log" 2>&1 9>&- </dev/null &
    p=$!
    echo "$p" >"$dir/pid"
    for ((i = 0; i < 300; i++)); do # 30 s
      sleep 0.1
      if ! kill -0 "$p" 2>/dev/null; then i=300; break; fi # before asking: the port may be another's
      if make_bucket 2>/dev/null; then break; fi
    done
    if [ "$i" -ge 300 ]; then
      echo "s3.sh: the server did not start; see $log" >&2
      tail -5 "$log" >&2
      stop KILL
      exit 1
    fi
  fi
  make_bucket
  env_
}

stop() { # [SIGNAL]: ends the server and waits until it is gone
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
