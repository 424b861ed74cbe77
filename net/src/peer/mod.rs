//! What nodes say to each other: frames and messages of a link between two control cores.
//!
//! A link carries one direction: the node that dialed sends messages, the other one only answers
//! the greeting and grants credit. So neither side has to decide which of two crossing
//! connections lives.
//!
//! * [`frame`]: cutting the stream, checksums, batches.
//! * [`greeting`]: who is there, before anything else.
//! * [`message`]: what replicas are asked and answer, gossip.

pub mod frame;
pub mod greeting;
pub mod message;

pub use frame::{Batch, FRAME_HEAD, Frame, FrameKind, PeerFrameError, begin_batch, finish_frame};
pub use greeting::{Greeting, Refused};
pub use message::{MessageError, PeerMessage};

/// The peer protocol this crate speaks.
pub const PEER_VERSION: u8 = 2;
/// The oldest peer protocol it still speaks.
pub const MIN_PEER_VERSION: u8 = 2;
/// The port other nodes connect to unless told otherwise.
pub const DEFAULT_PEER_PORT: u16 = 4721;
