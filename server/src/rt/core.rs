//! What the parts of one core share: ring, signal, mesh, connections.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use coronet_lsm::env::{Nanos, TaskClass};
use glommio::TaskQueueHandle;

use super::coop::Runnable;
use super::heartbeat::Beat;
use super::ring::Ring;
use super::serve::NetStats;
use super::signal::Signal;
use super::socket::Net;
use super::timers::Timers;
use super::xcore::{Bell, MeshEnd};
use crate::node::{CoreId, CoreMessage, Door};

/// What travels between the cores of a process.
#[derive(Debug)]
pub(super) enum Envelope {
    /// For the node.
    Message(CoreMessage),
    /// A connection for the receiving core: fresh, or handed over with the input that its former
    /// core had not used.
    Socket {
        /// The connection.
        socket: OwnedFd,
        /// How it came to be.
        door: Door,
        /// Bytes that arrived before.
        unread: Vec<u8>,
    },
    /// Dialing failed.
    NotDialed {
        /// From the call.
        ticket: u64,
    },
}

/// What all cores of a process share. Touched when connections come and go, and to stop.
pub(super) struct Shared {
    /// The zero of every core's clock.
    pub(super) origin: Instant,
    /// Connections open on any core.
    pub(super) connections: AtomicUsize,
    /// The process is asked to end.
    pub(super) stop: AtomicBool,
    /// All cores' bells, to wake them to the end.
    pub(super) bells: Vec<Arc<Bell>>,
}

impl Shared {
    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The executor queues of the task classes.
#[derive(Clone, Copy)]
pub(super) struct Queues {
    pub(super) foreground: TaskQueueHandle,
    pub(super) flush: TaskQueueHandle,
    pub(super) compaction: TaskQueueHandle,
    pub(super) background: TaskQueueHandle,
}

impl Queues {
    pub(super) fn of(&self, class: TaskClass) -> TaskQueueHandle {
        match class {
            TaskClass::Foreground => self.foreground,
            TaskClass::Flush => self.flush,
            TaskClass::Compaction => self.compaction,
            TaskClass::Background => self.background,
        }
    }
}

/// One core.
pub(super) struct Core {
    pub(super) id: CoreId,
    pub(super) ring: Rc<Ring>,
    pub(super) signal: Rc<Signal>,
    pub(super) queues: Queues,
    pub(super) runnable: Arc<Runnable>,
    pub(super) beat: Arc<Beat>,
    pub(super) mesh: RefCell<MeshEnd<Envelope>>,
    pub(super) net: RefCell<Net>,
    pub(super) shared: Arc<Shared>,
    pub(super) timers: Timers,
    /// The core's main future is done: the driver drains the ring and ends.
    pub(super) ending: Cell<bool>,
    /// Socket figures as of the last turn.
    pub(super) last_stats: Cell<NetStats>,
    /// State of the random number generator.
    pub(super) random: Cell<u64>,
}

impl Core {
    /// Time since the process's cores were started.
    pub(super) fn now(&self) -> Nanos {
        let elapsed = self.shared.origin.elapsed();
        Nanos(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Whether a parked driver would do something if it had the core: completions or messages of
    /// other cores wait, or a time slice has passed since it last looked at its timers.
    pub(super) fn has_driver_work(&self) -> bool {
        self.ring.has_events()
            || (self.mesh.borrow().has_rung() && self.net.borrow().takes_messages())
            || glommio::executor().need_preempt()
    }

    /// Sends to a core of this process.
    pub(super) fn send(&self, to: CoreId, envelope: Envelope) {
        self.mesh.borrow_mut().send(to.index(), envelope);
        self.signal.kick();
    }

    /// The next random number (SplitMix64 over a seed from the system).
    pub(super) fn random(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.random.set(state);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// A seed from the kernel's random pool.
#[allow(unsafe_code)]
pub(super) fn random_seed() -> io::Result<u64> {
    let mut bytes = [0u8; 8];
    // SAFETY: eight writable bytes.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == bytes.len() as isize {
        Ok(u64::from_ne_bytes(bytes))
    } else {
        Err(io::Error::last_os_error())
    }
}
