//! Schedules on a clock that the test moves.

use async_trait::async_trait;
use chrono::DateTime;
use parking_lot::Mutex;
use rstest::rstest;
use schemas::documents::manifest::Manifest;
use schemas::documents::run::{RunDocument, RunState};
use schemas::{Certificate, Cut, LatePolicy, ViewDef};
use storage::clock::ManualClock;

use super::*;
use crate::landing::Landing;
use crate::testing;

fn us(text: &str) -> i64 {
    DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
}

fn rfc3339(us: i64) -> String {
    DateTime::from_timestamp_micros(us).unwrap().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

fn cron(expression: &str, time_zone: &str) -> Refresh {
    Refresh::Cron { expression: expression.into(), time_zone: time_zone.into() }
}

#[rstest]
#[case::nightly("0 3 * * *", "UTC", "2024-05-01T03:00:00Z", "2024-05-02T03:00:00Z")]
#[case::quarter("*/15 * * * *", "UTC", "2024-05-01T03:01:00Z", "2024-05-01T03:15:00Z")]
#[case::time_zone("0 3 * * *", "Asia/Seoul", "2024-05-01T00:00:00Z", "2024-05-01T18:00:00Z")]
#[case::monday_is_1("0 0 * * 1", "UTC", "2024-05-01T00:00:00Z", "2024-05-06T00:00:00Z")]
#[case::sunday_is_0("0 0 * * 0", "UTC", "2024-05-01T00:00:00Z", "2024-05-05T00:00:00Z")]
#[case::sunday_is_7("0 0 * * 7", "UTC", "2024-05-01T00:00:00Z", "2024-05-05T00:00:00Z")]
#[case::weekdays("0 0 * * 1-5", "UTC", "2024-05-03T00:00:00Z", "2024-05-06T00:00:00Z")]
#[case::weekend_by_name("0 0 * * SAT-SUN", "UTC", "2024-05-04T00:00:00Z", "2024-05-05T00:00:00Z")]
#[case::either_day_is_enough("0 0 13 * 5", "UTC", "2024-05-10T00:00:00Z", "2024-05-13T00:00:00Z")]
#[case::summer_time_in_berlin("0 12 * * *", "Europe/Berlin", "2024-03-30T12:00:00Z", "2024-03-31T10:00:00Z")]
#[case::skipped_hour("30 2 * * *", "Europe/Berlin", "2024-03-30T12:00:00Z", "2024-04-01T00:30:00Z")]
#[case::leap_day("0 0 29 2 *", "UTC", "2024-03-01T00:00:00Z", "2028-02-29T00:00:00Z")]
fn cron_is_due_next(#[case] expression: &str, #[case] zone: &str, #[case] after: &str, #[case] expected: &str) {
    let due = due_us(&cron(expression, zone), us(after)).unwrap().unwrap();
    assert_eq!(rfc3339(due), expected);
}

#[test]
fn repeated_hour_never_goes_back() {
    let refresh = cron("*/10 * * * *", "Europe/Berlin");
    let mut last = us("2024-10-27T00:00:00Z");
    for _ in 0..20 {
        let due = due_us(&refresh, last).unwrap().unwrap();
        assert!(due > last, "{} after {}", rfc3339(due), rfc3339(last));
        last = due;
    }
    assert!(last >= us("2024-10-27T03:00:00Z"));
}

#[rstest]
#[case::four_fields(cron("0 3 * *", "UTC"), "4 fields")]
#[case::minute_60(cron("60 3 * * *", "UTC"), "60")]
#[case::no_such_zone(cron("0 3 * * *", "Europe/Atlantis"), "time zone 'Europe/Atlantis'")]
#[case::no_such_day(cron("0 3 * * 9", "UTC"), "day of the week")]
#[case::thirtieth_of_february(cron("0 0 30 2 *", "UTC"), "no day")]
#[case::too_often(Refresh::Every { interval_us: 1 }, "at least one second")]
fn what_is_no_schedule_is_refused(#[case] refresh: Refresh, #[case] says: &str) {
    let problem = validate(&refresh).unwrap_err();
    assert_eq!(problem.code, Code::InvalidSql);
    assert!(problem.detail.contains(says), "{}", problem.detail);
}

#[derive(Default)]
struct FakeRuns {
    started: Mutex<Vec<(String, RunTrigger)>>,
    last: Mutex<Option<RunDocument>>,
}

fn document(view_id: Uuid, queued_at_us: i64) -> RunDocument {
    RunDocument {
        format: 1,
        id: 1,
        view: "v".into(),
        view_id,
        kind: RunKind::Full,
        trigger: RunTrigger::Schedule,
        state: RunState::Succeeded,
        cut: None,
        rows: 0,
        rows_total: 0,
        rows_per_second: 0.0,
        eta_ms: None,
        phase: "done".into(),
        phase_ms: vec![],
        queued_at_us,
        started_at_us: None,
        finished_at_us: None,
        verdict: None,
        error: None,
    }
}

#[async_trait]
impl Runs for FakeRuns {
    async fn start(&self, view: &str, _: RunKind, trigger: RunTrigger) -> Result<RunDocument, Problem> {
        self.started.lock().push((view.into(), trigger));
        Ok(document(Uuid::nil(), 0))
    }

    async fn run(&self, _: u64, _: Option<Duration>) -> Result<RunDocument, Problem> {
        Err(Problem::new(Code::NotFound, "run"))
    }

    async fn runs(&self, _: Option<&str>, _: usize) -> Result<Vec<RunDocument>, Problem> {
        Ok(self.last.lock().iter().cloned().collect())
    }

    async fn cancel(&self, _: u64) -> Result<RunDocument, Problem> {
        Err(Problem::new(Code::NotFound, "run"))
    }

    async fn certificate(&self, _: &str, _: Option<u64>) -> Result<Certificate, Problem> {
        Err(Problem::new(Code::NotFound, "certificate"))
    }

    async fn certificates(&self, _: &str, _: usize) -> Result<Vec<Certificate>, Problem> {
        Ok(vec![])
    }

    async fn rollback(&self, _: &str, _: u64) -> Result<Manifest, Problem> {
        Err(Problem::new(Code::NotFound, "run"))
    }
}

struct OneView(Arc<BatchView>);

impl Views for OneView {
    fn view(&self, _: &str) -> Option<Arc<BatchView>> {
        Some(Arc::clone(&self.0))
    }

    fn views(&self) -> Vec<Arc<BatchView>> {
        vec![Arc::clone(&self.0)]
    }

    fn landing(&self, _: Uuid) -> Option<Arc<Landing>> {
        None
    }
}

const VIEW: Uuid = Uuid::from_u128(9);

fn schedule(refresh: Refresh, created: &str, now: &str) -> (Schedule, Arc<FakeRuns>, ManualClock) {
    let sql = "SELECT count(*) AS n FROM events";
    let view = testing::view(sql, LatePolicy::Include);
    let def = ViewDef {
        id: VIEW,
        name: "v".into(),
        version: 1,
        stream: testing::stream().id,
        sql: sql.into(),
        refresh,
        late: None,
        tables: vec![],
        semantic_hash: view.semantic_hash().into(),
        from: Cut::default(),
        with_no_data: false,
        created_at_us: us(created),
    };
    let stream = Arc::new(testing::stream());
    let views = Arc::new(OneView(Arc::new(BatchView { def, stream, view, tables: vec![] })));
    let (runs, clock) = (Arc::new(FakeRuns::default()), ManualClock::at(us(now)));
    (Schedule::new(views, Arc::clone(&runs) as Arc<dyn Runs>, Arc::new(clock.clone())), runs, clock)
}

/// "missed run is caught up once".
#[tokio::test]
async fn missed_runs_are_caught_up_once() {
    let (mut schedule, runs, clock) =
        schedule(cron("0 3 * * *", "UTC"), "2024-05-01T00:00:00Z", "2024-05-09T12:00:00Z");
    *runs.last.lock() = Some(document(VIEW, us("2024-05-02T03:00:00Z")));
    let next = schedule.tick().await.unwrap();
    assert_eq!(*runs.started.lock(), [("v".to_owned(), RunTrigger::Schedule)], "a week was missed");
    assert_eq!(rfc3339(next), "2024-05-10T03:00:00Z");
    schedule.tick().await;
    assert_eq!(runs.started.lock().len(), 1, "once");
    clock.advance_us(15 * 3_600 * 1_000_000);
    schedule.tick().await;
    assert_eq!(runs.started.lock().len(), 2, "and on time from then on");
}

#[tokio::test]
async fn nothing_was_missed_when_the_last_run_is_recent() {
    let (mut schedule, runs, _) = schedule(cron("0 3 * * *", "UTC"), "2024-05-01T00:00:00Z", "2024-05-09T12:00:00Z");
    *runs.last.lock() = Some(document(VIEW, us("2024-05-09T03:00:00Z")));
    schedule.tick().await;
    assert!(runs.started.lock().is_empty());
}

#[tokio::test]
async fn first_interval_counts_from_the_creation() {
    let every = Refresh::Every { interval_us: 60_000_000 };
    let (mut schedule, runs, clock) = schedule(every, "2024-05-01T00:00:00Z", "2024-05-01T00:00:30Z");
    assert_eq!(schedule.tick().await.map(rfc3339).as_deref(), Some("2024-05-01T00:01:00Z"));
    assert!(runs.started.lock().is_empty());
    clock.advance_us(30_000_000);
    assert_eq!(schedule.tick().await.map(rfc3339).as_deref(), Some("2024-05-01T00:02:00Z"));
    assert_eq!(runs.started.lock().len(), 1);
}

#[tokio::test]
async fn manual_view_is_never_due() {
    let (mut schedule, runs, _) = schedule(Refresh::Manual, "2024-05-01T00:00:00Z", "2034-05-01T00:00:00Z");
    assert_eq!(schedule.tick().await, None);
    assert!(runs.started.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn wall_clock_that_is_set_forward_is_noticed() {
    let (schedule, runs, clock) = schedule(cron("0 3 * * *", "UTC"), "2024-05-01T00:00:00Z", "2024-05-01T00:00:00Z");
    let stop = CancellationToken::new();
    let task = tokio::spawn(schedule.run(stop.clone()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(runs.started.lock().is_empty());
    clock.advance_us(4 * 3_600 * 1_000_000);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(runs.started.lock().len(), 1);
    stop.cancel();
    task.await.unwrap().unwrap();
}
