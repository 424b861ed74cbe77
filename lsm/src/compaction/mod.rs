//! Compaction: one job at a time, in steps, in the background.
//!
//! * [`policy`], [`policy_text`]: what the tree should look like, and how that is written down.
//! * [`shape`], [`picker`], [`fifo`], [`expired`]: what to do next, as a pure function.
//! * [`work`]: a job under way, with the tables it still has to read.
//! * [`merge`]: one step of a merge.
//! * [`pacer`]: how fast merges go.
//!
//! Every step ends in a version that is whole: its output is in, its inputs lack the keys that
//! are done. So a job may be put aside for a more urgent one, forgotten when the policy changes,
//! or cut off by a crash; the picker goes on from what it finds.

#[cfg(test)]
mod amplification_tests;
mod expired;
mod fifo;
mod merge;
mod pacer;
mod picker;
#[cfg(test)]
mod picker_tests;
mod policy;
mod policy_text;
mod shape;
mod work;

pub(crate) use pacer::Pacer;
pub use policy::{CompactionPolicy, FifoPolicy, LevelShape, TreePolicy};
pub(crate) use shape::Shape;

use crate::cache::Depth;
use crate::engine::Shared;
use crate::env::Env;
use crate::version::set::Change;
use crate::version::{LiveTable, Version};
use crate::{Error, Millis, Result, TableId};
use picker::{Action, Situation, pick};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;
use work::Work;

/// How long it takes until it is looked again at tables that have a time to live, or entries that
/// expire, at least and at most: the wall clock may be set.
const TTL_CHECKS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How many times the policy's runs come together in level 0 while flushes keep coming, if
/// writers are not slowed before: what is merged together meets the levels below once, and not
/// once for each of its parts.
const BURST_RUNS: u32 = 4;
/// Bytes per second of flushes that make a burst: it is over when the next memtable was not
/// filled at this rate.
const BURST_RATE: f64 = 16.0 * 1024.0 * 1024.0;

/// The time when it was looked for work.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// The moment by which entries expire.
    now: Millis,
    /// Wall clock, microseconds since the Unix epoch.
    wall_micros: u64,
}

/// Compacts until the engine closes.
pub(crate) async fn compaction_task<E: Env>(shared: Rc<Shared<E>>) {
    let mut pending: Vec<Work<E>> = Vec::new();
    while !shared.closing.get() {
        let (epoch, looked) = (shared.compaction_wanted.epoch(), shared.look());
        let Some(mut work) = shared.next_work(&mut pending) else {
            shared.compacting.set(false);
            shared.progress.notify();
            shared.take_filters_in().await;
            shared.wait_for_work(epoch, looked).await;
            continue;
        };
        shared.compacting.set(true);
        let outcome = shared.step(&mut work).await;
        match outcome {
            Ok(true) => shared.finished(&work),
            Ok(false) => pending.push(work),
            Err(Error::Closed) => break,
            Err(error) => {
                if shared.leave_alone(work.inputs().map(|(_, live)| live), &error) {
                    shared.note_failure(&shared.compaction_health, error);
                    pending.push(work);
                    continue;
                }
                pending.push(work);
                shared.note_failure(&shared.compaction_health, error);
                let pause = shared.options().full_probe_interval;
                shared.compaction_wanted.changed_within(&shared.env, epoch, pause).await;
                continue;
            }
        }
        shared.compaction_health.recovered();
        shared.tree_changed();
        shared.progress.notify();
    }
    shared.compacting.set(false);
    shared.task_ended();
}

/// Counts a caller that waits for compaction, until it is dropped.
struct Settling<'a>(&'a Cell<usize>);

impl<'a> Settling<'a> {
    fn of(callers: &'a Cell<usize>) -> Self {
        callers.set(callers.get() + 1);
        Settling(callers)
    }
}

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl<E: Env> Shared<E> {
    /// Waits until no level owes anything.
    pub async fn compact(&self) -> Result<()> {
        let _settling = Settling::of(&self.settling);
        let failures = self.compaction_health.failures();
        loop {
            let epoch = self.progress.epoch();
            self.readable()?;
            if !self.compacting.get() && self.next_job(&self.refusals.tables()).is_none() {
                let owes = self.next_job(&BTreeSet::new()).is_some();
                return self.refusals.error().filter(|_| owes).map_or(Ok(()), Err);
            }
            if let Some(error) = self.compaction_health.error_since(failures) {
                return Err(error);
            }
            self.compaction_wanted.notify();
            self.progress.changed(epoch).await;
        }
    }

    /// Reads filters that were left out for want of memory and fit by now: after a merge of
    /// everything the old tables are gone that took their place. Upper levels come first.
    async fn take_filters_in(&self) {
        if !self.cache.has_left_out() {
            return;
        }
        let version = self.versions.current();
        for (place, live) in version.tables() {
            let depth = Depth::of(place.level, version.deepest());
            // Without its filter a table is slower and no less right; what is wrong with the file is
            // told by whoever opens it next.
            let _ = live.table.table.take_filter_in(depth).await;
            if self.closing.get() {
                return;
            }
        }
    }

    /// The policy that holds now.
    pub fn policy(&self) -> Rc<CompactionPolicy> {
        self.policy.borrow().clone()
    }

    /// Makes another policy durable; the next step of compaction goes by it.
    pub async fn set_policy(&self, policy: CompactionPolicy) -> Result<()> {
        self.readable()?;
        policy.validate().map_err(Error::Policy)?;
        let change = Change { policy: Some(policy.clone()), ..Change::default() };
        self.install(change).await?;
        *self.policy.borrow_mut() = Rc::new(policy);
        self.policy_changed();
        self.compaction_wanted.notify();
        self.flush_wanted.notify();
        Ok(())
    }

    /// Waits until there may be something to do that there was not when it was `looked` for.
    async fn wait_for_work(&self, epoch: u64, looked: Look) {
        let burst = self.in_burst().then(|| self.burst_until.get().since(self.env.now()));
        match burst.into_iter().chain(self.until_due(looked)).min() {
            Some(pause) => self.compaction_wanted.changed_within(&self.env, epoch, pause).await,
            None => self.compaction_wanted.changed(epoch).await,
        }
    }

    /// How long until a table is too old, or has expired wholly or in good part, that was or had
    /// not when it was `looked` for.
    fn until_due(&self, looked: Look) -> Option<Duration> {
        let (now, ttl) = (self.look(), self.policy().ttl());
        let due = |live: &LiveTable<E>| {
            let expiry = live.expiry.next(looked.now);
            let expiry = expiry.map(|at| Duration::from_millis(at.0.saturating_sub(now.now.0)));
            let old = ttl.map(|ttl| fifo::due(live.written.newest, ttl));
            let old = old.filter(|at| *at > looked.wall_micros);
            let old = old.map(|at| Duration::from_micros(at.saturating_sub(now.wall_micros)));
            expiry.into_iter().chain(old).min()
        };
        let pause = |version: &Version<E>| version.tables().filter_map(|(_, live)| due(live)).min();
        Some(self.versions.with(pause)?.clamp(TTL_CHECKS.0, TTL_CHECKS.1))
    }

    fn look(&self) -> Look {
        Look { now: self.core.now(), wall_micros: self.env.wall_micros() }
    }

    /// A memtable was flushed: another one is expected as soon as one fills in a burst.
    pub fn note_flush(&self) {
        let next = self.options().memtable_bytes as f64 / BURST_RATE;
        self.burst_until.set(self.env.now().after(Duration::from_secs_f64(next)));
    }

    fn in_burst(&self) -> bool {
        self.settling.get() == 0 && self.env.now() < self.burst_until.get()
    }

    /// Runs that start a merge of level 0 now.
    fn level0_batch(&self, policy: &CompactionPolicy) -> u32 {
        let calm = policy.tree().map_or(1, |tree| tree.level0_runs);
        if !self.in_burst() {
            return calm;
        }
        // Writers must not be slowed by what waits for company.
        let slowdown = u32::try_from(self.options().l0_slowdown).unwrap_or(u32::MAX);
        (calm * BURST_RUNS).min(slowdown - slowdown / 5).max(calm)
    }

    /// What to do next without merging any of the tables `refused`.
    fn next_job(&self, refused: &BTreeSet<TableId>) -> Option<picker::Job> {
        let shape = self.versions.with(Shape::of);
        let positions = self.compaction_positions.borrow();
        let policy = self.policy();
        let situation = Situation {
            positions: &positions,
            level0_runs: self.level0_batch(&policy),
            refused,
            has_filter: self.filter.borrow().is_some(),
            wall_micros: self.env.wall_micros(),
            now: self.core.now(),
        };
        pick(&shape, &policy, &situation)
    }

    /// The work to go on with: what is under way, unless level 0 cannot wait for it.
    fn next_work(&self, pending: &mut Vec<Work<E>>) -> Option<Work<E>> {
        let version = self.versions.current();
        let policy = self.policy();
        let refused = self.refusals.tables();
        pending.retain(|work| {
            let goes_on = work.is_current(&version, &policy) && can_read(work, &refused);
            if work.rewrites && !goes_on {
                // What is left of the table still has to be written anew.
                self.ailing.borrow_mut().extend(work.inputs().map(|(_, live)| live.id));
            }
            goes_on
        });
        if let Some(work) = self.rewrite_of_ailing(&version, &policy, pending, &refused) {
            return Some(work);
        }
        let urgent = policy.tree().is_some_and(|tree| {
            version.levels[0].len() >= 2 * tree.level0_runs as usize
                && pending.iter().all(|work| work.level > 0)
        });
        // What gives space back for an edit alone goes before what waits for that space.
        let starved = self.compaction_health.is_disk_full();
        if !urgent
            && !starved
            && let Some(work) = pending.pop()
        {
            return Some(work);
        }
        // Work that loses an input to a drop is forgotten like any other. Level 0 has the highest
        // score when it is that full, or something deeper is worse off still and goes first; what
        // is under way must not be picked again.
        let goes = |job: &picker::Job| {
            pending.is_empty()
                || (urgent && job.level == 0)
                || (starved && job.action == Action::Drop)
        };
        let job = self.next_job(&refused).filter(goes);
        job.and_then(|job| Work::of(job, &version, policy)).or_else(|| pending.pop())
    }

    /// A table that would be lost at the next opening, to be written anew where it is. It goes
    /// first, once nothing else is under way.
    fn rewrite_of_ailing(
        &self,
        version: &Version<E>,
        policy: &Rc<CompactionPolicy>,
        pending: &[Work<E>],
        refused: &BTreeSet<TableId>,
    ) -> Option<Work<E>> {
        let mut ailing = self.ailing.borrow_mut();
        if ailing.is_empty() || !pending.is_empty() {
            return None;
        }
        while let Some(id) = ailing.difference(refused).next().copied() {
            ailing.remove(&id);
            let found = version.tables().find(|(_, live)| live.id == id);
            if let Some((place, live)) = found {
                return Some(Work::rewrite(place, live.clone(), policy.clone()));
            }
        }
        None
    }

    /// Does a bounded part of the work; true: it is done.
    async fn step(&self, work: &mut Work<E>) -> Result<bool> {
        match work.action {
            Action::Merge => self.merge_step(work).await,
            Action::Move => self.move_tables(work).await.map(|()| true),
            Action::Drop => self.drop_tables(work).await.map(|()| true),
        }
    }

    fn finished(&self, work: &Work<E>) {
        self.compaction_positions.borrow_mut()[work.level] = work.position.clone();
        if work.action == Action::Merge {
            self.stats.update(|stats| stats.compactions += 1);
        }
        if work.rewrites {
            self.stats.update(|stats| stats.rewritten_tables += 1);
        }
    }

    /// Moves tables to another place: only the manifest changes.
    async fn move_tables(&self, work: &mut Work<E>) -> Result<()> {
        let target = work.target(|| self.versions.allocate().0);
        let removed: Vec<_> = work.inputs().map(|(_, live)| live.clone()).collect();
        let moved = removed.len() as u64;
        let added = removed.iter().map(|live| (target, live.clone())).collect();
        self.install(Change { added, removed, ..Change::default() }).await?;
        self.stats.update(|stats| stats.trivial_moves += moved);
        Ok(())
    }

    async fn drop_tables(&self, work: &Work<E>) -> Result<()> {
        let removed: Vec<_> = work.inputs().map(|(_, live)| live.clone()).collect();
        let dropped = removed.len() as u64;
        self.install(Change { removed: removed.clone(), ..Change::default() }).await?;
        removed.iter().for_each(|live| live.table.table.leave(&self.cache));
        // Rows of keys whose newest version was dropped would go on to answer point reads; of what
        // has expired they show nothing anyway.
        let now = self.core.now();
        if removed.iter().any(|live| live.expiry.all > now) {
            self.forget_rows();
        }
        self.stats.update(|stats| stats.tables_dropped += dropped);
        Ok(())
    }

    async fn install(&self, change: Change<E>) -> Result<()> {
        let retry = async |error| self.retry_manifest(&self.compaction_health, error).await;
        self.versions.apply(change, self.log.last(), retry).await
    }
}

/// Whether none of the work's inputs is among the tables `refused`. What is put aside for them is
/// picked again.
fn can_read<E: Env>(work: &Work<E>, refused: &BTreeSet<TableId>) -> bool {
    work.action != Action::Merge || work.inputs().all(|(_, live)| !refused.contains(&live.id))
}
