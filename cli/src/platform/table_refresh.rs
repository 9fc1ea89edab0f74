//! `REFRESH EVERY INTERVAL '…'` of tables. One that cannot be read keeps the version that it has until it can.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use schemas::{Problem, TableDef};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::statements::StatementService;

/// How often tables are looked at: as often as one may be refreshed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Loads what is due until it is told to stop.
pub(super) async fn run(statements: Arc<StatementService>, stop: CancellationToken) -> Result<(), Problem> {
    let mut tried = Tried::default();
    let work = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            for table in tried.due(&statements.tables(), statements.now_us()) {
                if let Err(problem) = statements.refresh_table(&table).await {
                    tracing::warn!(table, error = %problem.text(), "a table was not refreshed");
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        () = work => Ok(()),
    }
}

/// When each table was last asked for.
#[derive(Default)]
struct Tried(BTreeMap<Uuid, i64>);

impl Tried {
    /// The names of the tables that are to be loaded, each noted as asked for.
    fn due(&mut self, tables: &[TableDef], now_us: i64) -> Vec<String> {
        self.0.retain(|id, _| tables.iter().any(|table| table.id == *id));
        let mut due = vec![];
        for table in tables {
            let Some(every_us) = table.refresh_us else { continue };
            let last_us = self.0.get(&table.id).copied().unwrap_or(table.created_at_us);
            // a clock that was set back must not stop it
            if now_us.saturating_sub(last_us) >= every_us || now_us < last_us {
                self.0.insert(table.id, now_us);
                due.push(table.name.clone());
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use schemas::{TableJoin, TableSource};

    use super::*;

    fn table(refresh_us: Option<i64>, created_at_us: i64) -> TableDef {
        TableDef {
            id: Uuid::nil(),
            name: "d".into(),
            columns: vec![],
            source: TableSource::Url { url: "https://host/d.csv".into() },
            refresh_us,
            version: 1,
            join: TableJoin::Late,
            validity: None,
            rows: 0,
            created_at_us,
        }
    }

    #[test]
    fn a_table_is_due_when_its_interval_is_over_since_it_was_last_asked_for() {
        let mut tried = Tried::default();
        assert!(tried.due(&[table(None, 0)], 1_000).is_empty());
        assert!(tried.due(&[table(Some(10), 100)], 109).is_empty());
        assert_eq!(tried.due(&[table(Some(10), 100)], 110), ["d"]);
        assert!(tried.due(&[table(Some(10), 100)], 119).is_empty(), "it was just asked for");
        assert_eq!(tried.due(&[table(Some(10), 100)], 120), ["d"]);
        assert_eq!(tried.due(&[table(Some(10), 100)], 90), ["d"], "the clock was set back");
        assert!(tried.due(&[table(Some(10), 100)], 91).is_empty(), "once");
        assert!(tried.due(&[], 130).is_empty());
        assert!(tried.0.is_empty());
    }
}
