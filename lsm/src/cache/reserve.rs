//! Memory beside blocks and rows that the same budget pays for: indexes and filters of open tables.
//!
//! Owns how much of the budget they take and when filters have to be left out. Blocks and rows
//! keep a quarter of the budget whatever tables need.

use super::BlockCache;
use std::cell::Cell;
use std::rc::Rc;

/// Blocks and rows keep one of so many parts of the budget.
const KEPT_SHARE: usize = 4;
/// Filters of the last level are left out beyond one of so many parts of the budget: what is left
/// up to [`KEPT_SHARE`] is for filters of the levels above, which spare more reads per byte.
const LAST_LEVEL_SHARE: usize = 2;

/// Where a table lies in its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Above the last level that has tables.
    Above,
    /// On the last level.
    Last,
}

impl Depth {
    /// Of a table on this level, when the deepest level with tables is `deepest`.
    pub fn of(level: usize, deepest: usize) -> Self {
        if level > 0 && level >= deepest { Depth::Last } else { Depth::Above }
    }
}

/// Memory that an open table takes out of the cache's budget until it is dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    cache: Rc<BlockCache>,
    bytes: Cell<usize>,
    /// Bytes of its filter.
    filter: usize,
    /// What its filter would have taken.
    left_out: Cell<usize>,
}

impl Reserved {
    /// Reserves the memory of an index, and that of the filter if there is room for it; see
    /// [`Reserved::has_filter`].
    pub fn new(cache: Rc<BlockCache>, index: usize, filter: usize, depth: Depth) -> Self {
        let fits = cache.fits(index + filter, depth);
        let (bytes, left_out) = if fits { (index + filter, 0) } else { (index, filter) };
        cache.left_out.set(cache.left_out.get() + left_out);
        cache.reserve(cache.reserved.get() + bytes);
        Reserved { cache, bytes: Cell::new(bytes), filter, left_out: Cell::new(left_out) }
    }

    /// Whether the filter may stay in memory.
    pub fn has_filter(&self) -> bool {
        self.left_out.get() == 0
    }

    /// Reserves the memory of the filter that was left out, if there is room for it by now.
    pub fn take_filter_in(&self, depth: Depth) -> bool {
        let (cache, filter) = (&self.cache, self.left_out.get());
        let fits = filter > 0 && cache.fits(filter, depth);
        if fits {
            self.bytes.set(self.bytes.get() + filter);
            self.left_out.set(0);
            cache.left_out.set(cache.left_out.get() - filter);
            cache.reserve(cache.reserved.get() + filter);
        }
        fits
    }

    /// Gives the memory of the filter back: it could not be read.
    pub fn leave_filter_out(&self) {
        let filter = self.filter;
        self.bytes.set(self.bytes.get() - filter);
        self.left_out.set(filter);
        self.cache.left_out.set(self.cache.left_out.get() + filter);
        self.cache.reserve(self.cache.reserved.get() - filter);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.cache.left_out.set(self.cache.left_out.get() - self.left_out.get());
        self.cache.reserve(self.cache.reserved.get() - self.bytes.get());
    }
}

impl BlockCache {
    /// Whether tables may take so many bytes more for a filter at this depth.
    fn fits(&self, bytes: usize, depth: Depth) -> bool {
        let most = match depth {
            Depth::Above => self.total - self.total / KEPT_SHARE,
            Depth::Last => self.total / LAST_LEVEL_SHARE,
        };
        self.reserved.get() + bytes <= most
    }

    /// Whether any open table goes without its filter.
    pub(crate) fn has_left_out(&self) -> bool {
        self.left_out.get() > 0
    }

    /// Tables hold so many bytes from now on: what they leave is for blocks and rows.
    fn reserve(&self, bytes: usize) {
        self.reserved.set(bytes);
        let budget = self.total.saturating_sub(bytes).max(self.total / KEPT_SHARE);
        let grows = budget >= self.budget.replace(budget);
        let (mut rows, mut blocks) = (self.rows.borrow_mut(), self.blocks.borrow_mut());
        while !grows && rows.bytes() > budget / super::ROWS_MOST && rows.shrink() {}
        self.share(&rows, &mut blocks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_take_from_the_budget_and_give_back() {
        let cache = Rc::new(BlockCache::new(1000));
        let first = Reserved::new(cache.clone(), 100, 200, Depth::Last);
        assert!(first.has_filter());
        assert_eq!((cache.stats().budget, cache.stats().table_bytes), (700, 300));
        let last = Reserved::new(cache.clone(), 50, 200, Depth::Last);
        assert!(!last.has_filter(), "filters of the last level get half");
        let above = Reserved::new(cache.clone(), 50, 200, Depth::Above);
        assert!(above.has_filter());
        assert_eq!((cache.stats().budget, cache.stats().filters_left_out_bytes), (400, 200));
        let index = Reserved::new(cache.clone(), 5000, 1, Depth::Above);
        assert!(!index.has_filter());
        assert_eq!(cache.stats().budget, 250, "blocks keep a quarter");
        drop((first, last, above, index));
        let stats = cache.stats();
        assert_eq!((stats.budget, stats.table_bytes, stats.filters_left_out_bytes), (1000, 0, 0));
    }

    #[test]
    fn a_filter_comes_back_when_there_is_room() {
        let cache = Rc::new(BlockCache::new(1000));
        let first = Reserved::new(cache.clone(), 100, 200, Depth::Last);
        let last = Reserved::new(cache.clone(), 50, 200, Depth::Last);
        assert!(!last.take_filter_in(Depth::Last));
        drop(first);
        assert!(last.take_filter_in(Depth::Last) && last.has_filter());
        assert!(!last.take_filter_in(Depth::Last), "it is there");
        assert_eq!((cache.stats().budget, cache.stats().filters_left_out_bytes), (750, 0));
        last.leave_filter_out();
        assert_eq!((cache.stats().budget, cache.stats().filters_left_out_bytes), (950, 200));
        drop(last);
        assert_eq!((cache.stats().budget, cache.stats().filters_left_out_bytes), (1000, 0));
    }

    #[test]
    fn the_first_tables_of_a_tree_are_not_its_last_level() {
        assert_eq!(Depth::of(0, 0), Depth::Above);
        assert_eq!(Depth::of(1, 2), Depth::Above);
        assert_eq!(Depth::of(2, 2), Depth::Last);
        assert_eq!(Depth::of(3, 2), Depth::Last);
    }
}
