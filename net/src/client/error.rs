//! Why a request did not succeed, and what that means for the data.

use std::io;
use std::sync::Arc;

use thiserror::Error;

use crate::codec::DecodeError;
use crate::error::ErrorCode;

/// Why a request did not succeed, after all retries.
///
/// ```no_run
/// # async fn example(client: coronet_net::client::Client)
/// # -> Result<(), coronet_net::client::ClientError> {
/// if let Err(error) = client.put(b"key", b"value").await {
///     match error.possibly_applied() {
///         true => println!("nobody knows: {error}"),
///         false if error.retryable() => println!("not written, try later: {error}"),
///         false => println!("not written: {error}"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Error)]
pub enum ClientError {
    /// The address makes no sense.
    #[error("`{0}` is not an address: use host or host:port")]
    Address(String),
    /// No connection to the node.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: String,
        /// Why not.
        source: Arc<io::Error>,
        /// Whether an earlier attempt of this request may have been applied.
        possibly_applied: bool,
    },
    /// The connection broke before the answer came.
    #[error("connection lost before the answer came")]
    Lost {
        /// Whether the write may have been applied.
        possibly_applied: bool,
    },
    /// The deadline passed before the answer came.
    #[error("no answer within the deadline")]
    Timeout {
        /// Whether the write may have been applied.
        possibly_applied: bool,
    },
    /// The node answered with an error.
    #[error("{code}{}{text}", if text.is_empty() { "" } else { ": " })]
    Server {
        /// Which.
        code: ErrorCode,
        /// The node's words.
        text: String,
        /// Whether the write may have been applied, by this or an earlier attempt.
        possibly_applied: bool,
    },
    /// Longer than the node accepts; nothing was sent.
    #[error("{what} of {len} bytes: must be from {least} to {limit}")]
    Size {
        /// What has the wrong size.
        what: &'static str,
        /// Its length.
        len: usize,
        /// The least the node accepts.
        least: usize,
        /// The most the node accepts.
        limit: usize,
    },
    /// The node said something that is not the protocol.
    #[error("the node breaks the protocol: {0}")]
    Protocol(String),
}

impl ClientError {
    /// Whether the same request may succeed later.
    pub fn retryable(&self) -> bool {
        match self {
            ClientError::Connect { .. } | ClientError::Lost { .. } => true,
            ClientError::Timeout { .. } => true,
            ClientError::Server { code, .. } => code.retryable() || *code == ErrorCode::InDoubt,
            ClientError::Address(_) | ClientError::Size { .. } | ClientError::Protocol(_) => false,
        }
    }

    /// Whether the request, when it was a write, may nevertheless have been, or may still be,
    /// applied. Repeating it is then only safe with the same token.
    pub fn possibly_applied(&self) -> bool {
        match self {
            ClientError::Connect { possibly_applied, .. }
            | ClientError::Lost { possibly_applied }
            | ClientError::Timeout { possibly_applied }
            | ClientError::Server { possibly_applied, .. } => *possibly_applied,
            ClientError::Protocol(_) => true,
            ClientError::Address(_) | ClientError::Size { .. } => false,
        }
    }

    /// The node's error, when the node answered with one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ClientError::Server { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The same error, knowing that an earlier attempt may have been applied.
    pub(super) fn after_attempt_in_doubt(mut self, in_doubt: bool) -> Self {
        if let ClientError::Connect { possibly_applied, .. }
        | ClientError::Lost { possibly_applied }
        | ClientError::Timeout { possibly_applied }
        | ClientError::Server { possibly_applied, .. } = &mut self
        {
            *possibly_applied |= in_doubt;
        }
        self
    }
}

impl From<DecodeError> for ClientError {
    fn from(error: DecodeError) -> Self {
        ClientError::Protocol(error.to_string())
    }
}
