//! Opening a log: finds the frames that are there and cuts what a crash left behind.
//!
//! A bad frame is a torn tail if its group was never acknowledged, and damage if it was. It was not
//! if it lies in the newest segment and nothing intact behind it is of a later group: a group is
//! begun only after the one before it is durable.

use std::collections::VecDeque;
use std::ops::Range;

use schemas::{Cut, Offset};

use super::commit::Writer;
use super::frame::{ALIGNMENT, HEADER, Header, LAST_OF_APPEND, LAST_OF_GROUP, is_intact, next_group};
use super::read::{bytes_at, header_at};
use super::segment::{self, Begin, Segment};
use super::{Identity, StorageError};

/// A log as it was found.
pub(super) struct Recovered {
    pub(super) segments: VecDeque<Segment>,
    /// The next offset of each partition.
    pub(super) next: Cut,
    /// The newest segment, ready to be written on.
    pub(super) writer: Writer,
    /// The number that the next group gets.
    pub(super) group: u32,
}

pub(super) fn recover(identity: &Identity) -> Result<Recovered, StorageError> {
    let numbers = segment::list(&identity.folder)?;
    let Some(&newest) = numbers.last() else { return create(identity) };
    let mut scan: Option<Scan> = None;
    let mut segments = VecDeque::new();
    for (&number, expected) in numbers.iter().zip(numbers[0]..) {
        if number != expected {
            let path = segment::path_of(&identity.folder, expected).display().to_string();
            return Err(StorageError::Damaged { path, reason: "the segment is missing".into() });
        }
        let mut segment = Segment::open(identity, number)?;
        let first = Scan { identity, next: segment.bases.clone(), group: segment.group };
        let scan = scan.get_or_insert(first);
        scan.segment(&mut segment, number == newest)?;
        segments.push_back(segment);
    }
    let (Some(scan), Some(active)) = (scan, segments.back()) else { return create(identity) };
    // A killed process may have written what it had not synced: from here on it counts as durable.
    let synced = active.file.sync_all();
    synced.map_err(|cause| StorageError::io(format!("syncing log segment {newest}"), cause))?;
    let writer = Writer::new(active);
    Ok(Recovered { next: scan.next, writer, group: scan.group, segments })
}

fn create(identity: &Identity) -> Result<Recovered, StorageError> {
    let next = Cut::zero(identity.partitions());
    let segment = Segment::create(identity, 0, Begin { bases: next.clone(), group: 0 })?;
    let writer = Writer::new(&segment);
    Ok(Recovered { segments: [segment].into(), next, writer, group: 0 })
}

/// The way through all segments.
struct Scan<'a> {
    identity: &'a Identity,
    /// The next offset of each partition.
    next: Cut,
    /// The group of the next frame.
    group: u32,
}

impl Scan<'_> {
    fn segment(&mut self, segment: &mut Segment, is_newest: bool) -> Result<(), StorageError> {
        if !segment.bases.same_position(&self.next) || segment.group != self.group {
            let reason = format!("it begins at {}, the one before ends at {}", segment.bases, self.next);
            return Err(self.damaged(segment, reason));
        }
        let failed = |cause| StorageError::io(format!("reading log segment {}", segment.number), cause);
        let file_length = segment.file.metadata().map_err(failed)?.len();
        let mut position = segment.frames_at;
        // Frames of an append that has not come to its end.
        let mut open: Vec<(Header, u64)> = vec![];
        let (mut ahead, mut group) = (self.next.clone(), self.group);
        while position < file_length {
            let header = self.frame(segment, position, file_length, is_newest)?;
            let is_due = |header: &Header| header.group() == group && header.base == ahead.offset(header.partition);
            let Some(header) = header.filter(is_due) else {
                return self.bad(segment, position..file_length, group, is_newest);
            };
            group = if header.marks & LAST_OF_GROUP == 0 { group } else { next_group(group) };
            ahead.set(header.partition, header.end());
            open.push((header, position));
            position += u64::from(header.length);
            if header.marks & LAST_OF_APPEND != 0 {
                self.accept(segment, &mut open, position);
                self.group = group;
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        if is_newest { cut(segment) } else { Err(self.damaged(segment, "its last append is cut".into())) }
    }

    /// The header of the frame at a position; none if there is no whole frame. Only frames of the
    /// newest segment can be torn, so only their rows are verified here.
    fn frame(
        &self,
        segment: &Segment,
        position: u64,
        file_length: u64,
        is_newest: bool,
    ) -> Result<Option<Header>, StorageError> {
        let failed = |cause| StorageError::io(format!("reading log segment {}", segment.number), cause);
        let room = file_length - position;
        if room < HEADER as u64 {
            return Ok(None);
        }
        let header = header_at(&segment.file, position).map_err(failed)?;
        if !header.is_plausible(self.identity.partitions()) || u64::from(header.length) > room {
            return Ok(None);
        }
        if !is_newest {
            return Ok(Some(header));
        }
        let bytes = bytes_at(&segment.file, position, header.length as usize).map_err(failed)?;
        Ok(Some(header).filter(|header| is_intact(header, &bytes)))
    }

    fn accept(&mut self, segment: &mut Segment, open: &mut Vec<(Header, u64)>, end: u64) {
        for (header, position) in open.drain(..) {
            segment.note(header.partition, header.base, position);
            self.next.set(header.partition, header.end());
        }
        segment.length = end;
    }

    /// Decides about the bad frame of `group` at the start of the range: cuts a torn tail, reports damage.
    fn bad(&self, segment: &Segment, range: Range<u64>, group: u32, is_newest: bool) -> Result<(), StorageError> {
        let bad = range.start;
        if !is_newest {
            return Err(self.damaged(segment, format!("no frame at {bad}")));
        }
        for at in range.clone().step_by(ALIGNMENT) {
            let intact = self.frame(segment, at, range.end, true)?;
            if intact.is_some_and(|intact| at == bad || intact.group() != group) {
                return Err(self.damaged(segment, format!("the frame at {bad} is bad, and later ones are there")));
            }
        }
        cut(segment)
    }

    fn damaged(&self, segment: &Segment, reason: String) -> StorageError {
        let path = segment::path_of(&self.identity.folder, segment.number).display().to_string();
        StorageError::Damaged { path, reason }
    }
}

/// Cuts a segment after its last whole append.
fn cut(segment: &Segment) -> Result<(), StorageError> {
    let (number, length): (u64, Offset) = (segment.number, segment.length);
    tracing::warn!(segment = number, length, "cut the torn tail of a log segment");
    let done = segment.file.set_len(length).and_then(|()| segment.file.sync_all());
    done.map_err(|cause| StorageError::io(format!("cutting log segment {number}"), cause))
}
