//! `DROP`: refused while something depends on it.

use schemas::statement::ObjectKind;
use schemas::{Catalog, Code, LatePolicy, LogKind, Problem, StreamDef, ViewDef};
use serving::parts::StatementAnswer;
use storage::deltas::DeltaStore;
use storage::kafka::delete_topics;
use storage::paths;
use storage::source::SourceStore;
use uuid::Uuid;

use super::super::registry::{DEAD_LETTERS, RECEIPTS, RECORDS};
use super::show::unknown;
use super::{StatementService, freeze, message};

impl StatementService {
    pub(super) async fn drop(&self, kind: ObjectKind, name: &str, if_exists: bool) -> Result<StatementAnswer, Problem> {
        if let Some(answer) = check_drop(&self.registry.parts.catalog.current(), kind, name, if_exists)? {
            return Ok(answer);
        }
        match kind {
            ObjectKind::Stream => self.drop_stream(name).await?,
            ObjectKind::Table => self.drop_table(name).await?,
            ObjectKind::View => self.drop_view(name).await?,
            ObjectKind::Sink => self.drop_sink(name).await?,
        }
        Ok(message(format!("dropped {} {name}", word(kind))))
    }

    async fn drop_stream(&self, name: &str) -> Result<(), Problem> {
        let parts = &self.registry.parts;
        let removed = parts.catalog.update(|catalog| {
            let index = catalog.streams.iter().position(|stream| stream.name == name);
            Ok(index.map(|index| catalog.streams.remove(index)))
        });
        let Some(stream) = removed.await? else { return Ok(()) };
        self.ingest.forget(stream.id);
        self.registry.close_stream(stream.id).await;
        // the catalogue no longer names these files: what cannot be removed is garbage, not data
        let deltas = DeltaStore::new(parts.store.clone());
        let mut failures = vec![];
        failures.extend(deltas.remove_all(stream.id).await.err());
        failures.extend(parts.store.delete_below(&paths::master(stream.id)).await.err());
        failures.extend(parts.store.delete_below(&paths::imports(stream.id)).await.err());
        failures.extend(SourceStore::new(parts.store.clone(), stream.id).remove_all().await.err());
        if stream.transport.log == LogKind::Kafka {
            self.remove_topics(&stream).await;
        }
        for error in failures {
            tracing::warn!(stream = name, %error, "files of a dropped stream were not removed");
        }
        if let Err(error) = tokio::fs::remove_dir_all(parts.folder.logs(stream.id)).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(stream = name, %error, "the log of a dropped stream was not removed");
        }
        Ok(())
    }

    /// The topics of a stream's own logs. Those of others are left alone.
    async fn remove_topics(&self, stream: &StreamDef) {
        let topics = [RECORDS, DEAD_LETTERS, RECEIPTS].map(|kind| paths::topic(stream.id, kind));
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let removed = match self.registry.parts.kafka.cluster(stream.transport.brokers.as_deref()) {
            Ok(cluster) => delete_topics(&cluster, &names).await.map_err(anyhow::Error::from),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::warn!(stream = %stream.name, %error, "the topics of a dropped stream were not removed");
        }
    }

    async fn drop_table(&self, name: &str) -> Result<(), Problem> {
        let parts = &self.registry.parts;
        let removed = parts.catalog.update(|catalog| {
            let index = catalog.tables.iter().position(|table| table.name == name);
            Ok(index.map(|index| catalog.tables.remove(index)))
        });
        let Some(table) = removed.await? else { return Ok(()) };
        self.registry.remove_table(&table);
        if let Err(error) = parts.store.delete_below(&paths::table_versions(table.id)).await {
            tracing::warn!(table = name, %error, "files of a dropped table were not removed");
        }
        Ok(())
    }

    /// Removes a view, or all parts of a union, and the views with their late events.
    async fn drop_view(&self, name: &str) -> Result<(), Problem> {
        let parts = &self.registry.parts;
        let catalog = parts.catalog.current();
        let dropped = with_sides(&catalog, name);
        for view in dropped.iter().filter_map(|id| catalog.view_by_id(*id)) {
            self.cancel_runs(&view.name).await?;
        }
        let removed = parts.catalog.update(|catalog| {
            let (removed, kept): (Vec<ViewDef>, _) =
                std::mem::take(&mut catalog.views).into_iter().partition(|view| dropped.contains(&view.id));
            catalog.views = kept;
            catalog.unions.retain(|union| union.name != name);
            Ok(removed)
        });
        for view in removed.await? {
            self.registry.remove_view(view.id);
            if let Some(speed) = parts.speed.stream(view.stream) {
                speed.remove_view(view.id);
            }
            if let Err(error) = parts.store.delete_below(&paths::view(view.id)).await {
                tracing::warn!(view = view.name, %error, "files of a dropped view were not removed");
            }
        }
        Ok(())
    }

    async fn cancel_runs(&self, view: &str) -> Result<(), Problem> {
        use storage::layers::Runs;
        for run in self.runs.runs(Some(view), usize::MAX).await? {
            if !run.state.is_final() {
                // it may have ended in between
                let _ = self.runs.cancel(run.id).await;
            }
        }
        Ok(())
    }
}

/// The views that go when a name is dropped: the view or the parts of a union, and the views beside them.
pub(super) fn with_sides(catalog: &Catalog, name: &str) -> Vec<Uuid> {
    let parts = catalog.parts(name).unwrap_or_default();
    let sides = parts.iter().filter_map(|part| side_of(catalog, &part.name));
    parts.iter().map(|part| part.id).chain(sides.map(|side| side.id)).collect()
}

/// The view that was made beside a view, with its late events.
fn side_of<'a>(catalog: &'a Catalog, name: &str) -> Option<&'a ViewDef> {
    let view = catalog.view(name)?;
    let policy = view.late.or_else(|| catalog.stream_by_id(view.stream).map(|stream| stream.late));
    let side = catalog.view(&LatePolicy::side_of(name)).filter(|_| policy == Some(LatePolicy::Side))?;
    let is_own = side.late == Some(LatePolicy::Only) && side.stream == view.stream && side.sql == view.sql;
    is_own.then_some(side)
}

/// Nothing for what may be dropped; an answer where there is nothing to drop.
pub(super) fn check_drop(
    catalog: &Catalog,
    kind: ObjectKind,
    name: &str,
    if_exists: bool,
) -> Result<Option<StatementAnswer>, Problem> {
    let exists = match kind {
        ObjectKind::Stream => catalog.stream(name).is_some(),
        ObjectKind::Table => catalog.table(name).is_some(),
        ObjectKind::View => catalog.parts(name).is_some(),
        ObjectKind::Sink => catalog.sink(name).is_some(),
    };
    match (exists, if_exists) {
        (true, _) => check_unused(catalog, kind, name).map(|()| None),
        (false, true) => Ok(Some(message(format!("there is no {} {name}", word(kind))))),
        (false, false) => Err(unknown(catalog, kind, name)),
    }
}

fn check_unused(catalog: &Catalog, kind: ObjectKind, name: &str) -> Result<(), Problem> {
    if kind == ObjectKind::View {
        return check_own(catalog, name).and_then(|()| check_without_sinks(catalog, name));
    }
    let uses = |view: &&ViewDef| match kind {
        ObjectKind::Stream => catalog.stream(name).is_some_and(|stream| view.stream == stream.id),
        ObjectKind::Table => catalog.table(name).is_some_and(|table| view.tables.iter().any(|(id, _)| *id == table.id)),
        ObjectKind::View | ObjectKind::Sink => false,
    };
    if let Some(table) = catalog.table(name).filter(|_| kind == ObjectKind::Table) {
        let streams = freeze::streams_of(catalog, table.id);
        if !streams.is_empty() {
            let detail = format!("table {name} is looked up by: {}", streams.join(", "));
            return Err(Problem::new(Code::InUse, detail).with_hint("DROP these streams first"));
        }
    }
    // a union is what can be dropped, not its parts
    let dropped_as = |view: &ViewDef| catalog.union_of(view.id).map_or(view.name.clone(), |union| union.name.clone());
    let mut users: Vec<String> = catalog.views.iter().filter(uses).map(dropped_as).collect();
    users.dedup();
    if users.is_empty() {
        return Ok(());
    }
    let detail = format!("{} {name} is used by: {}", word(kind), users.join(", "));
    Err(Problem::new(Code::InUse, detail).with_hint("DROP these views first"))
}

/// What was made with another view goes with it.
fn check_own(catalog: &Catalog, name: &str) -> Result<(), Problem> {
    let union = catalog.view(name).and_then(|view| catalog.union_of(view.id));
    if let Some(union) = union {
        let detail = format!("view {name} is a part of view {}", union.name);
        return Err(Problem::new(Code::InUse, detail).with_hint(format!("DROP {}: its parts go with it", union.name)));
    }
    let main = catalog.views.iter().find(|view| side_of(catalog, &view.name).is_some_and(|side| side.name == name));
    let Some(main) = main else { return Ok(()) };
    let detail = format!("view {name} has the late events of view {}", main.name);
    Err(Problem::new(Code::InUse, detail).with_hint(format!("DROP {}: both are dropped then", main.name)))
}

fn check_without_sinks(catalog: &Catalog, name: &str) -> Result<(), Problem> {
    let parts = catalog.parts(name).unwrap_or_default();
    let sinks: Vec<&str> =
        parts.iter().flat_map(|part| catalog.sinks_of(part.id)).map(|sink| sink.name.as_str()).collect();
    if sinks.is_empty() {
        return Ok(());
    }
    let detail = format!("view {name} has sinks: {}", sinks.join(", "));
    Err(Problem::new(Code::InUse, detail).with_hint("DROP SINK these first"))
}

/// A kind in words.
pub(super) fn word(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Stream => "stream",
        ObjectKind::Table => "table",
        ObjectKind::View => "view",
        ObjectKind::Sink => "sink",
    }
}
