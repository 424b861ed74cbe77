//! One keyspace: its tree and what the parts of it share, health of the background work, pressure
//! on writers.

use super::{Core, Memory};
use crate::cache::{BlockCache, Space};
use crate::compaction::{Pacer, Shape};
use crate::engine::CompactionFilter;
use crate::env::{Env, Nanos};
use crate::log::Log;
use crate::log::inherited::Inherited;
use crate::log::throttle::{Debt, TreeDebt};
use crate::refused::Refusals;
use crate::scrub::Suspects;
use crate::signal::Signal;
use crate::stats::{Counters, EngineStats, LEVELS, Looks};
use crate::trash::Trash;
use crate::version::VersionSet;
use crate::{CompactionPolicy, Error, KeyspaceId, Options, Result, Seq, TableId};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::Rc;

/// How one kind of background work fares.
#[derive(Debug, Default)]
pub(crate) struct Health {
    error: RefCell<Option<Error>>,
    failures: Cell<u64>,
}

impl Health {
    /// The last attempt failed.
    pub fn failed(&self, error: Error) {
        *self.error.borrow_mut() = Some(error);
        self.failures.set(self.failures.get() + 1);
    }

    /// The last attempt succeeded.
    pub fn recovered(&self) {
        *self.error.borrow_mut() = None;
    }

    /// Number of failures so far.
    pub fn failures(&self) -> u64 {
        self.failures.get()
    }

    /// The error of the last attempt, if it failed after `since` failures.
    pub fn error_since(&self, since: u64) -> Option<Error> {
        if self.failures.get() > since { self.error.borrow().clone() } else { None }
    }

    /// Whether the last attempt failed for want of space.
    pub fn is_disk_full(&self) -> bool {
        self.error.borrow().as_ref().is_some_and(Error::is_disk_full)
    }
}

/// The inside of one keyspace.
pub(crate) struct Shared<E: Env> {
    pub keyspace: KeyspaceId,
    pub core: Rc<Core<E>>,
    pub env: E,
    pub dir: PathBuf,
    /// Changed by [`crate::Engine::alter_keyspace`].
    options: RefCell<Rc<Options>>,
    /// What is counted per keyspace.
    pub stats: Rc<Counters>,
    /// Where point reads looked.
    pub looks: Looks,
    pub log: Log<E>,
    pub memory: RefCell<Memory>,
    pub versions: VersionSet<E>,
    pub cache: Rc<BlockCache>,
    /// What the cache knows this keyspace's rows by. Another name makes it forget them all.
    pub space: Cell<Space>,
    pub trash: Rc<Trash>,
    pub filter: RefCell<Option<CompactionFilter>>,
    /// A memtable was frozen.
    pub flush_wanted: Signal,
    /// Level sizes changed.
    pub compaction_wanted: Signal,
    /// A flush or compaction ended, well or not, or a task stopped.
    pub progress: Signal,
    pub flush_health: Health,
    pub compaction_health: Health,
    pub compacting: Cell<bool>,
    pub policy: RefCell<Rc<CompactionPolicy>>,
    pub pacer: Rc<Pacer>,
    /// What the tree owed when it last changed.
    tree_debt: Cell<TreeDebt>,
    /// What of it slows no writers.
    inherited: Cell<Inherited>,
    /// Where the next compaction of each level begins.
    pub compaction_positions: RefCell<[Vec<u8>; LEVELS]>,
    /// Flushes keep coming until then.
    pub burst_until: Cell<Nanos>,
    /// Callers that wait until no level owes anything.
    pub settling: Cell<usize>,
    /// Damage that somebody ran into.
    pub suspects: Rc<Suspects>,
    /// Tables with blocks that the disk refused to a merge.
    pub refusals: Refusals,
    /// Tables that compaction is to write anew.
    pub ailing: RefCell<BTreeSet<TableId>>,
    pub closing: Cell<bool>,
    /// Background tasks that still run.
    pub tasks: Cell<usize>,
    /// What the core knows of the active memtable's size.
    counted_bytes: Cell<usize>,
}

impl<E: Env> Shared<E> {
    /// The inside of a keyspace whose three background tasks are about to start.
    pub(super) fn new(
        keyspace: KeyspaceId,
        core: &Rc<Core<E>>,
        options: Options,
        policy: CompactionPolicy,
        memory: Memory,
        versions: VersionSet<E>,
    ) -> Rc<Self> {
        let tree = Shared {
            keyspace,
            core: core.clone(),
            env: core.env.clone(),
            dir: core.dir.clone(),
            options: RefCell::new(Rc::new(options)),
            stats: Rc::default(),
            looks: Looks::default(),
            log: core.log.clone(),
            memory: RefCell::new(memory),
            versions,
            cache: core.cache.clone(),
            space: Cell::new(core.cache.new_space()),
            trash: core.trash.clone(),
            filter: RefCell::new(None),
            flush_wanted: Signal::default(),
            compaction_wanted: Signal::default(),
            progress: Signal::default(),
            flush_health: Health::default(),
            compaction_health: Health::default(),
            compacting: Cell::new(false),
            policy: RefCell::new(Rc::new(policy)),
            pacer: core.log.pacer(),
            tree_debt: Cell::default(),
            inherited: Cell::default(),
            compaction_positions: RefCell::new([const { Vec::new() }; LEVELS]),
            burst_until: Cell::default(),
            settling: Cell::new(0),
            suspects: Rc::default(),
            refusals: Refusals::default(),
            ailing: RefCell::default(),
            closing: Cell::new(false),
            tasks: Cell::new(3),
            counted_bytes: Cell::new(0),
        };
        tree.count_active();
        Rc::new(tree)
    }

    /// The options of this moment.
    pub fn options(&self) -> Rc<Options> {
        self.options.borrow().clone()
    }

    /// Goes on with other options.
    pub fn set_options(&self, options: Options) {
        *self.options.borrow_mut() = Rc::new(options);
        self.after_insert();
        self.update_pressure();
        self.compaction_wanted.notify();
    }

    /// Whether the keyspace takes writes now.
    pub fn admit(&self) -> Result<()> {
        if self.closing.get() {
            return Err(Error::Closed);
        }
        if self.flush_health.is_disk_full() || self.compaction_health.is_disk_full() {
            return Err(Error::DiskFull);
        }
        // Commits stand still long before; this bounds memory against writers that do not wait.
        let (memory, options) = (self.memory.borrow(), self.options.borrow());
        let limit = options.memtable_bytes * 2 + options.max_batch_bytes();
        if memory.frozen_len() >= options.max_frozen && memory.active_bytes() > limit {
            return Err(Error::Busy { retry_after_ms: 100 });
        }
        Ok(())
    }

    /// Refuses reads of a closed engine and of a dropped keyspace.
    pub fn readable(&self) -> Result<()> {
        match self.closing.get() {
            false => Ok(()),
            true if self.core.closing.get() => Err(Error::Closed),
            true => Err(Error::Keyspace { id: self.keyspace, what: "was dropped" }),
        }
    }

    /// Freezes a full memtable when there is room for it, and tells writers how things stand.
    pub fn after_insert(&self) {
        self.count_active();
        let options = self.options();
        let is_full = self.counted_bytes.get() >= options.memtable_bytes;
        if is_full {
            self.freeze_if_room();
        } else if self.core.memory_is_full() {
            self.core.freeze_largest();
        } else if self.memory.borrow().frozen_len() < options.max_frozen {
            return;
        }
        self.update_pressure();
    }

    /// The version changed: weighs what is owed, and tells writers.
    pub fn tree_changed(&self) {
        self.weigh(|inherited, debt| inherited.follow(debt));
    }

    /// The policy changed, or the tree was opened: what it owes by now was inherited.
    pub fn policy_changed(&self) {
        let l0_slowdown = self.options().l0_slowdown;
        self.weigh(|inherited, debt| inherited.switch(debt, l0_slowdown));
    }

    fn weigh(&self, inherit: impl FnOnce(&mut Inherited, &TreeDebt)) {
        let policy = self.policy();
        let debt = policy.tree().map(|tree| TreeDebt::of(&self.versions.with(Shape::of), tree));
        let debt = debt.unwrap_or_default();
        self.tree_debt.set(debt);
        let mut inherited = self.inherited.get();
        inherit(&mut inherited, &debt);
        self.inherited.set(inherited);
        // Merges hurry for all of it: reads pay for what was inherited, too.
        self.pacer.owes(self.keyspace, &debt, self.options().l0_slowdown);
        self.update_pressure();
    }

    /// Freezes the active memtable and has it flushed, unless too many wait already.
    pub fn freeze_if_room(&self) {
        let mut memory = self.memory.borrow_mut();
        if memory.frozen_len() >= self.options.borrow().max_frozen {
            return;
        }
        memory.freeze(self.env.wall_micros());
        drop(memory);
        self.count_active();
        self.flush_wanted.notify();
    }

    /// Tells the core how large the active memtable is.
    pub fn count_active(&self) {
        let now = self.memory.borrow().active_bytes();
        self.core.active_changed(self.counted_bytes.replace(now), now);
    }

    /// The newest version of some key is not what it was: rows start anew.
    pub fn forget_rows(&self) {
        self.space.set(self.cache.new_space());
    }

    /// Recomputes the pressure on writers.
    pub fn update_pressure(&self) {
        let (memory, options) = (self.memory.borrow(), self.options());
        let own = memory.active_bytes() as f64 / options.memtable_bytes as f64;
        let debt = Debt {
            tree: self.inherited.get().beyond(&self.tree_debt.get()),
            frozen: memory.frozen_len(),
            active_fill: own.max(self.core.memory_fill()),
            frozen_through: memory.frozen_through().unwrap_or(Seq(0)),
        };
        self.log.throttle().set(self.keyspace, &debt, &options);
    }

    /// Records a failed flush or compaction.
    pub fn note_failure(&self, health: &Health, error: Error) {
        self.stats.update(|stats| stats.background_errors += 1);
        self.suspects.report(&error);
        health.failed(error);
        self.progress.notify();
    }

    /// Before another attempt at a manifest change: waits, unless the engine closes.
    pub async fn retry_manifest(&self, health: &Health, error: Error) -> Result<()> {
        self.note_failure(health, error);
        if self.closing.get() {
            return Err(Error::Closed);
        }
        self.env.sleep(self.options().full_probe_interval).await;
        Ok(())
    }

    /// Asks every task to end.
    pub fn stop(&self) {
        self.closing.set(true);
        self.flush_wanted.notify();
        self.compaction_wanted.notify();
        self.suspects.wake();
        self.progress.notify();
    }

    /// A background task ended.
    pub fn task_ended(&self) {
        self.tasks.set(self.tasks.get() - 1);
        self.progress.notify();
    }

    /// Waits until all background tasks ended.
    pub async fn stopped(&self) {
        loop {
            let epoch = self.progress.epoch();
            if self.tasks.get() == 0 {
                return;
            }
            self.progress.changed(epoch).await;
        }
    }

    /// The keyspace's numbers, counters and current sizes.
    pub fn stats(&self) -> EngineStats {
        let mut stats = self.counted();
        let memory = self.memory.borrow();
        stats.memtable_bytes = memory.bytes() as u64;
        stats.compaction_debt_bytes = self.tree_debt.get().bytes;
        stats.frozen_memtables = memory.frozen_len() as u64;
        stats.refused_tables = self.refusals.len() as u64;
        self.versions.with(|version| {
            stats.lost_ranges = version.lost.len() as u64;
            for info in version.tables().map(|(_, live)| live.table.table.info()) {
                stats.block_raw_bytes += info.raw_bytes;
                stats.block_disk_bytes += info.data_bytes;
            }
            for (n, runs) in version.levels.iter().enumerate() {
                stats.level_runs[n] = runs.len() as u64;
                stats.level_tables[n] = runs.iter().map(|run| run.tables.len() as u64).sum();
                stats.level_bytes[n] = runs.iter().map(|run| run.bytes).sum();
            }
        });
        let filled = stats.level_bytes.iter().rev().find(|bytes| **bytes > 0);
        stats.bottom_bytes = filled.copied().unwrap_or(0);
        stats.table_bytes = stats.level_bytes.iter().sum();
        stats
    }

    /// What happened to the keyspace so far, without current sizes.
    pub fn counted(&self) -> EngineStats {
        let mut stats = self.stats.snapshot();
        self.looks.fill(&mut stats);
        stats
    }
}
