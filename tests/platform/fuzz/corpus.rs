//! Where inputs are kept.

use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

/// The committed inputs of a target, by name.
pub(super) fn committed(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let Ok(entries) = std::fs::read_dir(&folder) else { return vec![] };
    let mut found: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).unwrap())
        })
        .collect();
    found.sort();
    found
}

/// The folder for inputs that have found something; it outlives the test.
pub(super) fn findings() -> PathBuf {
    let folder = std::env::temp_dir().join("bifold-fuzz");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Keeps an input; its name follows from its bytes.
pub(super) fn keep(target: &str, input: &[u8]) -> PathBuf {
    let path = findings().join(format!("{target}-{:016x}", xxh3_64(input)));
    std::fs::write(&path, input).unwrap();
    path
}
