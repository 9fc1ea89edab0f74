//! DataFusion's aggregates that a view does not have: why, and what to write instead.

/// For an aggregate of DataFusion that a view cannot use: the reason and the spelling that works.
/// None for the aggregates that a view may use and for unknown names.
pub fn mergeable_spelling(name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name.to_ascii_lowercase().as_str() {
        "median" => {
            ("median(x) keeps every value", "write approx_percentile_cont(x, 0.5), or median_exact(x) for small cells")
        }
        "approx_percentile_cont_with_weight" => (
            "approx_percentile_cont_with_weight(x, w, p) depends on the order of the rows",
            "write approx_percentile_cont(x, p)",
        ),
        "nth_value" => (
            "nth_value(x, n) keeps every value before the n-th",
            "write first_value(x ORDER BY k), last_value(x ORDER BY k) or array_agg(x ORDER BY k)",
        ),
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
