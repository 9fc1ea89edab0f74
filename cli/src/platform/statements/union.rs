//! A view over `UNION ALL`: a view for each branch, and a name for all of them (ADR 0019).
//!
//! ```text
//!  CREATE … sales AS … FROM (SELECT … FROM web UNION ALL SELECT … FROM shop) …
//!    sales_part1   … FROM (SELECT … FROM web) …     an ordinary view of the stream web
//!    sales_part2   … FROM (SELECT … FROM shop) …    an ordinary view of the stream shop
//! ```

use operators::view::{BranchColumn, branch_columns};
use operators::{StaticTable, View};
use schemas::column::sql_name;
use schemas::problem::SqlPosition;
use schemas::show_create::quoted;
use schemas::statement::union::{BranchText, Union};
use schemas::statement::{CreateView, place_of};
use schemas::{Catalog, Code, LatePolicy, Problem, TableDef, UnionDef};

use super::compile::{Compiled, compile, over_its_stream};
use super::create::NewView;

/// Where a text of its own begins.
const BEGINNING: SqlPosition = SqlPosition { line: 1, column: 1 };

/// The statement that is compiled, and what it may read.
#[derive(Clone, Copy)]
pub(super) struct Compilation<'a> {
    pub(super) create: &'a CreateView,
    /// The whole statement.
    pub(super) text: &'a str,
    pub(super) catalog: &'a Catalog,
    pub(super) rows_of: &'a dyn Fn(&TableDef) -> Option<StaticTable>,
}

/// The views of the branches; none for a `SELECT` without `UNION ALL`.
pub(super) fn parts(compilation: Compilation<'_>) -> Result<Option<Vec<NewView>>, Problem> {
    let create = compilation.create;
    let union = Union::of(&create.sql).map_err(|problem| compilation.placed(problem, |at| at))?;
    let Some(union) = union else { return Ok(None) };
    if create.late == Some(LatePolicy::Only) {
        let detail = "late = 'only' in a view over UNION ALL: late events are told apart by their place in one stream";
        let problem = Problem::new(Code::Unsupported, detail);
        return Err(problem.with_hint("late = 'side' makes a view with the late events of each branch"));
    }
    let columns = compilation.columns(&union)?;
    let mut parts: Vec<NewView> = vec![];
    for (branch, own) in columns.iter().enumerate() {
        let part = compilation.part(&union, branch, &select_list(own, &columns))?;
        if let Some(problem) = part.compiled.view.unfit_for_union() {
            return Err(compilation.at_first_of(problem, &["SESSION (", "JOIN"]));
        }
        if parts.first().is_some_and(|first| !first.compiled.view.merges_with(&part.compiled.view)) {
            return Err(compilation.at_branch(&union, branch, other_cells(branch)));
        }
        parts.push(part);
    }
    Ok(Some(parts))
}

/// The union of some parts, as the catalogue has it.
pub(super) fn union_def(create: &CreateView, parts: Vec<uuid::Uuid>, now_us: i64) -> UnionDef {
    UnionDef {
        id: uuid::Uuid::now_v7(),
        name: create.name.clone(),
        version: 1,
        sql: create.sql.clone(),
        refresh: create.refresh.clone(),
        late: create.late,
        with_no_data: create.with_no_data,
        parts,
        created_at_us: now_us,
    }
}

impl Compilation<'_> {
    /// The columns of each branch: as many, of the same types. (R-043)
    fn columns(&self, union: &Union<'_>) -> Result<Vec<Vec<BranchColumn>>, Problem> {
        let mut all: Vec<Vec<BranchColumn>> = vec![];
        for branch in 0..union.branches() {
            let text = union.branch(branch);
            let create = self.over(&text, self.create.name.clone());
            let of_stream = over_its_stream(&create, &text.sql, self.catalog, self.rows_of, &branch_columns);
            let columns = of_stream.map(|over| over.made).map_err(|problem| match problem.position {
                Some(_) => self.placed(problem, |at| text.place(at)),
                None => self.at_branch(union, branch, problem),
            })?;
            let problem = match all.first() {
                None => named_twice(&columns),
                Some(first) => other_columns(first, &columns, branch),
            };
            if let Some(problem) = problem {
                return Err(self.at_branch(union, branch, problem));
            }
            all.push(columns);
        }
        Ok(all)
    }

    /// The view of a branch.
    fn part(&self, union: &Union<'_>, branch: usize, columns: &str) -> Result<NewView, Problem> {
        let text = union.part(branch, columns);
        let create = self.over(&text, UnionDef::part_name(&self.create.name, branch));
        let compiled: Result<Compiled, Problem> = compile(&create, &text.sql, self.catalog, self.rows_of);
        let compiled = compiled.map_err(|problem| self.placed(problem, |at| text.place(at)))?;
        Ok(NewView { create, compiled })
    }

    /// The statement with another `SELECT`.
    fn over(&self, text: &BranchText, name: String) -> CreateView {
        let sql = text.sql.clone();
        CreateView {
            name,
            if_not_exists: false,
            or_replace: false,
            sql,
            sql_position: BEGINNING,
            ..self.create.clone()
        }
    }

    /// A problem with a place in some text made from the `SELECT`, with its place in the statement.
    fn placed(&self, mut problem: Problem, origin: impl Fn(SqlPosition) -> SqlPosition) -> Problem {
        let Some(at) = problem.position.take() else { return problem };
        let shown = format!(" (line {}, column {})\n", at.line, at.column);
        if let Some(message) = problem.detail.find(&shown) {
            problem.detail.truncate(message);
        }
        problem.at(self.text, origin(at).within(self.create.sql_position))
    }

    fn at_branch(&self, union: &Union<'_>, branch: usize, problem: Problem) -> Problem {
        problem.at(self.text, union.position(branch).within(self.create.sql_position))
    }

    /// A problem at the first of these constructs that is there.
    fn at_first_of(&self, problem: Problem, constructs: &[&str]) -> Problem {
        match constructs.iter().find_map(|construct| place_of(&self.create.sql, construct)) {
            Some(at) => problem.at(self.text, at.within(self.create.sql_position)),
            None => problem,
        }
    }
}

/// The columns of a branch under the names of the first; texts of several types as one.
fn select_list(own: &[BranchColumn], all: &[Vec<BranchColumn>]) -> String {
    let column = |(index, column): (usize, &BranchColumn)| {
        let types_differ = all.iter().any(|branch| branch[index].data_type != column.data_type);
        let name = quoted(&column.name);
        let value = if types_differ { format!("CAST({name} AS TEXT)") } else { name };
        format!("{value} AS {}", quoted(&all[0][index].name))
    };
    own.iter().enumerate().map(column).collect::<Vec<_>>().join(", ")
}

fn named_twice(columns: &[BranchColumn]) -> Option<Problem> {
    let is_there =
        |(index, column): (usize, &BranchColumn)| columns[..index].iter().any(|other| other.name == column.name);
    let twice = columns.iter().enumerate().find(|(index, column)| is_there((*index, column)))?.1;
    let detail = format!("two columns of the first branch of UNION ALL are called {}", twice.name);
    Some(Problem::new(Code::InvalidSql, detail).with_hint("give one of them another name with AS"))
}

/// What keeps a branch from being added to the first.
fn other_columns(first: &[BranchColumn], columns: &[BranchColumn], branch: usize) -> Option<Problem> {
    let number = branch + 1;
    if first.len() != columns.len() {
        let (found, expected) = (columns.len(), first.len());
        let detail = format!("branch {number} of UNION ALL has {found} columns, the first has {expected}");
        return Some(Problem::new(Code::InvalidSql, detail).with_hint("select the same columns in each branch"));
    }
    let differs = |(one, other): &(&BranchColumn, &BranchColumn)| {
        one.data_type != other.data_type && !(one.is_text() && other.is_text())
    };
    let (wanted, found) = first.iter().zip(columns).find(differs)?;
    let (expected, is) = (sql_name(&wanted.data_type), sql_name(&found.data_type));
    let detail = format!("column {}: {is} in branch {number} of UNION ALL, {expected} in the first", wanted.name);
    Some(Problem::new(Code::InvalidSql, detail).with_hint(format!("write CAST({} AS {expected})", quoted(&found.name))))
}

fn other_cells(branch: usize) -> Problem {
    let detail = format!(
        "branch {} of UNION ALL makes other states than the first, in its windows or in the kinds of its values: they \
         cannot be merged",
        branch + 1
    );
    Problem::new(Code::Unsupported, detail)
        .with_hint("write the same windows, and values of the same types, in each branch")
}

/// Whether a view that diverts late events is a part: so are the views beside it.
pub(super) fn is_main(view: &View) -> bool {
    view.late_policy() != LatePolicy::Only
}
