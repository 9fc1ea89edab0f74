//! Imports: files and folders, by the client and by the server; all of it or nothing, once.

use std::path::{Path, PathBuf};

use clap::Parser;
use serde_json::{Value, json};

use crate::harness::{Server, config, one, rows};

const STREAM: &str = "(id TEXT NOT NULL, ok BOOLEAN, n INT, event_time TIMESTAMPTZ NOT NULL, PRIMARY KEY (id), \
    WATERMARK FOR event_time AS event_time) WITH (partitions = 2)";

fn csv(ids: std::ops::Range<u32>) -> String {
    let lines = ids.map(|n| format!("{n},\"2024-01-01T00:00:00Z\",{},id {n}\n", n % 2 == 0));
    format!("n,event_time,ok,id\n{}", lines.collect::<String>())
}

async fn bifold(server: &Server, words: &[&str]) -> Result<(), String> {
    let global = ["bifold", "--url", server.platform.url(), "--token", server.platform.token()];
    let arguments = bifold::arguments::Arguments::try_parse_from(global.iter().chain(words).copied()).unwrap();
    bifold::commands::dispatch(arguments).await.map_err(|error| format!("{error:#}"))
}

/// Count, sum and truths of a stream's view.
async fn sums(server: &Server, view: &str) -> Value {
    rows(&server.client.sql(&format!("SELECT count, total, truths FROM {view}")).await)[0].clone()
}

async fn create(server: &Server, stream: &str) {
    server.client.sql(&format!("CREATE STREAM {stream} {STREAM}")).await;
    let view = format!(
        "CREATE MATERIALIZED VIEW {stream}_sums AS SELECT count(*) AS count, sum(n) AS total, \
         count(*) FILTER (WHERE ok) AS truths FROM {stream}"
    );
    server.client.sql(&view).await;
}

fn parquet_of(folder: &Path, stream_id: &str) -> PathBuf {
    let files = std::fs::read_dir(folder.join("master").join(stream_id)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "parquet")).collect();
    assert_eq!(files.len(), 2, "one a partition");
    files.sort();
    let imported = folder.join("from-parquet");
    std::fs::create_dir(&imported).unwrap();
    for (number, file) in files.iter().enumerate() {
        std::fs::copy(file, imported.join(format!("{number}.parquet"))).unwrap();
    }
    imported
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_imports_folders_of_csv_and_parquet() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data")).await;
    create(&server, "s").await;
    let files = folder.path().join("files");
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("a.csv"), csv(0..600)).unwrap();
    std::fs::write(files.join("b.csv.zst"), zstd::encode_all(csv(500..1_000).as_bytes(), 1).unwrap()).unwrap();
    let path = files.to_str().unwrap();
    bifold(&server, &["ingest", "s", path, "--all-or-nothing", "--batch-rows", "100"]).await.unwrap();
    let expected = json!([1_000, 499_500, 500]);
    assert_eq!(sums(&server, "s_sums").await, expected);
    bifold(&server, &["ingest", "s", path]).await.unwrap();
    assert_eq!(sums(&server, "s_sums").await, expected);
    // a bad one in the last file: nothing of the first is sent
    create(&server, "t").await;
    std::fs::write(files.join("c.csv"), "id,n,event_time\nx,many,2024-01-01T00:00:00Z\n").unwrap();
    let refused = bifold(&server, &["ingest", "t", path, "--all-or-nothing"]).await.unwrap_err();
    assert!(refused.contains("1 of 1,101 events do not fit; nothing was sent"), "{refused}");
    assert_eq!(sums(&server, "t_sums").await[0], 0);

    server.client.run("s_sums").await;
    let id =
        one(&server.client.sql("SELECT id FROM system.streams WHERE name = 's'").await).as_str().unwrap().to_owned();
    let parquet = parquet_of(&folder.path().join("data"), &id);
    bifold(&server, &["ingest", "t", parquet.to_str().unwrap(), "--all-or-nothing"]).await.unwrap();
    assert_eq!(sums(&server, "t_sums").await, expected);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_reads_the_import_folder_and_each_content_once() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("files");
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("a.csv"), csv(0..25_000)).unwrap();
    std::fs::write(files.join("again"), csv(0..25_000)).unwrap();
    std::fs::write(files.join("bad.csv"), csv(25_000..36_000) + "1,never,true,x\n").unwrap();
    std::fs::write(folder.path().join("secret.csv"), csv(0..1)).unwrap();
    let server = Server::start(&folder.path().join("data")).await;
    create(&server, "s").await;
    assert_eq!(server.client.refused("COPY s FROM 'a.csv'").await["code"], "forbidden");
    server.stop().await;
    let mut with_folder = config(&folder.path().join("data"));
    with_folder.import_dir = Some(files.clone());
    let server = Server::start_with(with_folder.clone()).await;
    let copied = server.client.sql("COPY s FROM 'a.csv'").await;
    assert_eq!(copied["results"][0], "copied 25000 events into s: 25000 accepted, 0 duplicates", "{copied}");
    let expected = json!([25_000, 312_487_500, 12_500]);
    assert_eq!(sums(&server, "s_sums").await, expected);
    let refused = server.client.refused("COPY s FROM 'bad.csv'").await;
    assert!(refused["detail"].as_str().unwrap().contains("event 11001: "), "{refused}");
    for (sql, code) in [
        ("COPY s FROM '../secret.csv'", "not_found"),
        ("COPY s FROM '/etc/passwd'", "not_found"),
        ("COPY nothing FROM 'a.csv'", "not_found"),
        ("COPY s FROM 'a.csv' WITH (format = 'xml')", "invalid_sql"),
    ] {
        assert_eq!(server.client.refused(sql).await["code"], code, "{sql}");
    }
    server.stop().await;
    // the same content under another name, after a restart: it is known
    let server = Server::start_with(with_folder).await;
    let again = server.client.sql("COPY s FROM 'again' WITH (format = 'csv')").await;
    assert_eq!(again["results"][0], "again is in s already: 25000 events, copied as a.csv", "{again}");
    assert_eq!(sums(&server, "s_sums").await, expected);
    let ledger = "SELECT CAST(sum(received) AS BIGINT) FROM system.ledger WHERE layer = 'ingest' AND stream = 's'";
    assert_eq!(*one(&server.client.sql(ledger).await), 25_000);
    server.stop().await;
}

/// Cut short after the first body: the same COPY goes on behind it.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_was_cut_short_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::write(folder.path().join("a.csv"), csv(0..25_000)).unwrap();
    let mut with_folder = config(&data);
    with_folder.import_dir = Some(folder.path().to_owned());
    let server = Server::start_with(with_folder.clone()).await;
    create(&server, "s").await;
    server.client.sql("COPY s FROM 'a.csv'").await;
    server.stop().await;
    // as if the process had ended behind the second body's append and before its document
    let imports = std::fs::read_dir(data.join("imports")).unwrap().next().unwrap().unwrap().path();
    let document = std::fs::read_dir(imports).unwrap().next().unwrap().unwrap().path();
    let mut text: Value = serde_json::from_slice(&std::fs::read(&document).unwrap()).unwrap();
    assert_eq!((&text["rows"], &text["rows_done"]), (&json!(25_000), &json!(25_000)));
    text["rows_done"] = json!(10_000);
    text["accepted"] = json!(10_000);
    std::fs::write(&document, text.to_string()).unwrap();
    let server = Server::start_with(with_folder).await;
    let copied = server.client.sql("COPY s FROM 'a.csv'").await;
    assert_eq!(copied["results"][0], "copied 25000 events into s: 10000 accepted, 15000 duplicates", "{copied}");
    assert_eq!(sums(&server, "s_sums").await, json!([25_000, 312_487_500, 12_500]));
    server.stop().await;
}
