//! Coronet's wire: frames, operations, errors; and the client library.
//!
//! The format is specified in `docs/PROTOCOL.md`. Everything but [`client`] is pure code over
//! byte slices: no sockets, no clocks, and nothing is read before its length was checked.
//!
//! * [`frame`]: headers, checksums, cutting a byte stream into frames.
//! * [`codec`]: the bodies of requests and replies.
//! * [`op`], [`error`], [`limits`]: the words both sides share.
//! * [`peer`]: what nodes say to each other.
//! * [`client`]: the client on plain tokio, and its blocking face.
//! * [`fuzz`]: every decoder that sees bytes from outside, in one place.

pub mod client;
pub mod codec;
pub mod error;
pub mod frame;
pub mod fuzz;
pub mod limits;
pub mod op;
pub mod peer;

pub use error::{ErrorCode, Status};
pub use frame::{
    Consistency, Durability, FrameError, FrameWriter, Parsed, Quorum, QuorumMode, ReplyFlags,
    ReplyFrame, ReplyHead, RequestFlags, RequestFrame, RequestHead,
};
pub use limits::Limits;
pub use op::Op;

/// The protocol version this crate speaks.
pub const VERSION: u8 = 1;

/// The oldest protocol version this crate still speaks.
pub const MIN_VERSION: u8 = 1;

/// The port clients connect to unless told otherwise.
pub const DEFAULT_PORT: u16 = 4720;
