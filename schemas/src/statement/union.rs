//! `UNION ALL` in a `SELECT`, taken apart: the same `SELECT` over each branch alone.
//!
//! ```text
//!  SELECT k, count(*) FROM (SELECT k FROM a UNION ALL SELECT j FROM b) AS t GROUP BY k
//!  SELECT k, count(*) FROM (SELECT k FROM a                          ) AS t GROUP BY k
//!  SELECT k, count(*) FROM (                SELECT j FROM b          ) AS t GROUP BY k     j is renamed to k
//! ```
//! What does not belong to a branch becomes blanks, so that errors keep their place; what has to be written around a
//! branch is known to [`BranchText::place`]. Nothing here knows what the branches mean: whether each of them reads a
//! stream and all have the same columns is for who compiles them.

mod ctes;
#[cfg(test)]
mod tests;

use std::ops::Range;

use sqlparser::tokenizer::Token;

use self::ctes::Ctes;
use super::places::stands_at;
use super::script::Script;
use crate::limits::UNION_BRANCHES_MAX;
use crate::problem::{Code, Problem, SqlPosition};

/// What a query may end with behind its last branch.
const ENDS: [&str; 4] = ["ORDER BY", "LIMIT", "OFFSET", "FETCH"];

/// A `SELECT` with one `UNION ALL` of several branches.
pub struct Union<'a> {
    script: Script<'a>,
    /// The tokens of the text without white space.
    tokens: Vec<usize>,
    ctes: Ctes,
    /// Of each branch, its tokens.
    branches: Vec<Range<usize>>,
}

/// The text of a branch, or of the whole over one branch alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchText {
    /// The text.
    pub sql: String,
    /// What was written into it: where in the text that it comes from, and how many characters.
    inserted: Vec<(SqlPosition, u64)>,
}

impl BranchText {
    /// Where a place of this text is in the text that it comes from.
    pub fn place(&self, at: SqlPosition) -> SqlPosition {
        let mut column = at.column;
        for (place, characters) in self.inserted.iter().filter(|(place, _)| place.line == at.line) {
            if column > place.column {
                column = column.saturating_sub(*characters).max(place.column);
            }
        }
        SqlPosition { line: at.line, column }
    }
}

impl<'a> Union<'a> {
    /// Takes a `SELECT` apart; none for one without `UNION`, or with set operations of other kinds, which a planner
    /// knows more about.
    ///
    /// # Errors
    /// `not_mergeable` for `UNION` without `ALL`, `unsupported` for what is no plain list of branches.
    pub fn of(sql: &'a str) -> Result<Option<Self>, Problem> {
        let script = Script::new(sql)?;
        let tokens: Vec<usize> = script.statements().into_iter().flatten().collect();
        let is = |at: usize, words: &str| stands_at(&script, &tokens, at, words);
        let words: Vec<usize> = (0..tokens.len()).filter(|at| is(*at, "UNION")).collect();
        let Some(first) = words.first() else { return Ok(None) };
        if is(0, "WITH RECURSIVE") {
            return Ok(None);
        }
        let depths = depths(&script, &tokens);
        let list = around(&depths, *first);
        if list.clone().any(|at| depths[at] == depths[*first] && (is(at, "EXCEPT") || is(at, "INTERSECT"))) {
            return Ok(None);
        }
        let refused = |at: usize, problem: Problem| Err(problem.at(sql, script.position(tokens[at])));
        if let Some(other) = words.iter().find(|at| depths[**at] != depths[*first] || !list.contains(at)) {
            return refused(*other, one_list());
        }
        if let Some(distinct) = words.iter().find(|at| !is(**at, "UNION ALL") || is(**at, "UNION ALL BY")) {
            return refused(*distinct, distinct_union(is(*distinct, "UNION ALL")));
        }
        if depths[*first] > 0 && is(list.start, "WITH") {
            return refused(list.start, with_inside());
        }
        if words.len() >= UNION_BRANCHES_MAX {
            let detail = format!("a view has at most {UNION_BRANCHES_MAX} branches of UNION ALL");
            return refused(words[UNION_BRANCHES_MAX - 1], Problem::new(Code::Unsupported, detail));
        }
        let ctes = Ctes::of(&script, &tokens, &depths);
        let begin = if depths[*first] == 0 { ctes.end() } else { list.start };
        let is_end = |at: &usize| depths[*at] == depths[*first] && ENDS.iter().any(|end| is(*at, end));
        let end = (words[words.len() - 1]..list.end).find(is_end).unwrap_or(list.end);
        let starts = std::iter::once(begin).chain(words.iter().map(|at| at + 2));
        let ends = words.iter().copied().chain([end]);
        let branches: Vec<Range<usize>> = starts.zip(ends).map(|(start, end)| start..end).collect();
        if branches.iter().any(Range::is_empty) {
            return Ok(None);
        }
        Ok(Some(Self { script, tokens, ctes, branches }))
    }

    /// How many branches there are: at least two.
    pub fn branches(&self) -> usize {
        self.branches.len()
    }

    /// Where a branch begins.
    pub fn position(&self, branch: usize) -> SqlPosition {
        self.script.position(self.tokens[self.branches[branch].start])
    }

    /// A branch as a `SELECT` of its own, with what it uses of the `WITH` before it.
    pub fn branch(&self, branch: usize) -> BranchText {
        let range = &self.branches[branch];
        let mut kept = vec![false; self.tokens.len()];
        kept[range.clone()].fill(true);
        kept[..self.ctes.end()].fill(true);
        self.ctes.drop_around(&mut kept, range);
        self.ctes.drop_unused(&self.script, &self.tokens, &mut kept);
        BranchText { sql: self.text(&kept, None), inserted: vec![] }
    }

    /// The whole over one branch, whose columns are taken as this list of a `SELECT` says.
    pub fn part(&self, branch: usize, columns: &str) -> BranchText {
        let (first, last) = (self.branches[0].start, self.branches[self.branches.len() - 1].end);
        let range = &self.branches[branch];
        let mut kept = vec![true; self.tokens.len()];
        kept[first..last].fill(false);
        kept[range.clone()].fill(true);
        self.ctes.drop_unused(&self.script, &self.tokens, &mut kept);
        // twice: a column that keeps its name would be known as the inner query's, another one as nobody's
        let (before, behind) = (format!("SELECT * FROM (SELECT {columns} FROM ("), ") AS branch) AS branch");
        let (opens, closes) = (self.tokens[range.start], self.tokens[range.end - 1]);
        let inserted = vec![
            (self.script.position(opens), before.chars().count() as u64),
            (self.script.position_after(closes), behind.chars().count() as u64),
        ];
        BranchText { sql: self.text(&kept, Some((range, &before, behind))), inserted }
    }

    /// The text with blanks for what is not kept, and what is written around a range of tokens.
    fn text(&self, kept: &[bool], around: Option<(&Range<usize>, &str, &str)>) -> String {
        let mut text = String::with_capacity(self.script.text.len() + 64);
        let mut end = 0;
        for (at, token) in self.tokens.iter().enumerate() {
            let bytes = self.script.bytes_of(*token);
            let gap = &self.script.text[end..bytes.start];
            // a comment between two tokens that go goes with them
            let goes = !kept[at] && at.checked_sub(1).is_none_or(|before| !kept[before]);
            text.push_str(&if goes { blank(gap) } else { gap.to_owned() });
            if let Some((_, before, _)) = around.filter(|(range, _, _)| range.start == at) {
                text.push_str(before);
            }
            let written = &self.script.text[bytes.clone()];
            text.push_str(&if kept[at] { written.to_owned() } else { blank(written) });
            if let Some((_, _, behind)) = around.filter(|(range, _, _)| range.end == at + 1) {
                text.push_str(behind);
            }
            end = bytes.end;
        }
        text.push_str(&self.script.text[end..]);
        text
    }
}

/// As many blanks, on as many lines.
fn blank(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect()
}

/// In how many brackets each token stands; a bracket stands outside of itself.
fn depths(script: &Script<'_>, tokens: &[usize]) -> Vec<usize> {
    let mut depth = 0_usize;
    let depth_of = |token: &usize| match script.tokens[*token].token {
        Token::LParen => {
            depth += 1;
            depth - 1
        }
        Token::RParen => {
            depth = depth.saturating_sub(1);
            depth
        }
        _ => depth,
    };
    tokens.iter().map(depth_of).collect()
}

/// The tokens in the same brackets as one of them, with all that is within.
fn around(depths: &[usize], at: usize) -> Range<usize> {
    let start = (0..at).rev().find(|before| depths[*before] < depths[at]).map_or(0, |open| open + 1);
    let end = (at..depths.len()).find(|behind| depths[*behind] < depths[at]).unwrap_or(depths.len());
    start..end
}

fn one_list() -> Problem {
    Problem::new(
        Code::Unsupported,
        "a second UNION in a view: its branches are one list, and nothing else is taken apart",
    )
    .with_hint("write all branches one behind the other: SELECT … UNION ALL SELECT … UNION ALL SELECT …")
}

fn distinct_union(by_name: bool) -> Problem {
    if by_name {
        return Problem::new(Code::Unsupported, "UNION ALL BY NAME: the columns of a union are found by their order")
            .with_hint("write the columns of each branch in the same order, and UNION ALL");
    }
    let detail = "UNION without ALL keeps one of equal rows: which rows there are depends on all branches at once";
    Problem::new(Code::NotMergeable, detail)
        .with_hint("write UNION ALL; for the distinct rows, SELECT DISTINCT k FROM (… UNION ALL …) AS u")
}

fn with_inside() -> Problem {
    Problem::new(Code::Unsupported, "WITH within a subquery that is a UNION ALL is not supported in a view")
        .with_hint("write the WITH at the beginning of the view")
}
