//! The fold of a stream, round by round: what is new in all partitions, cut into pieces, folded on all cores.
//!
//! ```text
//!  partition 0  ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓   pieces ─┬─► shard 0  ▓▓▓ ▓▓▓ ▓▓▓ ▓▓
//!  partition 1  ▓▓▓▓                    (taken  └─► shard 1  ▓▓▓ ▓▓▓ ▓▓▓ ▓▓
//!  partition 2  ▓▓▓                     in order)
//! ```
//!
//! A piece goes to whichever shard is free: a partition that has half of all records, or records a thousand times as
//! large, keeps every core busy and not one (R-040). States add up, so it does not matter where a record was folded.
//! Of a round every partition gets its share, so a hot one does not make the others wait.
//!
//! Invariant: between two rounds every record below [`Reached::next`] is in exactly one shard, and no other is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::compute::max;
use arrow::datatypes::TimestampMicrosecondType;
use futures::future::try_join_all;
use parking_lot::Mutex;
use schemas::limits::MICRO_BATCH_ROWS;
use schemas::{Code, Cut, Offset, Partition, Problem};
use storage::log::Frame;
use tokio_util::sync::CancellationToken;

use crate::stream::StreamSpeed;

/// Rows of a piece: enough for a fold to be worth its call, few enough for the cores to end together.
const PIECE_ROWS: usize = 8_192;
/// A round of fewer rows is folded where it is: to wake another core takes longer.
const ALONE_ROWS: usize = 2 * PIECE_ROWS;
/// Rows of a round that a partition gets at least.
const SHARE_ROWS_MIN: usize = 1_024;
/// How long the fold waits before it looks again whether a checkpoint has made room.
const MEMORY_PAUSE: Duration = Duration::from_millis(20);

/// How far the fold of a stream is.
#[derive(Debug)]
pub(crate) struct Reached {
    /// Everything below it is folded.
    pub(crate) next: Cut,
    /// Largest event time of each partition, microseconds.
    pub(crate) max_event_time_us: Vec<Option<i64>>,
    /// Index of the event-time column in the log schema.
    pub(crate) time_column: Option<usize>,
}

impl Reached {
    /// Partitions were added; they begin at their beginning.
    pub(crate) fn grow(&mut self, partitions: u32) {
        let partitions = self.next.0.len().max(partitions as usize);
        self.next.0.resize(partitions, 0);
        self.max_event_time_us.resize(partitions, None);
    }

    fn note(&mut self, frame: &Frame) {
        assert!(
            frame.base == self.next.offset(frame.partition),
            "partition {}: {} follows {}",
            frame.partition,
            frame.base,
            self.next.offset(frame.partition)
        );
        self.next.set(frame.partition, frame.end());
        let Some(column) = self.time_column else { return };
        let largest = max(frame.rows.column(column).as_primitive::<TimestampMicrosecondType>());
        let known = &mut self.max_event_time_us[frame.partition as usize];
        *known = (*known).max(largest);
    }
}

impl StreamSpeed {
    /// Folds what comes until `stop`.
    pub(crate) async fn fold_loop(self: Arc<Self>, stop: CancellationToken) -> Result<(), Problem> {
        let mut head = self.parts.log.watch_head();
        loop {
            while self.fold_once().await? {
                if stop.is_cancelled() {
                    return Ok(());
                }
                self.wait_for_memory(&stop).await;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                changed = head.changed() => if changed.is_err() { return Ok(()) },
            }
        }
    }

    /// Folds a round; false if there was nothing.
    async fn fold_once(self: &Arc<Self>) -> Result<bool, Problem> {
        let frames = self.read_round().await?;
        if frames.is_empty() {
            return Ok(false);
        }
        let this = Arc::clone(self);
        let folding = tokio::task::spawn_blocking(move || this.fold_round(&frames));
        folding.await.map_err(|e| Problem::new(Code::Internal, format!("the fold of a stream stopped: {e}")))?;
        Ok(true)
    }

    /// What is new, of each partition at most its share of a round.
    async fn read_round(&self) -> Result<Vec<Frame>, Problem> {
        // nobody but this loop moves it
        let (from, head) = (&self.folded(), self.parts.log.head());
        let is_new = |(partition, end): &(Partition, Offset)| from.offset(*partition) < *end;
        let open: Vec<Partition> = head.iter().filter(is_new).map(|(partition, _)| partition).collect();
        let share = (MICRO_BATCH_ROWS * self.shards.len() / open.len().max(1)).max(SHARE_ROWS_MIN);
        // at the same time: after a start they come from the disk, and have to be decoded
        let reads = open.into_iter().map(|partition| async move {
            let next = from.offset(partition);
            let read = self.parts.log.read(partition, next, share).await.map_err(|e| e.problem())?;
            let new = read.iter().filter_map(|frame| frame.clip(&(next..next + share as u64)));
            Ok::<Vec<Frame>, Problem>(new.collect())
        });
        Ok(try_join_all(reads).await?.into_iter().flatten().collect())
    }

    fn fold_round(&self, frames: &[Frame]) {
        let started = Instant::now();
        let rows: usize = frames.iter().map(|frame| frame.rows.num_rows()).sum();
        let mut reached = self.reached.lock();
        for frame in frames {
            reached.note(frame);
        }
        if rows <= ALONE_ROWS || self.shards.len() == 1 {
            self.fold_pieces(self.least_busy_shard(), frames, &AtomicUsize::new(0));
        } else {
            let (pieces, taken) = (pieces(frames), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                let (pieces, taken) = (pieces.as_slice(), &taken);
                for shard in 1..self.shards.len() {
                    scope.spawn(move || self.fold_pieces(shard, pieces, taken));
                }
                self.fold_pieces(0, pieces, taken);
            });
        }
        let next = reached.next.clone();
        drop(reached);
        self.folded.send_replace(next);
        let stream = self.parts.stream.name.clone();
        metrics::counter!("bifold_speed_folded_records_total", "stream" => stream.clone()).increment(rows as u64);
        metrics::histogram!("bifold_speed_fold_seconds", "stream" => stream).record(started.elapsed().as_secs_f64());
        if self.memory_bytes() > self.parts.limits.speed_state_bytes_max {
            self.checkpoint_wanted.notify_one();
        }
    }

    /// Takes pieces, the next one each time, until none is left.
    fn fold_pieces(&self, shard: usize, pieces: &[Frame], taken: &AtomicUsize) {
        let started = Instant::now();
        let mut states = self.shards[shard].lock();
        while let Some(piece) = pieces.get(taken.fetch_add(1, Ordering::Relaxed)) {
            states.fold(piece);
        }
        drop(states);
        let took_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.busy_us[shard].fetch_add(took_us, Ordering::Relaxed);
        let (stream, shard) = (self.parts.stream.name.clone(), shard.to_string());
        metrics::counter!("bifold_speed_shard_busy_microseconds_total", "stream" => stream, "shard" => shard)
            .increment(took_us);
    }

    fn least_busy_shard(&self) -> usize {
        let busy = self.busy_us.iter().map(|busy| busy.load(Ordering::Relaxed)).enumerate();
        busy.min_by_key(|(_, busy_us)| *busy_us).map_or(0, |(shard, _)| shard)
    }

    /// Bytes of states that are in no checkpoint yet.
    fn memory_bytes(&self) -> usize {
        self.shards.iter().map(Mutex::lock).map(|shard| shard.memory_bytes()).sum()
    }

    /// Back-pressure: with twice the allowed states in memory the fold waits for a checkpoint.
    async fn wait_for_memory(&self, stop: &CancellationToken) {
        let limit = self.parts.limits.speed_state_bytes_max.saturating_mul(2);
        while self.memory_bytes() > limit && !stop.is_cancelled() {
            self.checkpoint_wanted.notify_one();
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = tokio::time::sleep(MEMORY_PAUSE) => {}
            }
        }
    }
}

/// Frames cut into pieces, in order.
fn pieces(frames: &[Frame]) -> Vec<Frame> {
    let mut pieces = Vec::with_capacity(frames.len());
    for frame in frames {
        let mut from = frame.base;
        while let Some(piece) = frame.clip(&(from..from + PIECE_ROWS as u64)) {
            from = piece.end();
            pieces.push(piece);
        }
    }
    pieces
}

#[cfg(test)]
mod tests;
