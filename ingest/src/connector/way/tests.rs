use std::sync::Arc;

use async_trait::async_trait;
use schemas::{Limits, RecordFormat, StreamDef, TopicSource, Transport};
use storage::clock::ManualClock;
use storage::kafka::{KafkaConfig, TopicRecords};
use storage::log::memory::Disk;
use storage::log::{Log, MemoryLog};
use storage::source::SourceStore;
use storage::store::Store;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::*;
use crate::connector::intake::decode_all;
use crate::connector::{ConnectorParts, Grow, places};
use crate::frozen::Lookup;
use crate::testing::{Content, HOUR_US, log, stream};

struct NoGrowth;

#[async_trait]
impl Grow for NoGrowth {
    async fn grow(&self, _: Uuid, _: u32) -> Result<(), Problem> {
        Err(Problem::new(Code::Internal, "nobody adds partitions"))
    }
}

/// A topic of one partition without the topic: its fetches are made by hand.
struct World {
    stream: Arc<StreamDef>,
    log: Arc<MemoryLog>,
    letters: Arc<MemoryLog>,
    receipts: Arc<MemoryLog>,
    sources: SourceStore,
    epoch: Epoch,
    facts: TopicFacts,
    connector: Arc<Connector>,
}

/// The stream looks nothing up.
fn no_table() -> Lookup {
    Lookup::new(|stream| Err(Problem::new(Code::Internal, stream.name.clone())))
}

impl World {
    async fn new() -> Self {
        let source = Some(TopicSource { topic: "t".into(), format: RecordFormat::Json });
        let transport = Transport { source, ..Transport::default() };
        let stream = Arc::new(StreamDef { primary_key: vec![], transport, ..stream("s", 1) });
        let memory = |id| MemoryLog::new(Uuid::from_u128(id), 1);
        let (log, letters, receipts) = (log(1), memory(3), memory(4));
        let sources = SourceStore::new(Store::in_memory(), stream.id);
        let connector = Connector::open(ConnectorParts {
            stream: Arc::clone(&stream),
            log: Arc::clone(&log) as _,
            dead_letters: Arc::clone(&letters) as _,
            receipts: Arc::clone(&receipts) as _,
            sources: sources.clone(),
            kafka: KafkaConfig::default(),
            grow: Arc::new(NoGrowth),
            clock: Arc::new(ManualClock::at(HOUR_US)),
            limits: Limits::default(),
            backlogs: None,
            ids_folder: None,
            lookup: no_table(),
        });
        let topic_id = Uuid::from_u128(7);
        Self {
            epoch: Epoch { number: 0, topic_id, starts: vec![0], letters_from: 0, began_at_us: 0 },
            facts: TopicFacts { id: topic_id, partitions: 1 },
            connector: connector.await.unwrap(),
            stream,
            log,
            letters,
            receipts,
            sources,
        }
    }

    async fn places(&self) -> Places {
        let position = self.sources.position().await.unwrap();
        places::recover(&*self.log, &*self.letters, &self.epoch, position, 1).await.unwrap()
    }

    /// A session that lets in what is sent to it.
    async fn session(&self) -> Session {
        let (steps, to_let_in) = mpsc::channel(16);
        let (connector, epoch, facts, places) =
            (Arc::clone(&self.connector), self.epoch.clone(), self.facts.clone(), self.places().await);
        let ended = tokio::spawn(async move {
            let series = connector.admission.begin_series().await.unwrap();
            connector.let_in(to_let_in, &Reading { epoch: &epoch, places: &places, facts: &facts, series }).await
        });
        Session { stream: Arc::clone(&self.stream), steps, ended }
    }

    /// What a look at the documents says: where to go on, and from which dead letter on there may be unknown ones.
    async fn noted(&self) -> Option<(Vec<Offset>, Offset)> {
        self.sources.position().await.unwrap().map(|position| (position.next, position.letters))
    }
}

/// A session, and the way to it.
struct Session {
    stream: Arc<StreamDef>,
    steps: mpsc::Sender<Step<Found>>,
    ended: JoinHandle<Result<(), Problem>>,
}

impl Session {
    /// A fetch of these records; then everything there is to do is done.
    async fn fetch(&self, from: Offset, values: &[&str]) {
        let mut records = TopicRecords::default();
        for (offset, value) in (from..).zip(values) {
            let start = records.payload.len();
            records.payload.extend_from_slice(value.as_bytes());
            records.values.push(start..records.payload.len());
            records.offsets.push(offset);
        }
        let found = decode_all((&self.stream, &no_table()), &Limits::default(), 0, vec![records]).map(Found::Records);
        let next = vec![from + values.len() as u64];
        self.steps.send(Step { found, next, at_end: vec![true], lag: Some(Lag(Some(0))) }).await.unwrap();
        settle().await;
    }

    /// Why it has ended, once there is nothing more to let in.
    async fn end(self) -> String {
        drop(self.steps);
        self.ended.await.unwrap().unwrap_err().detail
    }
}

const A: &str = r#"{"id":"a","event_time":1}"#;
const B: &str = r#"{"id":"b","event_time":1}"#;
const C: &str = r#"{"id":"c","event_time":1}"#;

async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn fetches_are_on_their_way_together_and_noted_in_order() {
    let world = World::new().await;
    world.log.set(Disk::Held);
    let session = world.session().await;
    for (offset, value) in (0..).zip([A, B, C]) {
        session.fetch(offset, &[value]).await;
    }
    assert_eq!(world.log.queued(), ON_THE_WAY_MAX, "no more of them are in memory");
    assert_eq!(world.noted().await, None);
    for next in 1..=3 {
        world.log.flush_first(1, true);
        settle().await;
        assert_eq!(world.noted().await, Some((vec![next], 0)));
    }
    assert_eq!(world.log.texts("id"), ["a", "b", "c"]);
    assert!(session.end().await.contains("stopped"));
}

/// H6: what came behind a fetch that is not in the log would hide that it is missing.
#[tokio::test]
async fn nothing_is_let_in_behind_a_failure() {
    let world = World::new().await;
    world.log.set(Disk::Held);
    let session = world.session().await;
    session.fetch(0, &[A]).await;
    world.log.flush_first(1, true);
    session.fetch(1, &[B]).await;
    world.letters.set(Disk::Held);
    session.fetch(2, &["{", C]).await;
    // meanwhile the one before fails; the disk works again when this one's turn comes
    world.log.set(Disk::Quick);
    world.log.flush_first(1, false);
    world.letters.flush(true);
    world.letters.set(Disk::Quick);
    let why = session.end().await;
    assert!(why.contains("fsync"), "the first failure is the reason: {why}");
    assert_eq!(world.log.texts("id"), ["a"]);
    assert_eq!(world.noted().await, Some((vec![1], 0)));
    assert_eq!(world.places().await, Places { next: vec![1], letters_below: vec![3] });
    let session = world.session().await;
    session.fetch(1, &[B, "{", C]).await;
    session.end().await;
    assert_eq!((world.log.texts("id"), world.letters.head().offset(0)), (["a", "b", "c"].map(String::from).into(), 1));
    assert_eq!(world.noted().await, Some((vec![4], 1)));
}

/// A fetch whose records are in the log and whose receipt is not is read again, for the sake of the ledger.
#[tokio::test]
async fn nothing_is_noted_behind_a_fetch_without_its_receipt() {
    let world = World::new().await;
    world.receipts.set(Disk::Held);
    let session = world.session().await;
    session.fetch(0, &["{", A]).await;
    session.fetch(2, &[B]).await;
    assert_eq!((world.receipts.queued(), world.log.texts("id")), (1, vec!["a".into(), "b".into()]));
    world.receipts.flush_first(1, false);
    let why = session.end().await;
    assert!(why.contains("fsync"), "{why}");
    assert_eq!(world.noted().await, None);
    world.receipts.set(Disk::Quick);
}

/// A process that ends here reads the second fetch again, and has to find its dead letter.
#[tokio::test]
async fn dead_letters_of_a_fetch_behind_are_not_noted_with_one_before() {
    let world = World::new().await;
    world.log.set(Disk::Held);
    let session = world.session().await;
    session.fetch(0, &[A]).await;
    session.fetch(1, &["{", B]).await;
    assert_eq!((world.letters.head().offset(0), world.log.queued()), (1, 2), "durable before what comes behind it");
    world.log.flush_first(1, true);
    settle().await;
    assert_eq!(world.noted().await, Some((vec![1], 0)));
    assert_eq!(world.places().await, Places { next: vec![1], letters_below: vec![2] });
    world.log.flush(true);
    session.end().await;
    assert_eq!(world.noted().await, Some((vec![3], 1)));
}

#[tokio::test]
async fn full_log_is_waited_for_as_long_as_something_is_on_its_way() {
    let world = World::new().await;
    world.log.set(Disk::Held);
    let session = world.session().await;
    session.fetch(0, &[A]).await;
    world.log.set(Disk::Full);
    session.fetch(1, &[B]).await;
    world.log.set(Disk::Quick);
    world.log.flush(true);
    settle().await;
    assert_eq!(world.log.texts("id"), ["a", "b"]);
    world.log.set(Disk::Full);
    session.fetch(2, &[C]).await;
    assert!(session.end().await.contains("queue"), "nothing will make room");
    assert_eq!(world.noted().await, Some((vec![2], 0)));
}
