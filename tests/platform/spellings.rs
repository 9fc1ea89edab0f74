//! How people who know another system write a view: each snippet works, or is refused with an error that names the
//! construct, says why in one line, stands at the construct, and tells the spelling that works, which is run too.
//! The table is `spellings.txt`; the page `docs/spellings.md` is made from it.
//!
//! `INSTA_UPDATE=always` writes what is said into the table and the page again. Answers are written by hand.
//! `BIFOLD_SPELLINGS='ksqlDB | EMIT'` runs only the lines that begin so.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, PATIENCE, Server, rows};

const TABLE: &str = include_str!("spellings.txt");
const PAGE: &str = include_str!("../../docs/spellings.md");

const EVENTS: [(&str, &str, f64, i64, &str); 5] = [
    ("1", "a", 1.5, 10, "00:00"),
    ("2", "a", 2.5, 20, "00:10"),
    ("3", "b", 4.0, 5, "00:20"),
    ("4", "a", 3.0, 10, "01:00"),
    ("5", "b", 6.0, 7, "01:30"),
];

const SETTING: &str = "CREATE STREAM s (id TEXT NOT NULL, k TEXT, x DOUBLE PRECISION, n BIGINT, at TIMESTAMPTZ NOT NULL, \
    PRIMARY KEY (id), WATERMARK FOR at AS at); \
    CREATE STREAM t (id TEXT NOT NULL, y BIGINT, PRIMARY KEY (id)); \
    CREATE STREAM posts (id TEXT NOT NULL, tags TEXT[], PRIMARY KEY (id)); \
    CREATE TABLE d (k TEXT, name TEXT) FROM FILE 'd.csv'; \
    CREATE TABLE e (k TEXT, since TIMESTAMPTZ, name TEXT, PRIMARY KEY (k, since)) FROM FILE 'e.csv' WITH (valid_from = 'since'); \
    CREATE MATERIALIZED VIEW base AS SELECT k, count(*) AS c FROM s GROUP BY k";

const DIMENSION: &str = "k,name\na,alpha\nb,beta\n";
const VERSIONED: &str =
    "k,since,name\na,2024-01-01T00:00:00Z,old\na,2024-01-01T00:30:00Z,new\nb,2024-01-01T01:00:00Z,beta\n";

/// One snippet: its texts by the name of their section.
struct Case {
    system: String,
    construct: String,
    texts: BTreeMap<String, String>,
}

impl Case {
    fn parse(text: &str) -> Self {
        let (heading, rest) = text.split_once('\n').unwrap();
        let (system, construct) = heading.split_once(" | ").unwrap_or_else(|| panic!("{heading}: which system?"));
        let (mut texts, mut section): (BTreeMap<String, String>, _) = (BTreeMap::new(), "snippet".to_owned());
        for line in rest.trim_end().lines() {
            if let Some(name) = line.strip_prefix("--- ") {
                name.trim().clone_into(&mut section);
                texts.insert(section.clone(), String::new());
            } else {
                let text = texts.entry(section.clone()).or_default();
                text.push_str(line);
                text.push('\n');
            }
        }
        let case = Self { system: system.into(), construct: construct.into(), texts };
        assert!(case.is_refused() != case.texts.contains_key("works"), "{heading}: refused, or does it work?");
        assert_eq!(case.is_refused(), case.texts.contains_key("write"), "{heading}: what is written instead?");
        assert!(case.texts.contains_key("answer"), "{heading}: what is the answer?");
        case
    }

    fn all() -> Vec<Self> {
        TABLE.split("\n=== ").skip(1).map(Self::parse).collect()
    }

    fn is_refused(&self) -> bool {
        self.texts.contains_key("refused")
    }

    fn text(&self, section: &str) -> &str {
        self.texts.get(section).map_or("", |text| text.trim_end())
    }

    fn heading(&self) -> String {
        format!("{} | {}", self.system, self.construct)
    }

    /// As the table has it.
    fn written(&self) -> String {
        let mut text = format!("=== {}\n{}\n", self.heading(), self.text("snippet"));
        for section in ["refused", "works", "write", "answer"] {
            if let Some(lines) = self.texts.get(section) {
                let _ = write!(text, "--- {section}\n{lines}");
            }
        }
        text
    }
}

async fn set_up(client: &Client) {
    client.try_sql(json!({ "sql": SETTING, "files": { "d.csv": DIMENSION, "e.csv": VERSIONED } })).await.unwrap();
    let line = |(id, k, x, n, at): &(&str, &str, f64, i64, &str)| {
        json!({ "id": id, "k": k, "x": x, "n": n, "at": format!("2024-01-01T{at}:00Z") }).to_string() + "\n"
    };
    client.ingest("s", EVENTS.iter().map(line).collect::<String>()).await;
    let post = |(id, tags): (&str, &[&str])| json!({ "id": id, "tags": tags }).to_string() + "\n";
    let posts: [(&str, &[&str]); 3] = [("1", &["x", "y", "x"]), ("2", &["y"]), ("3", &[])];
    client.ingest("posts", posts.into_iter().map(post).collect::<String>()).await;
    client.ingest("t", "{\"id\":\"1\",\"y\":100}\n{\"id\":\"3\",\"y\":300}\n").await;
}

/// Runs a script statement by statement: a view over history answers when its first run is done.
async fn answer(client: &Client, script: &str) -> Result<String, String> {
    let mut last = Value::Null;
    for statement in script.split(";\n") {
        let answer = client.try_sql(json!({ "sql": statement, "files": { "d.csv": DIMENSION } })).await;
        last = answer.map_err(|(_, problem)| format!("does not work: {}", problem["detail"].as_str().unwrap()))?;
        if let Some(rest) = statement.strip_prefix("CREATE MATERIALIZED VIEW ")
            && !statement.ends_with("WITH NO DATA")
        {
            wait_ready(client, rest.split_whitespace().next().unwrap()).await?;
        }
    }
    Ok(rows(&last).iter().map(|row| exact(row).to_string() + "\n").collect())
}

async fn wait_ready(client: &Client, view: &str) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        match client.try_sql(json!({ "sql": format!("SELECT count(*) FROM {view}") })).await {
            Ok(_) => return Ok(()),
            Err((503, problem))
                if begun.elapsed() < PATIENCE && !problem.to_string().contains("did not publish it:") =>
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err((_, problem)) => return Err(format!("has no history: {}", problem["detail"])),
        }
    }
}

/// The harness hands on floats as texts.
fn exact(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(exact).collect(),
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), exact(value))).collect(),
        Value::String(text) if text.contains('.') => text.parse::<f64>().map_or_else(|_| value.clone(), Value::from),
        other => other.clone(),
    }
}

async fn tear_down(client: &Client) {
    for gone in ["MATERIALIZED VIEW IF EXISTS w", "MATERIALIZED VIEW IF EXISTS v", "STREAM IF EXISTS clicks"] {
        client.sql(&format!("DROP {gone}")).await;
    }
}

fn ensure(holds: bool, what: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.into()) }
}

/// What a refusal has to have: the construct by name and by place, and what to write.
fn said(case: &Case, problem: &Value) -> Result<String, String> {
    let detail = problem["detail"].as_str().unwrap();
    let hint = problem["hint"].as_str().ok_or_else(|| format!("no hint: {detail}"))?;
    let plain = |text: &str| text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let first = plain(detail.lines().next().unwrap());
    ensure(first.contains(&plain(case.construct.trim_matches('\''))), format!("is not named: {detail}"))?;
    let place = |field: &str| problem["position"][field].as_u64().ok_or_else(|| format!("has no place: {detail}"));
    let (line, column) = (place("line")? as usize, place("column")? as usize);
    let there: String = case.text("snippet").lines().nth(line - 1).unwrap().chars().skip(column - 1).collect();
    ensure(plain(&there).starts_with(&plain(&case.construct)), format!("the caret is elsewhere: {detail}"))?;
    ensure(detail.lines().count() == 3, format!("is not one line, the statement and the caret: {detail}"))?;
    let caret = detail.lines().nth(2).unwrap();
    ensure(caret.trim() == "^" && caret.chars().count() == column + 2, format!("the caret is elsewhere: {detail}"))?;
    let code = problem["code"].as_str().unwrap();
    ensure(
        ["not_mergeable", "unsupported", "invalid_sql", "forbidden"].contains(&code),
        format!("is {code}: {detail}"),
    )?;
    Ok(format!("{code}: {detail}\nhint: {hint}\n"))
}

/// Runs a case; what is said of it now becomes its text.
async fn run(client: &Client, case: &mut Case) -> Result<(), String> {
    let mut script = case.text("snippet").to_owned();
    let mut otherwise = Ok(());
    if case.is_refused() {
        let problem = match client.try_sql(json!({ "sql": script })).await {
            Err((_, problem)) => problem,
            Ok(answer) => return Err(format!("is accepted: {answer}")),
        };
        let said = said(case, &problem)?;
        otherwise = ensure(case.texts["refused"] == said, format!("says otherwise:\n{said}"));
        case.texts.insert("refused".into(), said);
        case.text("write").clone_into(&mut script);
    }
    let found = answer(client, &script).await?;
    ensure(found.trim_end() == case.text("answer"), format!("answers otherwise:\n{found}"))?;
    if updates() { Ok(()) } else { otherwise }
}

fn updates() -> bool {
    std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always")
}

fn path(below: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(below)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_works_or_points_to_our_spelling() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    set_up(client).await;
    let mut cases = Case::all();
    let mut wrong = String::new();
    let only = std::env::var("BIFOLD_SPELLINGS").unwrap_or_default();
    for case in cases.iter_mut().filter(|case| case.heading().starts_with(&only)) {
        if let Err(what) = run(client, case).await {
            let _ = writeln!(wrong, "{}: {what}", case.heading());
        }
        tear_down(client).await;
    }
    server.stop().await;
    if updates() {
        let (preface, _) = TABLE.split_once("\n=== ").unwrap();
        let written: Vec<String> = cases.iter().map(Case::written).collect();
        std::fs::write(path("platform/spellings.txt"), format!("{preface}\n{}", written.join("\n"))).unwrap();
    }
    assert!(wrong.is_empty(), "(INSTA_UPDATE=always writes down what is said)\n{wrong}");
    assert!(cases.len() >= 80, "{} snippets", cases.len());
}

/// A text in a cell of the page's tables.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn page(cases: &[Case]) -> String {
    let mut page = String::from(
        "# Spellings of other systems\n\n\
         Each line is run by a test (`tests/platform/spellings.txt` has the whole snippets, the errors and the answers); \
         this page is made from it.\n",
    );
    let mut system = "";
    for case in cases {
        if case.system != system {
            system = &case.system;
            let _ = write!(page, "\n## {system}\n\n| there | here |\n|---|---|\n");
        }
        let there = cell(&case.construct);
        let here = if case.is_refused() {
            let said = case.text("refused");
            let why = said.lines().next().unwrap_or_default().split_once(": ").map_or("", |(_, why)| why);
            let why = why.rsplit_once(" (line ").map_or(why, |(why, _)| why);
            let hint = said.rsplit_once("\nhint: ").map_or("", |(_, hint)| hint);
            format!("{}; {}", cell(why), cell(hint))
        } else {
            "works".to_owned()
        };
        let _ = writeln!(page, "| `{there}` | {here} |");
    }
    page
}

#[test]
fn the_page_is_made_from_the_table() {
    let found = page(&Case::all());
    if updates() {
        std::fs::write(path("../docs/spellings.md"), found).unwrap();
        return;
    }
    assert_eq!(PAGE, found, "INSTA_UPDATE=always writes it again");
}
