//! When an event happened, by the server's clock (DESIGN §7; R-021, R-022).
//!
//! A client's clock may be hours off. What a client can say: when, by its own clock, it made the event
//! (the event-time column) and sent the request (`Bifold-Sent-At`); how far its clock is from the server's
//! (`GET /v1/time`, then `Bifold-Clock-Offset-Ms` and `Bifold-Clock-Round-Trip-Ms`); how old the event was
//! when it was sent, by a clock that nobody sets (`_age_ms` in the record).
//!
//! ```text
//!  clock sync, age    sent + offset − age       sync     half a round trip
//!  clock sync         created + offset          sync     half a round trip
//!  age                received − age            age      the way to the server, which nobody knows
//!  sent               received − (sent − created) sent   likewise
//!  nothing            created                   client   –
//! ```
//! Decided once, when the event comes in, and stored with everything it was decided from.

mod columns;
#[cfg(test)]
mod tests;

use std::ops::Range;

use schemas::column::ColumnDef;
use schemas::{Code, Limits, Problem, SqlType, StreamDef};

use crate::decode::time::in_range;
use crate::decode::{Decoded, decode};

/// The field of a record that holds its age when it was sent, by a monotonic clock.
pub const AGE_FIELD: &str = "_age_ms";
/// Clocks are not wronger than this: a hundred years.
const OFFSET_US_MAX: i64 = 100 * 366 * 86_400_000_000;

/// The result of a client's clock sync (`GET /v1/time`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockSync {
    /// The server's clock less the client's, microseconds.
    pub offset_us: i64,
    /// How long the question and its answer were under way; half of it is how wrong the offset may be.
    pub round_trip_us: i64,
}

impl ClockSync {
    /// From milliseconds, as a client has them.
    ///
    /// # Errors
    /// `bad_request` for what no sync can have found.
    pub fn from_ms(offset_ms: f64, round_trip_ms: f64) -> Result<Self, Problem> {
        let us = |ms: f64| (ms * 1_000.0).round() as i64;
        let (offset_us, round_trip_us) = (us(offset_ms), us(round_trip_ms));
        let is_finite = offset_ms.is_finite() && round_trip_ms.is_finite();
        let offsets = -OFFSET_US_MAX..=OFFSET_US_MAX;
        if is_finite && offsets.contains(&offset_us) && (0..=OFFSET_US_MAX).contains(&round_trip_us) {
            return Ok(Self { offset_us, round_trip_us });
        }
        let detail = format!("clock: an offset of {offset_ms} ms found in {round_trip_ms} ms");
        Err(Problem::new(Code::BadRequest, detail))
    }
}

/// The times that a request's records have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timing {
    /// When the server began to read it; none: when it is decoded.
    pub received_us: Option<i64>,
    /// The client's clock when it sent the request.
    pub sent_us: Option<i64>,
    /// What the client knows of its clock.
    pub clock: Option<ClockSync>,
}

/// How an event time was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Corrected {
    pub(crate) time_us: i64,
    pub(crate) method: &'static str,
    /// None where nobody can know.
    pub(crate) uncertainty_us: Option<i64>,
}

/// The event time of one record; what is later than `latest_us` is clamped to its arrival.
pub(crate) fn correct(
    created_us: i64,
    age_us: Option<i64>,
    timing: &Timing,
    received_us: i64,
    latest_us: i64,
) -> Corrected {
    let known = |time_us: i64, method, uncertainty_us| Corrected { time_us, method, uncertainty_us };
    let corrected = match (timing.clock, timing.sent_us, age_us) {
        (Some(clock), Some(sent_us), Some(age_us)) => {
            let time_us = sent_us.saturating_add(clock.offset_us).saturating_sub(age_us);
            known(time_us, "sync", Some(clock.round_trip_us / 2))
        }
        (_, _, Some(age_us)) => known(received_us.saturating_sub(age_us), "age", None),
        (Some(clock), _, None) => {
            known(created_us.saturating_add(clock.offset_us), "sync", Some(clock.round_trip_us / 2))
        }
        (None, Some(sent_us), None) => {
            known(received_us.saturating_sub(sent_us.saturating_sub(created_us)), "sent", None)
        }
        (None, None, None) => known(created_us, "client", None),
    };
    // a time that no TIMESTAMPTZ has (an age of a million years) is as wrong as one that is to come
    if corrected.time_us <= latest_us && in_range(corrected.time_us).is_some() {
        return corrected;
    }
    Corrected { time_us: received_us, method: clamped(corrected.method), uncertainty_us: None }
}

fn clamped(method: &str) -> &'static str {
    match method {
        "sync" => "sync_clamped",
        "age" => "age_clamped",
        "sent" => "sent_clamped",
        _ => "client_clamped",
    }
}

/// [`decode`], with corrected times if the stream has them; `timing` is that of a record by its index.
///
/// # Errors
/// As there.
pub(crate) fn decode_corrected(
    stream: &StreamDef,
    limits: &Limits,
    payload: &[u8],
    records: &[Range<usize>],
    now_us: i64,
    timing: &dyn Fn(usize) -> Timing,
) -> Result<Decoded, Problem> {
    if !stream.corrects_time() {
        return decode(stream, limits, payload, records);
    }
    let Decoded { rows, bad } = decode(&as_sent(stream), limits, payload, records)?;
    let is_bad = |index: usize| bad.binary_search_by_key(&(index as u64), |record| record.error.index).is_ok();
    let timings: Vec<Timing> = (0..records.len()).filter(|index| !is_bad(*index)).map(timing).collect();
    let ahead_us = i64::try_from(limits.event_time_ahead_max_ms.saturating_mul(1_000)).unwrap_or(i64::MAX);
    let rows = columns::with_times(stream, &rows, &timings, now_us, ahead_us)
        .map_err(|error| Problem::new(Code::Internal, format!("stream {}: times: {error}", stream.name)))?;
    Ok(Decoded { rows, bad })
}

/// The stream as a client's records have it: without the platform's columns, with an age.
fn as_sent(stream: &StreamDef) -> StreamDef {
    let mut columns: Vec<ColumnDef> = stream.declared_columns().cloned().collect();
    columns.push(ColumnDef { name: AGE_FIELD.into(), sql_type: SqlType::Double, nullable: true });
    StreamDef { columns, ..stream.clone() }
}
