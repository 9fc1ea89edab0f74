//! The real data: 137,512 commits with real lateness (`data/README.md` beside the project), where it
//! is there; a slice that the tests make themselves where it is not.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{Server, config, one};

/// How many there are.
pub(crate) const EVENTS: u64 = 137_512;

/// The data, decompressed; none on a machine without it.
pub(crate) fn commits(folder: &Path) -> Option<PathBuf> {
    let packed = Path::new("../../shared/data/commits.ndjson.zst");
    if !packed.exists() {
        return None;
    }
    let plain = folder.join("commits.ndjson");
    let file = std::fs::File::create(&plain).unwrap();
    let mut output = std::io::BufWriter::new(file);
    zstd::stream::copy_decode(std::fs::File::open(packed).unwrap(), &mut output).unwrap();
    Some(plain)
}

fn stream(name: &str, options: &str) -> String {
    format!(
        "CREATE STREAM {name} (id TEXT NOT NULL, repo TEXT, author TEXT, files INT, area TEXT, \
         event_time TIMESTAMPTZ NOT NULL, PRIMARY KEY (id), \
         WATERMARK FOR event_time AS event_time - INTERVAL '1 hour') WITH ({options})"
    )
}

fn view(name: &str, stream: &str, window: &str) -> String {
    format!(
        "CREATE MATERIALIZED VIEW {name} AS SELECT repo, window_start, count(*) AS commits, sum(files) AS files \
         FROM TUMBLE({stream}, event_time, INTERVAL '{window}') GROUP BY repo, window_start"
    )
}

async fn ingest_all(server: &Server, stream: &str, lines: &[&str]) -> (u64, u64, u64) {
    let (mut accepted, mut duplicates, mut quarantined) = (0, 0, 0);
    for chunk in lines.chunks(20_000) {
        let answer = server.client.ingest(stream, chunk.join("\n")).await;
        accepted += answer["accepted"].as_u64().unwrap();
        duplicates += answer["duplicates"].as_u64().unwrap();
        quarantined += answer["quarantined"].as_u64().unwrap();
    }
    (accepted, duplicates, quarantined)
}

/// Issue "The main path", real input: counts of cells at any moment, duplicates on replay.
#[tokio::test(flavor = "multi_thread")]
async fn commits_fill_the_cells_that_were_counted_independently() {
    let folder = tempfile::tempdir().unwrap();
    let Some(data) = commits(folder.path()) else { return without_data().await };
    let text = std::fs::read_to_string(data).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let server = Server::start_with(config(&folder.path().join("data"))).await;
    server.client.sql(&stream("commits", "partitions = 4")).await;
    let views = [("per_hour", "1 hour", 86_425), ("per_day", "1 day", 20_453), ("per_week", "7 days", 3_918)];
    for (name, window, _) in views {
        server.client.sql(&view(name, "commits", window)).await;
    }
    let half = lines.len() / 2;
    ingest_all(&server, "commits", &lines[..half]).await;
    assert_eq!(server.client.run("per_day").await["verdict"], "exact");
    let (accepted, duplicates, quarantined) = ingest_all(&server, "commits", &lines).await;
    assert_eq!((accepted + half as u64, duplicates, quarantined), (EVENTS, half as u64, 0));
    for round in 0..2 {
        for (name, _, cells) in views {
            let answer = server.client.sql(&format!("SELECT count(*), sum(commits), sum(files) FROM {name}")).await;
            let row = answer["rows"][0].as_array().unwrap();
            let found: Vec<i64> = row.iter().map(|v| v.as_i64().unwrap()).collect();
            assert_eq!(found, [cells, 137_512, 940_208], "{name} in round {round}");
            let run = server.client.run(name).await;
            assert_eq!(run["verdict"], "exact", "{run}");
        }
    }
    let (accepted, duplicates, quarantined) = ingest_all(&server, "commits", &lines).await;
    assert_eq!((accepted, duplicates, quarantined), (0, EVENTS, 0));
    let answer = server.client.sql("SELECT sum(commits) FROM per_week").await;
    assert_eq!(*one(&answer), Value::from(137_512));
    server.stop().await;
}

/// The numbers of `data/README.md` for a layer that drops late events at a lateness of one hour.
#[tokio::test(flavor = "multi_thread")]
async fn dropped_commits_are_counted_and_explained() {
    let folder = tempfile::tempdir().unwrap();
    let Some(data) = commits(folder.path()) else { return without_data().await };
    let text = std::fs::read_to_string(data).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let server = Server::start_with(config(&folder.path().join("data"))).await;
    server.client.sql(&stream("strict", "partitions = 1, late = 'drop'")).await;
    let views = [("hourly", "1 hour", 17_684), ("daily", "1 day", 14_193), ("weekly", "7 days", 7_773)];
    for (name, window, _) in views {
        server.client.sql(&view(name, "strict", window)).await;
    }
    ingest_all(&server, "strict", &lines).await;
    for (name, _, dropped) in views {
        let answer = server.client.sql(&format!("SELECT sum(commits) FROM {name}")).await;
        assert_eq!(*one(&answer), Value::from(EVENTS - dropped), "{name}");
        let run = server.client.run(name).await;
        assert_eq!((&run["state"], &run["verdict"]), (&"succeeded".into(), &"explained".into()), "{run}");
        let certificate = server.client.certificate(name, &run).await;
        assert_eq!(certificate["explanations"][0]["reason"], "late", "{certificate}");
        assert_eq!(certificate["explanations"][0]["events"], Value::from(dropped), "{name}");
        let answer = server.client.sql(&format!("SELECT sum(commits) FROM {name}")).await;
        assert_eq!(*one(&answer), Value::from(EVENTS - dropped), "{name} after its run");
    }
    server.stop().await;
}

/// Where the real data is missing, the same path runs on events that arrive late in a known way.
async fn without_data() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.client.sql(&stream("strict", "partitions = 1, late = 'drop'")).await;
    server.client.sql(&view("daily", "strict", "1 day")).await;
    let event = |id: u32, time: &str| format!(r#"{{"id":"{id}","repo":"r","files":1,"event_time":"{time}"}}"#);
    let lines = [
        event(1, "2024-01-01T10:00:00Z"),
        event(2, "2024-01-02T01:30:00Z"),
        event(3, "2024-01-01T23:00:00Z"),
        event(4, "2024-01-02T00:30:00Z"),
    ];
    server.client.ingest("strict", lines.join("\n")).await;
    let run = server.client.run("daily").await;
    assert_eq!(run["verdict"], "explained", "{run}");
    assert_eq!(*one(&server.client.sql("SELECT sum(commits) FROM daily").await), Value::from(3));
    server.stop().await;
}
