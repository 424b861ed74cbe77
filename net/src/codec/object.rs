//! What GET, PUT and DELETE answer: versions and contexts.

use coronet_ring::Hlc;
use coronet_ring::bytes::Reader;

use super::{DecodeError, finished, read_short, write_short};

const VERSION_HEAD: usize = 1 + 8 + 4;
const TOMBSTONE: u8 = 1;

/// One version of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRef<'a> {
    /// When it was written.
    pub hlc: Hlc,
    /// Whether it is a deletion that conflicts with the other versions.
    pub tombstone: bool,
    /// The value.
    pub value: &'a [u8],
}

impl<'a> VersionRef<'a> {
    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let flags = reader.u8()?;
        let hlc = Hlc(reader.u64()?);
        let len = usize::try_from(reader.u32()?).ok()?;
        let value = reader.take(len)?;
        Some(Self { hlc, tombstone: flags & TOMBSTONE != 0, value })
    }
}

/// Writes the body of a GET reply: count u16; per version flags u8 (1 tombstone), hlc u64, value
/// (u32 length, bytes); context (u16 length, bytes).
///
/// ```
/// use coronet_net::codec::{VersionRef, Versions, VersionsWriter};
/// use coronet_ring::Hlc;
///
/// let mut body = Vec::new();
/// let mut versions = VersionsWriter::new(&mut body);
/// versions.push(VersionRef { hlc: Hlc(1), tombstone: false, value: b"v" });
/// versions.finish(|context| context.extend_from_slice(b"opaque"));
/// let read = Versions::decode(&body).unwrap();
/// assert_eq!(read.iter().next().unwrap().value, b"v");
/// assert_eq!(read.context(), b"opaque");
/// ```
#[derive(Debug)]
pub struct VersionsWriter<'a> {
    body: &'a mut Vec<u8>,
    at: usize,
    count: u16,
}

impl<'a> VersionsWriter<'a> {
    /// Begins at the end of `body`.
    #[inline]
    pub fn new(body: &'a mut Vec<u8>) -> Self {
        let at = body.len();
        body.extend_from_slice(&[0; 2]);
        Self { body, at, count: 0 }
    }

    /// Appends a version.
    ///
    /// # Panics
    /// Beyond 65535 versions or 4 GiB, which stored objects cannot have.
    #[inline]
    pub fn push(&mut self, version: VersionRef<'_>) {
        let len = version.value.len();
        assert!(self.count < u16::MAX && len <= u32::MAX as usize, "oversized object");
        self.count += 1;
        self.body.reserve(VERSION_HEAD + len);
        self.body.push(if version.tombstone { TOMBSTONE } else { 0 });
        self.body.extend_from_slice(&version.hlc.0.to_le_bytes());
        self.body.extend_from_slice(&(len as u32).to_le_bytes()); // asserted above
        self.body.extend_from_slice(version.value);
    }

    /// Ends with the context that `write` appends (nothing for none).
    #[inline]
    pub fn finish(self, write: impl FnOnce(&mut Vec<u8>)) {
        self.body[self.at..self.at + 2].copy_from_slice(&self.count.to_le_bytes());
        write_short(self.body, write);
    }
}

/// The body of a GET reply, checked and borrowed. A status of not-found has the same body, with
/// no version but perhaps the context of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions<'a> {
    versions: &'a [u8],
    count: u16,
    context: &'a [u8],
}

impl<'a> Versions<'a> {
    /// Decodes a whole body.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let versions = Self::read(&mut reader)?;
        finished(&reader)?;
        Ok(versions)
    }

    /// Decodes from the front of a longer body.
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = reader.u16().ok_or(DecodeError::Truncated("number of versions"))?;
        let start = reader.rest();
        for _ in 0..count {
            VersionRef::read(reader).ok_or(DecodeError::Truncated("version"))?;
        }
        let versions = &start[..start.len() - reader.len()];
        let context = read_short(reader, "context")?;
        Ok(Self { versions, count, context })
    }

    /// The versions.
    pub fn iter(&self) -> VersionsIter<'a> {
        VersionsIter { reader: Reader::new(self.versions), left: usize::from(self.count) }
    }

    /// Number of versions.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What the client hands back with its next write of the key; empty for none.
    pub fn context(&self) -> &'a [u8] {
        self.context
    }
}

/// Walks the versions of a reply.
#[derive(Debug, Clone)]
pub struct VersionsIter<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl<'a> Iterator for VersionsIter<'a> {
    type Item = VersionRef<'a>;

    fn next(&mut self) -> Option<VersionRef<'a>> {
        self.left = self.left.checked_sub(1)?;
        VersionRef::read(&mut self.reader)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for VersionsIter<'_> {}

/// The body of PUT and DELETE replies: hlc u64, context (u16 length, bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written<'a> {
    /// The new version's timestamp.
    pub hlc: Hlc,
    /// What the client has seen of the key now; empty for none.
    pub context: &'a [u8],
}

impl<'a> Written<'a> {
    /// Appends the body, with the context that `context` appends.
    pub fn write(body: &mut Vec<u8>, hlc: Hlc, context: impl FnOnce(&mut Vec<u8>)) {
        body.extend_from_slice(&hlc.0.to_le_bytes());
        write_short(body, context);
    }

    /// Decodes the body.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let hlc = Hlc(reader.u64().ok_or(DecodeError::Truncated("timestamp"))?);
        let context = read_short(&mut reader, "context")?;
        finished(&reader)?;
        Ok(Self { hlc, context })
    }
}
