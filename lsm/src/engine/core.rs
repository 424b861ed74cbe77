//! What the keyspaces of one engine share: log, manifest, cache, clock, memory budget.

use super::Shared;
use crate::cache::BlockCache;
use crate::env::Env;
use crate::log::Log;
use crate::memtable::ChunkPool;
use crate::scrub::Pace;
use crate::stats::{Counters, EngineStats};
use crate::trash::Trash;
use crate::version::Ledger;
use crate::{Error, KeyspaceId, Millis, Options, Result, Seq, WriteBatch};
use futures_util::lock::Mutex;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

/// The wall clock as readers see it: it never goes back during one life of the engine, so that
/// what has expired stays expired.
#[derive(Debug, Default)]
pub(crate) struct Clock(Cell<u64>);

impl Clock {
    /// The time by the environment's clock, or the latest time seen if that is later.
    pub fn now<E: Env>(&self, env: &E) -> Millis {
        self.0.set(self.0.get().max(env.wall_micros() / 1000));
        Millis(self.0.get())
    }
}

/// What is about to become durable when the log's floor is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FloorChange {
    /// Nothing that concerns the log.
    None,
    /// The keyspace's oldest frozen memtable is in a table.
    Flushed(KeyspaceId),
    /// The keyspace is gone.
    Dropped(KeyspaceId),
}

/// The part of an engine that its keyspaces have in common.
pub(crate) struct Core<E: Env> {
    pub env: E,
    pub dir: PathBuf,
    /// The engine's options; keyspaces have their own beside them.
    pub options: Rc<Options>,
    /// What is counted per engine and not per keyspace.
    pub stats: Rc<Counters>,
    pub log: Log<E>,
    pub ledger: Rc<Ledger<E>>,
    pub cache: Rc<BlockCache>,
    /// Memory that memtables of all keyspaces hand on to each other, up to one memtable's.
    pub pool: Rc<ChunkPool>,
    pub trash: Rc<Trash>,
    pub clock: Clock,
    pub scrub: Pace,
    /// Every keyspace. Emptied when the engine stops: the trees point back here.
    pub trees: RefCell<BTreeMap<KeyspaceId, Rc<Shared<E>>>>,
    /// One change of the set of keyspaces at a time.
    pub changing: Mutex<()>,
    /// Memory of all active memtables, bytes.
    pub active_bytes: Cell<usize>,
    pub closing: Cell<bool>,
}

impl<E: Env> Core<E> {
    /// A keyspace.
    pub fn tree(&self, id: KeyspaceId) -> Result<Rc<Shared<E>>> {
        if self.closing.get() {
            return Err(Error::Closed);
        }
        let tree = self.trees.borrow().get(&id).cloned();
        // A keyspace that is being dropped stays in the map until it is gone for good.
        tree.filter(|tree| !tree.closing.get())
            .ok_or(Error::Keyspace { id, what: "does not exist" })
    }

    /// Every keyspace that is not being dropped, in the order of their numbers.
    pub fn all_trees(&self) -> Vec<Rc<Shared<E>>> {
        let trees = self.trees.borrow();
        trees.values().filter(|tree| !tree.closing.get()).cloned().collect()
    }

    /// Time for readers and for what expires.
    pub fn now(&self) -> Millis {
        self.clock.now(&self.env)
    }

    /// The first log generation that a restart needs, and will need once a change of one keyspace
    /// is durable. An engine that stops does not know any more.
    pub fn log_floor(&self, change: FloorChange) -> Result<u64> {
        if self.closing.get() {
            return Err(Error::Closed);
        }
        let trees = self.trees.borrow();
        let oldest = trees.iter().filter_map(|(id, tree)| {
            let dropped = change == FloorChange::Dropped(*id);
            let flushed = change == FloorChange::Flushed(*id);
            let oldest = tree.memory.borrow().oldest_entry(flushed);
            oldest.filter(|_| !dropped)
        });
        let flushed = oldest.min().map_or(self.log.last(), |first| Seq(first.0 - 1));
        Ok(self.log.floor_after(flushed))
    }

    /// Gives log segments below the floor back.
    pub fn release_log(&self, floor: u64) {
        self.log.release(floor).into_iter().for_each(|path| self.trash.discard(path));
    }

    /// A batch whose plain puts got the expiry that their keyspace prescribes, if any does.
    pub fn with_default_expiry(
        &self,
        batch: &WriteBatch,
        trees: &[Rc<Shared<E>>],
    ) -> Option<WriteBatch> {
        if trees.iter().all(|tree| tree.options().default_ttl.is_none()) {
            return None;
        }
        let ttl_of = |id| {
            let tree = trees.iter().find(|tree| tree.keyspace == id)?;
            tree.options().default_ttl
        };
        Some(batch.with_default_expiry(self.now(), ttl_of))
    }

    /// Notes how much memory a keyspace's active memtable takes now, and took before.
    pub fn active_changed(&self, before: usize, now: usize) {
        self.active_bytes.set(self.active_bytes.get() + now - before);
    }

    /// Whether the active memtables together have used up the engine's budget.
    pub fn memory_is_full(&self) -> bool {
        self.active_bytes.get() >= self.options.memtable_bytes
    }

    /// How full that budget is, 1.0 is full.
    pub fn memory_fill(&self) -> f64 {
        self.active_bytes.get() as f64 / self.options.memtable_bytes as f64
    }

    /// Freezes the largest active memtable when all of them together are over the budget.
    pub fn freeze_largest(&self) {
        if !self.memory_is_full() {
            return;
        }
        let trees = self.all_trees();
        if let Some(tree) = trees.iter().max_by_key(|tree| tree.memory.borrow().active_bytes()) {
            tree.freeze_if_room();
        }
    }

    /// Flushes whoever holds the oldest log segment back, whenever the log is over its budget.
    pub async fn keep_log_short(self: Rc<Self>) {
        while !self.closing.get() {
            let epoch = self.log.segments_epoch();
            let bytes = self.log.segments_in_use() as u64 * self.options.log_segment_bytes;
            if bytes > self.options.log_bytes {
                self.flush_oldest();
            }
            self.log.segments_changed(epoch).await;
        }
    }

    /// Starts the flush of the keyspace with the oldest entry in memory, unless it is under way.
    fn flush_oldest(&self) {
        let trees = self.all_trees();
        let oldest = trees
            .iter()
            .filter_map(|tree| Some((tree.memory.borrow().oldest_entry(false)?, tree)))
            .min_by_key(|(first, _)| *first);
        let idle = oldest.filter(|(_, tree)| tree.memory.borrow().frozen_len() == 0);
        if let Some((_, tree)) = idle {
            tree.freeze_if_room();
        }
    }

    /// Asks every task to end.
    pub fn stop(&self) -> Vec<Rc<Shared<E>>> {
        self.closing.set(true);
        let trees = std::mem::take(&mut *self.trees.borrow_mut());
        let trees: Vec<_> = trees.into_values().collect();
        trees.iter().for_each(|tree| tree.stop());
        self.log.wake_segments();
        self.trash.close();
        trees
    }

    /// All numbers, counters and current sizes, over all keyspaces.
    pub fn stats(&self) -> EngineStats {
        let mut stats = self.stats.snapshot();
        for tree in self.trees.borrow().values() {
            stats.add(&tree.stats());
        }
        let rate = self.log.pacer().rate(self.options.latency_target, self.env.now());
        stats.paced_bytes_per_second = rate.map_or(0, |rate| rate as u64);
        stats.log_segments = self.log.segments_in_use() as u64;
        stats.trash_files = self.trash.len() as u64;
        let cache = self.cache.stats();
        stats.cache_hits = cache.hits;
        stats.cache_misses = cache.misses;
        stats.cache_bytes = cache.bytes;
        stats.cache_budget_bytes = cache.budget;
        stats.table_memory_bytes = cache.table_bytes;
        stats.filters_left_out_bytes = cache.filters_left_out_bytes;
        stats.pooled_bytes = self.pool.bytes() as u64;
        stats.cache_row_bytes = cache.row_bytes;
        stats.block_read_bytes = cache.loaded_bytes;
        stats.scan_read_bytes = cache.ahead_bytes;
        stats
    }
}
