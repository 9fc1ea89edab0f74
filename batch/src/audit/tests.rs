//! Faults planted under the auditor: each is found and named.

use operators::evidence;
use rstest::rstest;
use schemas::{LatePolicy, LedgerCounts, Offset, Partition};
use storage::log::Frame;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::recompute::{self, Job};
use crate::testing::{self, MemoryRecords, PARTITIONS};

const SQL: &str = "SELECT shop, count(*) AS n, sum(price) AS total, max(price) AS most FROM events GROUP BY shop";
const SHOPS: u64 = 40;

/// A base, two deltas, and the run that replaces them.
struct Scene {
    view: Arc<View>,
    frames: Vec<Frame>,
    base: Manifest,
    base_states: RecordBatch,
    deltas: Vec<RangeStates>,
    cut: Cut,
    /// Where the run's scan really ends.
    scanned_to: Cut,
}

impl Scene {
    fn new(late: LatePolicy) -> Self {
        Self::of(SQL, late)
    }

    fn of(sql: &str, late: LatePolicy) -> Self {
        let view = testing::view(sql, late);
        let (c1, c2, c3) = (Cut(vec![300, 200, 0]), Cut(vec![450, 200, 90]), Cut(vec![700, 333, 200]));
        let frames = testing::frames(&Cut(vec![800, 400, 300]), SHOPS, 64);
        let below = testing::delta(&view, &frames, &Cut::default(), &c1);
        let base = Manifest {
            format: 1,
            sequence: 3,
            view: Uuid::from_u128(5),
            semantic_hash: view.semantic_hash().into(),
            run: 6,
            cut: c1.clone(),
            files: vec![],
            cells: 0,
            ledger: below.ledger.clone(),
            verdict: Verdict::Exact,
            published_at_us: 0,
            rolled_back_from: None,
            epoch: 0,
        };
        let deltas = vec![testing::delta(&view, &frames, &c1, &c2), testing::delta(&view, &frames, &c2, &c3)];
        Self { view, frames, base, base_states: below.states[0].clone(), deltas, cut: c3.clone(), scanned_to: c3 }
    }

    fn audit(&self) -> Certificate {
        let folder = tempfile::tempdir().unwrap();
        let job = Job {
            view: Arc::clone(&self.view),
            records: Arc::new(MemoryRecords::new(self.frames.clone())),
            from: Cut::default(),
            base_cut: self.base.cut.clone(),
            cut: self.scanned_to.clone(),
            threads: 2,
            memory_bytes: 1 << 28,
            spill: folder.path().join("spill"),
            progress: Arc::default(),
            stop: CancellationToken::new(),
        };
        let scanned = recompute::scan(&job).unwrap();
        let mut new = vec![];
        for part in recompute::write_sorted(&job, scanned.states, |_| Vec::new()).unwrap().concat() {
            // small chunks, so that the comparison crosses their borders
            new.extend((0..part.num_rows()).step_by(7).map(|row| part.slice(row, 7.min(part.num_rows() - row))));
        }
        let deltas: Vec<_> = self.deltas.iter().cloned().map(Arc::new).collect();
        let auditor = Auditor {
            run: 7,
            name: "v",
            view_id: self.base.view,
            view: &self.view,
            base: Some(&self.base),
            from: &Cut::default(),
            cut: &self.cut,
            deltas: &deltas,
            scanned: &scanned.ledger,
            since_base: &scanned.since_base,
        };
        let rows = self.base_states.num_rows();
        let old = (0..rows).step_by(11).map(|row| self.base_states.slice(row, 11.min(rows - row))).collect();
        let mut certificate = auditor.audit(&mut in_memory(new), &mut in_memory(old)).unwrap();
        conclude(&mut certificate, not_sampled("not here"), None);
        certificate
    }

    /// What a fold of the second delta gives when it sees these offsets of partition 0 once too often or not at all.
    fn fold_again(&mut self, skip: Option<Offset>, twice: Option<Offset>) {
        let (from, to) = (self.deltas[1].from.clone(), self.deltas[1].to.clone());
        let mut folder = operators::Folder::new(&self.view).unwrap();
        let mut ledger = vec![LedgerCounts::default(); PARTITIONS as usize];
        for frame in &self.frames {
            let p = frame.partition;
            let Some(part) = frame.clip(&(from.offset(p)..to.offset(p))) else { continue };
            for row in 0..part.rows.num_rows() {
                let offset = part.base + row as u64;
                let times =
                    if p == 0 && skip == Some(offset) { 0 } else { 1 + usize::from(p == 0 && twice == Some(offset)) };
                for _ in 0..times {
                    let mut counts = folder.fold(p, offset, &part.rows.slice(row, 1)).unwrap();
                    let records = counts.records;
                    evidence::count_positions(&mut counts, p, offset..offset + 1);
                    counts.records = records;
                    ledger[p as usize].add(&counts);
                }
            }
        }
        let states = operators::states::sort(&self.view, &folder.take().unwrap().unwrap()).unwrap();
        self.deltas[1] = RangeStates { from, to, states: vec![states], sorted: true, ledger };
    }
}

fn says(certificate: &Certificate, text: &str) {
    assert_eq!(certificate.verdict, Verdict::Violation);
    assert!(
        certificate.violations.iter().any(|v| v.contains(text)),
        "{text:?} is not in {:#?}",
        certificate.violations
    );
}

fn names(certificate: &Certificate, partition: Partition, offset: Offset, what: &str) {
    let records: Vec<_> = certificate.cells.samples.iter().filter_map(|sample| sample.record.clone()).collect();
    assert!(
        records.iter().any(|r| (r.partition, r.offset, r.what.as_str()) == (partition, offset, what)),
        "{partition}:{offset} {what} is not in {records:?}"
    );
}

const SESSIONS: &str = "SELECT shop, window_start, window_end, count(*) AS n, sum(price) AS total, max(price) AS most \
    FROM SESSION(events, shop, at, INTERVAL '25 seconds') GROUP BY shop, window_start, window_end";
const ONE_SESSION: &str =
    "SELECT window_start, window_end, count(*) AS n FROM SESSION(events, at, INTERVAL '1 second') GROUP BY 1, 2";
const HOPS: &str = "SELECT shop, window_start, window_end, count(*) AS n, sum(price) AS total \
    FROM HOP(events, at, INTERVAL '10 seconds', INTERVAL '25 seconds') GROUP BY window_end, window_start, shop";

/// Parts of a session are in the base, in both deltas and on both sides of a chunk's border.
#[rstest]
fn windows_that_share_records_are_exact(
    #[values(SESSIONS, ONE_SESSION, HOPS)] sql: &str,
    #[values(LatePolicy::Include, LatePolicy::Drop)] late: LatePolicy,
) {
    let certificate = Scene::of(sql, late).audit();
    assert_eq!((certificate.cells.differing, &certificate.violations), (0, &vec![]));
    assert!(certificate.cells.compared > 20, "{:?}", certificate.cells);
}

#[test]
fn a_record_that_is_missing_in_a_pane_is_named() {
    let mut scene = Scene::of(HOPS, LatePolicy::Include);
    scene.fold_again(Some(500), None);
    let certificate = scene.audit();
    says(&certificate, "missing in speed");
    names(&certificate, 0, 500, "missing_in_speed");
}

/// Without it, a session is two, or ends elsewhere: cells of other keys.
#[test]
fn a_record_that_is_missing_in_a_session_is_a_violation() {
    let mut scene = Scene::of(SESSIONS, LatePolicy::Include);
    scene.fold_again(Some(500), None);
    let certificate = scene.audit();
    says(&certificate, "offset 500 was not folded");
    assert!(certificate.cells.differing > 1, "{:?}", certificate.cells);
}

#[test]
fn nothing_planted_is_exact() {
    let scene = Scene::new(LatePolicy::Include);
    let certificate = scene.audit();
    assert_eq!((certificate.verdict, &certificate.violations), (Verdict::Exact, &vec![]));
    assert_eq!((certificate.cells.differing, certificate.cells.compared), (0, SHOPS));
    assert!(certificate.inputs.iter().all(|input| input.equal) && certificate.inputs.len() == 3);
    assert_eq!(certificate.ledger.balance, 0);
    assert_eq!(certificate.ledger.speed, Some(certificate.ledger.batch));
    assert_eq!(certificate.ledger.appended, scene.cut.total());
}

#[test]
fn dropped_event_is_named() {
    let mut scene = Scene::new(LatePolicy::Include);
    scene.fold_again(Some(555), None);
    let certificate = scene.audit();
    says(&certificate, "offset 555 was not folded");
    says(&certificate, "ledger: batch has");
    names(&certificate, 0, 555, "missing_in_speed");
    assert_eq!(certificate.cells.differing, 1);
}

#[test]
fn doubled_event_is_named() {
    let mut scene = Scene::new(LatePolicy::Include);
    scene.fold_again(None, Some(555));
    let certificate = scene.audit();
    says(&certificate, "offset 555 was folded once too often");
    names(&certificate, 0, 555, "extra_in_speed");
}

#[test]
fn delta_applied_twice_is_named() {
    let mut scene = Scene::new(LatePolicy::Include);
    scene.deltas.insert(1, scene.deltas[0].clone());
    says(&scene.audit(), "a delta is there twice: the one that starts at {0:300,1:200,2:0} overlaps those before it");
}

#[rstest]
#[case::first(0, "nothing covers {0:300,1:200,2:0} to {0:450,1:200,2:90}")]
#[case::last(1, "nothing covers {0:450,1:200,2:90} to {0:700,1:333,2:200}")]
fn skipped_delta_is_named(#[case] skipped: usize, #[case] text: &str) {
    let mut scene = Scene::new(LatePolicy::Include);
    scene.deltas.remove(skipped);
    let certificate = scene.audit();
    says(&certificate, text);
    says(&certificate, "inputs: partition 0");
}

#[rstest]
#[case::in_a_delta(true)]
#[case::in_the_base(false)]
fn flipped_bit_of_a_state_is_named(#[case] in_delta: bool) {
    use arrow::array::{AsArray, PrimitiveArray};
    use arrow::datatypes::Int64Type;
    let mut scene = Scene::new(LatePolicy::Include);
    let states = if in_delta { scene.deltas[0].states[0].clone() } else { scene.base_states.clone() };
    // the first aggregate's state: a count
    let index = scene.view.key_columns() + 4;
    let name = states.schema().field(index).name().clone();
    let mut values = states.column(index).as_primitive::<Int64Type>().values().to_vec();
    values[3] ^= 1 << 40;
    let mut columns = states.columns().to_vec();
    columns[index] = Arc::new(PrimitiveArray::<Int64Type>::from(values));
    let flipped = RecordBatch::try_new(states.schema(), columns).unwrap();
    if in_delta {
        scene.deltas[0].states = vec![flipped];
    } else {
        scene.base_states = flipped;
    }
    let certificate = scene.audit();
    assert_eq!(certificate.cells.differing, 1);
    assert_eq!(certificate.cells.samples[0].columns, [name]);
    let key = certificate.cells.samples[0].key[0].clone();
    says(&certificate, &format!("[{key}]"));
    assert_eq!(certificate.cells.samples[0].record, None);
}

#[test]
fn cut_off_by_one_is_named() {
    // the scan reads one record more than the deltas hold
    let mut scene = Scene::new(LatePolicy::Include);
    scene.scanned_to.set(1, 334);
    let certificate = scene.audit();
    names(&certificate, 1, 333, "missing_in_speed");
    says(&certificate, "inputs: partition 1: offsets 200 to 333: 134 landed, 133 folded");

    // the delta says that it ends one record later than it does
    let mut scene = Scene::new(LatePolicy::Include);
    scene.cut.set(2, 201);
    scene.scanned_to.set(2, 201);
    scene.deltas[1].to.set(2, 201);
    let certificate = scene.audit();
    names(&certificate, 2, 200, "missing_in_speed");

    // the delta ends later than the run
    let mut scene = Scene::new(LatePolicy::Include);
    scene.deltas[1].to.set(2, 201);
    says(&scene.audit(), "beyond the run's cut");
}

#[test]
fn base_that_lacks_a_record_is_named() {
    let mut scene = Scene::new(LatePolicy::Include);
    let short = testing::delta(&scene.view, &scene.frames, &Cut::default(), &Cut(vec![299, 200, 0]));
    scene.base_states = short.states[0].clone();
    names(&scene.audit(), 0, 299, "missing_in_speed");
}

#[test]
fn cell_that_only_one_layer_has_is_found_at_both_ends() {
    let mut scene = Scene::new(LatePolicy::Include);
    // a shop that sorts after all others, and one before all but null
    for (shop, at) in [("zzz", SHOPS), ("a", SHOPS + 1)] {
        let event = testing::Event { shop: Some(shop.into()), ..testing::events(0, 0..1, SHOPS)[0].clone() };
        let mut folder = operators::Folder::new(&scene.view).unwrap();
        folder.fold(9, at, &testing::log_rows(&[event], None)).unwrap();
        let extra = folder.take().unwrap().unwrap();
        let merged = operators::states::merge(&scene.view, &[scene.base_states.clone(), extra]).unwrap();
        scene.base_states = merged;
    }
    let certificate = scene.audit();
    assert_eq!(certificate.cells.differing, 2);
    let keys: Vec<_> = certificate.cells.samples.iter().map(|sample| sample.key[0].as_str()).collect();
    assert_eq!(keys, ["a", "zzz"]);
    assert!(certificate.cells.samples.iter().all(|sample| sample.batch_records.is_none()));
}

#[test]
fn first_run_over_history_compares_nothing_and_says_so() {
    let scene = Scene::new(LatePolicy::Include);
    let from = scene.base.cut.clone();
    let auditor = Auditor {
        run: 1,
        name: "v",
        view_id: scene.base.view,
        view: &scene.view,
        base: None,
        from: &from,
        cut: &from,
        deltas: &[],
        scanned: &scene.base.ledger,
        since_base: &[],
    };
    let mut certificate =
        auditor.audit(&mut in_memory(vec![scene.base_states.clone()]), &mut in_memory(vec![])).unwrap();
    conclude(&mut certificate, not_sampled("not here"), None);
    assert_eq!(certificate.verdict, Verdict::Exact);
    assert!(certificate.cells.skipped.is_some() && certificate.ledger.speed.is_none());
}

#[test]
fn late_events_explain_and_differences_of_the_oracle_violate() {
    let mut certificate = Scene::new(LatePolicy::Drop).audit();
    assert!(certificate.ledger.batch.late > 0);
    assert_eq!(certificate.verdict, Verdict::Explained, "{:?}", certificate.violations);
    assert_eq!(certificate.explanations[0].events, certificate.ledger.batch.late);
    let oracle =
        OracleCheck { sampled: 20, differing: 1, skipped: None, samples: vec!["[a]: n: 3, plain SQL: 4".into()] };
    conclude(&mut certificate, oracle, None);
    says(&certificate, "oracle: 1 of 20 sampled cells differ: [a]: n: 3, plain SQL: 4");
}

mod oracle {
    use super::*;

    async fn check(sql: &str, spoil: impl Fn(RecordBatch) -> RecordBatch) -> OracleCheck {
        let view = testing::view(sql, LatePolicy::Include);
        let cut = Cut(vec![400, 300, 200]);
        let frames = testing::frames(&cut, SHOPS, 64);
        let states = testing::delta(&view, &frames, &Cut::default(), &cut).states[0].clone();
        let stream = testing::stream();
        let oracle = Oracle { view: &view, sql, stream: &stream, tables: &[] };
        if let Some(reason) = oracle.unfit() {
            return not_sampled(reason);
        }
        let rows = frames.iter().map(|frame| spoil(frame.rows.project(&oracle.columns()).unwrap())).collect();
        oracle.check(OracleInput { rows, states }).await.unwrap()
    }

    #[rstest]
    #[case::integers(SQL)]
    #[case::floats(
        "SELECT shop, sum(weight) AS w, avg(weight) AS a, stddev_pop(weight) AS d FROM events GROUP BY shop"
    )]
    #[case::approximate("SELECT shop, approx_distinct(id) AS ids, count(*) AS n FROM events GROUP BY shop")]
    #[case::windows(
        "SELECT window_start, shop, count(*) AS n FROM TUMBLE(events, at, INTERVAL '1 minute') GROUP BY window_start, shop"
    )]
    #[case::hops(super::HOPS)]
    #[case::sessions(super::SESSIONS)]
    #[case::one_session(super::ONE_SESSION)]
    #[case::having(
        "SELECT shop, count(*) AS n FROM events WHERE price > 0 GROUP BY shop HAVING count(*) > 12 ORDER BY n DESC"
    )]
    #[case::global("SELECT count(*) AS n, sum(price) AS total, min(weight) AS least FROM events")]
    #[case::no_columns("SELECT count(*) AS n FROM events")]
    #[tokio::test]
    async fn agrees_with_plain_sql(#[case] sql: &str) {
        let check = check(sql, |rows| rows).await;
        assert_eq!((check.differing, check.skipped), (0, None), "{:?}", check.samples);
        assert!(check.sampled > 0);
    }

    #[tokio::test]
    async fn difference_is_found() {
        let check = check(SQL, |rows| rows.slice(0, rows.num_rows() - 1)).await;
        assert!(check.differing > 0);
        assert!(check.samples[0].contains("plain SQL"), "{:?}", check.samples);
    }

    #[rstest]
    #[case::limit("SELECT shop, count(*) AS n FROM events GROUP BY shop ORDER BY n LIMIT 3", "LIMIT")]
    #[case::hidden_key("SELECT count(*) AS n FROM events GROUP BY shop", "name its cells")]
    #[tokio::test]
    async fn what_cannot_be_checked_is_skipped_with_the_reason(#[case] sql: &str, #[case] reason: &str) {
        let check = check(sql, |rows| rows).await;
        assert!(check.skipped.as_ref().is_some_and(|skipped| skipped.contains(reason)), "{:?}", check.skipped);
    }
}
