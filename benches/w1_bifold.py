#!/usr/bin/env python3
"""W1 on Bifold: NDJSON over HTTP -> fsynced log -> visible in one view (or ten).

  --block N     events in one request body (default 100000)
  --clients K   requests in flight (default 2)
  --views V     1 or 10 views
  --bifold PATH the binary (default: target/release/bifold of the workspace)

CPU is the server's alone (from /proc); the client's own CPU stands beside it. The result is written as
the peers write theirs, so that run.py compares the checksums."""
import argparse, http.client, json, os, subprocess, threading, time
import common as c

a = argparse.ArgumentParser()
a.add_argument("--block", type=int, default=100_000)
a.add_argument("--clients", type=int, default=2)
a.add_argument("--views", type=int, default=1)
a.add_argument("--bifold", default=os.environ.get("BIFOLD", "target/release/bifold"))
args = a.parse_args()
path = c.scratch("bifold-w1")
server = subprocess.Popen([args.bifold, "serve", "--data-dir", f"{path}/data", "--listen", "127.0.0.1:0"],
                          stdout=open(f"{path}/out", "w"), stderr=subprocess.STDOUT)
TICK = os.sysconf("SC_CLK_TCK")


def server_cpu():
    fields = open(f"/proc/{server.pid}/stat").read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory_mb(which):
    line = next(l for l in open(f"/proc/{server.pid}/status") if l.startswith(which))
    return round(int(line.split()[1]) / 1024)


def wait_endpoint():
    for _ in range(2000):
        try:
            text = open(f"{path}/data/endpoint").read()
            if text:
                return text.split("//")[1], open(f"{path}/data/admin-token").read().strip()
        except FileNotFoundError:
            pass
        if server.poll() is not None:
            raise SystemExit(open(f"{path}/out").read())
        time.sleep(0.01)
    raise SystemExit("bifold did not start")


host, token = wait_endpoint()
headers = {"Authorization": f"Bearer {token}"}


def call(connection, method, target, body, kind):
    connection.request(method, target, body, {**headers, "Content-Type": kind})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{answer.status} {text[:500]}")
    return json.loads(text)


main = http.client.HTTPConnection(host)
sql = lambda text, **more: call(main, "POST", "/v1/sql", json.dumps({"sql": text, **more}), "application/json")
idle_mb = memory_mb("VmRSS")
sql("""CREATE STREAM events (user_id TEXT, page_id TEXT, ad_id TEXT, ad_type TEXT, event_type TEXT,
         event_time TIMESTAMPTZ NOT NULL, ip_address TEXT, WATERMARK FOR event_time AS event_time - INTERVAL '5 seconds')
       WITH (partitions = 2)""")
ads = "ad_id,campaign_id\n" + open(f"{c.DIM}/ads.csv").read()
sql("CREATE TABLE ads (ad_id TEXT NOT NULL, campaign_id TEXT NOT NULL) FROM FILE 'ads.csv'", files={"ads.csv": ads})
VIEW = """CREATE MATERIALIZED VIEW cells{} AS SELECT campaign_id, window_start, count(*) AS n
          FROM TUMBLE(events, event_time, INTERVAL '{} seconds') AS e JOIN ads ON e.ad_id = ads.ad_id
          WHERE event_type = 'view' GROUP BY campaign_id, window_start"""
for v in range(args.views):
    sql(VIEW.format(v or "", 10 * (v + 1)))
bodies = c.pieces(args.block)
lock, todo, latencies, failures = threading.Lock(), iter(bodies), [], []
cuts = {}


def client():
    connection = http.client.HTTPConnection(host)
    while True:
        with lock:
            piece = next(todo, None)
        if piece is None:
            return
        body = open(piece, "rb").read()
        t = time.perf_counter()
        told = call(connection, "POST", "/v1/streams/events/events", body, "application/x-ndjson")
        latencies.append(time.perf_counter() - t)
        if told["accepted"] != told["received"]:
            failures.append(told)
        with lock:
            cuts[told["position"]] = True


own = c.cpu_self()
clock = c.Clock(server_cpu)
threads = [threading.Thread(target=client) for _ in range(args.clients)]
for t in threads: t.start()
for t in threads: t.join()
acked = clock.read()
assert not failures, failures[:3]
offsets = [list(map(int, p.rsplit(".", 1)[1].split("-"))) for p in cuts]
token_all = next(iter(cuts)).rsplit(".", 1)[0] + "." + "-".join(str(max(o[i] if i < len(o) else 0 for o in offsets)) for i in range(max(map(len, offsets))))
answer = sql("SELECT campaign_id, window_start, n FROM cells", at_least=token_all, row_limit=1_000_000)
visible = clock.read()
from datetime import datetime, timezone
ms = lambda text: round(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)
out = f"{c.OUT}/w1-bifold.csv"
with open(out, "w") as f:
    for campaign, start, n in answer["rows"]:
        f.write(f'"{campaign}",{ms(start)},{n}\n')
latencies.sort()
peak = memory_mb("VmHWM")
server.terminate()
server.wait(60)
c.report(peer=f"bifold block={args.block} clients={args.clients} views={args.views}", **visible, acked_s=acked["wall_s"],
         client_cpu_s=round(c.cpu_self() - own, 2), ack_p50_ms=round(1000 * latencies[len(latencies) // 2], 1),
         ack_max_ms=round(1000 * latencies[-1], 1), idle_mb=idle_mb, peak_mb=peak, out=out)
