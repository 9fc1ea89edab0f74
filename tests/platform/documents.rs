//! Every command in the README is run, with the library that the binary is made of.

use std::path::Path;

use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::PATIENCE;

/// Shell lines of the fenced blocks of a document.
fn commands(document: &str) -> Vec<String> {
    let text = std::fs::read_to_string(document).unwrap();
    let mut inside = false;
    let mut found = vec![];
    for line in text.lines() {
        match line.trim_start() {
            "```sh" => inside = true,
            "```" => inside = false,
            command if inside && !command.starts_with('#') && !command.is_empty() => found.push(command.to_owned()),
            _ => {}
        }
    }
    found
}

#[test]
fn the_readme_starts_with_its_two_commands() {
    let found = commands("../README.md");
    assert_eq!(found[..2], ["cargo run --release -- demo".to_owned(), "cargo test --workspace".to_owned()]);
}

/// Commands of the tables: "| `bifold …` | does |".
fn table_commands(document: &str) -> Vec<String> {
    let text = std::fs::read_to_string(document).unwrap();
    let cell = |line: &str| line.strip_prefix("| `bifold ").and_then(|rest| rest.split('`').next().map(str::to_owned));
    text.lines().filter_map(cell).collect()
}

/// Splits at blanks outside single quotes, as a shell does.
fn words(command: &str) -> Vec<String> {
    command
        .split('\'')
        .enumerate()
        .flat_map(|(index, part)| match index % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
            _ => vec![part.to_owned()],
        })
        .collect()
}

/// R-107: what the README tells a new user to type works, in its order, on a new data folder.
#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_readme_works() {
    use clap::Parser;
    let folder = tempfile::tempdir().unwrap();
    let server = crate::harness::Server::start(&folder.path().join("data")).await;
    let events = folder.path().join("events.ndjson");
    let event = r#"{"id":"1","repo":"r","author":"a","files":3,"event_time":"2024-01-01T00:00:00Z"}"#;
    std::fs::write(&events, event).unwrap();
    let found = table_commands("../README.md");
    assert!(found.len() >= 6, "{found:?}");
    for command in found {
        let mut arguments = vec!["bifold".to_owned(), "--url".into(), server.platform.url().into()];
        arguments.extend(["--token".to_owned(), server.platform.token().into()]);
        arguments.extend(words(&command).into_iter().map(|word| match word.as_str() {
            "events.ndjson" => events.to_str().unwrap().to_owned(),
            path if path.starts_with("schemas/") => format!("../{path}"),
            other => other.to_owned(),
        }));
        match bifold::arguments::Arguments::try_parse_from(&arguments) {
            Ok(parsed) => bifold::commands::dispatch(parsed).await.unwrap_or_else(|e| panic!("{command}: {e:#}")),
            Err(help) => assert_eq!(help.kind(), clap::error::ErrorKind::DisplayHelp, "{command}: {help}"),
        }
    }
    let answer = server.client.sql("SELECT sum(commits) FROM batch.commits_per_day").await;
    assert_eq!(answer["rows"][0][0], 1);
    server.stop().await;
}

/// The text of the first fenced block in a language.
fn block(document: &str, language: &str) -> String {
    let text = std::fs::read_to_string(document).unwrap();
    let (_, rest) = text.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// What stands between backquotes in a document's text.
fn quoted(document: &str) -> Vec<String> {
    let text = std::fs::read_to_string(document).unwrap();
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// R-107: the SQL, the tables and the routes that the README names are there.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_readme_names_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let server = crate::harness::Server::start(folder.path()).await;
    server.client.sql(&block("../README.md", "sql")).await;
    server.client.ingest("commits", r#"{"id":"1","repo":"apache/arrow-rs","event_time":"2024-01-01T00:00:00Z"}"#).await;
    server.client.run("commits_per_day").await;
    let names = quoted("../README.md");
    let schemas = ["batch.", "speed.", "recon.", "dlq."];
    let tables: Vec<&String> =
        names.iter().filter(|name| schemas.iter().any(|schema| name.starts_with(schema))).collect();
    assert!(tables.len() >= schemas.len(), "{tables:?}");
    for table in tables {
        server.client.sql(&format!("SELECT * FROM {table}")).await;
    }
    let routes: Vec<&str> = names
        .iter()
        .filter_map(|name| name.strip_prefix("GET ").or_else(|| name.starts_with('/').then_some(name)))
        .collect();
    assert!(routes.len() >= 5, "{routes:?}");
    for route in routes {
        let path = route.replace("{v}", "commits_per_day").replace("{s}", "commits");
        let answer = server.client.request("GET", &path).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    server.stop().await;
}

/// `just` and scripts know every command that documents name: recipes, and what they are asked for.
#[test]
fn the_developers_commands_are_there() {
    let justfile = std::fs::read_to_string("../justfile").unwrap();
    let recipes: Vec<&str> = justfile.lines().filter_map(|line| line.strip_suffix(':')).collect();
    let scripts = |recipe: &str| match recipe {
        "bench" => std::fs::read_to_string("../benches/run.sh").unwrap(),
        "kills" => std::fs::read_to_string("../infra/kills.sh").unwrap(),
        _ => String::new(),
    };
    let mut found = 0;
    for document in ["../README.md", "../docs/operations.md", "../benches/README.md", "../infra/components/README.md"] {
        for command in quoted(document).iter().filter_map(|quoted| quoted.strip_prefix("just ")) {
            found += 1;
            let words: Vec<&str> = command.split_whitespace().collect();
            let is_known = recipes.iter().any(|recipe| recipe.split_whitespace().next() == words.first().copied());
            assert!(is_known, "{document}: there is no `just {command}`");
            let script = scripts(words[0]);
            for word in words[1..].iter().take(1).filter(|_| !script.is_empty()) {
                let is_case = script.contains(&format!("  {word})")) || script.contains(&format!("\n{word}()"));
                assert!(is_case, "{document}: `just {command}`: the script has no {word}");
            }
        }
    }
    assert!(found >= 12, "{found} commands");
}

/// The demo tells its story to the end: five beats, then late = 'drop' beside the default. (R-012)
#[tokio::test(flavor = "multi_thread")]
async fn the_demo_runs_to_its_end() {
    use clap::Parser;
    let arguments = bifold::arguments::Arguments::parse_from(["bifold", "demo", "--events", "100000"]);
    tokio::time::timeout(PATIENCE, bifold::commands::dispatch(arguments)).await.expect("in time").unwrap();
    assert!(!Path::new("bifold-data").exists(), "the demo leaves nothing behind");
}

/// The fenced blocks of a page in their order: language, text.
fn blocks(document: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(document).unwrap();
    let fenced = text.split("```").skip(1).step_by(2).map(str::to_owned);
    fenced.map(|block| block.split_once('\n').map(|(language, text)| (language.into(), text.into())).unwrap()).collect()
}

/// The answer to a query, once the history of its view is there.
async fn answer(client: &crate::harness::Client, sql: &str) -> Value {
    let begun = std::time::Instant::now();
    loop {
        match client.try_sql(json!({ "sql": sql })).await {
            Ok(answer) => return answer,
            Err((503, _)) if begun.elapsed() < PATIENCE => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            Err((status, problem)) => panic!("{status}: {problem}\n{sql}"),
        }
    }
}

/// R-107: what a page shows is what happens: `csv` is the file of the `sql` behind it, `json` are events, and `text`
/// has queries, each with the rows of its answer below it. `json` of another stream than the page's names it.
#[rstest]
#[case::rows("rows", "notes", 2)]
#[case::dimensions("dimensions", "sales", 3)]
#[case::union("union", "web", 4)]
#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_a_page_are_right(#[case] page: &str, #[case] stream: &str, #[case] queries: usize) {
    let folder = tempfile::tempdir().unwrap();
    let server = crate::harness::Server::start(folder.path()).await;
    let (mut file, mut asked) = (String::new(), 0);
    for (language, text) in blocks(&format!("../docs/{page}.md")) {
        let (kind, stream) = language.split_once(' ').unwrap_or((&language, stream));
        match kind {
            "csv" => file = text,
            "json" => drop(server.client.ingest(stream, text).await),
            "sql" => {
                let body = json!({ "sql": text, "files": { "products.csv": file } });
                server.client.try_sql(body).await.unwrap_or_else(|(_, problem)| panic!("{page}: {problem}\n{text}"));
            }
            "text" => {
                let (mut query, mut found) = (String::new(), vec![]);
                for line in text.lines() {
                    if line.starts_with('[') {
                        assert!(!found.is_empty(), "{page}: {query}: no row {line}");
                        let row: Value = serde_json::from_str(line).unwrap();
                        assert_eq!(found.remove(0), row, "{page}: {query}");
                    } else {
                        assert!(found.is_empty(), "{page}: {query}: also {found:?}");
                        line.clone_into(&mut query);
                        found = crate::harness::rows(&answer(&server.client, line).await).clone();
                        asked += 1;
                    }
                }
                assert!(found.is_empty(), "{page}: {query}: also {found:?}");
            }
            other => panic!("{page}: a block of {other}"),
        }
    }
    assert_eq!(asked, queries, "{page}");
    server.stop().await;
}
