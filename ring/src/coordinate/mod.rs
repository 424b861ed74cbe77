//! Coordination of one client request over the replicas of a key: state machines without I/O.
//!
//! Any node coordinates. A machine is started with a request and the partition's replicas, is fed
//! what happens (a reply, a failed node, time) and says what to do ([`Effect`]). After its reply
//! it may go on in the background (late replicas, repairs) until [`Effect::Done`].
//!
//! * [`put`]: one replica of the key names the write and applies it, the others merge its object.
//!   A delete is a put without a value.
//! * [`get`]: R copies merged, differing replicas repaired, slow ones hedged.
//! * [`list`]: pages of live keys over all partitions.
//! * [`quorum`]: whom to ask, whom to count, what to report.
//! * [`message`]: what replicas are asked and answer.
//! * [`budget`]: bounds on what is done beyond the request itself.

pub mod budget;
pub mod get;
pub mod list;
pub mod message;
pub mod put;
pub mod quorum;

/// A point of the caller's monotonic time, or a span of it, in microseconds.
pub type Micros = u64;

use crate::ids::NodeId;
use message::Ask;
use quorum::Outcome;

/// What a machine wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Ask a node. Its answer, or its failure, comes back as an input.
    Send {
        /// Whom; may be the coordinating node itself.
        to: NodeId,
        /// What.
        ask: Ask,
    },
    /// Answer the client. Exactly once per machine.
    Reply(Outcome),
    /// Let a node merge an object. Background work; no answer is waited for.
    Repair {
        /// Whom.
        to: NodeId,
        /// The encoded object.
        object: Vec<u8>,
    },
    /// Keep an object for a replica that did not take it, until it is back.
    Hint {
        /// For whom.
        target: NodeId,
        /// The encoded object.
        object: Vec<u8>,
    },
    /// The machine is finished and may be dropped.
    Done,
}
