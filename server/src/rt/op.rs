//! Operations whose memory the ring owns until the kernel is done with it.
//!
//! An operation's buffers, paths and file live in a slab slot from submission to completion. A
//! future that is dropped in flight leaves its slot behind; the completion frees it. So dropping
//! never frees memory that the kernel still writes to, and never reuses a descriptor in use.

use std::ffi::CString;
use std::future::Future;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use coronet_lsm::env::AlignedBuf;
use io_uring::squeue;

use super::dial::SocketAddress;
use super::ring::{Kind, Ring, tag};

/// What an operation keeps alive.
#[derive(Default)]
pub(super) struct Owned {
    /// The memory read into or written from.
    pub(super) buffer: Option<AlignedBuf>,
    /// Path arguments.
    pub(super) paths: [Option<CString>; 2],
    /// The address to connect to; only kept.
    pub(super) _address: Option<Box<SocketAddress>>,
    /// The open file worked on; only kept from being closed.
    pub(super) _file: Option<Rc<OwnedFd>>,
    /// A non-negative result is a new descriptor that must not get lost.
    pub(super) opens: bool,
}

impl Owned {
    /// Frees everything, including a descriptor nobody took.
    #[allow(unsafe_code)]
    fn discard(self, result: i32) {
        if self.opens && result >= 0 {
            // SAFETY: the kernel made this descriptor for this operation and nobody took it.
            drop(unsafe { OwnedFd::from_raw_fd(result) });
        }
    }
}

enum State {
    Free,
    Pending { waker: Option<Waker>, orphan: bool, owned: Owned },
    Done { result: i32, owned: Owned },
}

/// The operations of one ring.
#[derive(Default)]
pub(super) struct OpSlab {
    slots: Vec<State>,
    free: Vec<u32>,
    in_flight: usize,
}

impl OpSlab {
    fn insert(&mut self, owned: Owned) -> u32 {
        self.in_flight += 1;
        let state = State::Pending { waker: None, orphan: false, owned };
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = state;
            return slot;
        }
        self.slots.push(state);
        (self.slots.len() - 1) as u32
    }

    fn take(&mut self, slot: u32) -> State {
        self.free.push(slot);
        std::mem::replace(&mut self.slots[slot as usize], State::Free)
    }

    /// Operations the kernel still works on.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The operation in `slot` is done. Returns whom to wake; what is orphaned is freed.
    pub(super) fn complete(&mut self, slot: u64, result: i32) -> Option<Waker> {
        let slot = slot as u32;
        let state = self.slots.get_mut(slot as usize)?;
        let State::Pending { waker, orphan, owned } = state else {
            return None;
        };
        self.in_flight -= 1;
        let (waker, orphan, owned) = (waker.take(), *orphan, std::mem::take(owned));
        if orphan {
            self.take(slot);
            owned.discard(result);
            return None;
        }
        self.slots[slot as usize] = State::Done { result, owned };
        waker
    }
}

impl Drop for OpSlab {
    fn drop(&mut self) {
        // The driver drains the ring before the core ends. Should that not have happened (a
        // panic), the kernel may still write: memory is leaked rather than handed out again.
        if self.in_flight > 0 {
            for state in self.slots.drain(..) {
                if let State::Pending { owned, .. } = state {
                    std::mem::forget(owned);
                }
            }
        }
    }
}

/// One operation in flight.
pub(super) struct Op {
    ring: Rc<Ring>,
    /// `None` once the result was taken.
    slot: Option<u32>,
}

impl Op {
    /// Queues `entry`.
    ///
    /// # Safety
    /// Every pointer in `entry` must point into `owned` (heap memory that does not move with it),
    /// and its descriptor, where it has one, must be `owned.file` or a constant.
    #[allow(unsafe_code)]
    pub(super) unsafe fn start(ring: &Rc<Ring>, entry: squeue::Entry, owned: Owned) -> Self {
        let slot = ring.ops.borrow_mut().insert(owned);
        // SAFETY: the slab keeps what the pointers point to until the completion was reaped.
        unsafe { ring.push(entry.user_data(tag(Kind::Op, u64::from(slot)))) };
        ring.hand_over();
        Self { ring: Rc::clone(ring), slot: Some(slot) }
    }
}

impl Future for Op {
    type Output = (io::Result<u32>, Owned);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(slot) = self.slot else {
            return Poll::Pending; // polled after the end: nothing will ever come
        };
        {
            let mut ops = self.ring.ops.borrow_mut();
            if let State::Pending { waker, .. } = &mut ops.slots[slot as usize] {
                match waker {
                    Some(known) => known.clone_from(cx.waker()),
                    None => *waker = Some(cx.waker().clone()),
                }
                return Poll::Pending;
            }
        }
        let done = self.ring.ops.borrow_mut().take(slot);
        self.slot = None;
        match done {
            State::Done { result, owned } => Poll::Ready((checked(result), owned)),
            State::Free | State::Pending { .. } => Poll::Pending,
        }
    }
}

impl Drop for Op {
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        let mut ops = self.ring.ops.borrow_mut();
        match &mut ops.slots[slot as usize] {
            State::Pending { orphan, waker, .. } => {
                *orphan = true;
                *waker = None;
            }
            _ => {
                if let State::Done { result, owned } = ops.take(slot) {
                    owned.discard(result);
                }
            }
        }
    }
}

/// The kernel's result as a Rust one.
pub(super) fn checked(result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}
