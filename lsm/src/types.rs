//! The engine's small vocabulary.

/// Position of a write in the engine's history. Strictly increasing per engine; zero means
/// "before everything".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

/// Number of a table file within one engine folder (`000123.sst`). Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u64);

/// Identity of a table's bytes, random, written into the file and its checksums; it travels with
/// hard links, so that a file under a wrong name is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableUid(pub u64);

/// What a stored entry says about its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// The key has this value.
    Put = 1,
    /// The key has no value (hides older entries).
    Delete = 2,
    /// The key has a value until a moment, and none (as after a delete) from then on. The
    /// stored value begins with the moment: [`EXPIRY_BYTES`] bytes, little endian.
    PutUntil = 3,
}

/// Bytes of the expiry before the value of a [`EntryKind::PutUntil`].
pub const EXPIRY_BYTES: usize = 8;

/// A moment by the wall clock, milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl EntryKind {
    /// Decodes the byte of the on-disk formats.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(EntryKind::Put),
            2 => Some(EntryKind::Delete),
            3 => Some(EntryKind::PutUntil),
            _ => None,
        }
    }

    /// Whether an entry of this kind can have a stored value of `len` bytes.
    pub(crate) fn allows(self, len: usize) -> bool {
        match self {
            EntryKind::Put => true,
            EntryKind::Delete => len == 0,
            EntryKind::PutUntil => len >= EXPIRY_BYTES,
        }
    }

    /// What a reader at `now` sees of an entry of this kind with this stored value.
    pub fn visible(self, stored: &[u8], now: Millis) -> Option<&[u8]> {
        self.visible_at(stored, || now)
    }

    /// [`EntryKind::visible`] that looks at the clock only where the time matters.
    pub(crate) fn visible_at(self, stored: &[u8], now: impl FnOnce() -> Millis) -> Option<&[u8]> {
        match self {
            EntryKind::Put => Some(stored),
            EntryKind::Delete => None,
            EntryKind::PutUntil => {
                let (expiry, value) = stored.split_first_chunk()?;
                (Millis(u64::from_le_bytes(*expiry)) > now()).then_some(value)
            }
        }
    }
}

/// A borrowed entry, as iterators yield it. Entries are ordered by key, then newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// The user key.
    pub key: &'a [u8],
    /// When it was written.
    pub seq: Seq,
    /// What it says.
    pub kind: EntryKind,
    /// The value as it is stored; empty for a delete, behind its expiry for an entry that has one.
    pub value: &'a [u8],
}

impl<'a> EntryRef<'a> {
    /// The value for a reader at `now`; `None` when deleted or expired.
    pub fn visible(&self, now: Millis) -> Option<&'a [u8]> {
        self.kind.visible(self.value, now)
    }

    /// [`EntryRef::visible`] that looks at the clock only where the time matters.
    pub(crate) fn visible_at(&self, now: impl FnOnce() -> Millis) -> Option<&'a [u8]> {
        self.kind.visible_at(self.value, now)
    }

    /// From when on the entry is not visible; `None`: it does not expire.
    pub(crate) fn expires(&self) -> Option<Millis> {
        let expiry = self.value.first_chunk().filter(|_| self.kind == EntryKind::PutUntil)?;
        Some(Millis(u64::from_le_bytes(*expiry)))
    }

    /// The same entry, or the delete that it became by expiring.
    pub(crate) fn expired_as_delete(self, now: Millis) -> Self {
        let expired = self.kind == EntryKind::PutUntil && self.visible(now).is_none();
        if expired { EntryRef { kind: EntryKind::Delete, value: &[], ..self } } else { self }
    }
}

/// When a write counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// The log batch that holds the write was synced to the device (group commit).
    #[default]
    Durable,
    /// The log batch was handed to the device; it is synced within
    /// [`crate::Options::sync_interval`]. A power failure may lose it, a process crash cannot.
    Buffered,
}

/// The hash of a key that filters and the memtable index share (xxh3, seed 0: part of the table
/// format).
pub fn key_hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

/// The hash under which filters know the prefix of a key (part of the table format). Seeded with
/// the prefix's length, so that a prefix is not taken for a whole key of the same bytes.
pub(crate) fn prefix_hash(prefix: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(prefix, prefix.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_visible_until_its_moment_and_a_delete_from_then_on() {
        let stored = [&1000u64.to_le_bytes()[..], b"value"].concat();
        let entry = EntryRef { key: b"k", seq: Seq(1), kind: EntryKind::PutUntil, value: &stored };
        assert_eq!(entry.visible(Millis(999)), Some(&b"value"[..]));
        assert_eq!(entry.visible(Millis(1000)), None);
        assert_eq!(entry.expired_as_delete(Millis(999)), entry);
        let gone = entry.expired_as_delete(Millis(1000));
        assert_eq!((gone.kind, gone.value), (EntryKind::Delete, &b""[..]));
        let put = EntryRef { kind: EntryKind::Put, ..entry };
        assert_eq!(put.expired_as_delete(Millis(u64::MAX)), put);
    }
}
