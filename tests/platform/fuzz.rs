//! Fuzzing of everything that reads bytes of others (R-020, R-039): whatever comes, it is read or it is refused.
//!
//! ```text
//!  tests/corpus/<target>/…  ─┐                        ┌─► panic, on whatever thread, overflow of the stack,
//!  what the product writes  ─┼─► mutate ─► target ────┤   allocation past the limit, more than seconds
//!  inputs with new answers  ─┘   (a child process)    └─► a property of the target that does not hold
//! ```
//!
//! Each target runs in a child process (this test binary again) with a bounded address space, so that an allocation
//! by a claimed length ends the child and not the machine. The corpus is replayed as it is, then come so many fresh
//! mutations, by a seed that a failure names. There is no feedback from coverage on a stable compiler; what a target
//! answers stands in for it: an input with an answer that none had before is mutated further.
//!
//! An input that finds something is written to a file, as small as it can be made. It belongs into
//! `tests/corpus/<target>/` together with the correction. For longer: `just fuzz TARGET SECONDS`.

mod batch_views;
mod bodies;
mod corpus;
mod ddl;
mod deltas;
mod documents;
mod files;
mod folder;
mod http;
mod json;
mod log;
mod mutate;
mod worker;

use std::process::{Command, Stdio};

use rstest::rstest;

use self::mutate::Mutator;

/// Tells this binary to be the child: the name of the target.
const TARGET: &str = "BIFOLD_FUZZ_TARGET";
/// What the mutations follow from; a new one each time unless it is given.
const SEED: &str = "BIFOLD_FUZZ_SEED";
/// How long to go on, seconds, instead of a fixed number of mutations.
const SECONDS: &str = "BIFOLD_FUZZ_SECONDS";
/// The one target that is wanted; all of them unless it is given.
const ONLY: &str = "BIFOLD_FUZZ_ONLY";
/// Where the input stands that is being tried.
const CURRENT: &str = "BIFOLD_FUZZ_CURRENT";
/// Address space of a child, KiB: the code, the threads' stacks and what an honest input takes fit in many times.
const ADDRESS_SPACE_KIB: u64 = 6 * 1_048_576;

/// Something that reads bytes of others.
trait Target {
    /// Inputs to begin with, besides the corpus: what the product itself writes.
    fn seeds(&self) -> Vec<Vec<u8>> {
        vec![]
    }

    /// Words of the input's language.
    fn words(&self) -> &'static [&'static str] {
        &[]
    }

    /// A neighbour of `input`. The default knows bytes, text and numbers; targets that know more do it better.
    fn mutate(&self, mutator: &mut Mutator, input: &[u8], other: &[u8]) -> Vec<u8> {
        mutator.bytes(input, other, self.words())
    }

    /// Lets the product read the input. What it answers, in few words: inputs with new words are kept as seeds.
    ///
    /// # Errors
    /// A property that does not hold.
    fn check(&mut self, input: &[u8]) -> Result<String, String>;
}

fn target(name: &str) -> Box<dyn Target> {
    match name {
        "json" => Box::new(json::Json::new()),
        "bodies" => Box::new(bodies::Bodies),
        "files" => Box::new(files::Files::new()),
        "log" => Box::new(log::Segments::new()),
        "documents" => Box::new(documents::Documents),
        "deltas" => Box::new(deltas::Deltas),
        "batch_views" => Box::new(batch_views::BatchViews::new()),
        "ddl" => Box::new(ddl::Statements::new()),
        "http" => Box::new(http::Requests::start()),
        "folder" => Box::new(folder::Folders::new()),
        other => panic!("no target {other}"),
    }
}

#[rstest]
#[allow(clippy::print_stdout, reason = "`just fuzz` shows what was tried")]
#[case::json("json", 20_000)]
#[case::bodies("bodies", 4_000)]
#[case::files("files", 3_000)]
#[case::log("log", 1_000)]
#[case::documents("documents", 10_000)]
#[case::deltas("deltas", 5_000)]
#[case::batch_views("batch_views", 3_000)]
#[case::ddl("ddl", 1_500)]
#[case::http("http", 1_500)]
#[case::folder("folder", 25)]
fn whatever_comes_is_read_or_refused(#[case] name: &str, #[case] mutations: u64) {
    if let Ok(wanted) = std::env::var(TARGET) {
        // the child: the case that it was started for, and no other
        if wanted == name {
            worker::run(target(name).as_mut(), name, mutations);
        }
        return;
    }
    if std::env::var(ONLY).is_ok_and(|wanted| wanted != name) {
        return;
    }
    let seed = std::env::var(SEED).unwrap_or_else(|_| (uuid::Uuid::new_v4().as_u64_pair().0 >> 16).to_string());
    let folder = corpus::findings();
    let current = folder.join(format!("{name}-{}-current", std::process::id()));
    // the shell sets the limit, for nothing in the standard library does
    let limited = format!("ulimit -v {ADDRESS_SPACE_KIB}; exec \"$0\" \"$@\"");
    let child = Command::new("sh")
        .args(["-c", &limited])
        .arg(std::env::current_exe().unwrap())
        .args(["fuzz::whatever_comes_is_read_or_refused", "--nocapture", "--test-threads=1"])
        .envs([(TARGET, name), (SEED, &seed)])
        .env(CURRENT, &current)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, error) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    if !child.status.success() {
        let kept = corpus::keep(name, &std::fs::read(&current).unwrap_or_default());
        let _ = std::fs::remove_file(&current);
        panic!(
            "target {name}, seed {seed}: {}\nthe input is {}\nwith the correction it goes to tests/corpus/{name}/\n{}\n{}",
            child.status,
            kept.display(),
            last_lines(&error),
            last_lines(&out),
        );
    }
    let _ = std::fs::remove_file(&current);
    let tried = out.lines().find(|line| line.contains(&format!("target {name}: tried")));
    let tried = tried.unwrap_or_else(|| panic!("the child did not run its target:\n{out}\n{error}"));
    eprintln!("{tried}");
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
