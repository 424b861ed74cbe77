//! The memtable: recent writes, readable at once, sorted when they go to disk.
//!
//! Owns the in-memory versions of one engine between two flushes. It knows nothing of the log
//! or of commits; the engine decides which sequence numbers a reader may see.
//!
//! Three structures over two kinds of records (keys and versions): a hash index for point reads
//! and overwrites, which therefore never touch the ordered index; an ordered index that finds
//! the predecessor of a new key; a linked list of keys in order for scans. The versions of one
//! key are chained newest first. Everything is addressed by index: no pointers, no `unsafe`.

mod arena;
mod back;
mod hash;
mod order;

use crate::prefetch::{prefetch, prefetch_bytes};
use crate::prefix::{Learner, Prefixes};
use crate::{EntryKind, EntryRef, Seq};
pub(crate) use arena::ChunkPool;
use arena::{Arena, Segments, Span};
use hash::HashIndex;
use order::Order;
use std::rc::Rc;

const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Key {
    bytes: Span,
    newest: u32,
    next: u32,
}

#[derive(Debug)]
struct Version {
    seq: Seq,
    value: Span,
    key: u32,
    older: u32,
    kind: EntryKind,
}

/// Place of one version in its [`Memtable`]. Stays valid, and keeps naming the same version,
/// while more is inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pos(u32);

/// Recent writes of one engine, ordered and hashed. See the module documentation.
#[derive(Debug)]
pub struct Memtable {
    arena: Arena,
    keys: Segments<Key, 1024>,
    versions: Segments<Version, 1024>,
    hash: HashIndex,
    order: Order,
    /// How `order` numbers keys.
    prefixes: Prefixes,
    /// Learns numbers for the next memtable.
    learner: Learner,
    /// The smallest key.
    head: u32,
}

impl Default for Memtable {
    fn default() -> Self {
        Memtable {
            arena: Arena::default(),
            keys: Segments::default(),
            versions: Segments::default(),
            hash: HashIndex::default(),
            order: Order::default(),
            prefixes: Prefixes::default(),
            learner: Learner::default(),
            head: NONE,
        }
    }
}

impl Memtable {
    /// An empty memtable.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty memtable that takes memory from a pool and leaves it there.
    pub(crate) fn pooled(pool: Rc<ChunkPool>) -> Self {
        Memtable { arena: Arena::new(pool), ..Self::default() }
    }

    /// An empty memtable for keys like those of this one, with the same pool.
    pub(crate) fn successor(&self) -> Self {
        let prefixes = self.learner.prefixes();
        Memtable { prefixes, ..Self::pooled(self.arena.pool()) }
    }

    /// Adds a version; `hash` is [`crate::key_hash`] of the key. Constant time for a key that is
    /// there already when `seq` is the key's newest (otherwise its place in the chain of versions
    /// is looked for). The same key and `seq` again replaces the version.
    pub fn insert(&mut self, seq: Seq, kind: EntryKind, key: &[u8], hash: u64, value: &[u8]) {
        match self.find(key, hash) {
            Some(id) => {
                let (_, value) = self.arena.push(b"", value);
                self.add_version(id, Version { seq, value, key: id, older: NONE, kind });
            }
            None => self.add_key(seq, kind, key, hash, value),
        }
    }

    fn find(&self, key: &[u8], hash: u64) -> Option<u32> {
        self.hash.find(hash, |id| self.arena.get(self.keys[id].bytes) == key)
    }

    fn add_key(&mut self, seq: Seq, kind: EntryKind, key: &[u8], hash: u64, value: &[u8]) {
        let (bytes, value) = self.arena.push(key, value);
        let id = self.keys.push(Key { bytes, newest: NONE, next: NONE });
        self.keys[id].newest =
            self.versions.push(Version { seq, value, key: id, older: NONE, kind });
        self.hash.insert(hash, id);
        self.learner.see(key);
        let (keys, arena) = (&self.keys, &self.arena);
        let before = self
            .order
            .insert(self.prefixes.of(key), id, |other| arena.get(keys[other].bytes).cmp(key));
        let link = match before {
            Some(before) => &mut self.keys[before].next,
            None => &mut self.head,
        };
        let next = std::mem::replace(link, id);
        self.keys[id].next = next;
    }

    fn add_version(&mut self, key: u32, mut version: Version) {
        let mut newer = NONE;
        let mut at = self.keys[key].newest;
        while at != NONE && self.versions[at].seq > version.seq {
            newer = at;
            at = self.versions[at].older;
        }
        if at != NONE && self.versions[at].seq == version.seq {
            version.older = self.versions[at].older;
            self.versions[at] = version;
            return;
        }
        version.older = at;
        let id = self.versions.push(version);
        match newer {
            NONE => self.keys[key].newest = id,
            newer => self.versions[newer].older = id,
        }
    }

    /// The newest version of `key` with a sequence number of at most `at`; with
    /// `Seq(u64::MAX)` the newest of all. `hash` is [`crate::key_hash`] of the key.
    pub fn get(&self, key: &[u8], hash: u64, at: Seq) -> Option<EntryRef<'_>> {
        let mut version = self.keys[self.find(key, hash)?].newest;
        while version != NONE {
            if self.versions[version].seq <= at {
                return Some(self.entry(Pos(version)));
            }
            version = self.versions[version].older;
        }
        None
    }

    /// First step of looking ahead to [`Memtable::get`]: asks for the hash index.
    pub(crate) fn prefetch_slot(&self, hash: u64) {
        self.hash.prefetch(hash);
    }

    /// Second step: asks for the record of a key of this hash. What it returns, if there is such
    /// a key, the next steps take.
    pub(crate) fn prefetch_key(&self, hash: u64) -> Option<u32> {
        let id = self.hash.find(hash, |_| true)?;
        prefetch(&self.keys[id]);
        Some(id)
    }

    /// Third step: asks for the key and its newest version.
    pub(crate) fn prefetch_version(&self, id: u32) {
        let key = &self.keys[id];
        prefetch_bytes(self.arena.get(key.bytes));
        prefetch(&self.versions[key.newest]);
    }

    /// Fourth step: asks for the value.
    pub(crate) fn prefetch_value(&self, id: u32) {
        prefetch_bytes(self.arena.get(self.versions[self.keys[id].newest].value));
    }

    /// Memory held, in bytes: everything allocated, filled or not.
    pub fn bytes(&self) -> usize {
        self.arena.held()
            + self.keys.held()
            + self.versions.held()
            + self.hash.held()
            + self.order.held()
            + self.prefixes.held()
            + self.learner.held()
    }

    /// Number of versions.
    pub fn len(&self) -> usize {
        self.versions.len()
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first version in (key, newest first) order.
    pub fn first(&self) -> Option<Pos> {
        self.newest_of(self.head)
    }

    /// The newest version of the first key that is not before `key`.
    pub fn seek(&self, key: &[u8]) -> Option<Pos> {
        let before = self
            .order
            .before(self.prefixes.of(key), |other| self.arena.get(self.keys[other].bytes).cmp(key));
        self.newest_of(before.map_or(self.head, |before| self.keys[before].next))
    }

    /// The version after `pos` in (key, newest first) order.
    pub fn next(&self, pos: Pos) -> Option<Pos> {
        let version = &self.versions[pos.0];
        match version.older {
            NONE => self.newest_of(self.keys[version.key].next),
            older => Some(Pos(older)),
        }
    }

    /// Whether two versions are of one key.
    pub(crate) fn same_key(&self, one: Pos, other: Pos) -> bool {
        self.versions[one.0].key == self.versions[other.0].key
    }

    /// Asks for the memory of what follows `pos`, for a reader that will have all of it: the value
    /// of the next key, the version of the one after, the record of the third. Each step finds
    /// what the steps before asked for, so none waits.
    pub(crate) fn prefetch_after(&self, pos: Pos) {
        let record = |key: u32| (key != NONE).then(|| &self.keys[key]);
        let Some(first) = record(self.keys[self.versions[pos.0].key].next) else { return };
        prefetch_bytes(self.arena.get(self.versions[first.newest].value));
        let Some(second) = record(first.next) else { return };
        prefetch(&self.versions[second.newest]);
        prefetch_bytes(self.arena.get(second.bytes));
        record(second.next).into_iter().for_each(prefetch);
    }

    fn newest_of(&self, key: u32) -> Option<Pos> {
        (key != NONE).then(|| Pos(self.keys[key].newest))
    }

    /// The version at `pos`.
    pub fn entry(&self, pos: Pos) -> EntryRef<'_> {
        let version = &self.versions[pos.0];
        EntryRef {
            key: self.arena.get(self.keys[version.key].bytes),
            seq: version.seq,
            kind: version.kind,
            value: self.arena.get(version.value),
        }
    }
}

#[cfg(test)]
mod tests;
