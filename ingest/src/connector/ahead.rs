//! Reading ahead: while one fetch is let in, the next is decoded and the one after it is fetched.
//!
//! ```text
//!  thread: fetch ─► room for one ─► thread: decode ─► room for one ─► let in      in the order of the fetches
//! ```
//!
//! At most seven fetches are in memory: one in each hand, one in each room, and the two that are on their way to the disk.
//! What is let in, and noted as such, is what comes out at the end: what was read ahead when a session ends is read again
//! by the next one.

use std::time::{Duration, Instant};

use schemas::{Offset, Problem};
use storage::kafka::{Fetched, ReadLimits, TopicError, TopicReader, TopicRecords};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::intake::Intake;

/// How often the lag is measured.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Fetches that wait between two hands.
const ROOM: usize = 1;

/// What a fetch found, and where the reader was after it.
pub(super) struct Step<T> {
    pub(super) found: Result<T, Problem>,
    /// Per partition the next offset.
    pub(super) next: Vec<Offset>,
    /// Per partition: everything there was had been read.
    pub(super) at_end: Vec<bool>,
    /// If it was looked at.
    pub(super) lag: Option<Lag>,
}

/// Records that were there and not read; none while that is not certain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lag(pub(super) Option<u64>);

/// [`Fetched`], decoded.
pub(super) enum Found {
    Records(Vec<Intake>),
    Replaced(Option<Uuid>),
    OutOfRange,
}

/// Reads on two threads until the receiver is dropped, or after the first step that is not of records.
pub(super) fn read(
    reader: TopicReader,
    limits: ReadLimits,
    decode: impl Fn(Vec<TopicRecords>) -> Result<Vec<Intake>, Problem> + Send + 'static,
) -> mpsc::Receiver<Step<Found>> {
    let (fetched, to_decode) = mpsc::channel(ROOM);
    let (decoded, to_let_in) = mpsc::channel(ROOM);
    tokio::task::spawn_blocking(move || fetch_all(reader, &limits, &fetched));
    tokio::task::spawn_blocking(move || decode_all(to_decode, &decoded, &decode));
    to_let_in
}

fn fetch_all(mut reader: TopicReader, limits: &ReadLimits, to: &mpsc::Sender<Step<Fetched>>) {
    let mut looked = None::<Instant>;
    loop {
        let mut found = reader.fetch(limits).map_err(|error| error.problem());
        let mut lag = None;
        if matches!(found, Ok(Fetched::Records(_))) && looked.is_none_or(|at| at.elapsed() >= LOOK_INTERVAL) {
            looked = Some(Instant::now());
            match lag_of(&reader) {
                Ok(found) => lag = Some(found),
                Err(error) => found = Err(error.problem()),
            }
        }
        let is_last = !matches!(found, Ok(Fetched::Records(_)));
        let step = Step { found, next: reader.next().to_vec(), at_end: reader.at_end().to_vec(), lag };
        if to.blocking_send(step).is_err() || is_last {
            return;
        }
    }
}

fn decode_all(
    mut from: mpsc::Receiver<Step<Fetched>>,
    to: &mpsc::Sender<Step<Found>>,
    decode: &dyn Fn(Vec<TopicRecords>) -> Result<Vec<Intake>, Problem>,
) {
    while let Some(Step { found, next, at_end, lag }) = from.blocking_recv() {
        let found = found.and_then(|found| match found {
            Fetched::Records(records) => decode(records).map(Found::Records),
            Fetched::Replaced(id) => Ok(Found::Replaced(id)),
            Fetched::OutOfRange => Ok(Found::OutOfRange),
        });
        if to.blocking_send(Step { found, next, at_end, lag }).is_err() {
            return;
        }
    }
}

/// Records that are there and not read yet, markers of transactions included; none while it is not certain that
/// there are none.
fn lag_of(reader: &TopicReader) -> Result<Lag, TopicError> {
    let mut lag = 0;
    for ((partition, next), _) in (0..).zip(reader.next()).zip(reader.at_end()).filter(|(_, at_end)| !**at_end) {
        let unread = reader.bounds(partition)?.end.saturating_sub(*next);
        if unread == 0 {
            return Ok(Lag(None));
        }
        lag += unread;
    }
    Ok(Lag(Some(lag)))
}
