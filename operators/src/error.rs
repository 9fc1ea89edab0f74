//! DataFusion's errors as a user should see them: a code, the place in the SQL, "did you mean".

use datafusion::common::{DataFusionError, SchemaError};
use schemas::problem::{SqlPosition, did_you_mean};
use schemas::{Code, Problem, statement};

/// Turns an error of planning or running `sql` into a problem.
///
/// `origin` is where `sql` begins in the text that the user sent (`whole`).
pub fn problem(error: &DataFusionError, whole: &str, origin: SqlPosition) -> Problem {
    let root = error.find_root();
    let (problem, place) = as_written_elsewhere(root, whole).unwrap_or_else(|| {
        let (code, message, hint) = describe(root);
        (Problem { hint, ..Problem::new(code, message) }, None)
    });
    let place = place.or_else(|| position_of(error, root)).or_else(|| named_first(root, &problem.detail, whole));
    match place {
        Some(at) => problem.at(whole, moved(at, origin)),
        None => problem,
    }
}

/// A refusal at the first of these constructs that stands in a text, which itself begins at `origin`.
pub(crate) fn at_construct(problem: Problem, constructs: &[String], text: &str, origin: SqlPosition) -> Problem {
    match constructs.iter().find_map(|construct| statement::place_of(text, construct)) {
        Some(at) => problem.at(text, moved(at, origin)),
        None => problem,
    }
}

/// What planning could not understand because another system writes it so.
fn as_written_elsewhere(root: &DataFusionError, sql: &str) -> Option<(Problem, Option<SqlPosition>)> {
    let construct = || statement::foreign(sql).map(|(problem, place)| (problem, Some(place)));
    match root {
        DataFusionError::Plan(message) => {
            let name = message.strip_prefix("Invalid function '")?.split('\'').next()?;
            construct().or_else(|| statement::foreign_function(name).map(|problem| (problem, None)))
        }
        DataFusionError::NotImplemented(_) | DataFusionError::SQL(..) => construct(),
        _ => None,
    }
}

/// The place of what a message of planning names first, by the house's rule: `HOP: the slide is …`.
fn named_first(root: &DataFusionError, message: &str, sql: &str) -> Option<SqlPosition> {
    use DataFusionError::{External, NotImplemented, Plan};
    if !matches!(root, Plan(_) | NotImplemented(_) | External(_)) {
        return None;
    }
    let end = message.find([':', '('])?;
    let named = message[..end].trim();
    let is_name = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !named.split(' ').all(is_name) {
        return None;
    }
    // a call rather than a column of the same name
    statement::place_of(sql, &format!("{named} (")).or_else(|| statement::place_of(sql, named))
}

/// A position inside a text that itself begins at `origin`.
pub fn moved(at: SqlPosition, origin: SqlPosition) -> SqlPosition {
    let column = if at.line == 1 { at.column + origin.column - 1 } else { at.column };
    SqlPosition { line: at.line + origin.line - 1, column }
}

fn describe(root: &DataFusionError) -> (Code, String, Option<String>) {
    match root {
        DataFusionError::SQL(error, _) => (Code::SyntaxError, without_position(&error.to_string()), None),
        DataFusionError::SchemaError(error, _) => describe_schema(error),
        DataFusionError::Plan(message) => describe_plan(message),
        DataFusionError::NotImplemented(message) => (Code::Unsupported, message.clone(), None),
        DataFusionError::ResourcesExhausted(message) => (Code::MemoryLimit, first_line(message), None),
        DataFusionError::Execution(message) | DataFusionError::Configuration(message) => {
            (Code::ComputationFailed, first_line(message), None)
        }
        DataFusionError::ArrowError(error, _) => (Code::ComputationFailed, error.to_string(), None),
        DataFusionError::External(error) => match error.downcast_ref::<Problem>() {
            Some(problem) => (problem.code, problem.detail.clone(), problem.hint.clone()),
            // a pattern may come from the rows
            None if error.to_string().starts_with("regex parse error") => {
                (Code::ComputationFailed, error.to_string(), None)
            }
            None => (Code::Internal, error.to_string(), None),
        },
        DataFusionError::ObjectStore(error) => (Code::StorageUnavailable, error.to_string(), None),
        other => (Code::Internal, first_line(&other.strip_backtrace()), None),
    }
}

fn describe_plan(message: &str) -> (Code, String, Option<String>) {
    if let Some(rest) = message.strip_prefix("table '") {
        let name = rest.split('\'').next().unwrap_or(rest);
        let name = name.strip_prefix("bifold.").unwrap_or(name);
        let name = name.strip_prefix("public.").unwrap_or(name);
        return (Code::NotFound, format!("there is no stream, view or table {name}"), None);
    }
    if let Some(rest) = message.strip_prefix("Invalid function '") {
        let (name, rest) = rest.split_once('\'').unwrap_or((rest, ""));
        let guess = rest.split('\'').nth(1).and_then(|guess| did_you_mean(name, [guess]));
        let hint = guess.map(|guess| format!("did you mean {guess}?"));
        return (Code::NotFound, format!("there is no function {name}"), hint);
    }
    (Code::InvalidSql, first_line(message), None)
}

fn describe_schema(error: &SchemaError) -> (Code, String, Option<String>) {
    let SchemaError::FieldNotFound { field, valid_fields } = error else {
        return (Code::InvalidSql, error.to_string(), None);
    };
    let names: Vec<&str> =
        valid_fields.iter().map(datafusion::common::Column::name).filter(|n| !n.starts_with('_')).collect();
    let hint = match did_you_mean(field.name(), names.iter().copied()) {
        Some(name) => format!("did you mean {name}?"),
        None => format!("there are: {}", names.iter().take(20).copied().collect::<Vec<_>>().join(", ")),
    };
    (Code::NotFound, format!("there is no column {}", field.name()), Some(hint))
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or(message).trim().trim_end_matches('.').to_owned()
}

fn position_of(error: &DataFusionError, root: &DataFusionError) -> Option<SqlPosition> {
    let span = error.diagnostic().and_then(|diagnostic| diagnostic.span);
    if let Some(span) = span.filter(|span| span.start.line > 0) {
        return Some(SqlPosition { line: span.start.line, column: span.start.column });
    }
    let DataFusionError::SQL(parser, _) = root else { return None };
    let text = parser.to_string();
    let (_, place) = text.rsplit_once(" at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    let column: String = column.chars().take_while(char::is_ascii_digit).collect();
    Some(SqlPosition { line: line.parse().ok()?, column: column.parse().ok()? })
}

fn without_position(message: &str) -> String {
    let message = message.split(" at Line: ").next().unwrap_or(message);
    message.trim_start_matches("sql parser error: ").to_owned()
}
