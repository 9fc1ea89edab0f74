//! Rows of PostgreSQL: one statement in a transaction that only reads, each column as the text that PostgreSQL has for it.

use arrow::array::{ArrayRef, RecordBatch, StringBuilder};
use arrow::compute::{CastOptions, cast_with_options};
use schemas::limits::{TABLE_BYTES_MAX, TABLE_ROWS_MAX};
use schemas::{Code, PostgresRead, Problem, TableDef};
use serving::postgres::{Address, Connection, Row, quoted, quoted_table};

use super::super::static_tables::schema_of;

/// The rows that the database has now.
pub(super) async fn rows(def: &TableDef, address: &str, read: &PostgresRead) -> Result<RecordBatch, Problem> {
    let mut connection = Connection::open(&Address::parse(address)?).await?;
    // a query that would write is refused by the server
    connection.query("BEGIN READ ONLY").await?;
    let mut texts = Texts::of(def);
    connection.each_row(&select(def, read), |row| texts.take(row)).await?;
    texts.typed()
}

/// The columns by name, as texts. A query ends on a line of its own: its last one may be a comment.
fn select(def: &TableDef, read: &PostgresRead) -> String {
    let columns: Vec<String> = def.columns.iter().map(|column| format!("{}::text", quoted(&column.name))).collect();
    let from = match read {
        PostgresRead::Table(name) => quoted_table(name),
        PostgresRead::Query(sql) => format!("(\n{}\n) AS bifold", sql.trim().trim_end_matches(';')),
    };
    format!("SELECT {} FROM {from}", columns.join(", "))
}

/// The columns of a table, while its rows come.
struct Texts<'a> {
    def: &'a TableDef,
    columns: Vec<StringBuilder>,
    rows: usize,
    bytes: usize,
}

impl<'a> Texts<'a> {
    fn of(def: &'a TableDef) -> Self {
        let columns = def.columns.iter().map(|_| StringBuilder::new()).collect();
        Self { def, columns, rows: 0, bytes: 0 }
    }

    fn bad(&self, what: impl std::fmt::Display) -> Problem {
        Problem::new(Code::BadRequest, format!("table {}: {what}", self.def.name))
    }

    fn take(&mut self, row: Row) -> Result<(), Problem> {
        self.rows += 1;
        self.bytes += row.iter().flatten().map(String::len).sum::<usize>();
        if self.rows > TABLE_ROWS_MAX {
            return Err(self.bad(format_args!("more than {TABLE_ROWS_MAX} rows")));
        }
        if self.bytes > TABLE_BYTES_MAX {
            return Err(self.bad(format_args!("more than {TABLE_BYTES_MAX} bytes")));
        }
        if row.len() != self.columns.len() {
            return Err(self.bad(format_args!("a row of {} values", row.len())));
        }
        self.columns.iter_mut().zip(row).for_each(|(column, value)| column.append_option(value));
        Ok(())
    }

    fn typed(mut self) -> Result<RecordBatch, Problem> {
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let mut values: Vec<ArrayRef> = vec![];
        for (column, mut texts) in self.def.columns.iter().zip(std::mem::take(&mut self.columns)) {
            let typed = cast_with_options(&texts.finish(), &column.sql_type.arrow(), &strict);
            values.push(typed.map_err(|error| self.bad(format_args!("column {}: {error}", column.name)))?);
        }
        RecordBatch::try_new(schema_of(&self.def.columns), values).map_err(|error| self.bad(error))
    }
}
