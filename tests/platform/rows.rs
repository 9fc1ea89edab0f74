//! `UNNEST` and views without an aggregate in the whole platform: in the speed layer alone, after a run, and with
//! records in each layer.

use serde_json::{Value, json};

use crate::harness::{Server, lines, one, rows};

const POSTS: &str = include_str!("../../schemas/examples/posts.sql");

/// A post of a minute: tags as JSON.
fn post(id: u32, author: &str, tags: &Value, likes: Option<u32>, minute: u32) -> String {
    let event_time = format!("2024-01-01T10:{minute:02}:00Z");
    json!({ "id": format!("p{id}"), "author": author, "tags": tags, "likes": likes, "event_time": event_time })
        .to_string()
        + "\n"
}

/// Hashtags of posts: an array of a record is taken apart, in each layer alone and in both.
#[tokio::test(flavor = "multi_thread")]
async fn hashtags_of_posts_are_counted_in_both_layers() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(POSTS).await;
    let first = post(1, "Ann", &json!(["rust", "sql", "rust"]), Some(3), 1)
        + &post(2, "Bob", &json!(["rust", null]), Some(0), 2)
        + &post(3, "Ann", &json!([]), Some(1), 3)
        + &post(4, "Eve", &Value::Null, None, 4);
    client.ingest("posts", first).await;
    let all = "SELECT tag, uses, authors FROM tags_per_hour ORDER BY tag NULLS LAST";
    let expected = ["rust 3 2", "sql 1 1", "null 1 1"];
    assert_eq!(lines(&client.sql(all).await), expected);
    let certificate = client.exact_run("tags_per_hour").await;
    let batch = &certificate["ledger"]["batch"];
    assert_eq!((&batch["counted"], &batch["filtered"]), (&2.into(), &2.into()), "{certificate}");
    assert_eq!(lines(&client.sql(&all.replace("tags_", "batch.tags_")).await), expected);
    client.ingest("posts", post(5, "Eve", &json!(["sql"]), Some(9), 59)).await;
    assert_eq!(lines(&client.sql(all).await), ["rust 3 2", "sql 2 2", "null 1 1"]);
    let found = client.look_up("/v1/views/tags_per_hour?tag=eq.sql&select=tag,uses").await;
    assert_eq!(lines(&found), ["sql 2"]);
    client.exact_run("tags_per_hour").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_array_is_a_bad_record() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(POSTS).await;
    let good = post(1, "Ann", &json!(["a"]), None, 1);
    let bad = post(2, "Ann", &json!(["a", 7]), None, 1) + &post(3, "Ann", &json!("a"), None, 1);
    let answer = client.ingest("posts", good + &bad).await;
    assert_eq!((&answer["accepted"], &answer["quarantined"]), (&1.into(), &2.into()), "{answer}");
    let message = answer["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("column tags: expected TEXT[], found [\"a\",7]"), "{message}");
    // the same id with other items is another payload
    let again =
        client.ingest("posts", post(1, "Ann", &json!(["a"]), None, 1) + &post(1, "Ann", &json!(["b"]), None, 1));
    let again = again.await;
    assert_eq!(again["duplicates"], 2, "{again}");
    let created = client.sql("SHOW CREATE STREAM posts").await;
    assert!(rows(&created)[0][1].to_string().contains("tags TEXT[]"), "{created}");
    server.stop().await;
}

/// A view of rows: each layer has its own, the merged view has both, and the certificate compares them all.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_of_rows_is_the_union_of_both_layers() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(POSTS).await;
    let first: String = (0..200)
        .map(|number| {
            post(
                number,
                &format!("Author{}", number % 7),
                &json!(["x", "y", format!("t{number}")]),
                Some(number % 3),
                1,
            )
        })
        .collect();
    client.ingest("posts", first).await;
    let certificate = client.exact_run("liked_tags").await;
    // 133 posts have a like, three rows each
    assert_eq!(certificate["cells"]["compared"], 399, "{certificate}");
    assert_eq!(certificate["oracle"]["sampled"], 399, "{certificate}");
    client.ingest("posts", post(500, "NEW", &json!(["z", "z"]), Some(1), 2)).await;
    for (view, count) in [("liked_tags", 401), ("batch.liked_tags", 399), ("speed.liked_tags", 2)] {
        assert_eq!(*one(&client.sql(&format!("SELECT count(*) FROM {view}")).await), count, "{view}");
    }
    let new = client.sql("SELECT id, author, tag, likes FROM liked_tags WHERE author = 'new'").await;
    assert_eq!(lines(&new), ["p500 new z 1", "p500 new z 1"]);
    let view = &new["freshness"]["views"][0];
    assert_eq!((&view["view"], &new["freshness"]["complete"]), (&"liked_tags".into(), &true.into()), "{view}");
    assert_eq!(view["batch"]["certificate"], "exact");
    let found = client.look_up("/v1/views/liked_tags?id=eq.p8&order=tag&select=tag,likes").await;
    assert_eq!(lines(&found), ["t8 2", "x 2", "y 2"]);
    let some = client.sql("SELECT tag FROM liked_tags LIMIT 3").await;
    assert_eq!(rows(&some).len(), 3);
    let grouped =
        client.sql("SELECT tag, count(*) AS n FROM liked_tags GROUP BY tag ORDER BY n DESC, tag LIMIT 2").await;
    assert_eq!(lines(&grouped), ["x 133", "y 133"]);
    server.stop().await;
    // what the speed layer had comes back
    let server = Server::start(folder.path()).await;
    assert_eq!(*one(&server.client.sql("SELECT count(*) FROM liked_tags").await), 401);
    server.client.exact_run("liked_tags").await;
    assert_eq!(*one(&server.client.sql("SELECT count(*) FROM batch.liked_tags").await), 401);
    server.stop().await;
}

/// Late rows have a view of their own, with the same columns; no column of theirs is a key that changes are told by.
#[tokio::test(flavor = "multi_thread")]
async fn late_rows_have_a_view_of_their_own_and_changes_are_told_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    let stream = "CREATE STREAM s (k TEXT, tags TEXT[], at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at)";
    client.sql(&format!("{stream} WITH (partitions = 1)")).await;
    client.sql("CREATE MATERIALIZED VIEW v WITH (late = 'side') AS SELECT k, at FROM s ORDER BY at DESC LIMIT 1").await;
    let by_tag = "SELECT tag, count(*) AS n FROM s CROSS JOIN UNNEST(s.tags) AS t(tag) GROUP BY tag";
    client.sql(&format!("CREATE MATERIALIZED VIEW w WITH (late = 'side') AS {by_tag}")).await;
    let line = |k: &str, minute: u32| {
        let at = format!("2024-01-01T10:{minute:02}:00Z");
        json!({ "k": k, "tags": ["x", k, k], "at": at }).to_string() + "\n"
    };
    client.ingest("s", line("a", 5) + &line("late", 1) + &line("later", 2) + &line("b", 9)).await;
    assert_eq!(lines(&client.sql("SELECT k FROM v").await), ["b"]);
    let late = "SELECT k FROM v_late ORDER BY k";
    assert_eq!(lines(&client.sql(late).await), ["late", "later"]);
    assert_eq!(lines(&client.sql("SELECT tag, n FROM w ORDER BY tag").await), ["a 2", "b 2", "x 2"]);
    let of_both = [
        ("v_late", "k", vec!["late", "later"]),
        (
            "w_late",
            "k, tag, _ordinal",
            vec!["late late 1", "late late 2", "late x 0", "later later 1", "later later 2", "later x 0"],
        ),
    ];
    for (view, columns, expected) in of_both {
        let run = client.run(view).await;
        assert_eq!((&run["state"], &run["verdict"]), (&"succeeded".into(), &"exact".into()), "{view}: {run}");
        for layer in ["", "batch."] {
            let answer = client.sql(&format!("SELECT {columns} FROM {layer}{view} ORDER BY {columns}")).await;
            assert_eq!(lines(&answer), expected, "{layer}{view}");
        }
    }
    client.ingest("s", line("last", 3)).await;
    assert_eq!(lines(&client.sql(late).await), ["last", "late", "later"]);
    for mode in ["update", "append"] {
        let answer = client.request("GET", &format!("/v1/views/v_late/changes?mode={mode}")).send().await.unwrap();
        assert_eq!(answer.status(), 501);
        let problem: Value = answer.json().await.unwrap();
        assert!(problem["detail"].as_str().unwrap().contains("it has no aggregate"), "{problem}");
    }
    let refused = client.refused("SELECT window_final FROM v_late").await;
    assert!(refused.to_string().contains("window_final is of a view"), "{refused}");
    client.sql("DROP MATERIALIZED VIEW v").await;
    client.refused(late).await;
    server.stop().await;
}

/// Rows of late records are left out where the view says so, and the certificate lists their records.
#[tokio::test(flavor = "multi_thread")]
async fn late_rows_are_dropped_and_explained() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql("CREATE STREAM s (k TEXT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (partitions = 1)").await;
    client.sql("CREATE MATERIALIZED VIEW v WITH (late = 'drop') AS SELECT k, at FROM s ORDER BY at DESC").await;
    let line =
        |k: &str, minute: u32| json!({ "k": k, "at": format!("2024-01-01T10:{minute:02}:00Z") }).to_string() + "\n";
    client.ingest("s", line("a", 5) + &line("late", 1) + &line("b", 9)).await;
    assert_eq!(lines(&client.sql("SELECT k FROM v ORDER BY k").await), ["a", "b"]);
    let run = client.run("v").await;
    assert_eq!((&run["state"], &run["verdict"]), (&"succeeded".into(), &"explained".into()), "{run}");
    let certificate = client.certificate("v", &run).await;
    assert_eq!(certificate["explanations"][0]["events"], 1, "{certificate}");
    assert_eq!(lines(&client.sql("SELECT k FROM batch.v ORDER BY at DESC").await), ["b", "a"]);
    server.stop().await;
}
