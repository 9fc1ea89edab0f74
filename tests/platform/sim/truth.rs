//! What the log holds, and what the views have to say about it: counted by hand, from what the clients sent.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use schemas::{Cut, Offset};
use serde_json::Value;
use storage::log::Frame;

use super::events::{Sent, Values};
use super::world::{Disk, Violation};
use crate::oracle::civil;

/// Ten minutes, microseconds.
const WINDOW_US: i64 = 600_000_000;

/// The records of the log, by partition and offset. They never change (H6).
#[derive(Debug, Default)]
pub(crate) struct Truth {
    partitions: Vec<Vec<(String, Values)>>,
    /// By id, where it is.
    places: BTreeMap<String, (usize, usize)>,
}

impl Truth {
    /// Takes over what is new on the disk.
    ///
    /// # Errors
    /// A record is there twice, was never sent, or is gone.
    pub(crate) fn take(&mut self, disk: &Disk, sent: &Sent) -> Result<(), Violation> {
        let lost = |what: String| Violation::new("H6 a position never changes its event", what);
        self.partitions.resize(disk.frames.len(), vec![]);
        for (partition, frames) in disk.frames.iter().enumerate() {
            let known = self.partitions[partition].len();
            if (disk.end.0[partition] as usize) < known {
                return Err(lost(format!("partition {partition} had {known} records, now {}", disk.end)));
            }
            for frame in frames.iter().filter_map(|frame| frame.clip(&(known as Offset..Offset::MAX))) {
                self.take_frame(partition, &frame, sent)?;
            }
        }
        Ok(())
    }

    fn take_frame(&mut self, partition: usize, frame: &Frame, sent: &Sent) -> Result<(), Violation> {
        let wrong = |what: String| Violation::new("I11 every acknowledged event is in one class", what);
        let column = |name: &str| frame.rows.column_by_name(name).expect("a column of the stream");
        let (id, k) = (column("id").as_string_view(), column("k").as_string_view());
        let (n, at) =
            (column("n").as_primitive::<Int64Type>(), column("at").as_primitive::<TimestampMicrosecondType>());
        for row in 0..frame.rows.num_rows() {
            let values = Values {
                k: k.is_valid(row).then(|| k.value(row).to_owned()),
                n: n.is_valid(row).then(|| n.value(row)),
                at_us: at.value(row),
            };
            let id = id.value(row).to_owned();
            if !sent.variants.get(&id).is_some_and(|variants| variants.contains(&values)) {
                return Err(wrong(format!("{id} is in the log as nobody sent it: {values:?}")));
            }
            let place = (partition, self.partitions[partition].len());
            if let Some(other) = self.places.insert(id.clone(), place) {
                return Err(wrong(format!("{id} is in the log twice: at {other:?} and {place:?}")));
            }
            self.partitions[partition].push((id, values));
        }
        Ok(())
    }

    /// True if the event is in the log.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.places.contains_key(id)
    }

    /// The end of the log.
    pub(crate) fn end(&self) -> Cut {
        Cut(self.partitions.iter().map(|records| records.len() as Offset).collect())
    }

    fn records(&self, from: &Cut, to: &Cut) -> impl Iterator<Item = &Values> {
        let ranges = (0_u32..).zip(&self.partitions).map(|(partition, records)| {
            let (from, to) = (from.offset(partition) as usize, to.offset(partition) as usize);
            &records[from.min(records.len())..to.min(records.len()).max(from.min(records.len()))]
        });
        ranges.flatten().map(|(_, values)| values)
    }

    /// What a view says about a range of the log, as rows of texts, sorted.
    pub(crate) fn answer(&self, view: &str, from: &Cut, to: &Cut) -> Vec<Vec<String>> {
        let mut cells: BTreeMap<Vec<String>, Cell> = BTreeMap::new();
        for values in self.records(from, to) {
            if let Some(key) = key_of(view, values) {
                cells.entry(key).or_default().add(values);
            }
        }
        let rows = cells.into_iter().map(|(key, cell)| key.into_iter().chain(cell.columns(view)).collect());
        let mut rows: Vec<Vec<String>> = rows.collect();
        rows.sort();
        rows
    }
}

/// The cell that an event belongs to, if the view counts it.
fn key_of(view: &str, values: &Values) -> Option<Vec<String>> {
    let k = values.k.clone().unwrap_or_else(|| "NULL".to_owned());
    if view != "windows" {
        return Some(vec![k]);
    }
    values.n.filter(|n| *n >= 0)?;
    let start_us = values.at_us.div_euclid(WINDOW_US) * WINDOW_US;
    Some(vec![k, civil(start_us / 1_000_000)])
}

#[derive(Debug, Default)]
struct Cell {
    count: i64,
    sum: Option<i64>,
    low: Option<i64>,
    high: Option<i64>,
}

impl Cell {
    fn add(&mut self, values: &Values) {
        self.count += 1;
        let Some(n) = values.n else { return };
        self.sum = Some(self.sum.unwrap_or(0) + n);
        self.low = Some(self.low.map_or(n, |low| low.min(n)));
        self.high = Some(self.high.map_or(n, |high| high.max(n)));
    }

    fn columns(&self, view: &str) -> Vec<String> {
        let shown = |value: Option<i64>| value.map_or_else(|| "NULL".to_owned(), |value| value.to_string());
        match view {
            "totals" => vec![self.count.to_string(), shown(self.sum), shown(self.low), shown(self.high)],
            "windows" => vec![self.count.to_string(), shown(self.sum)],
            _ => vec![self.count.to_string()],
        }
    }
}

/// Rows of an answer as [`Truth::answer`] has them: a time without its zone, numbers as texts.
pub(crate) fn shown(rows: &Value) -> Vec<Vec<String>> {
    let cell = |value: &Value| match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) if text.len() >= 19 && text.as_bytes()[10] == b'T' => text[..19].to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let rows = rows.as_array().into_iter().flatten();
    let mut rows: Vec<Vec<String>> = rows.map(|row| row.as_array().into_iter().flatten().map(cell).collect()).collect();
    rows.sort();
    rows
}
