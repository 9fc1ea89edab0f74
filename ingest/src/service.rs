//! Ingest as a whole: from a body to an answer. Every way in (HTTP, files, the demo) calls it.
//!
//! Invariant: accepted + duplicates + quarantined = received, in every answer.

mod answers;
mod door;
mod in_flight;
mod replay;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use schemas::freshness::IngestAnswer;
use schemas::limits::{DEAD_LETTERS_AT_ONCE, LOG_STALLED_MS, REQUEST_BYTES};
use schemas::problem::did_you_mean;
use schemas::{Code, Cut, IntakeBucket, Limits, Offset, Partition, Problem, StreamDef};
use storage::clock::Clock;
use storage::layers::{Backlogs, Logs, Snapshots};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use self::answers::Answers;
use self::door::Door;
use self::in_flight::InFlight;
pub use self::in_flight::Reservation;
pub use self::replay::{Correction, ReplayAnswer};
use crate::dead_letters::Letter;
use crate::frozen::FrozenTable;
use crate::identity::{Identity, partition};
use crate::payload::{Encoding, Format};
use crate::times::Timing;

/// Dead letters that are in memory while many are looked at.
const LETTERS_OF_A_PAGE: usize = 256;
/// How long `wait=visible` waits.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Asked of `cli`: the streams as they stand in the catalogue.
pub trait Streams: Send + Sync {
    /// A stream by name.
    fn stream(&self, name: &str) -> Option<Arc<StreamDef>>;

    /// All names, for "did you mean".
    fn names(&self) -> Vec<String>;

    /// The version that there is now of the table that a stream looks values up in.
    ///
    /// # Errors
    /// It is not there.
    fn frozen(&self, stream: &StreamDef) -> Result<Arc<FrozenTable>, Problem> {
        let detail = format!("stream {}: nobody here knows its table", stream.name);
        Err(Problem::new(Code::Internal, detail))
    }

    /// Why the logs of a stream are not open; none where that is not known.
    fn closed(&self, _stream: Uuid) -> Option<Problem> {
        None
    }
}

/// What a client sent.
#[derive(Debug, Clone, Default)]
pub struct Payload {
    /// The body, as it came over the wire.
    pub bytes: Bytes,
    /// How it is compressed.
    pub encoding: Encoding,
    /// How its records are told apart.
    pub format: Format,
    /// As the client named it; kept with dead letters.
    pub content_type: String,
    /// When it was sent and received.
    pub timing: Timing,
}

/// How a client wants it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IngestOptions {
    /// Write nothing if one record is bad.
    pub strict: bool,
    /// Only say what is bad; write nothing.
    pub check: bool,
    /// Answer when the events are in the views' answers, not when they are on disk.
    pub wait_visible: bool,
    /// A repeated request with the same key gets the same answer.
    pub idempotency_key: Option<String>,
}

/// What ingest is made of.
pub struct IngestParts {
    /// The catalogue.
    pub streams: Arc<dyn Streams>,
    /// The open logs.
    pub logs: Arc<dyn Logs>,
    /// For `wait=visible`; none where the speed layer does not run.
    pub snapshots: Option<Arc<dyn Snapshots>>,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Bounds.
    pub limits: Limits,
    /// Whether the layers behind the log keep up; none: nobody asks.
    pub backlogs: Option<Arc<dyn Backlogs>>,
    /// Folder for the ids of each stream that memory has no room for; none: they all stay in memory.
    pub ids_folder: Option<IdsFolder>,
}

/// Where the ids of a stream go that memory has no room for. Dropping the stream removes the folder.
pub type IdsFolder = Arc<dyn Fn(Uuid) -> PathBuf + Send + Sync>;

/// Ingest of all streams.
pub struct IngestService {
    parts: IngestParts,
    doors: Mutex<BTreeMap<Uuid, Arc<Door>>>,
    answers: Answers,
    in_flight: Arc<InFlight>,
    /// One permit per core: decoding more at once only makes each slower.
    cores: Semaphore,
    /// Requests run here to their end, even if their client goes away.
    tasks: TaskTracker,
}

impl std::fmt::Debug for IngestService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IngestService").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

impl IngestService {
    /// An idle service.
    pub fn new(parts: IngestParts) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self {
            in_flight: InFlight::new(parts.limits.ingest_bytes_in_flight_max, REQUEST_BYTES),
            parts,
            doors: Mutex::default(),
            answers: Answers::default(),
            cores: Semaphore::new(cores),
            tasks: TaskTracker::new(),
        })
    }

    /// The bounds in force.
    pub fn limits(&self) -> &Limits {
        &self.parts.limits
    }

    /// The time by the server's clock, microseconds.
    pub fn now_us(&self) -> i64 {
        self.parts.clock.now_us()
    }

    /// Whether requests to a stream have a chance: asked before a body is read. Nobody else is told of a stream's log
    /// that does not answer than those who write to it.
    ///
    /// # Errors
    /// `storage_unavailable`: what is being written has not ended for long. Nothing of the request was written.
    pub fn check_progress(&self, stream: &str) -> Result<(), Problem> {
        match self.door(stream) {
            Ok(door) => door.check_progress(),
            // told once its body is read, as everything that is wrong with a request
            Err(_) => Ok(()),
        }
    }

    /// An empty reservation: whoever reads a body holds what he has read.
    pub fn reserve(&self) -> Reservation {
        Reservation::new(&self.in_flight)
    }

    /// Takes a request that is in memory already.
    ///
    /// # Errors
    /// `not_found`, `bad_request`, `payload_too_large`, `bad_records` (strict), `overloaded`,
    /// `storage_unavailable`, `stale` (`wait_visible` took too long: the events are durable).
    pub async fn ingest(
        self: &Arc<Self>,
        stream: &str,
        payload: Payload,
        options: IngestOptions,
    ) -> Result<IngestAnswer, Problem> {
        self.check_progress(stream)?;
        let mut reservation = self.reserve();
        reservation.hold(payload.bytes.len())?;
        self.ingest_reserved(stream, payload, options, reservation).await
    }

    /// [`IngestService::ingest`] of a payload that `reservation` holds.
    ///
    /// # Errors
    /// As there.
    pub async fn ingest_reserved(
        self: &Arc<Self>,
        stream: &str,
        payload: Payload,
        options: IngestOptions,
        reservation: Reservation,
    ) -> Result<IngestAnswer, Problem> {
        let door = self.writable_door(stream)?;
        let patience = self.patience(&options);
        let service = Arc::clone(self);
        let work = self.tasks.spawn(async move {
            let Some(key) = options.idempotency_key.clone() else {
                return service.carry_out(&door, payload, &options, reservation).await;
            };
            let fingerprint = xxh3_128(&payload.bytes);
            let work = || service.carry_out(&door, payload, &options, reservation);
            service.answers.once(door.stream.id, &key, fingerprint, work).await
        });
        let Ok(ended) = tokio::time::timeout(patience, work).await else { return Err(unknown_outcome(stream)) };
        ended.unwrap_or_else(|error| {
            tracing::error!(%error, stream, "an ingest request panicked");
            Err(Problem::new(Code::Internal, "ingest: the request failed; it may be sent again"))
        })
    }

    /// How long a request waits for its end. Its work goes on after that, and holds its memory.
    fn patience(&self, options: &IngestOptions) -> Duration {
        let visible = if options.wait_visible { VISIBLE_TIMEOUT } else { Duration::ZERO };
        Duration::from_millis(self.parts.limits.ingest_timeout_ms).saturating_add(visible)
    }

    /// Forgets what is in memory of a dropped stream.
    pub fn forget(&self, stream: Uuid) {
        self.doors.lock().remove(&stream);
    }

    /// Waits until every request that was begun has ended.
    pub async fn close(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        let doors: Vec<Arc<Door>> = self.doors.lock().values().cloned().collect();
        for door in doors {
            door.admission.close().await;
        }
    }

    /// The record that stands for an identity, if it is within the horizon of duplicates: its position.
    ///
    /// # Errors
    /// `not_found`; the log failed.
    pub async fn find(&self, stream: &str, identity: Identity) -> Result<Option<(Partition, Offset)>, Problem> {
        let door = self.door(stream)?;
        let partition = partition(identity, door.stream.partitions);
        let found = door.admission.find(partition, identity).await.map_err(|error| error.problem())?;
        Ok(found.map(|offset| (partition, offset)))
    }

    /// Dead letters from an offset on, in order, with the time of their replay where there was one.
    ///
    /// # Errors
    /// `not_found`; the log failed.
    pub async fn dead_letters(
        &self,
        stream: &str,
        from: Offset,
        letters_max: usize,
    ) -> Result<Vec<(Letter, Option<i64>)>, Problem> {
        let door = self.door(stream)?;
        let letters = door.dead_letters.read(from, letters_max).await.map_err(|error| error.problem())?;
        let replayed = door.receipts.replayed().await.map_err(|error| error.problem())?;
        Ok(letters.into_iter().map(|letter| (replayed.get(&letter.offset).copied(), letter)).map(swap).collect())
    }

    /// Visits the newest dead letters, at most [`DEAD_LETTERS_AT_ONCE`] of them, in order; a page of them is in memory.
    ///
    /// # Errors
    /// `not_found`; the log failed.
    pub async fn visit_newest_dead_letters(
        &self,
        stream: &str,
        mut visit: impl FnMut(&Letter, Option<i64>) + Send,
    ) -> Result<(), Problem> {
        let kept = self.door(stream)?.dead_letters.kept();
        let mut from = kept.start.max(kept.end.saturating_sub(DEAD_LETTERS_AT_ONCE as u64));
        while from < kept.end {
            let page = self.dead_letters(stream, from, LETTERS_OF_A_PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            from = last.offset + 1;
            for (letter, replayed_us) in &page {
                visit(letter, *replayed_us);
            }
        }
        Ok(())
    }

    /// The ledger of a stream's intake; `landed` is the end of its master.
    ///
    /// # Errors
    /// `not_found`; the log failed.
    pub async fn intake(&self, stream: &str, landed: &Cut) -> Result<Vec<IntakeBucket>, Problem> {
        let door = self.door(stream)?;
        if door.stream.transport.source.is_some() {
            // the connector writes them
            return door.receipts.reread().intake(landed).await.map_err(|error| error.problem());
        }
        door.receipts.intake(landed).await.map_err(|error| error.problem())
    }

    /// Dead letters of a stream that were replayed, by offset, with the time.
    ///
    /// # Errors
    /// `not_found`; the log failed.
    pub async fn replayed(&self, stream: &str) -> Result<BTreeMap<Offset, i64>, Problem> {
        let door = self.door(stream)?;
        door.receipts.replayed().await.map_err(|error| error.problem())
    }

    async fn carry_out(
        &self,
        door: &Door,
        payload: Payload,
        options: &IngestOptions,
        mut reservation: Reservation,
    ) -> Result<IngestAnswer, Problem> {
        if !options.check {
            door.backlog.check(&door.stream)?;
        }
        reservation.hold(payload.bytes.len())?;
        let (decoded, _reservation) = {
            let _core = self.cores.acquire().await.map_err(|_| Problem::new(Code::Cancelled, "ingest: is stopping"))?;
            door.prepare(payload, options, reservation).await?
        };
        if options.check {
            return Ok(door.check(decoded));
        }
        let (answer, cut) = door.write(decoded).await?;
        if options.wait_visible {
            let Some(snapshots) = &self.parts.snapshots else {
                return Err(Problem::new(Code::Unsupported, "wait=visible: this server computes no views"));
            };
            snapshots.snapshot(door.stream.id, Some(&cut), VISIBLE_TIMEOUT).await?;
        }
        Ok(answer)
    }

    /// The door of a stream whose events come through it.
    fn writable_door(&self, name: &str) -> Result<Arc<Door>, Problem> {
        let door = self.door(name)?;
        if let Some(source) = &door.stream.transport.source {
            let detail = format!("stream {name}: is read from the Kafka topic {}", source.topic);
            return Err(Problem::new(Code::Unsupported, detail).with_hint("produce to the topic"));
        }
        Ok(door)
    }

    fn door(&self, name: &str) -> Result<Arc<Door>, Problem> {
        let Some(stream) = self.parts.streams.stream(name) else {
            return Err(unknown_stream(name, &self.parts.streams.names()));
        };
        let mut doors = self.doors.lock();
        if let Some(door) = doors.get(&stream.id) {
            return Ok(Arc::clone(door));
        }
        let door = Arc::new(Door::open(stream, &self.parts)?);
        doors.insert(door.stream.id, Arc::clone(&door));
        Ok(door)
    }
}

/// The request has not ended in time, and may yet end either way.
fn unknown_outcome(stream: &str) -> Problem {
    let detail =
        format!("stream {stream}: the log has not answered in time; whether the events are in it is not known");
    Problem::new(Code::StorageUnavailable, detail)
        .with_hint("send them again: an event with an id that is in the log already is not counted twice")
        .with_retry_after(LOG_STALLED_MS / 1_000)
}

fn swap<A, B>((a, b): (A, B)) -> (B, A) {
    (b, a)
}

fn unknown_stream(name: &str, names: &[String]) -> Problem {
    let problem = Problem::new(Code::NotFound, format!("stream {name}: not found"));
    match did_you_mean(name, names.iter().map(String::as_str)) {
        Some(similar) => problem.with_hint(format!("did you mean {similar}?")),
        None => problem,
    }
}
