//! The way into one stream.

use std::sync::Arc;
use std::time::Instant;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use metrics::{counter, histogram};
use schemas::freshness::IngestAnswer;
use schemas::limits::ERRORS_LISTED_MAX;
use schemas::problem::RecordError;
use schemas::{Code, Cut, Limits, OnBadData, PositionToken, Problem, StreamDef};
use storage::clock::Clock;
use storage::log::Log;
use uuid::Uuid;

use super::{IngestOptions, IngestParts, Payload, Reservation};
use crate::admission::parts::{Part, split as split_parts};
use crate::admission::{Admission, Memory};
use crate::backlog::Backlog;
use crate::dead_letters::{DeadLetters, Sender};
use crate::decode::BadRecord;
use crate::frozen::Lookup;
use crate::identity::identities;
use crate::payload::{inflate, split};
use crate::receipts::{Entry, Receipts};
use crate::times::decode_corrected;

/// Bodies up to this many bytes are decoded where they are: a hop to another thread costs more.
const INLINE_BYTES_MAX: usize = 16_384;

/// One stream's admission and dead letters.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) stream: Arc<StreamDef>,
    pub(super) limits: Arc<Limits>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) log: Arc<dyn Log>,
    pub(super) admission: Arc<Admission>,
    pub(super) dead_letters: DeadLetters,
    pub(super) receipts: Receipts,
    pub(super) backlog: Backlog,
    pub(super) lookup: Lookup,
    /// One replay at a time: none replays what another is about to mark.
    pub(super) replaying: tokio::sync::Mutex<()>,
}

/// A request on its way from the decoder to the log.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Inflated.
    payload: Bytes,
    received: u64,
    parts: Vec<Part>,
    bad: Vec<BadRecord>,
    sender: Sender,
}

impl Door {
    pub(crate) fn open(stream: Arc<StreamDef>, parts: &IngestParts) -> Result<Self, Problem> {
        let closed = || {
            let detail = format!("stream {}: its log is not open", stream.name);
            parts.streams.closed(stream.id).unwrap_or_else(|| Problem::new(Code::StorageUnavailable, detail))
        };
        let log = parts.logs.log(stream.id).ok_or_else(closed)?;
        let dead_letters = parts.logs.dead_letters(stream.id).ok_or_else(closed)?;
        let receipts = parts.logs.receipts(stream.id).ok_or_else(closed)?;
        let (limits, clock) = (&parts.limits, || Arc::clone(&parts.clock));
        let memory = Memory {
            ids_in_memory_max: limits.dedup_ids_in_memory_max,
            ids_max: limits.dedup_ids_max,
            folder: parts.ids_folder.as_ref().map(|folder| folder(stream.id)),
        };
        Ok(Self {
            limits: Arc::new(limits.clone()),
            clock: clock(),
            admission: Arc::new(Admission::new(Arc::clone(&stream), Arc::clone(&log), clock(), memory)),
            receipts: Receipts::new(Arc::clone(&log), Arc::clone(&dead_letters), receipts),
            dead_letters: DeadLetters::new(dead_letters, clock(), limits),
            backlog: Backlog::new(parts.backlogs.clone(), limits),
            lookup: {
                let streams = Arc::clone(&parts.streams);
                Lookup::new(move |stream| streams.frozen(stream))
            },
            replaying: tokio::sync::Mutex::default(),
            log,
            stream,
        })
    }

    /// A log that does not answer is why nothing is taken, whatever else is full because of it.
    pub(super) fn check_progress(&self) -> Result<(), Problem> {
        self.log.check_progress().map_err(|stalled| {
            counter!("bifold_ingest_refused_total", "stream" => self.stream.name.clone(), "reason" => "stalled")
                .increment(1);
            stalled.problem()
        })
    }

    /// Everything before the log: inflates, splits, decodes, computes identities. What is made of the payload is
    /// held by the reservation before it is made.
    pub(crate) async fn prepare(
        &self,
        mut payload: Payload,
        options: &IngestOptions,
        reservation: Reservation,
    ) -> Result<(Prepared, Reservation), Problem> {
        let begun = Instant::now();
        payload.timing.received_us.get_or_insert_with(|| self.clock.now_us());
        let wire_bytes = payload.bytes.len();
        let inline = wire_bytes <= INLINE_BYTES_MAX && payload.encoding == super::Encoding::Identity;
        let (stream, limits, lookup) = (Arc::clone(&self.stream), Arc::clone(&self.limits), self.lookup.clone());
        let (prepared, reservation) = if inline {
            prepare((&stream, &lookup), &limits, payload, reservation)?
        } else {
            let work = tokio::task::spawn_blocking(move || prepare((&stream, &lookup), &limits, payload, reservation));
            work.await.map_err(|_| Problem::new(Code::Internal, "ingest: the decoder failed"))??
        };
        counter!("bifold_ingest_bytes_total", "stream" => self.stream.name.clone()).increment(wire_bytes as u64);
        histogram!("bifold_ingest_decode_seconds").record(begun.elapsed().as_secs_f64());
        let is_strict = options.strict || self.stream.on_bad_data == OnBadData::Reject;
        if !prepared.bad.is_empty() && is_strict && !options.check {
            return Err(self.refuse(&prepared));
        }
        Ok((prepared, reservation))
    }

    /// Writes rows, dead letters and receipts; returns when all are durable.
    pub(crate) async fn write(&self, prepared: Prepared) -> Result<(IngestAnswer, Cut), Problem> {
        let Prepared { payload, received, mut parts, bad, sender } = prepared;
        self.place(&mut parts);
        let begun = Instant::now();
        let letters = if bad.is_empty() {
            None
        } else {
            Some(self.dead_letters.queue(&payload, &bad, &sender).await.map_err(|e| e.problem())?)
        };
        drop(payload);
        let admitted = self.admission.admit(parts).await.map_err(|error| error.problem())?;
        let mut entries = self.receipts.of(&admitted).await.map_err(|error| error.problem())?;
        if let Some((letters, append_us)) = letters {
            letters.durable().await.map_err(|error| error.problem())?;
            entries.push(Entry::quarantined(append_us, bad.len() as u64));
        }
        self.receipts.write(entries).await.map_err(|error| error.problem())?;
        histogram!("bifold_ingest_append_seconds").record(begun.elapsed().as_secs_f64());
        let counts = admitted.counts();
        let token = PositionToken { incarnation: self.stream.incarnation, cut: admitted.cut };
        let answer = IngestAnswer {
            received,
            accepted: counts.accepted,
            duplicates: counts.duplicates,
            conflicts: counts.conflicts,
            quarantined: bad.len() as u64,
            position: token.to_string(),
            errors: first_errors(bad),
        };
        assert!(
            answer.accepted + answer.duplicates + answer.quarantined == received,
            "every record received is accepted, a duplicate or quarantined: {answer:?}"
        );
        self.count(&answer);
        Ok((answer, token.cut))
    }

    /// What would become of a request on an empty stream; nothing is written.
    pub(crate) fn check(&self, prepared: Prepared) -> IngestAnswer {
        let quarantined = prepared.bad.len() as u64;
        IngestAnswer {
            received: prepared.received,
            accepted: prepared.received - quarantined,
            duplicates: 0,
            conflicts: 0,
            quarantined,
            position: PositionToken { incarnation: self.stream.incarnation, cut: Cut::default() }.to_string(),
            errors: first_errors(prepared.bad),
        }
    }

    /// Without a key, each request goes to the next partition as a whole.
    pub(super) fn place(&self, parts: &mut [Part]) {
        if self.stream.primary_key.is_empty() {
            for part in parts {
                part.partition = self.admission.next_partition();
            }
        }
    }

    fn refuse(&self, prepared: &Prepared) -> Problem {
        let (bad, all) = (prepared.bad.len(), prepared.received);
        let detail = format!("stream {}: {bad} of {all} records are bad; nothing was written", self.stream.name);
        let mut problem = Problem::new(Code::BadRecords, detail);
        problem.errors = first_errors(prepared.bad.clone());
        counter!("bifold_ingest_events_total", "stream" => self.stream.name.clone(), "verdict" => "refused")
            .increment(all);
        problem
    }

    fn count(&self, answer: &IngestAnswer) {
        let verdicts =
            [("accepted", answer.accepted), ("duplicate", answer.duplicates), ("quarantined", answer.quarantined)];
        if answer.conflicts > 0 {
            counter!("bifold_ingest_conflicts_total", "stream" => self.stream.name.clone()).increment(answer.conflicts);
        }
        for (verdict, events) in verdicts {
            counter!("bifold_ingest_events_total", "stream" => self.stream.name.clone(), "verdict" => verdict)
                .increment(events);
        }
    }
}

pub(super) fn first_errors(bad: Vec<BadRecord>) -> Vec<RecordError> {
    bad.into_iter().take(ERRORS_LISTED_MAX).map(|record| record.error).collect()
}

fn prepare(
    (stream, lookup): (&StreamDef, &Lookup),
    limits: &Limits,
    payload: Payload,
    mut reservation: Reservation,
) -> Result<(Prepared, Reservation), Problem> {
    let Payload { bytes, encoding, format, content_type, timing } = payload;
    let wire_bytes = bytes.len();
    let payload = inflate(bytes, encoding, limits.body_bytes_max)?;
    let records = split(&payload, format)?;
    // an empty object of two bytes is a row of all columns
    let rows_bytes = records.len().saturating_mul(stream.row_bytes());
    if rows_bytes > limits.ingest_bytes_in_flight_max {
        let columns = stream.columns.len();
        let detail = format!("body: {} records of {columns} columns take {rows_bytes} bytes of memory", records.len());
        return Err(Problem::new(Code::PayloadTooLarge, detail).with_hint("send the events in several requests"));
    }
    reservation.hold(payload.len().max(wire_bytes).saturating_add(rows_bytes))?;
    let received_us = timing.received_us.unwrap_or_default();
    let decoded =
        lookup.decode(stream, |sent| decode_corrected(sent, limits, &payload, &records, received_us, &|_| timing))?;
    let received = decoded.received();
    let parts = parts_of(stream, decoded.rows)?;
    let sender = Sender { content_type, request_id: Uuid::now_v7().to_string(), timing, topic: None };
    Ok((Prepared { payload, received, parts, bad: decoded.bad, sender }, reservation))
}

/// Rows by partition.
pub(super) fn parts_of(stream: &StreamDef, rows: RecordBatch) -> Result<Vec<Part>, Problem> {
    match identities(stream, &rows)? {
        Some(identities) => split_parts(stream, rows, identities)
            .map_err(|error| Problem::new(Code::Internal, format!("stream {}: parts: {error}", stream.name))),
        None if rows.num_rows() == 0 => Ok(vec![]),
        None => Ok(vec![Part { partition: 0, rows, identities: vec![] }]),
    }
}
