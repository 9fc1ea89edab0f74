//! Dead letters through the door again, as they were or corrected (R-103, R-029).
//!
//! ```text
//!  letter ─► corrected text ─► decode ─► admission, like any record ─► the log ─► a mark among the receipts
//!                                └ still bad: it stays what it is, and the answer says why
//! ```
//!
//! The times of the letter's request go with it: an event time is corrected as it would have been then.
//!
//! The mark comes after the record: a process that ends in between replays the letter again, and for a
//! stream with a primary key that is a duplicate. A stream without one then has the record twice.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use schemas::limits::{DEAD_LETTERS_AT_ONCE, ERRORS_LISTED_MAX};
use schemas::problem::did_you_mean;
use schemas::{Code, IntakeCounts, Offset, PositionToken, Problem, SqlType, StreamDef};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::door::{Door, parts_of};
use super::{IngestService, Reservation};
use crate::dead_letters::Letter;
use crate::decode::Decoded;
use crate::receipts::Entry;
use crate::times::decode_corrected;

/// Bytes of letters that are decoded at once.
const CHUNK_BYTES: usize = 16 << 20;
/// Letters that are read at once.
const CHUNK_LETTERS: usize = 1_024;

/// Which letters are replayed, and with what changes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Correction {
    /// These letters; none: all that are not replayed yet, from `from` on.
    pub offsets: Option<Vec<Offset>>,
    /// Where to begin.
    #[serde(default)]
    pub from: Offset,
    /// Values by column, in place of what was sent. A text for a column that is no text is read as it stands.
    #[serde(default)]
    pub set: BTreeMap<String, Box<RawValue>>,
    /// The whole record anew; for one letter.
    pub raw: Option<String>,
}

/// What became of the letters. `selected = replayed + still_bad + already_replayed`, and
/// `replayed = accepted + duplicates`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReplayAnswer {
    /// Letters that were looked at.
    pub selected: u64,
    /// Letters that fit now, and are marked.
    pub replayed: u64,
    /// Of those, new in the log.
    pub accepted: u64,
    /// Of those, known by their id.
    pub duplicates: u64,
    /// Of the duplicates, those with other values.
    pub conflicts: u64,
    /// Letters that do not fit yet.
    pub still_bad: u64,
    /// Letters that were replayed before: nothing was done.
    pub already_replayed: u64,
    /// Position token: a query with it as `at_least` sees all that was accepted.
    pub position: Option<String>,
    /// Where to go on, if there is more than one request takes.
    pub next: Option<Offset>,
    /// The first letters that do not fit, and why.
    pub errors: Vec<LetterError>,
}

/// Why a letter does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterError {
    /// The letter.
    pub offset: Offset,
    /// As in ingest answers.
    pub code: String,
    /// The column at fault, where one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// What is wrong.
    pub message: String,
}

impl IngestService {
    /// Replays dead letters. A letter that was replayed before is left alone.
    ///
    /// # Errors
    /// `not_found` for a letter or a column that is not there; `bad_request`; as for any ingest.
    pub async fn replay(self: &Arc<Self>, stream: &str, correction: Correction) -> Result<ReplayAnswer, Problem> {
        let door = self.writable_door(stream)?;
        correction.check(&door.stream)?;
        let reservation = self.reserve();
        // to its end, even if the client goes away: a record without its mark would be replayed twice
        let work = self.tasks.spawn(async move { door.replay(&correction, reservation).await });
        work.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a replay panicked");
            Err(Problem::new(Code::Internal, "replay: failed; it may be asked for again"))
        })
    }
}

impl Correction {
    fn check(&self, stream: &StreamDef) -> Result<(), Problem> {
        if let Some(unknown) = self.set.keys().find(|name| stream.column_index(name).is_none()) {
            let problem = Problem::new(Code::NotFound, format!("stream {}: there is no column {unknown}", stream.name));
            let close = did_you_mean(unknown, stream.columns.iter().map(|column| column.name.as_str()));
            return Err(match close {
                Some(close) => problem.with_hint(format!("did you mean {close}?")),
                None => problem,
            });
        }
        let letters = self.offsets.as_ref().map_or(usize::MAX, Vec::len);
        if self.raw.is_some() && letters != 1 {
            return Err(Problem::new(Code::BadRequest, "raw: is the text of one letter: name it in offsets"));
        }
        if letters != usize::MAX && letters > DEAD_LETTERS_AT_ONCE {
            let detail = format!("offsets: more than {DEAD_LETTERS_AT_ONCE} letters");
            return Err(Problem::new(Code::PayloadTooLarge, detail));
        }
        Ok(())
    }

    /// The record that is tried in place of a letter's.
    fn apply(&self, stream: &StreamDef, letter: &Letter) -> Result<Vec<u8>, LetterError> {
        let raw = self.raw.as_ref().map_or(letter.raw.as_slice(), |raw| raw.as_bytes());
        let error = |code: &str, message: String| LetterError {
            offset: letter.offset,
            code: code.into(),
            column: None,
            message: format!("stream {}: {message}", stream.name),
        };
        if self.raw.is_none() && !letter.is_whole() {
            return Err(error("too_large", format!("only {} of {} bytes are kept", letter.raw.len(), letter.bytes)));
        }
        if self.set.is_empty() {
            return Ok(raw.to_vec());
        }
        let mut record: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(raw)
            .map_err(|cause| error("bad_json", format!("no value can be set in what is no JSON object: {cause}")))?;
        for (name, value) in &self.set {
            record.insert(name.clone(), as_column(stream, name, value));
        }
        serde_json::to_vec(&record).map_err(|cause| error("bad_json", cause.to_string()))
    }
}

/// A text that stands for a number, a boolean or JSON, as itself: `--set files=5`.
fn as_column(stream: &StreamDef, name: &str, value: &RawValue) -> Box<RawValue> {
    let sql_type = stream.column_index(name).map(|index| stream.columns[index].sql_type);
    let text = match sql_type {
        Some(SqlType::Text | SqlType::Date | SqlType::TimestampTz) | None => None,
        Some(_) => serde_json::from_str::<String>(value.get()).ok(),
    };
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_else(|| value.to_owned())
}

impl Door {
    pub(super) async fn replay(
        &self,
        correction: &Correction,
        mut reservation: Reservation,
    ) -> Result<ReplayAnswer, Problem> {
        self.backlog.check(&self.stream)?;
        let _one_at_a_time = self.replaying.lock().await;
        let mut answer = ReplayAnswer::default();
        let mut from = correction.offsets.as_ref().map_or(correction.from, |_| 0);
        let named = correction.offsets.as_ref().map(|offsets| offsets.iter().copied().collect::<BTreeSet<_>>());
        while let Some(letters) = self.next_letters(named.as_ref(), &mut from).await? {
            if named.is_none() && answer.selected >= DEAD_LETTERS_AT_ONCE as u64 {
                answer.next = letters.first().map(|letter| letter.offset);
                break;
            }
            reservation.hold(letters.iter().map(|letter| letter.raw.len()).sum())?;
            self.replay_chunk(correction, letters, named.is_some(), &mut answer).await?;
        }
        Ok(answer)
    }

    /// The next letters that are asked for; none at the end.
    async fn next_letters(
        &self,
        named: Option<&BTreeSet<Offset>>,
        from: &mut Offset,
    ) -> Result<Option<Vec<Letter>>, Problem> {
        let read =
            |from, letters| async move { self.dead_letters.read(from, letters).await.map_err(|error| error.problem()) };
        let mut letters = match named {
            None => read(*from, CHUNK_LETTERS).await?,
            Some(named) => match named.range(*from..).next() {
                None => return Ok(None),
                Some(offset) if self.dead_letters.kept().contains(offset) => read(*offset, 1).await?,
                Some(offset) => {
                    let detail = format!("stream {}: there is no dead letter {offset}", self.stream.name);
                    return Err(Problem::new(Code::NotFound, detail));
                }
            },
        };
        let mut bytes = 0;
        let fit = letters.iter().take_while(|letter| {
            bytes += letter.raw.len();
            bytes <= CHUNK_BYTES
        });
        letters.truncate(fit.count().max(1));
        let Some(last) = letters.last() else { return Ok(None) };
        *from = last.offset + 1;
        Ok(Some(letters))
    }

    async fn replay_chunk(
        &self,
        correction: &Correction,
        letters: Vec<Letter>,
        is_named: bool,
        answer: &mut ReplayAnswer,
    ) -> Result<(), Problem> {
        let marks = self.receipts.replayed().await.map_err(|error| error.problem())?;
        let (before, open): (Vec<Letter>, Vec<Letter>) =
            letters.into_iter().partition(|letter| marks.contains_key(&letter.offset));
        // who asks for all of them asks for those that are open
        let before = if is_named { before.len() as u64 } else { 0 };
        answer.selected += open.len() as u64 + before;
        answer.already_replayed += before;
        let (tried, decoded) = self.decode_letters(correction, &open, answer)?;
        let bad: BTreeSet<u64> = decoded.bad.iter().map(|record| record.error.index).collect();
        for record in &decoded.bad {
            let error = record.error.clone();
            let offset = tried[error.index as usize].offset;
            let (code, column, message) = (error.code, error.column, error.message);
            note(answer, LetterError { offset, code, column, message });
        }
        let good: Vec<&Letter> =
            (0..).zip(&tried).filter(|(index, _)| !bad.contains(index)).map(|(_, letter)| *letter).collect();
        if good.is_empty() {
            return Ok(());
        }
        let mut parts = parts_of(&self.stream, decoded.rows)?;
        self.place(&mut parts);
        self.admit_letters(parts, &good, answer).await
    }

    /// The letters whose text could be made, and what it decodes to.
    fn decode_letters<'a>(
        &self,
        correction: &Correction,
        open: &'a [Letter],
        answer: &mut ReplayAnswer,
    ) -> Result<(Vec<&'a Letter>, Decoded), Problem> {
        let mut payload: Vec<u8> = vec![];
        let (mut records, mut tried): (Vec<Range<usize>>, Vec<&Letter>) = (vec![], vec![]);
        for letter in open {
            match correction.apply(&self.stream, letter) {
                Ok(text) => {
                    let start = payload.len();
                    payload.extend_from_slice(&text);
                    records.push(start..payload.len());
                    tried.push(letter);
                }
                Err(error) => note(answer, error),
            }
        }
        let timing = |index: usize| tried[index].timing();
        let now_us = self.clock.now_us();
        let decoded = self
            .lookup
            .decode(&self.stream, |sent| decode_corrected(sent, &self.limits, &payload, &records, now_us, &timing))?;
        Ok((tried, decoded))
    }

    async fn admit_letters(
        &self,
        parts: Vec<crate::admission::parts::Part>,
        letters: &[&Letter],
        answer: &mut ReplayAnswer,
    ) -> Result<(), Problem> {
        let mut admitted = self.admission.admit(parts).await.map_err(|error| error.problem())?;
        for part in &mut admitted.parts {
            part.counts = IntakeCounts { replayed: part.counts.received, received: 0, ..part.counts };
        }
        let mut entries = self.receipts.of(&admitted).await.map_err(|error| error.problem())?;
        let now_us = self.clock.now_us();
        entries.extend(letters.iter().map(|letter| Entry::replayed(letter.offset, now_us)));
        self.receipts.write(entries).await.map_err(|error| error.problem())?;
        let counts = admitted.counts();
        answer.replayed += counts.replayed;
        answer.accepted += counts.accepted;
        answer.duplicates += counts.duplicates;
        answer.conflicts += counts.conflicts;
        answer.position = Some(self.joined(answer.position.as_deref(), &admitted.cut));
        metrics::counter!("bifold_dead_letters_replayed_total", "stream" => self.stream.name.clone())
            .increment(counts.replayed);
        Ok(())
    }

    fn joined(&self, before: Option<&str>, cut: &schemas::Cut) -> String {
        let before = before.and_then(|token| token.parse::<PositionToken>().ok());
        let cut = before.map_or_else(|| cut.clone(), |before| before.cut.join(cut));
        PositionToken { incarnation: self.stream.incarnation, cut }.to_string()
    }
}

fn note(answer: &mut ReplayAnswer, error: LetterError) {
    answer.still_bad += 1;
    if answer.errors.len() < ERRORS_LISTED_MAX {
        answer.errors.push(error);
    }
}
