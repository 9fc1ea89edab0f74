//! One sink, from its cursor on, for ever: what fails is tried again.

use std::sync::Arc;
use std::time::Duration;

use schemas::{Code, Problem, SinkDef, SinkTarget};
use tokio::sync::watch;
use tokio::time::Instant;

use super::SinkParts;
use super::target::{Layout, Target, target};
use crate::changes::{Cursor, Event, Feed, FeedRequest};

/// Pause after the first failure; it doubles.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
/// The longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// So often the cursor is noted while there are no rows.
const ADVANCE: Duration = Duration::from_secs(1);

/// Delivers until it is stopped.
pub(super) async fn deliver(parts: SinkParts, sink: SinkDef, mut stopped: watch::Receiver<bool>) {
    let sink = Arc::new(sink);
    let mut backoff = BACKOFF_MIN;
    loop {
        let mut delivery =
            Delivery { parts: &parts, sink: &sink, rows: 0, has_arrived: false, advanced: Instant::now() };
        let ended = tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => return,
            ended = delivery.run() => ended,
        };
        let Err(problem) = ended else { return };
        if delivery.has_arrived {
            backoff = BACKOFF_MIN;
        }
        // the history of a view that is new is no failure
        if problem.code != Code::NotReady {
            tracing::warn!(sink = %sink.name, error = %problem.text(), "a sink failed, and is tried again");
            metrics::counter!("bifold_sink_failures_total", "sink" => sink.name.clone()).increment(1);
        }
        parts.engine.sinks.failed(sink.id, &problem);
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(backoff) => {}
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// One try.
struct Delivery<'a> {
    parts: &'a SinkParts,
    sink: &'a Arc<SinkDef>,
    /// Of the step.
    rows: u64,
    has_arrived: bool,
    advanced: Instant,
}

impl Delivery<'_> {
    /// Delivers until the server stops.
    async fn run(&mut self) -> Result<(), Problem> {
        let engine = &self.parts.engine;
        let catalog = engine.parts.catalogs.current();
        let Some(view) = catalog.view_by_id(self.sink.view).map(|view| view.name.clone()) else {
            return Err(Problem::new(Code::NotFound, format!("sink {}: its view is gone", self.sink.name)));
        };
        let every =
            Duration::from_micros(u64::try_from(self.sink.every_us).unwrap_or(0)).max(Duration::from_millis(10));
        let has_whole_steps = matches!(self.sink.target, SinkTarget::Postgres { .. } | SinkTarget::File { .. });
        let request = FeedRequest { view: view.clone(), mode: self.sink.mode, every, cursor: None, has_whole_steps };
        let mut feed = Feed::open(engine, request)?;
        feed.check().await?;
        let (schema, keys) = feed.columns()?;
        let layout = Layout { sink: Arc::clone(self.sink), view, schema, keys };
        let mut target = target(self.parts, layout)?;
        let mut cursor = target.open().await?;
        engine.sinks.opened(self.sink.id, cursor.as_ref().map(|cursor| &cursor.to));
        feed.resume(cursor.clone());
        let mut has_rows = false;
        while let Some(event) = feed.next().await? {
            match event {
                Event::Progress(next) => {
                    if has_rows || cursor.as_ref() != Some(&next) {
                        self.arrive(target.as_mut(), &next, has_rows).await?;
                    }
                    (cursor, has_rows) = (Some(next), false);
                }
                Event::Published(_) => {}
                rows => {
                    has_rows = true;
                    self.hand_on(target.as_mut(), rows).await?;
                }
            }
        }
        Ok(())
    }

    async fn hand_on(&mut self, target: &mut dyn Target, event: Event) -> Result<(), Problem> {
        match event {
            Event::Snapshot { version, .. } => target.snapshot(version).await,
            Event::Changed(changes) => {
                self.rows += (changes.upserts.num_rows() + changes.deletes.num_rows()) as u64;
                target.changes(&changes).await
            }
            Event::Corrected(changes) => {
                self.rows += (changes.upserts.num_rows() + changes.deletes.num_rows()) as u64;
                target.corrections(&changes).await
            }
            Event::Published(_) | Event::Progress(_) => Ok(()),
        }
    }

    async fn arrive(&mut self, target: &mut dyn Target, cursor: &Cursor, has_rows: bool) -> Result<(), Problem> {
        if has_rows {
            target.commit(cursor).await?;
            self.advanced = Instant::now();
        } else if self.advanced.elapsed() >= ADVANCE {
            target.advance(cursor).await?;
            self.advanced = Instant::now();
        }
        self.has_arrived = true;
        let rows = std::mem::take(&mut self.rows);
        metrics::counter!("bifold_sink_rows_total", "sink" => self.sink.name.clone()).increment(rows);
        let now_us = self.parts.engine.parts.clock.now_us();
        self.parts.engine.sinks.arrived(self.sink.id, &cursor.to, rows, now_us);
        Ok(())
    }
}
