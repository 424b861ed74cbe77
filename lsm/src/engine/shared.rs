//! What the engine's parts share: handles, health of the background work, pressure on writers.

use super::Memory;
use crate::cache::BlockCache;
use crate::compaction::{Pacer, Shape};
use crate::engine::CompactionFilter;
use crate::env::Env;
use crate::log::Log;
use crate::log::throttle::{Debt, TreeDebt};
use crate::scrub::Suspects;
use crate::signal::Signal;
use crate::stats::{Counters, EngineStats, LEVELS};
use crate::trash::Trash;
use crate::version::VersionSet;
use crate::{CompactionPolicy, Error, Options, Result, Seq};
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
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

    fn is_disk_full(&self) -> bool {
        self.error.borrow().as_ref().is_some_and(Error::is_disk_full)
    }
}

/// The inside of an engine.
pub(crate) struct Shared<E: Env> {
    pub env: E,
    pub dir: PathBuf,
    pub options: Rc<Options>,
    pub stats: Rc<Counters>,
    pub log: Log<E>,
    pub memory: RefCell<Memory>,
    pub versions: VersionSet<E>,
    pub cache: Rc<BlockCache>,
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
    /// Where the next compaction of each level begins.
    pub compaction_positions: RefCell<[Vec<u8>; LEVELS]>,
    /// Damage that somebody ran into.
    pub suspects: Rc<Suspects>,
    pub closing: Cell<bool>,
    /// Background tasks that still run.
    pub tasks: Cell<usize>,
}

/// What recovery hands over.
pub(super) struct Parts<E: Env> {
    pub options: Rc<Options>,
    pub stats: Rc<Counters>,
    pub log: Log<E>,
    pub memory: Memory,
    pub versions: VersionSet<E>,
    pub suspects: Rc<Suspects>,
    pub policy: CompactionPolicy,
}

impl<E: Env> Shared<E> {
    /// The inside of a recovered engine whose three background tasks are about to start.
    pub(super) fn new(
        env: E,
        dir: &Path,
        parts: Parts<E>,
        trash: Rc<Trash>,
        filter: Option<CompactionFilter>,
    ) -> Self {
        let pacer = parts.log.pacer();
        Shared {
            env,
            dir: dir.to_owned(),
            cache: Rc::new(BlockCache::new(parts.options.cache_bytes)),
            options: parts.options,
            stats: parts.stats,
            log: parts.log,
            memory: RefCell::new(parts.memory),
            versions: parts.versions,
            trash,
            filter: RefCell::new(filter),
            flush_wanted: Signal::default(),
            compaction_wanted: Signal::default(),
            progress: Signal::default(),
            flush_health: Health::default(),
            compaction_health: Health::default(),
            compacting: Cell::new(false),
            policy: RefCell::new(Rc::new(parts.policy)),
            pacer,
            tree_debt: Cell::default(),
            compaction_positions: RefCell::new([const { Vec::new() }; LEVELS]),
            suspects: parts.suspects,
            closing: Cell::new(false),
            tasks: Cell::new(3),
        }
    }

    /// Whether a batch of `bytes` may be applied now.
    pub fn admit(&self, bytes: usize) -> Result<()> {
        let admitted = self.try_admit(bytes);
        match &admitted {
            Err(Error::Busy { .. }) => self.stats.update(|stats| stats.writes_busy += 1),
            Err(Error::DiskFull) => self.stats.update(|stats| stats.writes_disk_full += 1),
            _ => {}
        }
        admitted
    }

    fn try_admit(&self, bytes: usize) -> Result<()> {
        if self.closing.get() {
            return Err(Error::Closed);
        }
        self.log.check(bytes)?;
        if self.flush_health.is_disk_full() || self.compaction_health.is_disk_full() {
            return Err(Error::DiskFull);
        }
        // Commits stand still long before; this bounds memory against writers that do not wait.
        let memory = self.memory.borrow();
        let limit = self.options.memtable_bytes * 2 + self.options.max_batch_bytes();
        if memory.frozen_len() >= self.options.max_frozen && memory.active_bytes() > limit {
            return Err(Error::Busy { retry_after_ms: 100 });
        }
        Ok(())
    }

    /// Refuses reads of a closed engine.
    pub fn readable(&self) -> Result<()> {
        if self.closing.get() { Err(Error::Closed) } else { Ok(()) }
    }

    /// Freezes a full memtable when there is room for it, and tells writers how things stand.
    pub fn after_insert(&self) {
        let mut memory = self.memory.borrow_mut();
        if memory.active_bytes() < self.options.memtable_bytes {
            if memory.frozen_len() >= self.options.max_frozen {
                drop(memory);
                self.update_pressure();
            }
            return;
        }
        let froze = memory.frozen_len() < self.options.max_frozen;
        if froze {
            memory.freeze();
        }
        drop(memory);
        if froze {
            self.flush_wanted.notify();
        }
        self.update_pressure();
    }

    /// The version or the policy changed: weighs what is owed, and tells writers.
    pub fn tree_changed(&self) {
        let policy = self.policy();
        let debt = policy.tree().map(|tree| TreeDebt::of(&self.versions.with(Shape::of), tree));
        let debt = debt.unwrap_or_default();
        self.tree_debt.set(debt);
        self.pacer.owes(&debt, self.options.l0_slowdown);
        self.update_pressure();
    }

    /// Recomputes the pressure on writers.
    pub fn update_pressure(&self) {
        let memory = self.memory.borrow();
        let debt = Debt {
            tree: self.tree_debt.get(),
            frozen: memory.frozen_len(),
            active_fill: memory.active_bytes() as f64 / self.options.memtable_bytes as f64,
            frozen_through: memory.frozen_through().unwrap_or(Seq(0)),
        };
        self.log.throttle().set(&debt, &self.options);
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
        self.env.sleep(self.options.full_probe_interval).await;
        Ok(())
    }

    /// Asks every task to end.
    pub fn stop(&self) {
        self.closing.set(true);
        self.flush_wanted.notify();
        self.compaction_wanted.notify();
        self.suspects.wake();
        self.progress.notify();
        self.trash.close();
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

    /// All numbers, counters and current sizes.
    pub fn stats(&self) -> EngineStats {
        let mut stats = self.stats.snapshot();
        let memory = self.memory.borrow();
        stats.memtable_bytes = memory.bytes() as u64;
        let rate = self.pacer.rate(self.options.latency_target, self.env.now());
        stats.paced_bytes_per_second = rate.map_or(0, |rate| rate as u64);
        stats.compaction_debt_bytes = self.tree_debt.get().bytes;
        stats.frozen_memtables = memory.frozen_len() as u64;
        stats.log_segments = self.log.segments_in_use() as u64;
        stats.trash_files = self.trash.len() as u64;
        let cache = self.cache.stats();
        stats.cache_hits = cache.hits;
        stats.cache_misses = cache.misses;
        stats.cache_bytes = cache.bytes;
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
        stats
    }
}
