//! The way into one stream.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use metrics::{counter, histogram};
use schemas::freshness::IngestAnswer;
use schemas::limits::ERRORS_LISTED_MAX;
use schemas::problem::RecordError;
use schemas::{Code, Cut, Limits, OnBadData, PositionToken, Problem, StreamDef};
use uuid::Uuid;

use super::{IngestOptions, IngestParts, Payload, Reservation};
use crate::admission::Admission;
use crate::admission::parts::{Part, split as split_parts};
use crate::dead_letters::{DeadLetters, Sender};
use crate::decode::{BadRecord, decode};
use crate::identity::identities;
use crate::payload::{inflate, split};

/// Bodies up to this many bytes are decoded where they are: a hop to another thread costs more.
const INLINE_BYTES_MAX: usize = 16_384;

/// One stream's admission and dead letters.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) stream: Arc<StreamDef>,
    limits: Arc<Limits>,
    admission: Arc<Admission>,
    dead_letters: DeadLetters,
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
        let closed = || Problem::new(Code::StorageUnavailable, format!("stream {}: its log is not open", stream.name));
        let log = parts.logs.log(stream.id).ok_or_else(closed)?;
        let dead_letters = parts.logs.dead_letters(stream.id).ok_or_else(closed)?;
        let clock = || Arc::clone(&parts.clock);
        Ok(Self {
            limits: Arc::new(parts.limits.clone()),
            admission: Arc::new(Admission::new(Arc::clone(&stream), log, clock(), parts.limits.dedup_ids_max)),
            dead_letters: DeadLetters::new(dead_letters, clock()),
            stream,
        })
    }

    /// Everything before the log: inflates, splits, decodes, computes identities.
    pub(crate) async fn prepare(
        &self,
        payload: Payload,
        options: &IngestOptions,
        reservation: &mut Reservation,
    ) -> Result<Prepared, Problem> {
        let begun = Instant::now();
        let wire_bytes = payload.bytes.len();
        let inline = wire_bytes <= INLINE_BYTES_MAX && payload.encoding == super::Encoding::Identity;
        let (stream, limits) = (Arc::clone(&self.stream), Arc::clone(&self.limits));
        let prepared = if inline {
            prepare(&stream, &limits, payload)?
        } else {
            let work = tokio::task::spawn_blocking(move || prepare(&stream, &limits, payload));
            work.await.map_err(|_| Problem::new(Code::Internal, "ingest: the decoder failed"))??
        };
        reservation.hold(prepared.payload.len().max(wire_bytes))?;
        counter!("bifold_ingest_bytes_total", "stream" => self.stream.name.clone()).increment(wire_bytes as u64);
        histogram!("bifold_ingest_decode_seconds").record(begun.elapsed().as_secs_f64());
        if !prepared.bad.is_empty() && (options.strict || self.stream.on_bad_data == OnBadData::Reject) {
            return Err(self.refuse(&prepared));
        }
        Ok(prepared)
    }

    /// Writes rows and dead letters; returns when both are durable.
    pub(crate) async fn write(&self, prepared: Prepared) -> Result<(IngestAnswer, Cut), Problem> {
        let Prepared { payload, received, mut parts, bad, sender } = prepared;
        if self.stream.primary_key.is_empty() {
            for part in &mut parts {
                part.partition = self.admission.next_partition();
            }
        }
        let begun = Instant::now();
        let letters = if bad.is_empty() {
            None
        } else {
            Some(self.dead_letters.queue(&payload, &bad, &sender).await.map_err(|e| e.problem())?)
        };
        drop(payload);
        let admitted = self.admission.admit(parts).await.map_err(|error| error.problem())?;
        if let Some(letters) = letters {
            letters.durable().await.map_err(|error| error.problem())?;
        }
        histogram!("bifold_ingest_append_seconds").record(begun.elapsed().as_secs_f64());
        let token = PositionToken { incarnation: self.stream.incarnation, cut: admitted.cut };
        let answer = IngestAnswer {
            received,
            accepted: admitted.accepted,
            duplicates: admitted.duplicates,
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
        for (verdict, events) in verdicts {
            counter!("bifold_ingest_events_total", "stream" => self.stream.name.clone(), "verdict" => verdict)
                .increment(events);
        }
    }
}

fn first_errors(bad: Vec<BadRecord>) -> Vec<RecordError> {
    bad.into_iter().take(ERRORS_LISTED_MAX).map(|record| record.error).collect()
}

fn prepare(stream: &StreamDef, limits: &Limits, payload: Payload) -> Result<Prepared, Problem> {
    let Payload { bytes, encoding, format, content_type } = payload;
    let payload = inflate(bytes, encoding, limits.body_bytes_max)?;
    let records = split(&payload, format)?;
    let decoded = decode(stream, limits, &payload, &records)?;
    let received = decoded.received();
    let parts = match identities(stream, &decoded.rows)? {
        Some(identities) => split_parts(stream, decoded.rows, identities)
            .map_err(|error| Problem::new(Code::Internal, format!("stream {}: parts: {error}", stream.name)))?,
        None if decoded.rows.num_rows() == 0 => vec![],
        None => vec![Part { partition: 0, rows: decoded.rows, identities: vec![] }],
    };
    let sender = Sender { content_type, request_id: Uuid::now_v7().to_string(), topic: None };
    Ok(Prepared { payload, received, parts, bad: decoded.bad, sender })
}
