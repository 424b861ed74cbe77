//! Frames of a link: length u32 (all of it), crc32c u32 (of what follows), version u8, kind u8,
//! check u16 (of length, version and kind), body.
//!
//! The check stands for the length until the whole frame has come: a changed length must not make
//! a link wait for bytes that nobody sent.
//!
//! A batch's body is messages, each a length u32 and its bytes: many messages cost one checksum
//! and one system call.

use thiserror::Error;

use super::{MIN_PEER_VERSION, PEER_VERSION};
use crate::frame::Parsed;

/// Bytes of a frame before its body.
pub const FRAME_HEAD: usize = 12;
const CHECKED_FROM: usize = 8;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Who dials; then who answers.
    Greeting = 1,
    /// The greeting is not accepted; the link ends.
    Refused = 2,
    /// Messages of the dialing side.
    Batch = 3,
    /// Bytes (u64) that the receiving side has worked off since the link began.
    Credit = 4,
}

impl FrameKind {
    fn from_u8(number: u8) -> Option<Self> {
        let kinds = [Self::Greeting, Self::Refused, Self::Batch, Self::Credit];
        kinds.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// Why a stream is not one of frames. It cannot be read further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PeerFrameError {
    /// The length is below a header's or above the limit.
    #[error("peer frame of {len} bytes: must be from {FRAME_HEAD} to {limit}")]
    Length {
        /// The frame's length.
        len: u32,
        /// The longest allowed.
        limit: u32,
    },
    /// Damaged on the way.
    #[error("peer frame fails its checksum")]
    Checksum,
    /// From a release that speaks another protocol.
    #[error("peer frame of version {0}: this node speaks {MIN_PEER_VERSION} to {PEER_VERSION}")]
    Version(u8),
    /// A kind this version does not know.
    #[error("peer frame of unknown kind {0}")]
    Kind(u8),
}

/// A whole frame, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is.
    pub kind: FrameKind,
    /// Its body.
    pub body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Cuts the first frame from a stream. `limit` bounds the whole frame.
    pub fn parse(bytes: &'a [u8], limit: u32) -> Result<Parsed<Self>, PeerFrameError> {
        let Some(head) = bytes.first_chunk::<FRAME_HEAD>() else {
            return Ok(Parsed::Incomplete { need: FRAME_HEAD });
        };
        let (version, kind) = (head[8], head[9]);
        if !(MIN_PEER_VERSION..=PEER_VERSION).contains(&version) {
            return Err(PeerFrameError::Version(version));
        }
        if head[10..] != head_check(head) {
            return Err(PeerFrameError::Checksum);
        }
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        if len < FRAME_HEAD as u32 || len > limit {
            return Err(PeerFrameError::Length { len, limit });
        }
        let need = len as usize;
        let Some((whole, _)) = bytes.split_at_checked(need) else {
            return Ok(Parsed::Incomplete { need });
        };
        let crc = u32::from_le_bytes([whole[4], whole[5], whole[6], whole[7]]);
        if crc32c::crc32c(&whole[CHECKED_FROM..]) != crc {
            return Err(PeerFrameError::Checksum);
        }
        let kind = FrameKind::from_u8(kind).ok_or(PeerFrameError::Kind(kind))?;
        let frame = Frame { kind, body: &whole[FRAME_HEAD..] };
        Ok(Parsed::Frame { frame, consumed: need })
    }

    /// Appends a frame whose body `write` appends.
    pub fn write(kind: FrameKind, into: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let at = begin(kind, into);
        write(into);
        finish_frame(into, at);
    }
}

/// What the last two bytes of a head must be.
fn head_check(head: &[u8; FRAME_HEAD]) -> [u8; 2] {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..4]), &head[8..10]);
    (crc as u16).to_le_bytes()
}

fn begin(kind: FrameKind, into: &mut Vec<u8>) -> usize {
    let at = into.len();
    into.extend_from_slice(&[0; CHECKED_FROM]);
    into.extend_from_slice(&[PEER_VERSION, kind as u8, 0, 0]);
    at
}

/// Begins a batch at the end of `into`; returns where, for [`finish_frame`].
pub fn begin_batch(into: &mut Vec<u8>) -> usize {
    begin(FrameKind::Batch, into)
}

/// Fills in the length and checksum of the frame that begins at `at` and ends here. A frame is
/// kept below 4 GiB by whoever fills it.
pub fn finish_frame(into: &mut [u8], at: usize) {
    let len = (into.len() - at) as u32;
    into[at..at + 4].copy_from_slice(&len.to_le_bytes());
    let check = into[at..].first_chunk().map(head_check);
    into[at + CHECKED_FROM + 2..at + FRAME_HEAD].copy_from_slice(&check.unwrap_or_default());
    let crc = crc32c::crc32c(&into[at + CHECKED_FROM..]);
    into[at + 4..at + CHECKED_FROM].copy_from_slice(&crc.to_le_bytes());
}

/// The messages of a batch's body; ends at the first that is cut.
#[derive(Debug, Clone)]
pub struct Batch<'a> {
    rest: &'a [u8],
}

impl<'a> Batch<'a> {
    /// Begins with the body.
    pub fn new(body: &'a [u8]) -> Self {
        Batch { rest: body }
    }

    /// Whether nothing, not even a cut message, is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Appends a message that `write` appends, with its length.
    pub fn push(into: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let at = into.len();
        into.extend_from_slice(&[0; 4]);
        write(into);
        let len = (into.len() - at - 4) as u32; // bounded by the frame
        into[at..at + 4].copy_from_slice(&len.to_le_bytes());
    }
}

impl<'a> Iterator for Batch<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.rest.split_first_chunk::<4>()?;
        let (message, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        self.rest = rest;
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(messages: &[&[u8]]) -> Vec<u8> {
        let mut bytes = b"before".to_vec();
        let at = begin_batch(&mut bytes);
        for message in messages {
            Batch::push(&mut bytes, |into| into.extend_from_slice(message));
        }
        finish_frame(&mut bytes, at);
        bytes.split_off(at)
    }

    #[test]
    fn batches_come_back() {
        let bytes = batch(&[b"one", b"", b"three"]);
        let Ok(Parsed::Frame { frame, consumed }) = Frame::parse(&bytes, 100) else { panic!() };
        assert_eq!((frame.kind, consumed), (FrameKind::Batch, bytes.len()));
        let mut messages = Batch::new(frame.body);
        assert_eq!(messages.by_ref().collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
        assert!(messages.is_empty());
    }

    #[test]
    fn every_cut_is_incomplete_and_every_flip_is_noticed() {
        let bytes = batch(&[b"abc"]);
        for len in 0..bytes.len() {
            assert!(matches!(Frame::parse(&bytes[..len], 100), Ok(Parsed::Incomplete { .. })));
        }
        for at in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(!matches!(Frame::parse(&damaged, 100), Ok(Parsed::Frame { .. })), "bit {at}");
        }
    }

    #[test]
    fn lengths_are_checked_first() {
        let head = |len: u32| {
            let mut head = [0; FRAME_HEAD];
            head[..4].copy_from_slice(&len.to_le_bytes());
            head[8..10].copy_from_slice(&[PEER_VERSION, FrameKind::Batch as u8]);
            let check = head_check(&head);
            head[10..].copy_from_slice(&check);
            head
        };
        let refused = Err(PeerFrameError::Length { len: 101, limit: 100 });
        assert_eq!(Frame::parse(&head(101), 100), refused);
        assert!(matches!(Frame::parse(&head(11), 100), Err(PeerFrameError::Length { .. })));
        let waits = Ok(Parsed::Incomplete { need: 50 });
        assert_eq!(Frame::parse(&head(50), 100), waits);
    }

    /// Nothing more may be waited for on the word of a damaged head.
    #[test]
    fn a_damaged_head_is_noticed_before_the_rest_has_come() {
        let bytes = batch(&[b"abc"]);
        for at in (0..32).chain(64..96) {
            let mut damaged = bytes[..FRAME_HEAD].to_vec();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(Frame::parse(&damaged, u32::MAX).is_err(), "bit {at}");
        }
    }

    #[test]
    fn a_cut_message_ends_the_batch() {
        let mut messages = Batch::new(&[5, 0, 0, 0, 1, 2]);
        assert_eq!(messages.next(), None);
        assert!(!messages.is_empty());
    }
}
