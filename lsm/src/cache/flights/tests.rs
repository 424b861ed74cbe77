use super::*;
use crate::{Error, TableUid};
use futures_util::FutureExt;

const KEY: BlockKey = BlockKey { uid: TableUid(1), offset: 8192 };

fn ours(flights: &Flights) -> Pilot<'_> {
    match flights.join(KEY) {
        Turn::Ours(pilot) => pilot,
        Turn::Theirs(_) => panic!("somebody loads the block"),
    }
}

fn theirs(flights: &Flights) -> Rc<Flight> {
    match flights.join(KEY) {
        Turn::Ours(_) => panic!("nobody loads the block"),
        Turn::Theirs(flight) => flight,
    }
}

#[test]
fn all_who_wait_get_what_the_first_one_loads() {
    let flights = Flights::default();
    let pilot = ours(&flights);
    let (second, third) = (theirs(&flights), theirs(&flights));
    let (mut second, mut third) = (Box::pin(second.landed()), Box::pin(third.landed()));
    assert!(second.as_mut().now_or_never().is_none());
    assert!(third.as_mut().now_or_never().is_none());
    pilot.land(Err(Error::Closed));
    for waited in [second.now_or_never(), third.now_or_never()] {
        assert!(matches!(waited, Some(Some(Err(Error::Closed)))));
    }
    ours(&flights);
}

#[test]
fn a_load_that_is_given_up_is_begun_anew_by_one_of_those_who_wait() {
    let flights = Flights::default();
    let pilot = ours(&flights);
    let second = theirs(&flights);
    let mut second = Box::pin(second.landed());
    assert!(second.as_mut().now_or_never().is_none());
    drop(pilot);
    assert!(matches!(second.now_or_never(), Some(None)));
    let pilot = ours(&flights);
    let other = BlockKey { offset: 0, ..KEY };
    assert!(matches!(flights.join(other), Turn::Ours(_)), "another block is another load");
    theirs(&flights);
    drop(pilot);
}

#[test]
fn whoever_waits_is_woken() {
    let flights = Flights::default();
    let pilot = ours(&flights);
    let second = theirs(&flights);
    let (waker, woken) = counting_waker();
    let mut waits = Box::pin(second.landed());
    let mut cx = std::task::Context::from_waker(&waker);
    // However often it asks, it is woken once.
    for _ in 0..3 {
        assert!(waits.as_mut().poll_unpin(&mut cx).is_pending());
    }
    pilot.land(Err(Error::Closed));
    assert_eq!(woken.0.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert!(waits.as_mut().poll_unpin(&mut cx).is_ready());
}

#[derive(Default)]
struct Woken(std::sync::atomic::AtomicUsize);

impl std::task::Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

fn counting_waker() -> (Waker, std::sync::Arc<Woken>) {
    let woken = std::sync::Arc::<Woken>::default();
    (Waker::from(woken.clone()), woken)
}
