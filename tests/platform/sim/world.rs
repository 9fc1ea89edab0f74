//! What outlives a process: objects, logs, the clock. And what of it a test may look at.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use object_store::memory::InMemory;
use parking_lot::{Mutex, MutexGuard};
use schemas::documents::manifest::Manifest;
use schemas::{Cut, Partition};
use storage::clock::ManualClock;
use storage::deltas;
use storage::log::Frame;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

/// The moment at which every simulation begins: 2024-01-01, microseconds.
pub(crate) const BEGINNING_US: i64 = 1_704_067_200_000_000;

/// Protocol bugs that a test plants into the world around the product; the product has none of this code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is planted alone or with others")]
pub(crate) struct Bugs {
    /// The store takes "create only if nothing is there" for "write": a fence that is skipped.
    pub(crate) skips_the_fence: bool,
    /// A run gets the log's head for its cut at once: nothing is checkpointed, and no barrier is there.
    pub(crate) publishes_before_the_barrier: bool,
    /// The store says that an owner's claims on publications are written, and does not write them: an older owner
    /// may publish.
    pub(crate) forgets_claims: bool,
    /// The log acknowledges, and shows to readers, what is not yet on its disk.
    pub(crate) acknowledges_before_the_fsync: bool,
}

/// Something that must not be: the invariant and what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) invariant: &'static str,
    pub(crate) what: String,
}

impl Violation {
    pub(crate) fn new(invariant: &'static str, what: impl Into<String>) -> Self {
        Self { invariant, what: what.into() }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// The disk of one log: what a new process finds.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) incarnation: Uuid,
    pub(crate) start: Cut,
    pub(crate) end: Cut,
    /// By partition, consecutive.
    pub(crate) frames: Vec<Vec<Frame>>,
}

impl Disk {
    pub(crate) fn new(incarnation: Uuid, partitions: u32) -> Self {
        let zero = Cut::zero(partitions);
        Self { incarnation, start: zero.clone(), end: zero, frames: vec![vec![]; partitions as usize] }
    }

    /// Puts rows at the end of their partition.
    pub(crate) fn place(&mut self, partition: Partition, rows: RecordBatch) -> Frame {
        let frame = Frame { partition, base: self.end.offset(partition), rows };
        self.end.set(partition, frame.end());
        if frame.rows.num_rows() > 0 {
            self.frames[partition as usize].push(frame.clone());
        }
        frame
    }
}

/// A delta that somebody wrote or tried to write: its states by view, in a form that compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) path: String,
    /// By view: where its part starts, its end, its version, its states.
    pub(crate) parts: Vec<(Uuid, Cut, Cut, String, u64)>,
}

/// Everything that outlives a process.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) bucket: Arc<InMemory>,
    pub(crate) clock: ManualClock,
    pub(crate) bugs: Bugs,
    /// Says everything at once.
    is_loud: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// By stream and kind.
    pub(crate) logs: BTreeMap<(Uuid, String), Disk>,
    /// The process whose appends reach the disks.
    pub(crate) log_writer: u32,
    /// Every object, as the bucket has it.
    pub(crate) objects: BTreeMap<String, Bytes>,
    /// Objects that were written again with other bytes.
    pub(crate) overwritten: Vec<String>,
    /// Deltas that were written, or lost to the fence, since the last look.
    pub(crate) deltas: Vec<Written>,
    /// Merged deltas and the barrier that they cross.
    pub(crate) crossings: Vec<String>,
    /// Short names of ids, in the order of their first use.
    names: BTreeMap<String, usize>,
    trace: Trace,
}

/// What happened, as one number; and in words, if they are asked for.
#[derive(Debug, Default)]
struct Trace {
    hash: u64,
    /// Of operations whose order among each other is not known.
    unordered: u64,
    lines: Vec<String>,
}

impl World {
    pub(crate) fn new(bugs: Bugs) -> Arc<Self> {
        let clock = ManualClock::at(BEGINNING_US);
        let is_loud = std::env::var_os("BIFOLD_SIM_TRACE").is_some();
        Arc::new(Self { bucket: Arc::default(), clock, bugs, is_loud, state: Mutex::default() })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Notes what happened, in order.
    pub(crate) fn note(&self, line: String) {
        let mut state = self.state.lock();
        let trace = &mut state.trace;
        let unordered = std::mem::take(&mut trace.unordered);
        trace.hash = xxh3_64(format!("{}|{unordered}|{line}", trace.hash).as_bytes());
        if self.is_loud {
            eprintln!("{line}");
        }
        trace.lines.push(line);
        if trace.lines.len() > 400 {
            trace.lines.drain(..200);
        }
    }

    /// Notes what happened at some time before the next [`World::note`].
    pub(crate) fn note_unordered(&self, line: &str) {
        let mut state = self.state.lock();
        state.trace.unordered = state.trace.unordered.wrapping_add(xxh3_64(line.as_bytes()));
        if self.is_loud {
            eprintln!("  ~ {line}");
        }
    }

    /// One number for everything that happened.
    pub(crate) fn trace(&self) -> u64 {
        self.state.lock().trace.hash
    }

    /// The last things that happened, in words.
    pub(crate) fn last_lines(&self, lines: usize) -> String {
        let state = self.state.lock();
        let all = &state.trace.lines;
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// A path with short names for ids, the same in every run of a seed. File names that nobody chooses
    /// among are all alike.
    pub(crate) fn short(&self, path: &str) -> String {
        let mut state = self.state.lock();
        let mut out = String::new();
        let mut rest = path;
        while let Some(at) = find_id(rest) {
            let (before, id) = (&rest[..at], &rest[at..at + 36]);
            out.push_str(before);
            let known = state.names.len();
            if before.contains("part-") {
                out.push('~');
            } else {
                let _ = write!(out, "<{}>", *state.names.entry(id.to_owned()).or_insert(known));
            }
            rest = &rest[at + 36..];
        }
        out + rest
    }
}

impl State {
    /// Takes over what the bucket has got.
    pub(crate) fn put(&mut self, path: &str, bytes: &Bytes) {
        let before = self.objects.insert(path.to_owned(), bytes.clone());
        if before.is_some_and(|before| before != bytes) {
            self.overwritten.push(path.to_owned());
        }
    }

    /// True for a manifest that names no other batch view than one that is there: an owner's claim.
    pub(crate) fn is_claim(&self, path: &str, bytes: &Bytes) -> bool {
        let Some((folder, _)) = path.rsplit_once('/').filter(|(folder, _)| folder.ends_with("/manifests")) else {
            return false;
        };
        let manifest = |bytes: &[u8]| serde_json::from_slice::<Manifest>(bytes).expect("a manifest");
        let claim = manifest(bytes);
        let mut others = self.objects.iter().filter(|(other, _)| other.starts_with(folder));
        !claim.has_batch_view() || others.any(|(_, other)| manifest(other).is_same_publication(&claim))
    }

    /// A delta that is about to be written: whoever wins, its content is a function of its range.
    pub(crate) fn note_delta(&mut self, path: &str, bytes: &Bytes, barriers: &[Cut]) {
        let Ok(delta) = deltas::decode(path, bytes) else {
            self.crossings.push(format!("{path} is no delta"));
            return;
        };
        let header = &delta.header;
        let inside = |cut: &&Cut| {
            header.from.is_at_most(cut)
                && cut.is_at_most(&header.to)
                && !cut.same_position(&header.from)
                && !cut.same_position(&header.to)
        };
        if let Some(crossed) = barriers.iter().find(inside) {
            self.crossings.push(format!("{path} from {} to {} crosses the barrier {crossed}", header.from, header.to));
        }
        let part = |(view, states): (&schemas::documents::delta::DeltaView, &Vec<RecordBatch>)| {
            let to = header.to.join(&view.from);
            (view.view, view.from.clone(), to, view.semantic_hash.clone(), digest(states))
        };
        let parts = header.views.iter().zip(&delta.states).map(part).collect();
        self.deltas.push(Written { path: path.to_owned(), parts });
    }
}

/// The rows' bytes, however they are split in batches.
fn digest(states: &[RecordBatch]) -> u64 {
    let Some(first) = states.first() else { return 0 };
    let whole = arrow::compute::concat_batches(&first.schema(), states).expect("states of one view");
    if whole.num_rows() == 0 {
        return 0;
    }
    let mut bytes = vec![];
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(&mut bytes, &whole.schema()).expect("a writer");
    writer.write(&whole).and_then(|()| writer.finish()).expect("memory takes everything");
    xxh3_64(&bytes)
}

/// Where the first id is in a text.
fn find_id(text: &str) -> Option<usize> {
    let is_id = |bytes: &[u8]| {
        bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    };
    text.as_bytes().windows(36).position(is_id)
}
