//! Letting in: a fetch is decided and queued while those before it are on their way to the disk.
//!
//! ```text
//!  fetch 1  dead letters ─► decide ─► queued ══════► durable ─► receipts ─► noted
//!  fetch 2                            dead letters ─► decide ─► queued ══════► durable ─► receipts ─► noted
//! ```
//!
//! They are decided and queued in the order of the topic, and noted in it: what is noted as let in has all before it in
//! the log. If one fails, all behind it do, also those that are decided afterwards ([`Series`]): the next session reads
//! them again.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use schemas::documents::source::{Epoch, SourcePosition};
use schemas::{Code, Offset, Problem};
use storage::StorageError;
use storage::kafka::{TopicError, TopicFacts, describe};
use tokio::sync::mpsc;

use super::Connector;
use super::ahead::{Found, Lag, Step};
use super::intake::{Intake, Share};
use super::places::Places;
use crate::admission::series::{Series, UnderWay};

/// Fetches that are on their way to the disk at once, beside the one that is decided.
const ON_THE_WAY_MAX: usize = 2;
/// How often the topic is looked at: partitions added, compaction switched on.
const TOPIC_INTERVAL: Duration = Duration::from_secs(5);

/// What a session reads.
pub(super) struct Reading<'a> {
    pub(super) epoch: &'a Epoch,
    pub(super) places: &'a Places,
    pub(super) facts: &'a TopicFacts,
    /// What it lets in.
    pub(super) series: Series,
}

/// Where the topic is after a fetch that is let in.
struct After {
    next: Vec<Offset>,
    at_end: Vec<bool>,
    lag: Option<Lag>,
    /// End of the dead letters, those of fetches behind it not included.
    letters: Offset,
}

/// Fetches on their way to the disk, the oldest first.
type Way<'a> = FuturesOrdered<BoxFuture<'a, Result<After, Problem>>>;

impl Connector {
    /// Lets in what comes until the topic has changed or something fails. Nothing is on its way when it returns.
    pub(super) async fn let_in(
        &self,
        steps: mpsc::Receiver<Step<Found>>,
        reading: &Reading<'_>,
    ) -> Result<(), Problem> {
        let mut way = Way::new();
        let ended = self.let_in_on(&mut way, steps, reading).await;
        let noted = self.note_until(&mut way, 0, reading).await;
        ended.and(noted)
    }

    async fn let_in_on<'a>(
        &'a self,
        way: &mut Way<'a>,
        mut steps: mpsc::Receiver<Step<Found>>,
        reading: &Reading<'_>,
    ) -> Result<(), Problem> {
        let mut looked_at_topic = Instant::now();
        loop {
            tokio::select! {
                biased;
                Some(after) = way.next() => self.note_first(way, after, reading).await?,
                step = steps.recv(), if way.len() < ON_THE_WAY_MAX => {
                    let Some(step) = step else { break };
                    if self.begin(way, step, reading).await? {
                        return Ok(());
                    }
                }
            }
            if looked_at_topic.elapsed() >= TOPIC_INTERVAL {
                let current = describe(&self.parts.kafka, &self.topic).await.map_err(|error| error.problem())?;
                if current != *reading.facts {
                    return Ok(());
                }
                looked_at_topic = Instant::now();
            }
        }
        Err(Problem::new(Code::Internal, format!("reading the topic {} stopped", self.topic)))
    }

    /// Queues what a step has found; true if it is the last one.
    async fn begin<'a>(&'a self, way: &mut Way<'a>, step: Step<Found>, reading: &Reading<'_>) -> Result<bool, Problem> {
        let Step { found, next, at_end, lag } = step;
        match found? {
            Found::Records(intakes) => {
                if self.backlog.check(&self.parts.stream).is_err() {
                    // the wait may be long: what is on its way is not left halfway for so long
                    self.note_until(way, 0, reading).await?;
                }
                self.wait_for_backlog().await;
                self.queue(way, intakes, reading, (next, at_end, lag)).await?;
                Ok(false)
            }
            Found::OutOfRange => Ok(true),
            Found::Replaced(found) => {
                self.note_until(way, 0, reading).await?;
                self.book.lock().await.note_gone(&next);
                let missing =
                    TopicError::Missing { topic: self.topic.clone(), brokers: self.parts.kafka.brokers.clone() };
                if found.is_some() { Ok(true) } else { Err(missing.problem()) }
            }
        }
    }

    async fn queue<'a>(
        &'a self,
        way: &mut Way<'a>,
        intakes: Vec<Intake>,
        reading: &Reading<'_>,
        (next, at_end, lag): (Vec<Offset>, Vec<bool>, Option<Lag>),
    ) -> Result<(), Problem> {
        let share = self.keep_bad(reading.epoch, reading.places, intakes).await?;
        let after = After { next, at_end, lag, letters: share.letters };
        let under_way = loop {
            match self.admission.queue(reading.series, &share.parts).await {
                Ok(under_way) => break under_way,
                Err(error) => self.wait_for_room(way, error, reading).await?,
            }
        };
        way.push_back(Box::pin(self.after(share, under_way, after)));
        Ok(())
    }

    async fn after(&self, share: Share, under_way: UnderWay, after: After) -> Result<After, Problem> {
        self.finish(share, under_way).await.map(|()| after)
    }

    /// What is on its way has to end before there is room for more, or is itself the reason why there is none.
    async fn wait_for_room<'a>(
        &'a self,
        way: &mut Way<'a>,
        refused: StorageError,
        reading: &Reading<'_>,
    ) -> Result<(), Problem> {
        let may_find_room = !way.is_empty() && matches!(refused, StorageError::Full { .. });
        self.note_until(way, 0, reading).await?;
        if may_find_room { Ok(()) } else { Err(refused.problem()) }
    }

    /// Notes what has ended well, in order, until at most so many are left on their way.
    async fn note_until(&self, way: &mut Way<'_>, left: usize, reading: &Reading<'_>) -> Result<(), Problem> {
        while way.len() > left
            && let Some(after) = way.next().await
        {
            self.note_first(way, after, reading).await?;
        }
        Ok(())
    }

    /// Notes a fetch that is no longer on its way. Behind one that failed nothing is noted, whatever becomes of it: what is
    /// noted is not read again, and neither would be what lies before it.
    async fn note_first(
        &self,
        way: &mut Way<'_>,
        after: Result<After, Problem>,
        reading: &Reading<'_>,
    ) -> Result<(), Problem> {
        let noted = match after {
            Ok(after) => self.note(reading, after).await,
            Err(problem) => Err(problem),
        };
        if noted.is_err() {
            // to its end, behind a failure too: dropped halfway, nobody knows what has become of it
            while way.next().await.is_some() {}
        }
        noted
    }

    async fn note(&self, reading: &Reading<'_>, after: After) -> Result<(), Problem> {
        let After { next, at_end, lag, letters } = after;
        self.note_progress(&next);
        if let Some(Lag(lag)) = lag {
            self.status.lock().lag_records = lag;
            self.note_position(reading.epoch, &next, letters).await?;
        }
        self.book.lock().await.note_seen(reading.epoch.number, next, at_end);
        Ok(())
    }

    /// Notes how far the topic is let in, durably. Dead letters from `letters` on may be of records behind that.
    async fn note_position(&self, epoch: &Epoch, next: &[Offset], letters: Offset) -> Result<(), Problem> {
        let log = self.parts.log.head().0;
        let position = SourcePosition { format: 1, epoch: epoch.number, next: next.to_vec(), letters, log };
        let mut book = self.book.lock().await;
        if book.position.as_ref() != Some(&position) {
            self.parts.sources.put_position(&position).await.map_err(|error| error.problem())?;
            book.position = Some(position);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
