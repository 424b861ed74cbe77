//! Ordered reading of one table, with read-ahead.

use crate::env::{AlignedBuf, Env};
use crate::table::{Block, BlockWalk, TableRef};
use crate::{BlockCache, EntryRef, Result};
use std::rc::Rc;

/// Largest read-ahead, bytes.
const WINDOW: usize = 256 << 10;
/// First read-ahead of a scan; it doubles with every read.
const FIRST_WINDOW: usize = 16 << 10;

/// How table cursors get at blocks.
#[derive(Debug, Clone)]
pub struct CursorOptions {
    cache: Option<Rc<BlockCache>>,
    /// Asked whether it has a block, without taking it from there.
    asks: Option<Rc<BlockCache>>,
}

impl CursorOptions {
    /// For a client's scan: looks into the cache first. The first block goes into the cache as
    /// with a point read, so that short scans of the same place need no I/O; whatever follows is
    /// read ahead in growing runs and does not go into the cache.
    pub fn scan(cache: Rc<BlockCache>) -> Self {
        CursorOptions { cache: Some(cache), asks: None }
    }

    /// For reading everything once: large reads, past the cache. Blocks that are marked as
    /// damaged are passed over; the version remembers which keys they held.
    pub fn compaction() -> Self {
        CursorOptions { cache: None, asks: None }
    }

    /// The same, which also tells what the cache has of it: [`TableCursor::is_warm`].
    pub fn asking(self, cache: Rc<BlockCache>) -> Self {
        CursorOptions { asks: Some(cache), ..self }
    }
}

/// Blocks that were read together.
#[derive(Debug)]
struct Run {
    buf: Rc<AlignedBuf>,
    /// File offset of the first byte.
    offset: u64,
    /// Numbers of the blocks.
    blocks: std::ops::Range<usize>,
}

/// All versions of one table, within its bounds.
pub struct TableCursor<E: Env> {
    table: TableRef<E>,
    options: CursorOptions,
    walk: BlockWalk,
    /// The block after the one stood in.
    next_block: usize,
    /// No block from here on has keys within the bounds.
    end_block: usize,
    run: Option<Run>,
    /// Size of the next read; zero: one block, through the cache.
    window: usize,
    /// Where a seek wants to go whose block is not opened yet.
    target: Option<Vec<u8>>,
    needs_load: bool,
    /// Whether the cache has the block stood in.
    warm: bool,
}

impl<E: Env> TableCursor<E> {
    /// A cursor at the end; seek first.
    pub fn new(table: TableRef<E>, options: CursorOptions) -> Self {
        let index = table.table.index();
        let last = &*table.bounds.last;
        let mut end_block = index.find(last);
        // Versions of the last key may fill further blocks.
        while end_block < index.len() && index.separator(end_block) == last {
            end_block += 1;
        }
        let end_block = (end_block + 1).min(index.len());
        let walk = BlockWalk::default();
        let (next_block, run, window, target) = (end_block, None, 0, None);
        Self {
            table,
            options,
            walk,
            next_block,
            end_block,
            run,
            window,
            target,
            needs_load: false,
            warm: false,
        }
    }

    /// Goes to the first entry with a key not before `key`.
    pub async fn seek(&mut self, key: &[u8]) -> Result<()> {
        if !self.try_seek(key)? {
            self.load().await?;
        }
        Ok(())
    }

    /// [`TableCursor::seek`] as far as it needs no I/O; when false, call [`TableCursor::load`].
    pub fn try_seek(&mut self, key: &[u8]) -> Result<bool> {
        let key = key.max(&*self.table.bounds.first);
        let mut target = self.target.take().unwrap_or_default();
        target.clear();
        target.extend_from_slice(key);
        self.next_block = self.table.table.index().find(key);
        self.target = Some(target);
        self.window = if self.options.cache.is_some() { 0 } else { WINDOW };
        self.walk.clear();
        self.enter()
    }

    /// The entry stood on.
    pub fn entry(&self) -> Option<EntryRef<'_>> {
        self.walk.entry()
    }

    /// Whether the entry stood on is also in the cache that [`CursorOptions::asking`] named.
    pub fn is_warm(&self) -> bool {
        self.warm
    }

    /// Steps to the next entry unless that needs I/O.
    pub fn try_advance(&mut self) -> Result<bool> {
        if self.needs_load {
            return Ok(false);
        }
        if self.walk.entry().is_none() {
            return Ok(true);
        }
        let block = self.next_block - 1;
        if self.walk.advance().map_err(|what| self.table.table.damage(block, what))? {
            self.clip();
            return Ok(true);
        }
        self.enter()
    }

    /// Completes a step or seek that needs I/O.
    pub async fn load(&mut self) -> Result<()> {
        while self.needs_load {
            let first = self.next_block;
            let table = self.table.table.clone();
            match &self.options.cache {
                Some(cache) if self.window == 0 => {
                    let cache = cache.clone();
                    let block = table.block(&cache, first).await?;
                    self.window = FIRST_WINDOW;
                    self.needs_load = false;
                    if self.stand_in(block)? {
                        return Ok(());
                    }
                }
                _ => {
                    let end = self.run_end(first);
                    let buf = Rc::new(table.read_run(first, end).await?);
                    if let Some(cache) = &self.options.cache {
                        cache.count_ahead(buf.len());
                    }
                    let offset = table.index().handle(first).offset;
                    self.run = Some(Run { buf, offset, blocks: first..end });
                    self.window = (self.window * 2).min(WINDOW);
                }
            }
            self.enter()?;
        }
        Ok(())
    }

    /// Steps to the next entry.
    pub async fn advance(&mut self) -> Result<()> {
        if !self.try_advance()? {
            self.load().await?;
        }
        Ok(())
    }

    /// Opens blocks until there is an entry or the end (true), or until I/O is needed.
    fn enter(&mut self) -> Result<bool> {
        self.needs_load = false;
        while self.next_block < self.end_block {
            if self.options.cache.is_none() && self.table.table.is_lost(self.next_block) {
                self.next_block += 1;
                continue;
            }
            let Some(block) = self.at_hand(self.next_block)? else {
                self.needs_load = true;
                return Ok(false);
            };
            if self.stand_in(block)? {
                return Ok(true);
            }
        }
        self.walk.clear();
        self.run = None;
        Ok(true)
    }

    /// Block `i` if it is in memory.
    fn at_hand(&self, i: usize) -> Result<Option<Block>> {
        let table = &self.table.table;
        if let Some(run) = &self.run
            && run.blocks.contains(&i)
        {
            let at = (table.index().handle(i).offset - run.offset) as usize;
            return table.open_block(&run.buf, at, i).map(Some);
        }
        Ok(self.options.cache.as_ref().and_then(|cache| table.cached(cache, i)))
    }

    /// Enters the next block; false when it has nothing for us.
    fn stand_in(&mut self, block: Block) -> Result<bool> {
        let i = self.next_block;
        self.next_block += 1;
        let holds = |cache: &Rc<BlockCache>| self.table.table.is_cached(cache, i);
        self.warm = self.options.asks.as_ref().is_some_and(holds);
        let found = match self.target.take() {
            Some(target) => self.walk.seek(block, &target),
            None => self.walk.first(block),
        };
        let found = found.map_err(|what| self.table.table.damage(i, what))?;
        self.clip();
        Ok(found)
    }

    /// Ends the cursor when it is beyond the bounds.
    fn clip(&mut self) {
        // Only the last block can reach beyond them.
        if self.next_block == self.end_block
            && self.walk.entry().is_some_and(|e| *e.key > *self.table.bounds.last)
        {
            self.walk.clear();
        }
    }

    /// The end of the run of blocks from `first` that fits the window; at least one block.
    fn run_end(&self, first: usize) -> usize {
        let index = self.table.table.index();
        let limit = index.handle(first).offset + self.window as u64;
        let fits = |i: &usize| index.handle(*i).end() <= limit;
        (first + 1..self.end_block).take_while(fits).last().map_or(first + 1, |i| i + 1)
    }
}
