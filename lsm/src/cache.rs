//! The block cache: checked data blocks of all tables of one engine, within a byte budget.
//!
//! Owns which blocks stay in memory, and that a block that several readers want is read once.
//! Tables decide what goes through it: point reads insert, long scans and compactions do not,
//! so that they push nothing out.

use crate::table::Block;
use crate::{Result, TableUid};
use ahash::RandomState;
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, Shared, WeakShared};
use quick_cache::Weighter;
use quick_cache::unsync::{Cache, DefaultLifecycle};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// Expected size of a block, to size the cache's own tables.
const TYPICAL_BLOCK: usize = 8 << 10;
/// Cost of an entry beside the block.
const ENTRY_OVERHEAD: usize = 96;
/// Loads in flight from which abandoned ones are looked for.
const SWEEP_AT: usize = 256;

/// A block's identity: table and file offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BlockKey {
    pub uid: TableUid,
    pub offset: u64,
}

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<BlockKey, Block> for Bytes {
    fn weight(&self, _: &BlockKey, block: &Block) -> u64 {
        (block.held() + ENTRY_OVERHEAD) as u64
    }
}

type Blocks = Cache<BlockKey, Block, Bytes, RandomState, DefaultLifecycle<BlockKey, Block>>;
type Load = LocalBoxFuture<'static, Result<Block>>;

/// Numbers of a [`BlockCache`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Looks that found their block.
    pub hits: u64,
    /// Looks that did not.
    pub misses: u64,
    /// Bytes held.
    pub bytes: u64,
    /// Bytes allowed.
    pub budget: u64,
}

/// Data blocks in memory. Shared as `Rc` by everything that reads one engine's tables.
pub struct BlockCache {
    blocks: RefCell<Blocks>,
    loads: RefCell<BTreeMap<BlockKey, WeakShared<Load>>>,
    hits: Cell<u64>,
    misses: Cell<u64>,
}

impl std::fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("BlockCache").field(&self.stats()).finish()
    }
}

impl BlockCache {
    /// An empty cache that holds up to `budget_bytes`.
    pub fn new(budget_bytes: usize) -> Self {
        let items = (budget_bytes / TYPICAL_BLOCK).max(16);
        let seeds = RandomState::with_seeds(1, 2, 3, 4);
        let blocks =
            Cache::with(items, budget_bytes as u64, Bytes, seeds, DefaultLifecycle::default());
        let (hits, misses) = (Cell::new(0), Cell::new(0));
        BlockCache { blocks: RefCell::new(blocks), loads: RefCell::default(), hits, misses }
    }

    /// Counters and sizes.
    pub fn stats(&self) -> CacheStats {
        let blocks = self.blocks.borrow();
        CacheStats {
            hits: self.hits.get(),
            misses: self.misses.get(),
            bytes: blocks.weight(),
            budget: blocks.capacity(),
        }
    }

    pub(crate) fn get(&self, key: BlockKey) -> Option<Block> {
        let found = self.blocks.borrow().get(&key).cloned();
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.set(counter.get() + 1);
        found
    }

    /// The block from the cache or from `load`, which runs once for all who wait for it.
    pub(crate) async fn get_or_load(
        &self,
        key: BlockKey,
        load: impl FnOnce() -> Load,
    ) -> Result<Block> {
        if let Some(block) = self.get(key) {
            return Ok(block);
        }
        let block = self.join_load(key, load).await;
        // The first to wake puts it in.
        if self.loads.borrow_mut().remove(&key).is_some()
            && let Ok(block) = &block
        {
            self.blocks.borrow_mut().insert(key, block.clone());
        }
        block
    }

    fn join_load(&self, key: BlockKey, load: impl FnOnce() -> Load) -> Shared<Load> {
        let mut loads = self.loads.borrow_mut();
        if let Some(running) = loads.get(&key).and_then(WeakShared::upgrade) {
            return running;
        }
        if loads.len() >= SWEEP_AT {
            loads.retain(|_, load| load.upgrade().is_some());
        }
        let started = load().shared();
        if let Some(weak) = started.downgrade() {
            loads.insert(key, weak);
        }
        started
    }
}
