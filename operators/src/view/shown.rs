//! Which keys of the cells the columns of a view show.

use arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Projection};

/// The key column that an output column of the finish is, if it is only renamed on its way.
pub(super) fn key_behind(plan: &LogicalPlan, column: &Column) -> Option<usize> {
    match plan {
        LogicalPlan::TableScan(_) => column.name.strip_prefix('g')?.parse().ok(),
        LogicalPlan::Projection(projection) => {
            let index = projection.schema.maybe_index_of_column(column)?;
            let mut expression = &projection.expr[index];
            loop {
                expression = match expression {
                    Expr::Alias(alias) => &alias.expr,
                    Expr::Cast(cast) if is_text(cast.field.data_type()) && is_text_in(&cast.expr, projection) => {
                        &cast.expr
                    }
                    _ => break,
                };
            }
            let Expr::Column(inner) = expression else { return None };
            key_behind(&projection.input, inner)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let index = alias.schema.maybe_index_of_column(column)?;
            key_behind(&alias.input, &alias.input.schema().columns()[index])
        }
        LogicalPlan::Filter(filter) => key_behind(&filter.input, column),
        LogicalPlan::Sort(sort) => key_behind(&sort.input, column),
        _ => None,
    }
}

/// Texts of all types are one type in SQL: an item of an array has another one than a key.
fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_text_in(expression: &Expr, projection: &Projection) -> bool {
    expression.get_type(projection.input.schema()).is_ok_and(|data_type| is_text(&data_type))
}
