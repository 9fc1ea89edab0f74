//! Landing: the log's records into the master, continuously, exactly once (DESIGN §9).
//!
//! An open range is landed when it is large, when it is old, or when a run asks. The log is given up
//! only below what has landed, what speed has made durable, and what retention and the horizon of
//! duplicates still need.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use parking_lot::Mutex;
use schemas::column::APPEND_TIME;
use schemas::{Cut, Limits, Offset, Partition, Problem, StreamDef};
use storage::StorageError;
use storage::clock::Clock;
use storage::footprint;
use storage::layers::BacklogSize;
use storage::log::{Frame, Log};
use storage::master::Master;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{internal, metrics, stored};

#[cfg(test)]
mod tests;

/// Rows that are asked of the log at once.
const READ_ROWS: usize = 65_536;
/// What a record takes until the first landing has shown it.
const RECORD_BYTES_GUESS: usize = 256;
/// Pause after a landing that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How often the log's old segments are looked at.
const MAINTENANCE_INTERVAL: Duration = Duration::from_mins(1);
/// Landings in a row that may lose to another process before a run gives up.
const CONFLICTS_MAX: usize = 16;

/// Everything below it is durable in the speed layer's checkpoints; none while unknown.
pub type DurableCut = Arc<dyn Fn() -> Option<Cut> + Send + Sync>;

/// What a landing works with.
#[derive(Clone)]
pub struct LandingParts {
    /// The stream.
    pub stream: Arc<StreamDef>,
    /// Where records come from.
    pub log: Arc<dyn Log>,
    /// The stream's dead letters, which are kept for the retention.
    pub dead_letters: Arc<dyn Log>,
    /// Where they go to.
    pub master: Arc<Master>,
    /// What speed no longer needs of the log.
    pub durable: DurableCut,
    /// For retention.
    pub clock: Arc<dyn Clock>,
    /// Bounds.
    pub limits: Limits,
    /// Of all streams, so many have a range in memory at the same time; the others wait.
    pub at_once: Arc<Semaphore>,
}

/// The landing of one stream.
pub struct Landing {
    parts: LandingParts,
    /// One landing at a time.
    turn: tokio::sync::Mutex<()>,
    /// Bytes in memory that a record took in the last landing.
    record_bytes: Mutex<usize>,
    /// The backlog when it was looked at last.
    backlog: Mutex<Backlog>,
}

/// A backlog that stands where it stood.
struct Backlog {
    from: Cut,
    since: Instant,
    /// What a record is taken for. It only grows while nothing moves: who was refused stays refused.
    record_bytes: usize,
}

impl std::fmt::Debug for Landing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Landing").field("stream", &self.parts.stream.name).finish_non_exhaustive()
    }
}

impl Landing {
    /// A landing that does nothing until it is run or asked.
    pub fn new(parts: LandingParts) -> Self {
        let backlog = Mutex::new(Backlog { from: Cut::default(), since: Instant::now(), record_bytes: 0 });
        Self { parts, turn: tokio::sync::Mutex::new(()), record_bytes: Mutex::new(RECORD_BYTES_GUESS), backlog }
    }

    /// What the log has to keep: records that have not landed, or are in no checkpoint of speed's.
    pub fn backlog(&self) -> BacklogSize {
        let landed = self.parts.master.landed();
        let from = (self.parts.durable)().map_or_else(|| landed.clone(), |durable| landed.meet(&durable));
        let records = from.records_until(&self.parts.log.head());
        let record_bytes = *self.record_bytes.lock();
        let mut stands = self.backlog.lock();
        if records == 0 || !stands.from.same_position(&from) {
            *stands = Backlog { from, since: Instant::now(), record_bytes };
        }
        stands.record_bytes = stands.record_bytes.max(record_bytes);
        let bytes = records.saturating_mul(stands.record_bytes as u64);
        BacklogSize { bytes, stands_for: stands.since.elapsed() }
    }

    /// The master that it lands into.
    pub fn master(&self) -> &Arc<Master> {
        &self.parts.master
    }

    /// Lands everything below `cut`. What has landed already is not landed again.
    ///
    /// # Errors
    /// The log or the master failed; the log no longer holds what has not landed.
    pub async fn land_to(&self, cut: &Cut) -> Result<(), Problem> {
        let _turn = self.turn.lock().await;
        let mut conflicts = 0;
        loop {
            let landed = self.parts.master.landed();
            if cut.is_at_most(&landed) {
                return Ok(());
            }
            let _memory = self.parts.at_once.acquire().await.map_err(internal)?;
            let frames = self.read_chunk(&landed, cut).await?;
            if frames.is_empty() {
                return Err(internal(format!(
                    "log of {}: ends before {cut}, landed is {landed}",
                    self.parts.stream.name
                )));
            }
            match self.parts.master.land(frames).await {
                Ok(done) => {
                    conflicts = 0;
                    metrics::landed(&self.parts.stream.name, done.rows());
                }
                // somebody landed some of it: what has landed is known anew
                Err(StorageError::Conflict { .. }) if conflicts < CONFLICTS_MAX => conflicts += 1,
                Err(error) => return Err(self.failed(&error).await),
            }
        }
    }

    /// After a failure it is open whether the commit is there: the table is read again.
    async fn failed(&self, error: &StorageError) -> Problem {
        if let Err(refresh) = self.parts.master.refresh().await {
            tracing::debug!(error = %refresh, "the master could not be read again");
        }
        stored(error)
    }

    /// Frames of all partitions from `landed` to `cut`, about as many bytes as one landing may have.
    async fn read_chunk(&self, landed: &Cut, cut: &Cut) -> Result<Vec<Frame>, Problem> {
        let open: Vec<Partition> = cut.iter().filter(|(p, to)| landed.offset(*p) < *to).map(|(p, _)| p).collect();
        let share = self.parts.limits.landing_bytes / open.len().max(1);
        let mut frames = Vec::new();
        for partition in open {
            let range = landed.offset(partition)..cut.offset(partition);
            frames.extend(self.read_partition(partition, range, share).await?);
        }
        let (rows, bytes) =
            frames.iter().fold((0, 0), |(r, b), frame| (r + frame.rows.num_rows(), b + bytes_of(frame)));
        if let Some(record) = bytes.checked_div(rows) {
            *self.record_bytes.lock() = record.max(1);
        }
        Ok(frames)
    }

    async fn read_partition(
        &self,
        partition: Partition,
        range: std::ops::Range<Offset>,
        bytes_max: usize,
    ) -> Result<Vec<Frame>, Problem> {
        let mut frames = Vec::new();
        let (mut next, mut bytes) = (range.start, 0);
        while next < range.end && bytes < bytes_max.max(1) {
            let read = self.parts.log.read(partition, next, READ_ROWS).await.map_err(|e| stored(&e))?;
            let before = next;
            for frame in read.iter().filter_map(|frame| frame.clip(&range)) {
                if bytes >= bytes_max.max(1) {
                    break;
                }
                next = frame.end();
                bytes += bytes_of(&frame);
                frames.push(frame);
            }
            if next == before {
                break;
            }
        }
        Ok(frames)
    }

    fn open_records(&self) -> u64 {
        self.parts.master.landed().records_until(&self.parts.log.head())
    }

    /// Lands open ranges as they become large or old, and gives up old segments of the log, until stopped.
    ///
    /// # Errors
    /// Never for a failing store: it is tried again.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) -> Result<(), Problem> {
        if let Err(error) = self.parts.master.remove_orphans().await {
            tracing::warn!(stream = %self.parts.stream.name, %error, "files of landings that were cut short remain");
        }
        let mut head = self.parts.log.watch_head();
        let mut open_since: Option<Instant> = None;
        let mut maintain_at = Instant::now() + MAINTENANCE_INTERVAL;
        let interval = Duration::from_millis(self.parts.limits.landing_interval_ms);
        loop {
            head.borrow_and_update();
            let open = self.open_records();
            metrics::landing_lag(&self.parts.stream.name, open);
            open_since = if open == 0 { None } else { open_since.or_else(|| Some(Instant::now())) };
            let old_at = open_since.map(|since| since + interval);
            let is_large = open as usize >= self.parts.limits.landing_bytes / *self.record_bytes.lock();
            if open > 0 && (is_large || old_at.is_some_and(|at| at <= Instant::now())) {
                if !self.land_or_pause(&stop).await {
                    return Ok(());
                }
                open_since = None;
                continue;
            }
            if maintain_at <= Instant::now() {
                self.maintain_or_warn().await;
                maintain_at = Instant::now() + MAINTENANCE_INTERVAL;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep_until(old_at.unwrap_or(maintain_at).min(maintain_at)) => {}
                changed = head.changed() => if changed.is_err() {
                    // the log is closed: what is open is landed after the next start
                    stop.cancelled().await;
                    return Ok(());
                },
            }
        }
    }

    /// Lands everything durable; pauses when that fails. False when stopped meanwhile.
    async fn land_or_pause(&self, stop: &CancellationToken) -> bool {
        let Err(problem) = self.land_to(&self.parts.log.head()).await else { return !stop.is_cancelled() };
        tracing::warn!(stream = %self.parts.stream.name, error = %problem, "landing failed; it is tried again");
        tokio::select! {
            biased;
            () = stop.cancelled() => false,
            () = tokio::time::sleep(RETRY_PAUSE) => true,
        }
    }

    async fn maintain_or_warn(&self) {
        if let Err(problem) = self.maintain().await {
            tracing::warn!(stream = %self.parts.stream.name, error = %problem, "the log was not truncated");
        }
    }

    /// Gives up what [`Landing::truncatable`] allows.
    ///
    /// # Errors
    /// The log failed.
    pub async fn maintain(&self) -> Result<(), Problem> {
        let below = self.truncatable().await?;
        if !below.is_at_most(&self.parts.log.start()) {
            self.parts.log.truncate(&below).await.map_err(|e| stored(&e))?;
        }
        let letters = &self.parts.dead_letters;
        let below =
            first_newer(letters.as_ref(), 0, letters.start().offset(0)..letters.head().offset(0), self.oldest_us(0));
        letters.truncate(&Cut(vec![below.await?])).await.map_err(|e| stored(&e))
    }

    /// Append time of the oldest records that are kept: for the retention, or longer.
    fn oldest_us(&self, at_least_us: i64) -> i64 {
        let retention_us = i64::try_from(self.parts.limits.log_retention_ms.saturating_mul(1_000)).unwrap_or(i64::MAX);
        self.parts.clock.now_us().saturating_sub(retention_us.max(at_least_us))
    }

    /// Nothing below it is needed of the log: it has landed, is in speed's checkpoints, and is older
    /// than the retention and than the horizon of duplicates.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn truncatable(&self) -> Result<Cut, Problem> {
        let Some(durable) = (self.parts.durable)() else { return Ok(Cut::default()) };
        let bound = self.parts.master.landed().meet(&durable);
        let horizon_us = self.parts.stream.dedup_horizon_us;
        let oldest_us = self.oldest_us(horizon_us.saturating_add(schemas::stream::dedup_step_us(horizon_us)));
        let start = self.parts.log.start();
        let mut cut = Cut::zero(self.parts.log.partitions());
        for (partition, to) in bound.iter() {
            let from = start.offset(partition);
            // the last record stays: it carries the partition's largest event time over a restart
            let to = to.min(self.parts.log.head().offset(partition).saturating_sub(1));
            cut.set(partition, first_newer(self.parts.log.as_ref(), partition, from..to.max(from), oldest_us).await?);
        }
        Ok(cut)
    }
}

/// The first offset of a range whose append time is not older; they never decrease.
async fn first_newer(
    log: &dyn Log,
    partition: Partition,
    range: std::ops::Range<Offset>,
    oldest_us: i64,
) -> Result<Offset, Problem> {
    let (mut low, mut high) = (range.start, range.end);
    // most often nothing is old yet: one look
    if low < high && append_time(log, partition, low).await? >= oldest_us {
        return Ok(low);
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if append_time(log, partition, middle).await? < oldest_us {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

async fn append_time(log: &dyn Log, partition: Partition, offset: Offset) -> Result<i64, Problem> {
    let frames = log.read(partition, offset, 1).await.map_err(|e| stored(&e))?;
    let missing = || internal(format!("a log has no record at offset {offset} of partition {partition}"));
    let rows = &frames.first().ok_or_else(missing)?.rows;
    let times =
        rows.column_by_name(APPEND_TIME).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    let times = times.filter(|times| !times.is_empty()).ok_or_else(missing)?;
    Ok(times.value(0))
}

fn bytes_of(frame: &Frame) -> usize {
    footprint::bytes_of(&frame.rows)
}
