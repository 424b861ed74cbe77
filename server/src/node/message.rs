//! What the cores of one node say to each other.

use coronet_lsm::env::Nanos;

use super::{ConnId, CoreId};

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
    /// The answer to a forwarded request, or one frame of it.
    Reply {
        /// The connection that waits.
        conn: ConnId,
        /// One or more whole reply frames.
        frames: Vec<u8>,
        /// Whether the request is answered with this.
        last: bool,
    },
}
