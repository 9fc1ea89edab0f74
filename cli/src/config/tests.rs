//! Precedence, unknown keys, origins.

use std::io::Write;

use rstest::rstest;

use super::*;
use crate::arguments::{GlobalOptions, ServeOptions};
use crate::exit;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn nothing_given_is_the_built_in() {
    assert_eq!(Config::load(&Sources::default()).unwrap(), Config::default());
}

#[test]
fn flags_beat_environment_beats_file_beats_built_in() {
    let file = file("listen = \"127.0.0.1:1\"\ndata_dir = \"a\"\n[limits]\nruns_at_once = 2\nruns_kept = 3\n");
    let sources = Sources {
        file: Some(file.path().to_owned()),
        environment: environment(&[
            ("BIFOLD__LISTEN", "127.0.0.1:2"),
            ("BIFOLD__LIMITS__RUNS_AT_ONCE", "4"),
            ("BIFOLD__ROLES", "speed, ingest"),
            ("BIFOLD_URL", "http://elsewhere"),
            ("PATH", "/bin"),
        ]),
        flags: vec![("listen", "127.0.0.1:3".into())],
        ..Sources::default()
    };
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.listen.port(), 3);
    assert_eq!(config.limits.runs_at_once, 4);
    assert_eq!(config.limits.runs_kept, 3);
    assert_eq!(config.data_dir, PathBuf::from("a"));
    assert_eq!(config.roles, [Role::Ingest, Role::Speed]);
    assert_eq!(exit::code(&config.check_roles().unwrap_err()), Exit::Usage);
    assert!(Config::default().check_roles().is_ok());
    assert_eq!(config.limits.body_bytes_max, Limits::default().body_bytes_max);
}

#[test]
fn every_value_knows_its_origin_and_the_token_stays_secret() {
    let file = file("[limits]\nruns_kept = 3\n");
    let sources = Sources {
        file: Some(file.path().to_owned()),
        environment: environment(&[("BIFOLD__AUTH__TOKEN", "0042")]),
        flags: vec![("data_dir", "d".into())],
        ..Sources::default()
    };
    assert_eq!(Config::load(&sources).unwrap().auth.token.as_deref(), Some("0042"));
    let origins = sources.origins().unwrap();
    let of = |key: &str| {
        let found = origins.iter().find(|o| o.key == key).unwrap();
        (found.value.clone().unwrap_or_default(), found.origin.clone())
    };
    assert_eq!(of("limits.runs_kept"), ("3".into(), format!("file {}", file.path().display())));
    assert_eq!(of("auth.token"), ("\"…\"".into(), "environment variable BIFOLD__AUTH__TOKEN".into()));
    assert_eq!(of("data_dir"), ("\"d\"".into(), "flag --data-dir".into()));
    assert_eq!(of("log.format"), ("\"text\"".into(), "built-in".into()));
    assert_eq!(of("store_url"), (String::new(), "built-in".into()));
}

#[test]
fn a_clients_token_is_not_the_servers() {
    let global = GlobalOptions { token: Some("mine".into()), ..GlobalOptions::default() };
    let sources = Sources { environment: vec![], ..Sources::of_process(&global, &ServeOptions::default()) };
    assert_eq!(Config::load(&sources).unwrap().auth.token, None);
}

#[rstest]
#[case::in_a_section("[limits]\nbody_byte_max = 1\n", "did you mean `limits.body_bytes_max`?")]
#[case::at_the_top("data_dri = 'x'\n", "did you mean `data_dir`?")]
#[case::far_from_all("zebra = 1\n", "unknown key `zebra`")]
#[case::wrong_section("[limit]\nruns_kept = 3\n", "did you mean `limits.runs_kept`?")]
fn unknown_key_is_an_error_with_a_suggestion(#[case] text: &str, #[case] expected: &str) {
    let file = file(text);
    let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
    let error = Config::load(&sources).unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
    assert!(error.to_string().contains(&file.path().display().to_string()), "{error}");
    assert_eq!(exit::code(&error), Exit::Usage);
}

#[rstest]
#[case::environment_key("BIFOLD__LIMITS__RUNS_KEEP", "3", "unknown key `limits.runs_keep`")]
#[case::not_an_address("BIFOLD__LISTEN", "here", "listen")]
#[case::not_a_number("BIFOLD__LIMITS__RUNS_KEPT", "many", "limits.runs_kept")]
#[case::too_few("BIFOLD__LIMITS__RUNS_KEPT", "1", "at least 2")]
#[case::unknown_role("BIFOLD__ROLES", "ingest,kafka", "no role `kafka`")]
#[case::no_url("BIFOLD__STORE_URL", "not a url", "is no URL")]
fn wrong_value_names_its_key(#[case] name: &str, #[case] value: &str, #[case] expected: &str) {
    let sources = Sources { environment: environment(&[(name, value)]), ..Sources::default() };
    let error = Config::load(&sources).unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
    assert_eq!(exit::code(&error), Exit::Usage);
}

#[test]
fn a_named_file_must_exist_but_the_default_need_not() {
    let missing = PathBuf::from("no-such-file.toml");
    let named = Sources { file: Some(missing.clone()), ..Sources::default() };
    assert!(Config::load(&named).unwrap_err().to_string().contains("does not exist"));
    let default = Sources { default_file: Some(missing), ..Sources::default() };
    assert!(Config::load(&default).is_ok());
}

#[test]
fn the_object_store_is_the_data_folder_unless_told_otherwise() {
    let mut config = Config::default();
    assert_eq!(config.object_store_url().unwrap().scheme(), "file");
    assert!(config.object_store_url().unwrap().path().ends_with("/bifold-data/"));
    config.store_url = Some("s3://bucket/prefix".into());
    assert_eq!(config.object_store_url().unwrap().as_str(), "s3://bucket/prefix");
}
