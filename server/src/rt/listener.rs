//! The listening socket: multishot accept, the limit of connections, and failures to accept.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering;

use io_uring::{opcode, types};

use super::core::{Core, Envelope};
use super::ring::{Completion, Kind, tag};
use super::serve::NetStats;
use crate::node::Door;

/// Connections the kernel completes ahead of us.
const BACKLOG: i32 = 4096;

/// A listening socket.
pub(super) struct Listener {
    socket: TcpListener,
    armed: bool,
    /// Accepting failed for want of resources: wait for the next tick.
    resting: bool,
    closing: bool,
    next_core: usize,
    data_cores: usize,
    limit: usize,
    door: Door,
    /// Its number among the core's listeners, in the tags of its operations.
    index: u64,
}

impl Listener {
    /// Deals clients out over the data cores.
    pub(super) fn clients(socket: TcpListener, data_cores: u16, limit: usize) -> Self {
        Self::new(socket, usize::from(data_cores.max(1)), limit, Door::Clients)
    }

    /// Keeps every connection on this core. Other nodes are not counted against the limit:
    /// clients must not be able to cut a node off.
    pub(super) fn peers(socket: TcpListener) -> Self {
        Self::new(socket, 1, usize::MAX, Door::Peers)
    }

    #[allow(unsafe_code)]
    fn new(socket: TcpListener, data_cores: usize, limit: usize, door: Door) -> Self {
        // SAFETY: a listening socket; listening again only changes its backlog.
        unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) };
        // A non-blocking socket would make the ring's accept fail instead of wait. Should this
        // fail, accepting fails the same way and is counted.
        let _ = socket.set_nonblocking(false);
        Self {
            socket,
            armed: false,
            resting: false,
            closing: false,
            next_core: 0,
            data_cores,
            limit,
            index: u64::from(door == Door::Peers),
            door,
        }
    }

    /// Its number in the tags of its operations.
    pub(super) fn index(&self) -> u64 {
        self.index
    }

    /// Starts accepting unless that goes on or has to rest.
    #[allow(unsafe_code)]
    pub(super) fn arm(&mut self, core: &Core) {
        if self.armed || self.resting || self.closing {
            return;
        }
        self.armed = true;
        let entry = opcode::AcceptMulti::new(types::Fd(self.socket.as_raw_fd()))
            .flags(libc::SOCK_CLOEXEC)
            .build()
            .user_data(tag(Kind::Accept, self.index));
        // SAFETY: the operation has no pointers.
        unsafe { core.ring.push(entry) };
    }

    /// A tick passed: try again after a failure.
    pub(super) fn tick(&mut self, core: &Core) {
        self.resting = false;
        self.arm(core);
    }

    /// Stops accepting. The socket may be dropped once [`Listener::is_idle`].
    #[allow(unsafe_code)]
    pub(super) fn close(&mut self, core: &Core) {
        if !self.closing && self.armed {
            let entry = opcode::AsyncCancel::new(tag(Kind::Accept, self.index)).build();
            // SAFETY: the operation has no pointers.
            unsafe { core.ring.push(entry.user_data(tag(Kind::Ignore, 0))) };
        }
        self.closing = true;
    }

    /// Whether the kernel has let go of the socket.
    pub(super) fn is_idle(&self) -> bool {
        !self.armed
    }

    /// Something was accepted, or accepting failed. Returns a connection this core keeps.
    pub(super) fn accepted(
        &mut self,
        core: &Core,
        completion: Completion,
        stats: &mut NetStats,
    ) -> Option<(OwnedFd, Door)> {
        self.armed = completion.more();
        let mut kept = None;
        if completion.result >= 0 {
            kept = self.place(core, take(completion.result), stats);
        } else if is_shortage(completion.result) {
            stats.accept_failures += 1;
            self.resting = true;
        }
        self.arm(core);
        kept.map(|socket| (socket, self.door))
    }

    /// Counts a fresh connection and picks its core.
    fn place(&mut self, core: &Core, socket: OwnedFd, stats: &mut NetStats) -> Option<OwnedFd> {
        if self.closing || core.shared.connections.load(Ordering::Relaxed) >= self.limit {
            stats.refused += 1;
            return None; // dropping closes
        }
        core.shared.connections.fetch_add(1, Ordering::Relaxed);
        stats.accepted += 1;
        // Replies leave in whole turns already; waiting for more would only add delay.
        let _ = set_nodelay(&socket);
        if self.door == Door::Peers {
            return Some(socket);
        }
        let to = self.next_core;
        self.next_core = (to + 1) % self.data_cores;
        if to == core.id.index() {
            return Some(socket);
        }
        let envelope = Envelope::Socket { socket, door: self.door, unread: Vec::new() };
        core.mesh.borrow_mut().send(to, envelope);
        None
    }
}

#[allow(unsafe_code)]
fn take(fd: i32) -> OwnedFd {
    // SAFETY: a fresh descriptor of the kernel's that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Whether accepting failed for want of something that comes back with time.
fn is_shortage(result: i32) -> bool {
    matches!(-result, libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN)
}

#[allow(unsafe_code)]
pub(super) fn set_nodelay(socket: &OwnedFd) -> io::Result<()> {
    let one: libc::c_int = 1;
    // SAFETY: the option's value is one readable int.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NODELAY,
            (&raw const one).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
