//! A reader in mode `append`.

use std::sync::Arc;

use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use schemas::Problem;
use storage::snapshot::ViewSnapshot;
use tokio::sync::OwnedSemaphorePermit;

use super::{Feed, Mark, Task};
use crate::changes::append::OpenRows;
use crate::changes::compare::pieces;
use crate::changes::shape::Shape;
use crate::changes::step::{Looked, Step};
use crate::changes::{Changes, Cursor, Event, contents};
use crate::engine::{Covered, stream_problem};

/// Rows that are looked up at once.
const CHUNK_ROWS: usize = 4_096;

impl Feed {
    /// Of the next rows of the whole view those that are final; the others are open.
    pub(super) async fn next_finals(
        &mut self,
        mut rows: SendableRecordBatchStream,
        turn: Arc<OwnedSemaphorePermit>,
        mark: Mark,
    ) -> Result<Option<Event>, Problem> {
        let Some(part) = rows.next().await else { return Ok(None) };
        let part = part.map_err(|e| stream_problem(&e))?;
        self.queue.push_front(Task::Finals(rows, turn, mark));
        let (Some(shape), Some(open)) = (&self.shape, &mut self.open) else { return Ok(None) };
        let upserts = open.split(shape, part, mark.watermark_us)?;
        let changes = Changes { version: mark.version, upserts, deletes: shape.decoded(&[])? };
        Ok((!changes.is_empty()).then_some(Event::Changed(changes)))
    }

    /// What of changes are corrections.
    pub(super) fn corrected(
        &mut self,
        shape: &Shape,
        changes: Changes,
        watermark_us: Option<i64>,
    ) -> Result<Option<Event>, Problem> {
        let Some(open) = &mut self.open else { return Ok(None) };
        let corrections = open.corrections(shape, changes, watermark_us)?;
        Ok((!corrections.is_empty()).then_some(Event::Corrected(corrections)))
    }

    /// One step: corrections of what was final, then what has become final.
    pub(super) async fn take_finals(
        &mut self,
        covered: &Covered,
        shape: &Arc<Shape>,
        step: Step,
        (cursor, next): (Cursor, Cursor),
    ) -> Result<(), Problem> {
        if self.open.is_none() || !step.is_known {
            let _turn = self.place.turn().await;
            let subject = (self.engine.as_ref(), shape.as_ref(), covered.def.name.as_str());
            self.open = Some(OpenRows::find(subject, &step.after, cursor.final_us).await?);
        }
        match step.cells {
            Looked::Nothing => {}
            Looked::Cells(ref touched) => {
                let pieces = pieces(shape, touched);
                let step = Arc::new(Step { cells: Looked::Nothing, ..step });
                let late = |piece| Task::Late(Arc::clone(&step), piece, cursor.final_us);
                self.queue.extend(pieces.into_iter().map(late));
            }
            Looked::Everything => {
                let _turn = self.place.turn().await;
                let before = step.is_known.then_some(&step.before);
                let subject = (self.engine.as_ref(), shape.as_ref(), covered.def.name.as_str());
                let Some(changes) = contents::compare(subject, before, &step.after).await? else {
                    let reason = "more has changed than is told one by one";
                    return self.hand_over(covered, reason.into(), next).await;
                };
                for one in changes {
                    let event = self.corrected(shape, one, cursor.final_us)?;
                    self.queue.extend(event.map(Task::Event));
                }
            }
        }
        self.queue.push_back(Task::Closing(Arc::clone(&covered.snapshot), next.final_us));
        self.queue.push_back(Task::Done(next, Arc::clone(&covered.snapshot)));
        Ok(())
    }

    /// Puts the rows into the queue that are final now.
    pub(super) fn close(&mut self, snapshot: &Arc<ViewSnapshot>, watermark_us: Option<i64>) -> Result<(), Problem> {
        let (Some(shape), Some(open)) = (&self.shape, &mut self.open) else { return Ok(()) };
        let keys = open.close(shape, watermark_us)?;
        let rows = keys.num_rows();
        for from in (0..rows).step_by(CHUNK_ROWS).rev() {
            let piece = keys.slice(from, CHUNK_ROWS.min(rows - from));
            self.queue.push_front(Task::Close(Arc::clone(snapshot), piece));
        }
        Ok(())
    }
}
