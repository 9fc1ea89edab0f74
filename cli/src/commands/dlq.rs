//! `dlq ls|show|replay`.

use std::io::Write;

use anyhow::Context;
use serde_json::{Value, json};

use super::Session;
use super::sql::{identifier, print_answer};
use crate::arguments::{DlqAction, ReplayArguments};
use crate::exit::{Exit, fail};
use crate::output::{Cell, Format, Table, grouped, note};

pub(super) async fn dlq(session: &Session, action: &DlqAction) -> anyhow::Result<()> {
    match action {
        DlqAction::Show { stream, offset: Some(offset), raw: true } => {
            let path = ["v1", "streams", stream, "dead_letters", &offset.to_string(), "raw"];
            let bytes = session.client.get_bytes(&path).await?;
            std::io::stdout().write_all(&bytes).context("writing to stdout")
        }
        DlqAction::Show { stream, offset, .. } => {
            let wanted = offset.map(|offset| format!(" WHERE \"offset\" = {offset}")).unwrap_or_default();
            let sql = format!("SELECT * FROM dlq.{}{wanted} ORDER BY 1, 2", identifier(stream));
            print_answer(session.output, &session.client.query(&sql).await?)
        }
        DlqAction::Ls => list(session).await,
        DlqAction::Replay(arguments) => replay(session, arguments).await,
    }
}

async fn list(session: &Session) -> anyhow::Result<()> {
    let mut table = Table::with_columns(["stream", "dead_letters", "replayed"]);
    for stream in streams(session).await? {
        let sql = format!("SELECT count(*) AS n, count(replayed_at) AS replayed FROM dlq.{}", identifier(&stream));
        let answer = session.client.query(&sql).await?;
        let (count, replayed) = (answer.integer("n")?, answer.integer("replayed")?);
        let number = |number: i128| anyhow::Ok(Value::from(u64::try_from(number)?).into());
        table.rows.push(vec![stream.as_str().into(), number(count)?, number(replayed)?]);
    }
    session.output.table(&table)
}

async fn streams(session: &Session) -> anyhow::Result<Vec<String>> {
    let answer = session.client.query("SELECT name FROM system.streams ORDER BY name").await?;
    Ok(answer.table.rows.iter().filter_map(|row| row.first().and_then(Cell::as_string)).collect())
}

/// What the server's answers say, added up.
#[derive(Debug, Default)]
struct Totals([u64; 7]);

const COUNTS: [&str; 7] =
    ["selected", "replayed", "accepted", "duplicates", "conflicts", "still_bad", "already_replayed"];

impl Totals {
    fn add(&mut self, answer: &Value) {
        for (total, name) in self.0.iter_mut().zip(COUNTS) {
            *total += answer[name].as_u64().unwrap_or(0);
        }
    }

    fn get(&self, name: &str) -> u64 {
        COUNTS.iter().position(|count| *count == name).map_or(0, |index| self.0[index])
    }

    fn json(&self) -> Value {
        COUNTS.iter().zip(self.0).map(|(name, total)| ((*name).to_owned(), Value::from(total))).collect()
    }
}

async fn replay(session: &Session, arguments: &ReplayArguments) -> anyhow::Result<()> {
    let path = ["v1", "streams", &arguments.stream, "dead_letters", "replay"];
    let set: serde_json::Map<String, Value> =
        arguments.set.iter().map(|(column, value)| (column.clone(), Value::from(value.as_str()))).collect();
    let mut totals = Totals::default();
    let mut from = 0;
    loop {
        let body = if arguments.offsets.is_empty() {
            json!({ "from": from, "set": set })
        } else {
            json!({ "offsets": arguments.offsets, "set": set })
        };
        let answer = session.client.post(&path, &body).await?;
        totals.add(&answer);
        for error in answer["errors"].as_array().into_iter().flatten() {
            note(&format!("letter {}: {}", error["offset"], error["message"].as_str().unwrap_or_default()));
        }
        match answer["next"].as_u64() {
            Some(next) => from = next,
            None => break,
        }
    }
    note(&summary(&totals));
    if matches!(session.output.format(), Format::Json | Format::Ndjson) {
        session.output.document(&totals.json())?;
    }
    match totals.get("still_bad") {
        0 => Ok(()),
        bad => fail(Exit::Failed, format!("{bad} dead letters of {} do not fit yet", arguments.stream)),
    }
}

fn summary(totals: &Totals) -> String {
    let count = |name| grouped(totals.get(name));
    format!(
        "{} replayed: {} accepted, {} duplicates; {} do not fit yet, {} were replayed before",
        count("replayed"),
        count("accepted"),
        count("duplicates"),
        count("still_bad"),
        count("already_replayed")
    )
}
