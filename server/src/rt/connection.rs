//! One connection: its operations in flight and where it is in its life.
//!
//! Owns the kernel side of a single socket. What to do next is decided by the table
//! ([`super::socket`]), which sees all connections and the handler.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

use io_uring::{opcode, types};

use super::buffers;
use super::core::Core;
use super::ring::{Kind, tag};
use crate::node::{ConnId, CoreId};

/// The receive of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Receive {
    /// The kernel holds none.
    Off,
    /// A multishot receive is running.
    Armed,
    /// It was asked to end; its last completion is still to come.
    Cancelling,
}

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// In service.
    Open,
    /// Moves to another core once nothing of it is in the kernel.
    Moving(CoreId),
    /// Sends its last output, then lingers; until the instant at the latest.
    Closing(Instant),
    /// Said everything: waits for the peer's end so that the last output is not lost to a reset.
    Lingering(Instant),
    /// Given up; goes when the kernel holds nothing of it.
    Dead,
}

/// See the module.
pub(super) struct Connection {
    pub(super) id: ConnId,
    pub(super) stage: Stage,
    pub(super) receive: Receive,
    /// The handler wants no more input for now.
    pub(super) paused: bool,
    /// The handler has more output than what is on its way.
    pub(super) dirty: bool,
    /// The peer sends nothing more.
    pub(super) ended: bool,
    /// The handler knows the connection.
    pub(super) known: bool,
    socket: OwnedFd,
    sending: Option<InFlight>,
    sent: usize,
}

impl Connection {
    pub(super) fn new(id: ConnId, socket: OwnedFd) -> Self {
        Self {
            id,
            stage: Stage::Open,
            receive: Receive::Off,
            paused: false,
            dirty: false,
            ended: false,
            known: true,
            socket,
            sending: None,
            sent: 0,
        }
    }

    fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Starts receiving into the core's buffers.
    #[allow(unsafe_code)]
    pub(super) fn start_receive(&mut self, core: &Core) {
        debug_assert_eq!(self.receive, Receive::Off);
        self.receive = Receive::Armed;
        let entry = opcode::RecvMulti::new(types::Fd(self.fd()), buffers::GROUP)
            .build()
            .user_data(tag(Kind::Receive, self.id.0));
        // SAFETY: the operation has no pointers; the buffer group outlives the ring's operations.
        unsafe { core.ring.push(entry) };
    }

    /// Asks the running receive to end.
    #[allow(unsafe_code)]
    pub(super) fn cancel_receive(&mut self, core: &Core) {
        debug_assert_eq!(self.receive, Receive::Armed);
        self.receive = Receive::Cancelling;
        let entry = opcode::AsyncCancel::new(tag(Kind::Receive, self.id.0))
            .build()
            .user_data(tag(Kind::Ignore, 0));
        // SAFETY: the operation has no pointers.
        unsafe { core.ring.push(entry) };
    }

    /// Whether output is on its way.
    pub(super) fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// Sends `output`; nothing else may be on its way.
    pub(super) fn send(&mut self, core: &Core, output: Vec<u8>) {
        debug_assert!(self.sending.is_none());
        self.sending = Some(InFlight(output));
        self.sent = 0;
        self.send_rest(core);
    }

    /// The kernel took `count` bytes. Returns the buffer when that was all.
    pub(super) fn advance(&mut self, core: &Core, count: usize) -> Option<Vec<u8>> {
        self.sent += count;
        if self.sending.as_ref().is_some_and(|output| self.sent >= output.0.len()) {
            return self.sending.take().map(InFlight::finish);
        }
        if self.sending.is_some() {
            self.send_rest(core);
        }
        None
    }

    /// The send failed: nothing is on its way any more.
    pub(super) fn abandon_send(&mut self) {
        drop(self.sending.take().map(InFlight::finish));
    }

    #[allow(unsafe_code)]
    fn send_rest(&mut self, core: &Core) {
        let Some(output) = &self.sending else { return };
        let rest = &output.0[self.sent..];
        let len = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(types::Fd(self.socket.as_raw_fd()), rest.as_ptr(), len)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
            .user_data(tag(Kind::Send, self.id.0));
        // SAFETY: `sending` is neither changed nor dropped until the completion was reaped; should
        // the connection be dropped before (a panic), the buffer is leaked.
        unsafe { core.ring.push(entry) };
    }

    /// Tells the peer, and the operations in flight, that this is the end.
    #[allow(unsafe_code)]
    pub(super) fn shut_down(&self, how: libc::c_int) {
        // SAFETY: no memory is passed. A failure means that the connection is gone already.
        unsafe { libc::shutdown(self.fd(), how) };
    }

    /// Whether the kernel holds nothing of this connection.
    pub(super) fn is_idle(&self) -> bool {
        self.receive == Receive::Off && self.sending.is_none()
    }

    /// Gives the socket away; the kernel holds nothing of it.
    pub(super) fn into_socket(self) -> OwnedFd {
        debug_assert!(self.is_idle());
        self.socket
    }
}

/// Output that the kernel may be reading.
struct InFlight(Vec<u8>);

impl InFlight {
    /// The kernel is done with it.
    fn finish(mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // Only after a panic: leak rather than hand memory out again that the kernel still reads.
        std::mem::forget(std::mem::take(&mut self.0));
    }
}
