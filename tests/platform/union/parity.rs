//! Union views beside an oracle that shares no code with them, over both streams, at random moments: between runs of
//! one part or of all, after restarts, with duplicates, late events and bad input among the events.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rstest::rstest;
use serde_json::{Value, json};

use super::cases::table;
use crate::harness::{Client, Server};

const STREAMS: &str = "CREATE STREAM a (id TEXT NOT NULL, k TEXT, n BIGINT, at TIMESTAMPTZ NOT NULL, PRIMARY KEY (id), \
    WATERMARK FOR at AS at - INTERVAL '10 minutes') WITH (partitions = 3); \
    CREATE STREAM b (id TEXT NOT NULL, name TEXT, amount INT, at TIMESTAMPTZ NOT NULL, PRIMARY KEY (id), \
    WATERMARK FOR at AS at) WITH (partitions = 2);";

/// Each view with the query that is asked of it and of the oracle.
const VIEWS: [(&str, &str, &str); 5] = [
    (
        "hours",
        "SELECT k, hour, count(*) AS c, sum(n) AS s, min(n) AS low, max(n) AS high, count(DISTINCT n) AS d FROM (\
         SELECT k, n, window_start AS hour FROM TUMBLE(a, at, INTERVAL '1 hour') \
         UNION ALL SELECT lower(name), CAST(amount AS BIGINT), window_start FROM TUMBLE(b, at, INTERVAL '1 hour')) AS u \
         GROUP BY k, hour",
        "SELECT k, extract(hour FROM hour) AS h, c, s, low, high, d FROM hours ORDER BY k, h",
    ),
    (
        // the same stream twice: what passes both filters is there twice
        "twice",
        "SELECT count(*) AS c, sum(n) AS s, count(DISTINCT k) AS d FROM (SELECT k, n FROM a WHERE n % 2 = 0 \
         UNION ALL SELECT k, n * 10 FROM a WHERE n % 3 = 0 \
         UNION ALL SELECT lower(name), CAST(amount AS BIGINT) FROM b) AS u",
        "SELECT c, coalesce(s, 0) AS s, d FROM twice",
    ),
    (
        "lines",
        "SELECT 'a' AS source, id, k, n FROM a UNION ALL SELECT 'b', id, lower(name), CAST(amount AS BIGINT) FROM b",
        "SELECT source, id, k, n FROM lines ORDER BY source, id",
    ),
    (
        "hops",
        "SELECT e, count(*) AS c, sum(n) AS s FROM (SELECT n, window_end AS e \
         FROM HOP(a, at, INTERVAL '30 minutes', INTERVAL '1 hour') \
         UNION ALL SELECT CAST(amount AS BIGINT), window_end FROM HOP(b, at, INTERVAL '30 minutes', INTERVAL '1 hour')) AS u \
         GROUP BY e HAVING count(*) > 1",
        "SELECT extract(hour FROM e) * 60 + extract(minute FROM e) AS m, c, s FROM hops ORDER BY m",
    ),
    (
        "first",
        "SELECT k, first_value(n ORDER BY n) AS f, avg(n) AS m FROM (SELECT k, n FROM a UNION ALL \
         SELECT lower(name), CAST(amount AS BIGINT) FROM b) AS u GROUP BY k ORDER BY m DESC, k LIMIT 2",
        "SELECT k, f FROM first",
    ),
];

/// A record that is kept.
#[derive(Debug, Clone)]
struct Sale {
    k: String,
    n: i64,
    /// Of the day.
    minute: i64,
}

/// What was accepted, by stream and id: the first record of an id stands.
#[derive(Debug, Default)]
struct Oracle(BTreeMap<(char, String), Sale>);

impl Oracle {
    fn rows(&self) -> Vec<(&str, i64, i64)> {
        self.0.values().map(|sale| (sale.k.as_str(), sale.n, sale.minute)).collect()
    }

    fn hours(&self) -> Vec<String> {
        let mut cells: BTreeMap<(&str, i64), Vec<i64>> = BTreeMap::new();
        for (k, n, minute) in self.rows() {
            cells.entry((k, minute / 60)).or_default().push(n);
        }
        let line = |((k, hour), ns): (&(&str, i64), &Vec<i64>)| {
            let (low, high) = (ns.iter().min().unwrap(), ns.iter().max().unwrap());
            let distinct: BTreeSet<&i64> = ns.iter().collect();
            format!("{k} {hour} {} {} {low} {high} {}", ns.len(), ns.iter().sum::<i64>(), distinct.len())
        };
        cells.iter().map(line).collect()
    }

    fn twice(&self) -> Vec<String> {
        let mut rows = vec![];
        for ((stream, _), sale) in &self.0 {
            let is_even = *stream == 'b' || sale.n % 2 == 0;
            rows.extend(is_even.then_some((&sale.k, sale.n)));
            rows.extend((*stream == 'a' && sale.n % 3 == 0).then_some((&sale.k, sale.n * 10)));
        }
        let keys: BTreeSet<&String> = rows.iter().map(|(k, _)| *k).collect();
        vec![format!("{} {} {}", rows.len(), rows.iter().map(|(_, n)| n).sum::<i64>(), keys.len())]
    }

    fn lines(&self) -> Vec<String> {
        self.0.iter().map(|((stream, id), sale)| format!("{stream} {id} {} {}", sale.k, sale.n)).collect()
    }

    fn hops(&self) -> Vec<String> {
        let mut windows: BTreeMap<i64, (usize, i64)> = BTreeMap::new();
        for (_, n, minute) in self.rows() {
            let first_end = (minute / 30 + 1) * 30;
            for end in [first_end, first_end + 30] {
                let window = windows.entry(end % 1_440).or_default();
                *window = (window.0 + 1, window.1 + n);
            }
        }
        windows.retain(|_, (count, _)| *count > 1);
        windows.iter().map(|(end, (count, sum))| format!("{end} {count} {sum}")).collect()
    }

    fn first(&self) -> Vec<String> {
        let mut cells: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
        for (k, n, _) in self.rows() {
            cells.entry(k).or_default().push(n);
        }
        let mut cells: Vec<_> = cells.into_iter().collect();
        // by the average, the greatest first: compared as fractions
        cells.sort_by_key(|(k, _)| *k);
        cells.sort_by(|(_, x), (_, y)| {
            let (sum_x, sum_y) = (x.iter().sum::<i64>(), y.iter().sum::<i64>());
            (sum_y * x.len() as i64).cmp(&(sum_x * y.len() as i64))
        });
        cells.iter().take(2).map(|(k, ns)| format!("{k} {}", ns.iter().min().unwrap())).collect()
    }

    fn of(&self, view: &str) -> Vec<String> {
        match view {
            "hours" => self.hours(),
            "twice" => self.twice(),
            "lines" => self.lines(),
            "hops" => self.hops(),
            _ => self.first(),
        }
    }
}

/// Some events of a stream: new ones, late ones, repeated ones, bad ones.
fn events(random: &mut ChaCha8Rng, oracle: &mut Oracle, stream: char) -> (String, [u64; 3]) {
    let (mut body, mut counts) = (String::new(), [0; 3]);
    for _ in 0..random.random_range(1..40) {
        let id = format!("{:03}", random.random_range(0..700));
        let (n, minute) = (random.random_range(-50..50), random.random_range(0..1_380));
        let name = ["x", "Y", "z", "LONGER THAN A VIEW'S INLINE TEXT"][random.random_range(0..4)];
        let at = format!("2024-01-01T{:02}:{:02}:00Z", minute / 60, minute % 60);
        let is_bad = random.random_range(0..20) == 0;
        let number = if is_bad { json!("not a number") } else { json!(n) };
        let event = match stream {
            'a' => json!({ "id": id, "k": name.to_lowercase(), "n": number, "at": at }),
            _ => json!({ "id": id, "name": name, "amount": number, "at": at }),
        };
        body += &(event.to_string() + "\n");
        let is_known = oracle.0.contains_key(&(stream, id.clone()));
        counts[if is_bad { 2 } else { usize::from(is_known) }] += 1;
        if !is_bad && !is_known {
            oracle.0.insert((stream, id), Sale { k: name.to_lowercase(), n, minute });
        }
    }
    (body, counts)
}

async fn compare(client: &Client, oracle: &Oracle, moment: &str) {
    for (view, _, ask) in VIEWS {
        let answer = client.sql(ask).await;
        assert_eq!(table(&answer), oracle.of(view), "{view} {moment}");
        assert_eq!(answer["freshness"]["complete"], true, "{view} {moment}: {answer}");
    }
    // by key, without a plan
    let found = client.request("GET", "/v1/views/hours?k=eq.x&select=c").send().await.unwrap();
    let found: Value = found.json().await.unwrap();
    let counted: i64 = found["rows"].as_array().unwrap().iter().map(|row| row[0].as_i64().unwrap()).sum();
    let expected = oracle.0.values().filter(|sale| sale.k == "x").count() as i64;
    assert_eq!(counted, expected, "{moment}: {found}");
    // what is in the batch views and what came after them is all there is
    let sides = "SELECT (SELECT coalesce(sum(c), 0) FROM batch.hours) + (SELECT coalesce(sum(c), 0) FROM speed.hours)";
    assert_eq!(table(&client.sql(sides).await), [oracle.0.len().to_string()], "{moment}");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn union_views_are_right_at_random_moments(#[values(1, 2, 3)] seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path()).await;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut oracle = Oracle::default();
    server.client.sql(STREAMS).await;
    // some records are history when the views are made
    let (body, _) = events(&mut random, &mut oracle, 'a');
    server.client.ingest("a", body).await;
    for (name, select, _) in VIEWS {
        server.client.sql(&format!("CREATE MATERIALIZED VIEW {name} AS {select}")).await;
    }
    for (name, _, _) in VIEWS {
        server.client.wait_ready(name).await;
    }
    for step in 0..30 {
        let moment = format!("seed {seed} step {step}");
        match random.random_range(0..10) {
            0..6 => {
                let stream = if random.random_bool(0.5) { 'a' } else { 'b' };
                let (body, [new, repeated, bad]) = events(&mut random, &mut oracle, stream);
                let answer = server.client.ingest(&stream.to_string(), body).await;
                let counts = [&answer["accepted"], &answer["duplicates"], &answer["quarantined"]];
                assert_eq!(counts, [&json!(new), &json!(repeated), &json!(bad)], "{moment}: {answer}");
            }
            6 | 7 => {
                let (view, _, _) = VIEWS[random.random_range(0..VIEWS.len())];
                let part = format!("{view}_part{}", random.random_range(1..3));
                let run = server.client.run(&part).await;
                assert_eq!((&run["state"], &run["verdict"]), (&json!("succeeded"), &json!("exact")), "{moment}: {run}");
            }
            8 => {
                let (view, _, _) = VIEWS[random.random_range(0..VIEWS.len())];
                let said = server.client.sql(&format!("REFRESH MATERIALIZED VIEW {view}")).await.to_string();
                assert!(said.contains("_part1 succeeded: exact"), "{moment}: {said}");
            }
            _ => {
                server.stop().await;
                server = Server::start(folder.path()).await;
            }
        }
        compare(&server.client, &oracle, &moment).await;
    }
    server.stop().await;
}
