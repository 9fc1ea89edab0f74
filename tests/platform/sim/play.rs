//! What happens in a simulation: at random, or after one script.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::Rng;
use serde_json::json;

use super::driver::{Asked, Plan, Report, Simulation};
use super::link::Weather;
use super::world::Violation;

/// A run that was begun has its batch view after so many steps, unless the weather is bad.
const TICKS_OF_A_RUN: u32 = 150;

/// Plays a seed.
///
/// # Errors
/// What must not be, with the last things that happened before it.
pub(crate) fn play(plan: Plan) -> Result<Report, Violation> {
    told(Simulation::new(plan), |simulation| {
        simulation.declare()?;
        for _ in 0..simulation.plan.steps {
            simulation.act()?;
            for _ in 0..simulation.rng.random_range(0..30) {
                simulation.tick()?;
            }
            simulation.check()?;
        }
        Ok(())
    })
}

/// Plays a short script in calm weather: what a crash at any point of it must not spoil.
///
/// # Errors
/// As [`play`].
pub(crate) fn play_script(plan: Plan) -> Result<Report, Violation> {
    told(Simulation::new(plan), |simulation| {
        simulation.declare()?;
        let script: [fn(&mut Simulation) -> Option<u64>; 15] = [
            Simulation::send_events,
            |simulation| simulation.query("totals", ""),
            Simulation::send_events,
            |simulation| simulation.run("totals", "full"),
            Simulation::send_events,
            Simulation::create_later,
            |simulation| simulation.run("totals", "incremental"),
            |simulation| simulation.query("windows", ""),
            |simulation| simulation.run("windows", "full"),
            Simulation::roll_back,
            |simulation| simulation.query("totals", ""),
            // two more: what was rolled back to is retired, with both its manifests
            |simulation| simulation.run("totals", "full"),
            Simulation::send_events,
            |simulation| simulation.run("totals", "full"),
            |simulation| simulation.sql(Asked::Other, "DROP MATERIALIZED VIEW later"),
        ];
        for act in script {
            act(simulation);
            for _ in 0..18 {
                simulation.tick()?;
            }
            simulation.check()?;
        }
        Ok(())
    })
}

/// Ends a play; a violation, or a panic on the way, comes with what happened before it.
fn told(
    mut simulation: Simulation,
    acts: impl FnOnce(&mut Simulation) -> Result<(), Violation>,
) -> Result<Report, Violation> {
    let world = std::sync::Arc::clone(&simulation.world);
    let played = catch_unwind(AssertUnwindSafe(move || acts(&mut simulation).and_then(|()| simulation.finish())));
    let result = played.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Violation::new("nothing panics", words.unwrap_or_default()))
    });
    result.map_err(|violation| {
        let what = format!("{}\nbefore that:\n{}", violation.what, world.last_lines(60));
        Violation { what, ..violation }
    })
}

impl Simulation {
    /// One thing that somebody does.
    fn act(&mut self) -> Result<(), Violation> {
        match self.rng.random_range(0..100) {
            0..=39 => {
                self.send_events();
            }
            40..=59 => {
                let view = ["totals", "windows", "later"][self.rng.random_range(0..3)];
                let side = ["", "", "", "batch.", "speed."][self.rng.random_range(0..5)];
                self.query(view, side);
            }
            60..=61 => {
                self.query_ledger();
            }
            62..=73 => {
                let view = ["totals", "windows", "later"][self.rng.random_range(0..3)];
                let kind = ["full", "incremental"][self.rng.random_range(0..2)];
                self.run(view, kind);
            }
            74..=76 => {
                self.create_later();
            }
            77..=78 => {
                self.sql(Asked::Other, "DROP MATERIALIZED VIEW later");
            }
            79..=82 => {
                self.roll_back();
            }
            83..=86 => {
                let milliseconds = self.rng.random_range(1..5_000);
                self.world.note(format!("{milliseconds} ms pass"));
                self.owner().idle(milliseconds);
            }
            87..=88 => {
                // also backwards: machines' clocks are set
                let by_us = self.rng.random_range(-2_000_000..900_000_000);
                self.world.note(format!("the clock moves by {by_us} us"));
                self.world.clock.advance_us(by_us);
            }
            89..=90 => self.crash(self.processes.len() - 1),
            91..=95 if self.processes.len() < 3 && self.owner().is_ready() => self.fork_under_load()?,
            96 => {
                self.owner().settle();
                self.owner().stop();
            }
            _ => self.change_weather(),
        }
        Ok(())
    }

    /// Another owner takes over while there is something to do for both: in the middle of a run, of a rollback, of a
    /// statement, whose effects are not the new owner's.
    fn fork_under_load(&mut self) -> Result<(), Violation> {
        match self.rng.random_range(0..8) {
            0 => self.roll_back(),
            1 => self.create_later(),
            2 => self.sql(Asked::Other, "DROP MATERIALIZED VIEW later"),
            _ => {
                let view = ["totals", "windows"][self.rng.random_range(0..2)];
                self.run(view, "full")
            }
        };
        self.send_events();
        let (ticks, waits) = (self.rng.random_range(0..60), self.rng.random_bool(0.5));
        for _ in 0..ticks {
            self.tick()?;
        }
        for _ in 0..TICKS_OF_A_RUN {
            if !waits || self.is_about_to_publish() {
                break;
            }
            self.tick()?;
        }
        self.fork();
        // how far the new one is when the old one goes on
        for _ in 0..self.rng.random_range(0..80) {
            self.tick_owner()?;
        }
        Ok(())
    }

    fn change_weather(&mut self) {
        self.weather = match self.rng.random_range(0..4) {
            0 => Weather::CALM,
            1 => Weather { fails: 0.05, slow: 0.05, dies: 0.002 },
            2 => Weather { fails: 0.3, slow: 0.1, dies: 0.0 },
            _ => Weather { fails: 0.05, slow: 0.2, dies: 0.02 },
        };
        self.world.note(format!("{:?}", self.weather));
        for process in &self.processes {
            process.link.set_weather(self.weather);
        }
    }

    fn run(&mut self, view: &str, kind: &str) -> Option<u64> {
        self.call(Asked::Other, "POST", &format!("/v1/views/{view}/runs"), json!({ "kind": kind }).to_string())
    }

    /// Back to a run that was published before, if it is still kept.
    fn roll_back(&mut self) -> Option<u64> {
        let runs = self.published_runs("totals");
        if runs.is_empty() {
            return None;
        }
        let run = runs[self.rng.random_range(0..runs.len())];
        self.sql(Asked::Other, &format!("ROLLBACK MATERIALIZED VIEW totals TO RUN {run}"))
    }
}
