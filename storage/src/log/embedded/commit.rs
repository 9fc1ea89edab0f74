//! The commit thread: takes all that is queued, writes it at once, syncs it once.

use std::fs::File;
use std::io::{IoSlice, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::Instant;

use schemas::Cut;

use super::Identity;
use super::frame::{EncodedFrame, LAST_OF_APPEND, LAST_OF_GROUP, next_group};
use super::queue::{Queue, Request};
use super::segment::{Begin, Segment};
use super::state::{Durable, State};
use crate::error::StorageError;
use crate::log::{Frame, Placed};

/// Slices handed to one `writev`; more than the kernel takes is of no use.
const SLICES_MAX: usize = 1_024;

/// The end of the newest segment.
#[derive(Debug)]
pub(super) struct Writer {
    number: u64,
    file: Arc<File>,
    frames_at: u64,
    /// Everything below it is durable.
    length: u64,
    #[cfg(test)]
    pub(super) faults: Arc<super::tests::Faults>,
}

impl Writer {
    pub(super) fn new(segment: &Segment) -> Self {
        Self {
            number: segment.number,
            file: Arc::clone(&segment.file),
            frames_at: segment.frames_at,
            length: segment.length,
            #[cfg(test)]
            faults: super::tests::Faults::current(),
        }
    }

    fn go_on_in(&mut self, segment: &Segment) {
        self.number = segment.number;
        self.file = Arc::clone(&segment.file);
        self.frames_at = segment.frames_at;
        self.length = segment.length;
    }

    /// Writes and syncs at the end. After an error the file has the length that it had before.
    fn write(&mut self, slices: &mut [IoSlice<'_>], bytes: u64) -> Result<(), WriteError> {
        match self.try_write(slices) {
            Ok(()) => {
                self.length += bytes;
                Ok(())
            }
            Err(cause) => match self.cut_back() {
                Ok(()) => Err(WriteError { cause, is_final: false }),
                Err(_) => Err(WriteError { cause, is_final: true }),
            },
        }
    }

    fn try_write(&mut self, mut slices: &mut [IoSlice<'_>]) -> std::io::Result<()> {
        let mut file = &*self.file;
        file.seek(SeekFrom::Start(self.length))?;
        while !slices.is_empty() {
            #[cfg(test)]
            self.faults.on_write()?;
            let some = slices.len().min(SLICES_MAX);
            match file.write_vectored(&slices[..some]) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut slices, written),
                Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(cause),
            }
        }
        #[cfg(test)]
        self.faults.on_sync()?;
        file.sync_data()
    }

    fn cut_back(&self) -> std::io::Result<()> {
        #[cfg(test)]
        self.faults.on_cut()?;
        self.file.set_len(self.length)?;
        self.file.sync_all()
    }
}

/// Why a group was not written.
struct WriteError {
    cause: std::io::Error,
    /// True if the file could not be brought back to its durable length: what it holds is unknown.
    is_final: bool,
}

pub(super) struct Committer {
    pub(super) identity: Arc<Identity>,
    pub(super) queue: Arc<Queue>,
    pub(super) state: Arc<State>,
    pub(super) writer: Writer,
    /// The number of the next group.
    pub(super) group: u32,
    pub(super) segment_bytes: u64,
}

impl Committer {
    /// Commits until the queue is closed and empty, or the log has failed for good.
    pub(super) fn run(mut self) {
        let _guard = FailOnPanic(Arc::clone(&self.queue));
        while let Some(requests) = self.queue.take() {
            let bytes = requests.iter().flat_map(|request| &request.frames).map(EncodedFrame::bytes).sum();
            if let Err(reason) = self.commit(requests) {
                tracing::error!(folder = %self.identity.folder.display(), reason, "the log takes nothing any more");
                self.queue.fail(&reason);
                return;
            }
            self.queue.release(bytes);
        }
    }

    /// Commits one group. An error is the end of the log; a group that merely failed is none.
    fn commit(&mut self, mut requests: Vec<Request>) -> Result<(), String> {
        let began = Instant::now();
        let mut next = self.state.head();
        let placed = seal(&mut requests, &mut next, self.group);
        let result = self.roll_if_full(&requests).and_then(|()| self.write(&requests));
        match result {
            Ok(bytes) => {
                if bytes > 0 {
                    self.group = next_group(self.group);
                }
                metrics::histogram!("bifold_log_commit_seconds").record(began.elapsed().as_secs_f64());
                metrics::counter!("bifold_log_commits_total").increment(1);
                self.publish(requests, placed, next);
                Ok(())
            }
            Err(failure) => {
                let reason = failure.cause.to_string();
                tracing::error!(error = reason, "a group of appends was not written");
                // The epoch ends first: who was told finds the next one.
                let behind = self.queue.end_epoch();
                for request in requests.into_iter().chain(behind) {
                    // Nobody waits any more: nobody needs to know.
                    let cause = std::io::Error::new(failure.cause.kind(), reason.clone());
                    let _ = request.done.send(Err(StorageError::io("writing to the log", cause)));
                }
                if failure.is_final { Err(reason) } else { Ok(()) }
            }
        }
    }

    fn roll_if_full(&mut self, requests: &[Request]) -> Result<(), WriteError> {
        let group: u64 = frames_of(requests).map(|frame| frame.bytes() as u64).sum();
        let is_empty = self.writer.length == self.writer.frames_at;
        if is_empty || group == 0 || self.writer.length + group <= self.segment_bytes {
            return Ok(());
        }
        let begin = Begin { bases: self.state.head(), group: self.group };
        let created = Segment::create(&self.identity, self.writer.number + 1, begin);
        let segment = created.map_err(|cause| WriteError { cause: with_kind(cause), is_final: false })?;
        self.writer.go_on_in(&segment);
        self.state.begin(segment);
        Ok(())
    }

    fn write(&mut self, requests: &[Request]) -> Result<u64, WriteError> {
        let mut slices: Vec<IoSlice<'_>> = frames_of(requests)
            .flat_map(EncodedFrame::parts)
            .filter(|part| !part.is_empty())
            .map(IoSlice::new)
            .collect();
        let bytes: u64 = slices.iter().map(|slice| slice.len() as u64).sum();
        if bytes == 0 {
            return Ok(0);
        }
        metrics::counter!("bifold_log_bytes_total").increment(bytes);
        self.writer.write(&mut slices, bytes)?;
        Ok(bytes)
    }

    /// Readers first, then the waiters: who was told finds his rows.
    fn publish(&self, requests: Vec<Request>, placed: Vec<Vec<Placed>>, head: Cut) {
        let group: u64 = frames_of(&requests).map(|frame| frame.bytes() as u64).sum();
        let mut position = self.writer.length - group;
        let mut durable = vec![];
        let mut waiters = vec![];
        for (request, places) in requests.into_iter().zip(placed) {
            for (frame, (partition, range)) in request.frames.into_iter().zip(&places) {
                if range.is_empty() {
                    continue;
                }
                let bytes = frame.bytes();
                let frame = Frame { partition: *partition, base: range.start, rows: frame.rows };
                durable.push(Durable { frame, position, bytes });
                position += bytes as u64;
            }
            waiters.push((request.done, places));
        }
        self.state.publish(durable, self.writer.length, head);
        for (done, places) in waiters {
            // Nobody waits any more: the rows are there all the same.
            let _ = done.send(Ok(places));
        }
    }
}

/// The same error, of the kind of its cause.
fn with_kind(error: StorageError) -> std::io::Error {
    let kind = match &error {
        StorageError::Io { source, .. } => source.downcast_ref::<std::io::Error>().map(std::io::Error::kind),
        _ => None,
    };
    std::io::Error::new(kind.unwrap_or(std::io::ErrorKind::Other), error)
}

/// Lets nobody wait for a thread that is gone.
struct FailOnPanic(Arc<Queue>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("its commit thread panicked");
        }
    }
}

/// Gives every frame its offsets; returns them per append.
pub(in crate::log) fn seal(requests: &mut [Request], next: &mut Cut, group: u32) -> Vec<Vec<Placed>> {
    let is_written = |rows: usize| rows > 0;
    let appends = requests.len();
    let last_append =
        requests.iter().rposition(|r| r.frames.iter().any(|f| is_written(f.rows.num_rows()))).unwrap_or(appends);
    let mut placed = Vec::with_capacity(appends);
    for (index, request) in requests.iter_mut().enumerate() {
        let last_frame = request.frames.iter().rposition(|frame| is_written(frame.rows.num_rows()));
        let mut places = Vec::with_capacity(request.frames.len());
        for (at, frame) in request.frames.iter_mut().enumerate() {
            let partition = frame.partition();
            let base = next.offset(partition);
            let mut marks = 0;
            if last_frame == Some(at) {
                marks = if index == last_append { LAST_OF_APPEND | LAST_OF_GROUP } else { LAST_OF_APPEND };
            }
            let end = frame.seal(base, group, marks).end();
            next.set(partition, end);
            places.push((partition, base..end));
        }
        placed.push(places);
    }
    placed
}

/// The frames that are written: those with rows.
pub(in crate::log) fn frames_of(requests: &[Request]) -> impl Iterator<Item = &EncodedFrame> {
    requests.iter().flat_map(|request| &request.frames).filter(|frame| frame.rows.num_rows() > 0)
}
