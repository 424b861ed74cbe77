//! Ordered reading of one table, with read-ahead.

use super::{Direction, Seek};
use crate::env::{Env, PAGE};
use crate::table::{BackWalk, Block, BlockWalk, Run, TableRef};
use crate::{BlockCache, EntryRef, Error, Result};
use std::ops::{Bound, Range};
use std::rc::Rc;

/// Largest read-ahead, bytes.
const WINDOW: usize = 256 << 10;
/// Least read-ahead of a merge, bytes.
const LEAST_WINDOW: usize = 32 << 10;
/// First read-ahead of a scan; it doubles with every read.
const FIRST_WINDOW: usize = 16 << 10;

/// How table cursors get at blocks.
#[derive(Debug, Clone)]
pub struct CursorOptions {
    cache: Option<Rc<BlockCache>>,
    /// Asked whether it has a block, without taking it from there.
    asks: Option<Rc<BlockCache>>,
    /// Largest read-ahead, bytes.
    window: usize,
}

impl CursorOptions {
    /// For a client's scan: looks into the cache first. The first block goes into the cache as
    /// with a point read, so that short scans of the same place need no I/O; whatever follows is
    /// read ahead in growing runs and does not go into the cache.
    pub fn scan(cache: Rc<BlockCache>) -> Self {
        CursorOptions { cache: Some(cache), asks: None, window: WINDOW }
    }

    /// For reading everything once: large reads, past the cache. Blocks that are marked as
    /// damaged are passed over; the version remembers which keys they held.
    pub fn compaction() -> Self {
        CursorOptions { cache: None, asks: None, window: WINDOW }
    }

    /// The same, which also tells what the cache has of it: [`TableCursor::is_warm`].
    pub fn asking(self, cache: Rc<BlockCache>) -> Self {
        CursorOptions { asks: Some(cache), ..self }
    }

    /// The same for a reader who stops after about `bytes` of a table: it reads less ahead, since
    /// what was read and not used is read again by the next.
    pub fn using(self, bytes: u64) -> Self {
        let window = usize::try_from(bytes / 2).unwrap_or(WINDOW).clamp(LEAST_WINDOW, WINDOW);
        CursorOptions { window, ..self }
    }

    /// The same with a read-ahead of at most `bytes`.
    pub fn at_most(self, bytes: usize) -> Self {
        let window = self.window.min(bytes.max(LEAST_WINDOW));
        CursorOptions { window, ..self }
    }
}

/// All versions of one table, within its bounds.
pub struct TableCursor<E: Env> {
    table: TableRef<E>,
    options: CursorOptions,
    direction: Direction,
    /// The place in the block stood in, by direction; the other walk is empty.
    walk: BlockWalk,
    back: BackWalk,
    /// The block stood in.
    block: usize,
    /// Blocks that have keys within the bounds and are not entered yet: forwards from the start,
    /// backwards from the end.
    left: Range<usize>,
    run: Option<Run>,
    /// Size of the next read; zero: one block, through the cache.
    window: usize,
    /// Where a seek wants to go whose block is not opened yet.
    target: Option<Target>,
    needs_load: bool,
    /// Whether the cache has the block stood in.
    warm: bool,
}

/// A place within the bounds to go to. Backwards, `inclusive` tells whether the key belongs to it.
#[derive(Debug, Default)]
struct Target {
    key: Vec<u8>,
    inclusive: bool,
}

impl<E: Env> TableCursor<E> {
    /// A cursor at the end; seek first.
    pub fn new(table: TableRef<E>, options: CursorOptions) -> Self {
        TableCursor {
            table,
            options,
            direction: Direction::Forward,
            walk: BlockWalk::default(),
            back: BackWalk::default(),
            block: 0,
            left: 0..0,
            run: None,
            window: 0,
            target: None,
            needs_load: false,
            warm: false,
        }
    }

    /// Goes to a place.
    pub async fn seek<'a>(&mut self, seek: impl Into<Seek<'a>>) -> Result<()> {
        if !self.try_seek(seek)? {
            self.load().await?;
        }
        Ok(())
    }

    /// [`TableCursor::seek`] as far as it needs no I/O; when false, call [`TableCursor::load`].
    pub fn try_seek<'a>(&mut self, seek: impl Into<Seek<'a>>) -> Result<bool> {
        let seek = seek.into();
        let mut target = self.target.take().unwrap_or_default();
        target.key.clear();
        match seek {
            Seek::Forward(key) => {
                target.key.extend_from_slice(key.max(&*self.table.bounds.first));
                let index = self.table.table.index();
                self.left = index.find(&target.key)..index.behind(&self.table.bounds.last, true);
            }
            Seek::Backward(bound) => {
                let last = &*self.table.bounds.last;
                let (key, inclusive) = match bound {
                    Bound::Included(key) if key < last => (key, true),
                    Bound::Excluded(key) if key <= last => (key, false),
                    _ => (last, true),
                };
                target.key.extend_from_slice(key);
                target.inclusive = inclusive;
                let index = self.table.table.index();
                let first = index.find(&self.table.bounds.first);
                self.left = first..index.behind(key, inclusive);
            }
        }
        self.target = Some(target);
        self.direction = seek.direction();
        self.window = if self.options.cache.is_some() { 0 } else { self.options.window };
        self.leave();
        self.enter()
    }

    /// The entry stood on.
    #[inline]
    pub fn entry(&self) -> Option<EntryRef<'_>> {
        match self.direction {
            Direction::Forward => self.walk.entry(),
            Direction::Backward => self.back.entry(),
        }
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
        if self.entry().is_none() {
            return Ok(true);
        }
        let stepped = match self.direction {
            Direction::Forward => self.walk.advance(),
            Direction::Backward => self.back.advance(),
        };
        if stepped.map_err(|what| self.table.table.damage(self.block, what))? {
            self.clip();
            return Ok(true);
        }
        self.enter()
    }

    /// Completes a step or seek that needs I/O.
    pub async fn load(&mut self) -> Result<()> {
        while self.needs_load {
            let table = self.table.table.clone();
            match &self.options.cache {
                Some(cache) if self.window == 0 => {
                    let cache = cache.clone();
                    let block = table.block(&cache, self.next_block()).await?;
                    self.window = FIRST_WINDOW;
                    self.needs_load = false;
                    if self.stand_in(block)? {
                        return Ok(());
                    }
                }
                _ => {
                    let next = self.next_block();
                    let run = match table.read_run(self.next_run()).await {
                        // Perhaps another one of them: what can be read is read.
                        // The next ones come one by one, too, since a bad sector answers late.
                        Err(Error::Io { .. }) => {
                            self.window = 1;
                            table.read_run(next..next + 1).await?
                        }
                        read => read?,
                    };
                    if let Some(cache) = &self.options.cache {
                        cache.count_ahead(run.bytes());
                    }
                    self.run = Some(run);
                    self.window = (self.window * 2).min(self.options.window);
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

    /// The block to enter next; there must be one left.
    fn next_block(&self) -> usize {
        match self.direction {
            Direction::Forward => self.left.start,
            Direction::Backward => self.left.end - 1,
        }
    }

    /// Counts the next block as entered.
    fn pass_block(&mut self) {
        match self.direction {
            Direction::Forward => self.left.start += 1,
            Direction::Backward => self.left.end -= 1,
        }
    }

    /// Opens blocks until there is an entry or the end (true), or until I/O is needed.
    fn enter(&mut self) -> Result<bool> {
        self.needs_load = false;
        while !self.left.is_empty() {
            let next = self.next_block();
            if self.passes_over(next) {
                self.pass_block();
                continue;
            }
            let Some(block) = self.at_hand(next)? else {
                self.needs_load = true;
                return Ok(false);
            };
            if self.stand_in(block)? {
                return Ok(true);
            }
        }
        self.leave();
        self.run = None;
        Ok(true)
    }

    /// Whether block `i` is known to be damaged and left out.
    fn passes_over(&self, i: usize) -> bool {
        let (table, merges) = (&self.table.table, self.options.cache.is_none());
        (merges && table.is_lost(i)) || table.is_given_up(i)
    }

    /// Block `i` if it is in memory.
    fn at_hand(&self, i: usize) -> Result<Option<Block>> {
        let table = &self.table.table;
        if let Some(run) = &self.run
            && run.has(i)
        {
            return table.open_block(run, i).map(Some);
        }
        Ok(self.options.cache.as_ref().and_then(|cache| table.cached(cache, i)))
    }

    /// Enters the next block; false when it has nothing for us.
    fn stand_in(&mut self, block: Block) -> Result<bool> {
        self.block = self.next_block();
        self.pass_block();
        let holds = |cache: &Rc<BlockCache>| self.table.table.is_cached(cache, self.block);
        self.warm = self.options.asks.as_ref().is_some_and(holds);
        let found = match (self.direction, &self.target) {
            (Direction::Forward, Some(target)) => self.walk.seek(block, &target.key),
            (Direction::Forward, None) => self.walk.first(block),
            (Direction::Backward, Some(Target { key, inclusive: true })) => {
                self.back.seek(block, Bound::Included(key))
            }
            (Direction::Backward, Some(Target { key, .. })) => {
                self.back.seek(block, Bound::Excluded(key))
            }
            (Direction::Backward, None) => self.back.seek(block, Bound::Unbounded),
        };
        let found = found.map_err(|what| self.table.table.damage(self.block, what))?;
        self.target = None;
        self.clip();
        Ok(found)
    }

    /// Ends the cursor when it is beyond the bounds.
    fn clip(&mut self) {
        // Only the last block in a direction can reach beyond them.
        if !self.left.is_empty() {
            return;
        }
        let Some(entry) = self.entry() else { return };
        let bounds = &self.table.bounds;
        let beyond = match self.direction {
            Direction::Forward => *entry.key > *bounds.last,
            Direction::Backward => *entry.key < *bounds.first,
        };
        if beyond {
            self.leave();
        }
    }

    /// Stands on nothing.
    fn leave(&mut self) {
        self.walk.clear();
        self.back.clear();
    }

    /// The next blocks as many as fit the window, counted from a page on; at least one.
    fn next_run(&self) -> Range<usize> {
        let index = self.table.table.index();
        let next = self.next_block();
        match self.direction {
            Direction::Forward => {
                let start = index.offset(next);
                let limit = start - start % PAGE as u64 + self.window as u64;
                let fits = |i: &usize| index.handle(*i).end() <= limit && !self.passes_over(*i);
                let end = (next + 1..self.left.end).take_while(fits).last();
                next..end.map_or(next + 1, |i| i + 1)
            }
            Direction::Backward => {
                let end = index.handle(next).end().next_multiple_of(PAGE as u64);
                let limit = end.saturating_sub(self.window as u64);
                let fits = |i: &usize| index.offset(*i) >= limit && !self.passes_over(*i);
                let start = (self.left.start..next).rev().take_while(fits).last();
                start.unwrap_or(next)..next + 1
            }
        }
    }
}
