//! A view as a neutral description: its SQL, and its answer by maps and brute force.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::aggregate::{Aggregate, Expected, OutOfRange};
use super::event::{AT, COLUMNS, Placed, TAGS};
use super::expression::{Expression, Operation};
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
    pub(super) drops_late: bool,
    /// `GROUPING SETS`: which keys each set has. Their `grouping()` follows the aggregates.
    pub(super) sets: Option<Vec<Vec<bool>>>,
    /// `SELECT DISTINCT` of the keys.
    pub(super) is_distinct: bool,
    /// No aggregate and no groups: the keys of every row.
    pub(super) is_of_rows: bool,
}

/// What a view says, and which records it is made of.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) rows: Result<Vec<Vec<Expected>>, OutOfRange>,
    /// Records counted and records left out as late.
    pub(super) counted: u64,
    pub(super) late: u64,
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
        let inside =
            if self.unnest == Some(Unnest::Select) { "(SELECT *, unnest(tags) AS item FROM s) AS s" } else { "s" };
        let over = match &self.condition {
            Some(condition) if self.filters_before() => {
                format!("(SELECT * FROM {inside} WHERE {})", condition.sql(&source_name))
            }
            _ if self.window.is_some() && inside != "s" => format!("(SELECT * FROM {inside})"),
            _ => inside.into(),
        };
        let mut source = self.window.as_ref().map_or_else(|| over.clone(), |window| window.sql(&over, self.is_flinks));
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

    /// `late = '…'`
    pub(super) fn late_sql(&self) -> &'static str {
        if self.drops_late { "drop" } else { "include" }
    }

    /// The answer over the events.
    pub(super) fn answer(&self, events: &[Placed], dimension: &[Vec<Value>]) -> Answer {
        let (mut counted, mut late) = (0, 0);
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
            if self.drops_late && self.is_late(placed) {
                late += 1;
                continue;
            }
            counted += 1;
            for row in &mut rows {
                row.extend([Value::Int(placed.partition.into()), Value::Int(placed.offset.into())]);
            }
            kept.push((placed, rows));
        }
        let times: Vec<(&[Value], i64)> =
            kept.iter().map(|(placed, _)| (placed.event.0.as_slice(), placed.event.time_us())).collect();
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
        Answer { rows: self.finish(&groups), counted, late }
    }

    /// The keys of a row, nulls for those that the set has not.
    fn keys_in(&self, set: usize, row: &[Value]) -> Vec<Value> {
        let has = |key: usize| self.sets.as_ref().is_none_or(|sets| sets[set][key]);
        let keys = self.keys.iter().enumerate();
        keys.map(|(index, key)| if has(index) { key.value(row) } else { Value::Null }).collect()
    }

    /// The rows that the source makes of an event: several or none with a join or `UNNEST`.
    fn source_rows(&self, event: &[Value], dimension: &[Vec<Value>]) -> Vec<Vec<Value>> {
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
    fn is_late(&self, placed: &Placed) -> bool {
        let Some(largest_us) = placed.largest_before else { return false };
        let (watermark_us, time_us) = (largest_us - WATERMARK_DELAY_US, placed.event.time_us());
        if let Some(window) = &self.window {
            return window.has_ended(time_us, watermark_us);
        }
        let bucket = |time_us: i64| {
            let mut row = vec![Value::Null; WIDTH];
            row[AT] = Value::Time(time_us);
            match self.time_bucket()?.value(&row) {
                Value::Time(start_us) => Some(start_us),
                other => panic!("a bucket is a time, not {other:?}"),
            }
        };
        match (bucket(watermark_us), bucket(time_us)) {
            (Some(of_watermark), Some(own)) => of_watermark > own,
            _ => time_us < watermark_us,
        }
    }

    /// The key that is a bucket of the event time.
    fn time_bucket(&self) -> Option<&Expression> {
        self.keys.iter().find(|key| {
            matches!(key, Expression::Call(Operation::Truncate(..) | Operation::Bin(..), arguments)
                if matches!(arguments[0], Expression::Column(AT, _)))
        })
    }

    fn finish(&self, groups: &BTreeMap<(usize, Vec<Key>), Vec<Vec<Value>>>) -> Result<Vec<Vec<Expected>>, OutOfRange> {
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
                let row: Vec<Expected> = self.columns.iter().map(|column| output(column, &slots, &values)).collect();
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
