//! A reader as a user would write it: it keeps rows by their key, and does what each event says.

use std::collections::BTreeMap;

use futures::StreamExt;
use serde_json::Value;

use crate::harness::{Client, PATIENCE};

/// What one reader has.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    view: String,
    mode: &'static str,
    /// The last id that was seen.
    pub(crate) id: Option<String>,
    pub(crate) key: Vec<String>,
    pub(crate) rows: BTreeMap<String, Value>,
    /// How often each event came.
    pub(crate) seen: BTreeMap<String, u64>,
    /// Why the whole view was sent.
    pub(crate) reasons: Vec<String>,
    /// Rows and keys that were told as changes.
    pub(crate) told: u64,
    /// Corrections, in their order.
    pub(crate) corrections: Vec<Value>,
    /// Rows that came more than once in mode append.
    pub(crate) again: u64,
}

/// One event.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) name: String,
    id: Option<String>,
    pub(crate) data: Value,
}

/// An open answer.
pub(crate) struct Events {
    body: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
}

impl Events {
    /// The next event; none at the end of the answer.
    pub(crate) async fn next(&mut self) -> Option<Sent> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let event: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let data = field("data: ").unwrap();
                return Some(Sent {
                    name: field("event: ").unwrap(),
                    id: field("id: "),
                    data: serde_json::from_str(&data).unwrap_or_else(|e| panic!("{e}: {data}")),
                });
            }
            let part = tokio::time::timeout(PATIENCE, self.body.next()).await.expect("silence")?;
            self.text.push_str(std::str::from_utf8(&part.ok()?).unwrap());
        }
    }
}

impl Follower {
    pub(crate) fn of(view: &str, mode: &'static str) -> Self {
        Self { view: view.to_owned(), mode, ..Self::default() }
    }

    /// Connects where it is.
    pub(crate) async fn connect(&self, client: &Client) -> Events {
        let path = format!("/v1/views/{}/changes?mode={}&every=20ms", self.view, self.mode);
        let mut request = client.request("GET", &path);
        if let Some(id) = &self.id {
            request = request.header("last-event-id", id);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Events { body: answer.bytes_stream().boxed(), text: String::new() }
    }

    /// Does what an event says; for `progress`, how many records are in what it has.
    pub(crate) fn apply(&mut self, event: &Sent) -> Option<u64> {
        *self.seen.entry(event.name.clone()).or_default() += 1;
        let data = &event.data;
        match event.name.as_str() {
            "snapshot" => {
                self.rows.clear();
                self.reasons.push(data["reason"].as_str().unwrap().to_owned());
                let names = data["key"].as_array().unwrap().iter();
                self.key = names.map(|name| name.as_str().unwrap().to_owned()).collect();
            }
            "change" => {
                for row in data["upserts"].as_array().unwrap() {
                    let key = if self.mode == "complete" { row.to_string() } else { self.key_of(row) };
                    self.again += u64::from(self.rows.insert(key, row.clone()).is_some());
                    self.told += 1;
                }
                for key in data["deletes"].as_array().unwrap() {
                    self.rows.remove(&self.key_of(key));
                    self.told += 1;
                }
            }
            "correction" => self.corrections.push(data.clone()),
            "published" => {}
            "progress" => {
                self.id = Some(event.id.clone().expect("an id"));
                return data["records"].as_u64();
            }
            other => panic!("{other}: {data}"),
        }
        None
    }

    fn key_of(&self, row: &Value) -> String {
        self.key.iter().map(|name| row[name].to_string()).collect::<Vec<_>>().join(",")
    }

    /// Follows until so many records are in what it has.
    pub(crate) async fn follow(&mut self, client: &Client, records: u64) {
        let mut events = self.connect(client).await;
        self.follow_on(&mut events, records).await;
    }

    /// The same on an answer that is open.
    pub(crate) async fn follow_on(&mut self, events: &mut Events, records: u64) {
        loop {
            let event = events.next().await.expect("the answer goes on");
            if self.apply(&event).is_some_and(|reached| reached >= records) {
                return;
            }
        }
    }

    /// Reads so many events and hangs up, wherever that is.
    pub(crate) async fn read_some(&mut self, client: &Client, events: usize) {
        let mut open = self.connect(client).await;
        for _ in 0..events {
            let event = open.next().await.expect("the answer goes on");
            self.apply(&event);
        }
    }

    /// What it has is the view.
    pub(crate) async fn assert_has_the_view(&self, client: &Client, at_least: &str) {
        let sql = format!("SELECT * FROM {}", self.view);
        let query = serde_json::json!({ "sql": sql, "row_limit": 1_000_000, "at_least": at_least });
        let answer = client.try_sql(query).await.unwrap();
        let names: Vec<&str> =
            answer["columns"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
        let mut expected: Vec<String> = vec![];
        for row in answer["rows"].as_array().unwrap() {
            let row: serde_json::Map<String, Value> = names
                .iter()
                .zip(row.as_array().unwrap())
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect();
            expected.push(Value::Object(row).to_string());
        }
        let mut found: Vec<String> = self.rows.values().map(ToString::to_string).collect();
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{} in mode {}: {:?}", self.view, self.mode, self.reasons);
    }
}
