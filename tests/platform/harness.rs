//! A platform in this process, on a folder and a port of its own, and a client that speaks HTTP to it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use bifold::config::Config;
use bifold::platform::Platform;
use serde_json::{Value, json};

/// Waits are bounded by this; nothing here sleeps for a fixed time.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// A running platform with its client.
pub(crate) struct Server {
    pub(crate) platform: Platform,
    pub(crate) client: Client,
}

/// Configuration for a test: a free port, small intervals.
pub(crate) fn config(folder: &Path) -> Config {
    let mut config =
        Config { data_dir: folder.to_owned(), listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), ..Config::default() };
    config.limits.checkpoint_interval_ms = 200;
    config.limits.landing_interval_ms = 500;
    config
}

impl Server {
    pub(crate) async fn start(folder: &Path) -> Self {
        Self::start_with(config(folder)).await
    }

    pub(crate) async fn start_with(config: Config) -> Self {
        let platform = Platform::start(config).await.unwrap();
        let client = Client::new(platform.url(), platform.token());
        Self { platform, client }
    }

    pub(crate) async fn stop(self) {
        self.platform.stop().await.unwrap();
    }
}

/// A client as a user would write it.
#[derive(Clone)]
pub(crate) struct Client {
    url: String,
    token: String,
    http: reqwest::Client,
}

impl Client {
    pub(crate) fn new(url: &str, token: &str) -> Self {
        // a server that never answers is a failure of the test, not its end
        let http = reqwest::Client::builder().read_timeout(PATIENCE).build().unwrap();
        Self { url: url.to_owned(), token: token.to_owned(), http }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token)
    }

    /// Runs a script; panics with the server's words if it fails.
    pub(crate) async fn sql(&self, sql: &str) -> Value {
        self.try_sql(json!({ "sql": sql, "row_limit": 1_000_000 })).await.unwrap_or_else(|(status, problem)| {
            panic!("{status}: {}\n{sql}", problem["detail"].as_str().unwrap_or_default())
        })
    }

    pub(crate) async fn try_sql(&self, body: Value) -> Result<Value, (u16, Value)> {
        let answer = self.request("POST", "/v1/sql").json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        let body: Value = serde_json::from_str(&text).unwrap();
        if status == 200 { Ok(with_exact_floats(body, &text)) } else { Err((status, body)) }
    }

    /// The problem that a script must end with.
    pub(crate) async fn refused(&self, sql: &str) -> Value {
        match self.try_sql(json!({ "sql": sql })).await {
            Err((_, problem)) => problem,
            Ok(answer) => panic!("accepted: {sql}\n{answer}"),
        }
    }

    pub(crate) async fn try_ingest(&self, stream: &str, body: impl Into<reqwest::Body>) -> Result<Value, (u16, Value)> {
        let request = self.request("POST", &format!("/v1/streams/{stream}/events"));
        let answer = request.header("content-type", "application/x-ndjson").body(body).send().await.unwrap();
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        if status == 200 { Ok(body) } else { Err((status, body)) }
    }

    pub(crate) async fn ingest(&self, stream: &str, body: impl Into<reqwest::Body>) -> Value {
        self.try_ingest(stream, body).await.unwrap_or_else(|(status, problem)| panic!("{status}: {problem}"))
    }

    /// Triggers a run of a view and waits for its end; returns the run.
    pub(crate) async fn run(&self, view: &str) -> Value {
        let answer = self.request("POST", &format!("/v1/views/{view}/runs")).send().await.unwrap();
        let status = answer.status().as_u16();
        let location = answer.headers().get("location").map(|l| l.to_str().unwrap().to_owned());
        let body: Value = answer.json().await.unwrap();
        assert_eq!(status, 202, "{body}");
        self.wait_run(&location.expect("a Location header")).await
    }

    async fn wait_run(&self, location: &str) -> Value {
        let begun = Instant::now();
        loop {
            let run: Value =
                self.request("GET", &format!("{location}?wait=10s")).send().await.unwrap().json().await.unwrap();
            if !matches!(run["state"].as_str(), Some("queued" | "running")) {
                return run;
            }
            assert!(begun.elapsed() < PATIENCE, "the run did not end: {run}");
        }
    }

    /// Waits until a view that was made over history answers.
    pub(crate) async fn wait_ready(&self, view: &str) {
        let begun = Instant::now();
        loop {
            match self.try_sql(json!({ "sql": format!("SELECT count(*) FROM {view}") })).await {
                Ok(_) => return,
                Err((503, _)) if begun.elapsed() < PATIENCE => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(problem) => panic!("{problem:?}"),
            }
        }
    }

    pub(crate) async fn certificate(&self, view: &str, run: &Value) -> Value {
        let path = format!("/v1/views/{view}/certificates/{}", run["id"]);
        self.request("GET", &path).send().await.unwrap().json().await.unwrap()
    }

    /// A run whose certificate is exact and whose oracle has looked at something; returns the certificate.
    pub(crate) async fn exact_run(&self, view: &str) -> Value {
        let run = self.run(view).await;
        assert_eq!((&run["state"], &run["verdict"]), (&"succeeded".into(), &"exact".into()), "{view}: {run}");
        let certificate = self.certificate(view, &run).await;
        let oracle = &certificate["oracle"];
        assert!(oracle["sampled"].as_u64() > Some(0) && oracle["differing"] == 0, "{view}: {oracle}");
        certificate
    }

    /// The answer to a look-up without SQL.
    pub(crate) async fn look_up(&self, path: &str) -> Value {
        let answer = self.request("GET", path).send().await.unwrap();
        let status = answer.status().as_u16();
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }
}

/// `serde_json` may read a float wrongly in its last bit: floats of the rows stay texts.
fn with_exact_floats(mut body: Value, text: &str) -> Value {
    #[derive(serde::Deserialize)]
    struct Rows {
        #[serde(default)]
        rows: Vec<Vec<Box<serde_json::value::RawValue>>>,
    }
    let exact: Rows = serde_json::from_str(text).unwrap();
    for (row, texts) in exact.rows.iter().enumerate() {
        for (column, text) in texts.iter().enumerate() {
            keep_exact(&mut body["rows"][row][column], text);
        }
    }
    body
}

/// The same of a value, also inside lists and objects.
fn keep_exact(value: &mut Value, text: &serde_json::value::RawValue) {
    match value {
        Value::Array(items) => {
            let texts: Vec<Box<serde_json::value::RawValue>> = serde_json::from_str(text.get()).unwrap();
            items.iter_mut().zip(&texts).for_each(|(item, text)| keep_exact(item, text));
        }
        Value::Object(members) => {
            let texts: std::collections::BTreeMap<String, Box<serde_json::value::RawValue>> =
                serde_json::from_str(text.get()).unwrap();
            members.iter_mut().for_each(|(name, member)| keep_exact(member, &texts[name]));
        }
        number if number.is_f64() => *number = Value::from(text.get()),
        _ => {}
    }
}

/// The rows of an answer.
pub(crate) fn rows(answer: &Value) -> &Vec<Value> {
    answer["rows"].as_array().unwrap()
}

/// The rows of an answer as text, cells with spaces between them.
pub(crate) fn lines(answer: &Value) -> Vec<String> {
    lines_with(answer, |cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned))
}

/// [`lines`], each cell in the words of `cell`.
pub(crate) fn lines_with(answer: &Value, cell: impl Fn(&Value) -> String) -> Vec<String> {
    rows(answer).iter().map(|row| row.as_array().unwrap().iter().map(&cell).collect::<Vec<_>>().join(" ")).collect()
}

/// The one value of an answer with one row and one column.
pub(crate) fn one(answer: &Value) -> &Value {
    &rows(answer)[0][0]
}
