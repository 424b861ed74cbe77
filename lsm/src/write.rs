//! Write batches: the unit of atomicity, encoded once in the form the log stores.
//!
//! Owns the record encoding (`docs/FORMATS.md`, "Log segment"); knows nothing of files.

use crate::{EntryKind, Error, Options, Result};

/// Largest encoded header of one record: kind and two lengths.
const RECORD_HEADER_MAX: usize = 1 + 5 + 5;

/// A group of puts and deletes that become visible and durable together.
#[derive(Debug, Clone, Default)]
pub struct WriteBatch {
    encoded: Vec<u8>,
    len: usize,
    logical: usize,
    longest_key: usize,
    longest_value: usize,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.push(EntryKind::Put, key, value);
    }

    /// Removes `key`.
    pub fn delete(&mut self, key: &[u8]) {
        self.push(EntryKind::Delete, key, &[]);
    }

    /// Number of puts and deletes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Encoded size in bytes.
    pub fn bytes(&self) -> usize {
        self.encoded.len()
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.encoded.clear();
        self.len = 0;
        self.logical = 0;
        self.longest_key = 0;
        self.longest_value = 0;
    }

    /// Bytes of keys and values.
    pub(crate) fn logical_bytes(&self) -> usize {
        self.logical
    }

    /// The records in log encoding.
    pub(crate) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Refuses what breaks the engine's limits.
    pub(crate) fn check(&self, options: &Options) -> Result<()> {
        let limits = [
            ("key", self.longest_key, options.max_key_bytes),
            ("value", self.longest_value, options.max_value_bytes),
            ("batch", self.encoded.len(), options.max_batch_bytes()),
        ];
        match limits.into_iter().find(|(_, size, limit)| size > limit) {
            Some((what, size, limit)) => Err(Error::TooLarge { what, size, limit }),
            None => Ok(()),
        }
    }

    fn push(&mut self, kind: EntryKind, key: &[u8], value: &[u8]) {
        self.encoded.reserve(RECORD_HEADER_MAX + key.len() + value.len());
        self.encoded.push(kind as u8);
        put_varint(&mut self.encoded, key.len());
        put_varint(&mut self.encoded, value.len());
        self.encoded.extend_from_slice(key);
        self.encoded.extend_from_slice(value);
        self.len += 1;
        self.logical += key.len() + value.len();
        self.longest_key = self.longest_key.max(key.len());
        self.longest_value = self.longest_value.max(value.len());
    }
}

/// One decoded record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// Put or delete.
    pub kind: EntryKind,
    /// The key.
    pub key: &'a [u8],
    /// The value; empty for a delete.
    pub value: &'a [u8],
}

/// Walks encoded records; an item is `Err(offset)` where the bytes make no sense.
pub(crate) struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Records { bytes, at: 0 }
    }

    fn decode(&mut self) -> Option<Record<'a>> {
        let kind = EntryKind::from_byte(*self.bytes.get(self.at)?)?;
        let mut at = self.at + 1;
        let key_len = get_varint(self.bytes, &mut at)?;
        let value_len = get_varint(self.bytes, &mut at)?;
        let key_end = at.checked_add(key_len)?;
        let value_end = key_end.checked_add(value_len)?;
        let key = self.bytes.get(at..key_end)?;
        let value = self.bytes.get(key_end..value_end)?;
        if kind == EntryKind::Delete && !value.is_empty() {
            return None;
        }
        self.at = value_end;
        Some(Record { kind, key, value })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = std::result::Result<Record<'a>, usize>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let start = self.at;
        match self.decode() {
            Some(record) => Some(Ok(record)),
            None => {
                self.at = self.bytes.len();
                Some(Err(start))
            }
        }
    }
}

/// Appends a length as LEB128 (at most five bytes).
fn put_varint(into: &mut Vec<u8>, mut value: usize) {
    debug_assert!(u32::try_from(value).is_ok(), "lengths are checked against 32-bit limits");
    while value >= 0x80 {
        into.push((value as u8) | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

/// Reads a LEB128 length of at most 32 bits.
fn get_varint(bytes: &[u8], at: &mut usize) -> Option<usize> {
    let mut value = 0u64;
    for shift in (0..35).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(value).ok().map(|v| v as usize);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_put_is_read_back(
            entries in proptest::collection::vec(
                (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..300),
                 proptest::collection::vec(any::<u8>(), 0..300)), 0..20)
        ) {
            let mut batch = WriteBatch::new();
            for (put, key, value) in &entries {
                if *put { batch.put(key, value) } else { batch.delete(key) }
            }
            prop_assert_eq!(batch.len(), entries.len());
            let read: Vec<_> = Records::new(batch.encoded()).map(|r| r.unwrap()).collect();
            prop_assert_eq!(read.len(), entries.len());
            for (record, (put, key, value)) in read.iter().zip(&entries) {
                prop_assert_eq!(record.kind == EntryKind::Put, *put);
                prop_assert_eq!(record.key, &key[..]);
                prop_assert_eq!(record.value, if *put { &value[..] } else { &[][..] });
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let records = Records::new(&bytes).count();
            prop_assert!(records <= bytes.len());
        }
    }

    #[test]
    fn limits_name_what_is_too_large() {
        let options = Options::tiny();
        let mut batch = WriteBatch::new();
        batch.put(&vec![0; options.max_key_bytes + 1], b"");
        assert!(matches!(batch.check(&options), Err(Error::TooLarge { what: "key", .. })));
        batch.clear();
        batch.put(b"k", &vec![0; options.max_value_bytes + 1]);
        assert!(matches!(batch.check(&options), Err(Error::TooLarge { what: "value", .. })));
        batch.clear();
        batch.put(b"k", b"v");
        assert!(batch.check(&options).is_ok());
    }
}
