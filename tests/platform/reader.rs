//! The master is an ordinary Delta Lake table: an independent reader finds each record once. (R-002, R-085)

use std::process::Command;

use serde_json::Value;

use crate::harness::Server;

/// The Python with the packages of `tests/reader/requirements.txt`.
fn python() -> String {
    std::env::var("BIFOLD_READER_PYTHON").unwrap_or_else(|_| {
        let folder = std::env::temp_dir().join("bifold-reader");
        let python = folder.join("bin/python");
        if !python.exists() {
            let made = Command::new("python3").arg("-m").arg("venv").arg(&folder).status();
            assert!(made.is_ok_and(|s| s.success()), "python3 with venv is needed to read the master independently");
        }
        let arguments =
            ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "reader/requirements.txt"];
        let installed = Command::new(&python).args(arguments).status().unwrap();
        assert!(installed.success(), "pip could not install tests/reader/requirements.txt");
        python.to_str().unwrap().to_owned()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_independent_reader_finds_each_record_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server
        .client
        .sql(
            "CREATE STREAM s (id TEXT NOT NULL, n BIGINT, at TIMESTAMPTZ NOT NULL, PRIMARY KEY (id), \
        WATERMARK FOR at AS at) WITH (partitions = 3)",
        )
        .await;
    server.client.sql("CREATE MATERIALIZED VIEW v AS SELECT n % 10 AS k, count(*) AS c FROM s GROUP BY n % 10").await;
    for part in 0..5 {
        let line = |n: u32| format!("{{\"id\":\"{n}\",\"n\":{n},\"at\":\"2024-01-01T00:00:{:02}Z\"}}\n", n % 60);
        // each part repeats a third of the one before
        let body: String = (part * 600..part * 600 + 900).map(line).collect();
        let told = server.client.ingest("s", body).await;
        assert_eq!(told["accepted"], if part == 0 { 900 } else { 600 }, "{told}");
        let run = server.client.run("v").await;
        assert_eq!((&run["verdict"], &run["rows"]), (&"exact".into(), &(900 + part * 600).into()), "{run}");
    }
    server.stop().await;
    let master = std::fs::read_dir(folder.path().join("master")).unwrap().next().unwrap().unwrap().path();
    let read = Command::new(python()).arg("reader/read_master.py").arg(&master).arg("id").output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let found: Value = serde_json::from_slice(&read.stdout).unwrap();
    assert_eq!(found["rows"], 3_300, "{found}");
    assert_eq!((&found["distinct_ids"], &found["distinct_positions"]), (&3_300.into(), &3_300.into()), "{found}");
    let ends: u64 = found["ends"].as_object().unwrap().values().map(|end| end.as_u64().unwrap()).sum();
    assert_eq!(ends, 3_300, "{found}");
}
