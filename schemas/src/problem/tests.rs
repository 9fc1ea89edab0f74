//! The list of codes is final: name, status and retry of each; and how a problem reads.

use rstest::rstest;

use super::{Code, Problem, SqlPosition, did_you_mean};

#[rstest]
#[case(Code::SyntaxError, "syntax_error", 400, false)]
#[case(Code::NotFound, "not_found", 404, false)]
#[case(Code::AlreadyExists, "already_exists", 409, false)]
#[case(Code::InUse, "in_use", 409, false)]
#[case(Code::InvalidSql, "invalid_sql", 400, false)]
#[case(Code::NotMergeable, "not_mergeable", 400, false)]
#[case(Code::Unsupported, "unsupported", 501, false)]
#[case(Code::BadRequest, "bad_request", 400, false)]
#[case(Code::BadRecords, "bad_records", 422, false)]
#[case(Code::Unauthorized, "unauthorized", 401, false)]
#[case(Code::Forbidden, "forbidden", 403, false)]
#[case(Code::UnknownRoute, "unknown_route", 404, false)]
#[case(Code::MethodNotAllowed, "method_not_allowed", 405, false)]
#[case(Code::PayloadTooLarge, "payload_too_large", 413, false)]
#[case(Code::UnsupportedMediaType, "unsupported_media_type", 415, false)]
#[case(Code::Overloaded, "overloaded", 429, true)]
#[case(Code::StorageUnavailable, "storage_unavailable", 503, true)]
#[case(Code::NotReady, "not_ready", 503, true)]
#[case(Code::Stale, "stale", 503, true)]
#[case(Code::Timeout, "timeout", 504, true)]
#[case(Code::MemoryLimit, "memory_limit", 500, false)]
#[case(Code::ComputationFailed, "computation_failed", 422, false)]
#[case(Code::Cancelled, "cancelled", 499, false)]
#[case(Code::Internal, "internal", 500, false)]
fn codes(#[case] code: Code, #[case] name: &str, #[case] status: u16, #[case] retryable: bool) {
    assert_eq!((code.as_str(), code.status(), code.is_retryable()), (name, status, retryable));
    assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{name}\""));
    let problem = Problem::new(code, "why");
    assert_eq!((problem.status, problem.retryable, problem.title), (status, retryable, name.replace('_', " ")));
    assert_eq!(problem.retry_after_s, retryable.then_some(1));
}

#[test]
fn body_has_no_empty_fields() {
    let json = serde_json::to_string(&Problem::new(Code::NotFound, "there is no stream x")).unwrap();
    let expected = r#"{"type":"about:blank","title":"not found","status":404,"code":"not_found","detail":"there is no stream x","retryable":false}"#;
    assert_eq!(json, expected);
}

#[test]
fn caret_stands_below_its_column() {
    let at =
        |sql: &str, line, column| Problem::new(Code::InvalidSql, "no").at(sql, SqlPosition { line, column }).detail;
    assert_eq!(at("a\nb c", 2, 3), "no (line 2, column 3)\n  b c\n    ^");
    assert_eq!(at("\tä b", 1, 4), "no (line 1, column 4)\n  \tä b\n  \t  ^");
    assert_eq!(at("a", 1, 2), "no (line 1, column 2)\n  a\n   ^");
    assert_eq!(at("a", 7, 1), "no", "a place outside of the text");
}

#[test]
fn long_lines_are_cut_around_the_caret() {
    let sql = format!("{}x{}", " ".repeat(100_000), " ".repeat(100_000));
    let problem = Problem::new(Code::InvalidSql, "no").at(&sql, SqlPosition { line: 1, column: 100_001 });
    let lines: Vec<&str> = problem.detail.lines().collect();
    assert!(problem.detail.len() < 500);
    assert_eq!(lines[1].find('x'), lines[2].find('^'));
}

#[test]
fn positions_move_in_and_out_of_a_part() {
    let p = |line, column| SqlPosition { line, column };
    for (place, start, inside) in
        [(p(3, 7), p(3, 5), p(1, 3)), (p(4, 7), p(3, 5), p(2, 7)), (p(1, 1), p(1, 1), p(1, 1))]
    {
        assert_eq!(place.relative_to(start), inside);
        assert_eq!(inside.within(start), place);
    }
}

#[rstest]
#[case("commit", Some("commits"))]
#[case("comimts", Some("commits"))]
#[case("COMMITS", Some("commits"))]
#[case("clicks", None)]
#[case("", None)]
fn guesses(#[case] name: &str, #[case] guess: Option<&str>) {
    assert_eq!(did_you_mean(name, ["commits", "orders"]).as_deref(), guess);
}
