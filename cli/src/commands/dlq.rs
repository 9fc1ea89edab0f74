//! `dlq ls|show`.

use serde_json::Value;

use super::Session;
use super::sql::{identifier, print_answer};
use crate::arguments::DlqAction;
use crate::output::{Cell, Table};

pub(super) async fn dlq(session: &Session, action: &DlqAction) -> anyhow::Result<()> {
    match action {
        DlqAction::Show { stream } => {
            let sql = format!("SELECT * FROM dlq.{} ORDER BY 1, 2", identifier(stream));
            print_answer(session.output, &session.client.query(&sql).await?)
        }
        DlqAction::Ls => {
            let mut table = Table::with_columns(["stream", "dead_letters"]);
            for stream in streams(session).await? {
                let sql = format!("SELECT count(*) AS n FROM dlq.{}", identifier(&stream));
                let count = session.client.query(&sql).await?.integer("n")?;
                table.rows.push(vec![stream.as_str().into(), Value::from(u64::try_from(count)?).into()]);
            }
            session.output.table(&table)
        }
    }
}

async fn streams(session: &Session) -> anyhow::Result<Vec<String>> {
    let answer = session.client.query("SELECT name FROM system.streams ORDER BY name").await?;
    Ok(answer.table.rows.iter().filter_map(|row| row.first().and_then(Cell::as_string)).collect())
}
