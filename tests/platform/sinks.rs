//! Sinks: what is at the other end is the view, whatever dies on the way. (R-046, R-059, R-061, R-101, issue 5 point 4)

mod append;
mod cases;
mod crash;
mod example;
mod kafka;
pub(crate) mod postgres;
mod receiver;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// Rows by key as the lines of a file sink say, all of its files in order. Panics where a file is missing or broken off.
pub(crate) fn replayed(folder: &Path, key: &[&str]) -> BTreeMap<String, Value> {
    let mut rows = BTreeMap::new();
    for line in lines(folder) {
        match line["op"].as_str().unwrap() {
            "snapshot" => rows.clear(),
            "upsert" => drop(rows.insert(key_of(&line["row"], key), line["row"].clone())),
            "delete" => drop(rows.remove(&key_of(&line["key"], key))),
            other => panic!("{other}"),
        }
    }
    rows
}

/// The lines of all files, in order, without their ends.
pub(crate) fn lines(folder: &Path) -> Vec<Value> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".ndjson"));
    names.sort();
    let mut all = vec![];
    for (number, name) in (1..).zip(&names) {
        assert_eq!(*name, format!("{number:020}.ndjson"), "no number is left out: {names:?}");
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let end = lines.pop().unwrap();
        assert_eq!(
            (&end["end"], end["rows"].as_u64()),
            (&Value::Bool(true), Some(lines.len() as u64)),
            "{name}: {end}"
        );
        all.extend(lines);
    }
    all
}

pub(crate) fn key_of(row: &Value, key: &[&str]) -> String {
    key.iter().map(|name| row[*name].to_string()).collect::<Vec<_>>().join(",")
}

/// The rows of an answer as objects, sorted as text.
pub(crate) fn objects(answer: &Value) -> Vec<String> {
    let names: Vec<&str> = answer["columns"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    let object = |row: &Value| {
        let members =
            names.iter().zip(row.as_array().unwrap()).map(|(name, value)| ((*name).to_owned(), value.clone()));
        Value::Object(members.collect()).to_string()
    };
    let mut rows: Vec<String> = answer["rows"].as_array().unwrap().iter().map(object).collect();
    rows.sort();
    rows
}
