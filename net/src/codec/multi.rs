//! MULTI_GET: many keys in, results in any order and any number of frames out.

use coronet_ring::bytes::Reader;

use super::object::{Versions, VersionsWriter};
use super::{DecodeError, read_key};
use crate::error::{ErrorCode, Status};
use crate::limits::{Limits, MAX_KEYS};

/// The body of a MULTI_GET, checked and borrowed: count u16, per key length u32 and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyList<'a> {
    count: u16,
    keys: &'a [u8],
}

impl<'a> KeyList<'a> {
    /// Checks every key's length and the number of keys.
    pub fn decode(body: &'a [u8], limits: &Limits) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let count = reader.u16().ok_or(DecodeError::Truncated("number of keys"))?;
        if count == 0 || count > MAX_KEYS {
            return Err(DecodeError::OutOfBounds("number of keys"));
        }
        let keys = reader.rest();
        for _ in 0..count {
            read_key(&mut reader, limits)?;
        }
        super::finished(&reader)?;
        Ok(Self { count, keys })
    }

    /// The keys, in order; a key's index is its place here.
    pub fn iter(&self) -> Keys<'a> {
        Keys { reader: Reader::new(self.keys), left: usize::from(self.count) }
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Appends the body.
    pub fn write(&self, body: &mut Vec<u8>) {
        body.extend_from_slice(&self.count.to_le_bytes());
        body.extend_from_slice(self.keys);
    }
}

/// Walks the keys of a list.
#[derive(Debug, Clone)]
pub struct Keys<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl<'a> Iterator for Keys<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        let len = usize::try_from(self.reader.u32()?).ok()?;
        self.reader.take(len)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Keys<'_> {}

/// Collects the keys of a MULTI_GET.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyListBuf {
    count: u16,
    keys: Vec<u8>,
}

impl KeyListBuf {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key; `false` when the list is full or the key longer than 4 GiB.
    #[must_use]
    pub fn push(&mut self, key: &[u8]) -> bool {
        let Ok(len) = u32::try_from(key.len()) else { return false };
        if self.count >= MAX_KEYS {
            return false;
        }
        self.count += 1;
        self.keys.extend_from_slice(&len.to_le_bytes());
        self.keys.extend_from_slice(key);
        true
    }

    /// The list as a body.
    pub fn as_list(&self) -> KeyList<'_> {
        KeyList { count: self.count, keys: &self.keys }
    }

    /// Encoded bytes of the keys.
    pub fn bytes(&self) -> usize {
        self.keys.len()
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Writes the body of one frame of a MULTI_GET reply: count u16; per result index u16, status
/// u16, and unless the status is an error the versions as in a GET reply. A node ends the frame
/// when it is large enough, flags it MORE and goes on in the next.
#[derive(Debug)]
pub struct MultiWriter<'a> {
    body: &'a mut Vec<u8>,
    at: usize,
    count: u16,
}

impl<'a> MultiWriter<'a> {
    /// Begins at the end of `body`.
    pub fn new(body: &'a mut Vec<u8>) -> Self {
        let at = body.len();
        body.extend_from_slice(&[0; 2]);
        Self { body, at, count: 0 }
    }

    /// Appends what was found for the key of `index`.
    pub fn found(&mut self, index: u16) -> VersionsWriter<'_> {
        self.head(index, Status::Ok);
        VersionsWriter::new(self.body)
    }

    /// Appends that the key of `index` has no value; `context` appends a deletion's context.
    pub fn not_found(&mut self, index: u16, context: impl FnOnce(&mut Vec<u8>)) {
        self.head(index, Status::NotFound);
        VersionsWriter::new(self.body).finish(context);
    }

    /// Appends that the key of `index` could not be read.
    pub fn failed(&mut self, index: u16, code: ErrorCode) {
        self.head(index, Status::Error(code));
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.body.len() - self.at
    }

    /// Whether nothing was appended yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Ends the body.
    pub fn finish(self) {
        self.body[self.at..self.at + 2].copy_from_slice(&self.count.to_le_bytes());
    }

    fn head(&mut self, index: u16, status: Status) {
        self.count = self.count.saturating_add(1);
        self.body.extend_from_slice(&index.to_le_bytes());
        self.body.extend_from_slice(&status.to_u16().to_le_bytes());
    }
}

/// One result of a MULTI_GET.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MultiEntry<'a> {
    /// The key's place in the request.
    pub index: u16,
    /// The versions; empty when the key has no value.
    pub result: Result<Versions<'a>, ErrorCode>,
}

/// Walks one frame of a MULTI_GET reply; ends after the first error.
#[derive(Debug, Clone)]
pub struct MultiResults<'a> {
    reader: Reader<'a>,
    left: u16,
}

impl<'a> MultiResults<'a> {
    /// Begins with the body.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let left = reader.u16().ok_or(DecodeError::Truncated("number of results"))?;
        Ok(Self { reader, left })
    }

    fn read(&mut self) -> Result<MultiEntry<'a>, DecodeError> {
        let (Some(index), Some(status)) = (self.reader.u16(), self.reader.u16()) else {
            return Err(DecodeError::Truncated("result"));
        };
        let result = match Status::from_u16(status) {
            Status::Error(code) => Err(code),
            Status::Ok | Status::NotFound => Ok(Versions::read(&mut self.reader)?),
        };
        Ok(MultiEntry { index, result })
    }
}

impl<'a> Iterator for MultiResults<'a> {
    type Item = Result<MultiEntry<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            let trailing = self.reader.len();
            self.reader = Reader::new(&[]);
            return (trailing > 0).then_some(Err(DecodeError::Trailing(trailing)));
        }
        let entry = self.read();
        self.left = if entry.is_ok() { self.left - 1 } else { 0 };
        if entry.is_err() {
            self.reader = Reader::new(&[]);
        }
        Some(entry)
    }
}
