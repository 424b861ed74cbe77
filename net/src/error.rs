//! What a reply says about its request: done, nothing there, or one of the errors.

use std::fmt;

/// Bit of an error's number: sending the request again later may succeed.
const RETRYABLE: u16 = 0x4000;
/// Bit of an error's number: a write may have been applied, now or later.
const POSSIBLY_APPLIED: u16 = 0x8000;
/// Bit of a status number: it is an error.
const ERROR: u16 = 0x2000;

/// Why a request was not answered as asked.
///
/// The number on the wire carries the two facts a client acts on, so that it treats errors of
/// later versions rightly too: see [`retryable`](ErrorCode::retryable) and
/// [`possibly_applied`](ErrorCode::possibly_applied).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The frame or its body breaks the format.
    BadFrame,
    /// The frame's version, or every version HELLO offers, is unknown to the node.
    UnsupportedVersion,
    /// No such operation.
    UnknownOp,
    /// The first request of a connection must be HELLO (or PING).
    HelloRequired,
    /// The frame is longer than the limit told in HELLO.
    FrameTooLarge,
    /// The key is longer than the limit told in HELLO.
    KeyTooLarge,
    /// The value is longer than the limit told in HELLO.
    ValueTooLarge,
    /// A field has a value that makes no sense, such as W larger than the number of replicas.
    InvalidArgument,
    /// The node knows what is asked but does not do it.
    Unsupported,
    /// The context is damaged, forged, or belongs to another key or cluster.
    BadContext,
    /// The cursor is damaged or belongs to another listing.
    BadCursor,
    /// Overload: refused before anything was done.
    Busy,
    /// More requests in flight on this connection than HELLO granted.
    TooManyInFlight,
    /// The deadline passed before the node began; nothing was done.
    DeadlineExceeded,
    /// The node is stopping; nothing was done.
    ShuttingDown,
    /// No room for writes; nothing was done.
    DiskFull,
    /// The write's outcome is unknown: it may be applied now, later or never.
    InDoubt,
    /// Stored data failed its checksum.
    Corruption,
    /// The node failed in a way it has no better name for.
    Internal,
    /// Too few replicas are reachable for what the request asks; nothing was done.
    NotEnoughReplicas,
    /// The node knows no such keyspace, or not yet; nothing was done.
    UnknownKeyspace,
    /// An error of a later version, by its number on the wire.
    Unknown(u16),
}

/// Every error with its number (without the class bits' meaning spelled out) and its text.
const TABLE: &[(ErrorCode, u16, &str)] = &[
    (ErrorCode::BadFrame, ERROR | 1, "malformed frame"),
    (ErrorCode::UnsupportedVersion, ERROR | 2, "unsupported protocol version"),
    (ErrorCode::UnknownOp, ERROR | 3, "unknown operation"),
    (ErrorCode::HelloRequired, ERROR | 4, "HELLO required first"),
    (ErrorCode::FrameTooLarge, ERROR | 5, "frame too large"),
    (ErrorCode::KeyTooLarge, ERROR | 6, "key too large"),
    (ErrorCode::ValueTooLarge, ERROR | 7, "value too large"),
    (ErrorCode::InvalidArgument, ERROR | 8, "invalid argument"),
    (ErrorCode::Unsupported, ERROR | 9, "not supported by this node"),
    (ErrorCode::BadContext, ERROR | 10, "bad context"),
    (ErrorCode::BadCursor, ERROR | 11, "bad cursor"),
    (ErrorCode::Busy, ERROR | RETRYABLE | 12, "busy, not applied"),
    (ErrorCode::TooManyInFlight, ERROR | RETRYABLE | 13, "too many requests in flight"),
    (ErrorCode::DeadlineExceeded, ERROR | RETRYABLE | 14, "deadline exceeded, not applied"),
    (ErrorCode::ShuttingDown, ERROR | RETRYABLE | 15, "shutting down, not applied"),
    (ErrorCode::DiskFull, ERROR | 16, "disk full, not applied"),
    (ErrorCode::InDoubt, ERROR | POSSIBLY_APPLIED | 17, "in doubt, possibly applied"),
    (ErrorCode::Corruption, ERROR | 18, "stored data is corrupt"),
    (ErrorCode::Internal, ERROR | POSSIBLY_APPLIED | 19, "internal error, possibly applied"),
    (ErrorCode::NotEnoughReplicas, ERROR | RETRYABLE | 20, "not enough replicas, not applied"),
    (ErrorCode::UnknownKeyspace, ERROR | RETRYABLE | 21, "unknown keyspace, not applied"),
];

impl ErrorCode {
    /// The number on the wire.
    pub fn to_u16(self) -> u16 {
        if let ErrorCode::Unknown(number) = self {
            return number;
        }
        TABLE.iter().find(|(code, ..)| *code == self).map_or(ERROR, |(_, number, _)| *number)
    }

    /// The error of a number; one this version does not know is kept as [`ErrorCode::Unknown`].
    pub fn from_u16(number: u16) -> Self {
        let known = TABLE.iter().find(|(_, listed, _)| *listed == number);
        known.map_or(ErrorCode::Unknown(number), |(code, ..)| *code)
    }

    /// Whether the very same request may succeed later. It was not applied.
    pub fn retryable(self) -> bool {
        self.to_u16() & RETRYABLE != 0
    }

    /// Whether a write that got this error may nevertheless have been applied, or may still be.
    pub fn possibly_applied(self) -> bool {
        self.to_u16() & POSSIBLY_APPLIED != 0
    }

    /// A few words for people.
    pub fn text(self) -> &'static str {
        let known = TABLE.iter().find(|(code, ..)| *code == self);
        known.map_or("error unknown to this version", |(.., text)| text)
    }

    /// Every error of this version.
    pub fn all() -> impl Iterator<Item = ErrorCode> {
        TABLE.iter().map(|(code, ..)| *code)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ErrorCode::Unknown(number) => write!(f, "{} ({number:#06x})", self.text()),
            _ => f.write_str(self.text()),
        }
    }
}

/// The outcome a reply's header states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Done as asked.
    Ok,
    /// Done as asked; the key has no value.
    NotFound,
    /// Not done as asked; the body says more.
    Error(ErrorCode),
}

impl Status {
    /// The number on the wire.
    #[inline]
    pub fn to_u16(self) -> u16 {
        match self {
            Status::Ok => 0,
            Status::NotFound => 1,
            Status::Error(code) => code.to_u16(),
        }
    }

    /// The status of a number.
    #[inline]
    pub fn from_u16(number: u16) -> Self {
        match number {
            0 => Status::Ok,
            1 => Status::NotFound,
            _ => Status::Error(ErrorCode::from_u16(number)),
        }
    }
}

impl From<ErrorCode> for Status {
    fn from(code: ErrorCode) -> Self {
        Status::Error(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_distinct_and_come_back() {
        let numbers: std::collections::BTreeSet<u16> =
            ErrorCode::all().map(ErrorCode::to_u16).collect();
        assert_eq!(numbers.len(), TABLE.len());
        for code in ErrorCode::all() {
            assert_eq!(ErrorCode::from_u16(code.to_u16()), code);
            assert_eq!(Status::from_u16(code.to_u16()), Status::Error(code));
            assert!(!(code.retryable() && code.possibly_applied()), "{code}");
        }
        assert_eq!(Status::from_u16(Status::Ok.to_u16()), Status::Ok);
        assert_eq!(Status::from_u16(Status::NotFound.to_u16()), Status::NotFound);
    }

    #[test]
    fn errors_of_later_versions_keep_their_class() {
        let later = ErrorCode::from_u16(ERROR | RETRYABLE | 0x1ff);
        assert_eq!(later, ErrorCode::Unknown(0x61ff));
        assert!(later.retryable() && !later.possibly_applied());
        assert_eq!(later.to_string(), "error unknown to this version (0x61ff)");
    }
}
