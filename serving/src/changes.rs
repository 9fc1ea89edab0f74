//! The changes of a view: what readers over HTTP and sinks are given, in both layers.
//!
//! ```text
//!  cursor C ──► ranges of the snapshot that reach beyond C ──► the cells that they have a part in
//!                                                                 │ before: what lies below C     ┐ compared:
//!                                                                 └ after:  everything            ┘ what differs is sent
//! ```
//!
//! Nothing is kept for a reader that stays away: where it is, its cursor says, and what has happened since, the
//! deltas and the tail say. A reader that is slow finds several steps as one. A published batch view has the values
//! that were there before, so it is no change, unless its certificate says that cells differ.

mod append;
mod compare;
mod contents;
mod cursor;
mod event;
mod feed;
mod finality;
pub(crate) mod json;
mod past;
mod room;
mod shape;
mod step;

pub use cursor::Cursor;
pub use event::{Changes, Event, Published};
pub use feed::{Feed, FeedRequest};
pub use room::FeedRoom;

use std::sync::Arc;

use operators::{RowFinish, View};
use schemas::{Code, OutputMode, Problem, StreamDef, ViewDef};

/// Refuses a mode in which the changes of a view cannot be told; `name` is the view's.
///
/// # Errors
/// `unsupported`, with the reason and the mode that works.
pub fn check(view: &Arc<View>, name: &str, stream: &StreamDef, mode: OutputMode) -> Result<(), Problem> {
    if mode == OutputMode::Complete {
        return Ok(());
    }
    let shape = shape::Shape::of(view, name, RowFinish::of(view).map(Arc::new))?;
    if mode == OutputMode::Append { check_append(&shape, name, stream) } else { Ok(()) }
}

/// Why the changes of a view over `UNION ALL` are not told, and what to follow instead.
pub fn of_union(name: &str, parts: &[&ViewDef]) -> Problem {
    let what =
        format!("view {name}: changes are told by the position of one stream, and {name} is made of several views");
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    Problem::new(Code::Unsupported, what)
        .with_hint(format!("follow its parts, each of which has its own rows: {}", names.join(", ")))
}

/// Rows become final with their windows.
fn check_append(shape: &shape::Shape, name: &str, stream: &StreamDef) -> Result<(), Problem> {
    if shape.view.is_closed_by_watermark() && stream.time_column.is_some() {
        return Ok(());
    }
    let what = format!("view {name}: mode append hands over rows that are final, and its rows never are");
    let hint = "GROUP BY windows over the event time of a stream with a WATERMARK (TUMBLE, HOP, …); or use mode update";
    Err(Problem::new(Code::Unsupported, what).with_hint(hint))
}
