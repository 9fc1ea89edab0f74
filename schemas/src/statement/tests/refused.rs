//! Errors as a user reads them. `refused.txt` has the cases: name, statement, and the text of the error
//! (`INSTA_UPDATE=always` writes down what is said).

use std::fmt::Write as _;

use super::refusal;

const CASES: &str = include_str!("refused.txt");

#[test]
fn errors_read_as_written_down() {
    let mut found = String::new();
    for case in CASES.split("=== ").skip(1) {
        let (name, rest) = case.split_once('\n').unwrap();
        let (sql, _) = rest.split_once("\n---\n").unwrap();
        let problem = refusal(sql);
        writeln!(found, "=== {name}\n{sql}\n---\n{}: {}\n", problem.code.as_str(), problem.text()).unwrap();
    }
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/statement/tests/refused.txt");
        std::fs::write(path, found.trim_end().to_owned() + "\n").unwrap();
        return;
    }
    similar_lines(CASES, &found);
}

/// Names the first line that differs: a text of this length is no help as a whole.
fn similar_lines(expected: &str, found: &str) {
    let case = |upto: usize| found.lines().take(upto).filter(|line| line.starts_with("===")).last();
    for (number, (left, right)) in expected.lines().zip(found.lines()).enumerate() {
        assert_eq!(right, left, "refused.txt line {}, case {:?}", number + 1, case(number));
    }
    assert_eq!(expected.trim_end(), found.trim_end());
}
