//! A checkpoint: the states since the last one, merged and made durable as one delta for all views.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use operators::View;
use schemas::documents::delta::{DeltaHeader, DeltaView, FailedView};
use schemas::{Code, Cut, Problem};
use storage::StorageError;
use storage::snapshot::RangeStates;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::chain::{Base, Link};
use crate::shard::Sealed;
use crate::stream::{StreamSpeed, range_of};

/// How long the first retry of a failed checkpoint waits; it doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// The longest wait between retries.
const RETRY_MAX: Duration = Duration::from_secs(10);

impl StreamSpeed {
    /// Checkpoints every `checkpoint_interval_ms`, and earlier when memory is short.
    pub(crate) async fn checkpoint_loop(self: Arc<Self>, stop: CancellationToken) -> Result<(), Problem> {
        let interval = Duration::from_millis(self.parts.limits.checkpoint_interval_ms.max(1));
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(interval) => {}
                () = self.checkpoint_wanted.notified() => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                done = self.checkpoint() => { done?; }
            }
            self.merge_wanted.notify_one();
        }
    }

    /// Makes everything folded so far durable and returns where it ends. Retries while the store fails.
    /// Goes on to its end even if the caller gives up: a delta that was written must be known.
    ///
    /// # Errors
    /// Another process has written this stream's deltas (the fence), or states could not be merged.
    pub(crate) async fn checkpoint(self: &Arc<Self>) -> Result<Cut, Problem> {
        let checkpoint = tokio::spawn(Arc::clone(self).checkpoint_to_the_end());
        checkpoint.await.map_err(|e| Problem::new(Code::Internal, format!("a checkpoint stopped: {e}")))?
    }

    async fn checkpoint_to_the_end(self: Arc<Self>) -> Result<Cut, Problem> {
        let _one_at_a_time = self.checkpointing.lock().await;
        let started = Instant::now();
        let (asked_at_us, head) = (self.parts.clock.now_us(), self.parts.log.head());
        let this = Arc::clone(&self);
        let prepared = blocking(move || this.begin_checkpoint()).await?;
        let Some((mut header, ranges)) = prepared else { return Ok(self.base.lock().durable.clone()) };
        header.as_of_us = Some(self.as_of(asked_at_us, &head, &header.to).await?);
        self.commit(&header, &ranges).await?;
        let to = header.to.clone();
        self.finish_checkpoint(header, ranges);
        let stream = self.parts.stream.name.clone();
        metrics::counter!("bifold_speed_checkpoints_total", "stream" => stream.clone()).increment(1);
        metrics::histogram!("bifold_speed_checkpoint_seconds", "stream" => stream.clone())
            .record(started.elapsed().as_secs_f64());
        metrics::gauge!("bifold_speed_checkpoint_timestamp_seconds", "stream" => stream)
            .set(self.parts.clock.now_us() as f64 / 1e6);
        Ok(to)
    }

    /// Takes the tails out, shows them to readers as "in flight", and merges them.
    fn begin_checkpoint(&self) -> Option<(DeltaHeader, BTreeMap<Uuid, Arc<RangeStates>>)> {
        let (tails, from, to, times, number) = {
            let mut base = self.base.lock();
            // a checkpoint that was cancelled while it was being written is written again as it was
            let pending = !base.in_flight.is_empty();
            if !pending {
                self.move_tails(&mut base);
            }
            if base.sealed.same_position(&base.durable) {
                return None;
            }
            let times = self.event_times();
            (base.in_flight.clone(), base.durable.clone(), base.sealed.clone(), times, base.next_checkpoint)
        };
        let views = self.views_by_id();
        let mut ranges = BTreeMap::new();
        for (id, tail) in tails {
            let Some(view) = views.get(&id) else { continue };
            match merged(view, &tail) {
                Ok(range) => {
                    ranges.insert(id, Arc::new(range));
                }
                Err(problem) => self.fail_view(id, problem),
            }
        }
        let header = self.header(number, (from, to), times, &ranges, &views);
        Some((header, ranges))
    }

    /// States that cannot be merged are of no use: the view's readers are told why.
    pub(crate) fn fail_view(&self, id: Uuid, problem: Problem) {
        tracing::error!(stream = self.name(), view = %id, error = %problem, "states of a view cannot be merged");
        let mut base = self.base.lock();
        self.for_each_shard(|shard| shard.fail_view(id, &problem));
        if let Some(state) = base.views.get_mut(&id) {
            state.failed = Some(problem);
        }
        base.version += 1;
    }

    /// The views that cannot be folded any more, for a delta: a restart must not take them for whole.
    pub(crate) fn failed_views(&self) -> Vec<FailedView> {
        self.base.lock().failed_views()
    }

    fn move_tails(&self, base: &mut Base) {
        let partitions = self.parts.log.partitions();
        // between two rounds: every shard has all that lies below these positions
        let reached = self.reached.lock();
        let to = reached.next.clone();
        let mut tails: BTreeMap<Uuid, Sealed> = BTreeMap::new();
        self.for_each_shard(|shard| {
            shard.seal();
            for (id, mine) in shard.take_tails() {
                tails.entry(id).or_default().add(mine);
            }
        });
        drop(reached);
        self.note_failures(base);
        let from = base.sealed.clone();
        if to.same_position(&from) {
            return;
        }
        let ranges = tails.into_iter().filter_map(|(id, tail)| {
            let state = base.views.get(&id).filter(|state| state.failed.is_none())?;
            let start = state.start().join(&from);
            let end = to.join(&start);
            Some((id, Arc::new(range_of(tail, start, end, partitions))))
        });
        base.in_flight = ranges.collect();
        base.sealed = to;
        base.version += 1;
    }

    /// Everything that was acknowledged by then lies below `to`: what the log held at `asked_at_us` does, or is
    /// not older than the first records that do not.
    async fn as_of(&self, asked_at_us: i64, head: &Cut, to: &Cut) -> Result<i64, Problem> {
        if head.is_at_most(to) {
            return Ok(asked_at_us);
        }
        Ok(self.oldest_beyond(to).await?.map_or(asked_at_us, |oldest| oldest.min(asked_at_us)))
    }

    fn event_times(&self) -> Vec<Option<i64>> {
        self.reached.lock().max_event_time_us.clone()
    }

    fn header(
        &self,
        number: u64,
        (from, to): (Cut, Cut),
        max_event_time_us: Vec<Option<i64>>,
        ranges: &BTreeMap<Uuid, Arc<RangeStates>>,
        views: &BTreeMap<Uuid, Arc<View>>,
    ) -> DeltaHeader {
        DeltaHeader {
            format: 1,
            stream: self.parts.stream.id,
            incarnation: self.parts.log.incarnation(),
            first_checkpoint: number,
            last_checkpoint: number,
            from,
            to,
            max_event_time_us,
            views: ranges.iter().map(|(id, range)| described(*id, range, views)).collect(),
            failed: self.failed_views(),
            created_at_us: self.parts.clock.now_us(),
            as_of_us: None,
        }
    }

    async fn commit(&self, header: &DeltaHeader, ranges: &BTreeMap<Uuid, Arc<RangeStates>>) -> Result<(), Problem> {
        let mut wait = RETRY_FIRST;
        loop {
            let states: Vec<_> = ranges.values().map(|range| range.states.clone()).collect();
            match self.parts.deltas.commit(header, &states).await {
                Ok(_) => return Ok(()),
                Err(StorageError::Conflict { path }) => {
                    let detail = format!("stream {}: {path} exists: another process writes its deltas", self.name());
                    return Err(Problem::new(Code::Internal, detail));
                }
                Err(error) => {
                    tracing::warn!(stream = self.name(), %error, "checkpoint failed, trying again");
                    metrics::counter!("bifold_speed_checkpoint_failures_total", "stream" => self.name().to_owned())
                        .increment(1);
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    fn finish_checkpoint(&self, header: DeltaHeader, ranges: BTreeMap<Uuid, Arc<RangeStates>>) {
        let mut base = self.base.lock();
        base.durable = header.to.clone();
        base.next_checkpoint = header.last_checkpoint.saturating_add(1);
        base.in_flight.clear();
        let known: BTreeMap<_, _> = ranges.into_iter().filter(|(id, _)| base.views.contains_key(id)).collect();
        base.links.push(Link { header: Arc::new(header), views: known });
        base.version += 1;
    }
}

/// A delta's description of one view's part.
pub(crate) fn described(id: Uuid, range: &RangeStates, views: &BTreeMap<Uuid, Arc<View>>) -> DeltaView {
    DeltaView {
        view: id,
        semantic_hash: views.get(&id).map(|view| view.semantic_hash().to_owned()).unwrap_or_default(),
        from: range.from.clone(),
        cells: range.cells() as u64,
        ledger: range.ledger.clone(),
        bytes: 0,
    }
}

/// One sorted batch of states: equal records give equal bytes (invariant I5).
pub(crate) fn merged(view: &View, range: &RangeStates) -> Result<RangeStates, Problem> {
    let states = operators::states::merge(view, &range.states)?;
    Ok(RangeStates { states: vec![states], sorted: true, ..range.clone() })
}

/// Runs CPU work off the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Problem::new(Code::Internal, format!("a background computation stopped: {e}")))
}
