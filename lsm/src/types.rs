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
}

impl EntryKind {
    /// Decodes the byte of the on-disk formats.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(EntryKind::Put),
            2 => Some(EntryKind::Delete),
            _ => None,
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
    /// Value or delete marker.
    pub kind: EntryKind,
    /// The value; empty for a delete.
    pub value: &'a [u8],
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
