//! What the cores of one node say to each other.

use coronet_lsm::env::Nanos;
use coronet_ring::coordinate::message::{Answer, Ask};
use coronet_ring::gossip::keyspace::Keyspace;
use coronet_ring::{CoreId, KeyspaceId, NodeId, PartitionId};

use super::{AdminTask, ConnId, CoreDone, CoreStats};

/// A message between two cores of one node. Owned: nothing is shared between cores.
#[derive(Debug)]
pub enum CoreMessage {
    /// A request that arrived at the wrong core.
    Request {
        /// The core that holds the connection.
        origin: CoreId,
        /// The connection that waits there.
        conn: ConnId,
        /// When the request arrived: its deadline counts from here.
        arrived: Nanos,
        /// The whole request frame as it came in.
        frame: Vec<u8>,
    },
    /// The answer to a request that another core forwarded.
    Reply {
        /// The connection that waits.
        conn: ConnId,
        /// The client's number of the request.
        request_id: u64,
        /// Bytes the request holds at the core of the connection.
        cost: usize,
        /// How its latency is counted, unless it is not.
        timed: Option<Timed>,
        /// Whole reply frames.
        frames: Vec<u8>,
    },
    /// To the control core.
    Control(ControlMessage),
    /// From the control core: do this as a replica.
    Ask(ShardAsk),
    /// From the control core: this node is reachable, send it what you keep for it.
    ReplayHints {
        /// The node.
        target: NodeId,
    },
    /// From the control core: the hint was delivered.
    HandedOff(Box<Handoff>),
    /// From another data core: this node has lost writes; name no more as you did.
    TakeNewName,
    /// From the control core: a keyspace is defined so from now on.
    Define(Box<Keyspace>),
    /// From the control core: report your counters.
    CollectStats {
        /// The collection this belongs to.
        ticket: u64,
    },
    /// From the control core: do what the operator wants.
    Admin {
        /// The order this belongs to.
        ticket: u64,
        /// What to do.
        task: AdminTask,
    },
    /// From the control core: say that you make progress.
    Ping {
        /// Comes back in the pong.
        beat: u64,
    },
}

/// What the latency of a request is counted from, and under what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timed {
    /// The operation's number.
    pub op: u8,
    /// When the request arrived.
    pub arrived: Nanos,
}

/// A client's request for the control core to coordinate.
#[derive(Debug)]
pub struct Coordinate {
    /// The core that holds the connection.
    pub origin: CoreId,
    /// The connection that waits there.
    pub conn: ConnId,
    /// When the request arrived: its deadline counts from here.
    pub arrived: Nanos,
    /// Bytes the request holds at the core of the connection.
    pub cost: usize,
    /// The whole request frame as it came in.
    pub frame: Vec<u8>,
}

/// What the control core asks of a data core as a replica.
#[derive(Debug)]
pub struct ShardAsk {
    /// Comes back in the answers.
    pub ticket: u64,
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The partition.
    pub partition: PartitionId,
    /// The key; empty when the ask is about the partition.
    pub key: Vec<u8>,
    /// When nobody waits for it any more: then it is not begun.
    pub deadline: Option<Nanos>,
    /// What to do.
    pub ask: Ask,
}

/// A hint on its way to the replica it was kept for.
#[derive(Debug)]
pub struct Handoff {
    /// The replica.
    pub target: NodeId,
    /// The data core that keeps the hint.
    pub core: CoreId,
    /// The key's keyspace.
    pub keyspace: KeyspaceId,
    /// The key's partition.
    pub partition: PartitionId,
    /// The key.
    pub key: Vec<u8>,
    /// The object as it is now.
    pub object: Vec<u8>,
}

/// A message to the control core.
#[derive(Debug)]
pub enum ControlMessage {
    /// Coordinate a client's request.
    Coordinate(Coordinate),
    /// A data core's answer to an ask.
    Answer {
        /// From the ask.
        ticket: u64,
        /// The answer.
        answer: Answer,
    },
    /// A data core will not answer: what became of the ask is not known.
    Dropped {
        /// From the ask.
        ticket: u64,
    },
    /// A hint for a reachable node.
    Handoff(Handoff),
    /// A data core applied a definition, or could not.
    Defined {
        /// The core.
        core: CoreId,
        /// The keyspace.
        id: KeyspaceId,
        /// The definition's version.
        version: u64,
        /// Why it could not.
        problem: Option<String>,
    },
    /// A client asked for the node's counters.
    Stats {
        /// The core that holds the connection.
        origin: CoreId,
        /// The connection that waits there.
        conn: ConnId,
        /// The client's number of the request.
        request_id: u64,
        /// Bytes the request holds at the core of the connection.
        cost: usize,
    },
    /// An operator wants something of all data cores.
    Admin {
        /// The core that holds the connection.
        origin: CoreId,
        /// The connection that waits there.
        conn: ConnId,
        /// The client's number of the request.
        request_id: u64,
        /// Bytes the request holds at the core of the connection.
        cost: usize,
        /// What to do.
        task: AdminTask,
    },
    /// A data core did its part of that.
    AdminDone(CoreDone),
    /// A data core's counters.
    CoreStats {
        /// The collection they belong to.
        ticket: u64,
        /// Whose they are.
        core: CoreId,
        /// The counters.
        stats: Box<CoreStats>,
    },
    /// A data core makes progress.
    Pong {
        /// The core.
        core: CoreId,
        /// From the ping.
        beat: u64,
    },
}
