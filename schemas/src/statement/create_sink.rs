//! `CREATE SINK`: where the changes of a view are delivered.

use super::cursor::{Cursor, with_guess};
use super::options::{SqlOption, options};
use super::{CreateSink, names};
use crate::problem::{Code, Problem, SqlPosition, did_you_mean};
use crate::sink::{OutputMode, SinkTarget};

/// How often a view is looked at where the sink does not say: every 200 ms.
const EVERY_DEFAULT_US: i64 = 200_000;
/// The longest pause between two looks: a day.
const EVERY_MAX_US: i64 = 24 * 3_600_000_000;
const OPTIONS: [&str; 8] = ["type", "mode", "every", "path", "url", "table", "topic", "brokers"];
const TYPES: [&str; 5] = ["kafka", "postgres", "webhook", "file", "stdout"];

/// What follows `CREATE SINK`.
pub(super) fn create_sink(cursor: &mut Cursor<'_, '_>) -> Result<CreateSink, Problem> {
    let if_not_exists = names::if_not_exists(cursor);
    let name = names::object(cursor, "a sink name")?;
    if cursor.is_at(&["AS"]) {
        let problem = cursor.problem(Code::Unsupported, "CREATE SINK … AS is not supported");
        let hint = "write CREATE MATERIALIZED VIEW … AS SELECT …, and CREATE SINK … FROM the view";
        return Err(problem.with_hint(hint));
    }
    cursor.expect(&["FROM"])?;
    let view_position = cursor.position();
    let view = names::object(cursor, "a view name")?;
    let position = cursor.position();
    if !cursor.take(&["WITH"]) {
        return Err(cursor.expected_one_of("WITH (type = '…', …)", &["WITH"]));
    }
    let given = options(cursor, &OPTIONS)?;
    cursor.finish()?;
    let find = |name: &str| given.iter().find(|option| option.name() == name);
    let mode = match find("mode") {
        Some(option) => option.one_of(cursor, &OutputMode::ALL, OutputMode::as_str)?,
        None => OutputMode::default(),
    };
    let every_us = find("every").map_or(Ok(EVERY_DEFAULT_US), |option| option.interval_us(cursor))?;
    if let Some(option) = find("every").filter(|_| every_us > EVERY_MAX_US) {
        return Err(cursor.problem_at(option.position(), Code::InvalidSql, "option every: more than a day"));
    }
    let target = target(cursor, &given, &name, position)?;
    Ok(CreateSink { name, if_not_exists, view, view_position, mode, target, every_us })
}

/// Where to, with the options that this place needs and no others.
fn target(
    cursor: &Cursor<'_, '_>,
    given: &[SqlOption],
    name: &str,
    position: SqlPosition,
) -> Result<SinkTarget, Problem> {
    let find = |name: &str| given.iter().find(|option| option.name() == name);
    let Some(kind) = find("type") else {
        let problem = cursor.problem_at(position, Code::InvalidSql, "a sink without a type");
        return Err(problem.with_hint("add type = 'kafka', 'postgres', 'webhook', 'file' or 'stdout'"));
    };
    kind.word(cursor, &TYPES)?;
    let needed = |name: &str, example: &str| {
        find(name).ok_or_else(|| {
            let detail = format!("type = '{}' without option {name}", kind.text());
            cursor.problem_at(kind.position(), Code::InvalidSql, detail).with_hint(format!("add {example}"))
        })
    };
    let (target, used): (SinkTarget, &[&str]) = match kind.text() {
        "file" => {
            let path = match find("path") {
                Some(option) => folder(cursor, option)?,
                None if is_folder(name) => name.to_owned(),
                None => needed("path", "path = '…': the sink's name is no name of a folder")?.text().to_owned(),
            };
            (SinkTarget::File { path }, &["path"])
        }
        "webhook" => {
            let url = needed("url", "url = 'https://…'")?;
            (SinkTarget::Webhook { url: address(cursor, url, &["http", "https"])? }, &["url"])
        }
        "postgres" => {
            let url = needed("url", "url = 'postgres://user:password@host:5432/database'")?;
            let url = address(cursor, url, &["postgres", "postgresql"])?;
            let table = needed("table", "table = '…'")?.text().to_owned();
            (SinkTarget::Postgres { url, table }, &["url", "table"])
        }
        "kafka" => {
            let topic = needed("topic", "topic = '…'")?.topic(cursor)?;
            let brokers = find("brokers").map(|option| option.brokers(cursor)).transpose()?;
            (SinkTarget::Kafka { topic, brokers }, &["topic", "brokers"])
        }
        _ => (SinkTarget::Stdout, &[]),
    };
    let is_foreign =
        |option: &&SqlOption| !["type", "mode", "every"].contains(&option.name()) && !used.contains(&option.name());
    if let Some(option) = given.iter().find(is_foreign) {
        let detail = format!("option {} means nothing for type = '{}'", option.name(), kind.text());
        return Err(cursor.problem_at(option.position(), Code::InvalidSql, detail));
    }
    Ok(target)
}

fn is_folder(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !text.is_empty() && !text.starts_with('.') && text.len() <= 100 && text.chars().all(plain)
}

/// One name, not a way out of the folder of exports.
fn folder(cursor: &Cursor<'_, '_>, option: &SqlOption) -> Result<String, Problem> {
    if is_folder(option.text()) {
        return Ok(option.text().to_owned());
    }
    let detail = "option path: expected the name of a folder (letters, digits, \".\", \"_\", \"-\")";
    let problem = cursor.problem_at(option.position(), Code::InvalidSql, detail);
    Err(problem.with_hint("the folder is made below the server's folder of exports"))
}

fn address(cursor: &Cursor<'_, '_>, option: &SqlOption, schemes: &[&str]) -> Result<String, Problem> {
    let text = option.text();
    let scheme = text.split_once("://").map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest));
    match scheme {
        Some((scheme, rest)) if schemes.contains(&scheme.as_str()) && !rest.is_empty() && !rest.starts_with('/') => {
            Ok(text.to_owned())
        }
        other => {
            let scheme = other.map(|(scheme, _)| scheme).unwrap_or_default();
            let detail = format!("option {}: expected an address that begins with {}://", option.name(), schemes[0]);
            let problem = cursor.problem_at(option.position(), Code::InvalidSql, detail);
            Err(with_guess(problem, did_you_mean(&scheme, schemes.iter().copied())))
        }
    }
}
