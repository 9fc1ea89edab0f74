//! Landing from a log in memory into a real master.

use storage::clock::ManualClock;
use storage::log::MemoryLog;
use url_of::root;

use super::*;
use crate::testing::{self, PATIENCE, SECOND_US, START_US};

mod url_of {
    use storage::{Store, paths};

    pub(super) fn root(folder: &std::path::Path) -> (Store, String) {
        let store = Store::open(folder.to_str().unwrap()).unwrap();
        let path = paths::master(crate::testing::stream().id);
        (store, path)
    }
}

struct Scene {
    landing: Arc<Landing>,
    log: Arc<MemoryLog>,
    clock: ManualClock,
    durable: Arc<Mutex<Option<Cut>>>,
    _folder: tempfile::TempDir,
}

async fn scene(limits: Limits) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let (store, path) = root(folder.path());
    let clock = ManualClock::at(START_US);
    let stream = Arc::new(testing::stream());
    let url = store.url().join(&path).unwrap();
    let master = Master::open(&url, &stream, Arc::new(clock.clone())).await.unwrap();
    let log = testing::log();
    let durable = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&durable);
    let landing = Arc::new(Landing::new(LandingParts {
        stream,
        log: Arc::clone(&log) as Arc<dyn Log>,
        dead_letters: testing::log(),
        master,
        durable: Arc::new(move || seen.lock().clone()),
        clock: Arc::new(clock.clone()),
        limits,
        at_once: Arc::new(Semaphore::new(1)),
    }));
    Scene { landing, log, clock, durable, _folder: folder }
}

fn push(log: &MemoryLog, cut: &Cut) {
    for frame in testing::frames(cut, 9, 50) {
        let head = log.head().offset(frame.partition);
        if let Some(frame) = frame.clip(&(head..u64::MAX)) {
            log.push(frame);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_for_a_cut_it_lands_exactly_that_once() {
    let limits = Limits { landing_bytes: 20_000, ..Limits::default() };
    let scene = scene(limits).await;
    push(&scene.log, &Cut(vec![500, 0, 220]));
    let cut = Cut(vec![333, 0, 220]);
    let (a, b) = (scene.landing.land_to(&cut), scene.landing.land_to(&cut));
    let (a, b) = tokio::join!(a, b);
    a.unwrap();
    b.unwrap();
    assert_eq!(scene.landing.master().landed(), Cut(vec![333, 0, 220]));
    let rows: u64 = scene.landing.master().files().iter().map(|file| file.rows).sum();
    assert_eq!(rows, 553, "each record once");
    assert!(scene.landing.master().files().len() > 2, "in bounded pieces");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_and_old_ranges_are_landed() {
    for limits in [
        Limits { landing_bytes: 10_000, landing_interval_ms: 3_600_000, ..Limits::default() },
        Limits { landing_interval_ms: 20, ..Limits::default() },
    ] {
        let scene = scene(limits).await;
        let stop = CancellationToken::new();
        let task = tokio::spawn(Arc::clone(&scene.landing).run(stop.clone()));
        push(&scene.log, &Cut(vec![400, 300, 200]));
        let landed = async {
            while scene.landing.master().landed() != scene.log.head() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, landed).await.unwrap();
        stop.cancel();
        task.await.unwrap().unwrap();
    }
}

/// the log is never truncated past what is landed, durable in speed, old enough.
#[tokio::test(flavor = "multi_thread")]
async fn log_is_given_up_only_below_what_nobody_needs() {
    let limits = Limits { log_retention_ms: 10, ..Limits::default() };
    let scene = scene(limits).await;
    push(&scene.log, &Cut(vec![100, 100, 100]));
    // a record's append time is START_US plus its offset in microseconds; the horizon is a second and a step
    scene.clock.advance_us(SECOND_US + schemas::stream::dedup_step_us(SECOND_US) + 60);
    assert_eq!(scene.landing.truncatable().await.unwrap().total(), 0, "speed's checkpoint is not known");
    *scene.durable.lock() = Some(Cut(vec![100, 40, 100]));
    assert_eq!(scene.landing.truncatable().await.unwrap().total(), 0, "nothing has landed");
    scene.landing.land_to(&Cut(vec![100, 100, 30])).await.unwrap();
    assert_eq!(scene.landing.truncatable().await.unwrap(), Cut(vec![60, 40, 30]));
    scene.landing.maintain().await.unwrap();
    assert_eq!(scene.log.start(), Cut(vec![60, 40, 30]));
    scene.clock.advance_us(SECOND_US);
    *scene.durable.lock() = Some(scene.log.head());
    assert_eq!(
        scene.landing.truncatable().await.unwrap(),
        Cut(vec![99, 99, 30]),
        "landed is the bound, the last record stays"
    );
}

/// what a record takes is a guess until a range was read for a landing. Who was refused by the guess is not let in
/// because the range that still waits turns out to be smaller.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_that_stands_does_not_shrink() {
    let scene = scene(Limits::default()).await;
    *scene.durable.lock() = Some(Cut::default());
    push(&scene.log, &Cut(vec![400, 300, 200]));
    let guessed = scene.landing.backlog().bytes;
    assert_eq!(guessed, 900 * RECORD_BYTES_GUESS as u64);
    // as a landing does whose store does not answer
    let frames = scene.landing.read_chunk(&Cut::default(), &scene.log.head()).await.unwrap();
    assert_eq!(frames.iter().map(|frame| frame.rows.num_rows()).sum::<usize>(), 900);
    let measured = *scene.landing.record_bytes.lock() as u64;
    assert!(measured < RECORD_BYTES_GUESS as u64, "{measured}");
    assert_eq!(scene.landing.backlog().bytes, guessed);
    *scene.durable.lock() = Some(scene.log.head());
    scene.landing.land_to(&Cut(vec![400, 0, 0])).await.unwrap();
    let measured = *scene.landing.record_bytes.lock() as u64;
    assert_eq!(scene.landing.backlog().bytes, 500 * measured, "it has moved");
}

/// how much all landings together have in memory is bounded: the next one waits for its turn, also if the one
/// before it ends badly.
#[tokio::test(flavor = "multi_thread")]
async fn landings_of_all_streams_take_turns() {
    let scene = scene(Limits::default()).await;
    push(&scene.log, &Cut(vec![100, 100, 100]));
    let turn = scene.landing.parts.at_once.acquire().await.unwrap();
    let landing = Arc::clone(&scene.landing);
    let cut = scene.log.head();
    let waiting = tokio::spawn(async move { landing.land_to(&cut).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(scene.landing.master().landed().total(), 0, "another stream has a range in memory");
    drop(turn);
    waiting.await.unwrap().unwrap();
    assert_eq!(scene.landing.master().landed(), scene.log.head());
    scene.landing.land_to(&Cut(vec![101, 0, 0])).await.unwrap_err();
    assert_eq!(scene.landing.parts.at_once.available_permits(), 1);
}
