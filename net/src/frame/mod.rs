//! Frames: fixed headers, checksums, cutting a byte stream.
//!
//! Owns nothing beyond the header and the token in front of the body; what bodies mean is in
//! [`codec`](crate::codec).

mod flags;
mod header;
mod parse;
mod writer;

pub use flags::{Consistency, Durability, Quorum, QuorumMode, ReplyFlags, RequestFlags};
pub use header::{HEADER_BYTES, ReplyHead, RequestHead};
pub use parse::{FrameError, Parsed, ReplyFrame, RequestFrame};
pub use writer::FrameWriter;

/// Bytes of an idempotency token.
pub const TOKEN_BYTES: usize = 16;
