//! Bounds on what is read from a connection.

use coronet_ring::causality::context::MAX_CONTEXT_BYTES;

use crate::frame::{HEADER_BYTES, TOKEN_BYTES};

/// Longest frame before HELLO was answered.
pub const PRE_HELLO_MAX_FRAME: u32 = 16 << 10;

/// Longest name a client gives itself in HELLO.
pub const MAX_NAME: usize = 255;

/// Most keys of one MULTI_GET.
pub const MAX_KEYS: u16 = 4096;

/// Most entries of one page of LIST.
pub const MAX_PAGE: u32 = 10_000;

/// Most pages one LIST may ask for at once.
pub const MAX_CREDIT: u16 = 64;

/// Longest text of an error reply.
pub const MAX_ERROR_TEXT: usize = 1024;

/// The settable bounds of a connection; HELLO tells them to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest request frame, length field included.
    pub max_frame: u32,
    /// Longest reply frame a client must be ready for.
    pub max_reply: u32,
    /// Longest key.
    pub max_key: u32,
    /// Longest value.
    pub max_value: u32,
}

impl Limits {
    /// Limits for keys and values of these sizes: a request frame holds the largest PUT, a reply
    /// frame four values.
    pub const fn new(max_key: u32, max_value: u32) -> Self {
        // Header, token, the lengths inside the body, and the context: far below 16 KiB.
        let overhead = (HEADER_BYTES + TOKEN_BYTES + 64 + MAX_CONTEXT_BYTES) as u32;
        let max_frame = overhead.saturating_add(max_key).saturating_add(max_value);
        let max_frame =
            if max_frame < PRE_HELLO_MAX_FRAME { PRE_HELLO_MAX_FRAME } else { max_frame };
        Self { max_frame, max_reply: max_frame.saturating_mul(4), max_key, max_value }
    }
}

impl Default for Limits {
    /// Keys to 64 KiB, values to 16 MiB.
    fn default() -> Self {
        Self::new(64 << 10, 16 << 20)
    }
}
