//! The stream of all tests, its events, and the view of most tests.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringViewArray, TimestampMicrosecondArray};
use arrow::record_batch::RecordBatch;
use schemas::column::ColumnDef;
use schemas::{LatePolicy, OnBadData, SqlType, StreamDef};
use uuid::Uuid;

use super::NOW_US;

/// One event: country, amount, event time in seconds.
pub(crate) type Event = (Option<&'static str>, f64, i64);

pub(super) const STREAM: Uuid = Uuid::from_u128(1);
pub(super) const INCARNATION: Uuid = Uuid::from_u128(2);
pub(super) const TABLE: Uuid = Uuid::from_u128(3);

/// The stream of all tests.
pub(crate) fn clicks() -> StreamDef {
    let column = |name: &str, sql_type, nullable| ColumnDef { name: name.into(), sql_type, nullable };
    StreamDef {
        id: STREAM,
        incarnation: INCARNATION,
        name: "clicks".into(),
        columns: vec![
            column("country", SqlType::Text, true),
            column("amount", SqlType::Double, true),
            column("at", SqlType::TimestampTz, false),
        ],
        primary_key: vec![],
        time_column: Some("at".into()),
        watermark_delay_us: 60_000_000,
        partitions: 1,
        dedup_horizon_us: 0,
        late: LatePolicy::Include,
        on_bad_data: OnBadData::Quarantine,
        transport: schemas::Transport::default(),
        created_at_us: NOW_US,
    }
}

/// Events as the log holds them.
pub(super) fn log_rows(events: &[Event]) -> RecordBatch {
    let times = || events.iter().map(|(_, _, at)| at * 1_000_000);
    let stamps = |values: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) as ArrayRef;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(events.iter().map(|(country, _, _)| *country).collect::<StringViewArray>()),
        Arc::new(Float64Array::from_iter_values(events.iter().map(|(_, amount, _)| *amount))),
        stamps(times().collect()),
        stamps(vec![NOW_US; events.len()]),
        stamps(times().collect()),
    ];
    RecordBatch::try_new(clicks().log_schema(), columns).unwrap()
}

/// The view of most tests.
pub(crate) const BY_COUNTRY: &str = "SELECT country, count(*) AS n, sum(amount) AS total, avg(amount) * 2 AS twice \
                                     FROM clicks GROUP BY country";
