//! What every implementation of [`Log`] must do. A test of an implementation calls [`check`].

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::future::{join_all, try_join_all};
use schemas::{Cut, Offset, Partition};

use super::{Frame, Log, Pending, Placed};
use crate::error::StorageError;

/// Partitions of the logs under test.
pub const PARTITIONS: u32 = 3;

/// Makes logs of [`PARTITIONS`] partitions and [`schema`].
#[async_trait]
pub trait Subject: Send + Sync {
    /// A new, empty log.
    async fn create(&self) -> Result<Arc<dyn Log>, StorageError>;

    /// Appends five rows to partition 0, and as often as `behind` once more, all in the log's epoch, and
    /// lets the disk fail the first append. What comes later goes well again.
    ///
    /// # Errors
    /// An append was refused at once.
    async fn fail(&self, log: &dyn Log, behind: usize) -> Result<Vec<Pending>, StorageError>;

    /// The log again, after it was closed: nothing is left of what was in memory.
    async fn reopen(&self, log: Arc<dyn Log>) -> Result<Arc<dyn Log>, StorageError>;
}

/// The schema of the logs under test.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false), Field::new("text", DataType::Utf8View, true)]))
}

/// Rows with the numbers `from .. from + count`, some with a long text, some with none.
///
/// # Errors
/// Never, but for a bug in Arrow.
pub fn rows(from: i64, count: usize) -> Result<RecordBatch, StorageError> {
    let numbers = || from..from + count as i64;
    let text = |n: i64| if n % 3 == 0 { None } else { Some(format!("text of the row with number {n}")) };
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(numbers())),
        Arc::new(numbers().map(text).collect::<StringViewArray>()),
    ];
    RecordBatch::try_new(schema(), columns).map_err(|cause| StorageError::io("making rows", cause))
}

/// Runs the whole suite.
///
/// # Errors
/// The first thing that is not as it has to be, in words.
pub async fn check(subject: &dyn Subject) -> Result<(), StorageError> {
    appends_are_numbered_and_read_back(subject).await?;
    reads_start_anywhere_and_stop_in_time(subject).await?;
    empty_partitions_and_empty_appends(subject).await?;
    bad_appends_write_nothing(subject).await?;
    rows_are_visible_before_the_acknowledgement(subject).await?;
    concurrent_appends_keep_their_order(subject).await?;
    failed_append_ends_its_epoch(subject).await?;
    reopened_log_is_the_same(subject).await?;
    truncated_log_keeps_what_it_must(subject).await?;
    closed_log_refuses(subject).await
}

async fn append(log: &dyn Log, rows: Vec<(Partition, RecordBatch)>) -> Result<Vec<Placed>, StorageError> {
    log.append(log.epoch(), rows)?.durable().await
}

/// The numbers of a partition from an offset on, read in as many steps as it takes.
///
/// # Errors
/// Frames do not follow each other, or the log's own error.
pub async fn read_all(log: &dyn Log, partition: Partition, from: Offset) -> Result<Vec<i64>, StorageError> {
    let mut next = from;
    let mut numbers = vec![];
    loop {
        let frames = log.read(partition, next, 7).await?;
        if frames.is_empty() {
            expect("the end of the frames is the head", &next, &log.head().offset(partition).max(from))?;
            return Ok(numbers);
        }
        for frame in frames {
            expect("a frame's partition", &frame.partition, &partition)?;
            expect("a frame's base", &frame.base, &next)?;
            next = frame.end();
            numbers.extend(numbers_of(&frame)?);
        }
    }
}

fn numbers_of(frame: &Frame) -> Result<Vec<i64>, StorageError> {
    expect("a frame's schema", frame.rows.schema().fields(), schema().fields())?;
    let column = frame.rows.column(0).as_any().downcast_ref::<Int64Array>();
    let numbers: Vec<i64> = column.map(|column| column.values().to_vec()).unwrap_or_default();
    if let Some(first) = numbers.first() {
        expect("a frame's rows", &frame.rows, &rows(*first, numbers.len())?)?;
    }
    Ok(numbers)
}

fn expect<T: PartialEq + std::fmt::Debug + ?Sized>(what: &str, found: &T, wanted: &T) -> Result<(), StorageError> {
    if found == wanted {
        return Ok(());
    }
    Err(StorageError::io("conformance", format!("{what}: found {found:?}, expected {wanted:?}")))
}

fn expect_true(what: &str, holds: bool) -> Result<(), StorageError> {
    expect(what, &holds, &true)
}

async fn appends_are_numbered_and_read_back(subject: &dyn Subject) -> Result<(), StorageError> {
    let log = subject.create().await?;
    expect("partitions", &log.partitions(), &PARTITIONS)?;
    expect("a new head", &log.head(), &Cut::zero(PARTITIONS))?;
    let first = append(&*log, vec![(0, rows(0, 5)?), (2, rows(100, 3)?)]).await?;
    expect("first places", &first, &vec![(0, 0..5), (2, 0..3)])?;
    let second = append(&*log, vec![(2, rows(103, 2)?), (0, rows(5, 1)?), (2, rows(105, 1)?)]).await?;
    expect("second places", &second, &vec![(2, 3..5), (0, 5..6), (2, 5..6)])?;
    expect("the head", &log.head(), &Cut(vec![6, 0, 6]))?;
    expect("partition 0", &read_all(&*log, 0, 0).await?, &(0..6).collect())?;
    expect("partition 1", &read_all(&*log, 1, 0).await?, &vec![])?;
    expect("partition 2", &read_all(&*log, 2, 0).await?, &(100..106).collect())?;
    log.close().await;
    Ok(())
}

async fn reads_start_anywhere_and_stop_in_time(subject: &dyn Subject) -> Result<(), StorageError> {
    let log = subject.create().await?;
    for step in 0..12 {
        append(&*log, vec![(1, rows(step * 10, 10)?)]).await?;
    }
    for from in 0..=120 {
        expect("rows from an offset on", &read_all(&*log, 1, from).await?, &(from as i64..120).collect())?;
    }
    let few = log.read(1, 15, 20).await?;
    let count: usize = few.iter().map(|frame| frame.rows.num_rows()).sum();
    expect("the first frame is clipped", &few.first().map(|frame| frame.base), &Some(15))?;
    expect_true("a read stops after about rows_max rows", (20..40).contains(&count))?;
    expect_true("a read of no rows gives some all the same", !log.read(1, 0, 0).await?.is_empty())?;
    expect_true("beyond the head is nothing", log.read(1, 500, 10).await?.is_empty())?;
    log.close().await;
    Ok(())
}

async fn empty_partitions_and_empty_appends(subject: &dyn Subject) -> Result<(), StorageError> {
    let log = subject.create().await?;
    append(&*log, vec![(0, rows(0, 4)?)]).await?;
    expect("an append of nothing", &append(&*log, vec![]).await?, &vec![])?;
    let empty = append(&*log, vec![(0, rows(0, 0)?), (1, rows(0, 0)?)]).await?;
    expect("places of no rows", &empty, &vec![(0, 4..4), (1, 0..0)])?;
    append(&*log, vec![(1, rows(0, 0)?), (0, rows(4, 2)?)]).await?;
    expect("what was appended around them", &read_all(&*log, 0, 0).await?, &(0..6).collect())?;
    let log = subject.reopen(log).await?;
    expect("what is left of them", &log.head(), &Cut(vec![6, 0, 0]))?;
    log.close().await;
    Ok(())
}

async fn bad_appends_write_nothing(subject: &dyn Subject) -> Result<(), StorageError> {
    let log = subject.create().await?;
    append(&*log, vec![(0, rows(0, 1)?)]).await?;
    let unknown = log.append(log.epoch(), vec![(0, rows(1, 1)?), (PARTITIONS, rows(0, 1)?)]);
    expect_true("an unknown partition is refused", unknown.is_err())?;
    let other = RecordBatch::new_empty(Arc::new(Schema::empty()));
    let other = log.append(log.epoch(), vec![(0, rows(1, 1)?), (1, other)]);
    expect_true("rows of another schema are refused", other.is_err())?;
    expect("the head after refused appends", &log.head(), &Cut(vec![1, 0, 0]))?;
    append(&*log, vec![(0, rows(1, 1)?)]).await?;
    expect("nothing of them is there", &read_all(&*log, 0, 0).await?, &vec![0, 1])?;
    log.close().await;
    Ok(())
}

async fn rows_are_visible_before_the_acknowledgement(subject: &dyn Subject) -> Result<(), StorageError> {
    let log = subject.create().await?;
    let mut watched = log.watch_head();
    let mut last = watched.borrow_and_update().clone();
    for step in 0..50 {
        let placed = append(&*log, vec![((step % 3) as Partition, rows(step, 1)?)]).await?;
        for (partition, range) in placed {
            expect_true("the head has moved", log.head().offset(partition) >= range.end)?;
            expect_true("the rows are there", !log.read(partition, range.start, 1).await?.is_empty())?;
        }
        expect_true("the watched head has moved", watched.has_changed().unwrap_or(false))?;
        let head = watched.borrow_and_update().clone();
        expect_true("the head never moves back", last.is_at_most(&head))?;
        last = head;
    }
    log.close().await;
    Ok(())
}

/// Many writers; each one's rows come in the order of its calls, and no row is lost or doubled.
async fn concurrent_appends_keep_their_order(subject: &dyn Subject) -> Result<(), StorageError> {
    const WRITERS: i64 = 8;
    const APPENDS: i64 = 25;
    let log = subject.create().await?;
    let writers = (0..WRITERS).map(|writer| {
        let log = Arc::clone(&log);
        async move {
            let mut pending = vec![];
            for step in 0..APPENDS {
                let first = writer * 1_000 + step * 4;
                pending.push(log.append(log.epoch(), vec![(0, rows(first, 2)?), (1, rows(first + 2, 2)?)])?);
                tokio::task::yield_now().await;
            }
            try_join_all(pending.into_iter().map(Pending::durable)).await
        }
    });
    for placed in join_all(writers).await {
        let mut next = [0, 0];
        for (partition, range) in placed?.into_iter().flatten() {
            let next = &mut next[partition as usize];
            expect_true("a writer's rows come in the order of its calls", range.start >= *next)?;
            *next = range.end;
        }
    }
    for partition in 0..2 {
        let mut numbers = read_all(&*log, partition, 0).await?;
        numbers.sort_unstable();
        let first = i64::from(partition) * 2;
        let one = |writer: i64| (0..APPENDS).flat_map(move |s| [0, 1].map(|n| writer * 1_000 + s * 4 + first + n));
        expect("all rows, once", &numbers, &(0..WRITERS).flat_map(one).collect())?;
    }
    log.close().await;
    Ok(())
}

/// Nothing that was decided on top of a failed append is ever written.
async fn failed_append_ends_its_epoch(subject: &dyn Subject) -> Result<(), StorageError> {
    let log = subject.create().await?;
    let epoch = log.epoch();
    append(&*log, vec![(0, rows(0, 3)?)]).await?;
    expect("the epoch after a good append", &log.epoch(), &epoch)?;
    for pending in subject.fail(&*log, 2).await? {
        expect_true("an append that failed, or is behind one, is refused", pending.durable().await.is_err())?;
        expect_true("the epoch has ended before that is known", log.epoch() > epoch)?;
    }
    let outdated = log.append(epoch, vec![(0, rows(900, 5)?)]);
    expect_true("an ended epoch is refused", matches!(outdated, Err(StorageError::Outdated { .. })))?;
    expect("the head after refused appends", &log.head(), &Cut(vec![3, 0, 0]))?;
    append(&*log, vec![(0, rows(3, 2)?)]).await?;
    expect("nothing of them is there", &read_all(&*log, 0, 0).await?, &(0..5).collect())?;
    let log = subject.reopen(log).await?;
    append(&*log, vec![(0, rows(5, 1)?)]).await?;
    expect("nor after a restart", &read_all(&*log, 0, 0).await?, &(0..6).collect())?;
    log.close().await;
    Ok(())
}

async fn reopened_log_is_the_same(subject: &dyn Subject) -> Result<(), StorageError> {
    let mut log = subject.create().await?;
    let incarnation = log.incarnation();
    for round in 0..4 {
        for step in 0..10 {
            append(&*log, vec![(0, rows(round * 20 + step * 2, 2)?), (2, rows(round * 10 + step, 1)?)]).await?;
        }
        let head = log.head();
        log = subject.reopen(log).await?;
        expect("the incarnation", &log.incarnation(), &incarnation)?;
        expect("the head", &log.head(), &head)?;
        expect("partition 0", &read_all(&*log, 0, 0).await?, &((0..(round + 1) * 20).collect()))?;
        expect("partition 2", &read_all(&*log, 2, 3).await?, &((3..(round + 1) * 10).collect()))?;
    }
    log.close().await;
    Ok(())
}

async fn truncated_log_keeps_what_it_must(subject: &dyn Subject) -> Result<(), StorageError> {
    let mut log = subject.create().await?;
    for step in 0..200 {
        append(&*log, vec![(0, rows(step * 5, 5)?), (1, rows(step, 1)?)]).await?;
    }
    let mut reached = Cut::default();
    for below in [Cut(vec![500, 50]), Cut(vec![900, 10]), Cut(vec![990, 199]), Cut(vec![1_000, 200])] {
        log.truncate(&below).await?;
        let start = log.start();
        reached = reached.join(&below);
        expect_true("nothing at or beyond the cuts is gone", start.is_at_most(&reached))?;
        log = subject.reopen(log).await?;
        expect("the start after a restart", &log.start(), &start)?;
        expect("the head", &log.head(), &Cut(vec![1_000, 200, 0]))?;
        let first = start.offset(0);
        expect("what is kept", &read_all(&*log, 0, first).await?, &(first as i64..1_000).collect())?;
        if first > 0 {
            let gone = log.read(0, first - 1, 1).await;
            expect_true("below the start is not found", matches!(gone, Err(StorageError::NotFound { .. })))?;
        }
    }
    append(&*log, vec![(0, rows(1_000, 1)?), (2, rows(7, 1)?)]).await?;
    expect("the log goes on", &log.head(), &Cut(vec![1_001, 200, 1]))?;
    log.close().await;
    Ok(())
}

async fn closed_log_refuses(subject: &dyn Subject) -> Result<(), StorageError> {
    let log = subject.create().await?;
    let pending = log.append(log.epoch(), vec![(0, rows(0, 3)?)])?;
    log.close().await;
    expect("what was queued is durable", &pending.durable().await?, &vec![(0, 0..3)])?;
    let refused = log.append(log.epoch(), vec![(0, rows(3, 1)?)]);
    expect_true("a closed log refuses", matches!(refused, Err(StorageError::Closed { .. })))?;
    expect("and is still read", &read_all(&*log, 0, 0).await?, &vec![0, 1, 2])
}
