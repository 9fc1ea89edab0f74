//! Asks the owner of the store for what is not in it yet.

use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use reqwest::StatusCode;
use schemas::{Code, Cut, PositionToken, Problem, StreamDef};
use serving::stored::{NoTail, Tails};
use storage::snapshot::{StreamSnapshot, wire};
use url::Url;

/// An owner that does not accept a connection by then does not answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// What an answer may take beyond the time that the owner may wait for a position.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A client of the owner's internal door.
pub(super) struct OwnerClient {
    url: Url,
    token: String,
    http: reqwest::Client,
}

impl OwnerClient {
    pub(super) fn new(url: &str, token: &str) -> anyhow::Result<Self> {
        let mut url = Url::parse(url).with_context(|| format!("owner_url: `{url}` is no URL"))?;
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let http =
            reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).build().context("the client of the owner")?;
        Ok(Self { url, token: token.to_owned(), http })
    }

    fn request(
        &self,
        stream: &StreamDef,
        after: &Cut,
        at_least: Option<&Cut>,
        timeout: Duration,
    ) -> Result<reqwest::RequestBuilder, NoTail> {
        // a token names every partition: the beginning of all of them has a name, too
        let whole = |cut: &Cut| cut.join(&Cut::zero(stream.partitions));
        let position = |cut: &Cut| PositionToken { incarnation: stream.incarnation, cut: whole(cut) }.to_string();
        let mut url = self
            .url
            .join(&format!("v1/internal/streams/{}/tail", stream.id))
            .map_err(|e| NoTail::Unreachable(format!("owner_url: {e}")))?;
        let mut query = url.query_pairs_mut();
        query.append_pair("after", &position(after)).append_pair("timeout_ms", &timeout.as_millis().to_string());
        if let Some(wanted) = at_least {
            query.append_pair("at_least", &position(wanted));
        }
        drop(query);
        // without a position the owner answers at once
        let patience = if at_least.is_some() { timeout + ANSWER_TIMEOUT } else { ANSWER_TIMEOUT };
        Ok(self.http.get(url).bearer_auth(&self.token).timeout(patience))
    }
}

#[async_trait]
impl Tails for OwnerClient {
    async fn tail(
        &self,
        stream: &StreamDef,
        after: &Cut,
        at_least: Option<&Cut>,
        timeout: Duration,
    ) -> Result<StreamSnapshot, NoTail> {
        let unreachable = |error: reqwest::Error| NoTail::Unreachable(error.without_url().to_string());
        let answer = self.request(stream, after, at_least, timeout)?.send().await.map_err(unreachable)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(unreachable)?;
        if status != StatusCode::OK {
            return Err(refused(status, &body));
        }
        let read = tokio::task::spawn_blocking(move || wire::decode("the owner's tail", &body)).await;
        let read = read.map_err(|error| NoTail::Unreachable(error.to_string()))?;
        read.map_err(|error| NoTail::Unreachable(error.to_string()))
    }
}

fn refused(status: StatusCode, body: &[u8]) -> NoTail {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) if matches!(problem.code, Code::Unauthorized | Code::Forbidden) => {
            let what = format!("the owner of the store refuses this node: {}", problem.detail);
            NoTail::Refused(
                Problem::new(Code::Internal, what).with_hint("give this node the owner's token: auth.owner_token"),
            )
        }
        Ok(problem) if problem.code == Code::UnknownRoute => {
            NoTail::Refused(Problem::new(Code::Internal, "owner_url: what answers there owns no streams"))
        }
        Ok(problem) => NoTail::Refused(problem),
        Err(_) => NoTail::Unreachable(format!("HTTP {status}")),
    }
}
