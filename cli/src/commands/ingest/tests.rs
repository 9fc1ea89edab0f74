//! Cutting inputs into bodies, and offering them to a server that is full.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use rstest::rstest;
use schemas::{Code, Problem};

use super::bodies::{Input, open};
use super::*;
use crate::output::Output;

fn bodies(bytes: impl Into<Vec<u8>>, rows_max: u64) -> Vec<(String, u64)> {
    let all = Input::from_reader(std::io::Cursor::new(bytes.into())).bodies(rows_max);
    all.map(|body| body.unwrap()).map(|body| (String::from_utf8(body.bytes.to_vec()).unwrap(), body.rows)).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const LINES: &str = "{\"a\":1}\n\n{\"a\":2}\r\n{\"a\":3}";

#[rstest]
#[case::plain(LINES.into())]
#[case::gzip(gzip(LINES.as_bytes()))]
#[case::zstd(zstd::encode_all(LINES.as_bytes(), 3).unwrap())]
fn lines_are_cut_into_bodies_of_so_many_rows(#[case] input: Vec<u8>) {
    let expected = [("{\"a\":1}\n{\"a\":2}\r\n".to_owned(), 2), ("{\"a\":3}\n".to_owned(), 1)];
    assert_eq!(bodies(input, 2), expected);
}

#[test]
fn nothing_gives_no_body() {
    assert_eq!(bodies("", 2), []);
    assert_eq!(bodies(" \n\n", 2), []);
    assert_eq!(bodies("[ ]", 2), []);
}

#[test]
fn array_elements_become_lines() {
    let input = r#" [ {"a": [1, {"b": 2}], "s": "x\"],}\\"},
        {"a":
         null}, 7 ]"#;
    let all = bodies(input, 2);
    assert_eq!(all.iter().map(|body| body.1).collect::<Vec<_>>(), [2, 1]);
    let lines: Vec<Value> =
        all.iter().flat_map(|body| body.0.lines()).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, [json!({"a": [1, {"b": 2}], "s": "x\"],}\\"}), json!({"a": null}), json!(7)]);
}

#[test]
fn array_without_an_end_is_an_error_after_the_whole_events() {
    let mut all = Input::from_reader(&b"[{\"a\":1},{\"a\""[..]).bodies(1);
    assert_eq!(all.next().unwrap().unwrap().rows, 1);
    assert!(all.next().unwrap().is_err());
    assert!(all.next().is_none());
}

#[test]
fn missing_file_is_a_usage_error() {
    let Err(error) = open("no-such-file.ndjson", InputFormat::Json, &Unquoted::new()) else { panic!("opened") };
    assert_eq!(crate::exit::code(&error), crate::exit::Exit::Usage);
}

/// Answers 429 to every second request, else counts the lines.
async fn sometimes_full(State(calls): State<Arc<AtomicU64>>, body: String) -> Response {
    if calls.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
        let mut problem = Problem::new(Code::Overloaded, "full");
        problem.retry_after_s = Some(0);
        return (axum::http::StatusCode::TOO_MANY_REQUESTS, axum::Json(problem)).into_response();
    }
    let received = body.lines().count() as u64;
    let position = format!("after {}", body.lines().last().unwrap_or_default());
    let (accepted, errors) = (received, vec![]);
    let answer = IngestAnswer { received, accepted, duplicates: 0, conflicts: 0, quarantined: 0, position, errors };
    axum::Json(answer).into_response()
}

async fn session(router: Router) -> Session {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    Session { client: Client::new(&url, None).unwrap(), output: Output::new(Some(Format::Csv)) }
}

#[rstest]
#[case::in_order(1)]
#[case::several_at_once(4)]
#[tokio::test]
async fn every_body_is_offered_until_it_is_taken(#[case] in_flight: u64) {
    let calls = Arc::new(AtomicU64::new(0));
    let router = Router::new().route("/v1/streams/s/events", post(sometimes_full)).with_state(Arc::clone(&calls));
    let session = session(router).await;
    let input: String = (0..25).map(|n| n.to_string() + "\n").collect();
    let feed = Feed::start(Input::from_reader(std::io::Cursor::new(input)).bodies(10));
    let (stream, file) = ("s".into(), "-".into());
    let options = IngestArguments { stream, file, format: None, all_or_nothing: false, batch_rows: 10, in_flight };
    let (mut totals, mut progress) = (Totals::default(), Progress::bytes(None));
    send_all(&session, &options, feed, Mode::Quarantine, (&mut totals, &mut progress)).await.unwrap();
    assert_eq!((totals.received, totals.accepted, totals.position.as_str()), (25, 25, "after 24"));
    assert!(calls.load(Ordering::SeqCst) >= 4, "the full answers were not retried");
}

#[test]
fn position_never_goes_back_within_one_log() {
    let log = "v1.d15390ed99c44f3eb171006324df5124";
    assert_eq!(joined("", &format!("{log}.3-4")), format!("{log}.3-4"));
    assert_eq!(joined(&format!("{log}.3-4"), &format!("{log}.0-7")), format!("{log}.3-7"));
    let other = "v1.00000000000000000000000000000001.1-1";
    assert_eq!(joined(&format!("{log}.3-4"), other), other);
}

#[tokio::test]
async fn refused_stream_is_not_offered_again() {
    let refuse = || async {
        let problem = Problem::new(Code::NotFound, "there is no stream s");
        (axum::http::StatusCode::NOT_FOUND, axum::Json(problem))
    };
    let session = session(Router::new().route("/v1/streams/s/events", post(refuse))).await;
    let error = offer(&session.client, "s", Bytes::from_static(b"1\n"), Mode::Quarantine).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no stream s");
}

#[test]
fn csv_becomes_objects_and_an_empty_field_no_value() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.csv.gz");
    let text = "\u{feff}id,n, ok ,s\n1,2,true,\"a \"\"b\"\", c\nd\"\n2,,maybe,\n";
    std::fs::write(&path, gzip(text.as_bytes())).unwrap();
    let name = path.to_str().unwrap();
    assert_eq!(InputFormat::of(name), InputFormat::Csv);
    let input = open(name, InputFormat::Csv, &["ok".to_owned()].into()).unwrap();
    let lines: Vec<String> =
        input.bodies(1).map(|body| String::from_utf8(body.unwrap().bytes.to_vec()).unwrap()).collect();
    let values: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(values[0], json!({"id": "1", "n": "2", "ok": true, "s": "a \"b\", c\nd"}));
    assert_eq!(values[1], json!({"id": "2", "ok": "maybe"}));
}

#[test]
fn a_csv_record_with_a_field_too_many_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.csv");
    std::fs::write(&path, "id,n\n1,2\n3,4,5\n").unwrap();
    let mut bodies = open(path.to_str().unwrap(), InputFormat::Csv, &Unquoted::new()).unwrap().bodies(1);
    assert!(bodies.next().unwrap().is_ok());
    assert!(bodies.next().unwrap().is_err());
    assert!(bodies.next().is_none());
}
