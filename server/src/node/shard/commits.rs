//! Writes that wait for their log batch.
//!
//! A write is applied when its request is read and acknowledged when its batch is committed. One
//! queue and one task per durability serve all of them in order: a hundred thousand writes per
//! second must not mean a hundred thousand tasks.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Poll, Waker};

use coronet_lsm::env::Nanos;
use coronet_lsm::{Commit, Result, Seq};

/// A write and what its client is told once it is committed. `None` once it was told already.
struct Waiting<T> {
    commit: Commit,
    deadline: Nanos,
    reply: Option<T>,
}

/// Writes of one durability in the order they were applied.
pub(super) struct CommitQueue<T> {
    waiting: RefCell<VecDeque<Waiting<T>>>,
    /// Wakes the task when the queue gets its first entry.
    idle: Cell<Option<Waker>>,
    closed: Cell<bool>,
}

impl<T> Default for CommitQueue<T> {
    fn default() -> Self {
        CommitQueue { waiting: RefCell::default(), idle: Cell::default(), closed: Cell::default() }
    }
}

impl<T> CommitQueue<T> {
    /// Adds the write applied last.
    pub(super) fn push(&self, commit: Commit, deadline: Nanos, reply: T) {
        self.waiting.borrow_mut().push_back(Waiting { commit, deadline, reply: Some(reply) });
        if let Some(task) = self.idle.take() {
            task.wake();
        }
    }

    /// Lets [`CommitQueue::run`] end once the queue is empty.
    pub(super) fn close(&self) {
        self.closed.set(true);
        if let Some(task) = self.idle.take() {
            task.wake();
        }
    }

    /// Answers the writes whose deadline passed: they stay in the queue, applied, in doubt.
    pub(super) fn expire(&self, now: Nanos, mut expired: impl FnMut(T)) {
        let mut late = Vec::new();
        for entry in self.waiting.borrow_mut().iter_mut() {
            if entry.deadline <= now {
                late.extend(entry.reply.take());
            }
        }
        late.into_iter().for_each(&mut expired);
    }

    /// Completes writes in order, for the life of the shard.
    pub(super) async fn run(&self, mut done: impl FnMut(T, Result<Seq>)) {
        poll_fn(|task| {
            loop {
                let mut waiting = self.waiting.borrow_mut();
                let Some(first) = waiting.front_mut() else {
                    if self.closed.get() {
                        return Poll::Ready(());
                    }
                    self.idle.set(Some(task.waker().clone()));
                    return Poll::Pending;
                };
                let Poll::Ready(result) = Pin::new(&mut first.commit).poll(task) else {
                    return Poll::Pending;
                };
                let reply = waiting.pop_front().and_then(|first| first.reply);
                drop(waiting);
                if let Some(reply) = reply {
                    done(reply, result);
                }
            }
        })
        .await;
    }
}
