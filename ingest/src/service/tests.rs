use std::collections::BTreeMap;

use arrow::array::AsArray;
use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode};
use rstest::rstest;
use schemas::{Cut, OnBadData, PositionToken};
use storage::clock::ManualClock;
use storage::log::MemoryLog;
use storage::log::memory::Disk;
use storage::snapshot::StreamSnapshot;
use tower::ServiceExt;

use super::*;
use crate::testing::{Content, HOUR_US, MemoryLogs, log, stream};

#[derive(Default)]
struct Catalogue(Mutex<BTreeMap<String, Arc<StreamDef>>>);

impl Streams for Catalogue {
    fn stream(&self, name: &str) -> Option<Arc<StreamDef>> {
        self.0.lock().get(name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.0.lock().keys().cloned().collect()
    }
}

/// Remembers what was asked for.
#[derive(Default)]
struct Asked(Mutex<Vec<Cut>>);

#[async_trait]
impl Snapshots for Asked {
    async fn snapshot(
        &self,
        stream: Uuid,
        at_least: Option<&Cut>,
        _: Duration,
    ) -> Result<Arc<StreamSnapshot>, Problem> {
        self.0.lock().extend(at_least.cloned());
        let (to, views) = (Cut::default(), BTreeMap::new());
        Ok(Arc::new(StreamSnapshot {
            stream,
            to,
            taken_at_us: 0,
            oldest_missing_us: None,
            tail_unknown: false,
            max_event_time_us: vec![],
            views,
        }))
    }
}

struct World {
    service: Arc<IngestService>,
    log: Arc<MemoryLog>,
    keyless: Arc<MemoryLog>,
    dead_letters: Arc<MemoryLog>,
    catalogue: Arc<Catalogue>,
    asked: Arc<Asked>,
}

fn world(limits: Limits) -> World {
    let (main, keyless, dead_letters) = (log(4), log(4), log(1));
    let commits = stream("commits", 4);
    let strict = StreamDef { name: "strict".into(), on_bad_data: OnBadData::Reject, ..commits.clone() };
    let clicks = StreamDef { name: "clicks".into(), id: Uuid::from_u128(9), primary_key: vec![], ..commits.clone() };
    let catalogue = Arc::new(Catalogue::default());
    for def in [commits, strict, clicks] {
        catalogue.0.lock().insert(def.name.clone(), Arc::new(def));
    }
    let logs = [(Uuid::from_u128(1), Arc::clone(&main)), (Uuid::from_u128(9), Arc::clone(&keyless))].into();
    let asked = Arc::new(Asked::default());
    let service = IngestService::new(IngestParts {
        streams: Arc::clone(&catalogue) as Arc<dyn Streams>,
        logs: Arc::new(MemoryLogs { logs, dead_letters: Arc::clone(&dead_letters), receipts: log(1) }),
        snapshots: Some(Arc::clone(&asked) as Arc<dyn Snapshots>),
        clock: Arc::new(ManualClock::at(1_000 * HOUR_US)),
        limits,
        backlogs: None,
        ids_folder: None,
    });
    World { service, log: main, keyless, dead_letters, catalogue, asked }
}

impl World {
    async fn send(&self, request: Request<Body>) -> (StatusCode, serde_json::Value, Response<()>) {
        let response = crate::http::router(Arc::clone(&self.service)).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        (parts.status, serde_json::from_slice(&body).unwrap(), Response::from_parts(parts, ()))
    }

    async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> (StatusCode, serde_json::Value) {
        let mut request = Request::post(format!("/v1/streams/{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (status, answer, _) = self.send(request.body(body.into()).unwrap()).await;
        (status, answer)
    }

    async fn ingest(&self, stream: &str, body: &str, options: IngestOptions) -> Result<IngestAnswer, Problem> {
        let bytes = Bytes::copy_from_slice(body.as_bytes());
        self.service.ingest(stream, Payload { bytes, ..Payload::default() }, options).await
    }
}

fn event(id: &str) -> String {
    format!("{{\"id\":\"{id}\",\"repo\":\"r\",\"files\":1,\"event_time\":\"2024-01-01T00:00:00Z\"}}\n")
}

fn counts(answer: &serde_json::Value) -> [u64; 4] {
    ["received", "accepted", "duplicates", "quarantined"].map(|field| answer[field].as_u64().unwrap())
}

#[tokio::test]
async fn the_answer_is_as_the_interface_says() {
    let world = world(Limits::default());
    world.post("commits/events", &[], event("a")).await;
    let body = format!("{}{}{{\"id\":\"c\",\"files\":\"x\",\"event_time\":1}}\n", event("a"), event("b"));
    let (status, answer) = world.post("commits/events", &[("content-type", "application/x-ndjson")], body).await;
    assert_eq!((status, counts(&answer)), (StatusCode::OK, [3, 1, 1, 1]));
    let expected = serde_json::json!([{"index": 2, "code": "bad_value", "column": "files",
        "message": "stream commits: column files: expected INT, found \"x\""}]);
    assert_eq!(answer["errors"], expected);
    let token: PositionToken = answer["position"].as_str().unwrap().parse().unwrap();
    assert_eq!(token.incarnation, Uuid::from_u128(2));
    assert!(token.cut.is_at_most(&storage::log::Log::head(world.log.as_ref())));
    assert_eq!(world.log.texts("id"), ["a", "b"]);
}

#[tokio::test]
async fn dead_letters_are_kept_as_they_were_sent() {
    let world = world(Limits::default());
    let torn = format!("{{\"id\": \"{}", "x".repeat(100_000));
    let bad = " {\"id\":\"c\", \"files\":\"x\",\"event_time\":1} ";
    let (_, answer) = world.post("commits/events", &[], format!("{torn}\n{bad}\r\n{}", event("a"))).await;
    assert_eq!(counts(&answer), [3, 1, 0, 2]);
    let rows = world.dead_letters.rows(0).unwrap();
    assert_eq!(rows.schema(), crate::dead_letter_schema());
    let raw = rows.column_by_name("raw").unwrap().as_binary::<i32>();
    assert_eq!(raw.value(0), torn.as_bytes());
    assert_eq!(raw.value(1), bad.trim().as_bytes());
    assert_eq!(world.dead_letters.texts("code"), ["bad_json", "bad_value"]);
    assert_eq!(world.dead_letters.texts("column"), ["files", "null"]);
    assert_eq!(world.dead_letters.texts("content_type"), ["application/x-ndjson"; 2]);
}

#[tokio::test]
async fn a_200_waits_for_the_dead_letters() {
    let world = world(Limits::default());
    world.dead_letters.set(Disk::Held);
    let service = Arc::clone(&world.service);
    let payload = Payload { bytes: Bytes::from("nonsense"), ..Payload::default() };
    let request = tokio::spawn(async move { service.ingest("commits", payload, IngestOptions::default()).await });
    while world.dead_letters.queued() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(!request.is_finished());
    world.dead_letters.flush(false);
    assert_eq!(request.await.unwrap().unwrap_err().code, Code::StorageUnavailable);
}

#[rstest]
#[case::mode("commits/events?mode=strict")]
#[case::on_bad_data("strict/events")]
#[tokio::test]
async fn strict_writes_nothing(#[case] path: &str) {
    let world = world(Limits::default());
    let bad = "{}\n".repeat(150);
    let (status, problem) = world.post(path, &[], event("a") + &bad).await;
    assert_eq!((status, &problem["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &"bad_records".into()));
    assert_eq!(problem["errors"].as_array().unwrap().len(), 100);
    assert_eq!(problem["errors"][0]["code"], "missing_value");
    assert!(world.log.texts("id").is_empty() && world.dead_letters.rows(0).is_none());
    let (status, answer) = world.post(path, &[], event("a")).await;
    assert_eq!((status, counts(&answer)), (StatusCode::OK, [1, 1, 0, 0]));
}

#[tokio::test]
async fn a_check_says_what_is_bad_and_writes_nothing() {
    let world = world(Limits::default());
    let (status, answer) = world.post("strict/events?mode=check", &[], event("a") + "{}").await;
    assert_eq!((status, counts(&answer)), (StatusCode::OK, [2, 1, 0, 1]));
    assert_eq!((answer["errors"][0]["index"].as_u64(), world.log.texts("id").len()), (Some(1), 0));
    assert!(world.dead_letters.rows(0).is_none());
}

#[rstest]
#[case::unknown_stream("commit/events", &[], "", 404, "not_found")]
#[case::content_type("commits/events", &[("content-type", "text/csv")], "", 415, "unsupported_media_type")]
#[case::encoding("commits/events", &[("content-encoding", "br")], "", 415, "unsupported_media_type")]
#[case::array("commits/events", &[("content-type", "application/json; charset=utf-8")], "[{}", 400, "bad_request")]
#[case::gzip("commits/events", &[("content-encoding", "gzip")], "nonsense", 400, "bad_request")]
#[case::parameter("commits/events?wait=forever", &[], "", 400, "bad_request")]
#[case::unknown_parameter("commits/events?wiat=visible", &[], "", 400, "bad_request")]
#[case::body("commits/events", &[], "012345678901234567890123456789012345678901234567890123456789", 413, "payload_too_large")]
#[case::announced("commits/events", &[("content-length", "60")], "", 413, "payload_too_large")]
#[case::key("commits/events", &[("idempotency-key", "")], "", 400, "bad_request")]
#[tokio::test]
async fn a_refusal_is_a_problem_with_its_status(
    #[case] path: &str,
    #[case] headers: &[(&str, &str)],
    #[case] body: &'static str,
    #[case] status: u16,
    #[case] code: &str,
) {
    let world = world(Limits { body_bytes_max: 50, ..Limits::default() });
    let mut request = Request::post(format!("/v1/streams/{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (found, problem, response) = world.send(request.body(body.into()).unwrap()).await;
    assert_eq!((found.as_u16(), problem["code"].as_str()), (status, Some(code)), "{problem}");
    assert_eq!(problem["status"], status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
}

#[tokio::test]
async fn full_says_when_to_come_back() {
    let world = world(Limits::default());
    world.log.set(Disk::Full);
    let request = Request::post("/v1/streams/commits/events").body(event("a").into()).unwrap();
    let (status, problem, response) = world.send(request).await;
    assert_eq!((status, &problem["code"]), (StatusCode::TOO_MANY_REQUESTS, &"overloaded".into()));
    assert_eq!((&problem["retryable"], &response.headers()["retry-after"]), (&true.into(), &"1".parse().unwrap()));
    world.log.set(Disk::Quick);
    let (status, answer) = world.post("commits/events", &[], event("a")).await;
    assert_eq!((status, counts(&answer)), (StatusCode::OK, [1, 1, 0, 0]));
}

#[tokio::test]
async fn bodies_in_flight_are_bounded() {
    let world = world(Limits { ingest_bytes_in_flight_max: 100, ..Limits::default() });
    let mut other = world.service.reserve();
    other.hold(60).unwrap();
    let (status, problem) = world.post("commits/events", &[], event("a")).await;
    assert_eq!((status, &problem["code"]), (StatusCode::TOO_MANY_REQUESTS, &"overloaded".into()));
    drop(other);
    assert_eq!(world.post("commits/events", &[], event("a")).await.0, StatusCode::OK);
}

/// R-037: dead letters are bounded on disk; a request with more of them is refused as a whole, one without is taken.
#[tokio::test]
async fn dead_letters_are_bounded() {
    let world = world(Limits { dead_letters_bytes_max: 2_000, ..Limits::default() });
    let mut taken = 0;
    let refused = loop {
        let body = event(&format!("a{taken}")) + "this is no record\n";
        let (status, answer) = world.post("commits/events", &[], body).await;
        if status != StatusCode::OK {
            break (status, answer);
        }
        assert_eq!(counts(&answer), [2, 1, 0, 1]);
        taken += 1;
        assert!(taken < 100, "dead letters without end");
    };
    assert_eq!((refused.0, &refused.1["code"]), (StatusCode::TOO_MANY_REQUESTS, &"overloaded".into()));
    assert!(refused.1["detail"].as_str().unwrap().contains("dead_letters_bytes_max"), "{}", refused.1);
    assert!(taken > 1);
    let (status, answer) = world.post("commits/events", &[], event(&format!("a{taken}"))).await;
    assert_eq!((status, counts(&answer)), (StatusCode::OK, [1, 1, 0, 0]), "nothing of the refused request was kept");
}

/// R-031, R-037: whoever writes to a log that does not answer is told so, also when those that wait for it take all the
/// bytes that there are.
#[tokio::test]
async fn a_log_that_does_not_answer_is_the_reason_that_is_given() {
    let world = world(Limits { ingest_bytes_in_flight_max: 100, ..Limits::default() });
    let mut waits_for_the_log = world.service.reserve();
    waits_for_the_log.hold(60).unwrap();
    world.log.set(Disk::Stalled(7));
    let request = Request::post("/v1/streams/commits/events").body(event("a").into()).unwrap();
    let (status, problem, response) = world.send(request).await;
    assert_eq!((status, &problem["code"]), (StatusCode::SERVICE_UNAVAILABLE, &"storage_unavailable".into()));
    assert!(problem["detail"].as_str().unwrap().contains("has not answered for 7 s"), "{problem}");
    assert_eq!(response.headers()["retry-after"], "7");
    let refused = world.ingest("commits", &event("a"), IngestOptions::default()).await.unwrap_err();
    assert_eq!(refused.status, 503);
    drop(waits_for_the_log);
    world.log.set(Disk::Quick);
    assert_eq!(world.post("commits/events", &[], event("a")).await.0, StatusCode::OK);
}

#[rstest]
#[case::array("application/json", None)]
#[case::gzip("application/json", Some("gzip"))]
#[case::zstd("application/json", Some("zstd"))]
#[tokio::test]
async fn an_array_is_taken_in_every_encoding(#[case] content_type: &str, #[case] encoding: Option<&str>) {
    let world = world(Limits::default());
    let events: Vec<String> = (0..1_000).map(|i| event(&format!("e{i}"))).collect();
    let plain = format!("[{}]", events.join(",")).into_bytes();
    let body = match encoding {
        Some("gzip") => {
            let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, &plain).unwrap();
            encoder.finish().unwrap()
        }
        Some(_) => zstd::encode_all(&plain[..], 1).unwrap(),
        None => plain,
    };
    let headers = [("content-type", content_type), ("content-encoding", encoding.unwrap_or("identity"))];
    let chunks: Vec<Result<Bytes, std::io::Error>> = body.chunks(777).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    let (status, answer) =
        world.post("commits/events", &headers, Body::from_stream(futures::stream::iter(chunks))).await;
    assert_eq!((status, counts(&answer)), (StatusCode::OK, [1_000, 1_000, 0, 0]));
    assert_eq!(world.log.texts("id").len(), 1_000);
}

#[tokio::test]
async fn nothing_sent_is_a_good_answer() {
    let world = world(Limits::default());
    let (status, answer) = world.post("commits/events", &[], "\n\n").await;
    assert_eq!((status, counts(&answer)), (StatusCode::OK, [0; 4]));
    assert_eq!(answer["position"], format!("v1.{}.0-0-0-0", Uuid::from_u128(2).simple()));
}

#[tokio::test]
async fn wait_visible_asks_for_the_position_of_the_answer() {
    let world = world(Limits::default());
    let (_, answer) = world.post("commits/events?wait=visible", &[], event("a")).await;
    let token: PositionToken = answer["position"].as_str().unwrap().parse().unwrap();
    assert_eq!(*world.asked.0.lock(), [token.cut]);
    world.post("commits/events?wait=durable", &[], event("b")).await;
    assert_eq!(world.asked.0.lock().len(), 1);
}

#[tokio::test]
async fn without_a_key_requests_go_round_the_partitions_and_nothing_is_a_duplicate() {
    let world = world(Limits::default());
    for _ in 0..5 {
        let answer = world.ingest("clicks", &event("a").repeat(3), IngestOptions::default()).await.unwrap();
        assert_eq!((answer.accepted, answer.duplicates), (3, 0));
    }
    let rows: Vec<usize> = (0..4).map(|p| world.keyless.rows(p).unwrap().num_rows()).collect();
    assert_eq!(rows, [6, 3, 3, 3]);
}

#[tokio::test]
async fn an_idempotency_key_gives_the_first_answer_again() {
    let world = world(Limits::default());
    let options = IngestOptions { idempotency_key: Some("k".into()), ..IngestOptions::default() };
    world.keyless.set(Disk::Full);
    world.ingest("clicks", &event("a"), options.clone()).await.unwrap_err();
    world.keyless.set(Disk::Quick);
    let first = world.ingest("clicks", &event("a"), options.clone()).await.unwrap();
    let again = world.ingest("clicks", &event("a"), options.clone()).await.unwrap();
    assert_eq!((first.accepted, &first), (1, &again));
    assert_eq!(world.keyless.texts("id"), ["a"]);
    let other = world.ingest("clicks", &event("b"), options.clone()).await.unwrap_err();
    assert_eq!(other.code, Code::BadRequest);
    let elsewhere = world.ingest("commits", &event("b"), options).await.unwrap();
    assert_eq!(elsewhere.accepted, 1);
}

#[tokio::test]
async fn a_stream_made_anew_starts_anew() {
    let world = world(Limits::default());
    world.post("commits/events", &[], event("a")).await;
    let old = world.catalogue.0.lock().remove("commits").unwrap();
    world.service.forget(old.id);
    let (status, problem) = world.post("commits/events", &[], event("a")).await;
    assert_eq!((status, &problem["code"]), (StatusCode::NOT_FOUND, &"not_found".into()));
    let new = StreamDef { id: Uuid::from_u128(9), ..(*old).clone() };
    world.catalogue.0.lock().insert("commits".into(), Arc::new(new));
    let (_, answer) = world.post("commits/events", &[], event("a")).await;
    assert_eq!(counts(&answer), [1, 1, 0, 0]);
}

#[tokio::test]
async fn a_wrong_name_gets_a_hint() {
    let (_, problem) = world(Limits::default()).post("comits/events", &[], "").await;
    assert_eq!(problem["hint"], "did you mean commits?");
}

#[tokio::test]
async fn a_request_goes_on_without_its_client() {
    let world = world(Limits::default());
    world.log.set(Disk::Held);
    let service = Arc::clone(&world.service);
    let payload = Payload { bytes: event("a").into(), ..Payload::default() };
    let request = tokio::spawn(async move { service.ingest("commits", payload, IngestOptions::default()).await });
    while world.log.queued() == 0 {
        tokio::task::yield_now().await;
    }
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    world.log.flush(false);
    world.log.set(Disk::Quick);
    let answer = world.ingest("commits", &event("a"), IngestOptions::default()).await.unwrap();
    assert_eq!((answer.accepted, answer.duplicates), (1, 0));
    world.service.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_overlapping_requests_every_id_is_kept_once_and_every_record_counted() {
    let world = world(Limits::default());
    let requests: Vec<_> = (0..64)
        .map(|i| {
            let body: String = (i * 10..i * 10 + 500).map(|n| event(&format!("e{n}"))).collect();
            let (service, bytes) = (Arc::clone(&world.service), Bytes::from(body + "nonsense"));
            tokio::spawn(async move {
                service.ingest("commits", Payload { bytes, ..Payload::default() }, IngestOptions::default()).await
            })
        })
        .collect();
    let mut accepted = 0;
    for request in requests {
        let answer = request.await.unwrap().unwrap();
        assert_eq!((answer.received, answer.quarantined), (501, 1));
        assert_eq!(answer.accepted + answer.duplicates, 500);
        accepted += answer.accepted;
    }
    let mut ids = world.log.texts("id");
    assert_eq!((accepted, ids.len()), (1_130, 1_130));
    ids.dedup();
    assert_eq!(ids.len(), 1_130);
}
