//! What parses as in PostgreSQL and would be computed otherwise: refused, because nobody would notice.

use sqlparser::tokenizer::Token;

use super::places::stands_at;
use super::script::Script;
use crate::limits::SQL_NESTING_MAX;
use crate::problem::{Code, Problem};

/// Types with a length, by their tokens.
const WITH_LENGTH: [&str; 4] = ["VARCHAR ( #", "CHAR ( #", "CHARACTER ( #", "CHARACTER VARYING ( #"];
/// Functions whose formats are those of `strftime`.
const FORMATTED: [&str; 2] = ["TO_CHAR (", "DATE_FORMAT ("];

/// The first thing in a query that would be computed otherwise.
pub(super) fn check(script: &Script<'_>, tokens: &[usize]) -> Option<Problem> {
    let refused = |at: usize, detail: String, hint: &str| {
        let problem = Problem::new(Code::Unsupported, detail).with_hint(hint);
        Some(problem.at(script.text, script.position(tokens[at])))
    };
    (0..tokens.len()).find_map(|at| {
        let is = |construct: &&str| stands_at(script, tokens, at, construct);
        if WITH_LENGTH.iter().any(&is) {
            let named = &script.tokens[tokens[at]].token;
            let detail = format!("{named}(n): a cast does not cut texts to a length here");
            return refused(at, detail, "write TEXT for the type; left(k, 3) cuts");
        }
        if FORMATTED.iter().any(is) && has_no_percent(script, tokens, at + 1) {
            let named = &script.tokens[tokens[at]].token;
            let detail = format!("{named}: the format is that of strftime, with % in front of each letter");
            return refused(at, detail, "write to_char(at, '%Y-%m-%d %H:%M'), or group by date_trunc('minute', at)");
        }
        None
    })
}

/// True if the last argument of the call that opens here is a text with letters and no `%`.
fn has_no_percent(script: &Script<'_>, tokens: &[usize], open: usize) -> bool {
    let mut depth = 0_usize;
    for at in open..tokens.len() {
        depth += usize::from(stands_at(script, tokens, at, "("));
        if depth > SQL_NESTING_MAX {
            return false; // refused for that
        }
        if stands_at(script, tokens, at, ")") {
            depth -= 1;
            if depth == 0 {
                let last = &script.tokens[tokens[at - 1]].token;
                return matches!(last, Token::SingleQuotedString(text) if !text.is_empty() && !text.contains('%'));
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use crate::statement::parse_script;

    #[rstest]
    #[case::cut("SELECT CAST(k AS VARCHAR(3)) FROM v", Some(18))]
    #[case::cut_in_short("SELECT k::char(3) FROM v", Some(11))]
    #[case::whole("SELECT CAST(k AS VARCHAR) FROM v", None)]
    #[case::format("SELECT to_char(date_trunc('day', at), 'YYYY') FROM v", Some(8))]
    #[case::our_format("SELECT to_char(at, '%Y') FROM v", None)]
    #[case::a_column("SELECT to_char(at, format) FROM v", None)]
    fn what_would_be_computed_otherwise_is_refused(#[case] sql: &str, #[case] column: Option<u64>) {
        let found = parse_script(sql).err().map(|problem| problem.position.unwrap().column);
        assert_eq!(found, column);
    }
}
