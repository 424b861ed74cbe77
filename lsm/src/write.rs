//! Write batches: the unit of atomicity, encoded once in the form the log stores.
//!
//! Owns the record encoding (`docs/FORMATS.md`, "Log segment"); knows nothing of files.

use crate::{EXPIRY_BYTES, EntryKind, Error, KeyspaceId, Millis, Options, Result};
use std::time::Duration;

/// Largest encoded header of one record: kind, keyspace, two lengths, expiry.
const RECORD_HEADER_MAX: usize = 1 + 5 + 5 + 5 + EXPIRY_BYTES;
/// Set in the first byte of a record that names its keyspace; the default one is not named.
const NAMES_KEYSPACE: u8 = 0x80;

/// A group of puts and deletes, in one or several keyspaces, that become visible and durable
/// together.
#[derive(Debug, Clone, Default)]
pub struct WriteBatch {
    encoded: Vec<u8>,
    len: usize,
    logical: usize,
    longest_key: usize,
    longest_value: usize,
    /// Where the next entries go.
    keyspace: KeyspaceId,
    /// Every keyspace with entries, each once.
    keyspaces: Vec<KeyspaceId>,
}

impl WriteBatch {
    /// An empty batch for the default keyspace.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is added from now on belongs to `keyspace`.
    pub fn in_keyspace(&mut self, keyspace: KeyspaceId) -> &mut Self {
        self.keyspace = keyspace;
        self
    }

    /// Sets `key` to `value`, for ever or as long as the keyspace's default says.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.push(EntryKind::Put, key, [&[], value]);
    }

    /// Sets `key` to `value` until `expires_at`. From that moment on readers see no value.
    pub fn put_until(&mut self, key: &[u8], value: &[u8], expires_at: Millis) {
        self.push(EntryKind::PutUntil, key, [&expires_at.0.to_le_bytes(), value]);
    }

    /// Removes `key`.
    pub fn delete(&mut self, key: &[u8]) {
        self.push(EntryKind::Delete, key, [&[], &[]]);
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

    /// Empties the batch and keeps its memory; what follows belongs to the default keyspace.
    pub fn clear(&mut self) {
        self.encoded.clear();
        self.keyspaces.clear();
        self.keyspace = KeyspaceId::DEFAULT;
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

    /// Every keyspace with entries, each once.
    pub(crate) fn keyspaces(&self) -> &[KeyspaceId] {
        &self.keyspaces
    }

    /// The same batch with an expiry for every put that has none and whose keyspace has a
    /// default (`ttl_of`).
    pub(crate) fn with_default_expiry(
        &self,
        now: Millis,
        ttl_of: impl Fn(KeyspaceId) -> Option<Duration>,
    ) -> Self {
        let mut batch = WriteBatch::new();
        // The batch encoded these records itself; there is nothing to be wrong in them.
        for record in Records::new(&self.encoded).flatten() {
            let ttl = ttl_of(record.keyspace).filter(|_| record.kind == EntryKind::Put);
            batch.in_keyspace(record.keyspace);
            match ttl {
                Some(ttl) => {
                    let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
                    let expires_at = Millis(now.0.saturating_add(millis));
                    batch.put_until(record.key, record.value, expires_at);
                }
                None => batch.push(record.kind, record.key, [&[], record.value]),
            }
        }
        batch
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

    /// Adds a record; `value` is what stands before the value, and the value.
    fn push(&mut self, kind: EntryKind, key: &[u8], value: [&[u8]; 2]) {
        let stored = value[0].len() + value[1].len();
        self.encoded.reserve(RECORD_HEADER_MAX + key.len() + value[1].len());
        if self.keyspace == KeyspaceId::DEFAULT {
            self.encoded.push(kind as u8);
        } else {
            self.encoded.push(kind as u8 | NAMES_KEYSPACE);
            put_varint(&mut self.encoded, self.keyspace.0 as usize);
        }
        put_varint(&mut self.encoded, key.len());
        put_varint(&mut self.encoded, stored);
        self.encoded.extend_from_slice(key);
        value.iter().for_each(|part| self.encoded.extend_from_slice(part));
        if self.keyspaces.last() != Some(&self.keyspace) && !self.keyspaces.contains(&self.keyspace)
        {
            self.keyspaces.push(self.keyspace);
        }
        self.len += 1;
        self.logical += key.len() + value[1].len();
        self.longest_key = self.longest_key.max(key.len());
        self.longest_value = self.longest_value.max(stored);
    }
}

/// One decoded record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// Where it belongs.
    pub keyspace: KeyspaceId,
    /// What it says.
    pub kind: EntryKind,
    /// The key.
    pub key: &'a [u8],
    /// The value as it is stored, see [`crate::EntryRef::value`].
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
        let first = *self.bytes.get(self.at)?;
        let kind = EntryKind::from_byte(first & !NAMES_KEYSPACE)?;
        let mut at = self.at + 1;
        let mut keyspace = KeyspaceId::DEFAULT;
        if first & NAMES_KEYSPACE != 0 {
            keyspace = KeyspaceId(u32::try_from(get_varint(self.bytes, &mut at)?).ok()?);
        }
        let key_len = get_varint(self.bytes, &mut at)?;
        let value_len = get_varint(self.bytes, &mut at)?;
        let key_end = at.checked_add(key_len)?;
        let value_end = key_end.checked_add(value_len)?;
        let key = self.bytes.get(at..key_end)?;
        let value = self.bytes.get(key_end..value_end)?;
        if !kind.allows(value.len()) {
            return None;
        }
        self.at = value_end;
        Some(Record { keyspace, kind, key, value })
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

    /// Keyspace, kind, key, value, expiry.
    type Op = (u32, EntryKind, Vec<u8>, Vec<u8>, u64);

    fn op() -> impl Strategy<Value = Op> {
        let kind =
            prop_oneof![Just(EntryKind::Put), Just(EntryKind::Delete), Just(EntryKind::PutUntil)];
        let bytes = || proptest::collection::vec(any::<u8>(), 0..300);
        (prop_oneof![Just(0), Just(1), any::<u32>()], kind, bytes(), bytes(), any::<u64>())
    }

    fn batch_of(ops: &[Op]) -> WriteBatch {
        let mut batch = WriteBatch::new();
        for (keyspace, kind, key, value, expiry) in ops {
            batch.in_keyspace(KeyspaceId(*keyspace));
            match kind {
                EntryKind::Put => batch.put(key, value),
                EntryKind::Delete => batch.delete(key),
                EntryKind::PutUntil => batch.put_until(key, value, Millis(*expiry)),
            }
        }
        batch
    }

    proptest! {
        #[test]
        fn what_is_put_is_read_back(ops in proptest::collection::vec(op(), 0..20)) {
            let batch = batch_of(&ops);
            prop_assert_eq!(batch.len(), ops.len());
            let read: Vec<_> = Records::new(batch.encoded()).map(|r| r.unwrap()).collect();
            prop_assert_eq!(read.len(), ops.len());
            for (record, (keyspace, kind, key, value, expiry)) in read.iter().zip(&ops) {
                prop_assert_eq!(record.keyspace, KeyspaceId(*keyspace));
                prop_assert!(batch.keyspaces().contains(&record.keyspace));
                prop_assert_eq!(record.kind, *kind);
                prop_assert_eq!(record.key, &key[..]);
                let before = Millis(expiry.saturating_sub(1));
                let seen = record.kind.visible(record.value, before);
                let gone = *kind == EntryKind::Delete || (*kind == EntryKind::PutUntil && *expiry == 0);
                prop_assert_eq!(seen, (!gone).then_some(&value[..]));
            }
        }

        #[test]
        fn a_default_expiry_changes_only_puts_of_its_keyspace(
            ops in proptest::collection::vec(op(), 0..20), ttl in 0u64..1000)
        {
            let ttl_of = |id: KeyspaceId| (id.0 == 1).then(|| Duration::from_millis(ttl));
            let batch = batch_of(&ops).with_default_expiry(Millis(5000), ttl_of);
            let expected: Vec<Op> = ops.into_iter().map(|op| match op {
                (1, EntryKind::Put, key, value, _) =>
                    (1, EntryKind::PutUntil, key, value, 5000 + ttl),
                op => op,
            }).collect();
            let expected = batch_of(&expected);
            prop_assert_eq!(batch.encoded(), expected.encoded());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let records = Records::new(&bytes).count();
            prop_assert!(records <= bytes.len());
        }
    }

    /// `docs/FORMATS.md`, "Log segment": these bytes are what version 2 is.
    #[test]
    fn golden_bytes_of_every_kind_of_record() {
        let mut batch = WriteBatch::new();
        batch.put(b"key", b"value");
        batch.delete(b"key");
        batch.put_until(b"k", b"v", Millis(0x0102_0304));
        batch.in_keyspace(KeyspaceId(300)).put(b"k", b"");
        batch.delete(b"");
        let golden: [&[u8]; 5] = [
            b"\x01\x03\x05keyvalue",
            b"\x02\x03\x00key",
            b"\x03\x01\x09k\x04\x03\x02\x01\0\0\0\0v",
            b"\x81\xac\x02\x01\x00k",
            b"\x82\xac\x02\x00\x00",
        ];
        assert_eq!(batch.encoded(), golden.concat());
        let refused: [&[u8]; 5] = [
            b"\x00\x00\x00",                     // no kind
            b"\x02\x00\x01v",                    // a delete with a value
            b"\x03\x01\x07k1234567",             // no room for the expiry
            b"\x81\xff\xff\xff\xff\x10\x00\x00", // a keyspace beyond 32 bits
            b"\x41\x00\x00",                     // an unknown flag
        ];
        for bytes in refused {
            assert_eq!(Records::new(bytes).next(), Some(Err(0)), "{bytes:?}");
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
