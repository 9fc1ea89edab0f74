//! One reader of a view's changes. It is asked, it never pushes: what a slow reader has not asked for takes no room.

mod finals;
mod joined;
mod task;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use operators::view::Touched;
use schemas::{Code, OutputMode, Problem, ViewDef};
use storage::batch_view::BatchViewReader;
use storage::snapshot::ViewSnapshot;
use tokio::time::Instant;

use self::joined::Joined;
use self::task::{Mark, Task};
use super::append::OpenRows;
use super::compare::{compare, pieces};
use super::contents;
use super::finality::watermark_us;
use super::room::Place;
use super::shape::Shape;
use super::step::{Counts, Looked, Plan, Step, may_differ, plan, published, sequence};
use super::{Changes, Cursor, Event};
use crate::engine::{Covered, QueryEngine, Snapshots, stream_problem};
use crate::source::Layer;

/// Rows that are handed over at once.
const PAGE_ROWS: usize = 1_000;
/// How long a snapshot of the log may take.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(30);
/// So often a reader hears something, also when nothing changes.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What a reader asks for.
#[derive(Debug, Clone)]
pub struct FeedRequest {
    /// The view's name.
    pub view: String,
    /// Which rows.
    pub mode: OutputMode,
    /// The pause between two looks.
    pub every: Duration,
    /// Where the reader is; none for one that begins.
    pub cursor: Option<Cursor>,
    /// True if the reader keeps nothing of a step that it has not got whole: it has exactly what was there at its cursor.
    pub has_whole_steps: bool,
}

/// A reader.
#[derive(Debug)]
pub struct Feed {
    engine: Arc<QueryEngine>,
    place: Place,
    request: FeedRequest,
    shape: Option<Arc<Shape>>,
    queue: VecDeque<Task>,
    counts: Counts,
    /// In mode `append`, the rows that are not final at the cursor; none if they are to be found.
    open: Option<OpenRows>,
    /// In mode `complete`, what the view joined when it was handed over.
    joined: Joined,
    /// The last look found nothing, or the last step is complete: there is time until the next look.
    rests: bool,
    /// When the reader heard something last; none before the first time.
    said: Option<Instant>,
}

impl Feed {
    /// A reader of a view. What it asks for is checked; nothing is read yet.
    ///
    /// # Errors
    /// `not_found`; `unsupported` for a view whose changes cannot be told in this mode; `overloaded`.
    pub fn open(engine: &Arc<QueryEngine>, request: FeedRequest) -> Result<Self, Problem> {
        let (_, shape) = shape(engine, &request)?;
        Ok(Self {
            place: engine.feeds.enter()?,
            engine: Arc::clone(engine),
            request,
            shape,
            queue: VecDeque::new(),
            counts: Counts::default(),
            open: None,
            joined: Joined::default(),
            rests: false,
            said: None,
        })
    }

    /// The schema of the view's rows, and its key columns in them; no keys in mode `complete`.
    ///
    /// # Errors
    /// The view is gone.
    pub fn columns(&self) -> Result<(arrow::datatypes::SchemaRef, Vec<usize>), Problem> {
        match &self.shape {
            Some(shape) => Ok((shape.view.output_schema(), shape.keys.clone())),
            None => Ok((known_view(&self.engine, &self.request.view)?.1.output_schema(), vec![])),
        }
    }

    /// True if the view has one row at most, which has no key.
    pub fn is_one_row(&self) -> bool {
        self.shape.as_ref().is_some_and(|shape| shape.is_one_row())
    }

    /// The next event, as soon as there is one. None at the end: the server stops.
    ///
    /// # Errors
    /// `not_found` when the view was dropped; `not_ready`; whatever else a query can end with. The reader goes on where
    /// its last [`Event::Progress`] was.
    pub async fn next(&mut self) -> Result<Option<Event>, Problem> {
        loop {
            while let Some(task) = self.queue.pop_front() {
                if let Some(event) = self.carry_out(task).await? {
                    self.said = Some(Instant::now());
                    return Ok(Some(event));
                }
            }
            if self.rests && !self.place.rest(self.request.every).await {
                return Ok(None);
            }
            self.rests = true;
            self.look().await?;
        }
    }

    async fn carry_out(&mut self, task: Task) -> Result<Option<Event>, Problem> {
        match task {
            Task::Event(event) => Ok(Some(event)),
            Task::Rows(mut rows, turn, version) => match rows.next().await {
                None => Ok(None),
                Some(part) => {
                    let part = part.map_err(|e| stream_problem(&e))?;
                    let deletes = RecordBatch::new_empty(part.schema());
                    self.queue.push_front(Task::Rows(rows, turn, version));
                    for from in (0..part.num_rows()).step_by(PAGE_ROWS).rev() {
                        let upserts = part.slice(from, PAGE_ROWS.min(part.num_rows() - from));
                        let page = Changes { version, upserts, deletes: deletes.clone() };
                        self.queue.push_front(Task::Event(Event::Changed(page)));
                    }
                    Ok(None)
                }
            },
            Task::Cells(step, touched) => {
                let Some(shape) = self.shape.clone() else { return Ok(None) };
                let changes = self.compared(&shape, &step, &touched).await?;
                Ok((!changes.is_empty()).then_some(Event::Changed(changes)))
            }
            Task::Finals(rows, turn, mark) => self.next_finals(rows, turn, mark).await,
            Task::Late(step, touched, watermark_us) => {
                let Some(shape) = self.shape.clone() else { return Ok(None) };
                let changes = self.compared(&shape, &step, &touched).await?;
                self.corrected(&shape, changes, watermark_us)
            }
            Task::Closing(snapshot, watermark_us) => self.close(&snapshot, watermark_us).map(|()| None),
            Task::Close(snapshot, keys) => {
                let Some(shape) = self.shape.clone() else { return Ok(None) };
                let reader = self.reader(&snapshot).await?;
                let upserts = OpenRows::rows(&shape, &snapshot, reader.as_deref(), &keys).await?;
                let changes = Changes { version: snapshot.to.total(), upserts, deletes: shape.decoded(&[])? };
                Ok((!changes.is_empty()).then_some(Event::Changed(changes)))
            }
            Task::Done(cursor, snapshot) => {
                self.place.hold(&snapshot);
                self.request.cursor = Some(cursor.clone());
                Ok(Some(Event::Progress(cursor)))
            }
        }
    }

    /// Looks at the newest snapshot, and puts what has to be said into the queue.
    async fn look(&mut self) -> Result<(), Problem> {
        self.engine.feeds.forget_old();
        let covered = self.covered().await?;
        let after = Arc::clone(&covered.snapshot);
        let next = self.cursor_at(&covered);
        let Some(cursor) = self.request.cursor.clone() else {
            return self.hand_over(&covered, "the beginning".into(), next).await;
        };
        if cursor.view != covered.def.id {
            return self.hand_over(&covered, "the view was created anew".into(), next).await;
        }
        if sequence(&after) != cursor.sequence
            && let Some(manifest) = &after.manifest
        {
            self.queue.push_back(Task::Event(Event::Published(published(manifest))));
        }
        let held = self.place.held();
        let Some(shape) = self.shape.clone() else {
            if self.joined.is_outdated(&covered.view) {
                return self.hand_over(&covered, "the next step".into(), next).await;
            }
            if after.to.same_position(&cursor.to) && sequence(&after) == cursor.sequence {
                self.say_something(cursor, &after, held.is_some());
                return Ok(());
            }
            if after.to.same_position(&cursor.to) && !may_differ(&self.engine, &covered.def, &cursor, &after).await? {
                self.queue.push_back(Task::Done(next, after));
                return Ok(());
            }
            return self.hand_over(&covered, "the next step".into(), next).await;
        };
        let subject = (&covered.def, &shape.view);
        let (request, counts) = (&self.request, &mut self.counts);
        match plan(&self.engine, subject, (request, &cursor), held, &after, counts).await? {
            Plan::Idle => self.say_something(cursor, &after, true),
            Plan::Anew(reason) => return self.hand_over(&covered, reason, next).await,
            Plan::Step(step) if self.request.mode == OutputMode::Append => {
                return self.take_finals(&covered, &shape, *step, (cursor, next)).await;
            }
            Plan::Step(step) => return self.take(&covered, &shape, *step, next).await,
        }
        Ok(())
    }

    async fn take(&mut self, covered: &Covered, shape: &Arc<Shape>, step: Step, next: Cursor) -> Result<(), Problem> {
        match step.cells {
            Looked::Nothing => {}
            Looked::Cells(ref touched) => {
                let pieces = pieces(shape, touched);
                let step = Arc::new(Step { cells: Looked::Nothing, ..step });
                self.queue.extend(pieces.into_iter().map(|piece| Task::Cells(Arc::clone(&step), piece)));
            }
            Looked::Everything => {
                let _turn = self.place.turn().await;
                let before = step.is_known.then_some(&step.before);
                let subject = (self.engine.as_ref(), shape.as_ref(), covered.def.name.as_str());
                let Some(changes) = contents::compare(subject, before, &step.after).await? else {
                    let reason = "more has changed than is told one by one";
                    return self.hand_over(covered, reason.into(), next).await;
                };
                self.queue.extend(changes.into_iter().map(|one| Task::Event(Event::Changed(one))));
            }
        }
        self.queue.push_back(Task::Done(next, Arc::clone(&covered.snapshot)));
        Ok(())
    }

    /// Hands over the whole view.
    async fn hand_over(&mut self, covered: &Covered, reason: String, next: Cursor) -> Result<(), Problem> {
        let Some(turn) = self.place.turn().await else { return Ok(()) };
        self.place.let_go();
        let snapshot = Arc::clone(&covered.snapshot);
        let joined = Joined::by(&covered.view);
        let rows = self.engine.stream_view(&covered.view, &covered.def.name, Arc::clone(&snapshot)).await?;
        self.joined = joined;
        let version = snapshot.to.total();
        self.queue.push_back(Task::Event(Event::Snapshot { reason, version }));
        let turn = Arc::new(turn);
        self.queue.push_back(if self.request.mode == OutputMode::Append {
            self.open = Some(OpenRows::default());
            Task::Finals(rows, turn, Mark { version, watermark_us: next.final_us })
        } else {
            Task::Rows(rows, turn, version)
        });
        self.queue.push_back(Task::Done(next, snapshot));
        Ok(())
    }

    /// Nothing has changed: a reader hears that at once when it comes, and then from time to time.
    fn say_something(&mut self, cursor: Cursor, snapshot: &Arc<ViewSnapshot>, is_held: bool) {
        if is_held {
            self.place.hold(snapshot);
        }
        if self.said.is_none_or(|said| said.elapsed() >= HEARTBEAT) {
            self.queue.push_back(Task::Event(Event::Progress(cursor)));
        }
    }

    fn cursor_at(&self, covered: &Covered) -> Cursor {
        let snapshot = &covered.snapshot;
        // a partition that is new has no watermark yet: what was final stays so
        let before = self.request.cursor.as_ref().filter(|cursor| cursor.view == covered.def.id);
        let is_append = self.request.mode == OutputMode::Append;
        let final_us = watermark_us(covered).max(before.and_then(|cursor| cursor.final_us)).filter(|_| is_append);
        Cursor { view: covered.def.id, sequence: sequence(snapshot), final_us, to: snapshot.to.clone() }
    }

    /// Goes on from a cursor, or begins anew.
    pub fn resume(&mut self, cursor: Option<Cursor>) {
        self.request.cursor = cursor;
        self.joined = Joined::default();
    }

    /// True once the view can be read; what keeps it from being read otherwise.
    ///
    /// # Errors
    /// As [`Feed::next`].
    pub async fn check(&mut self) -> Result<(), Problem> {
        self.covered().await.map(|_| ())
    }

    /// The view as it is now.
    async fn covered(&mut self) -> Result<Covered, Problem> {
        let (def, view) = known_view(&self.engine, &self.request.view)?;
        if self.shape.as_ref().is_some_and(|shape| !Arc::ptr_eq(&shape.view, &view)) {
            self.shape = shape(&self.engine, &self.request)?.1;
        }
        let catalog = self.engine.parts.catalogs.current();
        let mut snapshots = Snapshots::new(&self.engine.parts, &catalog, &[], SNAPSHOT_TIMEOUT)?;
        snapshots.view(&def, Layer::Merged).await
    }

    // `&mut`, as a reader is not for several threads at a time

    /// What has changed in the rows of some cells.
    async fn compared(&mut self, shape: &Shape, step: &Step, touched: &Touched) -> Result<Changes, Problem> {
        let after = self.reader(&step.after).await?;
        let before = if sequence(&step.before) == sequence(&step.after) {
            after.clone()
        } else {
            self.old_reader(shape, &step.before).await?
        };
        compare(shape, step, (before.as_deref(), after.as_deref()), touched).await
    }

    async fn reader(&mut self, snapshot: &ViewSnapshot) -> Result<Option<Arc<BatchViewReader>>, Problem> {
        let (Some(manifest), Some(shape)) = (&snapshot.manifest, &self.shape) else { return Ok(None) };
        if manifest.files.is_empty() {
            return Ok(None);
        }
        self.engine.lookup.reader(&shape.view, snapshot.view, manifest).await.map(Some)
    }

    async fn old_reader(
        &mut self,
        shape: &Shape,
        snapshot: &ViewSnapshot,
    ) -> Result<Option<Arc<BatchViewReader>>, Problem> {
        let Some(manifest) = snapshot.manifest.as_ref().filter(|manifest| !manifest.files.is_empty()) else {
            return Ok(None);
        };
        let schema = Arc::clone(shape.view.state_schema());
        let reader = BatchViewReader::open(&self.engine.parts.store, schema, &manifest.files).await;
        reader.map(|reader| Some(Arc::new(reader))).map_err(|e| e.problem())
    }
}

fn known_view(engine: &QueryEngine, name: &str) -> Result<(ViewDef, Arc<operators::View>), Problem> {
    let catalog = engine.parts.catalogs.current();
    if let (Some(_), Some(parts)) = (catalog.union(name), catalog.parts(name)) {
        return Err(super::of_union(name, &parts));
    }
    let Some(def) = catalog.view(name).cloned() else {
        return Err(Problem::new(Code::NotFound, format!("there is no view {name}")));
    };
    let starting = || Problem::new(Code::NotReady, format!("view {name} is being set up"));
    let view = engine.parts.views.view(def.id).ok_or_else(starting)?;
    Ok((def, view))
}

/// The view of a request, and by what its rows are told apart if the mode needs that.
fn shape(engine: &QueryEngine, request: &FeedRequest) -> Result<(ViewDef, Option<Arc<Shape>>), Problem> {
    let (def, view) = known_view(engine, &request.view)?;
    if request.mode == OutputMode::Complete {
        return Ok((def, None));
    }
    let finish = engine.lookup.finish(&view, def.id);
    let shape = Shape::of(&view, &def.name, finish)?;
    if request.mode == OutputMode::Append {
        let catalog = engine.parts.catalogs.current();
        let stream = catalog.stream_by_id(def.stream);
        stream.map_or(Ok(()), |stream| super::check_append(&shape, &def.name, stream))?;
    }
    Ok((def, Some(Arc::new(shape))))
}
