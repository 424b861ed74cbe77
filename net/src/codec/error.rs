//! Why a body cannot be decoded, and the body of error replies.

use coronet_ring::bytes::Reader;
use thiserror::Error;

use super::write_short;
use crate::error::ErrorCode;
use crate::limits::MAX_ERROR_TEXT;

/// Why a body is not what its operation asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The body ends inside a field.
    #[error("body ends inside {0}")]
    Truncated(&'static str),
    /// The body goes on after its last field.
    #[error("{0} bytes after the end of the body")]
    Trailing(usize),
    /// Keys have at least one byte.
    #[error("empty key")]
    EmptyKey,
    /// The key is longer than the limit.
    #[error("key of {len} bytes, at most {limit}")]
    KeyTooLarge {
        /// The key's length.
        len: u32,
        /// The longest key.
        limit: u32,
    },
    /// The value is longer than the limit.
    #[error("value of {len} bytes, at most {limit}")]
    ValueTooLarge {
        /// The value's length.
        len: usize,
        /// The longest value.
        limit: u32,
    },
    /// The context is longer than any context.
    #[error("context of {0} bytes is longer than any context")]
    ContextTooLarge(usize),
    /// A number is out of its bounds.
    #[error("{0} out of bounds")]
    OutOfBounds(&'static str),
    /// Text that is no UTF-8.
    #[error("{0} is no UTF-8")]
    Text(&'static str),
}

impl DecodeError {
    /// The error to answer with.
    pub fn code(&self) -> ErrorCode {
        match self {
            DecodeError::Truncated(_) | DecodeError::Trailing(_) => ErrorCode::BadFrame,
            DecodeError::KeyTooLarge { .. } => ErrorCode::KeyTooLarge,
            DecodeError::ValueTooLarge { .. } => ErrorCode::ValueTooLarge,
            DecodeError::ContextTooLarge(_) => ErrorCode::BadContext,
            DecodeError::EmptyKey | DecodeError::OutOfBounds(_) | DecodeError::Text(_) => {
                ErrorCode::InvalidArgument
            }
        }
    }
}

/// The body of every error reply: retry_after_ms u32, text (u16 length, UTF-8). Later versions may
/// append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ErrorReply<'a> {
    /// When to try again, in milliseconds; 0 leaves it to the client.
    pub retry_after_ms: u32,
    /// What happened, for people.
    pub text: &'a str,
}

impl<'a> ErrorReply<'a> {
    /// Appends the body. Text beyond the limit is cut.
    pub fn write(&self, body: &mut Vec<u8>) {
        body.extend_from_slice(&self.retry_after_ms.to_le_bytes());
        let text = &self.text[..self.text.floor_char_boundary(MAX_ERROR_TEXT)];
        write_short(body, |body| body.extend_from_slice(text.as_bytes()));
    }

    /// Decodes the body.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let retry_after_ms = reader.u32().ok_or(DecodeError::Truncated("retry after"))?;
        let text = super::read_short(&mut reader, "error text")?;
        let text = std::str::from_utf8(text).map_err(|_| DecodeError::Text("error text"))?;
        Ok(Self { retry_after_ms, text })
    }
}
