//! The `WITH` at the beginning of a `SELECT`: which of its queries a branch needs.

use std::ops::Range;

use sqlparser::tokenizer::Token;

use super::super::places::stands_at;
use super::super::script::Script;

/// The queries of a `WITH`, in order.
#[derive(Debug, Default)]
pub(super) struct Ctes(Vec<Cte>);

#[derive(Debug)]
struct Cte {
    /// As PostgreSQL reads it.
    name: String,
    /// Its tokens, from its name to its last bracket.
    tokens: Range<usize>,
}

impl Ctes {
    /// Reads the `WITH` that these tokens begin with; none if they do not, or if it cannot be read.
    pub(super) fn of(script: &Script<'_>, tokens: &[usize], depths: &[usize]) -> Self {
        let is = |at: usize, word: &str| stands_at(script, tokens, at, word);
        let mut ctes = vec![];
        if !is(0, "WITH") {
            return Self::default();
        }
        let mut start = 1;
        while let Some(name) = tokens.get(start).and_then(|token| name_of(&script.tokens[*token].token)) {
            let query = (start..tokens.len()).find(|at| depths[*at] == 0 && is(*at, "AS"));
            let opens = query.and_then(|query| (query..tokens.len()).find(|at| is(*at, "(")));
            let closes = opens.and_then(|open| (open + 1..tokens.len()).find(|at| depths[*at] == 0 && is(*at, ")")));
            let Some(closes) = closes else { break };
            ctes.push(Cte { name, tokens: start..closes + 1 });
            if !is(closes + 1, ",") {
                break;
            }
            start = closes + 2;
        }
        Self(ctes)
    }

    /// The first token behind the `WITH`.
    pub(super) fn end(&self) -> usize {
        self.0.last().map_or(0, |last| last.tokens.end)
    }

    /// Leaves out what stands around some tokens in the query that they are in.
    pub(super) fn drop_around(&self, kept: &mut [bool], inner: &Range<usize>) {
        for cte in self.0.iter().filter(|cte| cte.tokens.contains(&inner.start)) {
            for token in cte.tokens.clone().filter(|token| !inner.contains(token)) {
                kept[token] = false;
            }
        }
        self.separate(kept);
    }

    /// Leaves out queries that nothing names any more.
    pub(super) fn drop_unused(&self, script: &Script<'_>, tokens: &[usize], kept: &mut [bool]) {
        let names = |at: usize, cte: &Cte| {
            !cte.tokens.contains(&at) && name_of(&script.tokens[tokens[at]].token).is_some_and(|name| name == cte.name)
        };
        while let Some(unused) =
            self.0.iter().find(|cte| kept[cte.tokens.start] && !(0..tokens.len()).any(|at| kept[at] && names(at, cte)))
        {
            kept[unused.tokens.clone()].fill(false);
        }
        self.separate(kept);
    }

    /// Commas between the queries that are left, and `WITH` before them if there are any.
    fn separate(&self, kept: &mut [bool]) {
        let is_left = |cte: &&Cte| kept[cte.tokens.start];
        let last = self.0.iter().rposition(|cte| is_left(&cte));
        let commas: Vec<(usize, bool)> = self
            .0
            .iter()
            .enumerate()
            .take(self.0.len().saturating_sub(1))
            .map(|(index, cte)| (cte.tokens.end, is_left(&cte) && last.is_some_and(|last| index < last)))
            .collect();
        for (comma, stays) in commas {
            kept[comma] = stays;
        }
        if !self.0.is_empty() {
            kept[0] = last.is_some();
        }
    }
}

fn name_of(token: &Token) -> Option<String> {
    match token {
        Token::Word(word) if word.quote_style.is_some() => Some(word.value.clone()),
        Token::Word(word) => Some(word.value.to_lowercase()),
        _ => None,
    }
}
