//! One frozen example of each stored document: what is written today is what was written then.

use std::fmt::Debug;

use rstest::rstest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::catalog::Catalog;
use super::certificate::{
    CellCheck, CellDifference, Certificate, Digest, Explanation, InputCheck, LedgerCheck, OracleCheck, RecordReference,
    Verdict, by_partition,
};
use super::delta::{DeltaHeader, DeltaView, FailedView};
use super::ledger::LedgerCounts;
use super::manifest::{BatchFile, Manifest};
use super::owner::OwnerDocument;
use super::run::{RunDocument, RunKind, RunState, RunTrigger};
use super::sink::{PendingParcel, SinkPosition};
use super::source::{Epoch, Hole, HoleReason, LogTopic, SourceDocument, SourcePosition};
use crate::column::{ColumnDef, SqlType};
use crate::position::Cut;
use crate::sink::{OutputMode, SinkDef, SinkTarget};
use crate::stream::{LatePolicy, OnBadData, StreamDef};
use crate::table::TableSource;
use crate::union::UnionDef;
use crate::view::{Refresh, TableDef, TableJoin, ViewDef};

const STREAM: Uuid = Uuid::from_u128(0x0191_7d3c_0000_7000_8000_0000_0000_0001);
const VIEW: Uuid = Uuid::from_u128(0x0191_7d3c_0000_7000_8000_0000_0000_0002);
const TABLE: Uuid = Uuid::from_u128(0x0191_7d3c_0000_7000_8000_0000_0000_0003);
const INCARNATION: Uuid = Uuid::from_u128(0x0191_7d3c_0000_7000_8000_0000_0000_0004);
const HASH: &str = "9f86d081884c7d65";
const TIME_US: i64 = 1_700_000_000_123_456;

/// The frozen text is the value, and the value is the frozen text.
fn assert_frozen<T: Serialize + DeserializeOwned + PartialEq + Debug>(frozen: &str, value: &T) {
    let written = serde_json::to_string_pretty(value).unwrap();
    assert_eq!(written.trim(), frozen.trim(), "the format of a stored document has changed");
    assert_eq!(&serde_json::from_str::<T>(frozen).unwrap(), value);
}

fn ledger() -> LedgerCounts {
    LedgerCounts { records: 10, counted: 7, filtered: 2, late: 1, positions_hi: u64::MAX, positions_lo: 5 }
}

fn columns() -> Vec<ColumnDef> {
    let types = [
        ("id", SqlType::Text, false),
        ("event_time", SqlType::TimestampTz, false),
        ("a", SqlType::Boolean, true),
        ("b", SqlType::SmallInt, true),
        ("c", SqlType::Int, true),
        ("d", SqlType::BigInt, true),
        ("e", SqlType::Real, true),
        ("f", SqlType::Double, true),
        ("g", SqlType::Numeric { precision: 10, scale: 2 }, true),
        ("h", SqlType::Date, true),
        ("i", SqlType::Json, true),
    ];
    types.map(|(name, sql_type, nullable)| ColumnDef { name: name.into(), sql_type, nullable }).into()
}

fn stream() -> StreamDef {
    StreamDef {
        id: STREAM,
        incarnation: INCARNATION,
        name: "commits".into(),
        columns: columns(),
        primary_key: vec!["id".into()],
        time_column: Some("event_time".into()),
        watermark_delay_us: 900_000_000,
        partitions: 4,
        dedup_horizon_us: 86_400_000_000,
        late: LatePolicy::Include,
        on_bad_data: OnBadData::Quarantine,
        transport: crate::transport::Transport::default(),
        created_at_us: TIME_US,
    }
}

fn view(refresh: Refresh, late: Option<LatePolicy>) -> ViewDef {
    ViewDef {
        id: VIEW,
        name: "commits_per_day".into(),
        version: 1,
        stream: STREAM,
        sql: "SELECT count(*) AS n FROM commits".into(),
        refresh,
        late,
        tables: vec![(TABLE, 3)],
        semantic_hash: HASH.into(),
        from: Cut(vec![1, 0, 2, 3]),
        with_no_data: false,
        created_at_us: TIME_US,
    }
}

#[test]
fn catalog_v1() {
    let cron = Refresh::Cron { expression: "0 3 * * *".into(), time_zone: "Europe/Berlin".into() };
    let catalog = Catalog {
        format: 1,
        sequence: 12,
        streams: vec![
            stream(),
            StreamDef { time_column: None, late: LatePolicy::Drop, on_bad_data: OnBadData::Reject, ..stream() },
        ],
        tables: vec![TableDef {
            id: TABLE,
            name: "ads".into(),
            columns: vec![ColumnDef { name: "ad_id".into(), sql_type: SqlType::Text, nullable: false }],
            source: TableSource::File("ads.csv".into()),
            refresh_us: None,
            version: 3,
            join: TableJoin::Pinned,
            validity: None,
            rows: 1_000,
            created_at_us: TIME_US,
        }],
        views: vec![
            view(cron, None),
            view(Refresh::Every { interval_us: 3_600_000_000 }, Some(LatePolicy::Drop)),
            view(Refresh::Manual, Some(LatePolicy::Include)),
            view(Refresh::Never, None),
        ],
        sinks: vec![],
        unions: vec![],
        next_run: 8,
        epoch: 0,
    };
    assert_frozen(include_str!("../../frozen/catalog-v1.json"), &catalog);
}

#[test]
fn union_v1() {
    let sql = "SELECT count(*) AS n FROM (SELECT id FROM commits UNION ALL SELECT id FROM reviews) AS u";
    let union = UnionDef {
        id: TABLE,
        name: "activity".into(),
        version: 1,
        sql: sql.into(),
        refresh: Refresh::Manual,
        late: Some(LatePolicy::Drop),
        with_no_data: false,
        parts: vec![VIEW, INCARNATION],
        created_at_us: TIME_US,
    };
    assert_frozen(include_str!("../../frozen/union-v1.json"), &union);
}

#[test]
fn delta_v1() {
    let header = DeltaHeader {
        format: 1,
        stream: STREAM,
        incarnation: INCARNATION,
        first_checkpoint: 4,
        last_checkpoint: 6,
        from: Cut(vec![0, 5]),
        to: Cut(vec![10, 5]),
        max_event_time_us: vec![Some(TIME_US), None],
        views: vec![DeltaView {
            view: VIEW,
            semantic_hash: HASH.into(),
            from: Cut(vec![0, 5]),
            cells: 3,
            ledger: vec![ledger(), LedgerCounts::default()],
            bytes: 4_096,
        }],
        failed: vec![],
        created_at_us: TIME_US,
        as_of_us: None,
    };
    assert_frozen(include_str!("../../frozen/delta-v1.json"), &header);
    let detail = "partition 0, offset 17: Divide by zero error".into();
    let failed = vec![FailedView { view: VIEW, code: crate::Code::ComputationFailed, detail }];
    assert_frozen(include_str!("../../frozen/delta-v1-failed.json"), &DeltaHeader { failed, ..header });
}

#[test]
fn manifest_v1() {
    let manifest = Manifest {
        format: 1,
        sequence: 3,
        view: VIEW,
        semantic_hash: HASH.into(),
        run: 7,
        cut: Cut(vec![10, 5]),
        files: vec![BatchFile {
            path: "views/x/runs/7/0.parquet".into(),
            bytes: 12_345,
            cells: 20_453,
            checksums: String::new(),
        }],
        cells: 20_453,
        ledger: vec![ledger()],
        verdict: Verdict::Exact,
        published_at_us: TIME_US,
        rolled_back_from: Some(9),
        epoch: 0,
    };
    assert_frozen(include_str!("../../frozen/manifest-v1.json"), &manifest);
}

#[test]
fn run_v1() {
    let run = RunDocument {
        format: 1,
        id: 7,
        view: "commits_per_day".into(),
        view_id: VIEW,
        kind: RunKind::Full,
        trigger: RunTrigger::Schedule,
        state: RunState::Succeeded,
        cut: Some(Cut(vec![10, 5])),
        rows: 15,
        rows_total: 15,
        rows_per_second: 2_100_000.5,
        eta_ms: Some(0),
        phase: "done".into(),
        phase_ms: vec![("plan".into(), 2), ("scan".into(), 40)],
        queued_at_us: TIME_US,
        started_at_us: Some(TIME_US + 1),
        finished_at_us: None,
        verdict: Some(Verdict::Explained),
        error: Some("an error".into()),
    };
    assert_frozen(include_str!("../../frozen/run-v1.json"), &run);
}

#[test]
fn certificate_v1() {
    let digest = Digest { records: 10, hash: "00112233445566778899aabbccddeeff".into() };
    let cut = by_partition(&Cut(vec![10, 5]));
    let certificate = Certificate {
        format: 1,
        run: 8,
        view: "commits_per_day".into(),
        view_id: VIEW,
        semantic_hash: HASH.into(),
        verdict: Verdict::Violation,
        base_run: Some(7),
        base_cut: by_partition(&Cut(vec![0, 5])),
        cut,
        inputs: vec![InputCheck { partition: 0, from: 0, to: 10, landed: digest.clone(), folded: digest, equal: true }],
        ledger: LedgerCheck { appended: 10, batch: ledger(), speed: Some(ledger()), balance: 0, intake: None },
        cells: CellCheck { compared: 3, differing: 1, samples: vec![difference()], skipped: None },
        oracle: OracleCheck {
            sampled: 2,
            differing: 0,
            skipped: Some("no aggregate that SQL has".into()),
            samples: vec!["a sample".into()],
        },
        explanations: vec![Explanation { reason: "late".into(), events: 1, list: Some("runs/8/late.parquet".into()) }],
        violations: vec!["1 of 3 cells differ".into()],
        created_at_us: TIME_US,
        audit_ms: 12,
    };
    assert_frozen(include_str!("../../frozen/certificate-v1.json"), &certificate);
}

#[test]
fn source() {
    let hole = |partition, from, to, reason| Hole {
        epoch: 0,
        topic_id: TABLE,
        partition,
        from,
        to,
        reason,
        found_at_us: TIME_US,
    };
    let epoch = Epoch { number: 0, topic_id: TABLE, starts: vec![0, 17], letters_from: 2, began_at_us: TIME_US };
    let document = SourceDocument {
        format: 1,
        topic: "clicks".into(),
        epochs: vec![epoch],
        holes: vec![hole(1, 20, Some(30), HoleReason::Retention), hole(0, 5, None, HoleReason::Recreated)],
    };
    assert_frozen(include_str!("../../frozen/source-v1.json"), &document);
    let position = SourcePosition { format: 1, epoch: 0, next: vec![5, 30], letters: 4, log: vec![] };
    assert_frozen(include_str!("../../frozen/source-position-v1.json"), &position);
    let topic = LogTopic { format: 1, topic: "bifold.s.records".into(), topic_id: TABLE };
    assert_frozen(include_str!("../../frozen/log-topic-v1.json"), &topic);
}

fn difference() -> CellDifference {
    CellDifference {
        key: vec!["influxdata/influxdb".into(), "2024-01-01T00:00:00Z".into()],
        columns: vec!["_n".into(), "s0".into()],
        batch_records: Some(4),
        speed_records: None,
        record: Some(RecordReference { partition: 0, offset: 9, what: "missing_in_speed".into() }),
    }
}

#[test]
fn owner_v1_is_frozen() {
    let owner = OwnerDocument {
        format: 1,
        epoch: 3,
        node: STREAM,
        process: VIEW,
        place: "host-a:/var/lib/bifold".into(),
        started_at_us: TIME_US,
    };
    assert_frozen(include_str!("../../frozen/owner-v1.json"), &owner);
}

#[test]
fn ledger_balances() {
    assert_eq!(ledger().balance(), 0);
    assert_eq!(LedgerCounts { counted: 8, ..ledger() }.balance(), -1);
    let total = LedgerCounts::sum([&ledger(), &ledger()]);
    assert_eq!((total.records, total.late, total.positions_hi, total.positions_lo), (20, 2, u64::MAX - 1, 10));
}

/// Words that are stored stay what they are.
#[rstest]
#[case(Verdict::Exact, "\"exact\"")]
#[case(Verdict::Explained, "\"explained\"")]
#[case(Verdict::Tolerated, "\"tolerated\"")]
#[case(Verdict::Violation, "\"violation\"")]
#[case(RunState::Queued, "\"queued\"")]
#[case(RunState::Running, "\"running\"")]
#[case(RunState::Succeeded, "\"succeeded\"")]
#[case(RunState::Blocked, "\"blocked\"")]
#[case(RunState::Failed, "\"failed\"")]
#[case(RunState::Cancelled, "\"cancelled\"")]
#[case(RunKind::Full, "\"full\"")]
#[case(RunKind::Incremental, "\"incremental\"")]
#[case(RunTrigger::Manual, "\"manual\"")]
#[case(RunTrigger::Schedule, "\"schedule\"")]
#[case(RunTrigger::History, "\"history\"")]
#[case(RunTrigger::Restart, "\"restart\"")]
fn words<T: Serialize>(#[case] value: T, #[case] json: &str) {
    assert_eq!(serde_json::to_string(&value).unwrap(), json);
}

#[test]
fn sink() {
    let (url, table) = ("postgres://me:secret@host:5432/db".to_owned(), "page_views".to_owned());
    let sink = SinkDef {
        id: STREAM,
        name: "to_pg".into(),
        view: VIEW,
        mode: OutputMode::Update,
        target: SinkTarget::Postgres { url, table },
        every_us: 5_000_000,
        created_at_us: TIME_US,
    };
    assert_frozen(include_str!("../../frozen/sink-v1.json"), &sink);
}

#[test]
fn sink_position() {
    let pending = PendingParcel { body: r#"{"rows":[]}"#.into(), cursor: Some("v1.1.9-3".into()) };
    let position = SinkPosition { format: 1, parcels: 3, cursor: Some("v1.0.7-3".into()), pending: Some(pending) };
    assert_frozen(include_str!("../../frozen/sink-position-v1.json"), &position);
}
