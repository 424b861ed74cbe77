//! The one bit that keeps the driver awake, and the waker that gets it out of its sleep.
//!
//! Everything that hands work to the driver from the same core (a queued operation, output of a
//! connection, a timer) kicks; the driver looks at the bit before it waits.

use std::cell::{Cell, RefCell};
use std::task::Waker;

/// See the module.
#[derive(Default)]
pub(super) struct Signal {
    kicked: Cell<bool>,
    /// Set while the driver sleeps in the executor (not while it waits in its own ring: nothing
    /// else runs on the core then).
    parked: RefCell<Option<Waker>>,
}

impl Signal {
    /// There is something to do. Cheap when the driver is awake.
    pub(super) fn kick(&self) {
        self.kicked.set(true);
        self.wake();
    }

    /// Lets a sleeping driver run without claiming that there is work of ours.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.parked.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Whether somebody kicked since the last [`Signal::take`].
    pub(super) fn is_kicked(&self) -> bool {
        self.kicked.get()
    }

    /// Reads and clears the bit.
    pub(super) fn take(&self) -> bool {
        self.kicked.replace(false)
    }

    /// Whether the driver sleeps in the executor.
    pub(super) fn is_parked(&self) -> bool {
        self.parked.borrow().is_some()
    }

    /// The driver goes to sleep; `waker` gets it back.
    pub(super) fn park(&self, waker: Waker) {
        *self.parked.borrow_mut() = Some(waker);
    }
}
