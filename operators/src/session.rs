//! DataFusion as Bifold sets it up: our aggregates under their SQL names, our windows, one string type.

use std::sync::Arc;

use datafusion::common::config::Dialect;
use datafusion::execution::context::SessionState;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{FunctionRegistry, SessionStateBuilder};
use datafusion::logical_expr::AggregateUDF;
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::resolve_grouping_function::ResolveGroupingFunction;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion::prelude::SessionConfig;

use crate::checked::CheckedArithmetic;
use crate::lateral::LateralPlanner;
use crate::set_keys::SetKeys;
use crate::{aggregates, bounded, buckets, windows};

/// Settings that views and queries share. Serving sets `target_partitions` and Parquet options on top.
pub fn config() -> SessionConfig {
    let mut config =
        SessionConfig::new().with_information_schema(false).with_default_catalog_and_schema("bifold", "public");
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    options.sql_parser.dialect = Dialect::PostgreSQL;
    options.execution.time_zone = Some("UTC".into());
    config
}

/// A session state that views are compiled with. Costs about a millisecond: make one and clone it.
pub fn state(config: SessionConfig, runtime: Arc<RuntimeEnv>) -> SessionState {
    with_functions(config, runtime, aggregates::all())
}

/// A session state for queries over views: there, `DISTINCT` and sliding frames work too.
pub fn query_state(config: SessionConfig, runtime: Arc<RuntimeEnv>) -> SessionState {
    with_functions(config, runtime, aggregates::all_in_queries())
}

fn with_functions(config: SessionConfig, runtime: Arc<RuntimeEnv>, aggregates: Vec<Arc<AggregateUDF>>) -> SessionState {
    let builder = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features();
    let mut state = builder.with_analyzer_rules(analyzer_rules()).build();
    for aggregate in aggregates {
        // replaces DataFusion's function of the same name
        let _ = state.register_udaf(aggregate);
    }
    for function in windows::functions() {
        let _ = state.register_udf(function);
    }
    // without it a session has DataFusion's buckets: tests say that it is not so, here and below
    let _ = buckets::register(&mut state);
    // without it a session has the unbounded functions
    let _ = bounded::bound(&mut state);
    let _ = state.register_relation_planner(Arc::new(windows::WindowPlanner::default()));
    let _ = state.register_relation_planner(Arc::new(LateralPlanner));
    state
}

/// DataFusion's own, and ours where each of them has to come.
fn analyzer_rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    vec![
        Arc::new(ResolveGroupingFunction::new()),
        Arc::new(SetKeys),
        Arc::new(TypeCoercion::new()),
        Arc::new(CheckedArithmetic::default()),
    ]
}
