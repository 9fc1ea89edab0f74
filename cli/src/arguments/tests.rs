//! Parsing of command lines.

use clap::CommandFactory;
use rstest::rstest;

use super::*;

fn parse(words: &[&str]) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(std::iter::once("bifold").chain(words.iter().copied()))
}

#[test]
fn definition_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn help_is_as_released() {
    let help = Arguments::command().term_width(100).render_help().to_string();
    insta::assert_snapshot!("help", help);
}

#[test]
fn no_command_is_serve_with_its_options() {
    let arguments = parse(&["--listen", "127.0.0.1:0", "--role", "ingest,speed"]).unwrap();
    assert!(arguments.command.is_none());
    assert_eq!(arguments.serve.listen.unwrap().port(), 0);
    assert_eq!(arguments.serve.role, [Role::Ingest, Role::Speed]);
}

#[test]
fn options_after_serve_override_those_before() {
    let arguments = parse(&["--listen", "127.0.0.1:1", "--role", "batch", "serve", "--listen", "127.0.0.1:2"]).unwrap();
    let Some(Command::Serve(later)) = arguments.command else { panic!("not serve") };
    let options = arguments.serve.overridden_by(later);
    assert_eq!(options.listen.unwrap().port(), 2);
    assert_eq!(options.role, [Role::Batch]);
}

#[rstest]
#[case::before(&["-o", "json", "--url", "http://h:1", "status"])]
#[case::after(&["status", "-o", "json", "--url", "http://h:1"])]
fn global_options_stand_anywhere(#[case] words: &[&str]) {
    let arguments = parse(words).unwrap();
    assert_eq!(arguments.global.output, Some(Format::Json));
    assert_eq!(arguments.global.url.as_deref(), Some("http://h:1"));
}

#[rstest]
#[case::view(&["run", "sales"], Some("sales"))]
#[case::view_and_wait(&["run", "sales", "--wait"], Some("sales"))]
#[case::view_called_ls(&["run", "--view", "ls"], Some("ls"))]
#[case::list(&["run", "ls"], None)]
fn run_takes_a_view_or_a_command(#[case] words: &[&str], #[case] view: Option<&str>) {
    let Some(Command::Run(run)) = parse(words).unwrap().command else { panic!("not run") };
    assert_eq!(run.view.or(run.named_view).as_deref(), view);
    assert_eq!(run.action.is_some(), view.is_none());
    assert_eq!(run.wait, words.contains(&"--wait"));
}

#[rstest]
#[case::sql_takes_one_source(&["sql", "-c", "select 1", "-f", "a.sql"])]
#[case::demo_takes_one_source(&["demo", "--git", ".", "--data", "a"])]
#[case::run_needs_something(&["run"])]
#[case::run_id_is_a_number(&["run", "show", "sales"])]
#[case::batch_rows_is_positive(&["ingest", "s", "-", "--batch-rows", "0"])]
#[case::unknown_role(&["serve", "--role", "kafka"])]
#[case::unknown_format(&["-o", "xml", "status"])]
#[case::unknown_command(&["frobnicate"])]
fn wrong_usage_exits_with_2(#[case] words: &[&str]) {
    assert_eq!(parse(words).unwrap_err().exit_code(), 2);
}
