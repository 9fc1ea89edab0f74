//! The commit thread: takes all that is queued and writes it as one transaction.
//!
//! Where the outcome of a transaction is not known (the broker went away), a new producer under the same
//! transactional id ends it one way or the other, and the ends of the partitions say which. Until then nothing is
//! acknowledged, and nothing else is written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use schemas::{Cut, Partition};

use super::Shared;
use super::cut_off::Watch;
use super::read::Reader;
use super::topic::{FRAME_BYTES_MAX, Topic};
use crate::error::StorageError;
use crate::log::embedded::commit::{frames_of, seal};
use crate::log::embedded::frame::{EncodedFrame, next_group};
use crate::log::embedded::queue::{Queue, Request};
use crate::log::{Frame, Placed};

type Writer = ThreadedProducer<Watch>;

/// How long the broker may take to end a transaction before it is looked into.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(20);
/// How often it is asked meanwhile whether there is a broker at all: while there is none, nothing is waited for.
const COMMIT_LOOK: Duration = Duration::from_millis(500);
/// How long a new producer may take to begin, while the end of a transaction is looked for: a broker that comes back
/// answers the next one. Each one gets twice as long, up to the maximum: a broker that is slow answers in the end.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(5);
const BEGIN_TIMEOUT_MAX: Duration = Duration::from_secs(40);
/// A producer's queue is full: it is asked again after so long.
const SEND_PAUSE: Duration = Duration::from_millis(1);
/// Between attempts to reach a broker that has gone.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How long a log that is being closed waits for a broker that has gone.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// A producer that alone may write: it ends what an earlier one with the same id has begun.
pub(super) fn open_producer(topic: &Topic) -> Result<Writer, StorageError> {
    begin_producer(topic, COMMIT_TIMEOUT)
}

fn begin_producer(topic: &Topic, patience: Duration) -> Result<Writer, StorageError> {
    let failed = |cause: KafkaError| StorageError::io(format!("opening the log {} for writing", topic.name), cause);
    let mut config = topic.cluster.client();
    config.set("transactional.id", &topic.name).set("enable.idempotence", "true").set("acks", "all");
    config.set("transaction.timeout.ms", "15000").set("message.max.bytes", FRAME_BYTES_MAX).set("linger.ms", "0");
    config.set("compression.type", "lz4");
    let producer = Writer::from_config_and_context(&config, Watch::default()).map_err(failed)?;
    producer.init_transactions(patience).map_err(failed)?;
    Ok(producer)
}

/// How a group of appends has ended.
enum Outcome {
    Committed,
    /// Nothing of it is there.
    Lost(String),
    /// What is there is not known, or not ours: the log takes nothing any more.
    Final(String),
}

/// The ends of the partitions as they are in the topic.
struct Found {
    end: Cut,
    /// Checksum of the last frame of each partition that has one.
    crcs: BTreeMap<Partition, u32>,
}

/// The ends of the partitions if a group is there.
struct Wanted {
    end: Cut,
    /// Checksum of the last frame of each partition that the group is in.
    crcs: BTreeMap<Partition, u32>,
}

impl Wanted {
    fn of(requests: &[Request], head: &Cut, end: Cut) -> Self {
        let written =
            frames_of(requests).filter(|frame| end.offset(frame.partition()) > head.offset(frame.partition()));
        let crcs = written.map(|frame| (frame.partition(), frame.crc())).collect();
        Self { end, crcs }
    }

    /// Another writer's frames may end where ours would: the checksums tell them apart.
    fn is_in(&self, found: &Found) -> bool {
        found.end == self.end && self.crcs.iter().all(|(partition, crc)| found.crcs.get(partition) == Some(crc))
    }
}

pub(super) struct Committer {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    producer: Writer,
    group: u32,
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, queue: Arc<Queue>, producer: Writer) -> Self {
        Self { shared, queue, producer, group: 0 }
    }

    /// Commits until the queue is closed and empty, or the log has failed for good.
    pub(super) fn run(mut self) {
        let _guard = FailOnPanic(Arc::clone(&self.queue));
        while let Some(requests) = self.queue.take() {
            let bytes = requests.iter().flat_map(|request| &request.frames).map(EncodedFrame::bytes).sum();
            if let Err(reason) = self.commit(requests) {
                tracing::error!(topic = self.shared.topic.name, reason, "the log takes nothing any more");
                self.queue.fail(&reason);
                return;
            }
            self.queue.release(bytes);
        }
    }

    /// Commits one group. An error is the end of the log; a group that merely failed is none.
    fn commit(&mut self, mut requests: Vec<Request>) -> Result<(), String> {
        let began = Instant::now();
        let head = self.shared.head.borrow().clone();
        let mut next = head.clone();
        let placed = seal(&mut requests, &mut next, self.group);
        let wanted = Wanted::of(&requests, &head, next.clone());
        let outcome = if next == head { Outcome::Committed } else { self.write(&requests, &head, &wanted) };
        match outcome {
            Outcome::Committed => {
                self.group = next_group(self.group);
                metrics::histogram!("bifold_log_commit_seconds").record(began.elapsed().as_secs_f64());
                metrics::counter!("bifold_log_commits_total").increment(1);
                self.publish(requests, placed, next);
                Ok(())
            }
            Outcome::Lost(reason) => {
                self.refuse(requests, &reason);
                Ok(())
            }
            Outcome::Final(reason) => {
                self.refuse(requests, &reason);
                Err(reason)
            }
        }
    }

    fn write(&mut self, requests: &[Request], head: &Cut, wanted: &Wanted) -> Outcome {
        let written = self.transaction(requests);
        let Err(cause) = written else {
            // an acknowledgement from another topic of the same name is worth nothing
            return match self.shared.topic.check(self.producer.client()) {
                Ok(()) => Outcome::Committed,
                Err(StorageError::Damaged { reason, .. }) => Outcome::Final(reason),
                Err(error) => self.look_into(&error.to_string(), head, wanted),
            };
        };
        tracing::warn!(topic = self.shared.topic.name, error = %cause, "a transaction of the log has failed");
        self.look_into(&cause.to_string(), head, wanted)
    }

    fn transaction(&self, requests: &[Request]) -> Result<(), KafkaError> {
        self.queue.note("sends a transaction");
        self.producer.begin_transaction()?;
        let mut value = vec![];
        for frame in frames_of(requests) {
            value.clear();
            frame.parts().for_each(|part| value.extend_from_slice(part));
            metrics::counter!("bifold_log_bytes_total").increment(value.len() as u64);
            let partition = frame.partition() as i32;
            let mut record = BaseRecord::<(), [u8]>::to(&self.shared.topic.name).partition(partition).payload(&value);
            while let Err((error, again)) = self.producer.send(record) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(error);
                }
                record = again;
                std::thread::sleep(SEND_PAUSE);
            }
        }
        self.end_transaction()
    }

    /// Waits for the end of the transaction as long as there is a broker that may tell it. An error leaves its end open:
    /// [`Committer::look_into`] finds it.
    fn end_transaction(&self) -> Result<(), KafkaError> {
        self.queue.note("waits for the end of a transaction");
        let began = Instant::now();
        loop {
            let ended = self.producer.commit_transaction(COMMIT_LOOK);
            match &ended {
                Ok(()) => self.producer.context().note_answer(),
                Err(error) if !goes_on(error) || began.elapsed() >= COMMIT_TIMEOUT => {}
                Err(_) if self.producer.context().is_cut_off() => {}
                Err(_) => continue,
            }
            return ended;
        }
    }

    /// Finds out how a transaction has ended, as soon as a broker answers.
    fn look_into(&mut self, cause: &str, head: &Cut, wanted: &Wanted) -> Outcome {
        let mut closing_since: Option<Instant> = None;
        let mut patience = BEGIN_TIMEOUT;
        loop {
            match self.begin_anew(patience) {
                Ok(found) if wanted.is_in(&found) => return Outcome::Committed,
                Ok(found) if found.end == *head => return Outcome::Lost(cause.to_owned()),
                Ok(found) => {
                    return Outcome::Final(format!("another process writes to it: it ends at {}", found.end));
                }
                Err(StorageError::Damaged { reason, .. }) => return Outcome::Final(reason),
                Err(error) => tracing::warn!(topic = self.shared.topic.name, %error, "the log waits for its broker"),
            }
            if self.queue.is_closed() {
                let since = *closing_since.get_or_insert_with(Instant::now);
                if since.elapsed() > CLOSE_PATIENCE {
                    return Outcome::Final(format!("{cause}; no broker answers while the log is being closed"));
                }
            }
            patience = (patience * 2).min(BEGIN_TIMEOUT_MAX);
            std::thread::sleep(RETRY_PAUSE);
        }
    }

    /// A new producer, and where the partitions end now that nothing is under way.
    fn begin_anew(&mut self, patience: Duration) -> Result<Found, StorageError> {
        let shared = &self.shared;
        self.queue.note("starts a new producer");
        let producer = begin_producer(&shared.topic, patience)?;
        self.queue.note("looks at its topic");
        shared.topic.check(producer.client())?;
        self.queue.note("reads where its partitions end");
        let mut reader = Reader::open(&shared.topic)?;
        let mut found = Found { end: Cut::zero(shared.partitions), crcs: BTreeMap::new() };
        for partition in 0..shared.partitions {
            let kept = reader.kept(partition)?;
            found.end.set(partition, kept.range.end);
            found.crcs.extend(kept.last_crc.map(|crc| (partition, crc)));
        }
        self.queue.note("gives its old producer up");
        self.producer = producer;
        Ok(found)
    }

    /// The epoch ends first: who was told finds the next one. What is queued behind was decided on top of this.
    fn refuse(&self, requests: Vec<Request>, reason: &str) {
        let behind = self.queue.end_epoch();
        for request in requests.into_iter().chain(behind) {
            // nobody waits any more: nobody needs to know
            let _ = request.done.send(Err(StorageError::io("writing to the log", reason)));
        }
    }

    /// Readers first, then the waiters: who was told finds his rows.
    fn publish(&self, requests: Vec<Request>, placed: Vec<Vec<Placed>>, head: Cut) {
        let mut waiters = vec![];
        let mut tail = self.shared.tail.write();
        for (request, places) in requests.into_iter().zip(placed) {
            for (frame, (partition, range)) in request.frames.into_iter().zip(&places) {
                if !range.is_empty() {
                    let bytes = frame.bytes();
                    tail.push(Frame { partition: *partition, base: range.start, rows: frame.rows }, bytes);
                }
            }
            waiters.push((request.done, places));
        }
        drop(tail);
        self.shared.head.send_replace(head);
        for (done, places) in waiters {
            // nobody waits any more: the rows are there all the same
            let _ = done.send(Ok(places));
        }
    }
}

/// True if the end of the transaction has not come yet, and may be waited for again.
fn goes_on(error: &KafkaError) -> bool {
    match error {
        KafkaError::Flush(code) => *code == RDKafkaErrorCode::OperationTimedOut,
        KafkaError::Transaction(cause) => cause.is_retriable(),
        _ => false,
    }
}

/// Lets nobody wait for a thread that is gone.
struct FailOnPanic(Arc<Queue>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("its commit thread panicked");
        }
    }
}
