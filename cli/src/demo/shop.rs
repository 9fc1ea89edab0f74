//! The built-in demo: a shop's click stream.

use std::io;

use super::scenario::{Scenario, View};
use crate::commands::ingest::bodies::Body;
use crate::generator::{CREATE_STREAM, Generator, STREAM};
use crate::output::grouped;

/// Every demo shows the same events.
const SEED: u64 = 1;
const BODY_ROWS: u64 = 5_000;
const SELECT: &str = "\
SELECT product, window_start, count(*) AS clicks,
       count(*) FILTER (WHERE action = 'purchase') AS purchases,
       sum(amount_cents) AS revenue_cents, avg(dwell_seconds) AS dwell_seconds,
       approx_distinct(user_id) AS users
FROM TUMBLE(clicks, event_time, INTERVAL '1 minute')
GROUP BY product, window_start";

/// The shop, with so many lines.
pub(super) fn scenario(lines: u64) -> Scenario {
    let view = "clicks_per_minute";
    let twin = "clicks_on_time";
    Scenario {
        title: format!(
            "{} events of a shop: 10 % late by minutes to hours, 2 % sent twice, keys skewed",
            grouped(lines)
        ),
        stream: STREAM,
        create_stream: CREATE_STREAM.to_owned(),
        views: vec![View {
            name: view,
            create: format!("CREATE MATERIALIZED VIEW {view} REFRESH MANUAL AS\n{SELECT}"),
        }],
        twin: View {
            name: twin,
            create: format!("CREATE MATERIALIZED VIEW {twin} REFRESH MANUAL WITH (late = 'drop') AS\n{SELECT}"),
        },
        count: "clicks",
        show: format!(
            "SELECT product, sum(clicks) AS clicks, sum(purchases) AS purchases, sum(revenue_cents) AS revenue_cents\n\
             FROM {view} GROUP BY product ORDER BY clicks DESC, product LIMIT 5"
        ),
        events: Box::new(Lines { generator: Generator::new(SEED), lines }),
        size: lines,
        truth: Some(truth(lines)),
    }
}

/// The truth is counted by a run of the generator of its own, before the first event is sent.
fn truth(lines: u64) -> crate::generator::Totals {
    let mut generator = Generator::new(SEED);
    let mut line = String::new();
    for _ in 0..lines {
        line.clear();
        generator.append_line(&mut line);
    }
    generator.totals().clone()
}

struct Lines {
    generator: Generator,
    lines: u64,
}

impl Iterator for Lines {
    type Item = io::Result<Body>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = BODY_ROWS.min(self.lines - self.generator.totals().lines);
        if rows == 0 {
            return None;
        }
        let text = self.generator.lines(rows);
        Some(Ok(Body { bytes: text.into(), rows, read: self.generator.totals().lines }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_all_lines_and_the_truth_is_theirs() {
        let scenario = scenario(12_345);
        let truth = scenario.truth.unwrap();
        let bodies: Vec<Body> = scenario.events.map(|body| body.unwrap()).collect();
        let lines: usize = bodies.iter().map(|body| std::str::from_utf8(&body.bytes).unwrap().lines().count()).sum();
        assert_eq!((lines, bodies.len(), bodies[2].read), (12_345, 3, 12_345));
        assert_eq!(truth.lines, 12_345);
    }

    #[test]
    fn its_sql_is_bifolds() {
        let scenario = scenario(1);
        let views = scenario.views.iter().chain([&scenario.twin]).map(|view| view.create.clone());
        for sql in std::iter::once(scenario.create_stream.clone()).chain(views).chain([scenario.show.clone()]) {
            assert_eq!(schemas::statement::parse_script(&sql).unwrap().len(), 1);
        }
    }
}
