//! A view as a neutral description: its SQL, and its answer by maps and brute force.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::aggregate::{Aggregate, Expected, OutOfRange};
use super::event::{AT, COLUMNS, Placed, TAGS};
use super::expression::{Expression, Operation, call};
use super::late::{Reached, columns_read};
use super::value::{Key, Kind, Value, order};
use super::window::Window;

/// Columns that a window and a join add behind those of the stream.
pub(super) const WINDOW_START: usize = 12;
pub(super) const WINDOW_END: usize = 13;
pub(super) const CODE: usize = 14;
pub(super) const NAME: usize = 15;
pub(super) const LABEL: usize = 16;
pub(super) const WEIGHT: usize = 17;
/// The column that `UNNEST` adds.
pub(super) const ITEM: usize = 18;
const WIDTH: usize = 19;
/// Behind them, the partition and the offset of the record.
pub(super) const POSITION: usize = WIDTH;

/// Columns of the static table.
pub(super) const DIMENSION: [(&str, &str, Kind); 4] = [
    ("code", "INT", Kind::Int),
    ("name", "TEXT", Kind::Text),
    ("label", "TEXT", Kind::Text),
    ("weight", "BIGINT", Kind::Int),
];

/// A join of the stream with the static table.
#[derive(Debug, Clone)]
pub(super) struct Join {
    /// A left join, not an inner one.
    pub(super) is_left: bool,
    /// Column of the stream and column of the table that are equal.
    pub(super) on: (usize, usize),
    /// The table is joined when the view is read, in the version that it has then.
    pub(super) is_late: bool,
}

/// How the arrays of a record are taken apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Unnest {
    /// `CROSS JOIN UNNEST(s.tags) AS u(item)`
    CrossJoin,
    /// `FROM s, LATERAL unnest(s.tags) AS u(item)`
    Lateral,
    /// `FROM (SELECT *, unnest(tags) AS item FROM s) AS s`
    Select,
}

/// A sort of the answer by one of its columns.
#[derive(Debug, Clone)]
pub(super) struct Sort {
    pub(super) column: usize,
    pub(super) descending: bool,
    pub(super) nulls_first: bool,
}

/// A view. Keys and aggregates are over the rows of the source; columns and `having` are over the
/// keys, then the aggregates.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is there or not, whatever the others are")]
pub(super) struct ViewModel {
    pub(super) window: Option<Window>,
    /// Whether the window is written as Flink does.
    pub(super) is_flinks: bool,
    pub(super) join: Option<Join>,
    pub(super) unnest: Option<Unnest>,
    pub(super) condition: Option<Expression>,
    pub(super) keys: Vec<Expression>,
    pub(super) aggregates: Vec<Aggregate>,
    pub(super) columns: Vec<Expression>,
    pub(super) having: Option<Expression>,
    pub(super) sorts: Vec<Sort>,
    pub(super) limit: Option<usize>,
    pub(super) late: Late,
    /// The windows are over the time of the log, by one of its names.
    pub(super) log_time: Option<&'static str>,
    /// The stream is read through a subquery that does not hand on the event time.
    pub(super) hides_time: bool,
    /// `GROUPING SETS`: which keys each set has. Their `grouping()` follows the aggregates.
    pub(super) sets: Option<Vec<Vec<bool>>>,
    /// `SELECT DISTINCT` of the keys.
    pub(super) is_distinct: bool,
    /// No aggregate and no groups: the keys of every row.
    pub(super) is_of_rows: bool,
}

/// What becomes of late events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    Include,
    Drop,
    Side,
}

/// What a view says, and which records it is made of.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) rows: Result<Vec<Vec<Expected>>, OutOfRange>,
    /// Records counted and records left out as late.
    pub(super) counted: u64,
    pub(super) late: u64,
    /// Of those counted, the late ones.
    pub(super) counted_late: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Owner {
    Stream,
    Table,
    Both,
}

/// Whose columns an expression reads; none for a constant.
fn owner(expression: &Expression) -> Option<Owner> {
    let of = |column: usize| if (CODE..ITEM).contains(&column) { Owner::Table } else { Owner::Stream };
    let owners = expression.columns().into_iter().map(of);
    owners.reduce(|a, b| if a == b { a } else { Owner::Both })
}

/// The parts of a condition that all have to hold.
fn conjuncts(condition: &Expression) -> Vec<&Expression> {
    match condition {
        Expression::Call(Operation::And, parts) => parts.iter().flat_map(conjuncts).collect(),
        other => vec![other],
    }
}

fn source_name(column: usize) -> String {
    match column {
        WINDOW_START => "window_start".into(),
        WINDOW_END => "window_end".into(),
        ITEM => "item".into(),
        POSITION => "s._partition".into(),
        CODE.. => format!("dim.{}", DIMENSION[column - CODE].0),
        _ => format!("s.{}", COLUMNS[column].0),
    }
}

impl ViewModel {
    /// The `SELECT`.
    pub(super) fn sql(&self) -> String {
        let behind_aggregates = self.keys.len() + self.aggregates.len();
        let slot = |index: usize| match self.keys.get(index) {
            Some(key) => key.sql(&source_name),
            None if index < behind_aggregates => self.aggregates[index - self.keys.len()].sql(&source_name),
            None => format!("grouping({})", self.keys[index - behind_aggregates].sql(&source_name)),
        };
        let columns =
            self.columns.iter().enumerate().map(|(index, column)| format!("{} AS o{index}", column.sql(&slot)));
        let distinct = if self.is_distinct { "DISTINCT " } else { "" };
        let mut sql = format!("SELECT {distinct}{} FROM {}", columns.collect::<Vec<_>>().join(", "), self.source_sql());
        if let (Some(condition), false) = (&self.condition, self.filters_before()) {
            let _ = write!(sql, " WHERE {}", condition.sql(&source_name));
        }
        if !self.keys.is_empty() && !self.is_distinct && !self.is_of_rows {
            let _ = write!(sql, " GROUP BY {}", self.group_by_sql());
        }
        if let Some(having) = &self.having {
            let _ = write!(sql, " HAVING {}", having.sql(&slot));
        }
        let sorts: Vec<String> = self.sorts.iter().map(Sort::sql).collect();
        if !sorts.is_empty() {
            let _ = write!(sql, " ORDER BY {}", sorts.join(", "));
        }
        if let Some(limit) = self.limit {
            let _ = write!(sql, " LIMIT {limit}");
        }
        sql
    }

    fn group_by_sql(&self) -> String {
        let keys: Vec<_> = self.keys.iter().map(|key| key.sql(&source_name)).collect();
        let Some(sets) = &self.sets else { return keys.join(", ") };
        if *sets == rollup(keys.len()) {
            return format!("ROLLUP ({})", keys.join(", "));
        }
        if *sets == cube(keys.len()) {
            return format!("CUBE ({})", keys.join(", "));
        }
        let set = |has: &Vec<bool>| {
            let keys: Vec<_> = keys.iter().zip(has).filter(|(_, has)| **has).map(|(key, _)| key.as_str()).collect();
            format!("({})", keys.join(", "))
        };
        format!("GROUPING SETS ({})", sets.iter().map(set).collect::<Vec<_>>().join(", "))
    }

    fn source_sql(&self) -> String {
        let inside = self.stream_sql();
        let over = match &self.condition {
            Some(condition) if self.filters_before() => {
                format!("(SELECT * FROM {inside} WHERE {})", condition.sql(&source_name))
            }
            _ if self.window.is_some() && inside != "s" => format!("(SELECT * FROM {inside})"),
            _ => inside,
        };
        let time = self.log_time.unwrap_or("at");
        let windows = |window: &Window| window.sql(&over, time, self.is_flinks);
        let mut source = self.window.as_ref().map_or_else(|| over.clone(), windows);
        if let Some(join) = &self.join {
            let (word, on) = (if join.is_left { "LEFT JOIN" } else { "JOIN" }, join.on);
            let _ = write!(source, " {word} dim ON {} = {}", source_name(on.0), source_name(on.1));
        }
        match self.unnest {
            Some(Unnest::CrossJoin) => source + " CROSS JOIN UNNEST(s.tags) AS u(item)",
            Some(Unnest::Lateral) => source + ", LATERAL unnest(s.tags) AS u(item)",
            Some(Unnest::Select) | None => source,
        }
    }

    /// The stream, or a subquery that takes its arrays apart or does not hand on its event time.
    fn stream_sql(&self) -> String {
        let takes_apart = self.unnest == Some(Unnest::Select);
        if !takes_apart && !self.hides_time {
            return "s".into();
        }
        let shown = COLUMNS.iter().map(|(name, ..)| *name).filter(|name| *name != "at").collect::<Vec<_>>().join(", ");
        let columns = if self.hides_time { shown.as_str() } else { "*" };
        format!("(SELECT {columns}{} FROM s) AS s", if takes_apart { ", unnest(tags) AS item" } else { "" })
    }

    /// A condition decides which events make sessions, so it stands inside.
    fn filters_before(&self) -> bool {
        matches!(self.window, Some(Window::Session { .. }))
    }

    /// True if a table could be joined after the aggregate: no aggregate, and nothing that mixes stream and table.
    pub(super) fn may_join_late(&self) -> bool {
        let is_shared = self.window.as_ref().is_some_and(Window::is_shared);
        let has_shape = !is_shared && !self.is_of_rows && self.sets.is_none() && !self.keys.is_empty();
        let inside = matches!(self.unnest, None | Some(Unnest::Select));
        let one_side = |expression: &Expression| owner(expression) != Some(Owner::Both);
        let of_stream = |expression: &Expression| matches!(owner(expression), None | Some(Owner::Stream));
        let aggregates = self.aggregates.iter().all(|aggregate| {
            let keys = aggregate.order_by.iter().map(|order| &order.key);
            let parts = aggregate.argument.iter().chain(&aggregate.second).chain(&aggregate.filter).chain(keys);
            parts.into_iter().all(of_stream)
        });
        has_shape
            && inside
            && aggregates
            && self.keys.iter().all(one_side)
            && self.condition.as_ref().is_none_or(|condition| conjuncts(condition).into_iter().all(one_side))
    }

    /// True if the table is joined when the view is read.
    pub(super) fn joins_late(&self) -> bool {
        self.join.as_ref().is_some_and(|join| join.is_late)
    }

    /// What the fold sees of the view: all of it, without a table that is joined when the view is read.
    pub(super) fn folded(&self) -> Self {
        if !self.joins_late() {
            return self.clone();
        }
        let conditions = self.condition.iter().flat_map(conjuncts);
        let of_stream = conditions.filter(|condition| owner(condition) != Some(Owner::Table)).cloned();
        let condition = of_stream.reduce(|a, b| call(Operation::And, [a, b]));
        Self { join: None, condition, ..self.clone() }
    }

    /// `late = '…'`
    pub(super) fn late_sql(&self) -> &'static str {
        match self.late {
            Late::Include => "include",
            Late::Drop => "drop",
            Late::Side => "side",
        }
    }

    /// True if the fold leaves late events out.
    pub(super) fn leaves_out_late(&self) -> bool {
        self.late != Late::Include
    }

    /// True if anything in the view reads the event time.
    pub(super) fn reads_time(&self) -> bool {
        let below = self.keys.iter().chain(&self.condition).flat_map(Expression::columns);
        below.chain(self.aggregates.iter().flat_map(columns_read)).any(|column| column == AT)
    }

    /// The answer over the events.
    pub(super) fn answer(&self, events: &[Placed], dimension: &[Vec<Value>]) -> Answer {
        self.answer_with(events, dimension, None)
    }

    /// The answer; if it is said how far it goes, each row says at its end whether its window is final by that.
    pub(super) fn answer_with(
        &self,
        events: &[Placed],
        dimension: &[Vec<Value>],
        finality: Option<&Reached>,
    ) -> Answer {
        let (mut counted, mut late, mut counted_late) = (0, 0, 0);
        let mut groups: BTreeMap<(usize, Vec<Key>), Vec<Vec<Value>>> = BTreeMap::new();
        if self.keys.is_empty() {
            groups.insert((0, vec![]), vec![]);
        }
        let mut kept: Vec<(&Placed, Vec<Vec<Value>>)> = vec![];
        for placed in events {
            let mut rows = self.source_rows(&placed.event.0, dimension);
            rows.retain(|row| {
                self.condition.as_ref().is_none_or(|condition| condition.value(row).truth() == Some(true))
            });
            if rows.is_empty() {
                continue;
            }
            if self.is_late(placed) {
                if self.leaves_out_late() {
                    late += 1;
                    continue;
                }
                counted_late += 1;
            }
            counted += 1;
            for row in &mut rows {
                row.extend([Value::Int(placed.partition.into()), Value::Int(placed.offset.into())]);
            }
            kept.push((placed, rows));
        }
        let times: Vec<(&[Value], i64)> =
            kept.iter().map(|(placed, _)| (placed.event.0.as_slice(), self.time_us(placed))).collect();
        let windows = self.window.as_ref().map(|window| window.of_all(&times));
        for (index, (_, rows)) in kept.iter().enumerate() {
            let none = vec![(Value::Null, Value::Null)];
            for (start, end) in windows.as_ref().map_or(&none, |windows| &windows[index]) {
                for row in rows {
                    let mut row = row.clone();
                    (row[WINDOW_START], row[WINDOW_END]) = (start.clone(), end.clone());
                    for set in 0..self.sets.as_ref().map_or(1, Vec::len) {
                        let key = self.keys_in(set, &row).iter().map(Value::key).collect();
                        groups.entry((set, key)).or_default().push(row.clone());
                    }
                }
            }
        }
        Answer { rows: self.finish(&groups, finality), counted, late, counted_late }
    }

    /// The time that the view's windows are over, or the position.
    fn time_us(&self, placed: &Placed) -> i64 {
        if self.window.as_ref().is_some_and(Window::is_counted) {
            return placed.offset.try_into().unwrap();
        }
        if self.log_time.is_some() { placed.append_us } else { placed.event.time_us() }
    }

    /// The keys of a row, nulls for those that the set has not.
    fn keys_in(&self, set: usize, row: &[Value]) -> Vec<Value> {
        let has = |key: usize| self.sets.as_ref().is_none_or(|sets| sets[set][key]);
        let keys = self.keys.iter().enumerate();
        keys.map(|(index, key)| if has(index) { key.value(row) } else { Value::Null }).collect()
    }

    /// The rows that the source makes of an event: several or none with a join or `UNNEST`.
    pub(super) fn source_rows(&self, event: &[Value], dimension: &[Vec<Value>]) -> Vec<Vec<Value>> {
        let rows = self.joined_rows(event, dimension);
        if self.unnest.is_none() {
            return rows;
        }
        let Value::List(items) = &event[TAGS] else { return vec![] };
        let with_items = |row: &Vec<Value>| -> Vec<Vec<Value>> {
            let with = |item: &Value| [&row[..ITEM], std::slice::from_ref(item)].concat();
            items.iter().map(with).collect()
        };
        rows.iter().flat_map(with_items).collect()
    }

    fn joined_rows(&self, event: &[Value], dimension: &[Vec<Value>]) -> Vec<Vec<Value>> {
        let mut row = event.to_vec();
        row.resize(WIDTH, Value::Null);
        let Some(join) = &self.join else { return vec![row] };
        let (mine, theirs) = (&event[join.on.0], join.on.1 - CODE);
        let matches =
            |other: &&Vec<Value>| !mine.is_null() && !other[theirs].is_null() && order(mine, &other[theirs]).is_eq();
        let joined = |other: &Vec<Value>| [&row[..CODE], other, &row[ITEM..]].concat();
        let rows: Vec<Vec<Value>> = dimension.iter().filter(matches).map(joined).collect();
        if rows.is_empty() && join.is_left { vec![row] } else { rows }
    }

    /// A record is late when its last window had ended by the watermark before it; without a window, when
    /// it lies behind the watermark.
    pub(super) fn is_late(&self, placed: &Placed) -> bool {
        // the log's own time is never late, and no position is
        let is_by_log = self.log_time.is_some() || self.window.as_ref().is_some_and(Window::is_counted);
        let Some(largest_us) = placed.largest_before.filter(|_| !is_by_log) else { return false };
        let (watermark_us, time_us) = (largest_us - WATERMARK_DELAY_US, placed.event.time_us());
        if let Some(window) = &self.window {
            return window.has_ended(time_us, watermark_us);
        }
        match (self.bucket_of(watermark_us), self.bucket_of(time_us)) {
            (Some(of_watermark), Some(own)) => of_watermark > own,
            _ => time_us < watermark_us,
        }
    }

    /// The bucket of an event time; none without one among the keys.
    pub(super) fn bucket_of(&self, time_us: i64) -> Option<i64> {
        let mut row = vec![Value::Null; WIDTH];
        row[AT] = Value::Time(time_us);
        self.bucket(&row)
    }

    /// The bucket of a row's event time.
    pub(super) fn bucket(&self, row: &[Value]) -> Option<i64> {
        match self.time_bucket()?.value(row) {
            Value::Time(start_us) => Some(start_us),
            other => panic!("a bucket is a time, not {other:?}"),
        }
    }

    /// The key that is a bucket of the event time.
    pub(super) fn time_bucket(&self) -> Option<&Expression> {
        self.keys.iter().find(|key| {
            matches!(key, Expression::Call(Operation::Truncate(..) | Operation::Bin(..), arguments)
                if matches!(arguments[0], Expression::Column(AT, _)))
        })
    }

    fn finish(
        &self,
        groups: &BTreeMap<(usize, Vec<Key>), Vec<Vec<Value>>>,
        finality: Option<&Reached>,
    ) -> Result<Vec<Vec<Expected>>, OutOfRange> {
        let mut answer = vec![];
        // as in PostgreSQL, a condition on keys alone is looked at before any aggregate
        let early = self.having.as_ref().filter(|having| having.columns().iter().all(|slot| *slot < self.keys.len()));
        for ((set, _), rows) in groups {
            let rows: Vec<&[Value]> = rows.iter().map(Vec::as_slice).collect();
            let keys = if self.keys.is_empty() { vec![] } else { self.keys_in(*set, rows[0]) };
            if self.limit == Some(0) || early.is_some_and(|having| having.value(&keys).truth() != Some(true)) {
                continue;
            }
            let mut slots: Vec<Expected> = keys.into_iter().map(Expected::exact).collect();
            for aggregate in &self.aggregates {
                slots.push(aggregate.over(&rows)?);
            }
            for has in self.sets.iter().flat_map(|sets| &sets[*set]) {
                slots.push(Expected::exact(Value::Int((!*has).into())));
            }
            let values: Vec<Value> = slots.iter().map(|slot| slot.value.clone()).collect();
            if self.having.as_ref().is_none_or(|having| having.value(&values).truth() == Some(true)) {
                let mut row: Vec<Expected> =
                    self.columns.iter().map(|column| output(column, &slots, &values)).collect();
                if let Some(reached) = finality {
                    row.push(Expected::exact(Value::Bool(self.is_final(*set, rows[0], reached))));
                }
                let times = if self.is_of_rows { rows.len() } else { 1 };
                answer.extend(std::iter::repeat_n(row, times));
            }
        }
        answer.sort_by(|a: &Vec<Expected>, b| {
            self.sorts.iter().map(|sort| sort.order(a, b)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
        });
        answer.truncate(self.limit.unwrap_or(usize::MAX));
        Ok(answer)
    }
}

/// Each set has one key less than the one before.
pub(super) fn rollup(keys: usize) -> Vec<Vec<bool>> {
    (0..=keys).rev().map(|count| (0..keys).map(|key| key < count).collect()).collect()
}

/// All sets.
pub(super) fn cube(keys: usize) -> Vec<Vec<bool>> {
    (0..1_usize << keys).rev().map(|set| (0..keys).map(|key| set >> key & 1 == 1).collect()).collect()
}

/// How far the watermark of the test's stream stays behind.
pub(super) const WATERMARK_DELAY_US: i64 = 5 * 60 * 1_000_000;

/// A column of the answer: an aggregate as it is, or something computed of exact ones.
fn output(column: &Expression, slots: &[Expected], values: &[Value]) -> Expected {
    match column {
        Expression::Column(slot, _) => slots[*slot].clone(),
        computed => Expected::exact(computed.value(values)),
    }
}

impl Sort {
    fn sql(&self) -> String {
        let direction = if self.descending { "DESC" } else { "ASC" };
        let nulls = if self.nulls_first { "FIRST" } else { "LAST" };
        format!("{} {direction} NULLS {nulls}", self.column + 1)
    }

    fn order(&self, a: &[Expected], b: &[Expected]) -> Ordering {
        let (a, b) = (&a[self.column].value, &b[self.column].value);
        let nulls = if self.nulls_first { Ordering::Less } else { Ordering::Greater };
        match (a.is_null(), b.is_null()) {
            (true, true) => Ordering::Equal,
            (true, false) => nulls,
            (false, true) => nulls.reverse(),
            (false, false) if self.descending => order(b, a),
            (false, false) => order(a, b),
        }
    }
}
