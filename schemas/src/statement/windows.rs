//! Flink's spelling of windows: `TABLE(SESSION(TABLE clicks PARTITION BY user_id, DESCRIPTOR(at), INTERVAL '5' SECOND))`.
//!
//! The parser knows `TABLE(…)` around a call, and not the word `TABLE` in front of an argument, nor
//! `PARTITION BY` behind it. Both are taken out before it reads, without moving anything: errors keep their place.

use std::borrow::Cow;

use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::script::Script;

/// The table functions of windows.
const FUNCTIONS: [&str; 4] = ["TUMBLE", "HOP", "CUMULATE", "SESSION"];

/// What becomes of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit {
    Blank,
    Comma,
}

/// The same text in the spelling that the parser knows: of the same length, every token in its place.
pub fn plain_windows(text: &str) -> Cow<'_, str> {
    let Ok(script) = Script::new(text) else { return Cow::Borrowed(text) };
    let edits = edits(&script.tokens);
    if edits.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut plain = text.to_owned();
    for (index, edit) in edits {
        let range = script.bytes_of(index);
        let mut written = " ".repeat(range.len());
        if edit == Edit::Comma {
            written.replace_range(..1, ",");
        }
        plain.replace_range(range, &written);
    }
    Cow::Owned(plain)
}

/// The same of the tokens that the parser reads; white space may be among them or not.
pub(super) fn plain_tokens(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let edits = edits(&tokens);
    for (index, edit) in edits.iter().rev() {
        match edit {
            Edit::Comma => tokens[*index].token = Token::Comma,
            Edit::Blank => {
                tokens.remove(*index);
            }
        }
    }
    tokens
}

/// What is taken out, in order.
fn edits(tokens: &[TokenWithSpan]) -> Vec<(usize, Edit)> {
    let seen: Vec<usize> =
        (0..tokens.len()).filter(|index| !matches!(tokens[*index].token, Token::Whitespace(_))).collect();
    let is = |place: usize, word: &str| seen.get(place).is_some_and(|index| is_word(&tokens[*index].token, word));
    let mut edits = vec![];
    for place in 0..seen.len() {
        let opens = FUNCTIONS.iter().any(|name| is(place, name))
            && seen.get(place + 1).is_some_and(|index| tokens[*index].token == Token::LParen)
            && is(place + 2, "TABLE");
        if !opens {
            continue;
        }
        edits.push((seen[place + 2], Edit::Blank));
        // a name, perhaps with a schema before it
        let mut next = place + 4;
        while seen.get(next).is_some_and(|index| tokens[*index].token == Token::Period) {
            next += 2;
        }
        if is(next, "PARTITION") && is(next + 1, "BY") {
            edits.push((seen[next], Edit::Comma));
            edits.push((seen[next + 1], Edit::Blank));
        }
    }
    edits
}

fn is_word(token: &Token, wanted: &str) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::plain_windows;

    #[rstest]
    #[case::hop(
        "FROM TABLE(HOP(TABLE s, DESCRIPTOR(at), INTERVAL '1' SECOND, INTERVAL '1' MINUTE))",
        "FROM TABLE(HOP(      s, DESCRIPTOR(at), INTERVAL '1' SECOND, INTERVAL '1' MINUTE))"
    )]
    #[case::session(
        "FROM TABLE(SESSION(TABLE clicks\nPARTITION BY user_id, DESCRIPTOR(at), INTERVAL '5' SECOND))",
        "FROM TABLE(SESSION(      clicks\n,            user_id, DESCRIPTOR(at), INTERVAL '5' SECOND))"
    )]
    #[case::ours("FROM HOP(s, at, INTERVAL '1 second')", "FROM HOP(s, at, INTERVAL '1 second')")]
    #[case::a_text("SELECT 'HOP(TABLE s' FROM \"hop\"", "SELECT 'HOP(TABLE s' FROM \"hop\"")]
    #[case::no_sql("'", "'")]
    fn only_the_words_of_flink_are_taken_out(#[case] text: &str, #[case] plain: &str) {
        assert_eq!(plain_windows(text), plain);
    }
}
