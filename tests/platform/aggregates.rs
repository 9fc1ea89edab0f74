//! Aggregates that keep values, through the whole platform: a cell past its cap is an error of its own, in
//! both layers and after a run; sets of groups and lists come out as JSON. (DESIGN §6)

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::harness::{Client, Server, rows};

const STREAM: &str = "CREATE STREAM s (id TEXT NOT NULL, k TEXT, n BIGINT, x DOUBLE PRECISION, PRIMARY KEY (id)) \
    WITH (partitions = 2)";

/// More different values in cell `a` than a cell holds, three in cell `b`.
async fn ingest(client: &Client) {
    let many = schemas::limits::CELL_VALUES_MAX + 1;
    let mut body = String::new();
    for number in 0..many {
        let _ = writeln!(body, "{{\"id\":\"a{number}\",\"k\":\"a\",\"n\":{number},\"x\":0.5}}");
    }
    for number in [3, 1, 2] {
        let _ = writeln!(body, "{{\"id\":\"b{number}\",\"k\":\"b\",\"n\":{number},\"x\":{number}.1}}");
    }
    let answer = client.ingest("s", body).await;
    assert_eq!(answer["accepted"], many + 3);
}

async fn look_up(client: &Client, view: &str, key: &str) -> (u16, Value) {
    let answer = client.request("GET", &format!("/v1/views/{view}?k=eq.{key}")).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn check_cells(client: &Client, moment: &str) {
    let (status, problem) = look_up(client, "v", "a").await;
    assert_eq!((status, &problem["code"]), (422, &json!("computation_failed")), "{moment}: {problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.starts_with("view v: count(DISTINCT") && detail.contains("the cell (k = a)"), "{moment}: {detail}");
    assert!(problem["hint"].as_str().unwrap().contains("approx_distinct(x)"), "{moment}: {problem}");
    let (status, answer) = look_up(client, "v", "b").await;
    assert_eq!((status, &answer["rows"][0]), (200, &json!(["b", 3, 3, "3+2+1"])), "{moment}: {answer}");

    let (status, problem) = client.try_sql(json!({ "sql": "SELECT * FROM v" })).await.expect_err("cell a is in it");
    assert_eq!((status, &problem["code"]), (422, &json!("computation_failed")), "{moment}: {problem}");
    assert!(problem["detail"].as_str().unwrap().contains("view v: count(DISTINCT"), "{moment}: {problem}");
    let counts = client.sql("SELECT k, c FROM v ORDER BY k").await;
    assert_eq!(counts["rows"], json!([["a", schemas::limits::CELL_VALUES_MAX + 1], ["b", 3]]), "{moment}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_past_its_cap_is_an_error_in_both_layers_and_others_are_readable() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(STREAM).await;
    let view = "CREATE MATERIALIZED VIEW v REFRESH MANUAL AS SELECT k, count(*) AS c, count(DISTINCT n) AS d, \
        string_agg(CAST(n AS TEXT), '+' ORDER BY n DESC) FILTER (WHERE k = 'b') AS t FROM s GROUP BY k";
    client.sql(view).await;
    ingest(client).await;
    check_cells(client, "speed alone").await;
    let run = client.run("v").await;
    assert_eq!((&run["state"], &run["verdict"]), (&json!("succeeded"), &json!("exact")), "{run}");
    check_cells(client, "after a run").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_of_groups_lists_and_ranks_come_out_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(STREAM).await;
    let create = |name: &str, select: &str| format!("CREATE MATERIALIZED VIEW {name} REFRESH MANUAL AS {select}");
    client.sql(&create("sets", "SELECT k, n, grouping(k) AS g, count(*) AS c FROM s GROUP BY CUBE (k, n)")).await;
    let lists = "SELECT k, array_agg(x ORDER BY n DESC) AS l, approx_top_k(n, 2) AS t, first_value(x ORDER BY n) AS f, \
        arg_max(id, n) AS a, median_exact(x) AS m, corr(x, n) AS r FROM s GROUP BY k";
    client.sql(&create("lists", lists)).await;
    client.sql(&create("names", "SELECT DISTINCT k FROM s")).await;
    let event = |id: u32, k: &str, n: u32, x: f64| format!("{{\"id\":\"{id}\",\"k\":\"{k}\",\"n\":{n},\"x\":{x}}}\n");
    let body = [event(1, "a", 3, 0.1), event(2, "a", 1, 2.5), event(3, "b", 3, 7.0), event(4, "a", 3, 0.3)].concat();
    client.ingest("s", body).await;
    for moment in ["speed alone", "after a run"] {
        let sets = client.sql("SELECT * FROM sets ORDER BY g, k, n").await;
        let expected = json!([
            ["a", 1, 0, 1],
            ["a", 3, 0, 2],
            ["a", null, 0, 3],
            ["b", 3, 0, 1],
            ["b", null, 0, 1],
            [null, 1, 1, 1],
            [null, 3, 1, 3],
            [null, null, 1, 4]
        ]);
        assert_eq!(sets["rows"], expected, "{moment}");
        let list = client.sql("SELECT l, t, f, a, m FROM lists WHERE k = 'a'").await;
        // of the two records with n = 3, the one that stands first in the log; both partitions are possible
        let ordered = rows(&list)[0][0].as_array().unwrap();
        assert_eq!(ordered[2], "2.5", "{moment}: {list}");
        let ranks = json!([{ "value": 3, "count": 2 }, { "value": 1, "count": 1 }]);
        assert_eq!(rows(&list)[0].as_array().unwrap()[1..3], [ranks, json!("2.5")], "{moment}");
        assert_eq!(rows(&list)[0][4], "0.3", "{moment}: {list}");
        let names = client.sql("SELECT * FROM names ORDER BY k").await;
        assert_eq!(names["rows"], json!([["a"], ["b"]]), "{moment}");
        if moment == "speed alone" {
            for view in ["sets", "lists", "names"] {
                let run = client.run(view).await;
                assert_eq!((&run["state"], &run["verdict"]), (&json!("succeeded"), &json!("exact")), "{view}: {run}");
            }
        }
    }
    server.stop().await;
}
