//! What the daemon asks of its allocator: to keep the memory it has.
//!
//! A node's memtables, cache and buffers have fixed budgets, and memory that one of them leaves
//! another takes a moment later. Given back to the system in between it would come anew cleared,
//! page fault by page fault: 8 to 15 % of the cost of a durable write (docs/decisions/0015).

use libmimalloc_sys::{mi_option_set_default, mi_option_t};

/// `mi_option_purge_delay`, which the bindings do not name: after how many milliseconds unused
/// memory goes back to the system; below zero: never.
const PURGE_DELAY: mi_option_t = 15;

/// Has the allocator keep unused memory. `MIMALLOC_PURGE_DELAY` in the environment has the last
/// word. To be called before other threads start.
#[allow(unsafe_code)]
pub(super) fn keep_memory() {
    // SAFETY: the option exists (the test below knows it by its default), and no other thread runs
    // that could change options at the same time.
    unsafe { mi_option_set_default(PURGE_DELAY, -1) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use libmimalloc_sys::mi_option_get;

    #[test]
    #[allow(unsafe_code)]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: as above; no other test of this program touches options.
        let value = || unsafe { mi_option_get(PURGE_DELAY) };
        // Its neighbours have other defaults: 0 before it, 0 after it.
        assert_eq!(value(), 1000, "the allocator has a new order of options, or a new default");
        keep_memory();
        assert_eq!(value(), -1);
    }
}
