//! `covar_pop`, `covar_samp`, `corr` and the `regr_*` family: statistics of pairs `(y, x)`.
//!
//! From n and exact Σx, Σy, Σx², Σy², Σxy; a pair with a null is skipped, and each result is rounded
//! once. With `A = n·Σx² − (Σx)²`, `B = n·Σy² − (Σy)²` and `C = n·Σxy − Σx·Σy`, which are exact:
//!
//! ```text
//! regr_sxx A/n   regr_syy B/n   regr_sxy C/n   covar_pop C/n²   covar_samp C/n(n−1)
//! regr_slope C/A   regr_intercept (Σy·A − Σx·C)/nA   regr_r2 C²/AB   corr ±√(C²/AB)
//! ```
//!
//! Nulls, NaN and infinities as in PostgreSQL (`float8_regr_accum` and its final functions): a value that
//! is not finite makes the sums of squares that it is part of NaN.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use super::avg::merge_counts;
use super::exact::cells::{Squares, Sums};
use super::exact::scaled::Scaled;
use super::groups::{Groups, Rows, bytes_of, grow};
use super::sum::{exact_state, merge_exact, numeric};
use super::udaf::{Definition, Distinct, StateColumn, boxed};

/// The aggregates of this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Pairs {
    /// `covar_pop`.
    CovariancePopulation,
    /// `covar_samp`, `covar`.
    CovarianceSample,
    /// `corr`.
    Correlation,
    /// `regr_slope`.
    Slope,
    /// `regr_intercept`.
    Intercept,
    /// `regr_count`.
    Count,
    /// `regr_r2`.
    Determination,
    /// `regr_avgx`.
    AverageX,
    /// `regr_avgy`.
    AverageY,
    /// `regr_sxx`.
    SquaresX,
    /// `regr_syy`.
    SquaresY,
    /// `regr_sxy`.
    Products,
}

impl Pairs {
    /// All of them.
    pub(crate) const ALL: [Self; 12] = [
        Self::CovariancePopulation,
        Self::CovarianceSample,
        Self::Correlation,
        Self::Slope,
        Self::Intercept,
        Self::Count,
        Self::Determination,
        Self::AverageX,
        Self::AverageY,
        Self::SquaresX,
        Self::SquaresY,
        Self::Products,
    ];

    /// Which of Σx, Σy, Σx², Σy², Σxy it needs: only those are kept.
    fn needs(self) -> Needs {
        let [x, y, xx, yy, xy] = match self {
            Self::Count => [false; 5],
            Self::AverageX => [true, false, false, false, false],
            Self::AverageY => [false, true, false, false, false],
            Self::SquaresX => [true, false, true, false, false],
            Self::SquaresY => [false, true, false, true, false],
            Self::CovariancePopulation | Self::CovarianceSample | Self::Products => [true, true, false, false, true],
            Self::Slope | Self::Intercept => [true, true, true, false, true],
            Self::Correlation | Self::Determination => [true; 5],
        };
        Needs { x, y, xx, yy, xy }
    }
}

#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "five sums, each kept or not")]
struct Needs {
    x: bool,
    y: bool,
    xx: bool,
    yy: bool,
    xy: bool,
}

impl Definition for Pairs {
    fn name(&self) -> &str {
        match self {
            Self::CovariancePopulation => "covar_pop",
            Self::CovarianceSample => "covar_samp",
            Self::Correlation => "corr",
            Self::Slope => "regr_slope",
            Self::Intercept => "regr_intercept",
            Self::Count => "regr_count",
            Self::Determination => "regr_r2",
            Self::AverageX => "regr_avgx",
            Self::AverageY => "regr_avgy",
            Self::SquaresX => "regr_sxx",
            Self::SquaresY => "regr_syy",
            Self::Products => "regr_sxy",
        }
    }

    fn aliases(&self) -> &'static [&'static str] {
        if *self == Self::CovarianceSample { &["covar"] } else { &[] }
    }

    fn distinct(&self) -> Distinct {
        Distinct::Refused("distinct pairs are not supported; group by both columns and aggregate over the view")
    }

    fn coerce(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        if args.len() != 2 {
            return plan_err!("{} takes two arguments, found {}", self.name(), args.len());
        }
        for arg in args {
            numeric(self.name(), std::slice::from_ref(arg))?;
        }
        Ok(vec![DataType::Float64; 2])
    }

    fn return_type(&self, _args: &[DataType]) -> Result<DataType> {
        Ok(if *self == Self::Count { DataType::Int64 } else { DataType::Float64 })
    }

    fn state(&self, _args: &[DataType]) -> Result<Vec<StateColumn>> {
        let Needs { x, y, xx, yy, xy } = self.needs();
        let sums = [("sum_x", x), ("sum_y", y), ("squares_x", xx), ("squares_y", yy), ("products", xy)];
        let kept = sums.into_iter().filter(|(_, needed)| *needed);
        let mut columns = vec![("count", DataType::Int64, false)];
        columns.extend(kept.map(|(name, _)| (name, DataType::LargeBinary, true)));
        Ok(columns)
    }

    fn groups(&self, _call: &AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        boxed(PairSums::new(*self))
    }

    fn over_nothing(&self) -> Option<ScalarValue> {
        (*self == Self::Count).then_some(ScalarValue::Int64(Some(0)))
    }
}

/// The sums of each group; those that are not needed have no groups.
struct PairSums {
    kind: Pairs,
    needs: Needs,
    counts: Vec<i64>,
    x: Sums,
    y: Sums,
    xx: Squares,
    yy: Squares,
    xy: Squares,
}

impl PairSums {
    fn new(kind: Pairs) -> Self {
        Self {
            kind,
            needs: kind.needs(),
            counts: Vec::new(),
            x: Sums::default(),
            y: Sums::default(),
            xx: Squares::default(),
            yy: Squares::default(),
            xy: Squares::default(),
        }
    }

    fn value(&mut self, group: usize) -> Option<f64> {
        let count = self.counts[group].unsigned_abs();
        let least = if self.kind == Pairs::CovarianceSample { 2 } else { 1 };
        if count < least {
            return None;
        }
        let n = Scaled::count(count);
        match self.kind {
            Pairs::Count => None,
            Pairs::AverageX => Some(self.x.quotient(group, count)),
            Pairs::AverageY => Some(self.y.quotient(group, count)),
            Pairs::SquaresX => Some(over(self.spread_x(group, &n), &n)),
            Pairs::SquaresY => Some(over(self.spread_y(group, &n), &n)),
            Pairs::Products => Some(over(self.spread_both(group, &n), &n)),
            Pairs::CovariancePopulation => Some(over(self.spread_both(group, &n), &n.times(&n))),
            Pairs::CovarianceSample => Some(over(self.spread_both(group, &n), &n.times(&Scaled::count(count - 1)))),
            Pairs::Slope | Pairs::Intercept => self.line(group, &n),
            Pairs::Correlation | Pairs::Determination => self.strength(group, &n),
        }
    }

    /// `n·Σx² − (Σx)²`; None if it is not finite. Likewise the two below.
    fn spread_x(&mut self, group: usize, n: &Scaled) -> Option<Scaled> {
        let sum = Scaled::of(self.x.exact(group))?;
        Some(n.times(&Scaled::of(self.xx.exact(group))?).minus(&sum.times(&sum)))
    }

    fn spread_y(&mut self, group: usize, n: &Scaled) -> Option<Scaled> {
        let sum = Scaled::of(self.y.exact(group))?;
        Some(n.times(&Scaled::of(self.yy.exact(group))?).minus(&sum.times(&sum)))
    }

    /// `n·Σxy − Σx·Σy`
    fn spread_both(&mut self, group: usize, n: &Scaled) -> Option<Scaled> {
        let sums = Scaled::of(self.x.exact(group))?.times(&Scaled::of(self.y.exact(group))?);
        Some(n.times(&Scaled::of(self.xy.exact(group))?).minus(&sums))
    }

    /// Slope or intercept: NULL for a vertical line.
    fn line(&mut self, group: usize, n: &Scaled) -> Option<f64> {
        let Some(spread) = self.spread_x(group, n) else { return Some(f64::NAN) };
        if spread.is_zero() {
            return None;
        }
        let Some(both) = self.spread_both(group, n) else { return Some(f64::NAN) };
        if self.kind == Pairs::Slope {
            return Some(both.over(&spread));
        }
        let (Some(x), Some(y)) = (Scaled::of(self.x.exact(group)), Scaled::of(self.y.exact(group))) else {
            return Some(f64::NAN);
        };
        Some(y.times(&spread).minus(&x.times(&both)).over(&n.times(&spread)))
    }

    /// `corr` or `regr_r2`: what they say of a horizontal line differs.
    fn strength(&mut self, group: usize, n: &Scaled) -> Option<f64> {
        let (x, y) = (self.spread_x(group, n), self.spread_y(group, n));
        let is_zero = |spread: &Option<Scaled>| spread.as_ref().is_some_and(Scaled::is_zero);
        if is_zero(&x) {
            return None;
        }
        if is_zero(&y) {
            return (self.kind == Pairs::Determination).then_some(1.0);
        }
        let (Some(x), Some(y), Some(both)) = (x, y, self.spread_both(group, n)) else { return Some(f64::NAN) };
        let product = x.times(&y);
        Some(match self.kind {
            Pairs::Correlation => both.over_root(&product),
            _ => both.times(&both).over(&product),
        })
    }
}

fn over(spread: Option<Scaled>, divisor: &Scaled) -> f64 {
    spread.map_or(f64::NAN, |spread| spread.over(divisor))
}

impl Groups for PairSums {
    fn fresh(&self) -> Self {
        Self::new(self.kind)
    }

    fn resize(&mut self, groups: usize) {
        grow(&mut self.counts, groups);
        let Needs { x, y, xx, yy, xy } = self.needs;
        for (sums, needed) in [(&mut self.x, x), (&mut self.y, y)] {
            sums.resize(if needed { groups } else { 0 });
        }
        for (sums, needed) in [(&mut self.xx, xx), (&mut self.yy, yy), (&mut self.xy, xy)] {
            sums.resize(if needed { groups } else { 0 });
        }
    }

    fn update(&mut self, args: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        let (ys, xs) = (args[0].as_primitive::<Float64Type>(), args[1].as_primitive::<Float64Type>());
        let nulls = NullBuffer::union(ys.nulls(), xs.nulls());
        let (needs, xs, ys) = (self.needs, xs.values(), ys.values());
        // One sum after the other: each loop is small, and branches on nothing but its own sum.
        rows.each(nulls.as_ref(), |_, group| self.counts[group] += 1);
        if needs.x {
            rows.each(nulls.as_ref(), |row, group| self.x.add(group, xs[row]));
        }
        if needs.y {
            rows.each(nulls.as_ref(), |row, group| self.y.add(group, ys[row]));
        }
        if needs.xx {
            rows.each(nulls.as_ref(), |row, group| self.xx.add_square(group, xs[row]));
        }
        if needs.yy {
            rows.each(nulls.as_ref(), |row, group| self.yy.add_square(group, ys[row]));
        }
        if needs.xy {
            rows.each(nulls.as_ref(), |row, group| self.xy.add_product(group, xs[row], ys[row]));
        }
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        merge_counts(&mut self.counts, &states[0], rows);
        let mut states = states[1..].iter();
        let Needs { x, y, xx, yy, xy } = self.needs;
        for (sums, needed) in [(&mut self.x, x), (&mut self.y, y)] {
            if let Some(state) = states.by_ref().take(usize::from(needed)).next() {
                merge_exact(sums, state, rows)?;
            }
        }
        for (sums, needed) in [(&mut self.xx, xx), (&mut self.yy, yy), (&mut self.xy, xy)] {
            if let Some(state) = states.by_ref().take(usize::from(needed)).next() {
                merge_exact(sums, state, rows)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, emit: EmitTo) -> Self {
        let needs = self.needs;
        let mut taken = Self { counts: emit.take_needed(&mut self.counts), ..Self::new(self.kind) };
        for (own, other, needed) in [(&mut taken.x, &mut self.x, needs.x), (&mut taken.y, &mut self.y, needs.y)] {
            if needed {
                *own = other.take(emit);
            }
        }
        for (own, other, needed) in [
            (&mut taken.xx, &mut self.xx, needs.xx),
            (&mut taken.yy, &mut self.yy, needs.yy),
            (&mut taken.xy, &mut self.xy, needs.xy),
        ] {
            if needed {
                *own = other.take(emit);
            }
        }
        taken
    }

    fn into_state(mut self) -> Result<Vec<ArrayRef>> {
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(self.counts))];
        for (sums, needed) in [(&mut self.x, self.needs.x), (&mut self.y, self.needs.y)] {
            columns.extend(needed.then(|| exact_state(sums)));
        }
        for (sums, needed) in
            [(&mut self.xx, self.needs.xx), (&mut self.yy, self.needs.yy), (&mut self.xy, self.needs.xy)]
        {
            columns.extend(needed.then(|| exact_state(sums)));
        }
        Ok(columns)
    }

    fn into_values(mut self) -> Result<ArrayRef> {
        if self.kind == Pairs::Count {
            return Ok(Arc::new(Int64Array::from(self.counts)));
        }
        Ok(Arc::new((0..self.counts.len()).map(|group| self.value(group)).collect::<Float64Array>()))
    }

    fn heap_bytes(&self) -> usize {
        let sums = self.x.heap_bytes() + self.y.heap_bytes();
        bytes_of(&self.counts) + sums + self.xx.heap_bytes() + self.yy.heap_bytes() + self.xy.heap_bytes()
    }
}
