//! `date_trunc` and `date_bin` over all points in time that a TIMESTAMPTZ can be.
//!
//! DataFusion computes both in nanoseconds, and 64 bits of those end in 1677 and in 2262. For an event from
//! beyond, its `date_trunc` is an error that no fold gets past, and its `date_bin` is null: a wrong group.
//! Here, times in microseconds stay microseconds; every other type goes to DataFusion's function.
//!
//! `date_trunc(unit, time, zone)` is PostgreSQL's: by the clock of a time zone ([`crate::windows`]).

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit, TimestampMicrosecondType};
use chrono_tz::Tz;
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use schemas::column::timestamp_type;

use crate::windows::{Calendar, Unit, of_the_clock, zone};

const DAY_US: i64 = 86_400_000_000;

/// Puts both functions into a session that has DataFusion's.
///
/// # Errors
/// DataFusion's, should the session lack them or refuse the change.
pub fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    for name in ["date_trunc", "date_bin"] {
        let inner = registry.udf(name)?;
        registry.register_udf(Arc::new(ScalarUDF::new_from_impl(Bucket::around(inner))))?;
    }
    Ok(())
}

/// One of the two, around DataFusion's.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bucket {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl Bucket {
    fn around(inner: Arc<ScalarUDF>) -> Self {
        Self { inner, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Bucket {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// With an origin, DataFusion's `date_bin` would make nanoseconds of the time; its `date_trunc` knows no zone.
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if let ("date_trunc", [unit, _, zone]) = (self.name(), types)
            && unit.is_string()
            && zone.is_string()
        {
            return Ok(vec![unit.clone(), timestamp_type(), zone.clone()]);
        }
        if let [DataType::Interval(_), time @ DataType::Timestamp(TimeUnit::Microsecond, zone), origin @ ..] = types
            && origin.len() < 2
        {
            let width = DataType::Interval(IntervalUnit::MonthDayNano);
            let origin = origin.iter().map(|_| DataType::Timestamp(TimeUnit::Nanosecond, zone.clone()));
            return Ok([width, time.clone()].into_iter().chain(origin).collect());
        }
        let field = |data_type: &DataType| -> FieldRef { Arc::new(Field::new("argument", data_type.clone(), true)) };
        let fields: Vec<FieldRef> = types.iter().map(field).collect();
        Ok(fields_with_udf(&fields, self.inner.as_ref())?.iter().map(|field| field.data_type().clone()).collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.inner().return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        if self.name() == "date_bin"
            && let Some(Some(ScalarValue::IntervalMonthDayNano(Some(width)))) = args.scalar_arguments.first()
            && width.months != 0
        {
            return plan_err!("date_bin: months and years have no fixed length; write date_trunc('month', …)");
        }
        if let ("date_trunc", [unit, _, zone]) = (self.name(), args.scalar_arguments) {
            in_zone(
                unit.and_then(ScalarValue::try_as_str).flatten(),
                zone.and_then(ScalarValue::try_as_str).flatten(),
            )?;
        }
        self.inner.inner().return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let Some((time, bucket)) = of_microseconds(self.name(), &args.args) else {
            return self.inner.invoke_with_args(args);
        };
        let DataType::Timestamp(_, zone) = time.data_type() else { return self.inner.invoke_with_args(args) };
        let times = time.to_array(rows)?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let buckets: TimestampMicrosecondArray = match bucket {
            Buckets::Days(calendar) => {
                let mut buckets = calendar.buckets();
                times.iter().map(|time| time.map(|time_us| buckets(time_us).0)).collect()
            }
            _ => times.unary(|time_us| bucket.start(time_us)),
        };
        let buckets: ArrayRef = Arc::new(buckets.with_timezone_opt(zone));
        match time {
            ColumnarValue::Array(_) => Ok(ColumnarValue::Array(buckets)),
            ColumnarValue::Scalar(_) => ScalarValue::try_from_array(&buckets, 0).map(ColumnarValue::Scalar),
        }
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.inner().output_ordering(inputs)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

/// The time and its buckets, for a call that is ours.
fn of_microseconds<'a>(name: &str, arguments: &'a [ColumnarValue]) -> Option<(&'a ColumnarValue, Buckets)> {
    let (first, time) = (arguments.first()?, arguments.get(1)?);
    let DataType::Timestamp(TimeUnit::Microsecond, zone) = time.data_type() else { return None };
    if zone.is_some_and(|zone| !matches!(&*zone, "UTC" | "+00:00")) {
        return None;
    }
    let ColumnarValue::Scalar(first) = first else { return None };
    if let ("date_trunc", Some(ColumnarValue::Scalar(zone))) = (name, arguments.get(2)) {
        return Some((time, in_zone(first.try_as_str().flatten(), zone.try_as_str().flatten()).ok()?));
    }
    let buckets = if name == "date_bin" { bins(first, arguments.get(2))? } else { units(first)? };
    Some((time, buckets))
}

/// How time is divided.
#[derive(Debug, Clone, Copy)]
enum Buckets {
    /// Of one width, from an origin on: microseconds.
    Even { width_us: i64, origin_us: i64 },
    /// So many months, from a January on.
    Months(i64),
    /// Of days or months, by the clock of a zone.
    Days(Calendar),
    /// Of one width, by the clock of a zone.
    Clock { width_us: i64, zone: Tz },
}

/// The buckets of a unit by the clock of a zone; both must be constants.
fn in_zone(unit: Option<&str>, name: Option<&str>) -> Result<Buckets> {
    let (Some(unit), Some(name)) = (unit, name) else {
        return plan_err!("date_trunc: unit and time zone must be constants");
    };
    let Some(zone) = zone(name) else {
        return plan_err!("date_trunc: there is no time zone {name:?}; names are such as 'Europe/Berlin'");
    };
    let days = |count, origin| Ok(Buckets::Days(Calendar::new(Unit::Days { count, origin }, zone)));
    let months = |count| Ok(Buckets::Days(Calendar::new(Unit::Months(count), zone)));
    let clock = |width_us| Ok(Buckets::Clock { width_us, zone });
    match unit.to_lowercase().as_str() {
        "microsecond" => clock(1),
        "millisecond" => clock(1_000),
        "second" => clock(1_000_000),
        "minute" => clock(60_000_000),
        "hour" => clock(3_600_000_000),
        "day" => days(1, 0),
        // 1969-12-29 was a Monday
        "week" => days(7, -3),
        "month" => months(1),
        "quarter" => months(3),
        "year" => months(12),
        other => plan_err!("date_trunc: there is no unit {other:?}"),
    }
}

fn units(unit: &ScalarValue) -> Option<Buckets> {
    let even = |width_us, origin_us| Some(Buckets::Even { width_us, origin_us });
    match unit.try_as_str()??.to_lowercase().as_str() {
        "microsecond" => even(1, 0),
        "millisecond" => even(1_000, 0),
        "second" => even(1_000_000, 0),
        "minute" => even(60_000_000, 0),
        "hour" => even(3_600_000_000, 0),
        "day" => even(DAY_US, 0),
        // 1969-12-29 was a Monday
        "week" => even(7 * DAY_US, -3 * DAY_US),
        "month" => Some(Buckets::Months(1)),
        "quarter" => Some(Buckets::Months(3)),
        "year" => Some(Buckets::Months(12)),
        _ => None,
    }
}

/// None for what `date_bin` refuses: DataFusion's says it.
fn bins(width: &ScalarValue, origin: Option<&ColumnarValue>) -> Option<Buckets> {
    let ScalarValue::IntervalMonthDayNano(Some(width)) = width else { return None };
    let origin_us = match origin {
        None => 0,
        Some(ColumnarValue::Scalar(ScalarValue::TimestampNanosecond(Some(origin_ns), _))) => {
            origin_ns.div_euclid(1_000)
        }
        Some(_) => return None,
    };
    let width_us = i64::from(width.days).checked_mul(DAY_US)?.checked_add(width.nanoseconds / 1_000)?;
    let is_whole = width.months == 0 && width.nanoseconds % 1_000 == 0;
    (is_whole && width_us > 0).then_some(Buckets::Even { width_us, origin_us })
}

impl Buckets {
    /// Where the bucket of a time begins.
    fn start(self, time_us: i64) -> i64 {
        match self {
            Self::Even { width_us, origin_us } => {
                time_us.saturating_sub(time_us.saturating_sub(origin_us).rem_euclid(width_us))
            }
            Self::Months(count) => {
                let (year, month) = month_of(time_us.div_euclid(DAY_US));
                first_day(year, (month - 1) / count * count + 1).saturating_mul(DAY_US)
            }
            Self::Days(calendar) => calendar.bucket(time_us).0,
            Self::Clock { width_us, zone } => of_the_clock(zone, width_us, time_us),
        }
    }
}

/// Year and month of a day since 1970-01-01. Howard Hinnant, "chrono-compatible low-level date algorithms",
/// `civil_from_days`.
pub(crate) fn month_of(day: i64) -> (i64, i64) {
    let shifted = day + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month)
}

/// The day since 1970-01-01 that a month begins with: `days_from_civil` of the same work.
pub(crate) fn first_day(year: i64, month: i64) -> i64 {
    let shifted = year - i64::from(month <= 2);
    let (era, year_of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::prelude::SessionContext;
    use rstest::rstest;

    use crate::session;

    fn text(sql: &str) -> String {
        let context = SessionContext::new_with_state(session::query_state(session::config(), Arc::default()));
        let rows = futures::executor::block_on(async { context.sql(sql).await?.collect().await });
        rows.map_or_else(
            |e| e.to_string(),
            |rows| arrow::util::display::array_value_to_string(rows[0].column(0), 0).unwrap(),
        )
    }

    #[rstest]
    #[case("date_trunc('second', t)", "9999-12-31T23:59:59Z")]
    #[case("date_trunc('hour', t)", "9999-12-31T23:00:00Z")]
    #[case("date_trunc('day', t)", "9999-12-31T00:00:00Z")]
    #[case("date_trunc('week', t)", "9999-12-27T00:00:00Z")]
    #[case("date_trunc('month', t)", "9999-12-01T00:00:00Z")]
    #[case("date_trunc('quarter', t)", "9999-10-01T00:00:00Z")]
    #[case("date_trunc('YEAR', t)", "9999-01-01T00:00:00Z")]
    #[case("date_bin(INTERVAL '15 minutes', t)", "9999-12-31T23:45:00Z")]
    #[case("date_bin(INTERVAL '1 day', t, TIMESTAMPTZ '2001-01-01T06:00:00Z')", "9999-12-31T06:00:00Z")]
    fn times_beyond_the_nanoseconds_have_their_buckets(#[case] call: &str, #[case] wanted: &str) {
        for column in [false, true] {
            let time = "arrow_cast(253402300799123456, 'Timestamp(Microsecond, Some(\"UTC\"))')";
            let sql = if column {
                format!("SELECT {call} FROM (VALUES ({time}), (NULL)) AS v (t) ORDER BY 1 NULLS LAST")
            } else {
                format!(
                    "SELECT {}",
                    call.replacen("t)", &format!("{time})"), 1).replacen(", t,", &format!(", {time},"), 1)
                )
            };
            assert_eq!(text(&sql), wanted, "{sql}");
        }
    }

    /// PostgreSQL's third argument: by the clock of a zone.
    #[rstest]
    #[case("date_trunc('day', t, 'Europe/Berlin')", "2024-03-30T23:00:00Z")]
    #[case("date_trunc('week', t, 'Europe/Berlin')", "2024-03-24T23:00:00Z")]
    #[case("date_trunc('month', t, 'America/New_York')", "2024-03-01T05:00:00Z")]
    #[case("date_trunc('hour', t, 'Asia/Kolkata')", "2024-03-31T00:30:00Z")]
    #[case("date_trunc('day', t, 'Atlantis')", "there is no time zone")]
    fn buckets_follow_a_zones_clock(#[case] call: &str, #[case] wanted: &str) {
        let found = text(&format!("SELECT {call} FROM (VALUES (TIMESTAMPTZ '2024-03-31T01:20:00Z')) AS v (t)"));
        assert!(found.contains(wanted), "{call}: {found}");
    }

    #[test]
    fn buckets_of_months_are_refused() {
        let sql = "SELECT date_bin(INTERVAL '1 month', arrow_cast(0, 'Timestamp(Microsecond, None)'))";
        assert!(text(sql).contains("write date_trunc('month'"), "{}", text(sql));
    }
}
