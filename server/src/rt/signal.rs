//! The bit that keeps the driver awake, and the waker that gets it out of its sleep.
//!
//! Everything that hands work to the driver from the same core (a queued operation, output of a
//! connection, a message) kicks; the driver looks at the bit before it waits.

use std::cell::{Cell, RefCell};
use std::task::Waker;

/// See the module.
#[derive(Default)]
pub(super) struct Signal {
    kicked: Cell<bool>,
    parked: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Signal {
    /// There is something to do. Cheap when the driver is awake.
    pub(super) fn kick(&self) {
        self.kicked.set(true);
        self.wake();
    }

    /// Lets a parked driver run without claiming that there is work of ours.
    pub(super) fn wake(&self) {
        if self.parked.replace(false)
            && let Some(waker) = self.waker.borrow().as_ref()
        {
            waker.wake_by_ref();
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

    /// Whether the driver leaves the core to other tasks until it is woken.
    pub(super) fn is_parked(&self) -> bool {
        self.parked.get()
    }

    /// The driver parks; `waker` gets it back.
    pub(super) fn park(&self, waker: &Waker) {
        self.parked.set(true);
        let mut known = self.waker.borrow_mut();
        match known.as_mut() {
            Some(known) => known.clone_from(waker),
            None => *known = Some(waker.clone()),
        }
    }
}
