//! Leveled compaction: one job at a time, picked by score, run in the background.
//!
//! * [`picker`]: which tables to merge next.
//! * [`merge`]: merging them.

mod merge;
mod picker;

use crate::engine::Shared;
use crate::env::Env;
use crate::version::set::Change;
use crate::{Error, Result};
use picker::{Job, pick};
use std::rc::Rc;

/// Compacts until the engine closes.
pub(crate) async fn compaction_task<E: Env>(shared: Rc<Shared<E>>) {
    while !shared.closing.get() {
        let epoch = shared.compaction_wanted.epoch();
        let Some(job) = shared.next_job() else {
            shared.compaction_wanted.changed(epoch).await;
            continue;
        };
        shared.compacting.set(true);
        let outcome = shared.run(job).await;
        shared.compacting.set(false);
        match outcome {
            Ok(()) => shared.compaction_health.recovered(),
            Err(Error::Closed) => break,
            Err(error) => {
                shared.note_failure(&shared.compaction_health, error);
                let pause = shared.options.full_probe_interval;
                shared.compaction_wanted.changed_within(&shared.env, epoch, pause).await;
            }
        }
        shared.update_pressure();
        shared.progress.notify();
    }
    shared.task_ended();
}

impl<E: Env> Shared<E> {
    /// Waits until no level owes anything.
    pub async fn compact(&self) -> Result<()> {
        let failures = self.compaction_health.failures();
        loop {
            let epoch = self.progress.epoch();
            self.readable()?;
            if !self.compacting.get() && self.next_job().is_none() {
                return Ok(());
            }
            if let Some(error) = self.compaction_health.error_since(failures) {
                return Err(error);
            }
            self.compaction_wanted.notify();
            self.progress.changed(epoch).await;
        }
    }

    fn next_job(&self) -> Option<Job<E>> {
        let has_filter = self.filter.borrow().is_some();
        let positions = self.compaction_positions.borrow();
        pick(&self.versions.current(), &self.options, &positions, has_filter)
    }

    async fn run(&self, job: Job<E>) -> Result<()> {
        let position = job.upper.last().map(|live| live.table.largest().to_vec());
        let input = job.level;
        if job.is_move {
            self.move_down(job).await?;
        } else {
            self.merge(job).await?;
        }
        self.compaction_positions.borrow_mut()[input] = position.unwrap_or_default();
        Ok(())
    }

    /// Moves tables down a level: only the manifest changes.
    async fn move_down(&self, job: Job<E>) -> Result<()> {
        let moved = job.upper.len() as u64;
        let added = job.upper.iter().map(|live| (job.level + 1, live.clone())).collect();
        self.install(Change { added, removed: job.upper, flushed: None }).await?;
        self.stats.update(|stats| stats.trivial_moves += moved);
        Ok(())
    }

    async fn install(&self, change: Change<E>) -> Result<()> {
        let retry = async |error| self.retry_manifest(&self.compaction_health, error).await;
        self.versions.apply(change, self.log.last(), retry).await
    }
}
