//! A bound on the bytes read ahead: the reading thread waits, the sending side gives back.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes that may be held at one time.
#[derive(Clone, Debug)]
pub struct Budget {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Debug)]
struct State {
    free: usize,
    total: usize,
    closed: bool,
}

/// Bytes taken from a budget; given back when dropped.
#[derive(Debug)]
pub struct Held {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// A budget of this many bytes.
    pub fn new(total: usize) -> Budget {
        let state = State { free: total, total, closed: false };
        Budget { shared: Arc::new((Mutex::new(state), Condvar::new())) }
    }

    /// Waits until the bytes are free and takes them; more than the whole budget takes all of it.
    /// `None` when the budget was closed.
    pub fn take(&self, bytes: usize) -> Option<Held> {
        let (_, freed) = &*self.shared;
        let mut state = self.lock();
        let bytes = bytes.min(state.total);
        while state.free < bytes && !state.closed {
            state = freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return None;
        }
        state.free -= bytes;
        Some(Held { budget: self.clone(), bytes })
    }

    /// Ends the waiting: every `take` returns `None` from now on.
    pub fn close(&self) {
        self.lock().closed = true;
        self.shared.1.notify_all();
    }

    // The state is two plain numbers: a panic elsewhere cannot leave it half changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.lock().free += self.bytes;
        self.budget.shared.1.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taking_waits_for_giving_back() {
        let budget = Budget::new(10);
        let first = budget.take(8).unwrap();
        let waiter = budget.clone();
        let thread = std::thread::spawn(move || waiter.take(5).map(|held| held.bytes));
        drop(first);
        assert_eq!(thread.join().unwrap(), Some(5));
    }

    #[test]
    fn more_than_all_takes_all() {
        let budget = Budget::new(10);
        assert_eq!(budget.take(1000).unwrap().bytes, 10);
        assert_eq!(budget.take(10).unwrap().bytes, 10);
    }

    #[test]
    fn closing_ends_the_waiting() {
        let budget = Budget::new(10);
        let _all = budget.take(10).unwrap();
        let waiter = budget.clone();
        let thread = std::thread::spawn(move || waiter.take(1).is_none());
        budget.close();
        assert!(thread.join().unwrap());
    }
}
