//! Answers to requests with an `Idempotency-Key`, for clients that ask again.
//!
//! In memory and bounded: it spares a repeated request its work and gives it the same answer. What
//! keeps an event from being counted twice over a restart is its identity (the primary key).

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use schemas::freshness::IngestAnswer;
use schemas::limits::{NAME_BYTES_MAX, REMEMBERED_ANSWERS_BYTES};
use schemas::{Code, Problem};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// Answers that are remembered, over all streams.
const ANSWERS_MAX: usize = 10_000;
/// Bytes of a key.
const KEY_BYTES_MAX: usize = 255;

type Key = (Uuid, String);

#[derive(Debug, Default)]
struct Answer {
    /// Of the body as it was sent.
    fingerprint: u128,
    cell: OnceCell<IngestAnswer>,
}

#[derive(Debug, Default)]
struct Known {
    answers: BTreeMap<Key, Arc<Answer>>,
    /// The oldest first.
    order: VecDeque<Key>,
    /// Of the answers that are there.
    bytes: usize,
}

impl Known {
    fn forget_oldest(&mut self) {
        let Some(oldest) = self.order.pop_front() else { return };
        if let Some(answer) = self.answers.remove(&oldest) {
            self.bytes -= answer.cell.get().map_or(0, bytes_of);
        }
    }
}

/// About the memory that an answer takes.
fn bytes_of(answer: &IngestAnswer) -> usize {
    let errors = answer.errors.iter().map(|e| size_of_val(e) + e.code.len() + e.message.len() + NAME_BYTES_MAX);
    size_of_val(answer) + answer.position.len() + errors.sum::<usize>()
}

#[derive(Debug, Default)]
pub(crate) struct Answers(Mutex<Known>);

impl Answers {
    /// The answer to an earlier request with this key, or the one that `work` gives. A second
    /// request waits for the first; only successes are remembered.
    pub(crate) async fn once<F>(
        &self,
        stream: Uuid,
        key: &str,
        fingerprint: u128,
        work: impl FnOnce() -> F,
    ) -> Result<IngestAnswer, Problem>
    where
        F: Future<Output = Result<IngestAnswer, Problem>>,
    {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(Problem::new(Code::BadRequest, format!("Idempotency-Key: not 1 to {KEY_BYTES_MAX} bytes")));
        }
        let key_of = (stream, key.to_owned());
        let answer = self.answer(key_of.clone(), fingerprint);
        if answer.fingerprint != fingerprint {
            let detail = format!("Idempotency-Key {key:?}: was used with another body");
            return Err(Problem::new(Code::BadRequest, detail));
        }
        let mut is_new = false;
        let work = || {
            is_new = true;
            work()
        };
        let given = answer.cell.get_or_try_init(work).await?.clone();
        if is_new {
            self.count(&key_of, &answer, &given);
        }
        Ok(given)
    }

    /// An answer is there: older ones go until all of them have room.
    fn count(&self, key: &Key, answer: &Arc<Answer>, given: &IngestAnswer) {
        let mut known = self.0.lock();
        // it may have been forgotten while it was on its way
        if !known.answers.get(key).is_some_and(|kept| Arc::ptr_eq(kept, answer)) {
            return;
        }
        known.bytes += bytes_of(given);
        while known.bytes > REMEMBERED_ANSWERS_BYTES && known.order.len() > 1 {
            known.forget_oldest();
        }
    }

    fn answer(&self, key: Key, fingerprint: u128) -> Arc<Answer> {
        let mut known = self.0.lock();
        if let Some(answer) = known.answers.get(&key) {
            return Arc::clone(answer);
        }
        if known.order.len() >= ANSWERS_MAX {
            known.forget_oldest();
        }
        let answer = Arc::new(Answer { fingerprint, cell: OnceCell::new() });
        known.order.push_back(key.clone());
        known.answers.insert(key, Arc::clone(&answer));
        answer
    }
}
