//! One run, phase by phase.

use std::sync::Arc;

use schemas::documents::manifest::{BatchFile, Manifest};
use schemas::documents::run::RunKind;
use schemas::{Certificate, Code, Cut, LedgerCounts, Problem, Verdict};
use storage::snapshot::RangeStates;
use storage::{layers::Speed, paths};
use tokio::runtime::Handle;
use uuid::Uuid;

use super::RunService;
use super::files;
use super::live::{LiveRun, Outcome};
use crate::audit::{self, Auditor, Oracle};
use crate::landing::Landing;
use crate::master_records::MasterRecords;
use crate::recompute::{self, Job, Scanned};
use crate::views::BatchView;
use crate::{internal, late, stored};

mod sample;

/// What the plan phase decided.
pub(super) struct Plan {
    view: Arc<BatchView>,
    landing: Arc<Landing>,
    base: Option<Arc<Manifest>>,
    /// The sequence that it is published under: nobody has published since the base.
    sequence: u64,
    cut: Cut,
    deltas: Vec<Arc<RangeStates>>,
    kind: RunKind,
    /// Keeps merges of deltas off the cut until the run has ended.
    _barrier: Option<Barrier>,
}

impl Plan {
    /// Records below it are read from the base's batch view, not from the master.
    fn from(&self) -> Cut {
        match (&self.base, self.kind) {
            (Some(base), RunKind::Incremental) => base.cut.clone(),
            _ => Cut::default(),
        }
    }

    fn base_cut(&self) -> &Cut {
        self.base.as_ref().map_or(&self.view.def.from, |base| &base.cut)
    }
}

/// A barrier that is taken back when it goes out of scope.
struct Barrier {
    speed: Arc<dyn Speed>,
    stream: Uuid,
    cut: Cut,
}

impl Drop for Barrier {
    fn drop(&mut self) {
        self.speed.release_barrier(self.stream, &self.cut);
    }
}

/// What a scan and a merge have made.
struct Made {
    records: Arc<MasterRecords>,
    /// Per partition, everything below the cut.
    ledger: Vec<LedgerCounts>,
    since_base: Vec<LedgerCounts>,
    late_list: Option<String>,
    files: Vec<BatchFile>,
    cells: u64,
}

impl RunService {
    /// Runs all phases. What it has written is removed again unless it is published.
    pub(super) async fn execute(&self, live: &Arc<LiveRun>) -> Result<Outcome, Problem> {
        let result = self.phases(live).await;
        let published = match &result {
            Ok(outcome) => matches!(outcome, Outcome::Published(_)),
            // the manifest may be there although telling the readers of it failed
            Err(_) => self.manifests.by_run(live.view_id, live.id).await.map_or(true, |manifest| manifest.is_some()),
        };
        if !published && let Err(error) = self.parts.store.delete_below(&paths::batch_view(live.view_id, live.id)).await
        {
            tracing::warn!(run = live.id, %error, "files of a run that was not published remain");
        }
        result
    }

    async fn phases(&self, live: &Arc<LiveRun>) -> Result<Outcome, Problem> {
        live.enter("plan");
        let plan = Arc::new(self.plan(live).await?);
        live.change(|run| {
            run.cut = Some(plan.cut.clone());
            run.kind = plan.kind;
        });
        self.persist(live).await;
        live.enter("land");
        stoppable(live, plan.landing.land_to(&plan.cut)).await?;
        live.enter("scan");
        let (job, records, scanned) = self.scan(live, &plan).await?;
        live.enter("sort");
        let made = self.write(live, &plan, job, records, scanned).await?;
        live.enter("audit");
        let certificate = self.audit(live, &plan, &made).await?;
        self.certificates.put(&certificate).await.map_err(|e| stored(&e))?;
        if certificate.verdict == Verdict::Violation {
            return Ok(Outcome::Blocked(certificate.violations.first().cloned().unwrap_or_default()));
        }
        live.enter("publish");
        live.check_stopped()?;
        let _alone = self.publishing.lock().await;
        self.publish(&plan.view, self.manifest(live, &plan, made, certificate.verdict)).await?;
        if let Err(error) = self.retire(&plan.view).await {
            tracing::warn!(view = %live.view, %error, "old batch views remain");
        }
        Ok(Outcome::Published(certificate.verdict))
    }

    async fn plan(&self, live: &LiveRun) -> Result<Plan, Problem> {
        let view = self.view(&live.view)?;
        if view.def.id != live.view_id {
            return Err(Problem::new(Code::NotFound, format!("view {} was made anew", live.view)));
        }
        let landing = self.parts.views.landing(view.stream.id);
        let landing = landing.ok_or_else(|| internal(format!("stream {} is not landed", view.stream.name)))?;
        let head = self.manifests.head(view.def.id).await.map_err(|e| stored(&e))?;
        let (base, next) = (head.manifest, head.next);
        if let Some(base) = base.as_ref().filter(|base| base.semantic_hash != view.view.semantic_hash()) {
            return Err(internal(format!("view {}: run {} was made by another definition", live.view, base.run)));
        }
        if base.is_none() && view.def.from.total() > 0 {
            // the history before the view: what speed has begins exactly there
            let cut = view.def.from.clone();
            return Ok(Plan {
                view,
                landing,
                base,
                sequence: next,
                cut,
                deltas: vec![],
                kind: RunKind::Full,
                _barrier: None,
            });
        }
        self.catch_up(&view, base.as_ref()).await?;
        let (stream, speed) = (view.stream.id, Arc::clone(&self.parts.speed));
        // not given up half-way: a barrier that nobody takes back would stay
        let cut = speed.barrier(stream).await?;
        let barrier = Barrier { speed, stream, cut: cut.clone() };
        let snapshot = self.parts.speed.current(stream);
        let seen = snapshot.as_ref().and_then(|snapshot| snapshot.views.get(&view.def.id));
        let seen = seen.ok_or_else(|| internal(format!("view {} is not in speed's snapshot", live.view)))?;
        if let Some(failed) = &seen.failed {
            return Err(failed.clone());
        }
        let sequence = |manifest: &Option<Arc<Manifest>>| manifest.as_ref().map(|manifest| manifest.sequence);
        if sequence(&seen.manifest) != sequence(&base) {
            return Err(Problem::new(
                Code::InUse,
                format!("view {}: another batch view was published meanwhile", live.view),
            ));
        }
        let deltas = audit::ranges_below(&seen.ranges, &cut);
        // of a late event's list, an incremental run would only have the new part
        let is_incremental =
            live.document().kind == RunKind::Incremental && base.is_some() && !view.view.late_policy().leaves_out();
        let kind = if is_incremental { RunKind::Incremental } else { RunKind::Full };
        Ok(Plan { view, landing, base, sequence: next, cut, deltas, kind, _barrier: Some(barrier) })
    }

    async fn scan(&self, live: &Arc<LiveRun>, plan: &Arc<Plan>) -> Result<(Job, Arc<MasterRecords>, Scanned), Problem> {
        let total = plan.from().records_until(&plan.cut);
        live.change(|run| run.rows_total = total);
        let (live, plan, parts) = (Arc::clone(live), Arc::clone(plan), self.parts.clone());
        blocking(move || {
            let records = Arc::new(MasterRecords::new(plan.landing.master(), &plan.from(), &plan.cut)?);
            let job = Job {
                view: Arc::clone(&plan.view.view),
                records: Arc::clone(&records) as Arc<dyn recompute::Records>,
                from: plan.from(),
                base_cut: plan.base_cut().clone(),
                cut: plan.cut.clone(),
                threads: parts.threads.max(1),
                memory_bytes: parts.limits.run_memory_bytes,
                spill: parts.spill.join(format!("run-{}", live.id)),
                progress: Arc::clone(&live.progress),
                stop: live.stop.clone(),
            };
            let scanned = recompute::scan(&job)?;
            Ok((job, records, scanned))
        })
        .await
    }

    /// Merges and sorts the states into the files of a batch view, and lists the late events.
    async fn write(
        &self,
        live: &Arc<LiveRun>,
        plan: &Arc<Plan>,
        job: Job,
        records: Arc<MasterRecords>,
        scanned: Scanned,
    ) -> Result<Made, Problem> {
        let Scanned { mut ledger, since_base, late, states } = scanned;
        let (store, handle, shared, id) = (self.parts.store.clone(), Handle::current(), Arc::clone(plan), live.id);
        let writers = blocking(move || {
            let view = &shared.view;
            if let (RunKind::Incremental, Some(base)) = (shared.kind, &shared.base) {
                let mut old = files::reader(&store, &view.view, &base.files, &handle)?;
                while let Some(chunk) = old()? {
                    states.push(chunk)?;
                }
            }
            recompute::write_sorted(&job, states, |part| files::writer(&store, &view.view, (view.def.id, id), part))
        })
        .await?;
        let files = files::finish(writers).await?;
        let cells = files.iter().map(|file| file.cells).sum();
        if let (RunKind::Incremental, Some(base)) = (plan.kind, &plan.base) {
            for (partition, below) in base.ledger.iter().enumerate().take(ledger.len()) {
                ledger[partition].add(below);
            }
        }
        let late_list = self.list_late(live, plan, &records, late).await?;
        Ok(Made { records, ledger, since_base, late_list, files, cells })
    }

    async fn list_late(
        &self,
        live: &LiveRun,
        plan: &Arc<Plan>,
        records: &Arc<MasterRecords>,
        late: Vec<(schemas::Partition, schemas::Offset)>,
    ) -> Result<Option<String>, Problem> {
        if late.is_empty() {
            return Ok(None);
        }
        let (records, plan) = (Arc::clone(records), Arc::clone(plan));
        let file = blocking(move || late::encode(records.as_ref(), &plan.view.stream, &late)).await?;
        let path = paths::late_events(live.view_id, live.id);
        self.parts.store.put(&path, file.into()).await.map_err(|e| stored(&e))?;
        Ok(Some(path))
    }

    async fn audit(&self, live: &Arc<LiveRun>, plan: &Arc<Plan>, made: &Made) -> Result<Certificate, Problem> {
        live.check_stopped()?;
        let started = tokio::time::Instant::now();
        let (mut certificate, sampled) = self.compare(live, plan, made).await?;
        let oracle = Oracle {
            view: &plan.view.view,
            sql: &plan.view.def.sql,
            stream: &plan.view.stream,
            tables: &plan.view.tables,
        };
        let check = match oracle.unfit() {
            Some(reason) => audit::not_sampled(reason),
            None => self.ask_oracle(live, plan, made, sampled).await?,
        };
        if let Some(intake) = &self.parts.intake {
            audit::add_intake(&mut certificate, &intake.intake(plan.view.stream.id).await?, &plan.cut);
        }
        audit::conclude(&mut certificate, check, made.late_list.clone());
        certificate.created_at_us = self.parts.clock.now_us();
        certificate.audit_ms = started.elapsed().as_millis() as u64;
        Ok(certificate)
    }

    /// Compares with what the run replaces; samples cells for the oracle on the way.
    async fn compare(
        &self,
        live: &Arc<LiveRun>,
        plan: &Arc<Plan>,
        made: &Made,
    ) -> Result<(Certificate, sample::Sampled), Problem> {
        let (live, plan, store, handle) =
            (Arc::clone(live), Arc::clone(plan), self.parts.store.clone(), Handle::current());
        let (files, cells) = (made.files.clone(), made.cells);
        let (ledger, since_base) = (made.ledger.clone(), made.since_base.clone());
        blocking(move || {
            let auditor = Auditor {
                run: live.id,
                name: &live.view,
                view_id: live.view_id,
                view: &plan.view.view,
                base: plan.base.as_deref(),
                from: &plan.view.def.from,
                cut: &plan.cut,
                deltas: &plan.deltas,
                scanned: &ledger,
                since_base: &since_base,
            };
            let mut new = files::reader(&store, &plan.view.view, &files, &handle)?;
            let old_files = plan.base.as_ref().map_or(&[][..], |base| &base.files);
            let mut old = files::reader(&store, &plan.view.view, old_files, &handle)?;
            let mut sampler = sample::Sampler::of_view(live.id, cells, &plan.view.view);
            let certificate = auditor.audit(
                &mut || {
                    live.check_stopped()?;
                    let chunk = new()?;
                    if let Some(chunk) = &chunk {
                        sampler.look_at(chunk)?;
                    }
                    Ok(chunk)
                },
                &mut old,
            )?;
            Ok((certificate, sampler.finish(&plan.view.view)?))
        })
        .await
    }

    fn manifest(&self, live: &LiveRun, plan: &Plan, made: Made, verdict: Verdict) -> Manifest {
        Manifest {
            format: 1,
            sequence: plan.sequence,
            view: plan.view.def.id,
            semantic_hash: plan.view.view.semantic_hash().into(),
            run: live.id,
            cut: plan.cut.clone(),
            files: made.files,
            cells: made.cells,
            ledger: made.ledger,
            verdict,
            published_at_us: self.parts.clock.now_us(),
            rolled_back_from: None,
            epoch: self.manifests.epoch(),
        }
    }
}

impl LiveRun {
    pub(super) fn check_stopped(&self) -> Result<(), Problem> {
        if self.stop.is_cancelled() { Err(cancelled()) } else { Ok(()) }
    }
}

fn cancelled() -> Problem {
    Problem::new(Code::Cancelled, "the run was cancelled")
}

/// Work that waits, given up when the run is cancelled.
async fn stoppable<T>(live: &LiveRun, work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    tokio::select! {
        biased;
        () = live.stop.cancelled() => Err(cancelled()),
        done = work => done,
    }
}

/// Work that computes, on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Problem> + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| internal(format!("the run panicked: {error}")))?
}
