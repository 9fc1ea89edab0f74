//! Statements that only look; everything else is the owner's.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use schemas::Problem;
use schemas::statement::{Placed, Statement};
use serving::parts::{Rehearsal, StatementAnswer, Statements};

use super::super::statements::show;
use super::not_here;
use super::views::ReaderViews;

/// Statements over the catalogue of the store.
pub(crate) struct ReaderStatements {
    views: Arc<ReaderViews>,
    owner: Option<String>,
}

impl ReaderStatements {
    pub(super) fn new(views: Arc<ReaderViews>, owner: Option<String>) -> Self {
        Self { views, owner }
    }

    fn answer(&self, placed: &Placed) -> Result<StatementAnswer, Problem> {
        let catalog = self.views.catalog();
        match &placed.statement {
            Statement::Show(kind) => show::show(&catalog, *kind),
            Statement::ShowCreate { kind, name } => show::show_create(&catalog, *kind, name),
            _ => Err(not_here("it changes nothing", self.owner.as_deref())),
        }
    }

    /// Why events are not taken in here.
    pub(crate) fn no_events(&self) -> Problem {
        not_here("it takes in no events", self.owner.as_deref())
    }
}

#[async_trait]
impl Statements for ReaderStatements {
    async fn execute(&self, placed: &Placed, _: &BTreeMap<String, String>) -> Result<StatementAnswer, Problem> {
        self.answer(placed)
    }

    fn rehearse(&self) -> Box<dyn Rehearsal + '_> {
        Box::new(Rehearsed(self))
    }
}

/// A statement is refused in a dry run as it would be otherwise.
struct Rehearsed<'a>(&'a ReaderStatements);

impl Rehearsal for Rehearsed<'_> {
    fn check(&mut self, placed: &Placed, _: &BTreeMap<String, String>) -> Result<StatementAnswer, Problem> {
        self.0.answer(placed)
    }
}
