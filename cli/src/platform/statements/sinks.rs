//! `CREATE SINK`, `DROP SINK`: changes of the catalogue; who runs sinks follows it.

use operators::View;
use schemas::problem::did_you_mean;
use schemas::statement::{CreateSink, ObjectKind};
use schemas::{Catalog, Code, Problem, SinkDef, SinkTarget};
use serving::parts::StatementAnswer;
use std::sync::Arc;
use uuid::Uuid;

use super::create::{Checked, check_name};
use super::{StatementService, message};

/// A sink that may be created. `compiled` is the view, where it is known already.
pub(super) fn check_sink(
    create: &CreateSink,
    text: &str,
    catalog: &Catalog,
    compiled: impl Fn(Uuid) -> Option<Arc<View>>,
    now_us: i64,
) -> Result<Checked<SinkDef>, Problem> {
    if let Some(answer) = check_name(catalog, ObjectKind::Sink, &create.name, create.if_not_exists)? {
        return Ok(Checked::Done(answer));
    }
    if let (Some(_), Some(parts)) = (catalog.union(&create.view), catalog.parts(&create.view)) {
        return Err(serving::changes::of_union(&create.view, &parts).at(text, create.view_position));
    }
    let Some(view) = catalog.view(&create.view) else { return Err(unknown_view(create, text, catalog)) };
    let is_same = |other: &&SinkDef| match (&other.target, &create.target) {
        (SinkTarget::Postgres { url, table }, SinkTarget::Postgres { url: to, table: into }) => {
            url == to && table == into
        }
        (SinkTarget::File { path }, SinkTarget::File { path: into }) => path == into,
        _ => false,
    };
    if let Some(other) = catalog.sinks.iter().find(is_same) {
        let what = format!("sink {} writes to {} already", other.name, create.target.place());
        return Err(Problem::new(Code::AlreadyExists, what).with_hint("each sink has a place of its own"));
    }
    if let (Some(view), Some(stream)) = (compiled(view.id), catalog.stream_by_id(view.stream)) {
        serving::changes::check(&view, &create.view, stream, create.mode)?;
    }
    Ok(Checked::New(SinkDef {
        id: Uuid::now_v7(),
        name: create.name.clone(),
        view: view.id,
        mode: create.mode,
        target: create.target.clone(),
        every_us: create.every_us,
        created_at_us: now_us,
    }))
}

fn unknown_view(create: &CreateSink, text: &str, catalog: &Catalog) -> Problem {
    let name = &create.view;
    let problem = if catalog.stream(name).is_some() {
        Problem::new(Code::InvalidSql, format!("{name} is a stream: a sink delivers the changes of a view")).with_hint(
            format!("CREATE MATERIALIZED VIEW … AS SELECT … FROM {name} …; then CREATE SINK … FROM the view"),
        )
    } else {
        let problem = Problem::new(Code::NotFound, format!("there is no view {name}"));
        match did_you_mean(name, catalog.view_names()) {
            Some(close) => problem.with_hint(format!("did you mean {close}?")),
            None => problem,
        }
    };
    problem.at(text, create.view_position)
}

impl StatementService {
    pub(super) async fn create_sink(&self, create: &CreateSink, text: &str) -> Result<StatementAnswer, Problem> {
        let parts = &self.registry.parts;
        let compiled = |id| serving::parts::Views::view(self.registry.as_ref(), id);
        let sink = match check_sink(create, text, &parts.catalog.current(), compiled, parts.clock.now_us())? {
            Checked::Done(answer) => return Ok(answer),
            Checked::New(sink) => sink,
        };
        parts
            .catalog
            .update(|catalog| {
                catalog.sinks.push(sink);
                catalog.sinks.sort_by(|a, b| a.name.cmp(&b.name));
                Ok(())
            })
            .await?;
        Ok(message(format!("created sink {}; SELECT * FROM system.sinks says how it does", create.name)))
    }

    pub(super) async fn drop_sink(&self, name: &str) -> Result<(), Problem> {
        let removed = self.registry.parts.catalog.update(|catalog| {
            catalog.sinks.retain(|sink| sink.name != name);
            Ok(())
        });
        removed.await
    }
}
