//! `CREATE STREAM`, `CREATE MATERIALIZED VIEW`: checked against a catalogue, then carried out.

use std::sync::Arc;

use batch::BatchView;
use operators::StaticTable;
use schemas::documents::run::{RunKind, RunTrigger};
use schemas::limits::PARTITIONS_MAX;
use schemas::statement::{CreateStream, CreateView, ObjectKind};
use schemas::{Catalog, Code, Cut, LatePolicy, LogKind, Problem, StreamDef, TableDef, Transport, ViewDef};
use serving::parts::StatementAnswer;
use storage::kafka::describe;
use storage::layers::Runs;
use uuid::Uuid;

use super::compile::{Compiled, compile};
use super::drop::word;
use super::freeze::check_frozen;
use super::union::{self, Compilation, is_main, union_def};
use super::{StatementService, message};

/// What the checks of a `CREATE` came to.
pub(super) enum Checked<T> {
    /// There is nothing to do.
    Done(StatementAnswer),
    /// This is to be added to the catalogue.
    New(T),
}

/// A stream that may be created.
pub(super) fn check_stream(
    create: &CreateStream,
    catalog: &Catalog,
    now_us: i64,
) -> Result<Checked<StreamDef>, Problem> {
    if let Some(answer) = check_name(catalog, ObjectKind::Stream, &create.name, create.if_not_exists)? {
        return Ok(Checked::Done(answer));
    }
    let frozen = create.transport.frozen.as_ref().map(|frozen| check_frozen(frozen, create, catalog)).transpose()?;
    Ok(Checked::New(StreamDef {
        id: Uuid::now_v7(),
        incarnation: Uuid::new_v4(),
        name: create.name.clone(),
        columns: create.columns.clone(),
        primary_key: create.primary_key.clone(),
        time_column: create.time_column.clone(),
        watermark_delay_us: create.watermark_delay_us,
        partitions: create.partitions,
        dedup_horizon_us: create.dedup_horizon_us,
        late: create.late,
        on_bad_data: create.on_bad_data,
        transport: Transport { frozen, ..create.transport.clone() },
        created_at_us: now_us,
    }))
}

/// Views that may be created, compiled over their streams: the view, or one for each branch of its `UNION ALL`; behind
/// each the one with its late events, if it diverts them.
pub(super) fn check_view(
    create: &CreateView,
    text: &str,
    catalog: &Catalog,
    rows_of: &dyn Fn(&TableDef) -> Option<StaticTable>,
) -> Result<Checked<NewViews>, Problem> {
    if let Some(answer) = check_replaced(create, catalog)? {
        return Ok(Checked::Done(answer));
    }
    if let Some(answer) = check_name(catalog, ObjectKind::View, &create.name, create.if_not_exists)? {
        return Ok(Checked::Done(answer));
    }
    batch::schedule::validate(&create.refresh)?;
    let parts = union::parts(Compilation { create, text, catalog, rows_of })?;
    let union = parts.is_some().then(|| create.clone());
    let mains = match parts {
        Some(parts) => parts,
        None => vec![NewView { create: create.clone(), compiled: compile(create, text, catalog, rows_of)? }],
    };
    let mut views = vec![];
    for main in mains {
        if main.create.name != create.name {
            check_name(catalog, ObjectKind::View, &main.create.name, false)?;
        }
        let side = side_of(&main.create, &main.compiled);
        let own_text = if union.is_some() { main.create.sql.clone() } else { text.to_owned() };
        views.push(main);
        if let Some(create) = side {
            check_name(catalog, ObjectKind::View, &create.name, false)?;
            let compiled = compile(&create, &own_text, catalog, rows_of)?;
            views.push(NewView { create, compiled });
        }
    }
    Ok(Checked::New(NewViews { views, union }))
}

/// Views that may be created together.
pub(super) struct NewViews {
    pub(super) views: Vec<NewView>,
    /// The statement of the union that they are the parts of.
    pub(super) union: Option<CreateView>,
}

/// An answer for `OR REPLACE` of what is there as it is; nothing where a view is new.
fn check_replaced(create: &CreateView, catalog: &Catalog) -> Result<Option<StatementAnswer>, Problem> {
    if !create.or_replace || create.if_not_exists {
        return Ok(None);
    }
    let view = catalog.view(&create.name).map(|view| (&view.sql, &view.refresh));
    let union = catalog.union(&create.name).map(|union| (&union.sql, &union.refresh));
    let Some(existing) = view.or(union) else { return Ok(None) };
    if existing == (&create.sql, &create.refresh) {
        return Ok(Some(message(format!("view {} is unchanged", create.name))));
    }
    let problem = Problem::new(Code::Unsupported, "CREATE OR REPLACE of a changed view is not supported yet");
    Err(problem.with_hint("DROP the view and create it again: its history is recomputed"))
}

/// The view with the late events of a view that diverts them.
fn side_of(create: &CreateView, compiled: &Compiled) -> Option<CreateView> {
    (compiled.view.late_policy() == LatePolicy::Side).then(|| CreateView {
        name: LatePolicy::side_of(&create.name),
        late: Some(LatePolicy::Only),
        ..create.clone()
    })
}

/// A view that may be created.
pub(super) struct NewView {
    pub(super) create: CreateView,
    pub(super) compiled: Compiled,
}

/// A view as the catalogue has it.
pub(super) fn view_def(create: &CreateView, compiled: &Compiled, id: Uuid, from: Cut, now_us: i64) -> ViewDef {
    ViewDef {
        id,
        name: create.name.clone(),
        version: 1,
        stream: compiled.stream.id,
        sql: create.sql.clone(),
        refresh: create.refresh.clone(),
        late: create.late,
        tables: compiled.pinned.clone(),
        semantic_hash: compiled.view.semantic_hash().to_owned(),
        from,
        with_no_data: create.with_no_data,
        created_at_us: now_us,
    }
}

/// Nothing for a free name; an answer for one that may be taken by the same kind of thing.
pub(super) fn check_name(
    catalog: &Catalog,
    kind: ObjectKind,
    name: &str,
    if_not_exists: bool,
) -> Result<Option<StatementAnswer>, Problem> {
    let is_same_kind = match kind {
        ObjectKind::Stream => catalog.stream(name).is_some(),
        ObjectKind::Table => catalog.table(name).is_some(),
        ObjectKind::View => catalog.parts(name).is_some(),
        ObjectKind::Sink => catalog.sink(name).is_some(),
    };
    match (catalog.is_taken(name), if_not_exists && is_same_kind) {
        (false, _) => Ok(None),
        (true, true) => Ok(Some(message(format!("{} {name} exists already", word(kind))))),
        (true, false) => Err(taken(name)),
    }
}

pub(super) fn taken(name: &str) -> Problem {
    Problem::new(Code::AlreadyExists, format!("{name} exists already"))
        .with_hint("choose another name, or DROP it first")
}

impl StatementService {
    pub(super) async fn create_stream(&self, create: &CreateStream) -> Result<StatementAnswer, Problem> {
        let parts = &self.registry.parts;
        let stream = match check_stream(create, &parts.catalog.current(), parts.clock.now_us())? {
            Checked::Done(answer) => return Ok(answer),
            Checked::New(stream) => StreamDef { partitions: self.partitions_of(create).await?, ..stream },
        };
        if stream.transport.frozen.is_some() {
            self.registry.frozen_table(&stream)?;
        }
        let open = self.registry.prepare_stream(&stream).await.map_err(|error| {
            tracing::error!(stream = %stream.name, error = format!("{error:#}"), "a stream could not be created");
            Problem::new(Code::StorageUnavailable, format!("stream {}: its log could not be opened", stream.name))
        })?;
        let added = stream.clone();
        parts.catalog.update(|catalog| insert_stream(catalog, added)).await?;
        parts.speed.open(stream, Arc::clone(&open.log), &[]).await?;
        self.registry.start_stream(open);
        Ok(message(format!("created stream {}", create.name)))
    }

    /// How many partitions a new stream gets: those of its topic, which has to be there and fit.
    async fn partitions_of(&self, create: &CreateStream) -> Result<u32, Problem> {
        let uses_kafka = create.transport.source.is_some() || create.transport.log == LogKind::Kafka;
        if !uses_kafka {
            return Ok(create.partitions);
        }
        let cluster = self.registry.parts.kafka.cluster(create.transport.brokers.as_deref());
        let cluster = cluster.map_err(|error| Problem::new(Code::InvalidSql, format!("{error:#}")))?;
        let Some(source) = &create.transport.source else { return Ok(create.partitions) };
        let facts = describe(&cluster, &source.topic).await.map_err(|error| error.problem())?;
        if facts.partitions > PARTITIONS_MAX {
            let detail = format!("topic {}: {} partitions, at most {PARTITIONS_MAX}", source.topic, facts.partitions);
            return Err(Problem::new(Code::InvalidSql, detail));
        }
        if create.partitions_given && create.partitions != facts.partitions {
            let detail = format!(
                "option partitions: topic {} has {} partitions, not {}",
                source.topic, facts.partitions, create.partitions
            );
            return Err(Problem::new(Code::InvalidSql, detail).with_hint("leave it out"));
        }
        Ok(facts.partitions)
    }

    pub(super) async fn create_view(&self, create: &CreateView, text: &str) -> Result<StatementAnswer, Problem> {
        let rows_of = |def: &TableDef| self.registry.table_version(def).map(|table| StaticTable::clone(&table));
        match check_view(create, text, &self.registry.parts.catalog.current(), &rows_of)? {
            Checked::Done(answer) => Ok(answer),
            Checked::New(views) => self.add_views(views).await,
        }
    }

    /// Adds views to the catalogue in one step: a view and the one with its late events, and all parts of a union, are
    /// there together.
    async fn add_views(&self, NewViews { views, union }: NewViews) -> Result<StatementAnswer, Problem> {
        let parts = &self.registry.parts;
        let mut folded = vec![];
        for new in &views {
            match self.fold_from_now_on(new) {
                Ok(def) => folded.push(def),
                Err(problem) => {
                    self.fold_no_longer(&folded);
                    return Err(problem);
                }
            }
        }
        let added = folded.clone();
        let union = union.map(|create| {
            let mains = views.iter().zip(&folded).filter(|(new, _)| is_main(&new.compiled.view));
            union_def(&create, mains.map(|(_, def)| def.id).collect(), parts.clock.now_us())
        });
        let mut texts: Vec<String> = union.iter().map(|union| format!("created view {}", union.name)).collect();
        let updated = parts.catalog.update(|catalog| {
            catalog.views.extend(added);
            catalog.views.sort_by(|a, b| a.name.cmp(&b.name));
            catalog.unions.extend(union);
            catalog.unions.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(())
        });
        if let Err(problem) = updated.await {
            self.fold_no_longer(&folded);
            return Err(problem);
        }
        for (new, def) in views.into_iter().zip(folded) {
            let Compiled { stream, view, tables, .. } = new.compiled;
            self.registry.add_view(BatchView { def: def.clone(), stream: Arc::new(stream), view, tables });
            texts.push(format!("created view {}", def.name));
            if def.from.total() > 0 && !def.with_no_data {
                let run = self.runs.start(&def.name, RunKind::Full, RunTrigger::History).await?;
                texts.push(format!("run {} computes its history of {} records", run.id, def.from.total()));
            }
        }
        Ok(message(texts.join("; ")))
    }

    /// Has the speed layer fold a view that nobody sees yet.
    fn fold_from_now_on(&self, NewView { create, compiled }: &NewView) -> Result<ViewDef, Problem> {
        let parts = &self.registry.parts;
        let missing = || {
            let detail = format!("stream {} is not open", compiled.stream.name);
            let closed = ingest::service::Streams::closed(self.registry.as_ref(), compiled.stream.id);
            closed.unwrap_or_else(|| Problem::new(Code::NotFound, detail))
        };
        let speed = parts.speed.stream(compiled.stream.id).ok_or_else(missing)?;
        let id = Uuid::now_v7();
        let from = speed.add_view(id, &compiled.view)?;
        Ok(view_def(create, compiled, id, from, parts.clock.now_us()))
    }

    fn fold_no_longer(&self, views: &[ViewDef]) {
        for def in views {
            if let Some(speed) = self.registry.parts.speed.stream(def.stream) {
                speed.remove_view(def.id);
            }
        }
    }
}

fn insert_stream(catalog: &mut Catalog, stream: StreamDef) -> Result<(), Problem> {
    if catalog.is_taken(&stream.name) {
        return Err(taken(&stream.name));
    }
    catalog.streams.push(stream);
    catalog.streams.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(())
}
