//! Parity of the whole platform: generated views over one stream, random moments of query, checkpoint,
//! run and restart. Each view has a twin that is never run. At the end batch alone, speed alone and
//! merged say what the reference interpreter says, and the stored states are the same bytes.
//!

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use operators::{View, ViewSource, states};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rstest::rstest;
use schemas::documents::delta::DeltaView;
use schemas::problem::SqlPosition;
use schemas::{Catalog, LatePolicy, ViewDef};
use serde_json::{Value as Json, json};
use storage::Store;
use storage::batch_view::BatchViewReader;
use storage::catalog::CatalogStore;
use storage::deltas::{Delta, DeltaStore};
use storage::manifests::ManifestStore;
use xxhash_rust::xxh3::xxh3_128;

use super::calendar;
use super::compare::compare;
use super::event::{C, COLUMNS, Event, Flavor, K, Placed, pick, place};
use super::fold::{check_bytes, fold_at_once, table};
use super::generate::Generator;
use super::late::{late_rows, reached};
use super::value::{Kind, Value};
use super::view::{Answer, DIMENSION, Late, ViewModel};
use crate::harness::{Client, Server, config, rows};

const VIEWS: usize = 10;
const EVENTS: usize = 600;

/// What is known of one platform under test.
struct World {
    partitions: u32,
    models: Vec<ViewModel>,
    dimension: Vec<Vec<Value>>,
    /// Acknowledged, in order.
    events: Vec<Event>,
}

/// The partition of an event by the stored contract: the high half of a hash of kind 5 (text), length, bytes.
fn partition(event: &Event, partitions: u32) -> u32 {
    let id = event.id();
    let bytes = [&[5][..], &(id.len() as u32).to_le_bytes(), id.as_bytes()].concat();
    ((xxh3_128(&bytes) >> 64) as u64 % u64::from(partitions)) as u32
}

/// Which part of a view is asked for, as a prefix of its name.
const LAYERS: [&str; 3] = ["", "batch.", "speed."];

impl World {
    fn random(rng: &mut ChaCha8Rng) -> Self {
        let mut generator = Generator { rng: &mut *rng, knows_log_time: false };
        let models = (0..VIEWS).map(|_| generator.view()).collect();
        let dimension = generator.dimension();
        Self { partitions: pick(rng, &[1, 2, 4, 7]), models, dimension, events: vec![] }
    }

    fn records(&self) -> Vec<Placed> {
        place(&self.events, self.partitions, |event| partition(event, self.partitions))
    }

    async fn create(&self, client: &Client) {
        let columns: Vec<String> = COLUMNS.iter().map(|(name, sql, _)| format!("{name} {sql}")).collect();
        client
            .sql(&format!(
                "CREATE STREAM s ({}, PRIMARY KEY (id), WATERMARK FOR at AS at - INTERVAL '5 minutes') \
                 WITH (partitions = {})",
                columns.join(", "),
                self.partitions
            ))
            .await;
        let columns: Vec<String> = DIMENSION.iter().map(|(name, sql, _)| format!("{name} {sql}")).collect();
        let sql = format!("CREATE TABLE dim ({}) FROM FILE 'dim.csv' WITH (join = 'pinned')", columns.join(", "));
        client.try_sql(json!({ "sql": sql, "files": { "dim.csv": self.csv() } })).await.unwrap();
        for (number, model) in self.models.iter().enumerate() {
            for (name, refresh) in [(format!("v{number}"), "MANUAL"), (format!("v{number}_never"), "NEVER")] {
                let (late, sql) = (model.late_sql(), model.sql());
                let create = "CREATE MATERIALIZED VIEW";
                client.sql(&format!("{create} {name} REFRESH {refresh} WITH (late = '{late}') AS {sql}")).await;
            }
        }
    }

    fn csv(&self) -> String {
        let cell = |value: &Value| match value {
            Value::Null => String::new(),
            Value::Int(value) => value.to_string(),
            Value::Text(text) => text.clone(),
            other => panic!("{other:?} in a static table"),
        };
        let line = |row: &Vec<Value>| row.iter().map(cell).collect::<Vec<_>>().join(",");
        let header = DIMENSION.map(|(name, ..)| name).join(",");
        std::iter::once(header).chain(self.dimension.iter().map(line)).map(|line| line + "\n").collect()
    }

    /// Sends events with duplicates, changed duplicates and broken records among them.
    async fn ingest(&mut self, client: &Client, events: &[Event], rng: &mut ChaCha8Rng) {
        let (mut body, mut duplicates, mut quarantined) = (String::new(), 0, 0);
        for event in events {
            body += &event.line();
            self.events.push(event.clone());
            if rng.random_bool(0.1) {
                let mut again = pick(rng, &self.events);
                if rng.random_bool(0.5) {
                    again.0[C] = Value::Int(99);
                    again.0[K] = Value::Text("the first one counts".into());
                }
                body += &again.line();
                duplicates += 1;
            }
            if rng.random_bool(0.05) {
                let broken = ["{\"id\":\"bad\"}\n", "{\"id\":\"bad\",\"at\":true}\n", "{oops\n"];
                body += pick(rng, &broken);
                quarantined += 1;
            }
        }
        let answer = client.ingest("s", body).await;
        let counts = (&answer["accepted"], &answer["duplicates"], &answer["quarantined"]);
        assert_eq!(counts, (&Json::from(events.len()), &Json::from(duplicates), &Json::from(quarantined)));
    }

    /// All views and their twins, merged, against the events acknowledged until now.
    async fn check_merged(&self, client: &Client, moment: &str) {
        let records = self.records();
        for (number, model) in self.models.iter().enumerate() {
            let expected = model.answer(&records, &self.dimension);
            for name in [format!("v{number}"), format!("v{number}_never")] {
                self.check(client, &name, model, &expected, moment).await;
            }
            if model.has_finality() {
                let reached = reached(&records, self.partitions);
                let expected = model.answer_with(&records, &self.dimension, Some(&reached));
                let kinds = [kinds(model), vec![Kind::Bool]].concat();
                let sql = format!("SELECT *, window_final FROM v{number}");
                self.check_query(client, &sql, &kinds, model, (&expected, moment)).await;
            }
            self.check_side(client, "", number, &records, moment).await;
        }
    }

    /// The view with the late events of a view and of its twin.
    async fn check_side(&self, client: &Client, layer: &str, number: usize, records: &[Placed], moment: &str) {
        let model = &self.models[number];
        if model.late != Late::Side {
            return;
        }
        let columns = side_columns(model);
        let (names, kinds): (Vec<&str>, Vec<Kind>) = columns.iter().map(|(name, kind)| (name.as_str(), *kind)).unzip();
        let rows = late_rows(model, records, &self.dimension, &names);
        let expected = Answer { rows: Ok(rows), counted: 0, late: 0, counted_late: 0 };
        let mut views = vec![format!("{layer}v{number}_late")];
        if layer.is_empty() {
            views.push(format!("v{number}_never_late"));
        }
        for view in views {
            let sql = format!("SELECT {} FROM {view}", names.join(", "));
            self.check_query(client, &sql, &kinds, model, (&expected, moment)).await;
        }
    }

    async fn check(&self, client: &Client, name: &str, model: &ViewModel, expected: &Answer, moment: &str) {
        self.check_query(client, &format!("SELECT * FROM {name}"), &kinds(model), model, (expected, moment)).await;
    }

    async fn check_query(
        &self,
        client: &Client,
        sql: &str,
        kinds: &[Kind],
        model: &ViewModel,
        (expected, moment): (&Answer, &str),
    ) {
        let asked = json!({ "sql": sql, "row_limit": 1_000_000 });
        let context =
            || format!("{moment}, {} events: {sql} (late {}):\n{}", self.events.len(), model.late_sql(), model.sql());
        match (client.try_sql(asked).await, &expected.rows) {
            (Ok(answer), Ok(expected)) => {
                let found: Vec<Vec<Value>> = rows(&answer).iter().map(|row| parse_row(row, kinds)).collect();
                compare(&found, expected).unwrap_or_else(|difference| panic!("{}\n{difference}", context()));
            }
            (Err((_, problem)), Err(_)) => {
                assert!(problem["detail"].as_str().unwrap().contains("out of range"), "{}\n{problem}", context());
            }
            (Err(problem), Ok(_)) => panic!("{}\n{problem:?}", context()),
            (Ok(answer), Err(_)) => panic!("{}\na sum out of range went unnoticed: {answer}", context()),
        }
    }

    async fn run(&self, client: &Client, number: usize) {
        let run = client.run(&format!("v{number}")).await;
        let model = &self.models[number];
        let explained = model.answer(&self.records(), &self.dimension).late > 0;
        let verdict = if explained { "explained" } else { "exact" };
        assert_eq!((&run["state"], &run["verdict"]), (&"succeeded".into(), &verdict.into()), "{}: {run}", model.sql());
        if model.late == Late::Side {
            let run = client.run(&format!("v{number}_late")).await;
            assert_eq!(
                (&run["state"], &run["verdict"]),
                (&"succeeded".into(), &"exact".into()),
                "{}: {run}",
                model.sql()
            );
        }
    }

    /// After a run of everything: batch alone, speed alone and merged.
    async fn check_layers(&self, client: &Client) {
        let records = self.records();
        for (number, model) in self.models.iter().enumerate() {
            let expected = model.answer(&records, &self.dimension);
            let nothing = model.answer(&[], &self.dimension);
            for (layer, run, never) in
                [(LAYERS[0], &expected, &expected), (LAYERS[1], &expected, &nothing), (LAYERS[2], &nothing, &expected)]
            {
                self.check(client, &format!("{layer}v{number}"), model, run, "at the end").await;
                if layer != "batch." {
                    self.check(client, &format!("{layer}v{number}_never"), model, never, "at the end").await;
                }
            }
            self.check_side(client, "batch.", number, &records, "at the end").await;
        }
    }
}

fn kinds(model: &ViewModel) -> Vec<Kind> {
    model.columns.iter().map(super::expression::Expression::kind).collect()
}

/// Columns that the view with a view's late events has: what its aggregate reads; of a view of rows, its own.
fn side_columns(model: &ViewModel) -> Vec<(String, Kind)> {
    if model.is_of_rows {
        let own = kinds(model).into_iter().enumerate();
        return own.map(|(index, kind)| (format!("o{index}"), kind)).collect();
    }
    let mut columns: Vec<(&str, Kind)> = COLUMNS.iter().map(|(name, _, kind)| (*name, *kind)).collect();
    if model.hides_time {
        columns.retain(|(name, _)| *name != "at");
        columns.push(("_event_time", Kind::Time));
    }
    columns.extend([("_partition", Kind::Int), ("_offset", Kind::Int), ("_max_event_time", Kind::Time)]);
    if model.join.is_some() {
        columns.extend(DIMENSION.iter().map(|(name, _, kind)| (*name, *kind)));
    }
    if model.unnest.is_some() {
        columns.push(("item", Kind::Text));
    }
    columns.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect()
}

fn parse_row(row: &Json, kinds: &[Kind]) -> Vec<Value> {
    row.as_array().unwrap().iter().zip(kinds).map(|(cell, kind)| parse(cell, *kind)).collect()
}

/// A cell of a JSON answer; one that is not of its kind is text, which equals nothing else.
fn parse(cell: &Json, kind: Kind) -> Value {
    let text = cell.as_str().map_or_else(|| cell.to_string(), str::to_owned);
    let parsed = match (cell, kind) {
        (Json::Null, _) => Some(Value::Null),
        (Json::Bool(value), Kind::Bool) => Some(Value::Bool(*value)),
        (Json::Array(items), Kind::List(of)) => Some(Value::List(items.iter().map(|item| parse(item, *of)).collect())),
        (Json::Array(items), Kind::Ranks(of)) => {
            let pair = |item: &Json| [parse(&item["value"], *of), parse(&item["count"], Kind::Int)];
            Some(Value::List(items.iter().flat_map(pair).collect()))
        }
        (_, Kind::Int) => text.parse().ok().map(Value::Int),
        (_, Kind::Float) => text.parse().ok().map(Value::Float),
        (_, Kind::Decimal(_)) => decimal(&text),
        (_, Kind::Time) => calendar::parse(&text).map(Value::Time),
        _ => None,
    };
    parsed.unwrap_or(Value::Text(text))
}

fn decimal(text: &str) -> Option<Value> {
    let scale = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let unscaled = text.replace('.', "").parse().ok()?;
    Some(Value::Decimal(unscaled, u32::try_from(scale).ok()?))
}

/// What is stored when the platform has stopped.
struct Stored {
    store: Store,
    catalog: Arc<Catalog>,
    deltas: Vec<Delta>,
}

impl Stored {
    async fn open(folder: &Path) -> Self {
        let store = Store::open(config(folder).object_store_url().unwrap().as_str()).unwrap();
        let catalog = CatalogStore::open(store.clone()).await.unwrap().current();
        let stream = catalog.stream("s").unwrap().id;
        let deltas = DeltaStore::new(store.clone()).chain(stream, None).await.unwrap();
        Self { store, catalog, deltas }
    }

    fn compile(&self, def: &ViewDef, dimension: &[Vec<Value>]) -> Arc<View> {
        let (stream, mut dim) = (self.catalog.stream("s").unwrap(), table(dimension));
        let stored = self.catalog.table("dim").unwrap();
        dim.identity = format!("{}/{}", stored.id, stored.version);
        let tables = if def.tables.is_empty() { vec![] } else { vec![dim] };
        let late = def.late.unwrap_or(LatePolicy::Include);
        let position = SqlPosition { line: 1, column: 1 };
        View::compile(&ViewSource { sql: &def.sql, position, stream, tables: &tables, late }).unwrap()
    }

    /// The states in the batch view's files.
    async fn batch(&self, def: &ViewDef, view: &View) -> RecordBatch {
        let manifest = ManifestStore::new(self.store.clone()).current(def.id).await.unwrap().unwrap();
        assert_eq!(manifest.semantic_hash, view.semantic_hash());
        let reader =
            BatchViewReader::open(&self.store, Arc::clone(view.state_schema()), &manifest.files).await.unwrap();
        let parts: Vec<RecordBatch> = reader.scan(100).try_collect().await.unwrap();
        arrow::compute::concat_batches(view.state_schema(), &parts).unwrap()
    }

    /// The states of all deltas from the first record on, merged.
    fn speed(&self, def: &ViewDef, view: &View, records: usize) -> RecordBatch {
        let (first, last) = (&self.deltas[0].header, &self.deltas.last().unwrap().header);
        assert_eq!((first.from.total(), last.to.total()), (0, records as u64));
        let mut parts = vec![];
        for delta in &self.deltas {
            let (header, own) = (&delta.header, |part: &DeltaView| part.view == def.id);
            let Some(index) = header.views.iter().position(own) else {
                assert!(header.from.same_position(&header.to), "records of {header:?} are missing in {}", def.name);
                continue;
            };
            assert_eq!(header.views[index].semantic_hash, view.semantic_hash());
            parts.extend(delta.states[index].iter().cloned());
        }
        states::merge(view, &parts).unwrap()
    }
}

/// Batch files, deltas, and a fold of the acknowledged events in this test: the same bytes.
async fn check_stored_states(folder: &Path, world: &World) {
    let stored = Stored::open(folder).await;
    let records = world.records();
    for (number, model) in world.models.iter().enumerate() {
        let run = stored.catalog.view(&format!("v{number}")).unwrap();
        let never = stored.catalog.view(&format!("v{number}_never")).unwrap();
        assert_eq!(run.semantic_hash, never.semantic_hash, "{}", model.sql());
        let view = stored.compile(run, &world.dimension);
        assert_eq!(run.semantic_hash, view.semantic_hash(), "{}", model.sql());
        let (whole, _) = fold_at_once(&view, &records, world.partitions).unwrap();
        let (batch, speed) = (stored.batch(run, &view).await, stored.speed(never, &view, records.len()));
        check_bytes(&batch, &speed, "batch and speed").unwrap_or_else(|e| panic!("{}\n{e}", model.sql()));
        check_bytes(&whole, &speed, "the test and speed").unwrap_or_else(|e| panic!("{}\n{e}", model.sql()));
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn generated_views_are_the_same_in_both_layers(#[values(1, 2, 3)] seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut world = World::random(&mut rng);
    let flavor = Flavor::random(&mut rng);
    let events: Vec<Event> = (0..EVENTS).map(|number| Event::random(&mut rng, number, flavor)).collect();
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path()).await;
    world.create(&server.client).await;
    let mut sent = 0;
    while sent < events.len() {
        let until = (sent + rng.random_range(1..200)).min(events.len());
        world.ingest(&server.client, &events[sent..until], &mut rng).await;
        sent = until;
        match rng.random_range(0..5) {
            0 => server.platform.checkpoint("s").await.unwrap(),
            1 | 2 => world.run(&server.client, rng.random_range(0..VIEWS)).await,
            3 => {
                server.stop().await;
                server = Server::start(folder.path()).await;
            }
            _ => {}
        }
        world.check_merged(&server.client, &format!("seed {seed}")).await;
    }
    for number in 0..VIEWS {
        world.run(&server.client, number).await;
    }
    world.check_layers(&server.client).await;
    server.stop().await;
    check_stored_states(folder.path(), &world).await;
}
