//! The cache: checked data blocks of all tables of one engine and hot rows, within a byte budget.
//!
//! Owns which blocks stay in memory, that a block that several readers want is read once, and how
//! blocks and rows share the budget: rows may always have a quarter, and up to a half of what
//! blocks do not need. What open tables hold is taken off the budget first (`reserve`). Tables
//! decide what goes through it: point reads insert, long scans and
//! compactions do not, so that they push nothing out.

mod chunks;
mod flights;
mod reserve;
mod rows;
mod slots;

use crate::table::{Block, Hints};
use crate::{EntryRef, Result, TableUid};
use flights::{Flights, Turn};
pub(crate) use reserve::{Depth, Reserved};
pub(crate) use rows::{Rows, Space};
use slots::Slots;
use std::cell::{Cell, OnceCell, Ref, RefCell};
use std::collections::VecDeque;

/// Part of the budget that rows may have whatever blocks need, and the part they never exceed.
const ROWS_SHARE: usize = 4;
const ROWS_MOST: usize = 2;
/// Blocks of tables that are gone that leave when one block comes.
const DEAD_AT_ONCE: usize = 4;

/// A block's identity: table and file offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BlockKey {
    pub uid: TableUid,
    pub offset: u64,
}

/// How far looking ahead into the cache has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The note is known: the slot comes next.
    Slot,
    /// The slot is known: the block and its hints come next.
    Block,
    /// They are known: the entry comes next.
    Entry,
}

/// A block in the cache, with hints once it was used again.
#[derive(Debug)]
struct Cached {
    block: Block,
    hints: OnceCell<Hints>,
}

/// Numbers of a [`BlockCache`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Looks that found their block.
    pub hits: u64,
    /// Looks that did not.
    pub misses: u64,
    /// Bytes held, rows included.
    pub bytes: u64,
    /// Bytes read from the device for blocks that were not here.
    pub loaded_bytes: u64,
    /// Bytes that scans read ahead, past the cache.
    pub ahead_bytes: u64,
    /// Bytes that blocks and rows may take now: what tables leave.
    pub budget: u64,
    /// Bytes held by rows.
    pub row_bytes: u64,
    /// Bytes that indexes and filters of open tables hold.
    pub table_bytes: u64,
    /// Bytes of filters that are not held for want of room.
    pub filters_left_out_bytes: u64,
}

/// Data blocks and rows in memory. Shared as `Rc` by everything that reads one engine's tables.
pub struct BlockCache {
    /// For blocks, rows, indexes and filters.
    total: usize,
    /// For blocks and rows.
    budget: Cell<usize>,
    /// Bytes of the total that tables hold, and of filters that had to be left out.
    reserved: Cell<usize>,
    left_out: Cell<usize>,
    blocks: RefCell<Slots<Cached>>,
    rows: RefCell<Rows>,
    spaces: Cell<u32>,
    /// Blocks of tables that are gone.
    dead: RefCell<VecDeque<BlockKey>>,
    loads: Flights,
    hits: Cell<u64>,
    misses: Cell<u64>,
    loaded_bytes: Cell<u64>,
    ahead_bytes: Cell<u64>,
}

impl std::fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("BlockCache").field(&self.stats()).finish()
    }
}

impl BlockCache {
    /// An empty cache that holds up to `budget_bytes`.
    pub fn new(budget_bytes: usize) -> Self {
        let blocks = RefCell::new(Slots::new(budget_bytes as u64));
        let rows = RefCell::new(Rows::new(budget_bytes));
        let (hits, misses) = (Cell::new(0), Cell::new(0));
        let (loads, spaces) = (Flights::default(), Cell::new(0));
        BlockCache {
            total: budget_bytes,
            budget: Cell::new(budget_bytes),
            reserved: Cell::new(0),
            left_out: Cell::new(0),
            blocks,
            rows,
            spaces,
            dead: RefCell::default(),
            loads,
            hits,
            misses,
            loaded_bytes: Cell::default(),
            ahead_bytes: Cell::default(),
        }
    }

    /// Counters and sizes.
    pub fn stats(&self) -> CacheStats {
        let row_bytes = self.rows.borrow().bytes() as u64;
        CacheStats {
            hits: self.hits.get(),
            misses: self.misses.get(),
            bytes: self.blocks.borrow().bytes() + row_bytes,
            budget: self.budget.get() as u64,
            row_bytes,
            table_bytes: self.reserved.get() as u64,
            filters_left_out_bytes: self.left_out.get() as u64,
            loaded_bytes: self.loaded_bytes.get(),
            ahead_bytes: self.ahead_bytes.get(),
        }
    }

    /// A name for rows that belong together; nothing was ever put in under it.
    pub(crate) fn new_space(&self) -> Space {
        self.spaces.set(self.spaces.get() + 1);
        Space(self.spaces.get())
    }

    /// The rows, to be asked for the newest version of a key.
    pub(crate) fn rows(&self) -> Ref<'_, Rows> {
        self.rows.borrow()
    }

    /// Somebody read the newest version of a key, and there was no row: it becomes one if that
    /// was not the first time.
    pub(crate) fn offer_row(&self, space: Space, hash: u64, entry: &EntryRef<'_>) {
        let (mut rows, mut blocks) = (self.rows.borrow_mut(), self.blocks.borrow_mut());
        if !rows.wants(space, hash, entry) {
            // Noting that it was seen may have taken memory.
            return self.share(&rows, &mut blocks);
        }
        let budget = self.budget.get();
        let left = budget.saturating_sub(blocks.bytes() as usize);
        rows.put(space, hash, entry, left.clamp(budget / ROWS_SHARE, budget / ROWS_MOST));
        self.share(&rows, &mut blocks);
    }

    /// A newer version of the key exists from now on, or the key is gone.
    pub(crate) fn forget_row(&self, space: Space, key: &[u8], hash: u64) {
        self.rows.borrow_mut().forget(space, key, hash);
    }

    /// Leaves to the blocks what rows do not take.
    fn share(&self, rows: &Rows, blocks: &mut Slots<Cached>) {
        let left = self.budget.get().saturating_sub(rows.bytes()) as u64;
        if left != blocks.budget() {
            blocks.set_budget(left);
        }
    }

    /// Whether the block is here. Counts as nothing.
    pub(crate) fn holds(&self, key: BlockKey, note: &Cell<u32>) -> bool {
        self.blocks.borrow().peek(key, note).is_some()
    }

    /// Whether a copy of a block that was just written is of use here. To be asked once per block.
    pub(crate) fn admits_warm(&self) -> bool {
        self.blocks.borrow_mut().admits_warm()
    }

    /// Puts a block in that was just written and whose entries were in memory until now.
    pub(crate) fn warm(&self, key: BlockKey, block: &Block) {
        self.make_room_and(key, block, Slots::insert_warm);
    }

    /// Nobody will ask for these blocks any more. They leave one by one as others come.
    pub(crate) fn forget(&self, blocks: impl Iterator<Item = BlockKey>) {
        self.dead.borrow_mut().extend(blocks);
    }

    /// Takes some blocks out that nobody asks for.
    fn bury(&self, blocks: &mut Slots<Cached>) {
        let mut dead = self.dead.borrow_mut();
        for _ in 0..DEAD_AT_ONCE {
            let Some(key) = dead.pop_front() else { return };
            blocks.remove(key);
        }
    }

    /// Puts a block in that was asked for.
    fn insert(&self, key: BlockKey, block: &Block) {
        self.make_room_and(key, block, Slots::insert);
    }

    /// Puts a block in. Rows beyond their share give way.
    fn make_room_and(
        &self,
        key: BlockKey,
        block: &Block,
        insert: impl FnOnce(&mut Slots<Cached>, BlockKey, Cached, usize),
    ) {
        let bytes = block.held() + Hints::most_bytes(block);
        let (mut rows, mut blocks) = (self.rows.borrow_mut(), self.blocks.borrow_mut());
        self.bury(&mut blocks);
        while blocks.bytes() + bytes as u64 > blocks.budget()
            && rows.bytes() > self.budget.get() / ROWS_SHARE
            && rows.shrink()
        {
            self.share(&rows, &mut blocks);
        }
        let cached = Cached { block: block.clone(), hints: OnceCell::new() };
        insert(&mut blocks, key, cached, bytes);
    }

    /// A read of so many bytes starts for a block that is not here.
    pub(crate) fn count_loaded(&self, bytes: u64) {
        self.loaded_bytes.set(self.loaded_bytes.get() + bytes);
    }

    /// A scan read so many bytes past the cache.
    pub(crate) fn count_ahead(&self, bytes: usize) {
        self.ahead_bytes.set(self.ahead_bytes.get() + bytes as u64);
    }

    /// What `look` finds in the block of this key, if it is here. `note` is the caller's note on
    /// where the block was the last time.
    pub(crate) fn look<R>(
        &self,
        key: BlockKey,
        note: &Cell<u32>,
        look: impl FnOnce(&Block, &Hints) -> R,
    ) -> Option<R> {
        let blocks = self.blocks.borrow();
        let found = blocks.get(key, note).map(|(cached, again)| {
            let make = || Hints::of(&cached.block);
            if again {
                look(&cached.block, cached.hints.get_or_init(make))
            } else {
                look(&cached.block, &Hints::default())
            }
        });
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.set(counter.get() + 1);
        found
    }

    /// The block of this key, if it is here.
    pub(crate) fn get(&self, key: BlockKey, note: &Cell<u32>) -> Option<Block> {
        self.look(key, note, |block, _| block.clone())
    }

    /// One step of looking ahead to [`BlockCache::look`] for a key of this hash. Counts as nothing.
    pub(crate) fn prefetch(
        &self,
        step: Step,
        note: &Cell<u32>,
        key: impl FnOnce() -> BlockKey,
        hash: u64,
    ) {
        let blocks = self.blocks.borrow();
        if step == Step::Slot {
            return blocks.prefetch(note);
        }
        let Some(Cached { block, hints }) = blocks.peek(key(), note) else { return };
        match (step, hints.get()) {
            (Step::Block, hints) => {
                block.prefetch();
                hints.into_iter().for_each(Hints::prefetch);
            }
            (Step::Entry, Some(hints)) => hints.prefetch_entry(block, hash),
            _ => {}
        }
    }

    /// The block, after a look that did not find it, from `load`, which runs once for all who
    /// wait for it. Looks again first, which counts as nothing.
    pub(crate) async fn get_or_load(
        &self,
        key: BlockKey,
        note: &Cell<u32>,
        mut load: impl AsyncFnMut() -> Result<Block>,
    ) -> Result<Block> {
        loop {
            if let Some(cached) = self.blocks.borrow().peek(key, note) {
                return Ok(cached.block.clone());
            }
            match self.loads.join(key) {
                Turn::Ours(flight) => {
                    let block = load().await;
                    if let Ok(block) = &block {
                        self.insert(key, block);
                    }
                    flight.land(block.clone());
                    return block;
                }
                Turn::Theirs(flight) => {
                    if let Some(block) = flight.landed().await {
                        return block;
                    }
                }
            }
        }
    }
}
