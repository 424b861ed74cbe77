//! One data core's share of the node: its connections, its partitions, its engine.

mod connection;
mod versions;

pub use connection::Limits;

use std::path::Path;
use std::rc::Rc;

use coronet_lsm as lsm;
use coronet_ring::{Incarnation, NodeId};

use super::{ConnId, CoreId, CoreMessage, NodeEnv};

/// What a shard is told when it opens. The same for all cores of a node.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// Number of data cores.
    pub cores: u16,
    /// Number of partitions of the hash space, a power of two.
    pub partitions: u32,
    /// The node's identity, told to clients.
    pub node_id: NodeId,
    /// The node's incarnation: the actor of the versions it writes.
    pub incarnation: Incarnation,
    /// The secret contexts are checked with.
    pub secret: u64,
    /// The port clients connect to, told to clients.
    pub port: u16,
    /// How the engine is set up.
    pub engine: lsm::Options,
}

/// What the shell has to do with a connection after it took its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputState {
    /// Close the connection once the output is sent.
    pub close_after: bool,
    /// Read nothing more from the socket until a later state says otherwise.
    pub paused: bool,
    /// Give the socket to this core: stop reading, pass what still arrives to
    /// [`Shard::receive`], then move the socket and [`Shard::release`]'s bytes there, where they
    /// go through `connect` and `receive`.
    pub hand_over: Option<CoreId>,
}

/// One data core: connections, requests, storage. A handle; clones are the same shard.
pub struct Shard<E: NodeEnv> {
    inner: Rc<Inner<E>>,
}

struct Inner<E: NodeEnv> {
    env: E,
}

impl<E: NodeEnv> Clone for Shard<E> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<E: NodeEnv> Shard<E> {
    /// Opens this core's engine in `dir` (created when absent) and starts the shard's tasks.
    pub async fn open(env: E, dir: &Path, config: ShardConfig) -> lsm::Result<Self> {
        let _ = (dir, config);
        Ok(Self { inner: Rc::new(Inner { env }) })
    }

    /// A client connected.
    pub fn connect(&self, conn: ConnId) {
        let _ = conn;
    }

    /// Bytes arrived: decodes them and executes inline what needs no disk.
    pub fn receive(&self, conn: ConnId, bytes: &[u8]) {
        let _ = (conn, bytes);
    }

    /// The connection is gone; what it still had in flight is answered to nobody.
    pub fn disconnect(&self, conn: ConnId) {
        let _ = conn;
    }

    /// Forgets a connection that is being handed to another core and returns its unread input.
    pub fn release(&self, conn: ConnId) -> Vec<u8> {
        let _ = conn;
        Vec::new()
    }

    /// A message from another core of this node.
    pub fn core_message(&self, message: CoreMessage) {
        let _ = message;
    }

    /// The next connection with output or a changed state; each is named once per change.
    pub fn next_dirty(&self) -> Option<ConnId> {
        None
    }

    /// Moves the connection's output to the end of `into`.
    pub fn take_output(&self, conn: ConnId, into: &mut Vec<u8>) -> OutputState {
        let _ = (conn, into);
        OutputState::default()
    }

    /// Deadlines and half-open connections; called about every 50 milliseconds.
    pub fn tick(&self) {
        self.inner.env.output_ready();
    }

    /// Takes no new requests from now on (they are answered "shutting down"); what is in flight
    /// is finished.
    pub fn drain(&self) {}

    /// Requests in flight on this core, for any connection.
    pub fn in_flight(&self) -> usize {
        0
    }

    /// Closes the engine: logs synced, tasks stopped.
    pub async fn close(&self) -> lsm::Result<()> {
        Ok(())
    }
}
