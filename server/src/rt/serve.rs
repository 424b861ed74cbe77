//! The contract between the moving of bytes and their meaning, and how serving starts and ends.

use std::future::poll_fn;
use std::net::TcpListener;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::env::RtEnv;
use crate::node::{ConnId, CoreId, CoreMessage, Door, OutputState};

/// What gives connections their meaning: a node's shard, or an echo.
///
/// The driver calls it between two system calls, never from two places at once, and never holds
/// anything while it does: the handler may use its environment freely. In one loop turn every
/// received byte is passed in first; then each connection that became dirty is asked once for its
/// output, so that all replies of a turn leave in one send.
pub trait ConnectionHandler: 'static {
    /// A connection is there.
    fn connect(&self, conn: ConnId, door: Door);

    /// A connection that was dialed under this ticket did not come to be.
    fn dial_failed(&self, ticket: u64);

    /// Bytes arrived.
    fn receive(&self, conn: ConnId, bytes: &[u8]);

    /// The peer sends nothing more but may still read. The handler answers what is in flight and
    /// then sets [`OutputState::close_after`].
    fn end_of_input(&self, conn: ConnId);

    /// The connection is gone.
    fn disconnect(&self, conn: ConnId);

    /// Forgets a connection that moves to another core and returns its unused input.
    fn release(&self, conn: ConnId) -> Vec<u8>;

    /// A message from another core.
    fn core_message(&self, message: CoreMessage);

    /// The next connection with output or a changed state; each is named once per change.
    fn next_dirty(&self) -> Option<ConnId>;

    /// Moves the connection's output to the end of `into`. Not called while an earlier output of
    /// the connection is still on its way; nothing more is received meanwhile either.
    fn take_output(&self, conn: ConnId, into: &mut Vec<u8>) -> OutputState;

    /// Deadlines; called about every 50 milliseconds.
    fn tick(&self);

    /// The node ends: refuse new requests, finish those in flight.
    fn drain(&self);

    /// Requests in flight.
    fn in_flight(&self) -> usize;
}

/// How a core serves.
#[derive(Debug)]
pub struct ServeOptions {
    /// The clients' listening socket, on the one core that accepts.
    pub listener: Option<TcpListener>,
    /// The other nodes' listening socket; what it accepts stays on this core.
    pub peers: Option<TcpListener>,
    /// Fresh connections are dealt out over this many cores, from core 0 on.
    pub data_cores: u16,
    /// Connections open at once in the whole process; further clients are closed at once and
    /// counted.
    pub connection_limit: usize,
    /// How long requests in flight may take to finish when the node ends.
    pub drain: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            listener: None,
            peers: None,
            data_cores: 1,
            connection_limit: 12_000,
            drain: Duration::from_secs(5),
        }
    }
}

/// What a core's sockets did since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetStats {
    /// Connections open now on this core.
    pub open: u64,
    /// Connections accepted by this core (whichever core serves them).
    pub accepted: u64,
    /// Connections closed at once because the limit was reached.
    pub refused: u64,
    /// Times accepting failed for want of descriptors or memory.
    pub accept_failures: u64,
    /// Times receive buffers ran out and a receive had to be started again.
    pub buffer_shortages: u64,
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
}

impl RtEnv {
    /// Serves until [`super::Stopper::stop`]: then nothing new is accepted, requests in flight are
    /// finished, connections closed. Messages from other cores wait until this was called. Serving
    /// is done once per core.
    pub async fn serve(&self, handler: Rc<dyn ConnectionHandler>, options: ServeOptions) {
        self.core.net.borrow_mut().open(&self.core, handler, options);
        self.core.signal.kick();
        poll_fn(|cx| {
            if self.core.net.borrow_mut().is_down(cx.waker()) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// What this core's sockets did so far.
    pub fn net_stats(&self) -> NetStats {
        // While the driver calls the handler the connections are in its hands: the handler sees
        // the figures of the last turn.
        match self.core.net.try_borrow() {
            Ok(net) => net.stats(),
            Err(_) => self.core.last_stats.get(),
        }
    }

    /// Asks the whole process to end, as [`super::Stopper::stop`] does.
    pub fn stop_all(&self) {
        self.core.shared.stop_all();
    }

    /// How many cores of this process exchange messages.
    pub fn cores(&self) -> CoreId {
        CoreId(u16::try_from(self.core.shared.bells.len()).unwrap_or(u16::MAX))
    }
}
