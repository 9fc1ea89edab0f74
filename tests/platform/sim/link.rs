//! What ties a process to the world: every operation on it waits here until the simulation lets it go on.
//!
//! ```text
//!  the product ─► store, log ─► Link::pass ─► waits ─► the simulation chooses one and its fate ─► effect, answer
//!                                                       fine | fails before | fails after | slow | the process dies
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::thread::ThreadId;

use parking_lot::Mutex;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use schemas::Cut;
use storage::clock::Clock;
use tokio::sync::oneshot;
use xxhash_rust::xxh3::xxh3_64;

use super::log::SimulatedLog;
use super::world::World;

/// What becomes of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It takes effect and says so.
    Fine,
    /// It has no effect and fails.
    FailsBefore,
    /// It takes effect and fails all the same.
    FailsAfter,
    /// The process dies before it takes effect.
    DiesBefore,
    /// The process dies after it took effect, and never learns of that.
    DiesAfter,
    /// The process is dead.
    Dead,
}

/// How often what goes wrong, in shares of all operations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Weather {
    pub(crate) fails: f64,
    pub(crate) slow: f64,
    pub(crate) dies: f64,
}

impl Weather {
    pub(crate) const CALM: Self = Self { fails: 0.0, slow: 0.0, dies: 0.0 };

    /// The fate that a number from 0 to 1 stands for.
    fn fate(&self, chance: f64) -> Fate {
        let bounds = [
            (self.fails / 2.0, Fate::FailsBefore),
            (self.fails / 2.0, Fate::FailsAfter),
            (self.dies / 2.0, Fate::DiesBefore),
            (self.dies / 2.0, Fate::DiesAfter),
        ];
        let mut below = 0.0;
        for (share, fate) in bounds {
            below += share;
            if chance < below {
                return fate;
            }
        }
        Fate::Fine
    }
}

/// A crash that is planned: the so manieth operation that is let go on, or the one of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Crash {
    At { operation: u64, fate: Fate },
    Named { name: String, fate: Fate },
}

/// An operation that may be let go on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Candidate {
    Operation { name: String, arrival: u64 },
    Fsync { log: usize, name: String },
}

impl Candidate {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Operation { name, .. } | Self::Fsync { name, .. } => name,
        }
    }
}

/// A process's tie to the world.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) world: Arc<World>,
    /// Processes are numbered from 1.
    pub(crate) number: u32,
    seed: u64,
    /// The thread of the simulation. Operations of other threads cannot wait: they hold up the time.
    thread: ThreadId,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    is_dead: bool,
    /// It dies as soon as all has settled.
    is_dying: bool,
    weather: Weather,
    crash: Option<Crash>,
    waiting: BTreeMap<u64, Waiting>,
    arrivals: u64,
    /// How often an operation of that name came.
    occurrences: BTreeMap<String, u32>,
    /// Names of operations that did not wait.
    immediate: Vec<String>,
    logs: Vec<Weak<SimulatedLog>>,
    barriers: Vec<Cut>,
}

#[derive(Debug)]
struct Waiting {
    name: String,
    not_before_us: i64,
    go_on: oneshot::Sender<Fate>,
}

impl Link {
    pub(crate) fn new(world: &Arc<World>, number: u32, seed: u64, weather: Weather, crash: Option<Crash>) -> Arc<Self> {
        let state = State {
            is_dead: false,
            is_dying: false,
            weather,
            crash,
            waiting: BTreeMap::new(),
            arrivals: 0,
            occurrences: BTreeMap::new(),
            immediate: vec![],
            logs: vec![],
            barriers: vec![],
        };
        let (world, thread) = (Arc::clone(world), std::thread::current().id());
        Arc::new(Self { world, number, seed, thread, state: Mutex::new(state) })
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.state.lock().weather = weather;
    }

    /// From now on nothing that the process does has an effect.
    pub(crate) fn die(&self) {
        self.state.lock().is_dead = true;
    }

    /// All has settled: whoever is dying is dead.
    pub(crate) fn has_settled(&self) {
        let mut state = self.state.lock();
        state.is_dead |= state.is_dying;
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state.lock().is_dead
    }

    /// How many operations came so far.
    pub(crate) fn arrivals(&self) -> u64 {
        self.state.lock().arrivals
    }

    /// Names of the operations that did not wait, sorted.
    pub(crate) fn immediate(&self) -> Vec<String> {
        let mut names = self.state.lock().immediate.clone();
        names.sort();
        names
    }

    /// Waits until the simulation lets the operation go on, and returns what becomes of it.
    pub(crate) async fn pass(&self, kind: &str, path: &str) -> Fate {
        let name = format!("{kind} {}", self.world.short(path));
        // what the Delta kernel asks for is waited for by a thread that holds up the time
        if std::thread::current().id() != self.thread || path.starts_with("master/") {
            return self.at_once(&name);
        }
        let (go_on, went_on) = oneshot::channel();
        let arrival = {
            let mut state = self.state.lock();
            if state.is_dead {
                return Fate::Dead;
            }
            state.arrivals += 1;
            let arrival = state.arrivals;
            state.waiting.insert(arrival, Waiting { name, not_before_us: i64::MIN, go_on });
            arrival
        };
        let _gone = Gone { link: self, arrival };
        match went_on.await.unwrap_or(Fate::Dead) {
            Fate::DiesAfter => Fate::DiesAfter,
            _ if self.is_dead() => Fate::Dead,
            fate => fate,
        }
    }

    /// The fate follows from the name and from how often it came, not from the order among threads.
    fn at_once(&self, name: &str) -> Fate {
        let mut state = self.state.lock();
        state.arrivals += 1;
        let times = state.occurrences.entry(name.to_owned()).or_default();
        *times += 1;
        let name = format!("{name} #{times}");
        if state.is_dead {
            return Fate::Dead;
        }
        state.immediate.push(name.clone());
        let hash = xxh3_64(format!("{} {} {name}", self.seed, self.number).as_bytes());
        let fate = match &state.crash {
            Some(Crash::Named { name: planned, fate }) if *planned == name => *fate,
            _ => state.weather.fate((hash >> 11) as f64 / (1_u64 << 53) as f64),
        };
        // not at once: what other threads are about to do must not depend on who was quicker
        state.is_dying |= matches!(fate, Fate::DiesBefore | Fate::DiesAfter);
        drop(state);
        self.world.note_unordered(&format!("p{} {name}: {fate:?}", self.number));
        fate
    }

    pub(crate) fn add_log(&self, log: &Arc<SimulatedLog>) {
        self.state.lock().logs.push(Arc::downgrade(log));
    }

    /// What may be let go on now, in an order that does not depend on threads.
    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        let state = self.state.lock();
        let now_us = self.world.clock.now_us();
        let due = state.waiting.iter().filter(|(_, waiting)| waiting.not_before_us <= now_us);
        let operations = due.map(|(arrival, w)| Candidate::Operation { name: w.name.clone(), arrival: *arrival });
        let logs = state.logs.iter().enumerate().filter_map(|(index, log)| Some((index, log.upgrade()?)));
        let fsyncs = logs.filter(|(_, log)| log.has_queued());
        let fsyncs = fsyncs.map(|(log, known)| Candidate::Fsync { log, name: format!("fsync {}", known.name()) });
        let mut all: Vec<Candidate> = operations.chain(fsyncs).collect();
        all.sort();
        all
    }

    /// Lets a candidate go on.
    pub(crate) fn let_go_on(&self, candidate: &Candidate, operation: u64, rng: &mut ChaCha8Rng) {
        let (chance, slow, slow_ms): (f64, f64, i64) = (rng.random(), rng.random(), rng.random_range(1..400));
        let (weather, crash) = {
            let state = self.state.lock();
            (state.weather, state.crash.clone())
        };
        let fate = match crash {
            Some(Crash::At { operation: planned, fate }) if planned == operation => fate,
            _ if slow < weather.slow => return self.delay(candidate, slow_ms),
            _ => weather.fate(chance),
        };
        self.world.note(format!("p{} {operation} {}: {fate:?}", self.number, candidate.name()));
        match candidate {
            Candidate::Operation { arrival, .. } => self.release(*arrival, fate),
            Candidate::Fsync { log, .. } => {
                let log = self.state.lock().logs[*log].upgrade();
                if let Some(log) = log {
                    log.fsync(fate, rng);
                }
            }
        }
        if matches!(fate, Fate::DiesBefore | Fate::DiesAfter) {
            self.die();
        }
    }

    fn delay(&self, candidate: &Candidate, by_ms: i64) {
        let mut state = self.state.lock();
        let until_us = self.world.clock.now_us() + by_ms * 1_000;
        if let Candidate::Operation { arrival, .. } = candidate
            && let Some(waiting) = state.waiting.get_mut(arrival)
        {
            waiting.not_before_us = until_us;
        }
    }

    fn release(&self, arrival: u64, fate: Fate) {
        let waiting = self.state.lock().waiting.remove(&arrival);
        if let Some(waiting) = waiting {
            // whoever waited may have given up
            let _ = waiting.go_on.send(fate);
        }
    }

    /// A crash leaves on the disk what was written, in order, whether it was synced or not.
    pub(crate) fn leave_logs(&self, rng: &mut ChaCha8Rng) {
        let logs: Vec<_> = self.state.lock().logs.iter().filter_map(Weak::upgrade).collect();
        for log in logs {
            log.crash(rng);
        }
    }

    pub(crate) fn barriers(&self) -> Vec<Cut> {
        self.state.lock().barriers.clone()
    }

    pub(crate) fn add_barrier(&self, cut: &Cut) {
        self.state.lock().barriers.push(cut.clone());
    }

    pub(crate) fn remove_barrier(&self, cut: &Cut) {
        let mut state = self.state.lock();
        if let Some(at) = state.barriers.iter().position(|known| known.same_position(cut)) {
            state.barriers.remove(at);
        }
    }

    /// What the process waits for, in words.
    pub(crate) fn waits_for(&self) -> String {
        let state = self.state.lock();
        let names: Vec<&str> = state.waiting.values().map(|waiting| waiting.name.as_str()).collect();
        names.join(", ")
    }
}

/// Takes an operation back that nobody waits for any more.
struct Gone<'a> {
    link: &'a Link,
    arrival: u64,
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.link.state.lock().waiting.remove(&self.arrival);
    }
}
