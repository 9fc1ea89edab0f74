//! `bifold serve` in a process of its own, as users run it: what it used is what the kernel says of that process.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use reqwest::header::CONTENT_TYPE;
use schemas::PositionToken;
use serde_json::{Value, json};

use crate::measure;

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_mins(2);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(2);
/// Before a full server is asked again.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// Where a server comes from and where its data is.
#[derive(Args, Clone)]
pub(crate) struct Place {
    /// The binary.
    #[arg(long, env = "BIFOLD", value_name = "FILE", default_value = "target/release/bifold")]
    pub(crate) bifold: PathBuf,
    /// A folder for the data; emptied first.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
}

impl Place {
    /// An empty folder of the server's.
    pub(crate) fn empty(&self) -> anyhow::Result<()> {
        match std::fs::remove_dir_all(&self.data_dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(std::fs::create_dir_all(&self.data_dir)?),
        }
    }

    /// Another folder beside this one's data.
    pub(crate) fn at(&self, name: &str) -> Self {
        Self { bifold: self.bifold.clone(), data_dir: self.data_dir.join(name) }
    }
}

/// A server; dropped, it is killed.
pub(crate) struct Server {
    child: Child,
    url: String,
    token: String,
    http: reqwest::Client,
    /// From the start of the process until `/readyz` said yes.
    pub(crate) ready_in: Duration,
}

impl Server {
    /// Starts one on what is in the folder.
    pub(crate) async fn start(place: &Place, variables: &[(&str, String)]) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&place.data_dir)?;
        let endpoint = place.data_dir.join("endpoint");
        let _ = std::fs::remove_file(&endpoint);
        let messages = std::fs::File::options().create(true).append(true).open(place.data_dir.join("messages"))?;
        let mut command = Command::new(&place.bifold);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&place.data_dir);
        command.envs(variables.iter().map(|(name, value)| (name, value))).env("BIFOLD__LOG__LEVEL", "warn");
        let begun = Instant::now();
        let child = command.stdout(Stdio::null()).stderr(messages).spawn();
        let child = child.with_context(|| format!("starting {}", place.bifold.display()))?;
        let (url, token) = (String::new(), String::new());
        let mut server = Self { child, url, token, http: reqwest::Client::new(), ready_in: Duration::ZERO };
        server.wait_until_ready(&place.data_dir, &endpoint, begun).await?;
        Ok(server)
    }

    async fn wait_until_ready(&mut self, folder: &Path, endpoint: &Path, begun: Instant) -> anyhow::Result<()> {
        loop {
            let url = std::fs::read_to_string(endpoint).unwrap_or_default();
            if !url.is_empty() {
                url.trim().clone_into(&mut self.url);
                std::fs::read_to_string(folder.join("admin-token"))?.trim().clone_into(&mut self.token);
                let ready = self.http.get(format!("{}/readyz", self.url)).send().await;
                if ready.is_ok_and(|answer| answer.status().is_success()) {
                    self.ready_in = begun.elapsed();
                    return Ok(());
                }
            }
            if self.child.try_wait()?.is_some() || begun.elapsed() > PATIENCE {
                bail!("bifold did not start: {}", std::fs::read_to_string(folder.join("messages"))?);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// CPU seconds so far.
    pub(crate) fn cpu_s(&self) -> f64 {
        measure::cpu_s_of(&self.child.id().to_string())
    }

    /// Largest resident memory so far, MB.
    pub(crate) fn peak_mb(&self) -> f64 {
        measure::peak_mb_of(&self.child.id().to_string())
    }

    /// Waits until what goes on in the background has ended.
    pub(crate) async fn settle(&self) {
        loop {
            let before = self.cpu_s();
            tokio::time::sleep(Duration::from_millis(500)).await;
            if self.cpu_s() - before < 0.03 {
                return;
            }
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop, and waits.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        self.child.wait()?;
        Ok(())
    }

    pub(crate) async fn sql(&self, sql: &str) -> anyhow::Result<Value> {
        self.ask(json!({ "sql": sql })).await
    }

    /// A query that includes everything below a position.
    pub(crate) async fn sql_at(&self, sql: &str, position: &PositionToken) -> anyhow::Result<Value> {
        self.ask(json!({ "sql": sql, "at_least": position.to_string() })).await
    }

    async fn ask(&self, body: Value) -> anyhow::Result<Value> {
        let answer = self.http.post(format!("{}/v1/sql", self.url)).bearer_auth(&self.token).json(&body).send().await?;
        let ok = answer.status().is_success();
        let answer: Value = answer.json().await?;
        if ok { Ok(answer) } else { bail!("{answer}") }
    }

    /// `GET` of a path; the body as JSON.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.http.get(format!("{}{path}", self.url)).bearer_auth(&self.token).send().await?;
        let ok = answer.status().is_success();
        let answer: Value = answer.json().await?;
        if ok { Ok(answer) } else { bail!("{answer}") }
    }

    /// Sends events until they are acknowledged, over "full"; an error is a connection that is gone, or a refusal.
    pub(crate) async fn ingest(&self, stream: &str, body: Bytes) -> anyhow::Result<Value> {
        loop {
            let request = self.http.post(format!("{}/v1/streams/{stream}/events", self.url)).bearer_auth(&self.token);
            let answer = request.header(CONTENT_TYPE, "application/x-ndjson").body(body.clone()).send().await?;
            let status = answer.status().as_u16();
            let answer: Value = answer.json().await?;
            match status {
                200 => return Ok(answer),
                429 | 503 => tokio::time::sleep(FULL_PAUSE).await,
                _ => bail!("{status}: {answer}"),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number of one row's one column.
pub(crate) fn one(answer: &Value) -> u64 {
    number(&answer["rows"][0][0])
}

/// A number, which an answer may hold as text.
pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_default()
}

/// The position of an answer to [`Server::ingest`], joined with what is known.
pub(crate) fn join(known: &mut Option<PositionToken>, told: &Value) -> anyhow::Result<()> {
    let position: PositionToken = told["position"].as_str().context("no position")?.parse()?;
    let cut = known.as_ref().map_or_else(|| position.cut.clone(), |known| known.cut.join(&position.cut));
    *known = Some(PositionToken { cut, ..position });
    Ok(())
}
