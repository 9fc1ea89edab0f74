//! Answers to requests with an `Idempotency-Key`, for clients that ask again.
//!
//! In memory and bounded: it spares a repeated request its work and gives it the same answer. What
//! keeps an event from being counted twice over a restart is its identity (the primary key).

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use schemas::freshness::IngestAnswer;
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
        let answer = self.answer((stream, key.to_owned()), fingerprint);
        if answer.fingerprint != fingerprint {
            let detail = format!("Idempotency-Key {key:?}: was used with another body");
            return Err(Problem::new(Code::BadRequest, detail));
        }
        answer.cell.get_or_try_init(work).await.cloned()
    }

    fn answer(&self, key: Key, fingerprint: u128) -> Arc<Answer> {
        let mut known = self.0.lock();
        if let Some(answer) = known.answers.get(&key) {
            return Arc::clone(answer);
        }
        if known.order.len() >= ANSWERS_MAX
            && let Some(oldest) = known.order.pop_front()
        {
            known.answers.remove(&oldest);
        }
        let answer = Arc::new(Answer { fingerprint, cell: OnceCell::new() });
        known.order.push_back(key.clone());
        known.answers.insert(key, Arc::clone(&answer));
        answer
    }
}
