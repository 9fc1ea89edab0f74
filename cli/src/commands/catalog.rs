//! `stream ls|show`, `view ls|show`.

use super::Session;
use super::sql::{identifier, print_answer};
use crate::arguments::CatalogAction;
use crate::client::SqlAnswer;
use crate::output::{Format, text};

/// How SQL names a kind of thing: in `SHOW …S` and in `SHOW CREATE …`.
pub(super) const STREAM: &str = "STREAM";
/// Likewise.
pub(super) const VIEW: &str = "MATERIALIZED VIEW";

pub(super) async fn catalog(session: &Session, kind: &str, action: &CatalogAction) -> anyhow::Result<()> {
    match action {
        CatalogAction::Ls => print_answer(session.output, &session.client.query(&format!("SHOW {kind}S")).await?),
        CatalogAction::Show { name } => {
            let answer = session.client.query(&format!("SHOW CREATE {kind} {}", identifier(name))).await?;
            match session.output.format() {
                Format::Table => text(&create_statement(&answer)),
                _ => print_answer(session.output, &answer),
            }
        }
    }
}

/// The statement in an answer to `SHOW CREATE`: its last column, as it is.
pub(crate) fn create_statement(answer: &SqlAnswer) -> String {
    let texts = answer.table.rows.iter().filter_map(|row| row.last());
    texts.map(|value| value.text().trim_end().to_owned() + "\n").collect()
}
