//! Records of a topic → rows and dead letters.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use metrics::counter;
use schemas::documents::source::Epoch;
use schemas::{Code, Limits, Offset, Partition, Problem, StreamDef};
use storage::kafka::TopicRecords;
use uuid::Uuid;

use super::Connector;
use super::places::Places;
use crate::admission::parts::Part;
use crate::admission::series::UnderWay;
use crate::dead_letters::{Sender, TopicPlace};
use crate::decode::{BadRecord, decode};
use crate::frozen::Lookup;
use crate::identity::identities;
use crate::receipts::Entry;
use crate::times::Timing;

/// What dead letters of a topic are said to be.
const CONTENT_TYPE: &str = "application/json";

/// One partition's share of a fetch, decoded.
pub(super) struct Intake {
    payload: Vec<u8>,
    part: Part,
    bad: Vec<BadRecord>,
    /// Offsets of the bad ones.
    bad_at: Vec<Offset>,
}

/// What is let in of a fetch, once its bad records are among the dead letters.
pub(super) struct Share {
    pub(super) parts: Arc<[Part]>,
    /// End of the dead letters with those of this fetch.
    pub(super) letters: Offset,
    receipts: Vec<Entry>,
    quarantined: u64,
}

impl Connector {
    /// Keeps the bad records of a fetch, durably, before the others go to the log: records of a partition that are durable
    /// imply that the dead letters before them are. One fetch after the other.
    pub(super) async fn keep_bad(
        &self,
        epoch: &Epoch,
        places: &Places,
        intakes: Vec<Intake>,
    ) -> Result<Share, Problem> {
        let mut quarantined = 0;
        let (mut parts, mut receipts) = (vec![], vec![]);
        for intake in intakes {
            if let Some((bad, append_us)) = self.keep_bad_of(epoch, places, &intake).await? {
                quarantined += bad;
                receipts.push(Entry::quarantined(append_us, bad));
            }
            if intake.part.rows.num_rows() > 0 {
                parts.push(intake.part);
            }
        }
        let letters = self.parts.dead_letters.head().offset(0);
        Ok(Share { parts: parts.into(), letters, receipts, quarantined })
    }

    /// Waits until what was queued of a fetch is durable, and its receipts are.
    pub(super) async fn finish(&self, share: Share, under_way: UnderWay) -> Result<(), Problem> {
        let Share { mut receipts, quarantined, .. } = share;
        let admitted = self.admission.finish(under_way).await.map_err(|error| error.problem())?;
        receipts.extend(self.receipts.of(&admitted).await.map_err(|error| error.problem())?);
        self.receipts.write(receipts).await.map_err(|error| error.problem())?;
        let counts = admitted.counts();
        let verdicts = [("accepted", counts.accepted), ("duplicate", counts.duplicates), ("quarantined", quarantined)];
        for (verdict, records) in verdicts {
            counter!("bifold_ingest_events_total", "stream" => self.parts.stream.name.clone(), "verdict" => verdict)
                .increment(records);
        }
        Ok(())
    }

    /// Writes the dead letters that are not there yet; returns how many, and their append time.
    async fn keep_bad_of(
        &self,
        epoch: &Epoch,
        places: &Places,
        intake: &Intake,
    ) -> Result<Option<(u64, i64)>, Problem> {
        let partition = intake.part.partition;
        let known_below = places.letters_below.get(partition as usize).copied().unwrap_or(0);
        let (mut bad, mut offsets) = (vec![], vec![]);
        for (record, offset) in intake.bad.iter().zip(&intake.bad_at) {
            if *offset >= known_below {
                bad.push(record.clone());
                offsets.push(*offset);
            }
        }
        if bad.is_empty() {
            return Ok(None);
        }
        let count = bad.len() as u64;
        let place = TopicPlace { topic: self.topic.clone(), topic_id: epoch.topic_id.to_string(), partition, offsets };
        let request_id = Uuid::now_v7().to_string();
        let sender =
            Sender { content_type: CONTENT_TYPE.to_owned(), request_id, timing: Timing::default(), topic: Some(place) };
        let (queued, append_us) =
            self.letters.queue(&intake.payload, &bad, &sender).await.map_err(|error| error.problem())?;
        queued.durable().await.map_err(|error| error.problem())?;
        Ok(Some((count, append_us)))
    }
}

/// By partition.
pub(super) fn decode_all(
    (stream, lookup): (&StreamDef, &Lookup),
    limits: &Limits,
    epoch: u32,
    mut fetched: Vec<TopicRecords>,
) -> Result<Vec<Intake>, Problem> {
    fetched.sort_by_key(|records| records.partition);
    fetched.into_iter().map(|records| decode_one((stream, lookup), limits, epoch, records)).collect()
}

fn decode_one(
    (stream, lookup): (&StreamDef, &Lookup),
    limits: &Limits,
    epoch: u32,
    records: TopicRecords,
) -> Result<Intake, Problem> {
    let decoded = lookup.decode(stream, |sent| decode(sent, limits, &records.payload, &records.values))?;
    let identities = identities(stream, &decoded.rows)?.unwrap_or_default();
    let mut good_at = Vec::with_capacity(decoded.rows.num_rows());
    let mut bad_at = Vec::with_capacity(decoded.bad.len());
    let mut bad = decoded.bad.iter().map(|record| record.error.index).peekable();
    for (index, offset) in (0_u64..).zip(&records.offsets) {
        let is_bad = bad.next_if_eq(&index).is_some();
        if is_bad { bad_at.push(*offset) } else { good_at.push(*offset) }
    }
    let rows = with_source(stream, &decoded.rows, epoch, &good_at)
        .map_err(|error| Problem::new(Code::Internal, format!("stream {}: rows: {error}", stream.name)))?;
    let partition: Partition = records.partition;
    Ok(Intake { payload: records.payload, part: Part { partition, rows, identities }, bad: decoded.bad, bad_at })
}

/// Adds where the rows are in the topic.
fn with_source(
    stream: &StreamDef,
    rows: &RecordBatch,
    epoch: u32,
    offsets: &[Offset],
) -> Result<RecordBatch, ArrowError> {
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    columns.push(Arc::new(Int32Array::from_value(epoch as i32, offsets.len())));
    columns.push(Arc::new(Int64Array::from_iter_values(offsets.iter().map(|offset| *offset as i64))));
    RecordBatch::try_new(stream.arriving_schema(), columns)
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Int32Type, Int64Type};
    use schemas::{RecordFormat, TopicSource, Transport};

    use schemas::frozen::Frozen;
    use schemas::{ColumnDef, SqlType};

    use super::*;
    use crate::frozen::FrozenTable;
    use crate::testing::stream;

    /// Records of a topic are filled as those of a request are.
    #[test]
    fn records_of_a_topic_look_values_up() {
        let source = Some(TopicSource { topic: "t".into(), format: RecordFormat::Json });
        let frozen = Frozen {
            table: Uuid::nil(),
            name: "labels".into(),
            key: "id".into(),
            table_key: "k".into(),
            columns: vec![("label".into(), "label".into())],
        };
        let transport = Transport { source, frozen: Some(frozen), ..Transport::default() };
        let mut stream = StreamDef { transport, ..stream("s", 1) };
        stream.columns.push(ColumnDef { name: "label".into(), sql_type: SqlType::Text, nullable: true });
        stream.columns.push(schemas::frozen::version_column());
        let column =
            |values: [&str; 2]| -> ArrayRef { Arc::new(arrow::array::StringViewArray::from_iter_values(values)) };
        let rows =
            RecordBatch::try_from_iter([("k", column(["a", "b"])), ("label", column(["first", "second"]))]).unwrap();
        let table = Arc::new(FrozenTable::of("labels", 4, &rows, "k").unwrap());
        let lookup = Lookup::new(move |_| Ok(Arc::clone(&table)));
        let payload = br#"{"id":"b","event_time":1,"label":"mine"}{"id":"c","event_time":2}"#.to_vec();
        let values = vec![0..40, 40..payload.len()];
        let records = TopicRecords { payload, values, offsets: vec![7, 8], ..TopicRecords::default() };
        let found = decode_one((&stream, &lookup), &Limits::default(), 1, records).unwrap();
        assert_eq!(found.part.rows.schema(), stream.arriving_schema());
        let label = stream.column_index("label").unwrap();
        let labels: Vec<_> = found.part.rows.column(label).as_string_view().iter().collect();
        assert_eq!(labels, [Some("second"), None]);
        assert_eq!(found.part.rows.column(label + 1).as_primitive::<Int32Type>().values().to_vec(), [4, 4]);
    }

    #[test]
    fn rows_and_bad_records_keep_their_offsets() {
        let source = Some(TopicSource { topic: "t".into(), format: RecordFormat::Json });
        let stream = StreamDef { transport: Transport { source, ..Transport::default() }, ..stream("s", 2) };
        let values = [r#"{"id":"a","event_time":1}"#, "{", r#"{"id":"b","event_time":2}"#, "", r#"{"id":1}"#];
        let lookup = Lookup::new(|stream| Err(Problem::new(Code::Internal, stream.name.clone())));
        let mut records = TopicRecords { partition: 1, ..TopicRecords::default() };
        for (offset, value) in [10, 11, 14, 15, 99].into_iter().zip(values) {
            let from = records.payload.len();
            records.payload.extend_from_slice(value.as_bytes());
            records.values.push(from..records.payload.len());
            records.offsets.push(offset);
        }
        let found = decode_one((&stream, &lookup), &Limits::default(), 3, records).unwrap();
        assert_eq!((found.part.partition, found.part.identities.len()), (1, 2));
        assert_eq!(found.part.rows.schema(), stream.arriving_schema());
        let columns = found.part.rows.columns();
        assert_eq!(columns[4].as_primitive::<Int32Type>().values().to_vec(), [3, 3]);
        assert_eq!(columns[5].as_primitive::<Int64Type>().values().to_vec(), [10, 14]);
        assert_eq!(found.bad_at, [11, 15, 99]);
    }
}
