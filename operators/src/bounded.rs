//! Functions whose results are as long as an argument says. They allocate at once, where no memory pool of a
//! query sees it: those that make lists are not offered, those that make text are held to a length.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, exec_err};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// Makers of lists; their aliases (`list_repeat`, `list_resize`) go with them. `range` and `generate_series` in
/// `FROM` are other functions: they give their rows one batch at a time.
const NOT_OFFERED: [&str; 4] = ["range", "generate_series", "array_repeat", "array_resize"];
/// Makers of text.
const CAPPED: [&str; 3] = ["repeat", "lpad", "rpad"];
/// Repetitions, characters of one padded text, bytes of one repeated text.
const LENGTH_MAX: i64 = 1_000_000;
/// The same over the rows that are computed at once.
const LENGTHS_MAX: i64 = 128 << 20;

/// Takes the makers of lists out of a session and puts bounds around the makers of text.
///
/// # Errors
/// DataFusion's, should the session refuse the change.
pub(crate) fn bound(state: &mut SessionState) -> Result<()> {
    for name in NOT_OFFERED {
        state.deregister_udf(name)?;
    }
    for name in CAPPED {
        let inner = state.udf(name)?;
        state.register_udf(Arc::new(ScalarUDF::new_from_impl(Capped(inner))))?;
    }
    Ok(())
}

/// A function of a text and a length.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Capped(Arc<ScalarUDF>);

impl Capped {
    fn check(&self, args: &ScalarFunctionArgs) -> Result<()> {
        let [text, length, ..] = args.args.as_slice() else { return Ok(()) };
        let (texts, lengths) = (text.to_array(args.number_rows)?, length.to_array(args.number_rows)?);
        let lengths = cast(&lengths, &DataType::Int64)?;
        let sizes = if self.name() == "repeat" { Some(bytes(&texts)?) } else { None };
        let mut all = 0_i64;
        for (row, length) in lengths.as_primitive::<Int64Type>().iter().enumerate() {
            let length = length.unwrap_or(0).max(0);
            let size = sizes.as_ref().map_or(1, |sizes| sizes.as_primitive::<Int64Type>().value(row));
            let result = length.saturating_mul(size);
            if length.max(result) > LENGTH_MAX {
                return exec_err!("{}: a length of {} is more than {LENGTH_MAX}", self.name(), length.max(result));
            }
            all = all.saturating_add(result);
        }
        if all > LENGTHS_MAX {
            return exec_err!("{}: {all} characters at once are more than {LENGTHS_MAX}", self.name());
        }
        Ok(())
    }
}

fn bytes(texts: &ArrayRef) -> Result<ArrayRef> {
    let texts = if texts.data_type() == &DataType::Null { &cast(texts, &DataType::Utf8)? } else { texts };
    let texts = cast(texts, &DataType::LargeUtf8)?;
    Ok(cast(&arrow::compute::kernels::length::length(&texts)?, &DataType::Int64)?)
}

impl ScalarUDFImpl for Capped {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.0.inner().return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<arrow::datatypes::FieldRef> {
        self.0.inner().return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.0.coerce_types(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.check(&args)?;
        self.0.invoke_with_args(args)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.documentation()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::runtime_env::RuntimeEnv;
    use datafusion::prelude::{SessionConfig, SessionContext};
    use rstest::rstest;
    use schemas::Code;
    use schemas::problem::SqlPosition;

    use crate::session;

    type Maker = fn(SessionConfig, std::sync::Arc<RuntimeEnv>) -> datafusion::execution::SessionState;

    fn run(make: Maker, sql: &str) -> Result<String, Code> {
        let context = SessionContext::new_with_state(make(
            session::config().with_target_partitions(1),
            std::sync::Arc::default(),
        ));
        let run = async { context.sql(sql).await?.collect().await };
        let rows = futures::executor::block_on(run)
            .map_err(|e| crate::error::problem(&e, sql, SqlPosition { line: 1, column: 1 }).code)?;
        let value = arrow::util::display::array_value_to_string(rows[0].column(0), 0);
        Ok(value.expect("readable"))
    }

    #[rstest]
    fn text_is_no_longer_than_its_bound(
        #[values(session::state, session::query_state)] make: Maker,
        #[values("repeat", "lpad", "rpad")] function: &str,
    ) {
        let of = |length: &str| format!("SELECT octet_length({function}('x', {length}))");
        assert_eq!(run(make, &of("3")), Ok("3".into()));
        assert_eq!(run(make, &of("1000000")), Ok("1000000".into()));
        assert_eq!(run(make, &of("1000001")), Err(Code::ComputationFailed));
        let column = format!("SELECT max(octet_length({function}('x', v))) FROM (VALUES (1), (2000000)) AS t (v)");
        assert_eq!(run(make, &column), Err(Code::ComputationFailed));
        let many =
            format!("SELECT max(octet_length({function}('x', v - v + 900000))) FROM generate_series(1, 1000) AS t (v)");
        assert_eq!(run(make, &many), Err(Code::ComputationFailed));
    }

    #[test]
    fn repeating_a_long_text_is_bounded_too() {
        let twice = "SELECT octet_length(repeat(repeat('x', 1000000), 2))";
        assert_eq!(run(session::query_state, twice), Err(Code::ComputationFailed));
        assert_eq!(run(session::query_state, "SELECT repeat(NULL, 2) IS NULL"), Ok("true".into()));
        assert_eq!(run(session::query_state, "SELECT lpad('ab', 5, 'xy')"), Ok("xyxab".into()));
    }

    #[rstest]
    fn makers_of_lists_are_not_there(
        #[values(session::state, session::query_state)] make: Maker,
        #[values(
            "range(5)",
            "generate_series(1, 5)",
            "array_repeat(1, 5)",
            "list_repeat(1, 5)",
            "array_resize([1], 5)",
            "list_resize([1], 5)"
        )]
        call: &str,
    ) {
        assert_eq!(run(make, &format!("SELECT {call}")), Err(Code::NotFound));
    }

    #[test]
    fn series_as_a_table_is_made_as_it_is_read() {
        let sql = "SELECT value FROM generate_series(1, 9000000000000000000) LIMIT 1";
        assert_eq!(run(session::query_state, sql), Ok("1".into()));
    }
}
