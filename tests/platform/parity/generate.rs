//! Random views.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::aggregate::{Aggregate, Function};
use super::calendar::{DAY, HOUR, MINUTE, SECOND};
use super::event::{AT, B, BEGINNING, C, COLUMNS, D, D_SCALE, K, M, N, T, TAGS, TEXTS, X, Y, pick};
use super::expression::{Comparison, Expression, Operation, call, compare, int, literal};
use super::value::{Kind, Value};
use super::view::{
    CODE, DIMENSION, ITEM, Join, LABEL, Late, NAME, POSITION, Sort, Unnest, ViewModel, WEIGHT, WINDOW_END,
    WINDOW_START, cube, rollup,
};
use super::window::Window;

mod kept;

/// Makes views out of random numbers.
pub(super) struct Generator<'a> {
    pub(super) rng: &'a mut ChaCha8Rng,
    /// Whether the test knows when the log takes a record.
    pub(super) knows_log_time: bool,
}

fn column(index: usize) -> Expression {
    let kind = match index {
        WINDOW_START | WINDOW_END => Kind::Time,
        ITEM => Kind::Text,
        POSITION => Kind::Int,
        CODE.. => DIMENSION[index - CODE].2,
        _ => COLUMNS[index].2,
    };
    Expression::Column(index, kind)
}

impl Generator<'_> {
    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        pick(self.rng, from)
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }

    pub(super) fn view(&mut self) -> ViewModel {
        let window = self.chance(0.5).then(|| self.window());
        let is_session = matches!(window, Some(Window::Session { .. }));
        let join = (!is_session && self.chance(0.25)).then(|| Join {
            is_left: self.chance(0.5),
            on: self.pick(&[(C, CODE), (K, NAME), (M, WEIGHT)]),
            is_late: false,
        });
        let condition = self.chance(0.4).then(|| self.condition(join.is_some(), 2));
        let keys = match &window {
            Some(Window::Session { key, .. }) => self.keys_of_session(*key),
            window => self.keys(window.as_ref(), join.is_some()),
        };
        let aggregates = (0..self.rng.random_range(1..6)).map(|_| self.aggregate(join.is_some())).collect();
        let is_counted = window.as_ref().is_some_and(Window::is_counted);
        let unnest = self.chance(0.2).then(|| match (is_session, is_counted) {
            (true, _) => Unnest::Select,
            // it counts the records of the stream itself
            (_, true) => self.pick(&[Unnest::CrossJoin, Unnest::Lateral]),
            _ => self.pick(&[Unnest::CrossJoin, Unnest::Lateral, Unnest::Select]),
        });
        let mut view = ViewModel {
            window,
            is_flinks: self.chance(0.3),
            join,
            unnest,
            condition,
            keys,
            aggregates,
            columns: vec![],
            having: None,
            sorts: vec![],
            limit: None,
            late: self.pick(&[Late::Include, Late::Include, Late::Include, Late::Drop, Late::Side]),
            log_time: None,
            hides_time: false,
            sets: None,
            is_distinct: false,
            is_of_rows: false,
        };
        let is_timed = view.window.as_ref().is_some_and(|window| !window.is_counted());
        if self.knows_log_time && is_timed && self.chance(0.15) {
            view.log_time = Some(self.pick(&["_append_time", "_processing_time"]));
        }
        view.hides_time = view.window.is_none() && !view.reads_time() && self.chance(0.7);
        self.regroup(&mut view);
        self.use_items(&mut view);
        self.finish(&mut view);
        view
    }

    /// Joins the table when the view is read, where that can be.
    pub(super) fn join_late(&mut self, view: &mut ViewModel) {
        let may = view.may_join_late() && self.chance(0.7);
        if let Some(join) = &mut view.join {
            join.is_late = may;
        }
    }

    /// Some views have sets of groups, some no aggregate.
    fn regroup(&mut self, view: &mut ViewModel) {
        let keys = view.keys.len();
        if keys == 0 {
            return;
        }
        let is_shared = view.window.as_ref().is_some_and(|window| window.is_shared() || window.is_counted());
        if self.chance(0.08) {
            view.is_distinct = true;
            view.aggregates.clear();
        } else if !is_shared && self.chance(0.15) {
            view.sets = Some(match self.rng.random_range(0..3) {
                0 => rollup(keys),
                1 => cube(keys),
                _ => self.sets(keys),
            });
        }
    }

    /// Rows in place of groups, and items of arrays in keys, conditions and aggregates.
    fn use_items(&mut self, view: &mut ViewModel) {
        let is_shared = view.window.as_ref().is_some_and(Window::is_shared);
        if !is_shared && self.chance(0.15) {
            (view.is_of_rows, view.is_distinct, view.sets) = (true, false, None);
            view.aggregates.clear();
            for of in [K, N, X, D, TAGS] {
                let is_there = |key: &Expression| matches!(key, Expression::Column(own, _) if *own == of);
                if (view.keys.is_empty() || self.chance(0.4)) && !view.keys.iter().any(is_there) {
                    view.keys.push(column(of));
                }
            }
        }
        if view.unnest.is_none() {
            return;
        }
        let is_session = matches!(view.window, Some(Window::Session { .. }));
        if !is_session && view.sets.is_none() && self.chance(0.6) {
            view.keys.push(column(ITEM));
        }
        for aggregate in &mut view.aggregates {
            if matches!(aggregate.argument, Some(Expression::Column(K, _))) && self.chance(0.7) {
                aggregate.argument = Some(column(ITEM));
                // distinct values have no other order than their own
                for order in aggregate.order_by.iter_mut().filter(|_| aggregate.distinct) {
                    order.key = column(ITEM);
                }
            }
        }
        if view.condition.is_none() && self.chance(0.3) {
            view.condition = Some(self.atom(ITEM));
        }
    }

    /// Some sets, the same one perhaps twice; each key is in one of them.
    fn sets(&mut self, keys: usize) -> Vec<Vec<bool>> {
        let count = self.rng.random_range(1..4);
        let mut sets: Vec<Vec<bool>> = (0..count).map(|_| (0..keys).map(|_| self.chance(0.6)).collect()).collect();
        for key in 0..keys {
            if sets.iter().all(|set| !set[key]) {
                sets[0][key] = true;
            }
        }
        sets
    }

    fn window_us(&mut self) -> i64 {
        self.pick(&[SECOND, 7 * SECOND, MINUTE, 15 * MINUTE, HOUR, 7 * HOUR, DAY, 7 * DAY, 30 * DAY])
    }

    fn window(&mut self) -> Window {
        let offset_us = self.pick(&[0, 0, 17 * SECOND, -3 * HOUR - 25 * MINUTE]);
        let slide_us = self.window_us();
        match self.rng.random_range(0..12) {
            10 => Window::Count { slide: self.rng.random_range(1..30), size: self.rng.random_range(1..60) },
            11 => {
                let size = self.rng.random_range(1..60);
                Window::Count { slide: size, size }
            }
            0..3 => Window::Tumble { size_us: slide_us, offset_us: 0 },
            3 => Window::Tumble { size_us: slide_us, offset_us },
            4 => Window::Calendar { unit: self.pick(&["day", "month"]) },
            5 | 6 => {
                let size_us = slide_us * self.rng.random_range(1..12) + self.pick(&[0, 0, slide_us / 2]);
                Window::Hop { slide_us, size_us: size_us / SECOND * SECOND, offset_us }
            }
            7 => Window::Cumulate { step_us: slide_us, size_us: slide_us * self.rng.random_range(1..12), offset_us },
            _ => Window::Session {
                key: self.pick(&[None, Some(K), Some(K), Some(C), Some(X), Some(B)]),
                gap_us: slide_us,
            },
        }
    }

    /// The column that a session has one value of and its bounds, in any order.
    fn keys_of_session(&mut self, key: Option<usize>) -> Vec<Expression> {
        let mut keys: Vec<Expression> = key.map(column).into_iter().collect();
        for bound in
            self.pick(&[&[WINDOW_START, WINDOW_END][..], &[WINDOW_END, WINDOW_START], &[WINDOW_START], &[WINDOW_END]])
        {
            let place = self.rng.random_range(0..=keys.len());
            keys.insert(place, column(*bound));
        }
        keys
    }

    /// Up to four different keys, at most one of them a bucket of the event time.
    fn keys(&mut self, window: Option<&Window>, is_joined: bool) -> Vec<Expression> {
        let mut keys: Vec<Expression> = vec![];
        let mut has_bucket = window.is_some();
        match window {
            Some(window) if window.is_counted() => {
                let bounds = self.pick(&[&[WINDOW_START][..], &[WINDOW_END], &[WINDOW_END, WINDOW_START]]);
                keys.push(column(POSITION));
                keys.extend(bounds.iter().map(|at| Expression::Column(*at, Kind::Int)));
            }
            // their end tells them apart, their start does not
            Some(Window::Cumulate { .. }) => {
                keys.extend(self.pick(&[&[WINDOW_END][..], &[WINDOW_START, WINDOW_END]]).iter().map(|at| column(*at)));
            }
            Some(window) if window.is_shared() => {
                let bounds = self.pick(&[&[WINDOW_START][..], &[WINDOW_END], &[WINDOW_END, WINDOW_START]]);
                keys.extend(bounds.iter().map(|at| column(*at)));
            }
            Some(_) if self.chance(0.85) => keys.push(column(self.pick(&[WINDOW_START, WINDOW_START, WINDOW_END]))),
            _ => {}
        }
        for _ in 0..self.rng.random_range(0..3) {
            let key = if !has_bucket && self.chance(0.5) {
                has_bucket = true;
                self.bucket(AT)
            } else {
                self.plain_key(is_joined)
            };
            let text = key.sql(&|index| index.to_string());
            if keys.iter().all(|other| other.sql(&|index| index.to_string()) != text) {
                keys.push(key);
            }
        }
        if self.chance(0.5) {
            keys.reverse();
        }
        keys
    }

    fn bucket(&mut self, of: usize) -> Expression {
        let operation = if self.chance(0.6) {
            let unit = self.pick(&["second", "minute", "hour", "day", "week", "month", "quarter", "year"]);
            Operation::Truncate(unit, self.chance(0.3))
        } else {
            let origin =
                self.pick(&[None, Some(17 * SECOND), Some(BEGINNING - 3 * HOUR - 25 * MINUTE), Some(-90 * DAY)]);
            Operation::Bin(self.window_us(), origin)
        };
        call(operation, [column(of)])
    }

    fn plain_key(&mut self, is_joined: bool) -> Expression {
        match self.rng.random_range(0..if is_joined { 15 } else { 13 }) {
            0 | 1 => column(K),
            2 => column(C),
            3 => column(B),
            4 => column(X),
            5 => column(T),
            6 => self.bucket(T),
            7 => call(Operation::Modulo, [column(M), int(self.rng.random_range(1..5))]),
            8 => compare(Comparison::Greater, column(C), int(0)),
            9 => call(Operation::Coalesce, [column(K), literal(Value::Text("none".into()))]),
            10 => call(Operation::Length, [column(K)]),
            11 => {
                let (yes, no) = (Value::Text("yes".into()), Value::Text("no".into()));
                call(Operation::Case, [self.condition(false, 1), literal(yes), literal(no)])
            }
            12 => call(Operation::Concatenate, [column(K), literal(Value::Text("!".into()))]),
            13 => column(LABEL),
            _ => column(CODE),
        }
    }

    /// A condition over the rows of the source.
    fn condition(&mut self, is_joined: bool, depth: u32) -> Expression {
        if depth > 0 && self.chance(0.4) {
            let (a, b) = (self.condition(is_joined, depth - 1), self.condition(is_joined, depth - 1));
            return match self.rng.random_range(0..3) {
                0 => call(Operation::And, [a, b]),
                1 => call(Operation::Or, [a, b]),
                _ => call(Operation::Not, [a]),
            };
        }
        let of = self.pick(&[K, C, M, N, D, X, X, Y, B, T, AT]);
        let of = if is_joined && self.chance(0.2) { self.pick(&[LABEL, WEIGHT]) } else { of };
        self.atom(of)
    }

    fn atom(&mut self, of: usize) -> Expression {
        let tested = column(of);
        let comparison = self.pick(&Comparison::ALL);
        match self.rng.random_range(0..8) {
            0 => call(self.pick(&[Operation::IsNull, Operation::IsNotNull]), [tested]),
            1 if tested.kind() == Kind::Bool => tested,
            2 if tested.kind() == Kind::Text => call(Operation::StartsWith, [tested, literal(Value::Text("a".into()))]),
            3 if tested.kind() != Kind::Bool => {
                call(Operation::In, [tested, self.literal_for(of), self.literal_for(of), self.literal_for(of)])
            }
            4 if tested.kind() != Kind::Bool => {
                call(Operation::Between, [tested, self.literal_for(of), self.literal_for(of)])
            }
            5 => call(Operation::IsDistinct, [tested, self.literal_for(of)]),
            6 if of == X => compare(comparison, tested, column(Y)),
            6 if of == M => compare(comparison, tested, column(C)),
            6 if of == T => compare(comparison, tested, column(AT)),
            _ => compare(comparison, tested, self.literal_for(of)),
        }
    }

    /// A constant that the column may well be equal to.
    fn literal_for(&mut self, of: usize) -> Expression {
        literal(match of {
            K | LABEL | NAME | ITEM => Value::Text(self.pick(&TEXTS).to_owned()),
            C | CODE => Value::Int(self.rng.random_range(-2..4)),
            N => Value::Int(self.pick(&[0, i64::MAX, 1 << 53, -77_000_000_000]).into()),
            D => Value::Decimal(self.pick(&[0, 1, 125_000, -7_500_000, 90_071_992_547_409_920_000]), D_SCALE),
            X => Value::Float(self.pick(&[0.0, 0.1, -7.25, 1e16, 12.5])),
            Y => Value::Float(self.pick(&[0.0, 1_000.5, -2_000.25])),
            B => Value::Bool(self.chance(0.5)),
            T | AT => Value::Time(BEGINNING + self.pick(&[0, -DAY, 3 * HOUR, 20 * DAY])),
            _ => Value::Int(self.rng.random_range(-500_000..500_000)),
        })
    }

    fn aggregate(&mut self, is_joined: bool) -> Aggregate {
        let mut aggregate = if self.chance(0.35) { self.kept(is_joined) } else { self.plain(is_joined) };
        aggregate.filter = self.chance(0.3).then(|| self.condition(is_joined, 1));
        aggregate
    }

    fn plain(&mut self, is_joined: bool) -> Aggregate {
        let (function, argument) = self.function(is_joined);
        let takes_distinct = matches!(
            function,
            Function::Count
                | Function::Sum
                | Function::Avg
                | Function::Min
                | Function::Max
                | Function::BitOr
                | Function::StddevPop
                | Function::VarSamp
        );
        let is_rounded = matches!(argument, Some(Expression::Column(N | D, _)));
        let distinct = takes_distinct && argument.is_some() && !is_rounded && self.chance(0.2);
        Aggregate { function, argument, second: None, distinct, order_by: vec![], filter: None }
    }

    fn function(&mut self, is_joined: bool) -> (Function, Option<Expression>) {
        use Function as F;
        let small = if is_joined { self.pick(&[C, M, WEIGHT]) } else { self.pick(&[C, M]) };
        match self.rng.random_range(0..17) {
            0 | 1 => (F::Count, None),
            2 => (F::Count, Some(column(self.pick(&[K, C, N, D, X, B, T, AT])))),
            3 | 4 => (F::Sum, Some(self.number(small))),
            5 => (F::Avg, Some(self.number(small))),
            6 | 7 => (self.pick(&[F::Min, F::Max]), Some(column(self.pick(&[K, C, M, N, D, X, Y, T, AT])))),
            8 => (self.pick(&[F::BoolAnd, F::BoolOr]), Some(self.truth())),
            9 | 10 => (self.pick(&[F::BitAnd, F::BitOr, F::BitXor]), Some(column(self.pick(&[C, M, N])))),
            11 | 12 => {
                let of = self.pick(&[small, X, Y, Y]);
                (self.pick(&[F::VarPop, F::VarSamp, F::StddevPop, F::StddevSamp]), Some(column(of)))
            }
            13 | 14 => (F::ApproxDistinct, Some(column(self.pick(&[K, C, M, N, D, X, B, T, AT])))),
            _ => {
                let share = self.pick(&[0.0, 0.1, 0.5, 0.75, 0.99, 1.0]);
                (F::Percentile(share), Some(column(self.pick(&[C, M, N, D, X, Y]))))
            }
        }
    }

    fn truth(&mut self) -> Expression {
        if self.chance(0.5) { column(B) } else { self.condition(false, 0) }
    }

    /// A number that can be summed: a column, or something computed of one.
    fn number(&mut self, small: usize) -> Expression {
        match self.rng.random_range(0..10) {
            0 => column(N),
            1 | 2 => column(D),
            3 => column(X),
            4 => column(Y),
            5 => {
                call(self.pick(&[Operation::Add, Operation::Subtract, Operation::Multiply]), [column(small), column(C)])
            }
            6 => call(Operation::Multiply, [column(Y), literal(Value::Float(2.5))]),
            7 => call(Operation::Coalesce, [column(small), int(-1)]),
            8 => call(Operation::Case, [self.condition(false, 1), column(small), int(0)]),
            _ => column(small),
        }
    }

    /// Output columns, `HAVING`, `ORDER BY`, `LIMIT`.
    fn finish(&mut self, view: &mut ViewModel) {
        let slots: Vec<Expression> = view
            .keys
            .iter()
            .map(Expression::kind)
            .chain(view.aggregates.iter().map(Aggregate::kind))
            .enumerate()
            .map(|(slot, kind)| Expression::Column(slot, kind))
            .collect();
        view.columns.clone_from(&slots);
        if view.sets.is_some() {
            view.columns.extend((0..view.keys.len()).map(|key| Expression::Column(slots.len() + key, Kind::Int)));
        }
        let is_exact =
            |slot: usize| slot < view.keys.len() || !view.aggregates[slot - view.keys.len()].function.is_approximate();
        let is_one = |kind: Kind| !matches!(kind, Kind::List(_) | Kind::Ranks(_));
        let exact = slots.iter().enumerate().filter(|(slot, column)| is_exact(*slot) && is_one(column.kind()));
        let exact: Vec<Expression> = exact.map(|(_, column)| column.clone()).collect();
        if view.is_distinct || view.is_of_rows {
            return;
        }
        if let Some(computed) = self.computed(&exact) {
            view.columns.push(computed);
        }
        view.having = if self.chance(0.25) { self.having(&exact) } else { None };
        if !view.keys.is_empty() && view.sets.is_none() && self.chance(0.2) {
            self.sort(view, &exact);
        }
    }

    /// An expression over keys and exact aggregates.
    fn computed(&mut self, exact: &[Expression]) -> Option<Expression> {
        let of = self.pick(exact.get(..).filter(|exact| !exact.is_empty())?);
        let none = |value: Value| call(Operation::Coalesce, [of.clone(), literal(value)]);
        Some(match of.kind() {
            Kind::Int if self.chance(0.3) => call(
                Operation::Case,
                [
                    compare(Comparison::Greater, of.clone(), int(2)),
                    literal(Value::Text("many".into())),
                    literal(Value::Text("few".into())),
                ],
            ),
            Kind::Int if self.chance(0.3) => call(Operation::Divide, [of.clone(), int(3)]),
            Kind::Int if self.chance(0.5) => call(Operation::NullIf, [of.clone(), int(1)]),
            Kind::Int => none(Value::Int(0)),
            Kind::Float => call(Operation::Multiply, [of.clone(), literal(Value::Float(0.5))]),
            Kind::Text => call(Operation::Concatenate, [of.clone(), literal(Value::Text("?".into()))]),
            Kind::Bool => call(Operation::Not, [of.clone()]),
            Kind::Time | Kind::Decimal(_) | Kind::List(_) | Kind::Ranks(_) => call(Operation::IsNull, [of.clone()]),
        })
    }

    fn having(&mut self, exact: &[Expression]) -> Option<Expression> {
        let of = self.pick(exact.get(..).filter(|exact| !exact.is_empty())?);
        let comparison = self.pick(&Comparison::ALL);
        Some(match of.kind() {
            Kind::Int => compare(comparison, of, int(self.rng.random_range(-1..5))),
            Kind::Float => compare(comparison, of, literal(Value::Float(0.0))),
            Kind::Text => compare(comparison, of, literal(Value::Text("a".into()))),
            Kind::Bool => of,
            Kind::Decimal(scale) => compare(comparison, of, literal(Value::Decimal(1, scale))),
            Kind::Time => compare(comparison, of, literal(Value::Time(BEGINNING))),
            Kind::List(_) | Kind::Ranks(_) => call(Operation::IsNotNull, [of]),
        })
    }

    /// By some exact column, then by all keys: a total order, so that `LIMIT` has one answer.
    fn sort(&mut self, view: &mut ViewModel, exact: &[Expression]) {
        let mut columns: Vec<usize> = vec![];
        if let Expression::Column(slot, _) = self.pick(exact) {
            columns.push(slot);
        }
        columns.extend(0..view.keys.len());
        for column in columns {
            view.sorts.push(Sort { column, descending: self.chance(0.5), nulls_first: self.chance(0.5) });
        }
        view.limit = self.chance(0.7).then(|| self.rng.random_range(0..8));
    }

    /// Rows of the static table: codes and names that occur twice, never, or not at all.
    pub(super) fn dimension(&mut self) -> Vec<Vec<Value>> {
        (0..self.rng.random_range(0..8_i128))
            .map(|number| {
                let nullable = |is_null: bool, value: Value| if is_null { Value::Null } else { value };
                vec![
                    nullable(self.chance(0.1), Value::Int(self.rng.random_range(-3..3))),
                    nullable(self.chance(0.1), Value::Text(self.pick(&["a", "ab", "b", "zzz"]).to_owned())),
                    nullable(self.chance(0.1), Value::Text(self.pick(&["one", "two", "drei \u{fc}"]).to_owned())),
                    nullable(self.chance(0.1), Value::Int(number * 10)),
                ]
            })
            .collect()
    }
}
