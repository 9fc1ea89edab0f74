//! `WITH (name = value, …)`.

use sqlparser::tokenizer::Token;

use super::cursor::{Cursor, with_guess};
use super::interval;
use super::names::identifier;
use crate::limits::PARTITIONS_MAX;
use crate::problem::{Code, Problem, SqlPosition, did_you_mean};
use crate::stream::{LatePolicy, OnBadData};

/// Bytes of the name of a topic, Kafka's own limit.
const TOPIC_BYTES_MAX: usize = 249;

/// Options of other systems that are called otherwise here.
const ELSEWHERE: [(&str, &str); 4] = [
    ("kafka_topic", "topic"),
    ("value_format", "format"),
    ("properties.bootstrap.server", "brokers"),
    ("properties.bootstrap.servers", "brokers"),
];

/// One option as written.
pub(super) struct SqlOption {
    name: String,
    value: String,
    name_position: SqlPosition,
    value_position: SqlPosition,
}

/// Reads the list behind `WITH`; refuses options that are not in `known`.
pub(super) fn options(cursor: &mut Cursor<'_, '_>, known: &[&str]) -> Result<Vec<SqlOption>, Problem> {
    let mut options: Vec<SqlOption> = vec![];
    cursor.expect_symbol(&Token::LParen)?;
    loop {
        let option = option(cursor)?;
        check_name(cursor, &option, known)?;
        if options.iter().any(|other| other.name == option.name) {
            let detail = format!("option {} is given twice", option.name);
            return Err(cursor.problem_at(option.name_position, Code::InvalidSql, detail));
        }
        options.push(option);
        if cursor.take_symbol(&Token::RParen) {
            return Ok(options);
        }
        if !cursor.take_symbol(&Token::Comma) {
            return Err(cursor.expected("\",\" or \")\""));
        }
    }
}

fn option(cursor: &mut Cursor<'_, '_>) -> Result<SqlOption, Problem> {
    let name_position = cursor.position();
    // as Flink writes it, in quotes
    let quoted = matches!(cursor.peek(), Some(Token::SingleQuotedString(_)));
    let name = if quoted { cursor.string("an option")?.to_ascii_lowercase() } else { identifier(cursor, "an option")? };
    cursor.expect_symbol(&Token::Eq)?;
    let value_position = cursor.position();
    let value = match cursor.peek() {
        Some(Token::Number(number, _)) => number.clone(),
        Some(Token::Word(word)) if word.quote_style.is_none() => word.value.to_ascii_lowercase(),
        _ => {
            let value = cursor.string("a value")?;
            return Ok(SqlOption { name, value, name_position, value_position });
        }
    };
    cursor.advance();
    Ok(SqlOption { name, value, name_position, value_position })
}

fn check_name(cursor: &Cursor<'_, '_>, option: &SqlOption, known: &[&str]) -> Result<(), Problem> {
    let name = option.name.as_str();
    if known.contains(&name) {
        return Ok(());
    }
    let problem = cursor.problem_at(option.name_position, Code::InvalidSql, format!("unknown option {name}"));
    let elsewhere = ELSEWHERE.iter().find(|(other, own)| *other == name && known.contains(own));
    if let Some((_, own)) = elsewhere {
        return Err(problem.with_hint(format!("write {own}")));
    }
    match did_you_mean(name, known.iter().copied()) {
        Some(guess) => Err(with_guess(problem, Some(guess))),
        None => Err(problem.with_hint(format!("there are: {}", known.join(", ")))),
    }
}

impl SqlOption {
    /// The option's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its value, as written.
    pub(super) fn text(&self) -> &str {
        &self.value
    }

    /// True if that is its value.
    pub(super) fn is(&self, value: &str) -> bool {
        self.value == value
    }

    /// Where the option stands.
    pub(super) fn position(&self) -> SqlPosition {
        self.name_position
    }

    /// `partitions`
    pub(super) fn partitions(&self, cursor: &Cursor<'_, '_>) -> Result<u32, Problem> {
        match self.value.parse() {
            Ok(partitions @ 1..=PARTITIONS_MAX) => Ok(partitions),
            _ => Err(self.invalid(cursor, &format!("a whole number from 1 to {PARTITIONS_MAX}"))),
        }
    }

    /// An interval that is not negative, microseconds.
    pub(super) fn interval_us(&self, cursor: &Cursor<'_, '_>) -> Result<i64, Problem> {
        match interval::parse(&self.value) {
            Ok(us @ 0..) => Ok(us),
            Ok(_) => Err(self.invalid(cursor, "an interval that is not negative")),
            Err(why) => Err(self.invalid(cursor, "an interval like '24 hours'").with_hint(why)),
        }
    }

    /// `late`: one of these policies.
    pub(super) fn late(&self, cursor: &Cursor<'_, '_>, policies: &[LatePolicy]) -> Result<LatePolicy, Problem> {
        self.one_of(cursor, policies, LatePolicy::as_str)
    }

    /// `on_bad_data`
    pub(super) fn on_bad_data(&self, cursor: &Cursor<'_, '_>) -> Result<OnBadData, Problem> {
        match self.value.as_str() {
            "quarantine" => Ok(OnBadData::Quarantine),
            "reject" => Ok(OnBadData::Reject),
            other => Err(with_guess(
                self.invalid(cursor, "'quarantine' or 'reject'"),
                did_you_mean(other, ["quarantine", "reject"]),
            )),
        }
    }

    /// A word out of a list, which is not empty.
    pub(super) fn word(&self, cursor: &Cursor<'_, '_>, words: &[&str]) -> Result<(), Problem> {
        if words.contains(&self.value.as_str()) {
            return Ok(());
        }
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let problem = self.invalid(cursor, &quoted.join(" or "));
        Err(with_guess(problem, did_you_mean(&self.value, words.iter().copied())))
    }

    /// `topic`: what Kafka takes as a name.
    pub(super) fn topic(&self, cursor: &Cursor<'_, '_>) -> Result<String, Problem> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let is_name = !matches!(self.value.as_str(), "" | "." | "..") && self.value.len() <= TOPIC_BYTES_MAX;
        if is_name && self.value.chars().all(plain) {
            return Ok(self.value.clone());
        }
        Err(self.invalid(cursor, "the name of a topic (letters, digits, \".\", \"_\", \"-\", at most 249)"))
    }

    /// `brokers`: `host:port`, with commas between.
    pub(super) fn brokers(&self, cursor: &Cursor<'_, '_>) -> Result<String, Problem> {
        let is_broker = |text: &str| {
            let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0))
        };
        let brokers: Vec<&str> = self.value.split(',').map(str::trim).collect();
        if brokers.iter().all(|broker| is_broker(broker)) {
            return Ok(brokers.join(","));
        }
        Err(self.invalid(cursor, "brokers like 'host:9092,other:9092'"))
    }

    /// `time_correction`
    pub(super) fn switch(&self, cursor: &Cursor<'_, '_>) -> Result<bool, Problem> {
        match self.value.as_str() {
            "on" | "true" => Ok(true),
            "off" | "false" => Ok(false),
            _ => Err(self.invalid(cursor, "'on' or 'off'")),
        }
    }

    /// One of several words.
    pub(super) fn one_of<T: Copy>(
        &self,
        cursor: &Cursor<'_, '_>,
        all: &[T],
        word: fn(T) -> &'static str,
    ) -> Result<T, Problem> {
        let words: Vec<&str> = all.iter().map(|one| word(*one)).collect();
        let found = all.iter().copied().find(|one| word(*one) == self.value);
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let invalid = || self.invalid(cursor, &quoted.join(", "));
        found.ok_or_else(|| with_guess(invalid(), did_you_mean(&self.value, words.iter().copied())))
    }

    fn invalid(&self, cursor: &Cursor<'_, '_>, expected: &str) -> Problem {
        let value: String = self.value.chars().take(80).collect();
        let detail = format!("option {}: expected {expected}, found {value:?}", self.name);
        cursor.problem_at(self.value_position, Code::InvalidSql, detail)
    }
}
