//! PostgREST's filter habit: `?country=eq.KR&day=gte.2026-01-01&order=n.desc.nullslast&limit=10`.
//!
//! A filter is `[not.]operator.value`; values become parameters of the query, never a part of its text.

use std::fmt::Write as _;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::scalar::ScalarValue;
use operators::View;
use schemas::column::sql_name;
use schemas::problem::did_you_mean;
use schemas::{Code, Problem};

use super::conditions::{Conditions, number};

/// A look-up, parsed.
#[derive(Debug, Default)]
pub(super) struct Selection {
    pub(super) conditions: Conditions,
    pub(super) format: Option<String>,
    pub(super) limit: Option<usize>,
    offset: usize,
    columns: Vec<String>,
    order: Vec<String>,
    filters: Vec<Filter>,
}

#[derive(Debug)]
struct Filter {
    column: usize,
    name: String,
    negated: bool,
    operator: String,
    value: String,
}

const OPERATORS: [(&str, &str); 8] = [
    ("eq", "="),
    ("neq", "<>"),
    ("gt", ">"),
    ("gte", ">="),
    ("lt", "<"),
    ("lte", "<="),
    ("like", "LIKE"),
    ("ilike", "ILIKE"),
];

fn bad(what: String) -> Problem {
    Problem::new(Code::BadRequest, what)
}

/// A name in SQL, quoted.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn column_of(schema: &SchemaRef, name: &str) -> Result<usize, Problem> {
    schema.index_of(name).map_err(|_| {
        let problem = Problem::new(Code::NotFound, format!("there is no column {name}"));
        let names = schema.fields().iter().map(|field| field.name().as_str());
        match did_you_mean(name, names.clone()) {
            Some(close) => problem.with_hint(format!("did you mean {close}?")),
            None => problem.with_hint(format!("there are: {}", names.collect::<Vec<_>>().join(", "))),
        }
    })
}

impl Selection {
    /// Reads the parameters of `GET /v1/views/{v}`.
    pub(super) fn parse(parameters: &[(String, String)], schema: &SchemaRef) -> Result<Self, Problem> {
        let mut selection = Self::default();
        for (name, value) in parameters {
            match name.as_str() {
                "select" => selection.columns = select(value, schema)?,
                "order" => selection.order = order(value, schema)?,
                "limit" => selection.limit = Some(number(name, value)?),
                "offset" | "cursor" => selection.offset = number(name, value)?,
                "format" => selection.format = Some(value.clone()),
                _ if selection.conditions.take(name, value)? => {}
                _ => selection.filters.push(filter(name, value, schema)?),
            }
        }
        Ok(selection)
    }

    /// The values of the leading key columns, if that is all that is asked for.
    pub(super) fn key(&self, view: &View) -> Option<Vec<ScalarValue>> {
        if self.filters.is_empty() || !self.order.is_empty() || self.offset > 0 {
            return None;
        }
        let output_keys = view.output_keys();
        let mut values: Vec<Option<ScalarValue>> = vec![None; view.key_columns()];
        for filter in &self.filters {
            let key = output_keys.get(filter.column).copied().flatten()?;
            let data_type = view.state_schema().field(key).data_type();
            // a float has several spellings of one key (0 and -0)
            if filter.operator != "eq" || filter.negated || data_type.is_floating() || values[key].is_some() {
                return None;
            }
            values[key] = Some(ScalarValue::try_from_string(filter.value.clone(), data_type).ok()?);
        }
        let key: Vec<ScalarValue> = values.iter().map_while(Clone::clone).collect();
        (key.len() == self.filters.len()).then_some(key)
    }

    /// The columns asked for, by their places; all if none are named.
    pub(super) fn projection(&self, schema: &SchemaRef) -> Result<Vec<usize>, Problem> {
        if self.columns.is_empty() {
            return Ok((0..schema.fields().len()).collect());
        }
        self.columns.iter().map(|name| column_of(schema, name)).collect()
    }

    /// The same as a query, with its parameters. Any answer can be one of several pages: its order is total,
    /// by the keys after what is asked for.
    pub(super) fn sql(
        &self,
        view: &View,
        schema: &SchemaRef,
        name: &str,
    ) -> Result<(String, Vec<ScalarValue>), Problem> {
        let columns: Vec<String> = self.columns.iter().map(|name| quoted(name)).collect();
        let columns = if columns.is_empty() { "*".to_owned() } else { columns.join(", ") };
        let mut sql = format!("SELECT {columns} FROM public.{}", quoted(name));
        let mut params = vec![];
        for (index, filter) in self.filters.iter().enumerate() {
            sql.push_str(if index == 0 { " WHERE " } else { " AND " });
            sql.push_str(&condition(filter, schema.field(filter.column).data_type(), &mut params)?);
        }
        let mut order = self.order.clone();
        order.extend(tie_breakers(view, schema));
        if !order.is_empty() {
            let _ = write!(sql, " ORDER BY {}", order.join(", "));
        }
        if self.offset > 0 {
            let _ = write!(sql, " OFFSET {}", self.offset);
        }
        Ok((sql, params))
    }

    /// Where the page after one of so many rows begins.
    pub(super) fn next(&self, rows: usize) -> String {
        (self.offset + rows).to_string()
    }
}

/// The columns that tell the rows of a view apart: its keys, or everything where a key is not in the output.
fn tie_breakers(view: &View, schema: &SchemaRef) -> Vec<String> {
    let keys = view.output_keys();
    let all = (0..view.key_columns()).all(|key| keys.contains(&Some(key)));
    let columns = schema.fields().iter().zip(&keys);
    columns.filter(|(_, key)| !all || key.is_some()).map(|(field, _)| quoted(field.name())).collect()
}

fn select(value: &str, schema: &SchemaRef) -> Result<Vec<String>, Problem> {
    if value == "*" {
        return Ok(vec![]);
    }
    value.split(',').map(|name| column_of(schema, name).map(|_| name.to_owned())).collect()
}

fn order(value: &str, schema: &SchemaRef) -> Result<Vec<String>, Problem> {
    let one = |term: &str| {
        let mut parts = term.split('.');
        let name = parts.next().unwrap_or_default();
        column_of(schema, name)?;
        let mut sql = quoted(name);
        for word in parts {
            sql.push_str(match word {
                "asc" => " ASC",
                "desc" => " DESC",
                "nullsfirst" => " NULLS FIRST",
                "nullslast" => " NULLS LAST",
                _ => return Err(bad(format!("order: {word:?} is none of asc, desc, nullsfirst, nullslast"))),
            });
        }
        Ok(sql)
    };
    value.split(',').map(one).collect()
}

fn filter(name: &str, value: &str, schema: &SchemaRef) -> Result<Filter, Problem> {
    let column = column_of(schema, name)?;
    let (negated, rest) = value.strip_prefix("not.").map_or((false, value), |rest| (true, rest));
    let known =
        |operator: &str| matches!(operator, "in" | "is") || OPERATORS.iter().any(|(known, _)| *known == operator);
    match rest.split_once('.') {
        Some((operator, value)) if known(operator) => Ok(Filter {
            column,
            name: name.to_owned(),
            negated,
            operator: operator.to_owned(),
            value: value.to_owned(),
        }),
        _ => Err(bad(format!("{name}: {value:?} is not a filter"))
            .with_hint("write eq.5, neq., gt., gte., lt., lte., like., ilike., in.(a,b), is.null; not. negates")),
    }
}

fn condition(filter: &Filter, data_type: &DataType, params: &mut Vec<ScalarValue>) -> Result<String, Problem> {
    let column = quoted(&filter.name);
    let mut placeholder = |value: ScalarValue| {
        params.push(value);
        format!("${}", params.len())
    };
    let typed = |value: &str| {
        ScalarValue::try_from_string(value.to_owned(), data_type)
            .map_err(|_| bad(format!("{}: expected {}, found {value:?}", filter.name, sql_name(data_type))))
    };
    let sql = match filter.operator.as_str() {
        "is" => match filter.value.as_str() {
            "null" => format!("{column} IS NULL"),
            "not_null" => format!("{column} IS NOT NULL"),
            "true" => format!("{column} IS TRUE"),
            "false" => format!("{column} IS FALSE"),
            other => return Err(bad(format!("{}: is.{other} is none of null, not_null, true, false", filter.name))),
        },
        "in" => {
            let values = list(&filter.value).ok_or_else(|| bad(format!("{}: in needs (a,b,…)", filter.name)))?;
            let values = values.iter().map(|value| Ok(placeholder(typed(value)?)));
            format!("{column} IN ({})", values.collect::<Result<Vec<_>, Problem>>()?.join(", "))
        }
        operator @ ("like" | "ilike") => {
            let pattern = ScalarValue::Utf8(Some(filter.value.replace('*', "%")));
            format!("{column} {} {}", operator.to_uppercase(), placeholder(pattern))
        }
        operator => {
            let symbol = OPERATORS.iter().find(|(known, _)| *known == operator).map_or("=", |(_, symbol)| symbol);
            format!("{column} {symbol} {}", placeholder(typed(&filter.value)?))
        }
    };
    Ok(if filter.negated { format!("NOT ({sql})") } else { sql })
}

/// `(a,"b,c",d)`: double quotes around a value that has a comma, a backslash before a quote in it.
fn list(text: &str) -> Option<Vec<String>> {
    let inner = text.strip_prefix('(')?.strip_suffix(')')?;
    let (mut values, mut value, mut quoted, mut escaped) = (vec![], String::new(), false, false);
    for c in inner.chars() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => values.push(std::mem::take(&mut value)),
            _ => value.push(c),
        }
    }
    values.push(value);
    (!quoted).then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_honours_quotes() {
        assert_eq!(list("(a,\"b,c\",\"d\\\"e\")").unwrap(), ["a", "b,c", "d\"e"]);
        assert_eq!(list("a,b"), None);
        assert_eq!(list("(\"a)"), None);
    }

    #[tokio::test]
    async fn every_answer_has_a_total_order() {
        let sql = |world: crate::testing::World, parameters: &[(&str, &str)]| {
            let view = world.views.values().next().unwrap().clone();
            let parameters: Vec<_> = parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            Selection::parse(&parameters, &view.output_schema())
                .unwrap()
                .sql(&view, &view.output_schema(), "v")
                .unwrap()
                .0
        };
        let by_country = crate::testing::by_country;
        let all = "SELECT * FROM public.\"v\"";
        assert_eq!(sql(by_country().await, &[]), format!("{all} ORDER BY \"country\""));
        let ordered = sql(by_country().await, &[("order", "n.desc"), ("cursor", "4")]);
        assert_eq!(ordered, format!("{all} ORDER BY \"n\" DESC, \"country\" OFFSET 4"));
        // without a key in the output everything tells rows apart
        let upper = "SELECT upper(country) AS u, count(*) AS n FROM clicks GROUP BY country";
        let world = crate::testing::World::new().with_view("v", upper, None, &[]).await;
        assert_eq!(sql(world, &[("limit", "2")]), format!("{all} ORDER BY \"u\", \"n\""));
    }

    #[test]
    fn names_cannot_leave_their_quotes() {
        assert_eq!(quoted("a\"; DROP"), "\"a\"\"; DROP\"");
    }
}
