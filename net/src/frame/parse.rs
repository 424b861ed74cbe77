//! Cutting a byte stream into frames.
//!
//! Order of the checks: length, then (once the frame is whole) checksum, then version, then what
//! the version defines. So nothing longer than the limit is ever buffered, and whatever is wrong
//! after the checksum held leaves the stream readable.

use coronet_ring::{Epoch, KeyspaceId, PartitionId};
use thiserror::Error;
use zerocopy::FromBytes;

use super::TOKEN_BYTES;
use super::flags::{Consistency, DIRECTION_REPLY, Quorum, RequestFlags};
use super::header::{
    CHECKED_FROM, HEADER_BYTES, ReplyHead, RequestHead, WirePrefix, WireReply, WireRequest,
};
use crate::error::ErrorCode;
use crate::op::Op;
use crate::{MIN_VERSION, VERSION};

/// What the front of a byte stream holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<T> {
    /// Not a whole frame yet.
    Incomplete {
        /// Bytes needed in all, those present included, before parsing again makes sense.
        need: usize,
    },
    /// A whole frame.
    Frame {
        /// The frame, borrowed from the stream.
        frame: T,
        /// Bytes it took.
        consumed: usize,
    },
}

/// Why the front of a byte stream is not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The length is below a header's or above the limit. The stream cannot be read further.
    #[error("frame of {len} bytes: must be from {HEADER_BYTES} to {limit}")]
    Length {
        /// The frame's length, length field included.
        len: u64,
        /// The longest frame allowed.
        limit: u32,
    },
    /// The checksum does not match. The stream cannot be read further.
    #[error("frame fails its checksum")]
    Checksum,
    /// Whole and undamaged, but not acceptable. The stream continues after it.
    #[error("{code}: {detail}")]
    Refused {
        /// The error to answer with.
        code: ErrorCode,
        /// What exactly is wrong.
        detail: &'static str,
        /// The request's number.
        request_id: u64,
        /// The operation's number.
        op: u8,
        /// Bytes of the frame.
        consumed: usize,
    },
}

impl FrameError {
    /// The error to answer with.
    pub fn code(&self) -> ErrorCode {
        match self {
            FrameError::Length { len, .. } if *len < HEADER_BYTES as u64 => ErrorCode::BadFrame,
            FrameError::Length { .. } => ErrorCode::FrameTooLarge,
            FrameError::Checksum => ErrorCode::BadFrame,
            FrameError::Refused { code, .. } => *code,
        }
    }

    /// Whether the connection has to be closed because the next frame cannot be found.
    pub fn fatal(&self) -> bool {
        !matches!(self, FrameError::Refused { .. })
    }
}

/// A whole request, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestFrame<'a> {
    /// The header.
    pub head: RequestHead,
    /// The client's name for the write.
    pub token: Option<&'a [u8; TOKEN_BYTES]>,
    /// The body without token and keyspace.
    pub body: &'a [u8],
}

impl<'a> RequestFrame<'a> {
    /// Cuts the first request from a stream of bytes that clients send. `max_frame` bounds the
    /// whole frame.
    #[inline]
    pub fn parse(bytes: &'a [u8], max_frame: u32) -> Result<Parsed<Self>, FrameError> {
        let (frame, consumed) = match Whole::cut(bytes, max_frame)? {
            Parsed::Incomplete { need } => return Ok(Parsed::Incomplete { need }),
            Parsed::Frame { frame, consumed } => (frame, consumed),
        };
        let (prefix, refuse) = (frame.prefix, |code, detail| frame.refused(code, detail));
        let Ok((wire, body)) = WireRequest::ref_from_prefix(frame.bytes) else {
            return Err(FrameError::Length { len: consumed as u64, limit: max_frame });
        };
        let flags = prefix.flags.get();
        if flags & DIRECTION_REPLY != 0 {
            return Err(refuse(ErrorCode::BadFrame, "a reply where a request belongs"));
        }
        let op = Op::from_u8(prefix.op).ok_or_else(|| refuse(ErrorCode::UnknownOp, "operation"))?;
        if flags & !RequestFlags::KNOWN.0 != 0 || wire.reserved.get() != 0 {
            return Err(refuse(ErrorCode::InvalidArgument, "unknown request flags"));
        }
        let consistency = Consistency::from_u16(wire.consistency.get())
            .ok_or_else(|| refuse(ErrorCode::InvalidArgument, "unknown consistency flags"))?;
        let flags = RequestFlags(flags);
        let (token, body) = if flags.contains(RequestFlags::TOKEN) {
            let (token, body) = body
                .split_first_chunk::<TOKEN_BYTES>()
                .ok_or_else(|| refuse(ErrorCode::BadFrame, "token cut off"))?;
            (Some(token), body)
        } else {
            (None, body)
        };
        let (keyspace, body) = if flags.contains(RequestFlags::KEYSPACE) {
            let (id, body) = body
                .split_first_chunk::<4>()
                .ok_or_else(|| refuse(ErrorCode::BadFrame, "keyspace cut off"))?;
            (KeyspaceId(u32::from_le_bytes(*id)), body)
        } else {
            (KeyspaceId::DEFAULT, body)
        };
        let head = RequestHead {
            op,
            flags,
            request_id: prefix.request_id.get(),
            deadline_us: wire.deadline_us.get(),
            partition: PartitionId(wire.partition.get()),
            r: Quorum(wire.r),
            w: Quorum(wire.w),
            consistency,
            epoch: Epoch(wire.epoch.get()),
            keyspace,
        };
        Ok(Parsed::Frame { frame: Self { head, token, body }, consumed })
    }
}

/// A whole reply, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyFrame<'a> {
    /// The header.
    pub head: ReplyHead,
    /// The body.
    pub body: &'a [u8],
}

impl<'a> ReplyFrame<'a> {
    /// Cuts the first reply from a stream of bytes that a node sends. `max_frame` bounds the whole
    /// frame.
    #[inline]
    pub fn parse(bytes: &'a [u8], max_frame: u32) -> Result<Parsed<Self>, FrameError> {
        let (frame, consumed) = match Whole::cut(bytes, max_frame)? {
            Parsed::Incomplete { need } => return Ok(Parsed::Incomplete { need }),
            Parsed::Frame { frame, consumed } => (frame, consumed),
        };
        let (prefix, refuse) = (frame.prefix, |code, detail| frame.refused(code, detail));
        let Ok((wire, body)) = WireReply::ref_from_prefix(frame.bytes) else {
            return Err(FrameError::Length { len: consumed as u64, limit: max_frame });
        };
        if prefix.flags.get() & DIRECTION_REPLY == 0 {
            return Err(refuse(ErrorCode::BadFrame, "a request where a reply belongs"));
        }
        Ok(Parsed::Frame { frame: Self { head: ReplyHead::from_wire(wire), body }, consumed })
    }
}

/// The first whole frame: length, checksum and version are right.
#[derive(Clone, Copy)]
struct Whole<'a> {
    bytes: &'a [u8],
    prefix: &'a WirePrefix,
}

impl<'a> Whole<'a> {
    #[inline]
    fn cut(bytes: &'a [u8], max_frame: u32) -> Result<Parsed<Self>, FrameError> {
        let Some(len) = bytes.first_chunk::<4>() else {
            return Ok(Parsed::Incomplete { need: HEADER_BYTES });
        };
        let len = u64::from(u32::from_le_bytes(*len)) + 4;
        if len < HEADER_BYTES as u64 || len > u64::from(max_frame) {
            return Err(FrameError::Length { len, limit: max_frame });
        }
        let consumed = len as usize; // at most max_frame
        let Some(bytes) = bytes.get(..consumed) else {
            return Ok(Parsed::Incomplete { need: consumed });
        };
        let Ok((prefix, _)) = WirePrefix::ref_from_prefix(bytes) else {
            return Err(FrameError::Length { len, limit: max_frame });
        };
        if crc32c::crc32c(&bytes[CHECKED_FROM..]) != prefix.crc.get() {
            return Err(FrameError::Checksum);
        }
        let frame = Whole { bytes, prefix };
        if !(MIN_VERSION..=VERSION).contains(&prefix.version) {
            return Err(frame.refused(ErrorCode::UnsupportedVersion, "frame version"));
        }
        Ok(Parsed::Frame { frame, consumed })
    }

    /// Why this frame cannot be taken although the next one can be found.
    fn refused(&self, code: ErrorCode, detail: &'static str) -> FrameError {
        let (request_id, op) = (self.prefix.request_id.get(), self.prefix.op);
        FrameError::Refused { code, detail, request_id, op, consumed: self.bytes.len() }
    }
}
