//! The child process: replays the corpus, then mutates until it is enough or something is found.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::mutate::Mutator;
use super::{CURRENT, SECONDS, SEED, Target, corpus};

/// Of the processor's time: an input of the size that is tried here is read in less, even by code without
/// optimisation. How long it takes by the clock says more about what else the machine does.
const INPUT_SECONDS_MAX: u64 = 10;
/// By the clock: whoever waits uses no processor, and may wait for ever.
const WAIT_SECONDS_MAX: u64 = 60;
/// A run in the suite ends after so long, however slow the machine is.
const SUITE_SECONDS_MAX: u64 = 12;
/// Bytes of an input.
const INPUT_BYTES_MAX: usize = 65_536;
/// Inputs with answers of their own that are kept.
const POOL_MAX: usize = 1_000;
/// Attempts to make an input that has found something smaller.
const SHRINKS_MAX: usize = 400;
/// No more of them after so long.
const SHRINK_SECONDS_MAX: u64 = 30;

/// The last panic, on whatever thread.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Runs a target; a finding ends the process with it. On a thread with the stack that tokio's have: 2 MiB.
#[expect(clippy::print_stdout, reason = "the parent looks for the last line")]
pub(super) fn run(target: &mut dyn Target, name: &str, mutations: u64) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // what the product catches and calls damage is none
        if storage::guarded::is_guarded() {
            return;
        }
        *PANIC.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(info.to_string());
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value == "1") {
            before(info);
        }
    }));
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let mut session = Session::new(target, name);
    session.replay();
    let seconds: Option<u64> = std::env::var(SECONDS).ok().map(|seconds| seconds.parse().unwrap());
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(SUITE_SECONDS_MAX));
    let mutations = if seconds.is_some() { u64::MAX } else { mutations };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut tried = 0;
    while tried < mutations && Instant::now() < until && !session.pool.is_empty() {
        session.mutate_once(&mut rng);
        tried += 1;
    }
    println!("target {name}: tried {tried} mutations by seed {seed}, {} kinds of answers", session.answers.len());
}

struct Session<'a> {
    target: &'a mut dyn Target,
    name: &'a str,
    current: File,
    watch: Watch,
    pool: Vec<Vec<u8>>,
    answers: BTreeSet<String>,
}

impl<'a> Session<'a> {
    fn new(target: &'a mut dyn Target, name: &'a str) -> Self {
        let current = File::create(std::env::var(CURRENT).unwrap()).unwrap();
        Self { target, name, current, watch: Watch::start(), pool: vec![], answers: BTreeSet::new() }
    }

    /// The corpus and the seeds as they are.
    fn replay(&mut self) {
        for (file, input) in corpus::committed(self.name) {
            self.try_or_end(&input, &format!("tests/corpus/{}/{file}", self.name));
            self.pool.push(input);
        }
        for input in self.target.seeds() {
            self.try_or_end(&input, "a seed");
            self.pool.push(input);
        }
    }

    fn mutate_once(&mut self, rng: &mut ChaCha8Rng) {
        let input = self.pool[rng.random_range(0..self.pool.len())].clone();
        let other = self.pool[rng.random_range(0..self.pool.len())].clone();
        let mut mutator = Mutator::new(rng);
        let mut mutated = self.target.mutate(&mut mutator, &input, &other);
        for _ in 0..mutator.more() {
            mutated = self.target.mutate(&mut mutator, &mutated, &other);
        }
        mutated.truncate(INPUT_BYTES_MAX);
        let is_new = self.try_or_end(&mutated, "a mutation");
        if is_new && self.pool.len() < POOL_MAX {
            self.pool.push(mutated);
        }
    }

    /// True if no input had this answer before. A finding is made small and ends the process.
    fn try_or_end(&mut self, input: &[u8], what: &str) -> bool {
        match self.attempt(input) {
            Ok(answer) => self.answers.insert(without_digits(&answer)),
            Err(finding) => {
                let small = self.shrunk(input);
                self.note(&small);
                let shown = String::from_utf8_lossy(&small[..small.len().min(500)]).into_owned();
                eprintln!("{what}: {finding}\nthe input, {} bytes: {shown:?}", small.len());
                std::process::exit(1);
            }
        }
    }

    fn attempt(&mut self, input: &[u8]) -> Result<String, String> {
        self.note(input);
        take_panic();
        let began = processor_time();
        self.watch.begin();
        let caught = catch_unwind(AssertUnwindSafe(|| self.target.check(input)));
        self.watch.end();
        if let Some(panic) = take_panic() {
            return Err(panic);
        }
        let took = processor_time().saturating_sub(began);
        if took > Duration::from_secs(INPUT_SECONDS_MAX) {
            return Err(format!("took {took:?}"));
        }
        caught.unwrap_or_else(|_| Err("a panic without words".into()))
    }

    /// What is being tried is in a file: whatever becomes of this process, its parent finds it.
    fn note(&self, input: &[u8]) {
        self.current.set_len(0).unwrap();
        self.current.write_all_at(input, 0).unwrap();
    }

    fn shrunk(&mut self, input: &[u8]) -> Vec<u8> {
        let mut small = input.to_vec();
        let mut piece = small.len() / 2;
        let mut attempts = 0;
        let until = Instant::now() + Duration::from_secs(SHRINK_SECONDS_MAX);
        let enough = |attempts| attempts >= SHRINKS_MAX || Instant::now() > until;
        while piece > 0 && !enough(attempts) {
            let mut at = 0;
            while at < small.len() && !enough(attempts) {
                let mut less = small.clone();
                less.drain(at..(at + piece).min(small.len()));
                attempts += 1;
                if self.attempt(&less).is_err() { small = less } else { at += piece }
            }
            piece /= 2;
        }
        small
    }
}

fn take_panic() -> Option<String> {
    PANIC.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
}

/// What all threads of this process have used so far (`utime` and `stime` of proc(5), ticks of 10 ms).
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let behind_name = stat.rsplit(") ").next().unwrap();
    let ticks = behind_name.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

/// Numbers in a message make no new kind of answer.
fn without_digits(answer: &str) -> String {
    answer.chars().filter(|c| !c.is_ascii_digit()).take(160).collect()
}

/// Ends the process when an input takes far too long: a loop without end is a finding like any other.
struct Watch {
    began: Instant,
    /// Milliseconds after `began`; none while nothing is tried.
    since: Arc<AtomicU64>,
    is_busy: Arc<AtomicBool>,
}

impl Watch {
    fn start() -> Self {
        let (began, since, is_busy) = (Instant::now(), Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (watched, busy) = (Arc::clone(&since), Arc::clone(&is_busy));
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(500));
                let now = began.elapsed().as_millis() as u64;
                let limit = WAIT_SECONDS_MAX * 1_000;
                if busy.load(Ordering::Acquire) && now.saturating_sub(watched.load(Ordering::Acquire)) > limit {
                    eprintln!("the input is not read to its end within {limit} ms");
                    std::process::exit(2);
                }
            }
        });
        Self { began, since, is_busy }
    }

    fn begin(&self) {
        self.since.store(self.began.elapsed().as_millis() as u64, Ordering::Release);
        self.is_busy.store(true, Ordering::Release);
    }

    fn end(&self) {
        self.is_busy.store(false, Ordering::Release);
    }
}
