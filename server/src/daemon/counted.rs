//! The allocator of the daemon, with a count of the memory that is in use.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;
use mimalloc::MiMalloc;

/// Smaller allocations are not counted: blocks, memtable chunks and buffers are what grows.
const COUNTED_FROM: usize = 4096;
/// Counters; a power of two. Threads share them only beyond this number.
const COUNTERS: usize = 64;

static IN_USE: [CachePadded<AtomicUsize>; COUNTERS] =
    [const { CachePadded::new(AtomicUsize::new(0)) }; COUNTERS];
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The counter of this thread, none before its first count. Without a destructor, so that an
    /// allocation may happen at any time in the life of a thread.
    static MINE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Bytes in allocations of 4 KiB and more.
pub(super) fn in_use() -> usize {
    // A block may be freed by another thread than took it: single counters run below zero, their
    // sum does not.
    let sum =
        IN_USE.iter().fold(0_usize, |sum, part| sum.wrapping_add(part.load(Ordering::Relaxed)));
    if sum > isize::MAX as usize { 0 } else { sum }
}

fn count(freed: usize, taken: usize) {
    let freed = if freed >= COUNTED_FROM { freed } else { 0 };
    let taken = if taken >= COUNTED_FROM { taken } else { 0 };
    if freed == taken {
        return;
    }
    let mine = MINE.get().unwrap_or_else(|| {
        let next = NEXT.fetch_add(1, Ordering::Relaxed) % COUNTERS;
        MINE.set(Some(next));
        next
    });
    IN_USE[mine].fetch_add(taken.wrapping_sub(freed), Ordering::Relaxed);
}

/// mimalloc, counting what is in use.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allocator;

// SAFETY: everything is handed on to mimalloc as it came; the counting beside it neither allocates
// nor panics.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(0, layout.size());
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(layout.size(), 0);
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(0, layout.size());
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), size);
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.realloc(block, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(unsafe_code)]
    fn what_is_taken_and_given_back_is_counted_whoever_frees_it() {
        let before = in_use();
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        let small = 100;
        let large = 1 << 20;
        // SAFETY: layouts are not empty, and every block is freed once with the layout it has.
        let blocks: Vec<usize> = unsafe {
            let grown = Allocator.alloc(layout(small));
            let grown = Allocator.realloc(grown, layout(small), large);
            vec![Allocator.alloc(layout(large)) as usize, grown as usize]
        };
        assert_eq!(in_use() - before, 2 * large);
        let free = move || {
            for block in blocks {
                // SAFETY: as above.
                unsafe { Allocator.dealloc(block as *mut u8, layout(large)) };
            }
        };
        std::thread::spawn(free).join().unwrap();
        assert_eq!(in_use(), before);
    }
}
