//! Publication: a batch view takes the place of the deltas below its cut, in one swap.

use std::sync::Arc;

use schemas::documents::manifest::Manifest;
use schemas::{Code, Cut, Problem};

use crate::chain::Base;
use crate::recover::link;
use crate::stream::StreamSpeed;

impl StreamSpeed {
    /// Checkpoints what is folded and lets no merge of deltas cross its end until it is released.
    pub(crate) async fn barrier(self: &Arc<Self>) -> Result<Cut, Problem> {
        loop {
            let cut = self.checkpoint().await?;
            let mut base = self.base.lock();
            // a merge may have swallowed the boundary between the two locks: then take the next one
            if base.durable.same_position(&cut) {
                base.barriers.push(cut.clone());
                return Ok(cut);
            }
        }
    }

    /// Swaps in a published batch view; every later snapshot has it, and no delta below its cut.
    pub(crate) async fn publish(&self, manifest: Arc<Manifest>) -> Result<(), Problem> {
        let goes_back = {
            let base = self.base.lock();
            let known = base.views.get(&manifest.view);
            let Some(state) = known else {
                return Err(Problem::new(Code::NotFound, format!("view {} is not open", manifest.view)));
            };
            !state.cut().is_at_most(&manifest.cut)
        };
        // deltas that only a rollback needs are on disk alone
        let chain = if goes_back {
            self.parts.deltas.chain(self.parts.stream.id, None).await.map_err(|e| e.problem())?
        } else {
            vec![]
        };
        let (retired, claim) = {
            let mut base = self.base.lock();
            for delta in chain {
                let read = link(delta, &base, &self.parts)?;
                for known in base.links.iter_mut().filter(|l| l.header.first_checkpoint == read.header.first_checkpoint)
                {
                    if known.header.last_checkpoint == read.header.last_checkpoint {
                        known.views.extend(read.views.iter().map(|(id, range)| (*id, Arc::clone(range))));
                    }
                }
            }
            (self.swap(&mut base, manifest)?, base.claim)
        };
        if let Some(first_kept) = retired {
            // a delta that outlives its use does no harm: the next publication removes it
            if let Err(error) = self.parts.deltas.remove_below(self.parts.stream.id, first_kept, claim).await {
                tracing::warn!(stream = self.name(), %error, "retired deltas could not be removed");
            }
        }
        Ok(())
    }

    /// Returns the first checkpoint that is still needed, if older ones were let go.
    fn swap(&self, base: &mut Base, manifest: Arc<Manifest>) -> Result<Option<u64>, Problem> {
        let cut = manifest.cut.clone();
        let is_boundary = base.durable.same_position(&cut)
            || base.links.iter().any(|l| l.header.to.same_position(&cut) || l.header.from.same_position(&cut))
            || base.views.get(&manifest.view).is_some_and(|state| state.from.same_position(&cut));
        if !is_boundary {
            return Err(Problem::new(Code::Internal, format!("the cut {cut} is no boundary of the deltas")));
        }
        let runs_kept = self.parts.limits.runs_kept.max(2);
        if let Some(state) = base.views.get_mut(&manifest.view) {
            state.manifest = Some(manifest);
            // two runs at one cut count once, so that more is kept, never less
            state.kept_cuts.retain(|kept| !kept.same_position(&cut));
            state.kept_cuts.push(cut.clone());
            let surplus = state.kept_cuts.len().saturating_sub(runs_kept);
            state.kept_cuts.drain(..surplus);
        }
        base.forget_covered();
        let Some(needed) = base.retained_from() else { return Ok(None) };
        // the last delta stays: its name is the fence, and its end is where recovery begins
        let covered = base.links.iter().take_while(|l| l.header.to.is_at_most(&needed)).count();
        let covered = covered.min(base.links.len().saturating_sub(1));
        base.links.drain(..covered);
        Ok(base.links.first().filter(|_| covered > 0).map(|l| l.header.first_checkpoint))
    }
}
