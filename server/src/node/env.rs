//! What a node needs from the world beyond the engine's environment.

use std::fmt;
use std::net::SocketAddr;

use coronet_lsm::env::Env;
use coronet_ring::CoreId;

use super::CoreMessage;

/// One client connection of a core. The shell issues the numbers and never reuses one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}", self.0)
    }
}

/// How a connection came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Door {
    /// A client connected.
    Clients,
    /// Another node connected.
    Peers,
    /// This core dialed it, with this ticket.
    Dialed(u64),
}

/// The environment of one core of a node.
///
/// All cores of one node share the origin of [`Env::now`], so that deadlines can travel between
/// them.
pub trait NodeEnv: Env {
    /// This core. Data cores are numbered from zero; the control core's address is the number of
    /// data cores, whether it has an executor of its own or shares that of a data core.
    fn core(&self) -> CoreId;

    /// Hands a message to another core of this node (or to the control core). Never blocks;
    /// messages between two cores arrive in order, each exactly once.
    fn send(&self, to: CoreId, message: CoreMessage);

    /// Some connection has bytes to send or changed its state: the shell asks
    /// [`next_dirty`](super::Shard::next_dirty) before it sleeps again.
    fn output_ready(&self);

    /// Starts to connect to another node. The shell answers with a connection through
    /// [`Door::Dialed`] or with `dial_failed`, both with this ticket, and not before the call
    /// returned.
    fn dial(&self, ticket: u64, address: SocketAddr);

    /// One line for the operator (standard error in production, kept by the simulator).
    fn log(&self, line: &str);
}
