//! Whatever is sent: an answer, never a panic, never an overflow of the stack.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use rstest::rstest;

use super::super::parse_script;
use super::{VALID, refusal};
use crate::limits::{SQL_BYTES_MAX, SQL_CHAIN_MAX};
use crate::problem::{Code, Problem};

/// Checks what holds for every problem: its place lies in the text, its caret below the line.
fn check(sql: &str, problem: &Problem) -> Result<(), TestCaseError> {
    let Some(position) = problem.position else { return Ok(()) };
    let lines = sql.split('\n').count() as u64;
    prop_assert!((1..=lines).contains(&position.line), "{sql:?}: {problem:?}");
    let line = sql.split('\n').nth(position.line as usize - 1).unwrap_or_default();
    prop_assert!(position.column >= 1 && position.column <= line.chars().count() as u64 + 1, "{sql:?}: {problem:?}");
    Ok(())
}

fn parses_or_explains(sql: &str) -> Result<(), TestCaseError> {
    match parse_script(sql) {
        Ok(placed) => {
            for statement in placed {
                prop_assert!(sql.contains(&statement.text));
                let again = parse_script(&statement.text).map_err(|p| TestCaseError::fail(p.text()))?;
                prop_assert_eq!(&again[0].statement, &statement.statement);
            }
        }
        Err(problem) => check(sql, &problem)?,
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text(sql in "\\PC{0,60}") {
        parses_or_explains(&sql)?;
    }

    #[test]
    fn arbitrary_bytes_of_sql(sql in "[-a-z0-9'\"$;(),.*/\\\\ \n\r\tEé_:=<>|]{0,60}") {
        parses_or_explains(&sql)?;
    }

    /// Words of the language in any order.
    #[test]
    fn word_salad(words in proptest::collection::vec(0usize..400, 1..30)) {
        let tokens: Vec<&str> = VALID.iter().flat_map(|sql| sql.split_inclusive([' ', '(', ')', ','])).collect();
        let sql: String = words.iter().map(|word| tokens[word % tokens.len()]).collect::<Vec<_>>().join(" ");
        parses_or_explains(&sql)?;
    }

    /// A valid statement with a piece cut out, put in twice, or replaced.
    #[test]
    fn bent_statement(which in 0..VALID.len(), from in 0usize..200, length in 0usize..12, insert in "\\PC{0,3}|[;'\"(),]") {
        let chars: Vec<char> = VALID[which].chars().collect();
        let from = from % chars.len();
        let to = (from + length).min(chars.len());
        let cut: String = chars[..from].iter().chain(&chars[to..]).collect();
        let replaced: String = chars[..from].iter().copied().chain(insert.chars()).chain(chars[to..].iter().copied()).collect();
        let doubled: String = chars[..to].iter().chain(&chars[from..]).collect();
        for sql in [cut, replaced, doubled] {
            parses_or_explains(&sql)?;
        }
    }
}

/// On a thread with the stack that tokio's and the test's threads have: 2 MiB.
fn on_small_stack(sql: String) -> Result<usize, Problem> {
    let thread = std::thread::Builder::new().stack_size(2 << 20);
    thread.spawn(move || parse_script(&sql).map(|placed| placed.len())).unwrap().join().unwrap()
}

#[rstest]
#[case::parentheses("SELECT ", "(", "1", ")", "")]
#[case::open_parentheses("SELECT ", "(", "", "", "")]
#[case::calls("SELECT ", "f(", "1", ")", "")]
#[case::subqueries("", "SELECT * FROM (", "SELECT 1", ") x", "")]
#[case::bare_subqueries("SELECT * FROM ", "(", "a", ")", "")]
#[case::joins("SELECT * FROM ", "(a JOIN ", "b", " ON true)", "")]
#[case::queries("", "(", "SELECT 1", ")", "")]
#[case::cases("SELECT ", "CASE WHEN ", "1", " THEN 1 END", "")]
#[case::exists("SELECT ", "EXISTS (SELECT ", "1", ")", "")]
#[case::arrays("SELECT ", "ARRAY[", "1", "]", "")]
#[case::brackets("SELECT a", "[", "1", "]", "")]
#[case::not("SELECT ", "NOT ", "1", "", "")]
#[case::minus("SELECT ", "- ", "1", "", "")]
#[case::plus("SELECT 1", " + 1", "", "", "")]
#[case::or("SELECT 1", " OR 1", "", "", "")]
#[case::union("SELECT 1", " UNION SELECT 1", "", "", "")]
#[case::casts("SELECT 1", "::int", "", "", "")]
#[case::subscripts("SELECT a", "[1]", "", "", "")]
#[case::fields("SELECT a", ".b", "", "", "")]
#[case::calls_in_a_row("SELECT f", "(1)", "", "", "")]
#[case::is_null("SELECT a", " IS NULL", "", "", "")]
#[case::between("SELECT a", " BETWEEN 1 AND 1", "", "", "")]
#[case::zones("SELECT a", " AT TIME ZONE 'UTC'", "", "", "")]
#[case::collate("SELECT a", " COLLATE c", "", "", "")]
#[case::join_chain("SELECT * FROM a", " JOIN b ON true", "", "", "")]
#[case::cross("SELECT * FROM a", " CROSS JOIN b", "", "", "")]
#[case::intervals("SELECT ", "INTERVAL ", "'1 day'", "", "")]
#[case::types("SELECT CAST(1 AS ", "ARRAY<", "INT", ">", ")")]
#[case::with("", "WITH a AS (", "SELECT 1", ") SELECT 1", "")]
#[case::explain("", "EXPLAIN ", "SELECT 1", "", "")]
#[case::aliases("SELECT a", " a", "", "", "")]
#[case::strings("SELECT 'a'", " 'a'", "", "", "")]
#[case::dollars("SELECT ", "$a", "", "", "")]
#[case::comments("SELECT ", "/*", "", "", "")]
#[case::quotes("SELECT ", "''", "", "", "")]
#[case::operators("SELECT 1 ", "||", "1", "", "")]
#[case::bangs("SELECT 1 ", "!", "", "", "")]
#[case::at("SELECT ", "@", "1", "", "")]
#[case::structs("SELECT ", "{'a': ", "1", "}", "")]
#[case::lambda("SELECT ", "x -> ", "1", "", "")]
#[case::casts_in_casts("SELECT ", "CAST(", "1", " AS INT)", "")]
#[case::cases_in_brackets("SELECT ", "CASE (", "1", ") WHEN 1 THEN 1 END", "")]
#[case::calls_in_from("SELECT * FROM ", "f(", "a", ")", "")]
#[case::tables("SELECT * FROM ", "TABLE(", "a", ")", "")]
#[case::table_queries("SELECT ", "TABLE (SELECT ", "1", ")", "")]
#[case::not_brackets("SELECT ", "NOT (", "1", ")", "")]
#[case::values("", "VALUES (", "1", ")", "")]
#[case::call_queries("SELECT ", "f((SELECT ", "1", "))", "")]
#[case::array_queries("SELECT ", "ARRAY[(SELECT ", "1", ")]", "")]
#[case::open_calls("SELECT ", "f(", "", "", "")]
#[case::points("SELECT ", "POINT ", "1", "", "")]
#[case::rows("SELECT ", "ROW(1, ", "1", ")", "")]
#[case::sums_in_calls("SELECT ", "coalesce(1 + ", "1", ", 2)", "")]
#[case::columns("CREATE STREAM s ", "(", "a INT", ")", "")]
fn deep_nesting_is_refused_or_read(
    #[case] head: &str,
    #[case] open: &str,
    #[case] middle: &str,
    #[case] close: &str,
    #[case] tail: &str,
) {
    for depth in [8, 11, 14, 18, 24, 30, 33, 60, 300, 2 * SQL_CHAIN_MAX, 50_000] {
        let sql = format!("{head}{}{middle}{}{tail}", open.repeat(depth), close.repeat(depth));
        let start = Instant::now();
        let _ = on_small_stack(sql.chars().take(SQL_BYTES_MAX).collect());
        assert!(start.elapsed() < Duration::from_secs(5), "depth {depth}: {:?}", start.elapsed());
    }
}

#[test]
fn chains_mixed_with_nesting_are_bounded_together() {
    let chain = " + 1".repeat(SQL_CHAIN_MAX / 2);
    let sql = (0..40).fold("1".to_owned(), |inner, _| format!("({inner}{chain})"));
    assert_eq!(on_small_stack(format!("SELECT {sql}")).unwrap_err().code, Code::SyntaxError);
}

#[test]
fn long_flat_statements_are_read() {
    let list: Vec<String> = (0..20_000).map(|i| format!("({i}, -1, 'x')")).collect();
    assert_eq!(on_small_stack(format!("VALUES {}", list.join(", "))).unwrap(), 1);
    let list: Vec<String> = (0..50_000).map(|i| i.to_string()).collect();
    assert_eq!(on_small_stack(format!("SELECT 1 WHERE 1 IN ({})", list.join(","))).unwrap(), 1);
    let chain = " OR a = 1".repeat(SQL_CHAIN_MAX / 2 - 1);
    assert_eq!(on_small_stack(format!("SELECT a = 1{chain}")).unwrap(), 1);
}

#[test]
fn text_beyond_the_limit_is_refused() {
    let problem = refusal(&" ".repeat(SQL_BYTES_MAX + 1));
    assert_eq!(problem.code, Code::PayloadTooLarge);
    assert_eq!(parse_script(&" ".repeat(SQL_BYTES_MAX)), Ok(vec![]));
}
