//! The scalar functions that windows are made of.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Int64Array, ListBuilder, TimestampMicrosecondArray, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Int64Type, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use schemas::column::timestamp_type;

use super::spec::{ALL_WINDOWS, WindowSpec, floor};

/// Start of the window that a time lies in: arguments time, length in microseconds.
pub const WINDOW_START_FUNCTION: &str = "bifold_window_start";
/// End of it.
pub const WINDOW_END_FUNCTION: &str = "bifold_window_end";

/// A time, earlier by a number of microseconds: arguments time, microseconds.
const BEFORE_FUNCTION: &str = "bifold_before";

/// The scalar functions of `TUMBLE`.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    [Bound::Start, Bound::End, Bound::Before].map(tumble_function).into()
}

/// A point in time, `delay_us` earlier: integers, where DataFusion's intervals go through the calendar.
pub(crate) fn before(time: Expr, delay_us: i64) -> Expr {
    tumble_function(Bound::Before).call(vec![time, lit(delay_us)])
}

/// What is computed of a time and a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Bound {
    Start,
    End,
    Before,
}

pub(super) fn tumble_function(bound: Bound) -> Arc<ScalarUDF> {
    let signature = Signature::exact(vec![timestamp_type(), DataType::Int64], Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(WindowBound { bound, signature }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowBound {
    bound: Bound,
    signature: Signature,
}

impl ScalarUDFImpl for WindowBound {
    fn name(&self) -> &'static str {
        match self.bound {
            Bound::Start => WINDOW_START_FUNCTION,
            Bound::End => WINDOW_END_FUNCTION,
            Bound::Before => BEFORE_FUNCTION,
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(timestamp_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [times, ColumnarValue::Scalar(ScalarValue::Int64(Some(length_us)))] = args.args.as_slice() else {
            return exec_err!("{}: the length of a window must be a constant", self.name());
        };
        let length_us = *length_us;
        let times = times.to_array(args.number_rows)?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let start = |time: i64| time.wrapping_sub(time.rem_euclid(length_us));
        let bounds: TimestampMicrosecondArray = match self.bound {
            Bound::Start => times.unary(start),
            Bound::End => times.unary(|time| start(time).wrapping_add(length_us)),
            Bound::Before => times.unary(|time: i64| time.saturating_sub(length_us)),
        };
        Ok(ColumnarValue::Array(in_utc(bounds)))
    }
}

fn in_utc(times: TimestampMicrosecondArray) -> ArrayRef {
    Arc::new(times.with_timezone("UTC"))
}

/// What a [`WindowFunction`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// Of a record's time: the column `window_start`. Where windows share records, what it is stored under.
    Start,
    /// Of a record's time: the column `window_end`. Where windows share records, what it is stored under.
    End,
    /// Of a record's time: when the last of its windows has ended.
    EndOfLast,
    /// Of a record's time: the bounds of all windows that it lies in, a list.
    All,
    /// Of the bound that tells a window apart: its start.
    StartOfBound,
    /// Of the bound that tells a window apart: its end.
    EndOfBound,
    /// Of the bound that tells a window apart: the watermark at which nothing that is in time lies in it any more.
    FinalFrom,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::End => "end",
            Self::EndOfLast => "end_of_last",
            Self::All => "all",
            Self::StartOfBound => "start_of_bound",
            Self::EndOfBound => "end_of_bound",
            Self::FinalFrom => "final_from",
        }
    }
}

/// A function of a time and of one kind of windows. Its name says all that it depends on.
///
/// More arguments than the time are the columns that a session is one value of: they are not computed
/// with, but the view's compiler reads them.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct WindowFunction {
    pub(crate) spec: WindowSpec,
    pub(crate) part: Part,
    name: String,
    signature: Signature,
}

/// A call of a window function.
pub(crate) fn window_call(spec: &WindowSpec, part: Part, arguments: Vec<Expr>) -> Expr {
    let signature = match arguments.len() {
        1 => Signature::exact(vec![bound_type(spec)], Volatility::Immutable),
        count => Signature::any(count, Volatility::Immutable),
    };
    let name = format!("bifold_{}_{}", spec.name(), part.name());
    let function = ScalarUDF::new_from_impl(WindowFunction { spec: spec.clone(), part, name, signature });
    Arc::new(function).call(arguments)
}

impl ScalarUDFImpl for WindowFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.part {
            Part::All => DataType::List(Arc::new(bound_field())),
            _ => bound_type(&self.spec),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(times) = args.args.first() else { return exec_err!("{}: no time", self.name) };
        let times = times.to_array(args.number_rows)?;
        if let Some(positions) = times.as_primitive_opt::<Int64Type>() {
            let bounds: Int64Array = positions.unary(|position| self.bound_of_position(position));
            return Ok(ColumnarValue::Array(Arc::new(bounds)));
        }
        let times = times.as_primitive::<TimestampMicrosecondType>();
        if self.part == Part::All {
            return Ok(ColumnarValue::Array(self.all(times)));
        }
        Ok(ColumnarValue::Array(in_utc(self.bounds(times))))
    }
}

/// What bounds of windows are: times, or offsets in the log.
fn bound_type(spec: &WindowSpec) -> DataType {
    if spec.is_counted() { DataType::Int64 } else { timestamp_type() }
}

fn bound_field() -> Field {
    Field::new("item", timestamp_type(), true)
}

impl WindowFunction {
    /// Of windows over positions.
    fn bound_of_position(&self, position: i64) -> i64 {
        let spec = &self.spec;
        match self.part {
            Part::End if !spec.is_shared() => spec.end_of_only(position),
            Part::Start | Part::End => spec.stored_under(position),
            Part::EndOfLast => spec.end_of_last(position),
            Part::StartOfBound => spec.start_of(position),
            Part::EndOfBound | Part::FinalFrom | Part::All => spec.end_of(position),
        }
    }

    fn bounds(&self, times: &TimestampMicrosecondArray) -> TimestampMicrosecondArray {
        let spec = &self.spec;
        match (self.part, spec) {
            (Part::Start, WindowSpec::Calendar(calendar)) => {
                let mut buckets = calendar.buckets();
                each(times, |time| buckets(time).0)
            }
            (Part::End | Part::EndOfLast, WindowSpec::Calendar(calendar)) => {
                let mut buckets = calendar.buckets();
                each(times, |time| buckets(time).1)
            }
            (Part::End, _) if !spec.is_shared() => times.unary(|time| spec.end_of_only(time)),
            (Part::Start | Part::End, _) => match spec.grid() {
                Some((width_us, offset_us)) => times.unary(|time| floor(time, width_us, offset_us)),
                None => times.unary(|time| spec.stored_under(time)),
            },
            (Part::EndOfLast, _) => times.unary(|time| spec.end_of_last(time)),
            (Part::FinalFrom, _) => times.unary(|bound| spec.final_from(bound)),
            (Part::StartOfBound, _) => times.unary(|bound| spec.start_of(bound)),
            (Part::EndOfBound | Part::All, _) => times.unary(|bound| spec.end_of(bound)),
        }
    }

    /// A record without a time lies in one window, which has no bounds.
    fn all(&self, times: &TimestampMicrosecondArray) -> ArrayRef {
        let bounds = TimestampMicrosecondBuilder::new().with_timezone("UTC");
        let mut lists = ListBuilder::new(bounds).with_field(bound_field());
        for time in times {
            match time {
                Some(time) => {
                    for bound in self.spec.windows_of(self.spec.stored_under(time), &ALL_WINDOWS) {
                        lists.values().append_value(bound);
                    }
                }
                None => lists.values().append_null(),
            }
            lists.append(true);
        }
        Arc::new(lists.finish())
    }
}

/// [`TimestampMicrosecondArray::unary`] with a function that remembers something.
fn each(times: &TimestampMicrosecondArray, mut f: impl FnMut(i64) -> i64) -> TimestampMicrosecondArray {
    times.iter().map(|time| time.map(&mut f)).collect()
}
