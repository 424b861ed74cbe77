//! What the cores of one node say to each other.

use coronet_lsm::env::Nanos;
use coronet_ring::CoreId;

use super::{ConnId, CoreStats};

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
        /// Whole reply frames.
        frames: Vec<u8>,
    },
    /// To the control core.
    Control(ControlMessage),
    /// From the control core: report your counters.
    CollectStats {
        /// The collection this belongs to.
        ticket: u64,
    },
    /// From the control core: say that you make progress.
    Ping {
        /// Comes back in the pong.
        beat: u64,
    },
}

/// A message to the control core.
#[derive(Debug)]
pub enum ControlMessage {
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
