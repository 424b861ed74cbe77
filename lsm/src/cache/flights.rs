//! Loads in progress: who comes second waits for what the first one reads.
//!
//! The first runs the load within its own future. When that future is dropped before its end,
//! one of those who wait begins anew.

use super::BlockKey;
use crate::Result;
use crate::table::Block;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// The loads in progress of one cache.
#[derive(Default)]
pub(super) struct Flights(RefCell<BTreeMap<BlockKey, Rc<Flight>>>);

/// What a reader of a block has to do.
pub(super) enum Turn<'a> {
    /// Load it.
    Ours(Pilot<'a>),
    /// Wait for somebody who does.
    Theirs(Rc<Flight>),
}

impl Flights {
    /// Joins the load of a block, or begins it.
    pub fn join(&self, key: BlockKey) -> Turn<'_> {
        let mut flights = self.0.borrow_mut();
        if let Some(flight) = flights.get(&key) {
            return Turn::Theirs(flight.clone());
        }
        let flight = Rc::<Flight>::default();
        flights.insert(key, flight.clone());
        Turn::Ours(Pilot { flights: self, key, flight })
    }
}

/// One load.
#[derive(Default)]
pub(super) struct Flight(RefCell<State>);

#[derive(Default)]
struct State {
    landed: Option<Result<Block>>,
    /// Nobody runs it any more.
    over: bool,
    waiting: Vec<Waker>,
}

impl Flight {
    /// What was loaded; `None` when whoever loaded it gave up.
    pub async fn landed(&self) -> Option<Result<Block>> {
        poll_fn(|cx| {
            let mut state = self.0.borrow_mut();
            if state.over {
                return Poll::Ready(state.landed.clone());
            }
            if !state.waiting.iter().any(|known| known.will_wake(cx.waker())) {
                state.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

/// Whoever runs a load; dropping it ends the load, landed or not.
pub(super) struct Pilot<'a> {
    flights: &'a Flights,
    key: BlockKey,
    flight: Rc<Flight>,
}

impl Pilot<'_> {
    /// The load is done.
    pub fn land(self, block: Result<Block>) {
        // Nobody asks for it when nobody waits: later readers find it in the cache.
        if Rc::strong_count(&self.flight) > 2 {
            self.flight.0.borrow_mut().landed = Some(block);
        }
    }
}

impl Drop for Pilot<'_> {
    fn drop(&mut self) {
        self.flights.0.borrow_mut().remove(&self.key);
        let waiting = {
            let mut state = self.flight.0.borrow_mut();
            state.over = true;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests;
