//! Timers of one core, fired by the driver.
//!
//! Of our own because the driver has to know the next deadline: it may then wait inside the ring
//! until that instant without the executor.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use coronet_lsm::env::Nanos;

use super::core::Core;

/// See the module. Keys are deadlines, made unique by a counter.
#[derive(Default)]
pub(super) struct Timers {
    waiting: RefCell<BTreeMap<(Nanos, u64), Waker>>,
    issued: Cell<u64>,
}

impl Timers {
    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Nanos> {
        self.waiting.borrow().first_key_value().map(|((deadline, _), _)| *deadline)
    }

    /// Wakes everybody whose deadline has passed.
    pub(super) fn fire(&self, now: Nanos) {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(first) = waiting.first_entry()
            && first.key().0 <= now
        {
            // Waking only queues a task; nothing of ours runs while the map is borrowed.
            first.remove().wake();
        }
    }
}

/// Completes once its deadline has passed.
pub(super) struct Sleep {
    core: Rc<Core>,
    deadline: Nanos,
    key: Option<(Nanos, u64)>,
}

impl Sleep {
    pub(super) fn new(core: &Rc<Core>, duration: Duration) -> Self {
        Self { core: Rc::clone(core), deadline: core.now().after(duration), key: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.core.now() >= self.deadline {
            return Poll::Ready(());
        }
        let key = self.key.unwrap_or_else(|| {
            let issued = &self.core.timers.issued;
            issued.set(issued.get() + 1);
            (self.deadline, issued.get())
        });
        self.key = Some(key);
        self.core.timers.waiting.borrow_mut().insert(key, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.core.timers.waiting.borrow_mut().remove(&key);
        }
    }
}
