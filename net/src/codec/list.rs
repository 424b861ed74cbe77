//! LIST: keys with a prefix, in pages.
//!
//! Keys come partition by partition, in key order inside each partition. The answer to one
//! request is up to `credit` frames ("pages"), all but the last flagged MORE. The last page's
//! cursor says where to go on, its header's partition whom to ask; an empty cursor ends the
//! listing.

use coronet_ring::Hlc;
use coronet_ring::bytes::Reader;

use super::DecodeError;
use crate::limits::{Limits, MAX_CREDIT, MAX_PAGE};

/// Longest cursor: the longest key and the fields around it.
const CURSOR_OVERHEAD: u32 = 64;

/// The body of a LIST: page limit u32, credit u16, reserved u16, prefix (u32 length), cursor (u32
/// length), then the bytes of prefix and cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListRequest<'a> {
    /// Most entries of one page, 1 to [`MAX_PAGE`].
    pub page_limit: u32,
    /// Most pages to answer with, 1 to [`MAX_CREDIT`].
    pub credit: u16,
    /// Only keys that begin with this; empty for all.
    pub prefix: &'a [u8],
    /// Where to go on; empty to begin.
    pub cursor: &'a [u8],
}

impl<'a> ListRequest<'a> {
    /// Appends the body.
    pub fn write(&self, body: &mut Vec<u8>) {
        body.extend_from_slice(&self.page_limit.to_le_bytes());
        body.extend_from_slice(&self.credit.to_le_bytes());
        body.extend_from_slice(&[0; 2]);
        for part in [self.prefix, self.cursor] {
            body.extend_from_slice(&(part.len() as u32).to_le_bytes()); // a frame is below 4 GiB
        }
        body.extend_from_slice(self.prefix);
        body.extend_from_slice(self.cursor);
    }

    /// Decodes the body.
    pub fn decode(body: &'a [u8], limits: &Limits) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let (Some(page_limit), Some(credit), Some(reserved), Some(prefix), Some(cursor)) =
            (reader.u32(), reader.u16(), reader.u16(), reader.u32(), reader.u32())
        else {
            return Err(DecodeError::Truncated("LIST"));
        };
        if page_limit == 0 || page_limit > MAX_PAGE {
            return Err(DecodeError::OutOfBounds("page limit"));
        }
        if credit == 0 || credit > MAX_CREDIT || reserved != 0 {
            return Err(DecodeError::OutOfBounds("credit"));
        }
        if prefix > limits.max_key {
            return Err(DecodeError::KeyTooLarge { len: prefix, limit: limits.max_key });
        }
        if cursor > limits.max_key.saturating_add(CURSOR_OVERHEAD) {
            return Err(DecodeError::OutOfBounds("length of the cursor"));
        }
        let prefix = reader.take(prefix as usize).ok_or(DecodeError::Truncated("prefix"))?;
        let cursor = reader.take(cursor as usize).ok_or(DecodeError::Truncated("cursor"))?;
        super::finished(&reader)?;
        Ok(Self { page_limit, credit, prefix, cursor })
    }
}

/// One listed key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Number of versions with a value.
    pub versions: u16,
    /// Bytes of all values together.
    pub bytes: u64,
    /// When the latest version was written.
    pub hlc: Hlc,
}

impl<'a> Entry<'a> {
    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let hlc = Hlc(reader.u64()?);
        let bytes = reader.u64()?;
        let versions = reader.u16()?;
        let len = usize::try_from(reader.u32()?).ok()?;
        Some(Self { key: reader.take(len)?, versions, bytes, hlc })
    }
}

/// Writes a page: count u32; per entry hlc u64, bytes u64, versions u16, key (u32 length, bytes);
/// cursor (u32 length, bytes).
#[derive(Debug)]
pub struct PageWriter<'a> {
    body: &'a mut Vec<u8>,
    at: usize,
    count: u32,
}

impl<'a> PageWriter<'a> {
    /// Begins at the end of `body`.
    pub fn new(body: &'a mut Vec<u8>) -> Self {
        let at = body.len();
        body.extend_from_slice(&[0; 4]);
        Self { body, at, count: 0 }
    }

    /// Appends an entry.
    pub fn push(&mut self, entry: Entry<'_>) {
        self.count += 1;
        self.body.extend_from_slice(&entry.hlc.0.to_le_bytes());
        self.body.extend_from_slice(&entry.bytes.to_le_bytes());
        self.body.extend_from_slice(&entry.versions.to_le_bytes());
        self.body.extend_from_slice(&(entry.key.len() as u32).to_le_bytes()); // keys are limited
        self.body.extend_from_slice(entry.key);
    }

    /// Number of entries so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.body.len() - self.at
    }

    /// Whether there is no entry yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Ends the page with the cursor that `write` appends; none at the end of the listing.
    pub fn finish(self, write: impl FnOnce(&mut Vec<u8>)) {
        self.body[self.at..self.at + 4].copy_from_slice(&self.count.to_le_bytes());
        let at = self.body.len();
        self.body.extend_from_slice(&[0; 4]);
        write(self.body);
        let len = (self.body.len() - at - 4) as u32; // a key and a few bytes
        self.body[at..at + 4].copy_from_slice(&len.to_le_bytes());
    }
}

/// A page, checked and borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListPage<'a> {
    entries: &'a [u8],
    count: u32,
    cursor: &'a [u8],
}

impl<'a> ListPage<'a> {
    /// Decodes the body.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let count = reader.u32().ok_or(DecodeError::Truncated("number of entries"))?;
        let start = reader.rest();
        for _ in 0..count {
            Entry::read(&mut reader).ok_or(DecodeError::Truncated("entry"))?;
        }
        let entries = &start[..start.len() - reader.len()];
        let len = reader.u32().ok_or(DecodeError::Truncated("cursor length"))?;
        let cursor = reader.take(len as usize).ok_or(DecodeError::Truncated("cursor"))?;
        super::finished(&reader)?;
        Ok(Self { entries, count, cursor })
    }

    /// The entries.
    pub fn entries(&self) -> Entries<'a> {
        Entries { reader: Reader::new(self.entries), left: self.count }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Where to go on; empty at the end of the listing.
    pub fn cursor(&self) -> &'a [u8] {
        self.cursor
    }
}

/// Walks the entries of a page.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    reader: Reader<'a>,
    left: u32,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        self.left = self.left.checked_sub(1)?;
        Entry::read(&mut self.reader)
    }
}
