//! Every key of the store. Nobody else concatenates one.

use uuid::Uuid;

/// Folder of the catalogue's versions.
pub const CATALOG: &str = "catalog/";
/// Folder of the documents that say whose the store is.
pub const OWNERS: &str = "owners/";
/// Folder of the run documents.
pub const RUNS: &str = "runs/";

/// `catalog/{sequence}.json`
pub fn catalog(sequence: u64) -> String {
    numbered(CATALOG, sequence)
}

/// `owners/{epoch}.json`
pub fn owner(epoch: u64) -> String {
    numbered(OWNERS, epoch)
}

/// `deltas/{stream}/`
pub fn deltas(stream: Uuid) -> String {
    format!("deltas/{stream}/")
}

/// `deltas/{stream}/{first}-{last}.delta`
pub fn delta(stream: Uuid, first: u64, last: u64) -> String {
    format!("deltas/{stream}/{first:020}-{last:020}.delta")
}

/// First and last checkpoint of a listed delta; none for another file.
pub fn parse_delta(path: &str) -> Option<(u64, u64)> {
    let name = path.rsplit('/').next()?.strip_suffix(".delta")?;
    let (first, last) = name.split_once('-')?;
    Some((digits(first)?, digits(last)?)).filter(|(first, last)| first <= last)
}

/// `views/{view}/`: everything of a view but its deltas.
pub fn view(view: Uuid) -> String {
    format!("views/{view}/")
}

/// `views/{view}/manifests/`
pub fn manifests(view: Uuid) -> String {
    format!("views/{view}/manifests/")
}

/// `views/{view}/manifests/{sequence}.json`
pub fn manifest(view: Uuid, sequence: u64) -> String {
    numbered(&manifests(view), sequence)
}

/// `views/{view}/runs/{run}/`: the batch view that a run made.
pub fn batch_view(view: Uuid, run: u64) -> String {
    format!("views/{view}/runs/{run:020}/")
}

/// `views/{view}/runs/{run}/part-{part}.parquet`
pub fn batch_view_part(view: Uuid, run: u64, part: u32) -> String {
    format!("views/{view}/runs/{run:020}/part-{part:05}.parquet")
}

/// `views/{view}/runs/{run}/late.parquet`: the events that the run left out as late.
pub fn late_events(view: Uuid, run: u64) -> String {
    format!("views/{view}/runs/{run:020}/late.parquet")
}

/// The run that a listed path below `views/{view}/runs/` belongs to.
pub fn parse_batch_view(path: &str) -> Option<u64> {
    let mut parts = path.split('/');
    let (Some("views"), Some(_), Some("runs"), Some(run)) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    digits(run)
}

/// `views/{view}/certificates/`
pub fn certificates(view: Uuid) -> String {
    format!("views/{view}/certificates/")
}

/// `views/{view}/certificates/{run}.json`
pub fn certificate(view: Uuid, run: u64) -> String {
    numbered(&certificates(view), run)
}

/// `runs/{run}.json`
pub fn run(run: u64) -> String {
    numbered(RUNS, run)
}

/// `tables/{table}/`
pub fn table_versions(table: Uuid) -> String {
    format!("tables/{table}/")
}

/// `tables/{table}/{version}.parquet`
pub fn table(table: Uuid, version: u32) -> String {
    format!("tables/{table}/{version:010}.parquet")
}

/// `imports/{stream}/`
pub fn imports(stream: Uuid) -> String {
    format!("imports/{stream}/")
}

/// `imports/{stream}/{content}.json`: how far an import is, named by the hash of what it imports.
pub fn import(stream: Uuid, content: u128) -> String {
    format!("imports/{stream}/{content:032x}.json")
}

/// `master/{stream}/`: the root of a stream's Delta table.
pub fn master(stream: Uuid) -> String {
    format!("master/{stream}/")
}

/// `sources/{stream}/`: what is known of the topic that a stream is read from.
pub fn sources(stream: Uuid) -> String {
    format!("sources/{stream}/")
}

/// `sources/{stream}/position.json`: how far the topic is read.
pub fn source_position(stream: Uuid) -> String {
    format!("sources/{stream}/position.json")
}

/// `sources/{stream}/log-{kind}.json`: the topic that a log was made in.
pub fn log_topic(stream: Uuid, kind: &str) -> String {
    format!("sources/{stream}/log-{kind}.json")
}

/// `sinks/{sink}/`
pub fn sink(sink: Uuid) -> String {
    format!("sinks/{sink}/")
}

/// `sinks/{sink}/position.json`: how far a sink has delivered.
pub fn sink_position(sink: Uuid) -> String {
    format!("sinks/{sink}/position.json")
}

/// `bifold.{stream}.{kind}`: the topic of a log. Never used again, as the stream's id is not.
pub fn topic(stream: Uuid, kind: &str) -> String {
    format!("bifold.{stream}.{kind}")
}

/// `{folder}{number}.json`, for a folder of this module.
pub(crate) fn numbered(folder: &str, number: u64) -> String {
    format!("{folder}{number:020}.json")
}

/// The number of a listed document; none for another file.
pub(crate) fn parse_numbered(path: &str) -> Option<u64> {
    digits(path.rsplit('/').next()?.strip_suffix(".json")?)
}

fn digits(text: &str) -> Option<u64> {
    if text.len() == 20 && text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_listed_parse_back() {
        let id = Uuid::from_u128(0xabc);
        assert_eq!(parse_delta(&delta(id, 7, u64::MAX)), Some((7, u64::MAX)));
        assert_eq!(parse_numbered(&manifest(id, 12)), Some(12));
        assert_eq!(parse_numbered(&catalog(0)), Some(0));
        assert_eq!(parse_batch_view(&batch_view_part(id, 41, 3)), Some(41));
        assert_eq!(parse_batch_view(&certificate(id, 41)), None);
    }

    #[test]
    fn other_names_do_not_parse() {
        for name in ["deltas/x/1-2.delta", "00000000000000000007.delta", "deltas/x/notes.txt", ""] {
            assert_eq!(parse_delta(name), None, "{name}");
        }
        assert_eq!(parse_delta("00000000000000000009-00000000000000000007.delta"), None, "backwards");
        assert_eq!(parse_numbered("catalog/+0000000000000000001.json"), None);
    }

    #[test]
    fn names_sort_as_their_numbers() {
        assert!(catalog(9) < catalog(10));
        assert!(run(u64::MAX - 1) < run(u64::MAX));
    }
}
