//! Waking tasks of the same core: a counter that tasks wait on, and a completion shared by many.

use crate::env::Env;
use crate::{Error, Result, Seq};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A counter that wakes whoever waits for its next change.
///
/// Take [`Signal::epoch`], check the condition, then await [`Signal::changed`] with that epoch:
/// a notification in between is never lost.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    epoch: Cell<u64>,
    wakers: RefCell<Vec<Waker>>,
}

impl Signal {
    pub fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    pub fn notify(&self) {
        self.epoch.set(self.epoch.get() + 1);
        let wakers = std::mem::take(&mut *self.wakers.borrow_mut());
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Completes once the epoch differs from `since`.
    pub fn changed(&self, since: u64) -> impl Future<Output = ()> + '_ {
        std::future::poll_fn(move |cx| {
            if self.epoch.get() != since {
                return Poll::Ready(());
            }
            let mut wakers = self.wakers.borrow_mut();
            if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
    }

    /// Like [`Signal::changed`], but gives up after `timeout`.
    pub async fn changed_within<E: Env>(&self, env: &E, since: u64, timeout: Duration) {
        let changed = pin!(self.changed(since));
        let timeout = pin!(env.sleep(timeout));
        futures_util::future::select(changed, timeout).await;
    }
}

/// The shared outcome of one log batch: one allocation for all the writes in it.
#[derive(Debug, Default)]
pub(crate) struct Completion {
    outcome: RefCell<Option<Result<()>>>,
    wakers: RefCell<Vec<Waker>>,
}

impl Completion {
    /// Completes every waiter. The first outcome stands.
    pub fn complete(&self, outcome: Result<()>) {
        self.outcome.borrow_mut().get_or_insert(outcome);
        let wakers = std::mem::take(&mut *self.wakers.borrow_mut());
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Completes when a write is committed as its durability asks. Dropping it does not undo the
/// write.
#[derive(Debug)]
#[must_use = "a write is acknowledged only when its commit completed"]
pub struct Commit {
    seq: Seq,
    completion: Rc<Completion>,
    /// Where this waiter's waker stands, once it was polled.
    slot: Option<usize>,
}

impl Commit {
    pub(crate) fn new(seq: Seq, completion: Rc<Completion>) -> Self {
        Commit { seq, completion, slot: None }
    }

    /// Sequence number of the batch's last entry.
    pub fn seq(&self) -> Seq {
        self.seq
    }
}

impl Future for Commit {
    type Output = Result<Seq>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Seq>> {
        let this = &mut *self;
        if let Some(outcome) = &*this.completion.outcome.borrow() {
            return Poll::Ready(outcome.clone().map(|()| this.seq));
        }
        let mut wakers = this.completion.wakers.borrow_mut();
        match this.slot {
            Some(slot) => wakers[slot].clone_from(cx.waker()),
            None => {
                this.slot = Some(wakers.len());
                wakers.push(cx.waker().clone());
            }
        }
        Poll::Pending
    }
}

/// The error every write gets once the log failed.
pub(crate) fn log_failed(cause: &Error) -> Error {
    match cause {
        Error::LogFailed(_) | Error::Closed => cause.clone(),
        other => Error::LogFailed(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_notification_between_check_and_wait_is_not_lost() {
        let signal = Signal::default();
        let epoch = signal.epoch();
        signal.notify();
        assert!(signal.changed(epoch).now_or_never().is_some());
        assert!(signal.changed(signal.epoch()).now_or_never().is_none());
    }

    #[test]
    fn all_commits_of_a_batch_share_its_outcome() {
        let completion = Rc::new(Completion::default());
        let mut first = Commit::new(Seq(1), completion.clone());
        let mut second = Commit::new(Seq(2), completion.clone());
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut first).now_or_never().is_none(), "a second poll replaces its waker");
        assert!((&mut second).now_or_never().is_none());
        assert_eq!(completion.wakers.borrow().len(), 2);
        completion.complete(Err(Error::Closed));
        assert!(matches!(first.now_or_never(), Some(Err(Error::Closed))));
        assert!(matches!(second.now_or_never(), Some(Err(Error::Closed))));
    }
}
