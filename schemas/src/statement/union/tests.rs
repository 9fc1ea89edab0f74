use rstest::rstest;

use super::Union;
use crate::problem::{Problem, SqlPosition};

fn refused(sql: &str) -> Problem {
    Union::of(sql).err().unwrap_or_else(|| panic!("accepted: {sql}"))
}

/// Branches alone, then the whole over each of them.
fn taken_apart(sql: &str) -> (Vec<String>, Vec<String>) {
    let union = Union::of(sql).unwrap().expect("a union");
    let plain = |sql: String| sql.split_whitespace().collect::<Vec<_>>().join(" ");
    let each = || 0..union.branches();
    let parts = each().map(|branch| plain(union.part(branch, "\"k\"").sql)).collect();
    (each().map(|branch| plain(union.branch(branch).sql)).collect(), parts)
}

#[test]
fn subquery_is_taken_apart_in_its_place() {
    let sql = "SELECT k, count(*) AS n\nFROM (SELECT k FROM a\n  UNION ALL\n  SELECT j FROM b) AS t\nGROUP BY k";
    let union = Union::of(sql).unwrap().unwrap();
    let part = union.part(1, "j AS k");
    assert_eq!(
        part.sql,
        "SELECT k, count(*) AS n\nFROM (               \n           \n  SELECT * FROM (SELECT j AS k FROM (SELECT j FROM b) AS branch) AS branch) AS t\nGROUP BY k"
    );
    // what is written around the branch moves what stands behind it on its line, and nothing else
    let at = |line, column| SqlPosition { line, column };
    assert_eq!(part.place(at(4, 3)), at(4, 3));
    assert_eq!(part.place(at(4, 38)), at(4, 3));
    assert_eq!(part.place(at(4, 45)), at(4, 10));
    assert_eq!(part.place(at(4, 80)), at(4, 23));
    assert_eq!(part.place(at(5, 10)), at(5, 10));
    assert_eq!(union.position(1), at(4, 3));
    assert_eq!(union.branch(1).sql.trim(), "SELECT j FROM b");
}

#[rstest]
#[case::rows(
    "SELECT k FROM a UNION ALL SELECT k FROM b WHERE x IN (1, 2) UNION ALL (SELECT k FROM a) ORDER BY k LIMIT 3",
    &["SELECT k FROM a", "SELECT k FROM b WHERE x IN (1, 2)", "(SELECT k FROM a)"],
    &[
        "SELECT * FROM (SELECT \"k\" FROM (SELECT k FROM a) AS branch) AS branch ORDER BY k LIMIT 3",
        "SELECT * FROM (SELECT \"k\" FROM (SELECT k FROM b WHERE x IN (1, 2)) AS branch) AS branch ORDER BY k LIMIT 3",
        "SELECT * FROM (SELECT \"k\" FROM ((SELECT k FROM a)) AS branch) AS branch ORDER BY k LIMIT 3",
    ],
)]
#[case::with(
    "WITH u AS (SELECT k FROM a UNION ALL SELECT k FROM b) SELECT k, count(*) FROM u GROUP BY k",
    &["SELECT k FROM a", "SELECT k FROM b"],
    &[
        "WITH u AS ( SELECT * FROM (SELECT \"k\" FROM (SELECT k FROM a) AS branch) AS branch ) SELECT k, count(*) FROM u GROUP BY k",
        "WITH u AS ( SELECT * FROM (SELECT \"k\" FROM (SELECT k FROM b) AS branch) AS branch) SELECT k, count(*) FROM u GROUP BY k",
    ],
)]
#[case::each_branch_has_its_with(
    "WITH x AS (SELECT k FROM a), \"Y\" (k) AS (SELECT j FROM b) SELECT k FROM x UNION ALL SELECT k FROM \"Y\"",
    &["WITH x AS (SELECT k FROM a) SELECT k FROM x", "WITH \"Y\" (k) AS (SELECT j FROM b) SELECT k FROM \"Y\""],
    &[
        "WITH x AS (SELECT k FROM a) SELECT * FROM (SELECT \"k\" FROM (SELECT k FROM x) AS branch) AS branch",
        "WITH \"Y\" (k) AS (SELECT j FROM b) SELECT * FROM (SELECT \"k\" FROM (SELECT k FROM \"Y\") AS branch) AS branch",
    ],
)]
#[case::with_of_a_with(
    "WITH x AS (SELECT k FROM a), z AS (SELECT k FROM x), u AS (SELECT k FROM z UNION ALL SELECT k FROM b) SELECT k FROM u",
    &["WITH x AS (SELECT k FROM a), z AS (SELECT k FROM x) SELECT k FROM z", "SELECT k FROM b"],
    &[
        "WITH x AS (SELECT k FROM a), z AS (SELECT k FROM x), u AS (SELECT * FROM (SELECT \"k\" FROM (SELECT k FROM z) AS branch) AS branch ) SELECT k FROM u",
        "WITH u AS ( SELECT * FROM (SELECT \"k\" FROM (SELECT k FROM b) AS branch) AS branch) SELECT k FROM u",
    ],
)]
fn branches_and_parts(#[case] sql: &str, #[case] branches: &[&str], #[case] parts: &[&str]) {
    let squeezed = |texts: Vec<String>| texts.iter().map(|text| text.replace("( ", "(").replace(" )", ")")).collect();
    let (found_branches, found_parts) = taken_apart(sql);
    let found: [Vec<String>; 2] = [squeezed(found_branches), squeezed(found_parts)];
    let wanted = [branches, parts].map(|texts| squeezed(texts.iter().map(|text| (*text).to_owned()).collect()));
    assert_eq!(found, wanted);
}

#[rstest]
#[case::none("SELECT k FROM a")]
#[case::a_text("SELECT 'a UNION ALL b' AS \"union\" FROM a")]
#[case::recursive("WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r) SELECT i FROM r")]
#[case::other_set_operations("SELECT k FROM a UNION ALL SELECT k FROM b EXCEPT SELECT k FROM c")]
fn nothing_is_taken_apart(#[case] sql: &str) {
    assert!(Union::of(sql).unwrap().is_none());
}

#[rstest]
#[case::distinct("SELECT k FROM a\nUNION\nSELECT k FROM b", "UNION without ALL", (2, 1))]
#[case::said_distinct("SELECT k FROM a UNION DISTINCT SELECT k FROM b", "UNION without ALL", (1, 17))]
#[case::one_of_them("SELECT k FROM a UNION ALL SELECT k FROM b UNION SELECT k FROM c", "UNION without ALL", (1, 43))]
#[case::by_name("SELECT k FROM a UNION ALL BY NAME SELECT k FROM b", "BY NAME", (1, 17))]
#[case::within_a_branch("SELECT k FROM a UNION ALL (SELECT k FROM b UNION ALL SELECT k FROM c)", "a second UNION", (1, 44))]
#[case::beside(
    "SELECT x.k FROM (SELECT k FROM a UNION ALL SELECT k FROM b) x JOIN (SELECT k FROM c UNION ALL SELECT k FROM d) y ON x.k = y.k",
    "a second UNION",
    (1, 85)
)]
#[case::with_inside(
    "SELECT count(*) FROM (WITH x AS (SELECT k FROM a) SELECT k FROM x UNION ALL SELECT k FROM b) AS u",
    "WITH within",
    (1, 23)
)]
fn what_is_no_list_of_branches_is_refused(#[case] sql: &str, #[case] what: &str, #[case] place: (u64, u64)) {
    let problem = refused(sql);
    assert!(problem.detail.contains(what), "{}", problem.detail);
    assert!(problem.hint.is_some());
    assert_eq!(problem.position.map(|at| (at.line, at.column)), Some(place));
}

#[test]
fn branches_are_bounded() {
    let sql = vec!["SELECT k FROM a"; 33].join(" UNION ALL ");
    assert!(refused(&sql).detail.contains("at most 32 branches"));
}

/// Whatever the text: an error or a list, and a part is as long as its text with what is written into it.
#[test]
fn broken_texts_do_no_harm() {
    let texts = [
        "UNION",
        "UNION ALL",
        "( UNION ALL )",
        "WITH UNION ALL x",
        "SELECT 1 UNION ALL",
        ") UNION ALL (",
        "WITH x AS ( UNION ALL",
    ];
    for text in texts {
        if let Ok(Some(union)) = Union::of(text) {
            for branch in 0..union.branches() {
                let _ = (union.branch(branch), union.part(branch, "*"), union.position(branch));
            }
        }
    }
}
