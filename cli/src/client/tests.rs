//! The client against a small server in the test, and finding a server without one.

use axum::Router;
use axum::extract::Path as UrlPath;
use axum::http::{HeaderMap, StatusCode as Status, header as names};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use schemas::Code;

use super::*;
use crate::exit;

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

fn failure(error: &anyhow::Error) -> &Failure {
    error.downcast_ref().unwrap()
}

#[tokio::test]
async fn refused_connection_exits_with_5_and_says_how_to_start() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = Client::new(&url, None).unwrap().get(&["healthz"]).await.unwrap_err();
    assert_eq!(failure(&error).exit, Exit::Unreachable);
    assert!(error.to_string().contains("start it with `bifold`"));
}

#[tokio::test]
async fn problem_becomes_its_text_and_an_exit_code() {
    let answer = |code: Code| {
        move || async move {
            let problem = Problem::new(code, "stream clicks: full").with_hint("send less").with_retry_after(7);
            (Status::from_u16(code.status()).unwrap(), axum::Json(problem))
        }
    };
    let router = Router::new()
        .route("/full", get(answer(Code::Overloaded)))
        .route("/closed", get(answer(Code::Forbidden)))
        .route("/wrong", get(answer(Code::NotFound)))
        .route("/odd", get(|| async { (Status::BAD_GATEWAY, "proxy") }));
    let client = Client::new(&serve(router).await, None).unwrap();
    let full = client.get(&["full"]).await.unwrap_err();
    assert_eq!(full.to_string(), "stream clicks: full\nhint: send less");
    assert_eq!(failure(&full).retry_after, Some(Duration::from_secs(7)));
    let closed = client.get(&["closed"]).await.unwrap_err();
    assert_eq!((failure(&closed).exit, failure(&closed).retry_after), (Exit::NotAllowed, None));
    assert_eq!(exit::code(&client.get(&["wrong"]).await.unwrap_err()), Exit::Failed);
    assert!(client.get(&["odd"]).await.unwrap_err().to_string().contains("502"));
}

#[tokio::test]
async fn token_is_sent_and_names_are_escaped() {
    let handler = |UrlPath(view): UrlPath<String>, headers: HeaderMap| async move {
        assert_eq!(headers[names::AUTHORIZATION], "Bearer secret");
        assert_eq!(view, "a/b c");
        (Status::ACCEPTED, [(names::LOCATION, "/v1/runs/8")]).into_response()
    };
    let url = serve(Router::new().route("/v1/views/{view}/runs", post(handler))).await;
    let client = Client::new(&url, Some("secret".into())).unwrap();
    assert_eq!(client.start_run("a/b c").await.unwrap(), 8);
}

#[tokio::test]
async fn script_gives_its_messages_and_the_last_rows() {
    let body = json!({
        "columns": [{"name": "n", "type": "BIGINT"}], "rows": [["12345678901234567890"]], "row_count": 1,
        "truncated": true, "message": "1 rows", "results": ["created stream s", "1 rows"]
    });
    let url = serve(Router::new().route("/v1/sql", post(|| async { axum::Json(body) }))).await;
    let answer = Client::new(&url, None).unwrap().sql(&SqlRequest::new("…")).await.unwrap();
    assert_eq!(answer.messages, ["created stream s", "1 rows"]);
    assert_eq!(answer.integer("n").unwrap(), 12_345_678_901_234_567_890);
    assert!(answer.truncated && answer.integer("m").is_err());
}

#[test]
fn server_is_found_in_the_data_folder_and_flags_win() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(ENDPOINT_FILE), "http://127.0.0.1:9\n").unwrap();
    std::fs::write(folder.path().join(ADMIN_TOKEN_FILE), "kept\n").unwrap();
    let mut options = GlobalOptions { data_dir: Some(folder.path().to_owned()), ..GlobalOptions::default() };
    let found = Client::find(&options).unwrap();
    assert_eq!((found.url(), found.token.as_deref()), ("http://127.0.0.1:9", Some("kept")));
    options.token = Some("given".into());
    options.url = Some("http://127.0.0.1:10/".into());
    let given = Client::find(&options).unwrap();
    assert_eq!((given.url(), given.token.as_deref()), ("http://127.0.0.1:10", Some("given")));
    assert_eq!(exit::code(&Client::new("localhost", None).unwrap_err()), Exit::Usage);
}
