//! Parts of a view over `UNION ALL`: their states together are the states of the whole.

use super::*;

/// `{}` stands for a branch.
const WHOLES: [&str; 9] = [
    "SELECT k, count(*) AS c, sum(x) AS x, min(n) AS n, avg(n) AS a FROM {} AS u GROUP BY k HAVING count(*) > 1",
    "SELECT count(DISTINCT k) AS d, max(at) AS m, stddev(n) AS s, approx_distinct(n) AS a FROM {} AS u",
    "SELECT k, date_trunc('minute', at) AS m, count(*) FILTER (WHERE n > 100) AS c FROM {} AS u GROUP BY 1, 2",
    "SELECT k, first_value(n ORDER BY x DESC) AS f, last_value(x) AS l, arg_max(x, n) AS g FROM {} AS u GROUP BY k",
    "SELECT k, array_agg(n ORDER BY x, n DESC) AS a, string_agg(k, '-' ORDER BY n) AS t FROM {} AS u GROUP BY k",
    "SELECT label, count(*) AS c FROM {} AS u JOIN t ON u.k = t.code GROUP BY label ORDER BY c DESC LIMIT 1",
    "SELECT k, grouping(k) AS g, approx_percentile_cont(n, 0.9) AS p FROM {} AS u GROUP BY ROLLUP (k)",
    "SELECT DISTINCT k, x FROM {} AS u",
    "SELECT upper(k) AS k, n FROM {} AS u WHERE k <> 'c' ORDER BY n LIMIT 3",
];

fn branch(condition: &str) -> String {
    format!("(SELECT k AS k, n AS n, x AS x, at AS at FROM (SELECT * FROM s WHERE {condition}) AS branch)")
}

fn folded(view: &Arc<View>, piece: i64) -> Vec<RecordBatch> {
    let mut folder = Folder::new(view).unwrap();
    let mut parts = vec![];
    for from in (0..700).step_by(piece as usize) {
        folder.fold(0, from as u64, &rows(from, (from + piece).min(700))).unwrap();
        parts.extend(folder.take().unwrap());
    }
    parts
}

#[rstest]
fn states_of_the_parts_are_those_of_the_whole(#[values(0, 1, 2, 3, 4, 5, 6, 7, 8)] whole: usize) {
    let compiled = |condition: &str| compile(&WHOLES[whole].replace("{}", &branch(condition)));
    let (all, even, odd) = (compiled("n >= 0"), compiled("n % 2 = 0"), compiled("n % 2 = 1"));
    assert!(all.merges_with(&even) && even.merges_with(&odd));
    let expected = states::merge(&all, &folded(&all, 700)).unwrap();
    let parts = [folded(&odd, 64), folded(&even, 333)].concat();
    assert!(expected.num_rows() > 0);
    assert_eq!(states::merge(&even, &parts).unwrap().columns(), expected.columns());
    assert_eq!(even.output_schema(), odd.output_schema());
}

/// Windows of one kind add up, whatever the branches filter.
#[rstest]
#[case("HOP(s, at, INTERVAL '8 seconds', INTERVAL '1 minute')")]
#[case("TUMBLE(s, at, INTERVAL '10 seconds')")]
fn windows_of_the_parts_are_those_of_the_whole(#[case] relation: &str) {
    let compiled = |condition: &str| {
        let branch = format!("(SELECT k, window_start AS w, n FROM {relation} WHERE {condition}) AS branch");
        compile(&format!(
            "SELECT k, w, sum(n) AS n FROM (SELECT k AS k, w AS w, n AS n FROM {branch}) AS u GROUP BY k, w"
        ))
    };
    let (all, even, odd) = (compiled("n >= 0"), compiled("n % 2 = 0"), compiled("n % 2 = 1"));
    assert!(all.merges_with(&even) && even.merges_with(&odd) && even.has_same_final_windows(&odd));
    let parts = [folded(&odd, 700), folded(&even, 700)].concat();
    let expected = states::merge(&all, &folded(&all, 700)).unwrap();
    assert_eq!(states::merge(&all, &parts).unwrap().columns(), expected.columns());
}

#[rstest]
#[case::windows(
    "SELECT window_start AS w, count(*) AS c FROM HOP(s, at, INTERVAL '1 second', INTERVAL '4 seconds') GROUP BY 1",
    "SELECT window_start AS w, count(*) AS c FROM HOP(s, at, INTERVAL '2 seconds', INTERVAL '4 seconds') GROUP BY 1"
)]
#[case::panes_and_windows(
    "SELECT window_start AS w, count(*) AS c FROM HOP(s, at, INTERVAL '1 second', INTERVAL '4 seconds') GROUP BY 1",
    "SELECT window_start AS w, count(*) AS c FROM TUMBLE(s, at, INTERVAL '4 seconds') GROUP BY 1"
)]
#[case::types("SELECT k, sum(n) AS c FROM s GROUP BY k", "SELECT k, sum(x) AS c FROM s GROUP BY k")]
#[case::functions("SELECT k, min(n) AS c FROM s GROUP BY k", "SELECT k, max(n) AS c FROM s GROUP BY k")]
#[case::order("SELECT first_value(n ORDER BY x) AS c FROM s", "SELECT first_value(n ORDER BY x DESC) AS c FROM s")]
#[case::finish("SELECT k, sum(n) AS c FROM s GROUP BY k", "SELECT k, sum(n) + 1 AS c FROM s GROUP BY k")]
#[case::rows_and_groups("SELECT k FROM s", "SELECT DISTINCT k FROM s")]
fn states_of_another_meaning_are_told_apart(#[case] one: &str, #[case] other: &str) {
    assert!(!compile(one).merges_with(&compile(other)));
    assert!(compile(one).merges_with(&compile(one)));
}

/// The same windows in the answer, but not closed by the same rule.
#[test]
fn windows_that_are_closed_otherwise_have_no_common_finality() {
    let buckets = |of: &str| {
        compile(&format!("SELECT w, count(*) AS c FROM (SELECT date_trunc('{of}', at) AS w FROM s) AS u GROUP BY w"))
    };
    assert!(buckets("hour").merges_with(&buckets("day")));
    assert!(buckets("hour").has_same_final_windows(&buckets("hour")));
    assert!(!buckets("hour").has_same_final_windows(&buckets("day")));
}

fn columns(sql: &str) -> Result<Vec<BranchColumn>, Problem> {
    let position = SqlPosition { line: 1, column: 1 };
    let tables = [table(1, &[("a", "one")])];
    branch_columns(&ViewSource { sql, position, stream: &stream(), tables: &tables, late: LatePolicy::Include })
}

#[test]
fn columns_of_a_branch_are_the_users() {
    let names = |sql: &str| columns(sql).unwrap().into_iter().map(|column| column.name).collect::<Vec<_>>();
    assert_eq!(names("SELECT * FROM s"), ["k", "n", "x", "at"]);
    assert_eq!(
        names("SELECT _append_time AS appended, *, n AS _own FROM s"),
        ["appended", "k", "n", "x", "at", "_own"]
    );
    assert_eq!(
        names("SELECT label, window_start FROM TUMBLE(s, at, INTERVAL '1 hour') AS w JOIN t ON w.k = t.code"),
        ["label", "window_start"]
    );
}

/// Columns that a `*` does not have are not left out silently where they are asked for.
#[rstest]
#[case::plain("SELECT k, _offset FROM s", "_offset", 11)]
#[case::qualified("SELECT s._partition, k FROM s", "_partition", 10)]
#[case::folded("SELECT k, (_Offset) FROM s", "_offset", 12)]
#[case::alias("SELECT k AS _offset FROM s", "_offset", 13)]
#[case::beside_all("SELECT *, _offset FROM s", "_offset", 11)]
#[case::in_a_subquery("SELECT * FROM (SELECT k, _offset FROM s) AS q", "_offset", 26)]
#[case::named("WITH q AS (SELECT k, _offset FROM s) SELECT q.* FROM q", "_offset", 22)]
fn a_column_of_the_platform_that_is_written_out_is_refused(#[case] sql: &str, #[case] name: &str, #[case] column: u64) {
    let problem = columns(sql).expect_err("refused");
    assert_eq!(problem.code, Code::InvalidSql, "{}", problem.text());
    assert!(problem.detail.starts_with(&format!("column {name} in a branch")), "{}", problem.text());
    assert!(problem.hint.as_deref().is_some_and(|hint| hint.contains(&format!("{name} AS "))), "{}", problem.text());
    assert_eq!(problem.position, Some(SqlPosition { line: 1, column }));
}

#[rstest]
#[case::renamed("SELECT k, _offset AS place FROM s", &["k", "place"])]
#[case::inside("SELECT k FROM (SELECT k, _offset FROM s) AS q WHERE _offset > 1", &["k"])]
#[case::renamed_by_the_table("SELECT * FROM (SELECT k, _offset FROM s) AS q (a, b)", &["a", "b"])]
#[case::own_name("WITH s AS (SELECT * FROM s) SELECT * FROM s", &["k", "n", "x", "at"])]
fn a_column_of_the_platform_under_another_name_is_the_users(#[case] sql: &str, #[case] expected: &[&str]) {
    let found = columns(sql).unwrap_or_else(|problem| panic!("{}", problem.text()));
    assert_eq!(found.into_iter().map(|column| column.name).collect::<Vec<_>>(), expected);
}

#[rstest]
#[case::group("SELECT k, count(*) AS c FROM s GROUP BY k", "an aggregate")]
#[case::global("SELECT count(*) AS c FROM s", "an aggregate")]
#[case::inside("SELECT c FROM (SELECT sum(n) AS c FROM s) AS q", "an aggregate")]
#[case::distinct("SELECT DISTINCT k FROM s", "DISTINCT")]
#[case::limit("SELECT k FROM s LIMIT 3", "LIMIT")]
#[case::order("(SELECT k FROM s ORDER BY k)", "ORDER BY")]
#[case::window_function("SELECT row_number() OVER (ORDER BY at) AS r FROM s", "a window function")]
fn a_branch_that_needs_all_of_its_rows_is_refused(#[case] sql: &str, #[case] what: &str) {
    let problem = columns(sql).expect_err("refused");
    assert!(problem.detail.starts_with(&format!("{what} in a branch")), "{}", problem.detail);
    assert_eq!(problem.code, Code::NotMergeable);
    assert!(problem.position.is_some());
}

/// As the second side of a left join, a union of tables would leave out what only some of them have.
#[test]
fn a_branch_without_the_stream_is_refused() {
    assert!(columns("SELECT label FROM t").expect_err("refused").detail.contains("does not read the stream s"));
}

#[test]
fn sessions_and_tables_that_change_are_no_parts() {
    let sessions =
        "SELECT k, count(*) AS c FROM SESSION(s, k, at, INTERVAL '3 seconds') GROUP BY k, window_start, window_end";
    assert!(compile(sessions).unfit_for_union().is_some_and(|problem| problem.detail.starts_with("SESSION")));
    let late = StaticTable { is_late: true, ..table(1, &[("a", "one")]) };
    let joined = "SELECT label, count(*) AS c FROM s JOIN t ON s.k = t.code GROUP BY label";
    let joined = compile_with(joined, LatePolicy::Include, &[late]).unwrap();
    assert!(joined.unfit_for_union().is_some_and(|problem| problem.detail.contains("table t")));
    assert!(compile(VIEWS[0]).unfit_for_union().is_none());
}
