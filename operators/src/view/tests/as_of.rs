//! `FOR SYSTEM_TIME AS OF` in subqueries and in branches of `UNION ALL`. (R-062: as-of)

use super::*;

/// A table that is valid from times on, as the platform hands it to a view.
fn rates() -> StaticTable {
    let times =
        |values: Vec<i64>| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) };
    let columns: [(&str, ArrayRef); 4] = [
        ("code", Arc::new(StringViewArray::from(vec!["a", "a", "b"]))),
        ("rate", Arc::new(Int64Array::from(vec![2, 3, 5]))),
        ("since", times(vec![0, 10_000_000, 0])),
        ("_valid_to", times(vec![10_000_000, i64::MAX, i64::MAX])),
    ];
    StaticTable {
        name: "rates".into(),
        rows: vec![RecordBatch::try_from_iter(columns).unwrap()],
        identity: "rates/1".into(),
        is_late: false,
        valid_from: Some("since".into()),
    }
}

const JOIN: &str = "s JOIN rates FOR SYSTEM_TIME AS OF s.at AS r ON s.k = r.code";

fn compiled(sql: &str) -> Result<Arc<View>, Problem> {
    compile_with(&sql.replace("{}", JOIN), LatePolicy::Include, &[rates()])
}

fn columns(sql: &str) -> Result<Vec<String>, Problem> {
    let (sql, position, tables) = (sql.replace("{}", JOIN), SqlPosition { line: 1, column: 1 }, [rates()]);
    let source = ViewSource { sql: &sql, position, stream: &stream(), tables: &tables, late: LatePolicy::Include };
    Ok(branch_columns(&source)?.into_iter().map(|column| column.name).collect())
}

/// What a subquery selects is said there: a `*` around it has no hidden columns.
#[rstest]
#[case::rows("SELECT * FROM (SELECT k, n * rate AS worth FROM {}) AS q")]
#[case::groups(
    "SELECT k, sum(worth) AS worth FROM (SELECT * FROM (SELECT k, n * rate AS worth FROM {}) AS q) AS q GROUP BY k"
)]
#[case::qualified("SELECT q.* FROM (SELECT k, rate FROM {}) AS q")]
#[case::named("WITH q AS (SELECT k, rate FROM {}) SELECT * FROM q")]
fn a_star_around_a_subquery_is_taken(#[case] sql: &str) {
    let view = compiled(sql).unwrap_or_else(|problem| panic!("{}", problem.text()));
    let (_, counts) = fold_in_pieces(&view, 7, false);
    assert_eq!((counts.records, counts.balance()), (700, 0), "{counts:?}");
}

#[rstest]
#[case::all("SELECT * FROM {}")]
#[case::of_the_table("SELECT k, r.* FROM {}")]
#[case::in_a_subquery("SELECT k, count(*) AS c FROM (SELECT * FROM {}) AS q GROUP BY k")]
#[case::nested("SELECT * FROM ({})")]
fn a_star_beside_the_join_is_refused(#[case] sql: &str) {
    for problem in [compiled(sql).map(|_| ()), columns(&sql.replace("count(*) AS c", "1 AS c")).map(|_| ())] {
        let problem = problem.expect_err("refused");
        assert!(problem.detail.contains("hidden columns"), "{}", problem.text());
    }
}

#[rstest]
#[case::plain("SELECT k, n * rate AS worth FROM {}", &["k", "worth"])]
#[case::subquery("SELECT * FROM (SELECT k, n * rate AS worth FROM {}) AS q", &["k", "worth"])]
#[case::windows(
    "SELECT window_start, rate FROM TUMBLE(s, at, INTERVAL '1 hour') AS s \
     LEFT JOIN rates FOR SYSTEM_TIME AS OF window_start AS r ON s.k = r.code",
    &["window_start", "rate"]
)]
fn a_branch_joins_as_of_a_time(#[case] sql: &str, #[case] expected: &[&str]) {
    let found = columns(sql).unwrap_or_else(|problem| panic!("{}", problem.text()));
    assert_eq!(found, expected);
    // as the part of the union has it
    let part = format!("SELECT * FROM (SELECT \"{0}\" AS \"{0}\" FROM ({sql}) AS branch) AS branch", expected[1]);
    assert!(compiled(&part).is_ok());
}
