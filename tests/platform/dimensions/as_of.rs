//! `FOR SYSTEM_TIME AS OF`: of each currency the rate that was valid when the sale was made, whatever came when. The oracle is a
//! walk over all rates for each sale. (R-062: as-of; DESIGN §14)

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{Client, Server, one, rows};

const STREAM: &str = "CREATE STREAM sales (id TEXT NOT NULL, currency TEXT, cents BIGINT, event_time TIMESTAMPTZ NOT NULL, \
                      PRIMARY KEY (id), WATERMARK FOR event_time AS event_time - INTERVAL '1 minute');";
const RATES: &str =
    "(currency TEXT, rate BIGINT, grade TEXT, since TIMESTAMPTZ, PRIMARY KEY (currency, since)) FROM FILE 'rates.csv'";
const PINNED: &str = "CREATE MATERIALIZED VIEW turnover AS SELECT date_trunc('day', event_time) AS day, count(*) AS sales, \
                      count(rate) AS rated, sum(cents * rate) AS turnover \
                      FROM sales AS s LEFT JOIN rates FOR SYSTEM_TIME AS OF s.event_time AS r ON s.currency = r.currency GROUP BY 1;";
const LATE: &str = "CREATE MATERIALIZED VIEW graded AS SELECT grade, window_start, count(*) AS sales, sum(cents) AS cents \
                    FROM TUMBLE(sales, event_time, INTERVAL '1 hour') AS s \
                    LEFT JOIN rates AS r FOR SYSTEM_TIME AS OF date_trunc('hour', s.event_time) ON s.currency = r.currency \
                    GROUP BY grade, window_start;";

const MINUTE: u32 = 60;

/// A rate from a second of the first of January on.
#[derive(Clone)]
struct Rate {
    currency: &'static str,
    since: u32,
    value: i64,
    grade: String,
}

fn time(second: u32) -> String {
    let (day, rest) = (1 + second / 86_400, second % 86_400);
    format!("2024-01-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

/// Rates of a version: two currencies, in no order, none before an hour.
fn rates(version: u32) -> Vec<Rate> {
    let of = |number: u32| {
        let currency = if number.is_multiple_of(2) { "eur" } else { "usd" };
        let since = 3_600 + (number * 37 % 97) * 29 * MINUTE + number % 2;
        Rate {
            currency,
            since,
            value: i64::from((number + version) % 13) - 4,
            grade: format!("g{}", (number + version) % 3),
        }
    };
    (0..60 + version % 7).map(of).collect()
}

fn csv(rates: &[Rate]) -> String {
    let line = |rate: &Rate| format!("{},{},{},{}\n", rate.currency, rate.value, rate.grade, time(rate.since));
    "currency,rate,grade,since\n".to_owned() + &rates.iter().map(line).collect::<String>()
}

/// Sales in no order of time, of three currencies, one of which has no rate.
fn second(number: u32) -> u32 {
    number * 7_919 % 200_000
}

fn currency(number: u32) -> &'static str {
    ["eur", "usd", "yen"][number as usize % 3]
}

fn sale(number: u32) -> String {
    let (currency, event_time) = (currency(number), time(second(number)));
    json!({ "id": format!("s{number}"), "currency": currency, "cents": number, "event_time": event_time }).to_string()
        + "\n"
}

/// The newest rate of a currency that is not younger than a time.
fn valid<'a>(rates: &'a [Rate], currency: &str, at: u32) -> Option<&'a Rate> {
    rates.iter().filter(|rate| rate.currency == currency && rate.since <= at).max_by_key(|rate| rate.since)
}

/// Day → sales, sales with a rate, turnover.
fn turnover(sales: u32, rates: &[Rate]) -> BTreeMap<String, (i64, i64, Option<i64>)> {
    let mut days: BTreeMap<String, (i64, i64, Option<i64>)> = BTreeMap::new();
    for number in 0..sales {
        let at = second(number);
        let day = days.entry(time(at)[..10].to_owned()).or_default();
        day.0 += 1;
        if let Some(rate) = valid(rates, currency(number), at) {
            day.1 += 1;
            day.2 = Some(day.2.unwrap_or_default() + i64::from(number) * rate.value);
        }
    }
    days
}

/// Grade at the beginning of the hour, and hour → sales, cents.
fn graded(sales: u32, rates: &[Rate]) -> BTreeMap<(Option<String>, String), (i64, i64)> {
    let mut cells: BTreeMap<(Option<String>, String), (i64, i64)> = BTreeMap::new();
    for number in 0..sales {
        let hour = second(number) / 3_600 * 3_600;
        let grade = valid(rates, currency(number), hour).map(|rate| rate.grade.clone());
        let cell = cells.entry((grade, time(hour)[..13].to_owned())).or_default();
        *cell = (cell.0 + 1, cell.1 + i64::from(number));
    }
    cells
}

async fn found_turnover(client: &Client, view: &str) -> BTreeMap<String, (i64, i64, Option<i64>)> {
    let answer = client.sql(&format!("SELECT day, sales, rated, turnover FROM {view}")).await;
    let day = |row: &Value| {
        let values = (row[1].as_i64().unwrap(), row[2].as_i64().unwrap(), row[3].as_i64());
        (row[0].as_str().unwrap()[..10].to_owned(), values)
    };
    rows(&answer).iter().map(day).collect()
}

async fn found_graded(client: &Client, view: &str) -> BTreeMap<(Option<String>, String), (i64, i64)> {
    let answer = client.sql(&format!("SELECT grade, window_start, sales, cents FROM {view}")).await;
    let cell = |row: &Value| {
        let key = (row[0].as_str().map(str::to_owned), row[1].as_str().unwrap()[..13].to_owned());
        (key, (row[2].as_i64().unwrap(), row[3].as_i64().unwrap()))
    };
    rows(&answer).iter().map(cell).collect()
}

async fn with_rates(client: &Client, sql: &str, version: u32) -> Value {
    let body = json!({ "sql": sql, "files": { "rates.csv": csv(&rates(version)) } });
    client.try_sql(body).await.unwrap_or_else(|(status, problem)| panic!("{status}: {problem}"))
}

fn create(options: &str) -> String {
    format!("{STREAM}\nCREATE TABLE rates {RATES} WITH (valid_from = 'since'{options});\n")
}

/// In the fold: any aggregate over the rate of the moment. The table stays as it is as long as a view joins it.
#[tokio::test(flavor = "multi_thread")]
async fn a_sale_is_worth_what_its_currency_was_worth_at_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    with_rates(client, &(create(", join = 'pinned'") + PINNED), 1).await;
    let rates = rates(1);
    client.ingest("sales", (0..400).map(sale).collect::<String>()).await;
    assert_eq!(found_turnover(client, "turnover").await, turnover(400, &rates), "in the speed layer");
    let run = client.run("turnover").await;
    assert_eq!((&run["state"], &run["verdict"]), (&"succeeded".into(), &"exact".into()), "{run}");
    let certificate = client.certificate("turnover", &run).await;
    assert!(certificate["oracle"]["sampled"].as_u64() > Some(0), "{certificate}");
    assert_eq!(found_turnover(client, "batch.turnover").await, turnover(400, &rates), "in the batch layer");
    // sales of the past, after the run
    client.ingest("sales", (400..700).map(sale).collect::<String>()).await;
    assert_eq!(found_turnover(client, "turnover").await, turnover(700, &rates), "in both");
    let replace = format!("CREATE OR REPLACE TABLE rates {RATES} WITH (valid_from = 'since', join = 'pinned')");
    let body = json!({ "sql": replace, "files": { "rates.csv": csv(&super::as_of::rates(2)) } });
    let (_, problem) = client.try_sql(body).await.unwrap_err();
    assert_eq!(problem["code"], "in_use", "{problem}");
    server.stop().await;
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    assert_eq!(found_turnover(client, "turnover").await, turnover(700, &rates), "after a restart");
    assert_eq!(client.run("turnover").await["verdict"], "exact");
    let all = client.sql("SELECT count(*) FROM rates").await;
    assert_eq!(one(&all).as_u64(), Some(rates.len() as u64), "a query reads the rows of all times");
    let columns = client.sql("SELECT * FROM rates LIMIT 1").await;
    assert_eq!(rows(&columns)[0].as_array().unwrap().len(), 4, "{columns}");
    server.stop().await;
}

/// After ⊕: rates of the past are corrected under load, and every certificate stays exact.
#[tokio::test(flavor = "multi_thread")]
async fn a_past_that_changes_under_load_leaves_every_certificate_exact() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = server.client.clone();
    with_rates(&client, &(create("") + LATE), 1).await;
    let done = Arc::new(AtomicBool::new(false));
    let (replacing, stop) = (client.clone(), Arc::clone(&done));
    let replace = format!("CREATE OR REPLACE TABLE rates {RATES} WITH (valid_from = 'since')");
    let again = replace.clone();
    let versions = tokio::spawn(async move {
        let mut version = 1;
        while !stop.load(Ordering::Relaxed) {
            version += 1;
            with_rates(&replacing, &again, version).await;
        }
        version
    });
    let mut sent = 0;
    for round in 0..6 {
        client.ingest("sales", (sent..sent + 150).map(sale).collect::<String>()).await;
        sent += 150;
        if round % 2 == 1 {
            let run = client.run("graded").await;
            assert_eq!((&run["state"], &run["verdict"]), (&"succeeded".into(), &"exact".into()), "{run}");
            let certificate = client.certificate("graded", &run).await;
            assert!(certificate["oracle"]["sampled"].as_u64() > Some(0), "{certificate}");
        }
        assert!(found_graded(&client, "graded").await.len() > 20);
    }
    done.store(true, Ordering::Relaxed);
    let version = versions.await.unwrap();
    assert!(version > 3, "the table changed only {version} times");
    client.ingest("sales", (sent..sent + 50).map(sale).collect::<String>()).await;
    sent += 50;
    assert_eq!(found_graded(&client, "graded").await, graded(sent, &rates(version)));
    server.stop().await;
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    assert_eq!(found_graded(client, "graded").await, graded(sent, &rates(version)), "after a restart");
    with_rates(client, &replace, version + 1).await;
    assert_eq!(found_graded(client, "graded").await, graded(sent, &rates(version + 1)));
    assert_eq!(found_graded(client, "batch.graded").await, graded(900, &rates(version + 1)));
    server.stop().await;
}

/// What a row says of its end: a gap in which nothing is valid.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_says_when_it_ends_is_joined_until_then() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    let table = "CREATE TABLE offers (sku TEXT, name TEXT, since TIMESTAMPTZ, until TIMESTAMPTZ) FROM FILE 'offers.csv' \
                 WITH (valid_from = 'since', valid_to = 'until');";
    let view = "CREATE MATERIALIZED VIEW by_offer AS SELECT name, count(*) AS sales FROM sales AS s \
                LEFT JOIN offers FOR SYSTEM_TIME AS OF s.event_time AS o ON s.currency = o.sku GROUP BY name;";
    let offers =
        "sku,name,since,until\neur,first,2024-01-01T00:00:00Z,2024-01-01T01:00:00Z\neur,second,2024-01-01T02:00:00Z,\n";
    let body = json!({ "sql": format!("{STREAM}{table}{view}"), "files": { "offers.csv": offers } });
    client.try_sql(body).await.unwrap();
    let at = |id: &str, second: u32| {
        json!({ "id": id, "currency": "eur", "cents": 1, "event_time": time(second) }).to_string()
    };
    // at the end of the first, within the gap, at the beginning of the second
    let events =
        [("a", 0), ("b", 3_599), ("c", 3_600), ("d", 7_199), ("e", 7_200), ("f", 900_000)].map(|(id, s)| at(id, s));
    client.ingest("sales", events.join("\n")).await;
    let answer = client.sql("SELECT name, sales FROM by_offer ORDER BY name").await;
    assert_eq!(json!(rows(&answer)), json!([["first", 2], ["second", 2], [null, 2]]));
    assert_eq!(client.run("by_offer").await["verdict"], "exact");
    let created = client.sql("SHOW CREATE TABLE offers").await;
    let created = rows(&created)[0][1].as_str().unwrap();
    assert!(created.ends_with("WITH (join = 'late', valid_from = 'since', valid_to = 'until')"), "{created}");
    server.stop().await;
}

#[rstest]
#[case::forgotten(
    "SELECT grade, count(*) FROM sales s JOIN rates r ON s.currency = r.currency GROUP BY grade",
    "rows of many times"
)]
#[case::using(
    "SELECT grade, count(*) FROM sales s JOIN rates FOR SYSTEM_TIME AS OF s.event_time USING (currency) GROUP BY grade",
    "no ON"
)]
#[case::no_time(
    "SELECT grade, count(*) FROM sales s JOIN rates FOR SYSTEM_TIME AS OF ON s.currency = rates.currency GROUP BY grade",
    "cannot be read"
)]
#[case::alias(
    "SELECT grade, count(*) FROM sales s JOIN rates FOR SYSTEM_TIME AS OF s.event_time r ON s.currency = r.currency GROUP BY grade",
    "written with AS"
)]
#[case::clock(
    "SELECT grade, count(*) FROM sales s JOIN rates FOR SYSTEM_TIME AS OF now() AS r ON s.currency = r.currency GROUP BY grade",
    "another time"
)]
#[case::stream(
    "SELECT grade, count(*) FROM sales FOR SYSTEM_TIME AS OF event_time JOIN rates ON sales.currency = rates.currency GROUP BY grade",
    "rows of many times"
)]
#[case::all(
    "SELECT * FROM sales s JOIN rates FOR SYSTEM_TIME AS OF s.event_time AS r ON s.currency = r.currency",
    "name the columns"
)]
#[case::plain(
    "SELECT label, count(*) FROM sales s JOIN plain FOR SYSTEM_TIME AS OF s.event_time AS p ON s.currency = p.k GROUP BY label",
    "from when on"
)]
#[case::no_column(
    "SELECT grade, count(*) FROM sales s JOIN rates FOR SYSTEM_TIME AS OF s.when AS r ON s.currency = r.currency GROUP BY grade",
    "there is no column when"
)]
#[tokio::test(flavor = "multi_thread")]
async fn what_means_nothing_as_of_a_time_is_refused(#[case] select: &str, #[case] words: &str) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    let files = json!({ "rates.csv": csv(&rates(1)), "plain.csv": "k,label\neur,euro\n" });
    let plain = "CREATE TABLE plain (k TEXT, label TEXT) FROM FILE 'plain.csv';";
    client.try_sql(json!({ "sql": create("") + plain, "files": files })).await.unwrap();
    let problem = client.refused(&format!("CREATE MATERIALIZED VIEW refused AS {select}")).await;
    let text = format!("{} {}", problem["detail"].as_str().unwrap(), problem["hint"].as_str().unwrap_or_default());
    assert!(text.contains(words), "{text}");
    assert_ne!(problem["code"], "internal", "{text}");
    server.stop().await;
}

/// Rows that would be valid at one time together are no table.
#[rstest]
#[case::same_time("eur,1,a,2024-01-01T00:00:00Z\neur,2,b,2024-01-01T00:00:00Z\n", "two rows of one key")]
#[case::no_time("eur,1,a,\n", "null")]
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_one_key_are_valid_one_after_the_other(#[case] lines: &str, #[case] words: &str) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let text = format!("currency,rate,grade,since\n{lines}");
    let body = json!({ "sql": create(""), "files": { "rates.csv": text } });
    let (_, problem) = server.client.try_sql(body).await.unwrap_err();
    assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
    assert_eq!(problem["code"], "bad_request", "{problem}");
    server.stop().await;
}
