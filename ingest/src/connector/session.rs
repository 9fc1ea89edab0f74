//! One session: from a look at the topic until something about it changes or fails.

use std::sync::Arc;
use std::time::Duration;

use schemas::documents::source::Epoch;
use schemas::{Code, Offset, Problem};
use storage::kafka::{ReadLimits, TopicError, TopicFacts, TopicReader, describe};

use super::Connector;
use super::ahead;
use super::book::Book;
use super::intake::decode_all;
use super::places::{self, Places};
use super::way::Reading;

/// What one fetch takes; a few of them are in memory.
const READ: ReadLimits = ReadLimits { records_max: 32_768, bytes_max: 16 << 20, wait: Duration::from_millis(250) };
/// Between two looks at a backlog that is too large.
const BACKLOG_PAUSE: Duration = Duration::from_millis(200);

impl Connector {
    /// Reads until the topic has changed: the next session goes on with what it is then.
    pub(super) async fn session(&self) -> Result<(), Problem> {
        let facts = describe(&self.parts.kafka, &self.topic).await.map_err(|error| error.problem())?;
        if facts.partitions > self.parts.log.partitions() {
            self.grow(facts.partitions).await?;
        }
        let epoch = self.epoch_of(&facts).await?;
        let mut places = self.places(&epoch, facts.partitions).await?;
        // nothing is on its way between two sessions
        self.receipts.count_letters().await.map_err(|error| error.problem())?;
        let reader = self.reader(&facts, &mut places).await?;
        self.note_progress(&places.next);
        self.read(reader, &epoch, &places, &facts).await
    }

    async fn read(
        &self,
        reader: TopicReader,
        epoch: &Epoch,
        places: &Places,
        facts: &TopicFacts,
    ) -> Result<(), Problem> {
        let (stream, limits, number) = (Arc::clone(&self.parts.stream), self.parts.limits.clone(), epoch.number);
        let series = self.admission.begin_series().await.map_err(|error| error.problem())?;
        let lookup = self.parts.lookup.clone();
        let steps = ahead::read(reader, READ, move |records| decode_all((&stream, &lookup), &limits, number, records));
        self.let_in(steps, &Reading { epoch, places, facts, series }).await
    }

    /// Lets nothing in while the layers behind the log do not keep up: what was read ahead waits, and the topic keeps the
    /// rest.
    pub(super) async fn wait_for_backlog(&self) {
        while let Err(problem) = self.backlog.check(&self.parts.stream) {
            self.note_problem(&problem);
            tokio::time::sleep(BACKLOG_PAUSE).await;
        }
    }

    /// The incarnation that the topic is in: begins a new one where it is another topic than before.
    async fn epoch_of(&self, facts: &TopicFacts) -> Result<Epoch, Problem> {
        let mut book = self.book.lock().await;
        let is_known = book.epoch().is_some_and(|epoch| epoch.topic_id == facts.id);
        if !is_known {
            let letters_from = self.parts.dead_letters.head().offset(0);
            let (starts, lost) = match book.epoch().cloned() {
                None => (self.starts(facts).await?, vec![]),
                Some(old) => (vec![0; facts.partitions as usize], self.lost(&book, &old).await?),
            };
            let now_us = self.parts.clock.now_us();
            tracing::info!(stream = %self.parts.stream.name, topic = self.topic, id = %facts.id, "reading a topic");
            book.begin(facts.id, starts, letters_from, lost, now_us).await.map_err(|error| error.problem())?;
        }
        let mut status = self.status.lock();
        status.topic_id = Some(facts.id);
        status.holes = book.holes().to_vec();
        book.epoch().cloned().ok_or_else(|| Problem::new(Code::Internal, "a topic without an incarnation"))
    }

    /// Where the topic begins when it is looked at first: what it had given up before is not missed.
    async fn starts(&self, facts: &TopicFacts) -> Result<Vec<Offset>, Problem> {
        let next = vec![0; facts.partitions as usize];
        let reader = self.open_reader(facts, next).await?;
        let partitions = facts.partitions;
        let starts = blocking(move || (0..partitions).map(|p| Ok(reader.bounds(p)?.start)).collect::<Result<_, _>>());
        starts.await?.map_err(|error: TopicError| error.problem())
    }

    /// What was not read of an incarnation that is gone: partition, from where, and to where if that is known.
    async fn lost(&self, book: &Book, old: &Epoch) -> Result<Vec<(u32, Offset, Option<Offset>)>, Problem> {
        let partitions = self.parts.log.partitions().max(old.starts.len() as u32);
        let places = self.places(old, partitions).await?;
        let was_read_to_its_end = |partition: u32| book.was_at_end(old.number, partition);
        let unread = (0..partitions).zip(places.next).filter(|(partition, _)| !was_read_to_its_end(*partition));
        // partitions that it never had are not missing
        let had = old.starts.len().max(book.partitions_seen(old.number)) as u32;
        Ok(unread.filter(|(partition, _)| *partition < had).map(|(partition, from)| (partition, from, None)).collect())
    }

    async fn places(&self, epoch: &Epoch, partitions: u32) -> Result<Places, Problem> {
        let parts = &self.parts;
        let position = parts.sources.position().await.map_err(|error| error.problem())?;
        places::recover(&*parts.log, &*parts.dead_letters, epoch, position, partitions)
            .await
            .map_err(|error| error.problem())
    }

    /// A reader at these places, once what is gone below them is on record.
    async fn reader(&self, facts: &TopicFacts, places: &mut Places) -> Result<TopicReader, Problem> {
        let reader = self.open_reader(facts, places.next.clone()).await?;
        let partitions = facts.partitions;
        let bounds = blocking(move || (0..partitions).map(|p| reader.bounds(p)).collect::<Result<Vec<_>, _>>());
        let bounds = bounds.await?.map_err(|error| error.problem())?;
        let mut book = self.book.lock().await;
        for ((partition, next), bounds) in (0..).zip(&mut places.next).zip(bounds) {
            if *next > bounds.end {
                let detail = format!(
                    "topic {}: partition {partition} ends at {}, and was read up to {next}: the broker has lost records",
                    self.topic, bounds.end
                );
                return Err(Problem::new(Code::StorageUnavailable, detail));
            }
            if *next < bounds.start {
                let lost = *next..bounds.start;
                tracing::error!(topic = self.topic, partition, ?lost, "records were given up before they were read");
                book.lose(partition, lost, self.parts.clock.now_us()).await.map_err(|error| error.problem())?;
                *next = bounds.start;
            }
        }
        self.status.lock().holes = book.holes().to_vec();
        drop(book);
        self.open_reader(facts, places.next.clone()).await
    }

    async fn open_reader(&self, facts: &TopicFacts, next: Vec<Offset>) -> Result<TopicReader, Problem> {
        let (kafka, topic, id) = (self.parts.kafka.clone(), self.topic.clone(), facts.id);
        blocking(move || TopicReader::open(&kafka, &topic, id, next)).await?.map_err(|error| error.problem())
    }

    async fn grow(&self, partitions: u32) -> Result<(), Problem> {
        self.parts.grow.grow(self.parts.stream.id, partitions).await?;
        // nothing is on its way between two sessions
        self.admission.forget();
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let stopped = |error| Problem::new(Code::Internal, format!("reading a topic stopped: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(stopped)
}
