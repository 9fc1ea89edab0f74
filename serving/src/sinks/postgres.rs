//! A table of PostgreSQL, 15 or newer: rows and cursor are committed in one transaction, so that what is in the table is
//! there exactly once, whenever either side dies.
//!
//! ```text
//!  BEGIN ─► lock the sink's row of bifold_sinks, look at its cursor ─► rows … ─► cursor ─► COMMIT
//! ```

mod statements;

use arrow::array::Array;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use schemas::{Code, Problem};

use self::statements::Statements;
use super::target::{Layout, Target};
use crate::changes::{Changes, Cursor};
use crate::format::object;
use crate::format::text::write_value;
use crate::postgres::{Address, Batch, Connection};

/// Bytes of statements that are sent at once.
const BATCH_BYTES: usize = 1_048_576;

pub(super) struct PostgresTarget {
    layout: Layout,
    address: Address,
    statements: Statements,
    connection: Option<Connection>,
    /// What has been said since the last answer of the server.
    batch: Batch,
    /// As the table `bifold_sinks` has it.
    cursor: Option<String>,
    is_in_transaction: bool,
}

impl PostgresTarget {
    pub(super) fn new(layout: Layout, url: &str, table: &str) -> Result<Self, Problem> {
        Ok(Self {
            address: Address::parse(url)?,
            statements: Statements::of(&layout, table),
            layout,
            connection: None,
            batch: Batch::default(),
            cursor: None,
            is_in_transaction: false,
        })
    }

    fn connection(&mut self) -> Result<&mut Connection, Problem> {
        self.connection.as_mut().ok_or_else(|| Problem::new(Code::Internal, "the connection to PostgreSQL is closed"))
    }

    fn id(&self) -> String {
        self.layout.sink.id.to_string()
    }

    /// Begins the transaction of a step, unless it has begun. Another process that delivers for this sink would have
    /// moved the cursor.
    async fn begin(&mut self) -> Result<(), Problem> {
        if self.is_in_transaction {
            return Ok(());
        }
        let (id, expected) = (self.id(), self.cursor.clone());
        let connection = self.connection()?;
        connection.query("BEGIN").await?;
        let found = connection.select(statements::LOCK, &[Some(&id)]).await?;
        let found = found.first().and_then(|row| row.first().cloned()).flatten();
        if found != expected {
            let what = "the cursor in bifold_sinks was moved by somebody else";
            return Err(Problem::new(Code::StorageUnavailable, what));
        }
        self.is_in_transaction = true;
        Ok(())
    }

    async fn flush_if_large(&mut self) -> Result<(), Problem> {
        if self.batch.bytes() < BATCH_BYTES {
            return Ok(());
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), Problem> {
        let mut batch = std::mem::take(&mut self.batch);
        self.connection()?.execute(&mut batch).await
    }

    async fn upsert(&mut self, rows: &RecordBatch) -> Result<(), Problem> {
        for row in 0..rows.num_rows() {
            if self.statements.replaces_the_row {
                self.batch.run(statements::CLEAR, &[]);
            }
            self.batch.run(statements::UPSERT, &values(rows, row)?);
            self.flush_if_large().await?;
        }
        Ok(())
    }

    async fn delete(&mut self, keys: &RecordBatch) -> Result<(), Problem> {
        for row in 0..keys.num_rows() {
            let sql = self.statements.delete(|column| keys.column(column).is_null(row));
            let mut key = values(keys, row)?;
            key.retain(Option::is_some);
            self.batch.parse("", &sql);
            self.batch.run("", &key);
            self.flush_if_large().await?;
        }
        Ok(())
    }
}

/// The values of a row as PostgreSQL reads them: lists and structs as JSON.
fn values(rows: &RecordBatch, row: usize) -> Result<Vec<Option<String>>, Problem> {
    let mut values = vec![];
    for (index, column) in rows.columns().iter().enumerate() {
        if column.is_null(row) {
            values.push(None);
            continue;
        }
        if column.data_type().is_nested() {
            let one = rows.project(&[index]).map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
            let text = object(&one, row)?;
            let value: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(&text).map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
            values.push(value.into_iter().next().map(|(_, value)| value.to_string()));
            continue;
        }
        let mut text = String::new();
        write_value(&mut text, column.as_ref(), row)?;
        values.push(Some(text));
    }
    Ok(values)
}

#[async_trait]
impl Target for PostgresTarget {
    async fn open(&mut self) -> Result<Option<Cursor>, Problem> {
        let mut connection = Connection::open(&self.address).await?;
        self.statements.set_up(&mut connection).await?;
        let mut batch = Batch::default();
        for (name, sql) in self.statements.prepared() {
            batch.parse(name, &sql);
        }
        connection.execute(&mut batch).await?;
        let (id, name) = (self.id(), self.layout.sink.name.clone());
        connection.select(statements::REGISTER, &[Some(&id), Some(&name)]).await?;
        let found = connection.select(statements::CURSOR, &[Some(&id)]).await?;
        self.cursor = found.first().and_then(|row| row.first().cloned()).flatten();
        self.connection = Some(connection);
        Ok(self.cursor.as_ref().and_then(|cursor| cursor.parse().ok()))
    }

    async fn snapshot(&mut self, _: u64) -> Result<(), Problem> {
        self.begin().await?;
        self.batch.run(statements::CLEAR, &[]);
        Ok(())
    }

    async fn changes(&mut self, changes: &Changes) -> Result<(), Problem> {
        self.begin().await?;
        self.delete(&changes.deletes).await?;
        self.upsert(&changes.upserts).await
    }

    async fn corrections(&mut self, changes: &Changes) -> Result<(), Problem> {
        self.begin().await?;
        let version = changes.version.to_string();
        for row in 0..changes.upserts.num_rows() {
            let mut corrected = values(&changes.upserts, row)?;
            corrected.extend([Some("upsert".to_owned()), Some(version.clone())]);
            self.batch.run(statements::CORRECT, &corrected);
            self.flush_if_large().await?;
        }
        for row in 0..changes.deletes.num_rows() {
            let mut corrected = vec![None; self.layout.schema.fields().len()];
            for (column, value) in self.layout.keys.iter().zip(values(&changes.deletes, row)?) {
                corrected[*column] = value;
            }
            corrected.extend([Some("delete".to_owned()), Some(version.clone())]);
            self.batch.run(statements::CORRECT, &corrected);
        }
        Ok(())
    }

    async fn commit(&mut self, cursor: &Cursor) -> Result<(), Problem> {
        self.begin().await?;
        let text = cursor.to_string();
        self.batch.run(statements::ADVANCE, &[Some(self.id()), Some(text.clone())]);
        self.flush().await?;
        let connection = self.connection()?;
        connection.query("COMMIT").await?;
        self.cursor = Some(text);
        self.is_in_transaction = false;
        Ok(())
    }

    async fn advance(&mut self, cursor: &Cursor) -> Result<(), Problem> {
        self.commit(cursor).await
    }
}
