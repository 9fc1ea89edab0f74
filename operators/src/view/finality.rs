//! Is the window of a cell closed for everything that comes in time?
//!
//! ```text
//!  TUMBLE            the watermark has reached the window's end
//!  HOP, CUMULATE     the watermark has reached the end of the last window of the window's last instant
//!  SESSION           watermark > last event + 2 gaps: what joins it is at most a gap after its last event, and late when
//!                    the watermark is more than a gap after itself
//! ```

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use schemas::Problem;

use super::windowed::behind;
use crate::view::View;
use crate::windows::{Part, WINDOW_END_FUNCTION, WINDOW_START_FUNCTION, WindowFunction, WindowSpec, Windows};

/// How a cell's key says when its window is final: which key, and from when on.
struct Finality<'a> {
    key: usize,
    from: Box<dyn Fn(i64) -> i64 + 'a>,
}

impl View {
    /// True if the view has windows, so that its rows become final.
    pub fn has_final_windows(&self) -> bool {
        self.finality().is_some()
    }

    /// Of each answered cell (or of its key columns alone), whether its window is final at this watermark: the smallest of
    /// all partitions. None for a view without windows.
    ///
    /// # Errors
    /// None yet: the keys are the view's.
    pub fn final_windows(
        &self,
        answered: &RecordBatch,
        watermark_us: Option<i64>,
    ) -> Result<Option<BooleanArray>, Problem> {
        let Some(finality) = self.finality() else { return Ok(None) };
        let times = answered.column(finality.key).as_primitive::<TimestampMicrosecondType>();
        let is_final = |row: usize| {
            let watermark_us = watermark_us?;
            // a window without a time is never closed
            times.is_valid(row).then(|| watermark_us >= (finality.from)(times.value(row)))
        };
        Ok(Some((0..times.len()).map(|row| Some(is_final(row).unwrap_or(false))).collect()))
    }

    fn finality(&self) -> Option<Finality<'_>> {
        match &self.cells.windows {
            Some(Windows::Panes { key, spec }) => {
                let from = |bound: i64| spec.end_of_last(spec.end_of(bound).saturating_sub(1));
                Some(Finality { key: *key, from: Box::new(from) })
            }
            Some(Windows::Sessions { gap_us }) => {
                let from = |last: i64| last.saturating_add(gap_us.saturating_mul(2)).saturating_add(1);
                Some(Finality { key: self.cells.keys - 1, from: Box::new(from) })
            }
            None => (0..self.cells.keys).find_map(|key| self.of_tumbling(key)),
        }
    }

    /// A key that is a bound of windows that share nothing.
    fn of_tumbling(&self, key: usize) -> Option<Finality<'_>> {
        let (expression, _) = self.cells.group_by.expr().get(key)?;
        let column = expression.downcast_ref::<PhysicalColumn>()?.index();
        let column = self.program.schema().columns().into_iter().nth(column)?;
        let (origin, _) = behind(&self.program, &column)?;
        let Expr::ScalarFunction(ScalarFunction { func, args }) = origin else { return None };
        let from: Box<dyn Fn(i64) -> i64> = match (func.name(), args.get(1)) {
            (WINDOW_START_FUNCTION, Some(Expr::Literal(ScalarValue::Int64(Some(size_us)), _))) => {
                let size_us = *size_us;
                Box::new(move |start| start.saturating_add(size_us))
            }
            (WINDOW_END_FUNCTION, _) => Box::new(|end| end),
            _ => {
                let function = func.inner().downcast_ref::<WindowFunction>()?;
                let spec: WindowSpec = function.spec.clone();
                match function.part {
                    Part::Start => Box::new(move |start| spec.end_of_only(start)),
                    Part::End => Box::new(|end| end),
                    _ => return None,
                }
            }
        };
        Some(Finality { key, from })
    }
}
