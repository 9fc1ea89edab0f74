//! Requests: paths, filters, queries, bodies, headers, position tokens, durations.
//!
//! An input is a request as it goes over the wire, but for the token and the length of its body. What has to hold:
//! every request that is a request of HTTP gets an answer, none is our bug (`internal`), and afterwards the server
//! still knows how many events it has.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::Target;
use super::mutate::Mutator;
use crate::harness::{PATIENCE, Server, config, one};

/// An answer is waited for so long.
const BOUND: Duration = Duration::from_secs(20);
/// Bytes of an answer that are looked at.
const ANSWER_BYTES_MAX: u64 = 8 << 20;
/// Streams and views that a session may make.
const MADE_MAX: usize = 40;

const WORDS: &[&str] = &[
    "GET ",
    "POST ",
    "DELETE ",
    "/v1/views/v",
    "/v1/sql",
    "/v1/streams/s/events",
    "/v1/streams/s/dead_letters",
    "/v1/events/s/",
    "/v1/runs",
    "/v1/status",
    "/v1/time",
    "?",
    "&",
    "=",
    "eq.",
    "neq.",
    "gte.",
    "lt.",
    "like.",
    "ilike.",
    "in.(",
    "is.null",
    "not.",
    ".desc",
    ".nullsfirst",
    "order=",
    "select=",
    "limit=",
    "offset=",
    "cursor=",
    "format=",
    "at_least=v1.",
    "max_staleness=",
    "timeout=",
    "row_limit=",
    "%00",
    "%25",
    "%C3%A9",
    "%FF",
    "+",
    "(a,\"b",
    "\\",
    "wait=visible",
    "mode=check",
    "mode=strict",
    "\"params\":[",
    "\"sql\":\"SELECT ",
    "* FROM v",
];

const SEEDS: &[&str] = &[
    "GET /v1/views/v?k=eq.1&order=c.desc.nullslast,k&limit=10&select=k,c\n\n",
    "GET /v1/views/v?k=in.(1,2,\"3\")&s=not.gte.-5&name=ilike.*a*&offset=3\n\n",
    "GET /v1/views/v?name=eq.n%201&at=gte.2024-01-01T00:00:00Z&x=lt.1.5e3&m=neq.1.25\n\n",
    "GET /v1/views/v?x=is.not_null&cursor=1&format=csv&max_staleness=1h&timeout=5s\n\n",
    "GET /v1/views/v?at_least=v1.00000000000000000000000000000007.1-2\n\n",
    "GET /v1/sql?q=SELECT%20*%20FROM%20v%20ORDER%20BY%20k&format=ndjson\n\n",
    "POST /v1/sql\ncontent-type: application/json\n\n{\"sql\":\"SELECT k, sum(c) FROM v WHERE k > $1 GROUP BY k\",\"params\":[1],\"row_limit\":5}",
    "POST /v1/sql\n\n{\"sql\":\"SELECT * FROM batch.v; SHOW STREAMS\",\"max_staleness\":\"5 minutes\",\"timeout\":1000}",
    "POST /v1/sql\n\n{\"sql\":\"EXPLAIN LAYERS SELECT count(*) FROM v\"}",
    "POST /v1/sql\n\n{\"sql\":\"SELECT arrow_typeof(x), x / 0, n % 3, -s, substr(name, 2, 3), regexp_replace(name, '(', 'x') FROM v\"}",
    "POST /v1/sql\n\n{\"sql\":\"SELECT * FROM system.ledger\",\"dry_run\":true}",
    "POST /v1/sql\n\n{\"sql\":\"CREATE TABLE t (a INT, b TEXT) FROM FILE 't.csv'\",\"files\":{\"t.csv\":\"a,b\\n1,x\\n\"}}",
    "POST /v1/sql\n\n{\"sql\":\"CREATE MATERIALIZED VIEW w REFRESH CRON '*/5 * * * *' AS SELECT count(*) FROM s\",\"dry_run\":true}",
    "POST /v1/views\n\n{\"sql\":\"CREATE MATERIALIZED VIEW v2 AS SELECT count(*) AS c FROM s\",\"dry_run\":true}",
    "POST /v1/streams\n\n{\"sql\":\"CREATE STREAM s2 (id TEXT, at TIMESTAMPTZ)\",\"dry_run\":true}",
    "POST /v1/streams/s/events?wait=durable&mode=quarantine\ncontent-type: application/json\n\n[{\"id\":\"1\",\"k\":1},{}]",
    "POST /v1/streams/s/events?wait=visible\nidempotency-key: key\nbifold-sent-at: 1700000000000\nbifold-clock-offset-ms: -5.5\nbifold-clock-round-trip-ms: 3\n\n{\"id\":\"2\",\"k\":1,\"at\":\"2024-01-01T00:00:00Z\"}\n",
    "POST /v1/streams/s/events?mode=strict\ncontent-encoding: gzip\n\nnonsense",
    "GET /v1/streams/s/dead_letters?from=0&limit=2\n\n",
    "GET /v1/streams/s/dead_letters/0\n\n",
    "POST /v1/streams/s/dead_letters/replay\n\n{\"offsets\":[0],\"from\":0,\"set\":{\"k\":1},\"raw\":\"{}\"}",
    "GET /v1/events/s/1\n\n",
    "GET /v1/events/s/%5B%221%22%5D\n\n",
    "GET /v1/runs?view=v&limit=5\n\n",
    "GET /v1/runs/1?wait=1s\n\n",
    "GET /v1/views/v/certificates/1\n\n",
    "GET /v1/internal/streams/s/tail?after=0-0\n\n",
    "GET /v1/time\nbifold-sent-at: 2024-01-01T00:00:00Z\n\n",
    "GET /v1/views\n\n",
    "GET /v1/status\n\n",
];

pub(super) struct Requests {
    runtime: Runtime,
    server: Option<Server>,
    address: SocketAddr,
    token: String,
    _folder: TempDir,
}

impl Requests {
    pub(super) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        // what takes longer is refused, so nothing here may
        config.limits.query_timeout_ms = 5_000;
        config.limits.query_memory_bytes = 64 << 20;
        let server = runtime.block_on(async {
            let server = Server::start_with(config).await;
            server
                .client
                .sql(
                    "CREATE STREAM s (id TEXT NOT NULL, k INT, n BIGINT, x DOUBLE PRECISION, m NUMERIC(10, 2), name TEXT,
                     at TIMESTAMPTZ, PRIMARY KEY (id), WATERMARK FOR at AS at) WITH (time_correction = 'on');
                     CREATE MATERIALIZED VIEW v AS SELECT k, name, at, x, m, count(*) AS c, sum(n) AS s, max(n) AS n
                     FROM s GROUP BY k, name, at, x, m",
                )
                .await;
            let event = |n: u32| json!({ "id": format!("e{n}"), "k": n % 5, "n": n, "x": 1.5, "m": "2.50",
                "name": format!("n {}", n % 3), "at": "2024-01-01T00:00:00Z" });
            let lines: String = (0..200).map(|n| event(n).to_string() + "\n").collect();
            server.client.ingest("s", lines + "{broken\n").await;
            assert_eq!(server.client.run("v").await["verdict"], "exact");
            server
        });
        let address = server.platform.address();
        let token = server.platform.token().to_owned();
        Self { runtime, server: Some(server), address, token, _folder: folder }
    }

    /// The request with token and length in its head; none if it is not one with a body after an empty line.
    fn whole(&self, input: &[u8]) -> Vec<u8> {
        let at = input.windows(2).position(|pair| pair == b"\n\n").unwrap_or(input.len());
        let (head, body) = (&input[..at], input.get(at + 2..).unwrap_or_default());
        let mut lines = head.split(|byte| *byte == b'\n');
        let mut request = lines.next().unwrap_or_default().to_vec();
        request.extend_from_slice(b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        request.extend_from_slice(
            format!("authorization: Bearer {}\r\ncontent-length: {}\r\n", self.token, body.len()).as_bytes(),
        );
        for line in lines {
            request.extend_from_slice(line);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body);
        request
    }

    fn ask(&self, request: &[u8]) -> Result<Vec<u8>, String> {
        let mut stream = TcpStream::connect(self.address).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(BOUND)).unwrap();
        // a request that is refused by its head may be answered before its body is there
        let _ = stream.write_all(request);
        let mut answer = vec![];
        match stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer) {
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                Err(format!("no answer within {BOUND:?}"))
            }
            _ => Ok(answer),
        }
    }

    /// What was made by requests would make the others slower and slower.
    fn tidy(&mut self) -> Result<(), String> {
        let Some(server) = &self.server else { return Ok(()) };
        let client = server.client.clone();
        self.runtime.block_on(async {
            let made = "SELECT name FROM system.views WHERE name <> 'v'";
            let views = client.try_sql(json!({ "sql": made })).await.map_err(|problem| format!("{problem:?}"))?;
            let made = "SELECT name FROM system.streams WHERE name <> 's'";
            let streams = client.try_sql(json!({ "sql": made })).await.map_err(|problem| format!("{problem:?}"))?;
            let count = |answer: &Value| answer["rows"].as_array().map_or(0, Vec::len);
            if count(&views) + count(&streams) < MADE_MAX {
                return Ok(());
            }
            for (kind, answer) in [("MATERIALIZED VIEW", views), ("STREAM", streams)] {
                for row in answer["rows"].as_array().unwrap() {
                    let name = row[0].as_str().unwrap_or_default().replace('"', "\"\"");
                    let _ = client.try_sql(json!({ "sql": format!("DROP {kind} \"{name}\"") })).await;
                }
            }
            Ok(())
        })
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            let stopped = async { tokio::time::timeout(PATIENCE, server.platform.stop()).await };
            drop(self.runtime.block_on(stopped));
        }
    }
}

impl Target for Requests {
    fn seeds(&self) -> Vec<Vec<u8>> {
        SEEDS.iter().map(|seed| seed.as_bytes().to_vec()).collect()
    }

    fn words(&self) -> &'static [&'static str] {
        WORDS
    }

    fn mutate(&self, mutator: &mut Mutator, input: &[u8], other: &[u8]) -> Vec<u8> {
        mutator.bytes(input, other, WORDS)
    }

    fn check(&mut self, input: &[u8]) -> Result<String, String> {
        // `s` and `v` are needed by the other inputs
        let text = String::from_utf8_lossy(input).to_lowercase();
        if text.starts_with("delete") || text.contains("drop ") {
            return Ok("not tried".into());
        }
        let answer = self.ask(&self.whole(input))?;
        let head = String::from_utf8_lossy(&answer[..answer.len().min(300)]).into_owned();
        let status: Option<u16> = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let Some(status) = status else {
            // what is no HTTP is cut off without a word
            return if answer.is_empty() {
                self.is_alive()
            } else {
                Err(format!("an answer without status: {head:?}"))
            };
        };
        let text = String::from_utf8_lossy(&answer);
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let problem: Value = serde_json::from_str(body).unwrap_or(Value::Null);
        if problem["code"] == "internal" || (status == 500 && problem["code"] != "memory_limit") {
            return Err(format!("{status}: {body}"));
        }
        self.tidy()?;
        let detail = problem["detail"].as_str().unwrap_or_default();
        Ok(format!("{status} {} {}", problem["code"], detail.lines().next().unwrap_or_default()))
    }
}

impl Requests {
    fn is_alive(&self) -> Result<String, String> {
        let Some(server) = &self.server else { return Err("stopped".into()) };
        let asked = self.runtime.block_on(server.client.try_sql(json!({ "sql": "SELECT sum(c) FROM v" })));
        match asked {
            Ok(answer) if one(&answer).as_u64().is_some_and(|events| events >= 200) => Ok("cut off".into()),
            other => Err(format!("afterwards: {other:?}")),
        }
    }
}
