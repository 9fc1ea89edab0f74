//! `apply FILE|DIR [--dry-run]`: scripts go to the server as they are, with the files that they name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use schemas::TableSource;
use schemas::statement::{Statement, parse_script};

use super::Session;
use super::sql::print_answer;
use crate::arguments::ApplyArguments;
use crate::client::SqlRequest;
use crate::exit::{Exit, fail};
use crate::output::note;

/// Bytes of all files that one script may name in `FROM FILE`, as JSON strings: with the script itself
/// well below what a server takes (`limits.body_bytes_max`, 64 MiB).
const FILES_BYTES_MAX: u64 = 32 * 1_048_576;

pub(super) async fn apply(session: &Session, options: &ApplyArguments) -> anyhow::Result<()> {
    for path in scripts(&options.path)? {
        let text = std::fs::read_to_string(&path).with_context(|| format!("script {}", path.display()))?;
        let request = script_request(text, path.parent().unwrap_or(Path::new(".")))?;
        let request = SqlRequest { dry_run: options.dry_run, ..request };
        let done = if options.dry_run { "checked" } else { "applied" };
        let answer = session.client.sql(&request).await.with_context(|| path.display().to_string())?;
        print_answer(session.output, &answer)?;
        note(&format!("{} {done}", path.display()));
    }
    Ok(())
}

/// The script itself, or every `*.sql` of a folder in order of name.
fn scripts(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let Ok(entries) = std::fs::read_dir(path) else {
        return fail(Exit::Usage, format!("{}: no such script or folder", path.display()));
    };
    let mut found = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    found.retain(|entry| entry.is_file() && entry.extension().is_some_and(|extension| extension == "sql"));
    found.sort();
    if found.is_empty() {
        return fail(Exit::Usage, format!("{}: no *.sql in this folder", path.display()));
    }
    Ok(found)
}

/// A script with the contents of the files that its `FROM FILE` names, relative to `folder`.
///
/// What cannot be parsed or is not there is left to the server, whose message has line and caret.
///
/// # Errors
/// If a file cannot be read as text, or all of them are larger than the limit.
pub fn script_request(sql: String, folder: &Path) -> anyhow::Result<SqlRequest> {
    let statements = parse_script(&sql).unwrap_or_default();
    let (mut files, mut bytes) = (BTreeMap::new(), 0);
    for placed in statements {
        let Statement::CreateTable(table) = placed.statement else { continue };
        let TableSource::File(file) = table.source else { continue };
        let path = folder.join(&file);
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if files.contains_key(&file) {
            continue;
        }
        // what is too large is not read; a string in JSON is never shorter than its text
        let content = if metadata.len() > FILES_BYTES_MAX { None } else { Some(read_text(&path, &table.name)?) };
        bytes += content.as_deref().map_or(metadata.len(), json_bytes);
        if let Some(content) = content.filter(|_| bytes <= FILES_BYTES_MAX) {
            files.insert(file, content);
            continue;
        }
        let text = format!(
            "table {}: with {} the files of the script have {bytes} bytes in JSON, the limit is {FILES_BYTES_MAX}",
            table.name,
            path.display()
        );
        return fail(Exit::Usage, text);
    }
    Ok(SqlRequest { sql, files, ..SqlRequest::default() })
}

fn read_text(path: &Path, table: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("table {table}: {}", path.display()))
}

/// Bytes of a text as a JSON string: two for what has a short escape, six for other control characters.
fn json_bytes(text: &str) -> u64 {
    let bytes = text.bytes().map(|byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    });
    2 + bytes.sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit;

    #[test]
    fn folder_gives_its_scripts_in_order_of_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["20_views.sql", "10_streams.sql", "notes.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let names: Vec<_> = scripts(folder.path()).unwrap().iter().map(|p| p.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["10_streams.sql", "20_views.sql"]);
        let missing = scripts(&folder.path().join("no")).unwrap_err();
        assert_eq!(exit::code(&missing), Exit::Usage);
    }

    #[test]
    fn files_that_a_script_names_travel_with_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ads.csv"), "ad,campaign\n1,2\n").unwrap();
        let sql = "CREATE TABLE ads (ad INT, campaign INT) FROM FILE 'ads.csv';\n\
                   CREATE TABLE gone (a INT) FROM FILE 'gone.csv';";
        let request = script_request(sql.into(), folder.path()).unwrap();
        assert_eq!(request.files, BTreeMap::from([("ads.csv".to_owned(), "ad,campaign\n1,2\n".to_owned())]));
        assert_eq!(request.sql, sql);
        assert!(script_request("CREATE NONSENSE".into(), folder.path()).unwrap().files.is_empty());
    }

    #[test]
    fn files_count_as_they_travel() {
        let text = "a\"\\\n\r\t\u{8}\u{c}\u{1}\u{7f}é—";
        assert_eq!(json_bytes(text), serde_json::to_string(text).unwrap().len() as u64);
        let folder = tempfile::tempdir().unwrap();
        let quotes = FILES_BYTES_MAX as usize / 2;
        std::fs::write(folder.path().join("ads.csv"), "\"".repeat(quotes)).unwrap();
        let refused =
            script_request("CREATE TABLE ads (ad INT) FROM FILE 'ads.csv'".into(), folder.path()).unwrap_err();
        assert_eq!(exit::code(&refused), Exit::Usage);
        assert!(refused.to_string().contains("the limit is 33554432"), "{refused}");
    }
}
