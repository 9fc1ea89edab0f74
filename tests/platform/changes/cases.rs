//! Cases: random events, runs, roll-backs, hang-ups, restarts.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rstest::rstest;
use serde_json::{Value, json};

use super::Follower;
use crate::harness::{Client, Server};

/// Views of every shape: plain cells, with `HAVING`, panes, sessions, one row, and rows that depend on each other.
const VIEWS: [(&str, &str); 6] = [
    ("plain", "SELECT k, count(*) AS n, sum(x) AS s, max(x) AS most FROM e GROUP BY k"),
    ("having", "SELECT k, g, sum(x) AS s FROM e GROUP BY k, g HAVING sum(x) BETWEEN 5 AND 60"),
    (
        "hops",
        "SELECT window_start, k, count(*) AS n FROM HOP(e, at, INTERVAL '10 seconds', INTERVAL '30 seconds') \
         GROUP BY window_start, k",
    ),
    (
        "visits",
        "SELECT window_start, window_end, k, count(*) AS n FROM SESSION(e, k, at, INTERVAL '3 seconds') \
         GROUP BY k, window_start, window_end",
    ),
    ("total", "SELECT count(*) AS n, sum(x) AS s FROM e"),
    ("best", "SELECT k, sum(x) AS s FROM e GROUP BY k ORDER BY s DESC, k LIMIT 3"),
];

async fn create(client: &Client) {
    let stream = "CREATE STREAM e (id BIGINT NOT NULL, k TEXT, g INT, x BIGINT, at TIMESTAMPTZ NOT NULL, PRIMARY KEY (id), \
                  WATERMARK FOR at AS at - INTERVAL '1 minute') WITH (partitions = 2)";
    client.sql(stream).await;
    for (name, sql) in VIEWS {
        client.sql(&format!("CREATE MATERIALIZED VIEW {name} AS {sql}")).await;
    }
}

/// New events with ids from `from` on; values go up and down, so that rows come and go.
fn events(rng: &mut ChaCha8Rng, from: u64, count: u64) -> String {
    let mut out = String::new();
    for id in from..from + count {
        let key = match rng.random_range(0..12) {
            0 => Value::Null,
            k => json!(format!("k{k}")),
        };
        let second = rng.random_range(0..600);
        let at = format!("2024-01-01T00:{:02}:{:02}Z", second / 60, second % 60);
        let event = json!({ "id": id, "k": key, "g": rng.random_range(0..4), "x": rng.random_range(-9..10), "at": at });
        out.push_str(&event.to_string());
        out.push('\n');
    }
    out
}

/// Sends events; the position behind them.
async fn send(client: &Client, rng: &mut ChaCha8Rng, sent: &mut u64, count: u64) -> String {
    let body = events(rng, *sent, count);
    *sent += count;
    client.ingest("e", body).await["position"].as_str().unwrap().to_owned()
}

/// The test of all: readers of every view, in both modes, that hang up in the middle of a step, go away for long and
/// come back, while batch views are published and taken back and the server is restarted, have the view in the end.
#[rstest]
#[case(1)]
#[case(2)]
#[case(3)]
#[case(4)]
#[tokio::test(flavor = "multi_thread")]
async fn whoever_applies_the_changes_has_the_view(#[case] seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path()).await;
    create(&server.client).await;
    let mut followers: Vec<Follower> = vec![];
    for (name, _) in VIEWS {
        followers.push(Follower::of(name, "complete"));
        if name != "best" {
            followers.push(Follower::of(name, "update"));
        }
    }
    let mut sent = 0;
    let mut position = send(&server.client, &mut rng, &mut sent, 50).await;
    for _ in 0..12 {
        match rng.random_range(0..10) {
            0 | 1 => {
                let view = VIEWS[rng.random_range(0..VIEWS.len())].0;
                let run = server.client.run(view).await;
                assert_eq!(run["verdict"], "exact", "{run}");
            }
            2 => {
                let run = server.client.run("plain").await["id"].as_u64().unwrap();
                server.client.run("plain").await;
                server.client.sql(&format!("ROLLBACK MATERIALIZED VIEW plain TO RUN {run}")).await;
            }
            3 => {
                server.stop().await;
                server = Server::start(folder.path()).await;
            }
            _ => {
                let count = rng.random_range(1..40);
                position = send(&server.client, &mut rng, &mut sent, count).await;
            }
        }
        for follower in &mut followers {
            match rng.random_range(0..4) {
                0 => follower.follow(&server.client, sent).await,
                1 => follower.read_some(&server.client, 1).await,
                _ => {}
            }
        }
    }
    for follower in &mut followers {
        follower.follow(&server.client, sent).await;
        follower.assert_has_the_view(&server.client, &position).await;
    }
    server.stop().await;
}

/// A reader that stays is told what has changed, and only that; a published batch view is no change.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_has_changed_is_told() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    create(client).await;
    let mut sent = 0;
    let position = send(client, &mut rng, &mut sent, 200).await;
    let mut follower = Follower::of("plain", "update");
    let mut events = follower.connect(client).await;
    follower.follow_on(&mut events, sent).await;
    assert_eq!(follower.reasons, ["the beginning"]);
    follower.assert_has_the_view(client, &position).await;
    for round in 1..=3 {
        let before = follower.told;
        let one = json!({ "id": 10_000 + round, "k": "k3", "g": 1, "x": 1, "at": "2024-01-01T00:00:00Z" });
        client.ingest("e", format!("{one}\n")).await;
        sent += 1;
        follower.follow_on(&mut events, sent).await;
        assert_eq!(follower.told - before, 1, "one cell has changed: {:?}", follower.seen);
        let told = follower.told;
        let run = client.run("plain").await;
        assert_eq!(run["verdict"], "exact");
        while follower.seen.get("published") != Some(&round) {
            let event = events.next().await.unwrap();
            follower.apply(&event);
        }
        let event = events.next().await.unwrap();
        assert_eq!((event.name.as_str(), follower.told), ("progress", told), "a publication is no change");
        follower.apply(&event);
    }
    assert_eq!(follower.reasons.len(), 1, "{:?}", follower.reasons);
    drop(events);
    server.stop().await;
}

/// A reader that comes back after runs and a restart is told what it has missed, not the whole view.
#[tokio::test(flavor = "multi_thread")]
async fn cursor_survives_publication_and_restart() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    create(&server.client).await;
    let mut sent = 0;
    send(&server.client, &mut rng, &mut sent, 300).await;
    let mut follower = Follower::of("plain", "update");
    follower.follow(&server.client, sent).await;
    let one = json!({ "id": 10_000, "k": "k3", "g": 1, "x": 1, "at": "2024-01-01T00:00:00Z" });
    let answer = server.client.ingest("e", format!("{one}\n")).await;
    sent += 1;
    assert_eq!(server.client.run("plain").await["verdict"], "exact");
    server.stop().await;
    let server = Server::start(folder.path()).await;
    follower.follow(&server.client, sent).await;
    assert_eq!(follower.reasons, ["the beginning"], "the deltas say what was missed");
    follower.assert_has_the_view(&server.client, answer["position"].as_str().unwrap()).await;
    server.stop().await;
}

/// What is below what is kept is sent anew, and said to be.
#[tokio::test(flavor = "multi_thread")]
async fn cursor_that_is_too_old_gets_the_view_anew_and_is_told_so() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    create(client).await;
    let mut sent = 0;
    send(client, &mut rng, &mut sent, 20).await;
    let mut follower = Follower::of("plain", "update");
    follower.follow(client, sent).await;
    let mut position = String::new();
    for _ in 0..4 {
        position = send(client, &mut rng, &mut sent, 20).await;
        for (view, _) in VIEWS {
            client.run(view).await;
        }
    }
    follower.follow(client, sent).await;
    assert_eq!(follower.reasons.len(), 2, "{:?}", follower.reasons);
    follower.assert_has_the_view(client, &position).await;
    client.sql("DROP MATERIALIZED VIEW plain").await;
    client.sql(&format!("CREATE MATERIALIZED VIEW plain AS {}", VIEWS[0].1)).await;
    client.wait_ready("plain").await;
    follower.follow(client, sent).await;
    assert_eq!(follower.reasons[2], "the view was created anew");
    follower.assert_has_the_view(client, &position).await;
    server.stop().await;
}

#[rstest]
#[case::no_view("/v1/views/nope/changes", 404, "not_found")]
#[case::mode("/v1/views/plain/changes?mode=upsert", 400, "bad_request")]
#[case::parameter("/v1/views/plain/changes?form=json", 400, "bad_request")]
#[case::cursor("/v1/views/plain/changes?cursor=7", 400, "bad_request")]
#[case::rows_that_depend_on_others("/v1/views/best/changes", 501, "unsupported")]
#[tokio::test(flavor = "multi_thread")]
async fn request_that_cannot_be_met_is_refused(#[case] path: &str, #[case] status: u16, #[case] code: &str) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    create(&server.client).await;
    let answer = server.client.request("GET", path).send().await.unwrap();
    let found = answer.status().as_u16();
    let problem: Value = answer.json().await.unwrap();
    assert_eq!((found, problem["code"].as_str()), (status, Some(code)), "{problem}");
    server.stop().await;
}

/// A reader that does not read holds nobody up, the server's end included.
#[tokio::test(flavor = "multi_thread")]
async fn reader_that_does_not_read_does_not_keep_the_server_from_ending() {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    create(&server.client).await;
    let mut sent = 0;
    send(&server.client, &mut rng, &mut sent, 20).await;
    let mut follower = Follower::of("plain", "update");
    let mut open = follower.connect(&server.client).await;
    follower.follow_on(&mut open, sent).await;
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), server.platform.stop()).await;
    ended.expect("it ends").unwrap();
    assert!(open.next().await.is_none(), "the answer has ended");
}
