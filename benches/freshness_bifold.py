#!/usr/bin/env python3
"""Acknowledged -> visible, at half the peak rate: bodies of 1,000 events at a steady pace; after each
acknowledgement one query with at_least, timed until its answer.

  --rate N      events a second (default 200000)
  --seconds S   how long (default 20)"""
import argparse, http.client, json, os, subprocess, time
import common as c

a = argparse.ArgumentParser()
a.add_argument("--rate", type=int, default=200_000)
a.add_argument("--seconds", type=int, default=20)
a.add_argument("--bifold", default=os.environ.get("BIFOLD", "target/release/bifold"))
args = a.parse_args()
path = c.scratch("bifold-freshness")
server = subprocess.Popen([args.bifold, "serve", "--data-dir", f"{path}/data", "--listen", "127.0.0.1:0"],
                          stdout=open(f"{path}/out", "w"), stderr=subprocess.STDOUT)
while not os.path.exists(f"{path}/data/endpoint") or not open(f"{path}/data/endpoint").read():
    time.sleep(0.01)
host = open(f"{path}/data/endpoint").read().split("//")[1]
headers = {"Authorization": f"Bearer {open(f'{path}/data/admin-token').read().strip()}"}
connection = http.client.HTTPConnection(host)


def call(target, body, kind):
    connection.request("POST", target, body, {**headers, "Content-Type": kind})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{answer.status} {text[:500]}")
    return json.loads(text)


sql = lambda text, **more: call("/v1/sql", json.dumps({"sql": text, **more}), "application/json")
sql("""CREATE STREAM events (user_id TEXT, page_id TEXT, ad_id TEXT, ad_type TEXT, event_type TEXT,
         event_time TIMESTAMPTZ NOT NULL, ip_address TEXT, WATERMARK FOR event_time AS event_time) WITH (partitions = 2)""")
sql("CREATE MATERIALIZED VIEW total AS SELECT event_type, count(*) AS n FROM events GROUP BY event_type")
bodies = [open(piece, "rb").read() for piece in c.pieces(10_000)[:20]]
events = [line for body in bodies for line in body.splitlines(keepends=True)]
pieces = [b"".join(events[i:i + 1000]) for i in range(0, len(events), 1000)]
acks, visible, sent = [], [], 0
begun = time.perf_counter()
while time.perf_counter() - begun < args.seconds:
    due = begun + sent / args.rate
    if due > time.perf_counter():
        time.sleep(due - time.perf_counter())
    t = time.perf_counter()
    told = call("/v1/streams/events/events", pieces[sent // 1000 % len(pieces)], "application/x-ndjson")
    acked = time.perf_counter()
    answer = sql("SELECT sum(n) FROM total", at_least=told["position"])
    visible.append(time.perf_counter() - acked)
    acks.append(acked - t)
    sent += 1000
    assert answer["rows"][0][0] >= sent, answer
server.terminate()
server.wait(60)
q = lambda values, p: round(1000 * sorted(values)[min(len(values) - 1, int(len(values) * p))], 2)
c.report(peer="bifold freshness", events_per_second=round(sent / (time.perf_counter() - begun)), ack_p50_ms=q(acks, 0.5),
         ack_p99_ms=q(acks, 0.99), visible_p50_ms=q(visible, 0.5), visible_p99_ms=q(visible, 0.99), wall_s=args.seconds, cpu_s=0)
