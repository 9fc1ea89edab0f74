//! The story, beat by beat. Every step waits for a condition, and every figure is checked before it is told.

use std::time::Instant;

use anyhow::Context;
use serde_json::Value;

use super::scenario::{Scenario, View};
use super::stage::{Stage, await_run, expect_equal, expect_verdict, freshness_text, run_text, say, show_sql};
use crate::client::Client;
use crate::commands::reconcile_summary;
use crate::generator;
use crate::output::{Format, Tone, grouped, paint};
use crate::progress::rate;

/// Live answers that are shown while the first half comes in.
const LIVE_ANSWERS: f64 = 5.0;

/// What the beats need to know besides the stage.
struct Cast {
    views: Vec<View>,
    twin: View,
    show: String,
    truth: Option<generator::Totals>,
}

impl Cast {
    fn hero(&self) -> &'static str {
        self.views.first().map_or("", |view| view.name)
    }
}

/// Tells it.
pub(super) async fn tell(client: Client, mut scenario: Scenario) -> anyhow::Result<()> {
    let started = Instant::now();
    say(&paint(Tone::Bold, "Bifold: one SQL view, folded twice, with a proof that both are equal"))?;
    say(&format!("Events: {}.\nServer: {} (this demo talks to it only over HTTP)", scenario.title, client.url()))?;
    let cast = Cast {
        views: std::mem::take(&mut scenario.views),
        twin: View { name: scenario.twin.name, create: std::mem::take(&mut scenario.twin.create) },
        show: std::mem::take(&mut scenario.show),
        truth: scenario.truth.take(),
    };
    let create_stream = scenario.create_stream.clone();
    let mut stage = Stage::new(client, scenario);
    declare(&mut stage, &cast, &create_stream).await?;
    live(&mut stage, &cast).await?;
    batch(&mut stage, &cast).await?;
    merged(&mut stage, &cast).await?;
    certificates(&mut stage, &cast).await?;
    late(&mut stage, &cast).await?;
    close(&stage, started)
}

/// Beat 1: the stream and its views. The twin exists from the start too; its beat comes last.
async fn declare(stage: &mut Stage, cast: &Cast, create_stream: &str) -> anyhow::Result<()> {
    stage.beat("A stream, and a view over it")?;
    stage.run_sql(create_stream).await?;
    if let Some(hero) = cast.views.first() {
        stage.run_sql(&hero.create).await?;
    }
    for view in cast.views.iter().skip(1).chain([&cast.twin]) {
        stage.ask(&view.create).await?;
    }
    let others: Vec<&str> = cast.views.iter().skip(1).chain([&cast.twin]).map(|view| view.name).collect();
    say(&format!("   Likewise, over the same stream: {}.", others.join(", ")))
}

/// Beat 2: the first half comes in; the view follows it.
async fn live(stage: &mut Stage, cast: &Cast) -> anyhow::Result<()> {
    stage.beat("Events come in; the speed layer answers at once")?;
    show_sql(&format!("SELECT sum({}) AS events, count(*) AS cells FROM {}", stage.count, cast.hero()))?;
    let mut next = 0.0;
    loop {
        let ended = !stage.send_next().await? || stage.share() >= 0.5;
        if ended || stage.share() >= next {
            next = stage.share() + 0.5 / LIVE_ANSWERS;
            live_answer(stage, cast.hero()).await?;
        }
        if ended {
            return Ok(());
        }
    }
}

async fn live_answer(stage: &Stage, view: &str) -> anyhow::Result<()> {
    let since = Instant::now();
    let (events, cells, answer) = stage.count(view).await?;
    expect_equal("events in the view right after the acknowledgement", events, i128::from(stage.totals.accepted))?;
    say(&format!(
        "   {:>9} sent ({} twice) → {:>9} events in {:>6} cells, {:>3} ms   {}",
        grouped(stage.totals.received),
        grouped(stage.totals.duplicates),
        grouped(events as u64),
        grouped(cells as u64),
        since.elapsed().as_millis(),
        paint(Tone::Dim, &freshness_text(&answer)),
    ))
}

/// Beat 3: a batch run over all of history, while the second half comes in.
async fn batch(stage: &mut Stage, cast: &Cast) -> anyhow::Result<()> {
    stage.beat("A batch run recomputes everything from the master, while events go on")?;
    show_sql(&format!("REFRESH MATERIALIZED VIEW {}", cast.hero()))?;
    let id = stage.client.start_run(cast.hero()).await?;
    let client = stage.client.clone();
    let (run, sent) = tokio::join!(await_run(&client, id), async {
        while stage.send_next().await? {}
        anyhow::Ok(())
    });
    sent?;
    say(&format!("   {}", run_text(&run?)))?;
    say(&format!("   meanwhile {} events were sent in all", grouped(stage.totals.received)))
}

/// Beat 4: both sides, and the one answer.
async fn merged(stage: &mut Stage, cast: &Cast) -> anyhow::Result<()> {
    stage.beat("One answer: batch up to its cut, speed from there on")?;
    let hero = cast.hero();
    let (in_batch, batch_cells, _) = stage.count(&format!("batch.{hero}")).await?;
    let (in_speed, speed_cells, _) = stage.count(&format!("speed.{hero}")).await?;
    let (events, cells, answer) = stage.count(hero).await?;
    expect_equal("batch + speed", in_batch + in_speed, events)?;
    expect_equal("events in the merged view", events, i128::from(stage.totals.accepted))?;
    for (name, layer_events, layer_cells) in
        [("batch", in_batch, batch_cells), ("speed", in_speed, speed_cells), ("merged", events, cells)]
    {
        let (layer_events, layer_cells) = (grouped(layer_events as u64), grouped(layer_cells as u64));
        say(&format!("   {name:<6} {layer_events:>9} events in {layer_cells:>7} cells"))?;
    }
    say(&format!("   {}", paint(Tone::Dim, &freshness_text(&answer))))?;
    let shown = stage.run_sql(&cast.show).await?;
    say(&indented(&shown.table.render(Format::Table)))?;
    match &cast.truth {
        Some(truth) => check_truth(stage, hero, truth).await,
        None => Ok(()),
    }
}

/// What the generator counted while it made the events must be what the view says.
async fn check_truth(stage: &Stage, view: &str, truth: &generator::Totals) -> anyhow::Result<()> {
    let sql =
        format!("SELECT sum(clicks) AS events, sum(purchases) AS purchases, sum(revenue_cents) AS cents FROM {view}");
    let answer = stage.ask(&sql).await?;
    expect_equal("events", answer.integer("events")?, i128::from(truth.events))?;
    expect_equal("duplicates", i128::from(stage.totals.duplicates), i128::from(truth.duplicates))?;
    expect_equal("purchases", answer.integer("purchases")?, i128::from(truth.purchases))?;
    expect_equal("revenue in cents", answer.integer("cents")?, i128::from(truth.revenue_cents))?;
    say(&format!(
        "   The generator's own count: {} events, {} purchases, {} cents. {}",
        grouped(truth.events),
        grouped(truth.purchases),
        grouped(truth.revenue_cents),
        paint(Tone::Good, "Equal.")
    ))
}

/// Beat 5: the next run is compared cell by cell with what it replaces.
async fn certificates(stage: &mut Stage, cast: &Cast) -> anyhow::Result<()> {
    stage.beat("The next run proves it: cell by cell, byte for byte")?;
    for view in &cast.views {
        let run = stage.run_view(view.name).await?;
        let certificate = stage.client.certificate(view.name, Some(run.id)).await?;
        expect_verdict(&certificate, &["exact"])?;
        say(&indented(reconcile_summary(&certificate).trim_end()))?;
        let (events, cells, _) = stage.count(view.name).await?;
        expect_equal("events after the run", events, i128::from(stage.totals.accepted))?;
        say(&format!("   {}: {} events in {} cells", view.name, grouped(events as u64), grouped(cells as u64)))?;
    }
    Ok(())
}

/// Beat 6: the same view, but late events are left out; the certificate accounts for every one.
async fn late(stage: &mut Stage, cast: &Cast) -> anyhow::Result<()> {
    stage.beat("The same view with late = 'drop': nothing is lost without a reason")?;
    show_sql(&cast.twin.create)?;
    let run = stage.run_view(cast.twin.name).await?;
    let certificate = stage.client.certificate(cast.twin.name, Some(run.id)).await?;
    let dropped = explained(&certificate).context("the certificate has no explanations")?;
    expect_verdict(&certificate, if dropped > 0 { &["explained"] } else { &["exact"] })?;
    say(&indented(reconcile_summary(&certificate).trim_end()))?;
    let (kept, cells, _) = stage.count(cast.twin.name).await?;
    expect_equal("kept + late", kept + i128::from(dropped), i128::from(stage.totals.accepted))?;
    say(&format!(
        "   {} events in {} cells + {} late, each one listed = {}. The default, late = 'include', has all of them and is {}.",
        grouped(kept as u64),
        grouped(cells as u64),
        grouped(dropped),
        grouped(stage.totals.accepted),
        paint(Tone::Good, "EXACT")
    ))
}

/// Events that the certificate explains as late.
fn explained(certificate: &Value) -> Option<u64> {
    let all = certificate.get("explanations")?.as_array()?;
    let late = all.iter().filter(|one| one.get("reason").and_then(Value::as_str) == Some("late"));
    Some(late.filter_map(|one| one.get("events")?.as_u64()).sum())
}

fn close(stage: &Stage, started: Instant) -> anyhow::Result<()> {
    let totals = &stage.totals;
    say(&format!(
        "\n{} events in {:.1} s of requests ({} events/s, each request durable before its answer); the whole demo {:.1} s.",
        grouped(totals.received),
        stage.sending.as_secs_f64(),
        grouped(rate(totals.received, stage.sending)),
        started.elapsed().as_secs_f64()
    ))?;
    if totals.quarantined > 0 {
        say(&format!(
            "{} records did not fit the stream: SELECT * FROM dlq.{}",
            grouped(totals.quarantined),
            stage.stream
        ))?;
    }
    Ok(())
}

fn indented(block: &str) -> String {
    block.lines().map(|line| format!("   {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_late_events_explain_a_late_drop() {
        let certificate = json!({"explanations": [{"reason": "late", "events": 3}, {"reason": "erased", "events": 5}]});
        assert_eq!(explained(&certificate), Some(3));
        assert_eq!(explained(&json!({"explanations": []})), Some(0));
        assert_eq!(explained(&json!({})), None);
    }
}
