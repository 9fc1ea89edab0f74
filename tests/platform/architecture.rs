//! The table of allowed edges between crates (ARCHITECTURE.md): a new edge is a visible decision.

use std::collections::BTreeMap;

use cargo_metadata::{DependencyKind, MetadataCommand};

const ALLOWED: [(&str, &[&str]); 10] = [
    ("schemas", &[]),
    ("operators", &["schemas"]),
    ("topic_id", &[]),
    ("storage", &["schemas", "topic_id"]),
    ("ingest", &["schemas", "storage"]),
    ("speed", &["schemas", "operators", "storage"]),
    ("batch", &["schemas", "operators", "storage"]),
    ("serving", &["schemas", "operators", "storage"]),
    ("cli", &["schemas", "operators", "storage", "ingest", "speed", "batch", "serving"]),
    ("benches", &["schemas", "operators", "storage", "ingest", "speed", "batch", "serving", "cli"]),
];

#[test]
fn crates_depend_only_on_what_the_table_allows() {
    let metadata = MetadataCommand::new().manifest_path("../Cargo.toml").no_deps().exec().unwrap();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into();
    let ours: Vec<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    for package in &metadata.packages {
        if package.name.as_str() == "tests" {
            continue;
        }
        let known =
            allowed.get(package.name.as_str()).unwrap_or_else(|| panic!("{} is not in the table", package.name));
        let edges = package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal);
        for edge in edges.filter(|edge| ours.contains(&edge.name.as_str())) {
            assert!(known.contains(&edge.name.as_str()), "{} must not use {}", package.name, edge.name);
        }
    }
}

/// `schemas` and `operators` know no tokio, no file, no network, no clock.
#[test]
fn the_pure_core_knows_no_outside() {
    for name in ["schemas", "operators"] {
        let manifest = std::fs::read_to_string(format!("../{name}/Cargo.toml")).unwrap();
        for banned in ["tokio", "object_store", "reqwest", "axum", "tempfile"] {
            assert!(!manifest.lines().any(|line| line.starts_with(banned)), "{name} depends on {banned}");
        }
        let knows_chrono = manifest.lines().any(|line| line.starts_with("chrono"));
        assert!(!knows_chrono || name == "operators", "{name} depends on chrono: only windows need calendars");
        for file in sources(&format!("../{name}/src")) {
            let text = std::fs::read_to_string(&file).unwrap();
            for banned in
                ["std::fs", "std::net", "SystemTime", "Instant::now", "Utc::now", "Local::now", "chrono::Local"]
            {
                assert!(!text.contains(banned) || file.contains("tests"), "{file} uses {banned}");
            }
        }
    }
}

fn sources(folder: &str) -> Vec<String> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(path.to_str().unwrap()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path.to_str().unwrap().to_owned());
        }
    }
    found
}
