//! What every query may ask for besides its rows: freshness, time, number of rows.

use std::time::Duration;

use schemas::{Code, PositionToken, Problem};
use serde::Deserialize;

use crate::engine::QueryRequest;
use crate::times::parse_duration;

/// A duration: milliseconds, or text.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum DurationText {
    Milliseconds(u64),
    Text(String),
}

impl DurationText {
    fn duration(&self) -> Result<Duration, Problem> {
        match self {
            Self::Milliseconds(milliseconds) => Ok(Duration::from_millis(*milliseconds)),
            Self::Text(text) => parse_duration(text),
        }
    }
}

/// One token or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Tokens {
    One(String),
    Many(Vec<String>),
}

/// The conditions, as JSON or as query parameters.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Conditions {
    pub(super) max_staleness: Option<DurationText>,
    pub(super) at_least: Option<Tokens>,
    pub(super) timeout: Option<DurationText>,
    pub(super) row_limit: Option<usize>,
}

impl Conditions {
    /// Takes a query parameter, if it is one of these.
    pub(super) fn take(&mut self, name: &str, value: &str) -> Result<bool, Problem> {
        match name {
            "max_staleness" => self.max_staleness = Some(DurationText::Text(value.into())),
            "timeout" => self.timeout = Some(DurationText::Text(value.into())),
            "row_limit" => self.row_limit = Some(number(name, value)?),
            "at_least" => {
                let mut tokens = match self.at_least.take() {
                    Some(Tokens::Many(tokens)) => tokens,
                    Some(Tokens::One(token)) => vec![token],
                    None => vec![],
                };
                tokens.extend(value.split(',').map(str::to_owned));
                self.at_least = Some(Tokens::Many(tokens));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// A query under these conditions.
    pub(super) fn request(&self, sql: &str) -> Result<QueryRequest, Problem> {
        let tokens: &[String] = match &self.at_least {
            None => &[],
            Some(Tokens::One(token)) => std::slice::from_ref(token),
            Some(Tokens::Many(tokens)) => tokens,
        };
        let token = |text: &String| {
            text.parse::<PositionToken>().map_err(|e| Problem::new(Code::BadRequest, format!("at_least: {e}")))
        };
        Ok(QueryRequest {
            sql: sql.to_owned(),
            params: vec![],
            max_staleness: self.max_staleness.as_ref().map(DurationText::duration).transpose()?,
            at_least: tokens.iter().map(token).collect::<Result<_, _>>()?,
            timeout: self.timeout.as_ref().map(DurationText::duration).transpose()?,
            row_limit: self.row_limit,
        })
    }
}

/// A number in a query parameter.
pub(super) fn number(name: &str, value: &str) -> Result<usize, Problem> {
    value.parse().map_err(|_| Problem::new(Code::BadRequest, format!("{name}: {value:?} is not a number")))
}
