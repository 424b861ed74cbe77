//! One `io_uring` per core: queueing, one `enter` per loop turn, completions.
//!
//! Owns the kernel interface and the memory rules of operations whose memory it keeps
//! ([`super::op`]). Knows nothing of connections: a completion carries the tag its owner gave it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use io_uring::{IoUring, cqueue, squeue, types};

use super::op::OpSlab;
use super::signal::Signal;

/// Operations that can be queued between two `enter`s; more go to a backlog.
const SUBMISSIONS: u32 = 512;
/// Completions that fit; eight times the submissions, as one multishot receive posts many.
const COMPLETIONS: u32 = SUBMISSIONS * 8;
/// File operations that go to the device before the turn's own `enter`, so that it has something
/// to do while a core works through many completions. With fewer the doorbells cost more than the
/// device gains (`perf/results/2026-11-22-engines-reads.md`).
const HANDED_OVER_AT: u32 = 8;
/// `IORING_ENTER_GETEVENTS`: run deferred task work, which posts the completions.
const ENTER_GETEVENTS: u32 = 1;
/// Kernel worker threads for what cannot be done without blocking (`fdatasync`, `rename`):
/// enough to overlap a log's sync with a flush's writes, few enough not to crowd the core.
const WORKERS: [u32; 2] = [8, 2];

/// What a completion belongs to. Stored in the top bits of the kernel's user data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Nobody cares (a cancellation's own completion).
    Ignore = 0,
    /// A file operation; the rest is its slot in the slab.
    Op = 1,
    /// A connection's receive; the rest names the connection.
    Receive = 2,
    /// A connection's send; the rest names the connection.
    Send = 3,
    /// The listening socket.
    Accept = 4,
    /// The doorbell other cores ring.
    Bell = 5,
}

/// Bits of the user data below the kind.
const REST_BITS: u32 = 60;
/// The part of a tag that its owner chooses.
pub(super) const REST_MASK: u64 = (1 << REST_BITS) - 1;

/// Composes a tag.
pub(super) fn tag(kind: Kind, rest: u64) -> u64 {
    debug_assert!(rest <= REST_MASK);
    (kind as u64) << REST_BITS | (rest & REST_MASK)
}

/// One completion.
#[derive(Debug, Clone, Copy)]
pub(super) struct Completion {
    tag: u64,
    /// The operation's result: a count, a descriptor, or a negative error number.
    pub(super) result: i32,
    flags: u32,
}

impl Completion {
    /// Whose completion this is.
    pub(super) fn kind(self) -> Kind {
        match self.tag >> REST_BITS {
            1 => Kind::Op,
            2 => Kind::Receive,
            3 => Kind::Send,
            4 => Kind::Accept,
            5 => Kind::Bell,
            _ => Kind::Ignore,
        }
    }

    /// What the owner put below the kind.
    pub(super) fn rest(self) -> u64 {
        self.tag & REST_MASK
    }

    /// Whether a multishot operation goes on.
    pub(super) fn more(self) -> bool {
        cqueue::more(self.flags)
    }

    /// The provided buffer the kernel filled.
    pub(super) fn buffer(self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// A core's ring. Lives and dies on its core's thread.
pub(super) struct Ring {
    uring: RefCell<IoUring>,
    backlog: RefCell<VecDeque<squeue::Entry>>,
    pub(super) ops: RefCell<OpSlab>,
    signal: Rc<Signal>,
}

impl Ring {
    /// Sets up the ring of the calling thread, which must be pinned to `cpu`.
    pub(super) fn new(cpu: usize, signal: Rc<Signal>) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        let mut workers = WORKERS;
        uring.submitter().register_iowq_max_workers(&mut workers)?;
        // Workers on other cores would steal those cores' time; refused in some containers,
        // where the scheduler places them.
        let _ = uring.submitter().register_iowq_aff(&cpu_set(cpu));
        Ok(Self {
            uring: RefCell::new(uring),
            backlog: RefCell::new(VecDeque::new()),
            ops: RefCell::new(OpSlab::default()),
            signal,
        })
    }

    /// The ring's descriptor-level interface for registrations (buffer rings).
    pub(super) fn with_submitter<R>(&self, f: impl FnOnce(&io_uring::Submitter<'_>) -> R) -> R {
        f(&self.uring.borrow().submitter())
    }

    /// Queues an operation; it leaves with the next `enter`. Never fails: what does not fit now
    /// waits in a backlog.
    ///
    /// # Safety
    /// Every pointer in `entry` must stay valid, and its memory untouched, until the operation's
    /// last completion was reaped.
    #[allow(unsafe_code)]
    pub(super) unsafe fn push(&self, entry: squeue::Entry) {
        let mut backlog = self.backlog.borrow_mut();
        let full = !backlog.is_empty() || {
            let mut uring = self.uring.borrow_mut();
            // SAFETY: the caller vouches for the pointers.
            unsafe { uring.submission().push(&entry) }.is_err()
        };
        if full {
            backlog.push_back(entry);
        }
        // From inside the driver's turn this is one store; from a task it gets the driver up.
        if self.signal.is_parked() {
            self.signal.kick();
        }
    }

    /// Hands over what is queued when it is [`HANDED_OVER_AT`] or more.
    #[allow(unsafe_code)]
    pub(super) fn hand_over(&self) {
        let mut uring = self.uring.borrow_mut();
        let queued = uring.submission().len() as u32;
        if queued >= HANDED_OVER_AT {
            // SAFETY: no argument is passed; the flags are valid for any ring. An error shows
            // again at the turn's own enter.
            let _ = unsafe { uring.submitter().enter::<libc::sigset_t>(queued, 0, 0, None) };
        }
    }

    /// Whether an `enter` would do anything: queued operations or deferred kernel work.
    pub(super) fn needs_enter(&self) -> bool {
        let mut uring = self.uring.borrow_mut();
        let queue = uring.submission();
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    /// Whether completions wait, reaped or in the kernel.
    pub(super) fn has_events(&self) -> bool {
        let mut uring = self.uring.borrow_mut();
        if !uring.completion().is_empty() {
            return true;
        }
        let queue = uring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Submits what is queued and lets the kernel post completions; does not wait.
    #[allow(unsafe_code)]
    pub(super) fn submit(&self) -> io::Result<()> {
        self.refill();
        let mut uring = self.uring.borrow_mut();
        let queued = uring.submission().len() as u32;
        // SAFETY: no argument is passed; the flags are valid for any ring.
        let entered =
            unsafe { uring.submitter().enter::<libc::sigset_t>(queued, 0, ENTER_GETEVENTS, None) };
        benign(entered)
    }

    /// Submits what is queued and waits until a completion arrives or `at_most` has passed.
    pub(super) fn submit_and_wait(&self, at_most: Duration) -> io::Result<()> {
        self.refill();
        let timeout = types::Timespec::from(at_most);
        let args = types::SubmitArgs::new().timespec(&timeout);
        let uring = self.uring.borrow();
        benign(uring.submitter().submit_with_args(1, &args))
    }

    /// Moves posted completions to the end of `into`.
    pub(super) fn reap(&self, into: &mut Vec<Completion>) {
        let mut uring = self.uring.borrow_mut();
        into.extend(uring.completion().map(|entry| Completion {
            tag: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
    }

    /// Moves the backlog into the submission queue as far as it goes.
    #[allow(unsafe_code)]
    fn refill(&self) {
        let mut backlog = self.backlog.borrow_mut();
        if backlog.is_empty() {
            return;
        }
        let mut uring = self.uring.borrow_mut();
        while let Some(entry) = backlog.front() {
            if uring.submission().is_full() {
                // Full: hand over what is there. An error here shows again at the next enter.
                if uring.submit().is_err() || uring.submission().is_full() {
                    return;
                }
            }
            // SAFETY: whoever queued the entry vouched for its pointers.
            if unsafe { uring.submission().push(entry) }.is_err() {
                return;
            }
            backlog.pop_front();
        }
    }
}

/// Outcomes of `enter` that only mean "try again at the next turn": a signal, the wait's end,
/// completions that must be reaped first, or no memory at the moment.
fn benign(entered: io::Result<usize>) -> io::Result<()> {
    match entered {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}

/// The set with one CPU in it.
#[allow(unsafe_code)]
fn cpu_set(cpu: usize) -> libc::cpu_set_t {
    // SAFETY: an all-zero cpu_set_t is the empty set; CPU_SET checks the index against its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        set
    }
}

/// A fresh eventfd. Blocking, as `io_uring` fails reads of non-blocking ones instead of waiting.
#[allow(unsafe_code)]
pub(super) fn eventfd() -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: no memory is passed; a non-negative result is a descriptor nobody else owns.
    unsafe {
        let fd = libc::eventfd(0, libc::EFD_CLOEXEC);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Adds one to an eventfd, which wakes its reader.
#[allow(unsafe_code)]
pub(super) fn write_eventfd(fd: RawFd) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: eight readable bytes. The write can fail only when the counter is at its limit, and
    // then the reader is awake anyway.
    unsafe {
        libc::write(fd, one.as_ptr().cast(), one.len());
    }
}
