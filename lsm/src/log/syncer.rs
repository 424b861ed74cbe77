//! Syncing: brings to the device what the writer wrote, and completes whom that lets go.
//!
//! A task of its own, so that the next batch is on its way to the device while the one before is
//! made durable. One sync runs at a time; what was written before it began is durable when it
//! ends.

use super::handle::Inner;
use crate::env::{Env, File, Nanos};
use crate::signal::Completion;
use crate::{Error, Result, Seq};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// A batch that was written.
pub(super) struct Written {
    /// Its newest entry.
    pub last: Seq,
    /// Whether it commits only once it is on the device.
    pub durable: bool,
    /// When its first write came.
    pub opened: Nanos,
    pub completion: Rc<Completion>,
}

/// How far the active segment was written.
pub(super) struct Target<F> {
    pub file: F,
    pub path: PathBuf,
    pub generation: u64,
    /// Bytes from its beginning.
    pub end: u64,
    /// Newest entry.
    pub last: Seq,
}

/// What the writer and the syncer know together.
pub(super) struct SyncState<F> {
    /// Batches that are written and not committed, in order.
    waiting: RefCell<VecDeque<Written>>,
    target: RefCell<Option<Target<F>>>,
    /// When the oldest write came that no sync covers; `None` without such.
    since: Cell<Option<Nanos>>,
    /// The sync that runs covers everything up to here.
    running: Cell<Option<Seq>>,
    /// Segment and bytes of it that are on the device.
    on_device: Cell<(u64, u64)>,
}

impl<F> Default for SyncState<F> {
    fn default() -> Self {
        SyncState {
            waiting: RefCell::default(),
            target: RefCell::new(None),
            since: Cell::default(),
            running: Cell::default(),
            on_device: Cell::default(),
        }
    }
}

impl<F> SyncState<F> {
    /// Bytes of segment `generation` known to be on the device.
    pub fn on_device(&self, generation: u64) -> u64 {
        let (synced, bytes) = self.on_device.get();
        if synced == generation { bytes } else { 0 }
    }

    /// Whether a sync runs.
    pub fn is_running(&self) -> bool {
        self.running.get().is_some()
    }

    /// Whether a batch waits for a sync that has not begun.
    pub fn has_backlog(&self) -> bool {
        let waiting = self.waiting.borrow();
        let covered = |batch: &&Written| self.running.get().is_some_and(|upto| batch.last <= upto);
        waiting.iter().any(|batch| batch.durable && !covered(&batch))
    }

    /// Everything that waits: the log failed.
    pub fn take_waiting(&self) -> VecDeque<Written> {
        std::mem::take(&mut self.waiting.borrow_mut())
    }
}

/// What the syncer does next.
enum Step {
    Sync,
    Wait(Option<Duration>),
    Stop,
}

/// Syncs until the log stops or fails.
pub(super) async fn run<E: Env>(inner: Rc<Inner<E>>) {
    loop {
        let epoch = inner.sync_wake.epoch();
        match inner.next_sync() {
            Step::Sync => {
                if let Err(error) = inner.sync_once().await {
                    return inner.fail(&error);
                }
            }
            Step::Wait(None) => inner.sync_wake.changed(epoch).await,
            Step::Wait(Some(limit)) => {
                inner.sync_wake.changed_within(&inner.env, epoch, limit).await;
            }
            Step::Stop => return,
        }
    }
}

impl<E: Env> Inner<E> {
    /// The writer wrote a batch, after which the active segment reaches as far as `target`.
    pub fn wrote(&self, batch: Written, target: Target<E::File>) {
        if let Some(error) = self.state.borrow().failed.clone() {
            return batch.completion.complete(Err(error));
        }
        let sync = &self.sync;
        sync.since.set(sync.since.get().or_else(|| Some(self.env.now())));
        *sync.target.borrow_mut() = Some(target);
        sync.waiting.borrow_mut().push_back(batch);
        self.settle();
        self.sync_wake.notify();
    }

    /// Waits until everything up to `seq`, which is written, is on the device.
    pub async fn drain(&self, seq: Seq) -> Result<()> {
        self.sync_wanted.set(self.sync_wanted.get().max(seq));
        self.sync_wake.notify();
        loop {
            let epoch = self.committed.epoch();
            if let Some(error) = self.state.borrow().failed.clone() {
                return Err(error);
            }
            if self.synced.get() >= seq {
                return Ok(());
            }
            self.committed.changed(epoch).await;
        }
    }

    fn next_sync(&self) -> Step {
        let state = self.state.borrow();
        if state.failed.is_some() || state.stopped {
            return Step::Stop;
        }
        let Some(since) = self.sync.since.get() else { return Step::Wait(None) };
        let wanted = self.sync_wanted.get() > self.synced.get() || self.sync.has_backlog();
        let left = self.options.sync_interval.saturating_sub(self.env.now().since(since));
        if wanted || left.is_zero() { Step::Sync } else { Step::Wait(Some(left)) }
    }

    async fn sync_once(&self) -> Result<()> {
        let Some(target) = self.sync.target.take() else { return Ok(()) };
        self.sync.since.set(None);
        self.sync.running.set(Some(target.last));
        // The writer may go on with the next batch.
        self.wake.notify();
        let synced = target.file.sync().await;
        self.sync.running.set(None);
        synced.map_err(|error| Error::io("sync", &target.path, &error))?;
        if self.state.borrow().failed.is_some() {
            return Ok(());
        }
        self.sync.on_device.set((target.generation, target.end));
        self.synced.set(target.last);
        self.stats.update(|stats| stats.log_syncs += 1);
        self.settle();
        self.committed.notify();
        self.wake.notify();
        Ok(())
    }

    /// Completes written batches in order, as far as their durability is given.
    fn settle(&self) {
        loop {
            let mut waiting = self.sync.waiting.borrow_mut();
            let done = |batch: &Written| !batch.durable || batch.last <= self.synced.get();
            let Some(batch) = waiting.pop_front_if(|batch| done(batch)) else { return };
            drop(waiting);
            self.took(batch.opened);
            self.visible.set(batch.last);
            batch.completion.complete(Ok(()));
            self.committed.notify();
        }
    }
}
