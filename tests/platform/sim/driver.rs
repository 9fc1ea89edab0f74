//! The simulation itself: chooses, from one seed, what clients do, which operation goes on next and what
//! becomes of it, who crashes and when; and checks what it sees.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemas::Cut;
use schemas::freshness::{Freshness, IngestAnswer, ViewFreshness};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use super::events::{Batch, Sent};
use super::invariants::{self, Checker, master_has_each_record_once};
use super::link::{Crash, Fate, Link, Weather};
use super::process::{Call, Heard, Process};
use super::seen::Seen;
use super::truth::{Truth, shown};
use super::world::{Bugs, Violation, World};

/// The stream and the views that all simulations have.
const DECLARATIONS: [&str; 3] = [
    "CREATE STREAM s (id TEXT NOT NULL, k TEXT, n BIGINT, at TIMESTAMPTZ NOT NULL, PRIMARY KEY (id), \
     WATERMARK FOR at AS at) WITH (partitions = 3)",
    "CREATE MATERIALIZED VIEW totals AS SELECT k, count(*) AS c, sum(n) AS s, min(n) AS low, max(n) AS high \
     FROM s GROUP BY k",
    "CREATE MATERIALIZED VIEW windows AS SELECT k, window_start, count(*) AS c, sum(n) AS s \
     FROM TUMBLE(s, at, INTERVAL '10 minutes') WHERE n >= 0 GROUP BY k, window_start",
];
/// A view that comes and goes.
const LATER: &str = "CREATE MATERIALIZED VIEW later AS SELECT k, count(*) AS c FROM s GROUP BY k";
/// Steps of the simulation after which calm weather has to have brought everything to its end.
const TICKS_MAX: u32 = 40_000;
/// Processes that end in a row before they are ready, in bad weather.
const FALSE_STARTS_MAX: u32 = 4;

/// What is simulated.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Things that clients do.
    pub(crate) steps: u32,
    pub(crate) bugs: Bugs,
    /// For the first process.
    pub(crate) crash: Option<Crash>,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// One number for everything that happened.
    pub(crate) trace: u64,
    pub(crate) operations: u64,
    /// Names of the operations of the first process that did not wait for their turn.
    pub(crate) immediate: Vec<String>,
    pub(crate) processes: u32,
    pub(crate) accepted: usize,
    pub(crate) answers: u64,
    pub(crate) publications: usize,
}

/// What a call was about.
#[derive(Debug, Clone)]
pub(super) enum Asked {
    Events(Batch),
    Query { view: &'static str, side: &'static str, at_least: Option<String> },
    Ledger,
    Other,
}

pub(crate) struct Simulation {
    pub(super) plan: Plan,
    pub(super) rng: ChaCha8Rng,
    pub(super) world: std::sync::Arc<World>,
    /// The last one is the owner; those before it do not know that they are no longer.
    pub(super) processes: Vec<Process>,
    pub(super) weather: Weather,
    pub(super) sent: Sent,
    truth: Truth,
    checker: Checker,
    acknowledged: BTreeSet<String>,
    tokens: Vec<String>,
    /// Calls without an answer, and the process that they went to.
    pub(super) calls: BTreeMap<u64, (u32, Asked)>,
    /// Answers by call, until somebody asks for them.
    pub(super) answers: BTreeMap<u64, (u16, Value)>,
    /// The stream, once it is there.
    stream: Option<Uuid>,
    /// Processes in a row that ended before they were ready.
    false_starts: u32,
    next_call: u64,
    operation: u64,
    report: Report,
    /// One data folder a process, by its number.
    folders: TempDir,
}

impl Simulation {
    /// A world with a process in it and nothing else.
    pub(crate) fn new(plan: Plan) -> Self {
        let mut simulation = Self {
            rng: ChaCha8Rng::seed_from_u64(plan.seed),
            world: World::new(plan.bugs),
            processes: vec![],
            weather: Weather::CALM,
            sent: Sent::default(),
            truth: Truth::default(),
            checker: Checker::default(),
            acknowledged: BTreeSet::new(),
            tokens: vec![],
            calls: BTreeMap::new(),
            answers: BTreeMap::new(),
            stream: None,
            false_starts: 0,
            next_call: 0,
            operation: 0,
            report: Report::default(),
            folders: tempfile::tempdir().expect("a folder"),
            plan,
        };
        simulation.start();
        simulation
    }

    /// A new process over the world as it is; it is the owner from now on.
    pub(super) fn start(&mut self) {
        self.report.processes += 1;
        let number = self.report.processes;
        self.world.state().log_writer = number;
        let crash = self.plan.crash.clone().filter(|_| number == 1);
        let link = Link::new(&self.world, number, self.plan.seed, self.weather, crash);
        self.world.note(format!("process {number} starts"));
        // its predecessor's folder, or a copy if that one does not know that it is no longer the owner
        let folder = |number: u32| self.folders.path().join(number.to_string());
        copy_folder(&folder(number - 1), &folder(number));
        let process = Process::start(link, &folder(number));
        self.processes.push(process);
    }

    pub(super) fn owner(&self) -> &Process {
        self.processes.last().expect("there is always a process")
    }

    /// The owner's machine is cut off from the log, not from the store, and lives on; another one takes over.
    pub(super) fn fork(&mut self) {
        self.start();
    }

    /// The process is gone, with everything that was in its memory. If it was the owner, a new one starts.
    pub(super) fn crash(&mut self, index: usize) {
        let process = self.processes.remove(index);
        self.world.note(format!("process {} is gone", process.link.number));
        process.link.die();
        // what was under way when it died takes effect or does not
        process.settle();
        process.link.leave_logs(&mut self.rng);
        self.calls.retain(|_, (to, _)| *to != process.link.number);
        if process.link.number == 1 {
            self.report.immediate = process.link.immediate();
        }
        drop(process);
        if index == self.processes.len() {
            self.start();
        }
    }

    /// Sends a request to the owner, if it is ready.
    pub(super) fn call(&mut self, asked: Asked, method: &'static str, path: &str, body: String) -> Option<u64> {
        if !self.owner().is_ready() {
            return None;
        }
        // not beside what was let go on last
        self.owner().settle();
        self.next_call += 1;
        let number = self.next_call;
        self.world.note(format!("call {number}: {method} {path}"));
        self.calls.insert(number, (self.owner().link.number, asked));
        self.owner().call(Call { number, method, path: path.to_owned(), body });
        Some(number)
    }

    pub(super) fn sql(&mut self, asked: Asked, sql: &str) -> Option<u64> {
        let at_least = match &asked {
            Asked::Query { at_least, .. } => at_least.clone(),
            _ => None,
        };
        let body = json!({ "sql": sql, "at_least": at_least, "timeout": "20s" });
        let number = self.call(asked, "POST", "/v1/sql", body.to_string());
        self.world.note(format!("{number:?} is {sql}"));
        number
    }

    pub(super) fn send_events(&mut self) -> Option<u64> {
        if !self.owner().is_ready() {
            return None;
        }
        let batch = self.sent.batch(&mut self.rng);
        let body = batch.body.clone();
        self.call(Asked::Events(batch), "POST", "/v1/streams/s/events", body)
    }

    pub(super) fn query(&mut self, view: &'static str, side: &'static str) -> Option<u64> {
        let wants_own = side.is_empty() && !self.tokens.is_empty() && self.rng.random_bool(0.5);
        let at_least = wants_own.then(|| self.tokens[self.rng.random_range(0..self.tokens.len())].clone());
        let columns = match view {
            "totals" => "k, c, s, low, high",
            "windows" => "k, window_start, c, s",
            _ => "k, c",
        };
        let sql = format!("SELECT {columns} FROM {side}{view}");
        self.sql(Asked::Query { view, side, at_least }, &sql)
    }

    pub(super) fn query_ledger(&mut self) -> Option<u64> {
        self.sql(Asked::Ledger, "SELECT stream, view, layer, partition, balance FROM system.ledger")
    }

    /// Runs a process until it waits, hears what it says, and lets one operation go on.
    ///
    /// # Errors
    /// An answer was wrong.
    pub(super) fn tick(&mut self) -> Result<(), Violation> {
        let last = self.processes.len() - 1;
        let index = if last > 0 && self.rng.random_bool(0.4) { self.rng.random_range(0..last) } else { last };
        self.tick_process(index)
    }

    /// The owner alone; whoever was the owner before is held up meanwhile.
    pub(super) fn tick_owner(&mut self) -> Result<(), Violation> {
        self.tick_process(self.processes.len() - 1)
    }

    fn tick_process(&mut self, index: usize) -> Result<(), Violation> {
        self.processes[index].settle();
        self.hear(index)?;
        if self.owner().is_ready() {
            self.false_starts = 0;
        }
        if let Some(why) = self.processes[index].ended() {
            // where the data folder is differs from run to run
            let why = self.world.short(&why.replace(&self.folders.path().display().to_string(), "~"));
            self.world.note(format!("process {} ended: {why}", self.processes[index].link.number));
            self.calm_down_after_false_starts();
            self.crash(index);
            if why.contains("panicked") {
                return Err(Violation::new("nothing panics", why));
            }
            return Ok(());
        }
        if self.processes[index].link.is_dead() {
            self.crash(index);
            return Ok(());
        }
        let candidates = self.processes[index].link.candidates();
        if candidates.is_empty() {
            let milliseconds = self.rng.random_range(5..40);
            self.processes[index].idle(milliseconds);
        } else {
            let chosen = self.rng.random_range(0..candidates.len());
            self.operation += 1;
            self.processes[index].link.let_go_on(&candidates[chosen], self.operation, &mut self.rng);
        }
        if self.processes[index].link.is_dead() {
            self.crash(index);
        }
        Ok(())
    }

    /// Somebody who restarts a process that does not come up waits for better weather.
    fn calm_down_after_false_starts(&mut self) {
        self.false_starts += 1;
        if self.false_starts > FALSE_STARTS_MAX {
            self.weather = Weather::CALM;
        }
    }

    fn hear(&mut self, index: usize) -> Result<(), Violation> {
        for heard in self.processes[index].heard() {
            self.take_disk()?;
            let Some((_, asked)) = self.calls.remove(&heard.number) else { continue };
            let told = self.check_answer(&asked, &heard)?;
            self.world.note(format!("heard {}: {} {told}", heard.number, heard.status));
            self.answers.insert(heard.number, (heard.status, heard.body));
        }
        Ok(())
    }

    fn take_disk(&mut self) -> Result<(), Violation> {
        let Some(stream) = self.stream else { return Ok(()) };
        self.truth.take(&self.world.state().logs[&(stream, "records".to_owned())], &self.sent)
    }

    fn check_answer(&mut self, asked: &Asked, heard: &Heard) -> Result<String, Violation> {
        if heard.status != 200 {
            return Ok(heard.body["code"].as_str().unwrap_or_default().to_owned());
        }
        match asked {
            Asked::Events(batch) => self.check_receipt(batch, &heard.body),
            Asked::Query { view, side, at_least } => self.check_rows(view, side, at_least.as_deref(), &heard.body),
            Asked::Ledger => {
                let rows = shown(&heard.body["rows"]);
                invariants::i11_ledger_balances(&rows)?;
                Ok(format!("{} rows", rows.len()))
            }
            Asked::Other => Ok(String::new()),
        }
    }

    fn check_receipt(&mut self, batch: &Batch, body: &Value) -> Result<String, Violation> {
        let told: IngestAnswer = serde_json::from_value(body.clone()).expect("an answer of ingest");
        let sums = told.accepted + told.duplicates + told.quarantined == told.received;
        if !sums || told.received != batch.records() || told.quarantined != batch.bad {
            let what = format!("{} records, {} of them bad: {told:?}", batch.records(), batch.bad);
            return Err(Violation::new("I11 every acknowledged event is in one class", what));
        }
        self.acknowledged.extend(batch.ids.iter().cloned());
        self.tokens.push(told.position);
        Ok(format!("{} accepted, {} duplicates, {} quarantined", told.accepted, told.duplicates, told.quarantined))
    }

    fn check_rows(
        &mut self,
        view: &str,
        side: &str,
        at_least: Option<&str>,
        body: &Value,
    ) -> Result<String, Violation> {
        let freshness: Freshness = serde_json::from_value(body["freshness"].clone()).expect("freshness");
        let told = freshness.views.iter().find(|told| told.view == view).expect("the view that was asked for");
        self.checker.check(&mut self.world.state(), &self.truth, &self.acknowledged)?;
        self.checker.i7_coverage_of_answers(told, at_least, &self.truth)?;
        let (from, to) = range_of(told, side);
        let rows = shown(&body["rows"]);
        let right = self.truth.answer(view, &from, &to);
        if rows != right {
            let what = format!("{side}{view} from {from} to {to}\n answer {rows:?}\n oracle {right:?}\n{told:?}");
            return Err(Violation::new("the answer is what the events say", what));
        }
        if view == "totals" {
            invariants::i6_counts_add_up(&rows, from.records_until(&to))?;
        }
        self.report.answers += 1;
        Ok(format!("{side}{view} from {from} to {to}: {rows:?}"))
    }

    /// Checks everything that can be seen from outside.
    ///
    /// # Errors
    /// An invariant does not hold.
    pub(super) fn check(&mut self) -> Result<(), Violation> {
        self.take_disk()?;
        self.checker.check(&mut self.world.state(), &self.truth, &self.acknowledged)
    }

    /// Goes on until `is_done`.
    ///
    /// # Errors
    /// It takes too long; or something else is wrong.
    pub(super) fn until(&mut self, what: &str, is_done: impl Fn(&Self) -> bool) -> Result<(), Violation> {
        for _ in 0..TICKS_MAX {
            if is_done(self) {
                return Ok(());
            }
            self.tick()?;
        }
        let what = format!("{what}: not after {TICKS_MAX} steps");
        Err(Violation::new("calm weather brings everything to its end", what))
    }

    /// Sends statements until each has succeeded.
    ///
    /// # Errors
    /// One is refused for good.
    pub(super) fn declare(&mut self) -> Result<(), Violation> {
        for sql in DECLARATIONS {
            loop {
                let (status, body) = self.insist(|simulation| simulation.sql(Asked::Other, sql))?;
                match (status, body["code"].as_str()) {
                    // it was carried out before a crash
                    (200, _) | (_, Some("already_exists")) => break,
                    _ if body["retryable"] == true => {}
                    _ => return Err(Violation::new("statements are carried out", body.to_string())),
                }
            }
            self.stream = Seen::of(&self.world.state()).stream().map(|stream| stream.id);
        }
        self.check()
    }

    /// Sends a request again and again, until it is answered.
    fn insist(&mut self, ask: impl Fn(&mut Self) -> Option<u64>) -> Result<(u16, Value), Violation> {
        loop {
            self.until("a process is ready", |simulation| simulation.owner().is_ready())?;
            let Some(number) = ask(self) else { continue };
            let process = self.owner().link.number;
            self.until("an answer", |simulation| {
                simulation.answers.contains_key(&number) || simulation.owner().link.number != process
            })?;
            if let Some(answer) = self.answers.remove(&number) {
                return Ok(answer);
            }
        }
    }

    /// True if a run has written its batch view and has not published it.
    pub(super) fn is_about_to_publish(&self) -> bool {
        let state = self.world.state();
        let seen = Seen::of(&state);
        let run_of = |path: &String| {
            let mut parts = path.split('/');
            let view = parts.nth(1)?.parse::<Uuid>().ok()?;
            (parts.next()? == "runs").then_some(())?;
            Some((view, parts.next()?.parse::<u64>().ok()?))
        };
        let made = state.objects.keys().filter(|path| path.starts_with("views/")).filter_map(run_of);
        let is_published =
            |(view, run): &(Uuid, u64)| seen.manifests.get(view).is_some_and(|all| all.iter().any(|m| m.run == *run));
        made.into_iter().any(|run| !is_published(&run))
    }

    /// Runs of a view that were ever published.
    pub(super) fn published_runs(&self, view: &str) -> Vec<u64> {
        let id = Seen::of(&self.world.state()).catalog.view(view).map(|view| view.id);
        self.checker.runs.keys().filter(|(of, _)| Some(*of) == id).map(|(_, run)| *run).collect()
    }

    /// What comes later.
    pub(super) fn create_later(&mut self) -> Option<u64> {
        self.sql(Asked::Other, LATER)
    }

    /// The end: in calm weather everything comes to its end, after one more restart all is as it was, and full
    /// runs agree with it.
    ///
    /// # Errors
    /// They do not.
    pub(super) fn finish(mut self) -> Result<Report, Violation> {
        self.weather = Weather::CALM;
        while self.processes.len() > 1 {
            self.crash(0);
        }
        self.owner().link.set_weather(Weather::CALM);
        let process = self.owner().link.number;
        self.until("every call is answered", |simulation| {
            simulation.owner().link.number != process || simulation.calls.is_empty()
        })?;
        self.check()?;
        self.crash(0);
        for view in ["totals", "windows"] {
            self.run_exactly(view)?;
        }
        for (view, side) in [("totals", ""), ("windows", ""), ("totals", "batch."), ("windows", "speed.")] {
            let (status, body) = self.insist(|simulation| simulation.query(view, side))?;
            if status != 200 {
                return Err(Violation::new("calm weather brings everything to its end", body.to_string()));
            }
        }
        self.insist(Self::query_ledger)?;
        self.check()?;
        let seen = Seen::of(&self.world.state());
        master_has_each_record_once(&seen)?;
        self.report.publications = seen.manifests.values().map(Vec::len).sum();
        self.report.accepted = self.acknowledged.len();
        self.report.operations = self.operation;
        self.report.trace = self.world.trace();
        Ok(self.report.clone())
    }

    /// A full run that proves itself equal to what it replaces.
    fn run_exactly(&mut self, view: &'static str) -> Result<(), Violation> {
        let path = format!("/v1/views/{view}/runs");
        let (_, run) = self.insist(|simulation| simulation.call(Asked::Other, "POST", &path, String::new()))?;
        let path = format!("/v1/runs/{}?wait=10s", run["id"]);
        let mut run = run;
        while matches!(run["state"].as_str(), Some("queued" | "running")) {
            (_, run) = self.insist(|simulation| simulation.call(Asked::Other, "GET", &path, String::new()))?;
        }
        if (run["state"].as_str(), run["verdict"].as_str()) == (Some("succeeded"), Some("exact")) {
            return Ok(());
        }
        Err(Violation::new("a full run proves itself", run.to_string()))
    }
}

/// The range of the log that an answer is about.
fn range_of(told: &ViewFreshness, side: &str) -> (Cut, Cut) {
    let of = |offsets: &schemas::documents::certificate::CutByPartition| Cut(offsets.values().copied().collect());
    let cut = told.batch.as_ref().map(|batch| of(&batch.cut)).unwrap_or_default();
    match (&told.speed, side) {
        (Some(speed), "speed.") => (of(&speed.from), of(&speed.to)),
        (Some(speed), _) => (Cut::default(), of(&speed.to)),
        (None, _) => (Cut::default(), cut),
    }
}

/// Copies what is in a folder, but for the lock of the process that works in it.
fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).into_iter().flatten() {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else if entry.file_name() != "lock" {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// A fate by which the process dies.
pub(crate) const DEATHS: [Fate; 2] = [Fate::DiesBefore, Fate::DiesAfter];
