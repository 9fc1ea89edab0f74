//! `CREATE TABLE`, `REFRESH TABLE`: what takes its time, reading the rows from where they are, is done before anybody has
//! to wait; then the new version is stored, named by the catalogue, and joined from the next answer on.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use operators::StaticTable;
use schemas::statement::{CreateTable, ObjectKind};
use schemas::{Catalog, Code, Problem, TableDef, TableJoin, TableSource};
use serving::parts::StatementAnswer;
use uuid::Uuid;

use super::super::static_tables;
use super::create::{Checked, check_name, taken};
use super::freeze::looked_up;
use super::show::unknown;
use super::{StatementService, message};

/// How often rows are read again because another statement has loaded the table in between.
const TRIES: usize = 5;

/// A table that may be created or replaced; its rows are yet to be read.
pub(super) fn check_table(create: &CreateTable, catalog: &Catalog) -> Result<Checked<TableDef>, Problem> {
    let old = catalog.table(&create.name).filter(|_| create.or_replace);
    if let Some(old) = old {
        check_replaceable(old, create, catalog)?;
    } else if let Some(answer) = check_name(catalog, ObjectKind::Table, &create.name, create.if_not_exists)? {
        return Ok(Checked::Done(answer));
    }
    Ok(Checked::New(TableDef {
        id: old.map_or_else(Uuid::now_v7, |old| old.id),
        name: create.name.clone(),
        columns: create.columns.clone(),
        source: create.source.clone(),
        refresh_us: create.refresh_us,
        version: old.map_or(1, |old| old.version + 1),
        join: create.join,
        validity: create.validity.clone(),
        rows: 0,
        created_at_us: 0,
    }))
}

/// The next version of a table that the server can read again by itself.
pub(super) fn check_refresh(name: &str, catalog: &Catalog) -> Result<TableDef, Problem> {
    let old = catalog.table(name).ok_or_else(|| unknown(catalog, ObjectKind::Table, name))?;
    if let TableSource::File(file) = &old.source {
        let detail = format!("REFRESH TABLE {name}: {file} was sent, the server cannot read it again");
        let hint = format!("send it again: CREATE OR REPLACE TABLE {name} (…) FROM FILE '{file}'");
        return Err(Problem::new(Code::Unsupported, detail).with_hint(hint));
    }
    check_unpinned(old, catalog)?;
    Ok(TableDef { version: old.version + 1, ..old.clone() })
}

/// A new version has the same columns, and no view has rows of the old one in its states.
fn check_replaceable(old: &TableDef, create: &CreateTable, catalog: &Catalog) -> Result<(), Problem> {
    let name = &old.name;
    if (&old.columns, old.join, &old.validity) != (&create.columns, create.join, &create.validity) {
        let detail = format!("table {name}: a new version has the columns and the options of the one before");
        let hint = format!("SHOW CREATE TABLE {name} says what they are; for others, DROP it and create it again");
        return Err(Problem::new(Code::InvalidSql, detail).with_hint(hint));
    }
    check_unpinned(old, catalog)
}

fn check_unpinned(old: &TableDef, catalog: &Catalog) -> Result<(), Problem> {
    let users: Vec<&str> = catalog
        .views
        .iter()
        .filter(|view| view.tables.iter().any(|(id, _)| *id == old.id))
        .map(|view| view.name.as_str())
        .collect();
    if old.join == TableJoin::Late || users.is_empty() {
        return Ok(());
    }
    let detail = format!("table {} is pinned: its rows are in the states of {}", old.name, users.join(", "));
    Err(Problem::new(Code::InUse, detail)
        .with_hint("DROP these views first; a table that is to change is created WITH (join = 'late')"))
}

impl StatementService {
    pub(super) async fn create_table(
        &self,
        create: &CreateTable,
        files: &BTreeMap<String, String>,
    ) -> Result<StatementAnswer, Problem> {
        self.load(|catalog| check_table(create, catalog), files).await
    }

    /// `REFRESH TABLE`: by a user, or because it is due.
    pub(in crate::platform) async fn refresh_table(&self, name: &str) -> Result<StatementAnswer, Problem> {
        self.load(|catalog| check_refresh(name, catalog).map(Checked::New), &BTreeMap::new()).await
    }

    /// Reads the rows of the version that `next` says, and makes it the current one. What was read while another
    /// statement did the same may be older than that: it is read again.
    async fn load(
        &self,
        next: impl Fn(&Catalog) -> Result<Checked<TableDef>, Problem>,
        files: &BTreeMap<String, String>,
    ) -> Result<StatementAnswer, Problem> {
        let parts = &self.registry.parts;
        for _ in 0..TRIES {
            let planned = match next(&parts.catalog.current())? {
                Checked::Done(answer) => return Ok(answer),
                Checked::New(planned) => planned,
            };
            let rows = parts.table_sources.rows(&planned, files).await?;
            let _one_at_a_time = self.changing.lock().await;
            match next(&parts.catalog.current())? {
                Checked::Done(answer) => return Ok(answer),
                Checked::New(def) if is_same(&def, &planned) => return self.store_version(def, rows).await,
                Checked::New(_) => {}
            }
        }
        let detail = "the table is being loaded by others again and again";
        Err(Problem::new(Code::NotReady, detail))
    }

    /// Keeps rows as a version of a table, and has it joined from now on. Rows that are there already make no version.
    async fn store_version(&self, def: TableDef, rows: RecordBatch) -> Result<StatementAnswer, Problem> {
        let parts = &self.registry.parts;
        let def = TableDef { rows: rows.num_rows() as u64, created_at_us: parts.clock.now_us(), ..def };
        let (name, count) = (def.name.clone(), def.rows);
        let old = parts.catalog.current().tables.iter().find(|table| table.id == def.id).cloned();
        if let Some(old) = old.filter(|old| self.has(old, &def, &rows)) {
            return Ok(message(format!("table {name} is unchanged: version {} with {count} rows", old.version)));
        }
        let table = static_tables::table(&def, vec![rows.clone()])?;
        let made = looked_up(&parts.catalog.current(), &def, &rows).await?;
        static_tables::save(&parts.store, &def, &rows).await?;
        let added = def.clone();
        let updated = parts.catalog.update(|catalog| {
            let old = catalog.tables.iter().position(|table| table.id == added.id).map(|at| catalog.tables.remove(at));
            if old.is_none() && catalog.is_taken(&added.name) {
                return Err(taken(&added.name));
            }
            catalog.tables.push(added);
            catalog.tables.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(old)
        });
        let old = updated.await?;
        let Some(old) = old else {
            self.registry.add_table(&def, table);
            return Ok(message(format!("created table {name} with {count} rows")));
        };
        self.registry.replace_table(&old, &def, table, made);
        static_tables::forget_before(&parts.store, &old).await;
        Ok(message(format!("table {name} is in version {} with {count} rows", def.version)))
    }

    /// True if the current version differs from a new one in nothing but its number.
    fn has(&self, old: &TableDef, new: &TableDef, rows: &RecordBatch) -> bool {
        let same_text = (&old.source, old.refresh_us) == (&new.source, new.refresh_us);
        let current = self.registry.table_version(old).filter(|_| same_text && old.rows == new.rows);
        // views read a column more than there is in the table
        let declared: Vec<usize> = (0..rows.num_columns()).collect();
        let is_same = |current: &StaticTable| {
            let parts: Result<Vec<_>, _> = current.rows.iter().map(|part| part.project(&declared)).collect();
            parts.and_then(|parts| concat_batches(&rows.schema(), &parts)).is_ok_and(|old| old == *rows)
        };
        current.is_some_and(|current| is_same(&current))
    }
}

/// True if what was planned before the rows were read is what would be planned after it.
fn is_same(now: &TableDef, planned: &TableDef) -> bool {
    // a table that is not there yet gets another id each time
    now.version == planned.version && (now.version == 1 || now.id == planned.id)
}
