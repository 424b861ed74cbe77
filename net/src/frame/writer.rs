//! Writing frames straight into an output buffer.

use coronet_ring::KeyspaceId;
use zerocopy::IntoBytes;

use super::header::{CHECKED_FROM, HEADER_BYTES, ReplyHead, RequestHead};
use super::{RequestFlags, TOKEN_BYTES};

/// Writes one frame at the end of a buffer: the header first, then the body in place, at last
/// length and checksum. Dropped without [`finish`](FrameWriter::finish), it takes back what it
/// wrote.
///
/// ```
/// use coronet_net::{FrameWriter, Op, ReplyHead, Status};
///
/// let mut output = Vec::new();
/// let mut frame = FrameWriter::reply(&mut output, &ReplyHead::new(Op::Ping.to_u8(), 7, Status::Ok));
/// frame.body().extend_from_slice(b"pong");
/// assert_eq!(frame.finish(), 44);
/// assert_eq!(output.len(), 44);
/// ```
#[derive(Debug)]
pub struct FrameWriter<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    finished: bool,
}

impl<'a> FrameWriter<'a> {
    /// Begins a request. The flags of token and keyspace follow from `token` and the header.
    pub fn request(
        out: &'a mut Vec<u8>,
        head: &RequestHead,
        token: Option<&[u8; TOKEN_BYTES]>,
    ) -> Self {
        let mut head = *head;
        head.flags = match token {
            Some(_) => head.flags.with(RequestFlags::TOKEN),
            None => head.flags.without(RequestFlags::TOKEN),
        };
        let named = head.keyspace != KeyspaceId::DEFAULT;
        head.flags = match named {
            true => head.flags.with(RequestFlags::KEYSPACE),
            false => head.flags.without(RequestFlags::KEYSPACE),
        };
        let start = out.len();
        out.extend_from_slice(head.to_wire().as_bytes());
        if let Some(token) = token {
            out.extend_from_slice(token);
        }
        if named {
            out.extend_from_slice(&head.keyspace.0.to_le_bytes());
        }
        Self { out, start, finished: false }
    }

    /// Begins a reply.
    #[inline]
    pub fn reply(out: &'a mut Vec<u8>, head: &ReplyHead) -> Self {
        let start = out.len();
        out.extend_from_slice(head.to_wire().as_bytes());
        Self { out, start, finished: false }
    }

    /// Where the body is appended. Only append.
    #[inline]
    pub fn body(&mut self) -> &mut Vec<u8> {
        self.out
    }

    /// Bytes of the frame so far, header included.
    pub fn len(&self) -> usize {
        self.out.len() - self.start
    }

    /// Whether the body is still empty.
    pub fn is_empty(&self) -> bool {
        self.len() <= HEADER_BYTES
    }

    /// Throws the body away, so that another can be written in its place.
    pub fn clear_body(&mut self) {
        self.out.truncate(self.start + HEADER_BYTES);
    }

    /// Replaces a reply's header: outcome, flags and times are often known last.
    #[inline]
    pub fn set_reply(&mut self, head: &ReplyHead) {
        let header = &mut self.out[self.start..self.start + HEADER_BYTES];
        header.copy_from_slice(head.to_wire().as_bytes());
    }

    /// Completes the frame with its length and checksum, and returns its length.
    ///
    /// # Panics
    /// When the frame exceeds 4 GiB, far above any limit a body was checked against.
    #[inline]
    pub fn finish(mut self) -> usize {
        self.finished = true;
        let frame = &mut self.out[self.start..];
        let len = frame.len();
        assert!(len <= u32::MAX as usize, "frame of {len} bytes");
        let crc = crc32c::crc32c(&frame[CHECKED_FROM..]);
        frame[..4].copy_from_slice(&((len - 4) as u32).to_le_bytes());
        frame[4..CHECKED_FROM].copy_from_slice(&crc.to_le_bytes());
        len
    }
}

impl Drop for FrameWriter<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.out.truncate(self.start);
        }
    }
}
