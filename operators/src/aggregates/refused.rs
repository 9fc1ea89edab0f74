//! DataFusion's aggregates that are not exactly mergeable: why, and what to write instead.

/// For an aggregate of DataFusion that a view cannot use: the reason and the spelling that works.
/// None for the aggregates of [`super::all`] and for unknown names.
pub fn mergeable_spelling(name: &str) -> Option<&'static str> {
    Some(match name.to_ascii_lowercase().as_str() {
        "median" => "median(x) keeps every value; write approx_percentile_cont(x, 0.5)",
        "percentile_cont" | "quantile_cont" => {
            "percentile_cont(p) keeps every value; write approx_percentile_cont(x, p)"
        }
        "approx_percentile_cont_with_weight" => {
            "approx_percentile_cont_with_weight depends on the order of the rows; write approx_percentile_cont(x, p)"
        }
        "first_value" => "first_value(x) depends on the order of the rows; write min(x)",
        "last_value" => "last_value(x) depends on the order of the rows; write max(x)",
        "any_value" => "any_value(x) depends on the order of the rows; write min(x) or max(x)",
        "nth_value" => "nth_value(x, n) depends on the order of the rows; write min(x) or max(x)",
        "array_agg" => "array_agg(x) keeps every value in the order of the rows; group by x and write count(*)",
        "string_agg" => "string_agg(x, ',') keeps every value in the order of the rows; group by x and write count(*)",
        "corr" | "covar" | "covar_samp" | "covar_pop" => {
            "covariances and correlations are rounded at every step, so they depend on the order of the rows; \
             write avg(x * y), avg(x), avg(y), var_pop(x) and var_pop(y) and combine them when you query"
        }
        "regr_slope" | "regr_intercept" | "regr_r2" | "regr_sxx" | "regr_syy" | "regr_sxy" => {
            "regressions are rounded at every step, so they depend on the order of the rows; \
             write avg(x * y), avg(x), avg(y), var_pop(x) and var_pop(y) and combine them when you query"
        }
        "regr_count" => {
            "regr_count(y, x) is not supported in a view; write count(*) FILTER (WHERE x IS NOT NULL AND y IS NOT NULL)"
        }
        "regr_avgx" => "regr_avgx(y, x) is rounded at every step; write avg(x) FILTER (WHERE y IS NOT NULL)",
        "regr_avgy" => "regr_avgy(y, x) is rounded at every step; write avg(y) FILTER (WHERE x IS NOT NULL)",
        "grouping" => "grouping(x) needs GROUPING SETS; write one view for each grouping",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregates::is_exact;
    use datafusion::functions_aggregate::all_default_aggregate_functions;

    #[test]
    fn every_aggregate_of_datafusion_is_exact_or_explained() {
        for aggregate in all_default_aggregate_functions() {
            for name in std::iter::once(aggregate.name()).chain(aggregate.aliases().iter().map(String::as_str)) {
                assert!(is_exact(name) != mergeable_spelling(name).is_some(), "{name}");
            }
        }
        assert!(is_exact("SUM") && !is_exact("nonsense") && mergeable_spelling("nonsense").is_none());
    }
}
