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

/// A write and who is told once it is committed. `None` once nobody waits any more.
struct Waiting<T, C> {
    commit: C,
    deadline: Nanos,
    reply: Option<T>,
}

/// Writes of one durability in the order they were applied.
pub(super) struct CommitQueue<T, C = Commit> {
    waiting: RefCell<VecDeque<Waiting<T, C>>>,
    /// Wakes the task when the queue gets its first entry.
    idle: Cell<Option<Waker>>,
    closed: Cell<bool>,
}

impl<T, C> Default for CommitQueue<T, C> {
    fn default() -> Self {
        CommitQueue { waiting: RefCell::default(), idle: Cell::default(), closed: Cell::default() }
    }
}

impl<T, C: Future<Output = Result<Seq>> + Unpin> CommitQueue<T, C> {
    /// Adds the write applied last.
    pub(super) fn push(&self, commit: C, deadline: Nanos, reply: T) {
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

    /// Gives up on the writes whose deadline passed: they stay in the queue, applied, in doubt.
    /// Whom `expired` returns waits on, without a deadline.
    pub(super) fn expire(&self, now: Nanos, mut expired: impl FnMut(T) -> Option<T>) {
        let mut late = Vec::new();
        for (at, entry) in self.waiting.borrow_mut().iter_mut().enumerate() {
            if entry.deadline <= now {
                entry.deadline = Nanos(u64::MAX);
                late.extend(entry.reply.take().map(|reply| (at, reply)));
            }
        }
        for (at, reply) in late {
            // What `expired` adds to the queue comes behind: `at` stays true.
            let waits_on = expired(reply);
            if let Some(entry) = self.waiting.borrow_mut().get_mut(at) {
                entry.reply = waits_on;
            }
        }
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

#[cfg(test)]
mod tests {
    use std::future::Ready;

    use super::*;

    /// A commit that is over once it is told so.
    #[derive(Clone, Default)]
    struct Told(std::rc::Rc<Cell<bool>>);

    impl Future for Told {
        type Output = Result<Seq>;

        fn poll(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<Result<Seq>> {
            if self.0.get() { Poll::Ready(Ok(Seq(1))) } else { Poll::Pending }
        }
    }

    /// Runs the queue for as long as it does not wait, and returns who was told.
    fn told<T, C>(queue: &CommitQueue<T, C>) -> Vec<T>
    where
        C: Future<Output = Result<Seq>> + Unpin,
    {
        let told = RefCell::new(Vec::new());
        let run = queue.run(|waiter, result| {
            assert!(result.is_ok());
            told.borrow_mut().push(waiter);
        });
        let _ = std::pin::pin!(run).poll(&mut std::task::Context::from_waker(Waker::noop()));
        told.take()
    }

    #[test]
    fn who_waits_on_after_the_deadline_is_told_at_the_commit_and_nobody_twice() {
        let queue = CommitQueue::default();
        let commit = Told::default();
        queue.push(commit.clone(), Nanos(10), "client");
        queue.push(commit.clone(), Nanos(10), "replica");
        queue.push(commit.clone(), Nanos(11), "in time");
        let mut late = Vec::new();
        for now in [9, 10, 10] {
            queue.expire(Nanos(now), |waiter| {
                late.push(waiter);
                (waiter == "replica").then_some("hint")
            });
        }
        assert_eq!(late, ["client", "replica"]);
        assert_eq!(told(&queue), Vec::<&str>::new());
        commit.0.set(true);
        assert_eq!(told(&queue), ["hint", "in time"]);
    }

    #[test]
    fn what_an_expired_write_adds_leaves_the_others_in_their_place() {
        let queue = CommitQueue::<_, Ready<Result<Seq>>>::default();
        let commit = || std::future::ready(Ok(Seq(1)));
        queue.push(commit(), Nanos(10), 0);
        queue.push(commit(), Nanos(10), 1);
        queue.expire(Nanos(10), |waiter| {
            queue.push(commit(), Nanos(20), 5);
            (waiter == 1).then_some(2)
        });
        assert_eq!(told(&queue), [2, 5, 5]);
    }
}
