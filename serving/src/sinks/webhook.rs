//! HTTP requests. A parcel is stored before it is sent, and sent until it is taken, as it was and under one key: so who
//! takes it can tell a repetition from something new (draft-ietf-httpapi-idempotency-key-header).

use std::time::Duration;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use reqwest::{Client, StatusCode};
use schemas::documents::sink::{PendingParcel, SinkPosition};
use schemas::sink::without_password;
use schemas::{Code, Problem};
use storage::sinks::SinkStore;

use super::stdout::stored_cursor;
use super::target::{Layout, Target};
use super::{SinkBook, SinkParts};
use crate::changes::json::{objects, quoted};
use crate::changes::{Changes, Cursor};

/// Rows and keys of one parcel.
const PARCEL_ROWS: usize = 500;
/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after the first refusal; it doubles.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// The longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

pub(super) struct WebhookTarget {
    store: SinkStore,
    book: SinkBook,
    client: Client,
    url: String,
    layout: Layout,
    position: SinkPosition,
    /// What is to be sent next: flags and rows of one kind.
    buffered: Option<Parcel>,
}

/// A parcel that is being filled.
struct Parcel {
    is_snapshot: bool,
    is_correction: bool,
    version: u64,
    upserts: Vec<RecordBatch>,
    deletes: Vec<RecordBatch>,
    rows: usize,
}

impl WebhookTarget {
    pub(super) fn new(parts: &SinkParts, layout: Layout, url: &str) -> Result<Self, Problem> {
        let client = Client::builder().timeout(TIMEOUT).build();
        let client = client.map_err(|e| Problem::new(Code::Internal, format!("a client for HTTP: {e}")))?;
        Ok(Self {
            store: SinkStore::new(parts.engine.parts.store.clone(), layout.sink.id),
            book: parts.engine.sinks.clone(),
            client,
            url: url.to_owned(),
            layout,
            position: SinkPosition { format: 1, parcels: 0, cursor: None, pending: None },
            buffered: None,
        })
    }

    async fn store(&self) -> Result<(), Problem> {
        self.store.write(&self.position).await.map_err(|e| e.problem())
    }

    /// Puts rows into the parcel, and sends it each time it is full.
    async fn add(&mut self, changes: &Changes, is_correction: bool) -> Result<(), Problem> {
        let (upserts, deletes) = (changes.upserts.num_rows(), changes.deletes.num_rows());
        for from in (0..upserts).step_by(PARCEL_ROWS) {
            let rows = changes.upserts.slice(from, PARCEL_ROWS.min(upserts - from));
            self.parcel(changes.version, is_correction, rows.num_rows()).await?.upserts.push(rows);
        }
        for from in (0..deletes).step_by(PARCEL_ROWS) {
            let keys = changes.deletes.slice(from, PARCEL_ROWS.min(deletes - from));
            self.parcel(changes.version, is_correction, keys.num_rows()).await?.deletes.push(keys);
        }
        Ok(())
    }

    /// The parcel that so many rows of this kind belong into.
    async fn parcel(&mut self, version: u64, is_correction: bool, rows: usize) -> Result<&mut Parcel, Problem> {
        let fits = |parcel: &Parcel| parcel.is_correction == is_correction && parcel.rows + rows <= PARCEL_ROWS;
        if self.buffered.as_ref().is_some_and(|parcel| !fits(parcel)) {
            self.send(None).await?;
        }
        let new = || Parcel { is_snapshot: false, is_correction, version, upserts: vec![], deletes: vec![], rows: 0 };
        let parcel = self.buffered.get_or_insert_with(new);
        parcel.rows += rows;
        Ok(parcel)
    }

    /// Sends what is buffered; with the cursor, the step is complete.
    async fn send(&mut self, cursor: Option<&Cursor>) -> Result<(), Problem> {
        let Some(parcel) = self.buffered.take() else { return Ok(()) };
        let body = self.body(&parcel, cursor.is_some())?;
        let cursor = cursor.map(ToString::to_string);
        self.position.pending = Some(PendingParcel { body, cursor });
        self.store().await?;
        self.send_pending().await
    }

    fn body(&self, parcel: &Parcel, is_last: bool) -> Result<String, Problem> {
        let all = |batches: &[RecordBatch]| -> Result<String, Problem> {
            let parts =
                batches.iter().filter(|rows| rows.num_rows() > 0).map(objects).collect::<Result<Vec<_>, _>>()?;
            Ok(parts.join(","))
        };
        Ok(format!(
            "{{\"sink\":{},\"view\":{},\"mode\":\"{}\",\"parcel\":{},\"snapshot\":{},\"correction\":{},\"last\":{is_last},\
             \"version\":{},\"upserts\":[{}],\"deletes\":[{}]}}",
            quoted(&self.layout.sink.name),
            quoted(&self.layout.view),
            self.layout.sink.mode.as_str(),
            self.position.parcels + 1,
            parcel.is_snapshot,
            parcel.is_correction,
            parcel.version,
            all(&parcel.upserts)?,
            all(&parcel.deletes)?,
        ))
    }

    /// Sends the stored parcel until it is taken.
    async fn send_pending(&mut self) -> Result<(), Problem> {
        let Some(pending) = self.position.pending.clone() else { return Ok(()) };
        let key = format!("{}-{}", self.layout.sink.id, self.position.parcels + 1);
        let mut backoff = BACKOFF_MIN;
        while let Err(problem) = self.request(&key, &pending.body).await {
            tracing::debug!(sink = %self.layout.sink.name, error = %problem.detail, "a parcel was not taken");
            self.book.failed(self.layout.sink.id, &problem);
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        self.position.parcels += 1;
        self.position.pending = None;
        if pending.cursor.is_some() {
            self.position.cursor = pending.cursor;
        }
        self.store().await
    }

    async fn request(&self, key: &str, body: &str) -> Result<(), Problem> {
        let place = without_password(&self.url);
        let request = self.client.post(&self.url).header("content-type", "application/json");
        let sent = request.header("idempotency-key", key).body(body.to_owned()).send().await;
        let status = match sent {
            Ok(answer) => answer.status(),
            Err(error) => {
                let why = error.without_url();
                return Err(Problem::new(Code::StorageUnavailable, format!("{place}: {why}")));
            }
        };
        // taken now, or taken before
        if status.is_success() || status == StatusCode::CONFLICT {
            return Ok(());
        }
        Err(Problem::new(Code::StorageUnavailable, format!("{place} answered {status}")))
    }
}

#[async_trait]
impl Target for WebhookTarget {
    async fn open(&mut self) -> Result<Option<Cursor>, Problem> {
        if let Some(position) = self.store.read().await.map_err(|e| e.problem())? {
            self.position = position;
        }
        self.send_pending().await?;
        Ok(stored_cursor(Some(&self.position)))
    }

    async fn snapshot(&mut self, version: u64) -> Result<(), Problem> {
        let (upserts, deletes) = (vec![], vec![]);
        self.buffered = Some(Parcel { is_snapshot: true, is_correction: false, version, upserts, deletes, rows: 0 });
        Ok(())
    }

    async fn changes(&mut self, changes: &Changes) -> Result<(), Problem> {
        self.add(changes, false).await
    }

    async fn corrections(&mut self, changes: &Changes) -> Result<(), Problem> {
        self.add(changes, true).await
    }

    async fn commit(&mut self, cursor: &Cursor) -> Result<(), Problem> {
        self.send(Some(cursor)).await
    }

    async fn advance(&mut self, cursor: &Cursor) -> Result<(), Problem> {
        self.position.cursor = Some(cursor.to_string());
        self.store().await
    }
}
