//! The HTTP client of every command: finds the server, sends the token, turns problems into
//! [`Failure`]s with the right exit code.

mod answers;

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use schemas::Problem;
use schemas::freshness::IngestAnswer;
use serde_json::{Value, json};
use url::Url;

pub use answers::{RunAnswer, SqlAnswer, SqlRequest};

use crate::arguments::GlobalOptions;
use crate::commands::ingest::Mode;
use crate::config::{ADMIN_TOKEN_FILE, Config, DEFAULT_PORT, ENDPOINT_FILE, Sources};
use crate::exit::{Exit, Failure, fail};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A server that sends nothing for so long is gone; its own limits are shorter.
const READ_TIMEOUT: Duration = Duration::from_mins(3);

/// Talks to one server.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
}

impl Client {
    /// A client of the server at `url`.
    ///
    /// # Errors
    /// [`Exit::Usage`] if that is no http URL.
    pub fn new(url: &str, token: Option<String>) -> anyhow::Result<Self> {
        let base = match Url::parse(url) {
            Ok(base) if base.has_host() && base.scheme().starts_with("http") => base,
            _ => return fail(Exit::Usage, format!("`{url}` is no URL of a server, such as http://127.0.0.1:4480")),
        };
        let mut builder = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT);
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        Ok(Self { http: builder.build().context("making an HTTP client")?, base, token })
    }

    /// The server that the flags, the environment or the data folder name.
    ///
    /// # Errors
    /// [`Exit::Usage`] if the configuration cannot be read.
    pub fn find(options: &GlobalOptions) -> anyhow::Result<Self> {
        if let (Some(url), Some(token)) = (&options.url, &options.token) {
            return Self::new(url, Some(token.clone()));
        }
        let config = Config::load(&Sources::of_process(options, &crate::arguments::ServeOptions::default()))?;
        let url = options
            .url
            .clone()
            .or_else(|| first_line(&config.data_dir.join(ENDPOINT_FILE)))
            .unwrap_or_else(|| format!("http://127.0.0.1:{DEFAULT_PORT}"));
        let token =
            options.token.clone().or(config.auth.token).or_else(|| first_line(&config.data_dir.join(ADMIN_TOKEN_FILE)));
        Self::new(&url, token)
    }

    /// Where the server is.
    pub fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// `GET` of a path, as JSON.
    pub async fn get(&self, path: &[&str]) -> anyhow::Result<Value> {
        let response = self.send(self.request(Method::GET, path)?).await?;
        json_body(response).await
    }

    /// `GET` of a path, as bytes.
    pub async fn get_bytes(&self, path: &[&str]) -> anyhow::Result<Bytes> {
        let response = self.send(self.request(Method::GET, path)?).await?;
        response.bytes().await.context("reading the server's answer")
    }

    /// `POST` of JSON to a path; the answer is JSON.
    pub async fn post(&self, path: &[&str], body: &Value) -> anyhow::Result<Value> {
        json_body(self.send(self.request(Method::POST, path)?.json(body)).await?).await
    }

    /// Runs a script; gives the answer to its last statement.
    pub async fn sql(&self, request: &SqlRequest) -> anyhow::Result<SqlAnswer> {
        let response = self.send(self.request(Method::POST, &["v1", "sql"])?.json(request)).await?;
        SqlAnswer::new(response.text().await.context("reading the server's answer")?)
    }

    /// Runs one statement.
    pub async fn query(&self, sql: &str) -> anyhow::Result<SqlAnswer> {
        self.sql(&SqlRequest::new(sql)).await
    }

    /// Sends NDJSON to a stream; returns when it is durable.
    ///
    /// # Errors
    /// A [`Failure`] with `retry_after` set if the server is full.
    pub async fn ingest(&self, stream: &str, body: Bytes, mode: Mode) -> anyhow::Result<IngestAnswer> {
        let request = self
            .request(Method::POST, &["v1", "streams", stream, "events"])?
            .query(&[("mode", mode.as_str())])
            .header(header::CONTENT_TYPE, "application/x-ndjson")
            .body(body);
        self.send(request).await?.json().await.context("reading the server's answer")
    }

    /// Asks for a run of a view; gives its number.
    pub async fn start_run(&self, view: &str) -> anyhow::Result<u64> {
        self.start_runs(view).await?.first().copied().context(NO_RUN)
    }

    /// Asks for a run of a view, of a view over `UNION ALL` for one of each part; gives their numbers.
    pub async fn start_runs(&self, view: &str) -> anyhow::Result<Vec<u64>> {
        let request = self.request(Method::POST, &["v1", "views", view, "runs"])?.json(&json!({}));
        let response = self.send(request).await?;
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let named = location.and_then(|path| path.rsplit('/').next()).and_then(|last| last.parse().ok());
        let body = response.text().await.context("reading the server's answer")?;
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        let id = |run: &Value| run.get("id").and_then(Value::as_u64);
        let several = body.get("runs").and_then(Value::as_array).map(|runs| runs.iter().filter_map(id).collect());
        let runs: Vec<u64> = several.unwrap_or_else(|| named.or_else(|| id(&body)).into_iter().collect());
        if runs.is_empty() { Err(anyhow::Error::msg(NO_RUN)) } else { Ok(runs) }
    }

    /// A run; waits up to `wait` for its end.
    pub async fn run(&self, id: u64, wait: Duration) -> anyhow::Result<RunAnswer> {
        let mut request = self.request(Method::GET, &["v1", "runs", &id.to_string()])?;
        if !wait.is_zero() {
            request = request.query(&[("wait", format!("{}ms", wait.as_millis()))]);
        }
        RunAnswer::new(json_body(self.send(request).await?).await?)
    }

    /// Stops a run.
    pub async fn cancel_run(&self, id: u64) -> anyhow::Result<()> {
        self.send(self.request(Method::DELETE, &["v1", "runs", &id.to_string()])?).await?;
        Ok(())
    }

    /// The certificate of a run of a view; the newest if `run` is none.
    ///
    /// # Errors
    /// If there is none.
    pub async fn certificate(&self, view: &str, run: Option<u64>) -> anyhow::Result<Value> {
        let run = run.map_or_else(|| "latest".to_owned(), |run| run.to_string());
        self.get(&["v1", "views", view, "certificates", &run]).await
    }

    fn request(&self, method: Method, path: &[&str]) -> anyhow::Result<RequestBuilder> {
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => segments.pop_if_empty().extend(path),
            Err(()) => return fail(Exit::Usage, format!("`{}` is no URL of a server", self.base)),
        };
        let request = self.http.request(method, url);
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(problem(response).await.into())
    }

    fn unreachable(&self, error: reqwest::Error) -> anyhow::Error {
        if error.is_connect() {
            let text = format!("no answer from {}: is bifold running? start it with `bifold`", self.url());
            return Failure::new(Exit::Unreachable, text).into();
        }
        anyhow::Error::new(error.without_url()).context(format!("talking to {}", self.url()))
    }
}

/// What an answer without a run's number lacks.
const NO_RUN: &str = "the server did not say which run it started";

async fn json_body(response: Response) -> anyhow::Result<Value> {
    response.json().await.context("reading the server's answer")
}

/// What a status that is no success says.
async fn problem(response: Response) -> Failure {
    let status = response.status();
    let header = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = response.text().await.unwrap_or_default();
    let problem: Option<Problem> = serde_json::from_str(&body).ok();
    let seconds = header.or_else(|| problem.as_ref().and_then(|problem| problem.retry_after_s));
    let text = match &problem {
        Some(problem) => problem.text(),
        None => format!("the server answered {status}: {}", body.chars().take(500).collect::<String>()),
    };
    let full = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let retry_after = full.then(|| Duration::from_secs(seconds.unwrap_or(1)));
    Failure { exit: exit_of(status), text, retry_after }
}

fn exit_of(status: StatusCode) -> Exit {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::NotAllowed,
        _ => Exit::Failed,
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn first_line(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests;
