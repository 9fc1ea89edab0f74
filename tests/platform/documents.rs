//! Every command in the README is run, with the library that the binary is made of.

use std::path::Path;

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

/// The demo tells its story to the end: five beats, then late = 'drop' beside the default. (R-012)
#[tokio::test(flavor = "multi_thread")]
async fn the_demo_runs_to_its_end() {
    use clap::Parser;
    let arguments = bifold::arguments::Arguments::parse_from(["bifold", "demo", "--events", "5000"]);
    tokio::time::timeout(PATIENCE, bifold::commands::dispatch(arguments)).await.expect("in time").unwrap();
    assert!(!Path::new("bifold-data").exists(), "the demo leaves nothing behind");
}
